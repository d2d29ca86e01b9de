"""One prediction: a place, the image, the model server, the answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from oteo_core import tracing
from oteo_core.context import current
from oteo_core.datasets import Finding
from oteo_core.errors import DeadlineExceeded, OteoError, Unimplemented
from oteo_core.images import ImageHeader
from oteo_core.packages import ModelPackage
from oteo_gateway.prediction.admission import Admission
from oteo_gateway.prediction.answer import ClassAnswer, classify, label
from oteo_gateway.prediction.attention import explain
from oteo_gateway.prediction.drawing import draw_answer
from oteo_gateway.prediction.inputs import Inputs, Picture, at_image
from oteo_gateway.prediction.notes import notes_of
from oteo_gateway.prediction.outputs import CLASSES, OUTPUTS, check_outputs
from oteo_gateway.prediction.preparation import PreparedImage, measured, prepare_image
from oteo_gateway.prediction.regions import MaskForm, ObjectAnswer, RegionAnswer, find_boxes, find_classes, find_instances
from oteo_gateway.prediction.routing import OFF, Route, RoutedModel, Routes, adapt
from oteo_gateway.prediction.tensors import read_outputs
from oteo_gateway.prediction.tiling import join_tiles, on_canvas

_TILES_AT_ONCE = 4

Answer = ClassAnswer | ObjectAnswer | RegionAnswer
"""What a model says of an image, by its task."""


@dataclass(frozen=True, slots=True)
class Query:
    """What is asked: one of the three image fields is set; `picture` where the frame is decoded already."""

    deployment_id: str
    content: bytes = b""
    sample: str = ""
    uri: str = ""
    top_k: int = 0
    operating_point: str = ""
    score_threshold: float | None = None
    explain: bool = False
    frame: int | None = None
    all_frames: bool = False
    picture: Picture | None = None
    tiling: bool = False
    masks: MaskForm = "runs"
    draw: bool = False
    alias: str = ""
    adapt: int = 0


@dataclass(frozen=True, slots=True)
class Times:
    """Where the time went, seconds: waiting for a place, decoding and resizing, the model server there and back."""

    queue: float
    decode: float
    inference: float
    total: float


@dataclass(frozen=True, slots=True)
class Prediction:
    """An answer with what it came from."""

    answer: Answer
    deployment: str
    model: str
    version: str
    header: ImageHeader
    sha256: str
    shift: tuple[float, float] | None
    times: Times
    explanation: bytes = b""
    drawing: bytes = b""
    frame: int = 0
    frame_count: int = 1
    findings: tuple[Finding, ...] = ()
    alias: str = ""
    translator: str = ""
    suggested: str = ""


class ModelCalls(Protocol):
    """The model server's replicas as predictions need them."""

    async def infer(self, route: Route, request: bytes, seconds: float) -> bytes:
        """Have what a route names answer on one of its replicas, or on another where that one fails.

        Raises
        ------
        Unavailable
            ``DEPLOYMENT_NOT_READY``: none answered.
        DeadlineExceeded
            The time was up.
        """


class Observer(Protocol):
    """Takes the figures of a prediction."""

    def predicted(self, model: str, times: Times, shift: tuple[float, float] | None) -> None:
        """One was answered; `shift` is its distance from the training images and the p-value."""

    def refused(self, deployment: str, reason: str) -> None:
        """One was not."""


class ShadowTraffic(Protocol):
    """Takes copies of what was answered."""

    def offer(self, routes: Routes, query: Query, answer: Answer, seconds: float) -> None:
        """Have the deployment's shadows answer too, later; returns at once and never fails."""


class Watch(Protocol):
    """Takes what the watch for shift needs of a prediction; must not block."""

    def saw(self, routes: Routes, package: ModelPackage, sha256: str, statistics: NDArray[np.float64], answer: Answer) -> None:
        """A model of a deployment, by its package, answered for an image."""


