"""One prediction: a place, the image, the model server, the answer."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from oteo_core.datasets.named_images import ImageStore
from oteo_core.errors import InvalidArgument, OteoError, ResourceExhausted, Unimplemented
from oteo_core.images import ImageHeader, ImageLimits
from oteo_core.packages import ModelPackage
from oteo_gateway.prediction.admission import Admission
from oteo_gateway.prediction.answer import ClassAnswer, classify, label
from oteo_gateway.prediction.attention import explain
from oteo_gateway.prediction.notes import Note
from oteo_gateway.prediction.outputs import CLASSES, OUTPUTS, check_outputs
from oteo_gateway.prediction.preparation import PreparedImage, prepare_image
from oteo_gateway.prediction.regions import ObjectAnswer, RegionAnswer, find_boxes, find_classes, find_instances
from oteo_gateway.prediction.routing import Route, RoutedModel, Routes, adapt
from oteo_gateway.prediction.tensors import read_outputs

Answer = ClassAnswer | ObjectAnswer | RegionAnswer
"""What a model says of an image, by its task."""


@dataclass(frozen=True, slots=True)
class Query:
    """What is asked: one of the three image fields is set."""

    deployment_id: str
    content: bytes = b""
    sample: str = ""
    uri: str = ""
    top_k: int = 0
    operating_point: str = ""
    score_threshold: float | None = None
    explain: bool = False
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
    alias: str = ""
    translator: str = ""
    suggested: str = ""
    notes: tuple[Note, ...] = ()


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

    def predicted(self, model: str, times: Times) -> None:
        """One was answered."""

    def refused(self, deployment: str, reason: str) -> None:
        """One was not."""


class ShadowTraffic(Protocol):
    """Takes copies of what was answered."""

    def offer(self, routes: Routes, query: Query, answer: Answer, seconds: float) -> None:
        """Have the deployment's shadows answer too, later; returns at once and never fails."""


class Predictor:
    """Answers for images by deployed models.

    Parameters
    ----------
    find
        Gives a deployment that answers.
    calls
        The model server's replicas.
    images
        Images that are named.
    admission
        Bound on what runs and waits.
    limits
        Largest images.
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
    """

    def __init__(
        self,
        find: Callable[[str], Awaitable[Routes]],
        calls: ModelCalls,
        images: ImageStore,
        admission: Admission,
        limits: ImageLimits,
        decoders: ThreadPoolExecutor,
        *,
        default_timeout: float,
        observer: Observer,
        shadows: ShadowTraffic | None = None,
        adapt_below: float = 0.05,
    ) -> None:
        self._find = find
        self._calls = calls
        self._images = images
        self._admission = admission
        self._limits = limits
        self._decoders = decoders
        self._default_timeout = default_timeout
        self._observer = observer
        self._shadows = shadows
        self._adapt_below = adapt_below

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
            async with self._admission.enter() as queued:
                route, prepared = await asyncio.get_running_loop().run_in_executor(self._decoders, self._prepare, query, routes)
                package = route.package
                sent = time.perf_counter()
                left = remaining()
                response = await self._calls.infer(
                    route,
                    route.template.build(prepared.pixels, everything=query.explain),
                    self._default_timeout if left is None else left,
                )
                answered = time.perf_counter()
                # Drawing regions is work, and is done in the place that was given.
                outputs, version = read_outputs(response)
                if package.task in CLASSES and not query.explain:
                    answer, explanation = self._answer(query, package, outputs, prepared), b""
                else:
                    answer, explanation = await asyncio.get_running_loop().run_in_executor(
                        self._decoders, self._answer_and_explain, query, package, outputs, prepared
                    )
        except OteoError as error:
            self._observer.refused(query.deployment_id if error.reason != "DEPLOYMENT_NOT_FOUND" else "", error.reason)
            raise
        times = Times(queue=queued, decode=prepared.seconds, inference=answered - sent, total=time.perf_counter() - begin)
        self._observer.predicted(package.id, times)
        if self._shadows is not None and routes.shadows:
            self._shadows.offer(routes, query, answer, times.inference)
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
            alias=route.model.alias,
            translator=route.translator,
            suggested=route.suggested,
            notes=route.notes,
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
            prepared = self._brought(self._read(query), model.plain.package)
            route = Route(routes.name, model, model.plain)
            return adapt(route, prepared.shift, query.adapt or routes.adapt, self._adapt_below), prepared

        route, prepared = await loop.run_in_executor(pool, bring)
        sent = time.perf_counter()
        response = await self._calls.infer(route, route.template.build(prepared.pixels), self._default_timeout)
        seconds = time.perf_counter() - sent
        outputs, _ = read_outputs(response)
        return await loop.run_in_executor(pool, self._answer, query, route.package, outputs, prepared), seconds

    def _answer_and_explain(
        self, query: Query, package: ModelPackage, outputs: dict[str, NDArray[Any]], prepared: PreparedImage
    ) -> tuple[Answer, bytes]:
        picture = explain(package, outputs, (prepared.header.width, prepared.header.height)) if query.explain else b""
        return self._answer(query, package, outputs, prepared), picture

    def _answer(self, query: Query, package: ModelPackage, outputs: dict[str, NDArray[Any]], prepared: PreparedImage) -> Answer:
        check_outputs(package, outputs)
        if package.task in CLASSES:
            values = outputs["probabilities"][0].astype(np.float64)
            make = classify if package.task == "classification" else label
            return make(values, package, top_k=query.top_k, point_name=query.operating_point)
        size = (prepared.header.width, prepared.header.height)
        if package.task == "detection":
            return find_boxes(outputs, size, package, query.score_threshold)
        spacing = self._images.spacing(query.sample) if query.sample else None
        if package.task == "semantic_segmentation":
            return find_classes(outputs, size, package, spacing)
        return find_instances(outputs, size, package, spacing, query.score_threshold)

    def _prepare(self, query: Query, routes: Routes) -> tuple[Route, PreparedImage]:
        data = self._read(query)
        # One model alone answers everything, and needs no digest for it.
        digest = hashlib.sha256(data).hexdigest() if len(routes.models) > 1 else ""
        route = routes.choose(digest, query.alias)
        prepared = self._brought(data, route.package)
        return adapt(route, prepared.shift, query.adapt or routes.adapt, self._adapt_below), prepared

    def _read(self, query: Query) -> bytes:
        if query.sample:
            return self._images.sample(query.sample)
        if query.uri:
            return self._images.object(query.uri)
        return query.content

    def _brought(self, data: bytes, package: ModelPackage) -> PreparedImage:
        try:
            return prepare_image(data, self._limits, package.input, package.reference)
        except InvalidArgument as error:
            raise InvalidArgument(error.message, reason=error.reason, field=error.field or "image", metadata=error.metadata) from error
        except MemoryError as error:
            raise ResourceExhausted("There is not enough memory for this image at the moment.", reason="OUT_OF_MEMORY") from error
