"""One prediction: a place, the image, the model server, the answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from oteo_core.datasets.named_images import ImageStore
from oteo_core.errors import InvalidArgument, OteoError, ResourceExhausted, Unimplemented
from oteo_core.images import ImageHeader, ImageLimits
from oteo_core.packages import ModelPackage
from oteo_gateway.deployments.directory import Served
from oteo_gateway.prediction.admission import Admission
from oteo_gateway.prediction.answer import ClassAnswer, classify, label
from oteo_gateway.prediction.attention import explain
from oteo_gateway.prediction.outputs import CLASSES, OUTPUTS, check_outputs
from oteo_gateway.prediction.preparation import PreparedImage, prepare_image
from oteo_gateway.prediction.regions import ObjectAnswer, RegionAnswer, find_boxes, find_classes, find_instances
from oteo_gateway.prediction.tensors import read_outputs


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

    answer: ClassAnswer | ObjectAnswer | RegionAnswer
    deployment: str
    model: str
    version: str
    header: ImageHeader
    sha256: str
    shift: tuple[float, float] | None
    times: Times
    explanation: bytes = b""


class ModelCalls(Protocol):
    """The model server's replicas as predictions need them."""

    async def infer(self, served: Served, request: bytes, seconds: float) -> bytes:
        """Have the deployment's model answer on one of its replicas, or on another where that one fails.

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


class Watch(Protocol):
    """Takes what the watch for shift needs of a prediction; must not block."""

    def saw(self, served: Served, sha256: str, statistics: NDArray[np.float64], answer: ClassAnswer | ObjectAnswer | RegionAnswer) -> None:
        """An image was answered."""


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
    watch
        Takes the images' statistics; None: nobody watches.
    """

    def __init__(
        self,
        find: Callable[[str], Awaitable[Served]],
        calls: ModelCalls,
        images: ImageStore,
        admission: Admission,
        limits: ImageLimits,
        decoders: ThreadPoolExecutor,
        *,
        default_timeout: float,
        observer: Observer,
        watch: Watch | None = None,
    ) -> None:
        self._find = find
        self._calls = calls
        self._images = images
        self._admission = admission
        self._limits = limits
        self._decoders = decoders
        self._default_timeout = default_timeout
        self._observer = observer
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
            served = await self._find(query.deployment_id)
            package = served.package
            if package.task not in OUTPUTS:
                raise Unimplemented(f"{package.name} is for {package.task}, which is not served.", reason="TASK_NOT_SERVED")
            async with self._admission.enter() as queued:
                prepared = await asyncio.get_running_loop().run_in_executor(self._decoders, self._prepare, query, served)
                sent = time.perf_counter()
                left = remaining()
                response = await self._calls.infer(
                    served,
                    served.template.build(prepared.pixels, everything=query.explain),
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
        if self._watch is not None and prepared.statistics is not None:
            self._watch.saw(served, prepared.sha256, prepared.statistics, answer)
        return Prediction(
            answer=answer,
            deployment=served.deployment.name,
            model=package.name,
            version=version,
            header=prepared.header,
            sha256=prepared.sha256,
            shift=prepared.shift,
            times=times,
            explanation=explanation,
        )

    def _answer_and_explain(
        self, query: Query, package: ModelPackage, outputs: dict[str, NDArray[Any]], prepared: PreparedImage
    ) -> tuple[ClassAnswer | ObjectAnswer | RegionAnswer, bytes]:
        picture = explain(package, outputs, (prepared.header.width, prepared.header.height)) if query.explain else b""
        return self._answer(query, package, outputs, prepared), picture

    def _answer(
        self, query: Query, package: ModelPackage, outputs: dict[str, NDArray[Any]], prepared: PreparedImage
    ) -> ClassAnswer | ObjectAnswer | RegionAnswer:
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

    def _prepare(self, query: Query, served: Served) -> PreparedImage:
        if query.sample:
            data = self._images.sample(query.sample)
        elif query.uri:
            data = self._images.object(query.uri)
        else:
            data = query.content
        try:
            return prepare_image(data, self._limits, served.package.input, served.package.reference)
        except InvalidArgument as error:
            raise InvalidArgument(error.message, reason=error.reason, field=error.field or "image", metadata=error.metadata) from error
        except MemoryError as error:
            raise ResourceExhausted("There is not enough memory for this image at the moment.", reason="OUT_OF_MEMORY") from error