class Predictor:
    """Answers for images by deployed models.

    Parameters
    ----------
    find
        Gives a deployment that answers.
    calls
        The model server's replicas.
    inputs
        Opens and decodes images.
    admission
        Bound on what runs and waits.
    decoders
        Threads that read, decode and resize.
    default_timeout
        Seconds of the model server's time where the caller gave no deadline.
    observer
        Takes the figures.
    shadows
        Takes copies of what was answered, for the models that are only compared; None: nobody does.
    adapt_below
        An image of which a smaller share of the training images lie farther out is taken for a shifted one, 0 to 1.
    watch
        Takes the images' statistics; None: nobody watches.
    """

    def __init__(
        self,
        find: Callable[[str], Awaitable[Routes]],
        calls: ModelCalls,
        inputs: Inputs,
        admission: Admission,
        decoders: ThreadPoolExecutor,
        *,
        default_timeout: float,
        observer: Observer,
        shadows: ShadowTraffic | None = None,
        adapt_below: float = 0.05,
        watch: Watch | None = None,
    ) -> None:
        self._find = find
        self._calls = calls
        self._inputs = inputs
        self._admission = admission
        self._decoders = decoders
        self._default_timeout = default_timeout
        self._observer = observer
        self._shadows = shadows
        self._adapt_below = adapt_below
        self._watch = watch

    async def predict(self, query: Query, remaining: Callable[[], float | None]) -> Prediction:
        """Answer for one image.

        Parameters
        ----------
        query
            The image and the deployment.
        remaining
            Gives the seconds left of the caller's deadline; None without one.

        Raises
        ------
        NotFound, FailedPrecondition, Unavailable, InvalidArgument, ResourceExhausted, DeadlineExceeded
            As the contract says.
        """
        begin = time.perf_counter()
        try:
            routes = await self._find(query.deployment_id)
            first = routes.first.plain.package
            if first.task not in OUTPUTS:
                raise Unimplemented(f"{first.name} is for {first.task}, which is not served.", reason="TASK_NOT_SERVED")
            async with self._admission.enter(len(query.content), remaining, current().caller) as queued:
                tracing.past("queue", queued)
                loop = asyncio.get_running_loop()
                later = self._measured_later(query, routes)
                route, prepared = await loop.run_in_executor(self._decoders, self._prepare, query, routes, later)
                tracing.past("decode", prepared.seconds)
                package = route.package
                sent = time.perf_counter()
                left = remaining()
                measuring = self._measure_beside(route, prepared, query) if later else None
                try:
                    responses = await self._infer(route, prepared, query, self._default_timeout if left is None else left)
                    answered = time.perf_counter()
                    if measuring is not None:
                        prepared = await measuring
                finally:
                    if measuring is not None:
                        measuring.cancel()
                # Drawing regions is work, and is done in the place that was given.
                found = [read_outputs(response) for response in responses]
                version = found[0][1]
                if package.task in CLASSES and not (query.explain or query.draw):
                    answer, explanation, drawing = self._answer(query, package, found[0][0], prepared), b"", b""
                else:
                    answer, explanation, drawing = await asyncio.get_running_loop().run_in_executor(
                        self._decoders, self._answer_and_draw, query, package, [outputs for outputs, _ in found], prepared
                    )
        except OteoError as error:
            self._observer.refused(query.deployment_id if error.reason != "DEPLOYMENT_NOT_FOUND" else "", error.reason)
            raise
        times = Times(queue=queued, decode=prepared.seconds, inference=answered - sent, total=time.perf_counter() - begin)
        self._observer.predicted(package.id, times, prepared.shift)
        if self._shadows is not None and routes.shadows:
            self._shadows.offer(routes, query, answer, times.inference)
        if self._watch is not None and prepared.statistics is not None:
            self._watch.saw(routes, route.model.plain.package, prepared.sha256, prepared.statistics, answer)
        return Prediction(
            answer=answer,
            deployment=route.deployment,
            model=package.name,
            version=version,
            header=prepared.header,
            sha256=prepared.sha256,
            shift=prepared.shift,
            times=times,
            explanation=explanation,
            drawing=drawing,
            frame=prepared.frame,
            frame_count=prepared.frame_count,
            findings=(*prepared.findings, *route.notes, *notes_of(prepared, package)),
            alias=route.model.alias,
            translator=route.translator,
            suggested=route.suggested,
        )

    async def ask(self, query: Query, routes: Routes, model: RoutedModel, pool: Executor) -> tuple[Answer, float]:
        """Have one model of a deployment answer, for comparison: outside the places that callers wait for.

        Returns
        -------
        answer, seconds
            What it says, and the model server's time there and back.
        """
        loop = asyncio.get_running_loop()

        def bring() -> tuple[Route, PreparedImage]:
            return self._bring(query, routes, Route(routes.name, model, model.plain), self._read(query))

        route, prepared = await loop.run_in_executor(pool, bring)
        sent = time.perf_counter()
        responses = await self._infer(route, prepared, query, self._default_timeout)
        seconds = time.perf_counter() - sent
        parts = [read_outputs(response)[0] for response in responses]
        answer, _, _ = await loop.run_in_executor(pool, self._answer_and_draw, query, route.package, parts, prepared)
        return answer, seconds

    async def _infer(self, route: Route, prepared: PreparedImage, query: Query, seconds: float) -> list[bytes]:
        """Have the model answer for the image, or for each of its windows, some at a time."""
        everything = query.explain or (query.draw and route.package.task in CLASSES)
        build, identity = route.template.build, current().request_id
        if prepared.tiles is None:
            return [await self._calls.infer(route, build(prepared.pixels, everything=everything, request_id=identity), seconds)]
        places = asyncio.Semaphore(_TILES_AT_ONCE)

        async def one(part: NDArray[Any]) -> bytes:
            async with places:
                return await self._calls.infer(route, build(part, request_id=identity), seconds)

        tasks = [asyncio.ensure_future(one(part)) for part in prepared.parts]
        try:
            async with asyncio.timeout(seconds):
                return await asyncio.gather(*tasks)
        except TimeoutError as error:
            raise DeadlineExceeded(f"{len(tasks)} tiles were not answered within {seconds:.1f} s.") from error
        finally:
            # Where one failed, nobody waits for the others.
            for task in tasks:
                task.cancel()

    def _answer_and_draw(
        self, query: Query, package: ModelPackage, parts: list[dict[str, NDArray[Any]]], prepared: PreparedImage
    ) -> tuple[Answer, bytes, bytes]:
        outputs = parts[0]
        if prepared.tiles is not None:
            for part in parts:
                check_outputs(package, part)
            outputs = join_tiles(parts, prepared.tiles)
            package = on_canvas(package, prepared.tiles)
        picture = explain(package, outputs, (prepared.header.width, prepared.header.height)) if query.explain else b""
        answer = self._answer(query, package, outputs, prepared)
        return answer, picture, draw_answer(prepared.original, answer, package, outputs) if prepared.original is not None else b""

    def _answer(self, query: Query, package: ModelPackage, outputs: dict[str, NDArray[Any]], prepared: PreparedImage) -> Answer:
        check_outputs(package, outputs)
        if package.task in CLASSES:
            values = outputs["probabilities"][0].astype(np.float64)
            make = classify if package.task == "classification" else label
            return make(values, package, top_k=query.top_k, point_name=query.operating_point)
        size = (prepared.header.width, prepared.header.height)
        if package.task == "detection":
            return find_boxes(outputs, size, package, query.score_threshold)
        if package.task == "semantic_segmentation":
            return find_classes(outputs, size, package, prepared.spacing, query.masks)
        return find_instances(outputs, size, package, prepared.spacing, query.score_threshold, query.masks)

    def _measured_later(self, query: Query, routes: Routes) -> bool:
        """Tell whether the image's digest and statistics can be taken while the model answers: one model is there, and no translator depends on them.

        Only where no other prediction runs, whose decoding would wait for it: it saves a lone caller a tenth of a millisecond, and costs many a hand-over more.
        """
        one = sum(not model.shadow for model in routes.models) == 1
        return self._admission.held == 1 and one and bool(query.content) and query.picture is None and (query.adapt or routes.adapt) <= OFF

    def _measure_beside(self, route: Route, prepared: PreparedImage, query: Query) -> asyncio.Future[PreparedImage]:
        def measure() -> PreparedImage:
            with at_image():
                return measured(prepared, route.package, query.content)

        measuring = asyncio.get_running_loop().run_in_executor(self._decoders, measure)
        # Where the model fails, nobody asks how this ended.
        measuring.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        return measuring

    def _prepare(self, query: Query, routes: Routes, later: bool) -> tuple[Route, PreparedImage]:
        picture = self._read(query, hashed=not later)
        # By the file: all its frames are answered by one model.
        return self._bring(query, routes, routes.choose(picture.sha256, query.alias), picture, later=later)

    def _read(self, query: Query, *, hashed: bool = True) -> Picture:
        return query.picture or self._inputs.read(query, hashed=hashed)

    def _bring(self, query: Query, routes: Routes, route: Route, picture: Picture, *, later: bool = False) -> tuple[Route, PreparedImage]:
        """Bring an image to the input of a route's model, and put a translator before that where it belongs there; `later`: it is measured by whoever asks."""
        with at_image():
            prepared = prepare_image(picture, route.package, tiling=query.tiling, keep=query.draw)
            if later:
                return route, prepared
            prepared = measured(prepared, route.package)
        mode, tiled = query.adapt or routes.adapt, prepared.tiles is not None
        return adapt(route, prepared.shift, mode, self._adapt_below, prepared=prepared.pixels, tiled=tiled), prepared
