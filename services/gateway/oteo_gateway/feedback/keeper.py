"""What becomes of a correction: judged, counted, and kept as a sample where there is consent."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from oteo_core.artifacts import ArtifactStore
from oteo_core.datasets import Sample
from oteo_core.datasets.named_images import ImageSource, ImageStore
from oteo_core.errors import InvalidArgument, OteoError
from oteo_core.images import ImageLimits
from oteo_core.packages import MetricValue, ModelPackage
from oteo_gateway.deployments.records import Deployment
from oteo_gateway.feedback.accuracy import live_accuracy
from oteo_gateway.feedback.agreement import agreement
from oteo_gateway.feedback.dataset import claim, dataset_of, gather
from oteo_gateway.feedback.keys import FeedbackKey
from oteo_gateway.feedback.reading import Judged
from oteo_gateway.feedback.samples import KeptSample, keep_sample, make_sample, read_pixels
from oteo_gateway.feedback.store import CorrectionStore
from oteo_gateway.prediction.inputs import at_image

log = structlog.get_logger(__name__)

_LEASE = "corrections"


@dataclass(frozen=True, slots=True)
class Consented:
    """An image that may be kept: where it is, and the SHA-256 and frame that were answered for."""

    image: ImageSource
    sha256: str
    frame: int


class CorrectionKeeper:
    """Corrections' own work, apart from messages.

    Parameters
    ----------
    store
        The table.
    artifacts
        The artifact store.
    images
        Images that are named.
    limits
        Largest images.
    key
        Hashes that stand for images.
    lease
        Takes or renews a lease by name and seconds.
    lease_seconds
        Its length.
    """

    def __init__(
        self,
        store: CorrectionStore,
        artifacts: ArtifactStore,
        images: ImageStore,
        limits: ImageLimits,
        key: FeedbackKey,
        lease: Callable[[str, float], bool],
        lease_seconds: float,
    ) -> None:
        self._store = store
        self._artifacts = artifacts
        self._images = images
        self._limits = limits
        self._key = key
        self._lease = lease
        self._lease_seconds = lease_seconds
        self._accuracies: dict[tuple[str, str], tuple[str, MetricValue | None]] = {}

    def judge(self, package: ModelPackage, judged: Judged) -> float:
        """Give the agreement of an answer with its correction, 0 to 1."""
        return agreement(package.task, package.classes, judged.found, judged.truth, judged.scores, judged.labels)

    def keep(self, deployment: Deployment, package: ModelPackage, judged: Judged, consented: Consented, group: str) -> tuple[str, Sample]:
        """Keep the image as a labelled sample; give the sample's name and the sample, whose findings say what to look at.

        Raises
        ------
        InvalidArgument
            ``IMAGE_DIFFERS``: it is another than was answered for; and those of decoding.
        ResourceExhausted
            ``OUT_OF_MEMORY``.
        """
        data = self._images.source(consented.image)
        if hashlib.sha256(data).hexdigest() != consented.sha256:
            raise InvalidArgument(
                "The image is another one than the answer is for; send the one that was asked about.", reason="IMAGE_DIFFERS", field="image"
            )
        with at_image():
            pixels = read_pixels(data, consented.frame, self._limits, consented.image.sample or consented.image.uri)
        if pixels.values.shape[:2] != (judged.truth.height, judged.truth.width):
            raise InvalidArgument("The image has another size than the answer says.", reason="IMAGE_DIFFERS", field="image")
        sample, encoded = make_sample(pixels, judged.truth, self._key.group(group), self._key.image(consented.sha256, consented.frame))
        dataset = dataset_of(self._artifacts, deployment.id, deployment.uid)
        claim(self._artifacts, dataset, deployment.uid)
        keep_sample(self._artifacts, dataset, KeptSample(sample, package.task, tuple(package.classes), len(encoded)), encoded)
        return f"datasets/{dataset}/samples/{sample.id}", sample

    def accuracy(self, deployment: Deployment, package: ModelPackage) -> MetricValue | None:
        """Give a model's accuracy in use; None without corrections."""
        key = (deployment.uid, package.id)
        newest = self._store.newest(*key)
        known = self._accuracies.get(key)
        if known is None or known[0] != newest:
            known = newest, live_accuracy(package.task, self._store.judged(*key)) if newest else None
            self._accuracies[key] = known
        return known[1]

    def run(self, stop: threading.Event, period: float, turned: Callable[[], None]) -> None:
        """Gather samples into their datasets, and have figures told, until stopped."""
        while not stop.wait(period):
            for do in (self.gather, turned):
                try:
                    do()
                except OteoError as error:
                    log.warning("corrections_failed", error=error.message)
                except Exception:
                    log.exception("corrections_failed")

    def gather(self) -> None:
        """Gather what waits, if the lease is ours."""
        pending = self._store.pending()
        for dataset, corrections in pending.items():
            # Renewed for each, so that a long gathering does not outlive it by the next.
            if not self._lease(_LEASE, max(self._lease_seconds, 60.0)):
                return
            began = time.monotonic()
            gather(self._artifacts, dataset, self._deployment_of(corrections[0]))
            self._store.settle(corrections)
            log.info("corrections_settled", dataset=dataset, count=len(corrections), seconds=round(time.monotonic() - began, 2))

    def _deployment_of(self, correction: str) -> str:
        return self._store.find(correction).deployment
