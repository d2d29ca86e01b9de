"""Corrections: what readers say of answers."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable, Iterator

import grpc

from oteo.connection import call, pages
from oteo.names import resource
from oteo.predictions import image_source
from oteo_protos.gateway.v1 import feedback_pb2, feedback_pb2_grpc, inference_pb2
from oteo_protos.type.v1 import annotation_pb2


class Corrections:
    """Corrections of a gateway's deployments."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = feedback_pb2_grpc.FeedbackServiceStub(channel)

    def submit(
        self,
        answer: inference_pb2.PredictResponse,
        right: str | Iterable[str | annotation_pb2.Annotation],
        *,
        image: bytes | str | os.PathLike[str] | None = None,
        consent: bool = False,
        group: str = "",
        request_id: str | None = None,
    ) -> feedback_pb2.Correction:
        """Say what is right of an image that was answered.

        Parameters
        ----------
        answer
            The answer as `Client.predict` gave it. Its pictures are left out, except for a label image without which masks would be missing.
        right
            The class, or classes, or annotations with a place; nothing where nothing is there. `confirmed(answer)` says that the answer is right.
        image
            The image itself, to be kept as a labelled sample; sent with `consent` alone.
        consent
            True: the patient or the institution agreed that the image is kept for training.
        group
            Patient, study or slide; a keyed hash of it is kept.
        request_id
            A UUID; the same twice gives the first answer.
        """
        given = [right] if isinstance(right, str) else list(right)
        kept = inference_pb2.PredictResponse()
        kept.CopyFrom(answer)
        kept.ClearField("explanation")
        kept.ClearField("drawing")
        regions = [region.annotation.WhichOneof("geometry") for region in answer.segmentation.regions]
        if regions and all(kind in ("mask", "polygons") for kind in regions):
            kept.segmentation.ClearField("label_image")
        request = feedback_pb2.SubmitCorrectionRequest(
            parent=answer.deployment,
            answer=kept,
            annotations=[annotation_pb2.Annotation(class_name=one) if isinstance(one, str) else one for one in given],
            consent=consent,
            image=image_source(image) if consent and image is not None else None,
            group=group,
            request_id=request_id or str(uuid.uuid4()),
        )
        return call(self._stub.SubmitCorrection, request, timeout=120)

    def get(self, name: str) -> feedback_pb2.Correction:
        """Give one correction, ``deployments/…/corrections/…``."""
        return call(self._stub.GetCorrection, feedback_pb2.GetCorrectionRequest(name=name), timeout=30)

    def list(self, deployment: str, limit: int | None = None) -> Iterator[feedback_pb2.Correction]:
        """Give a deployment's corrections, newest first."""
        request = feedback_pb2.ListCorrectionsRequest(parent=resource("deployments", deployment))
        return pages(self._stub.ListCorrections, request, "corrections", limit)


def confirmed(answer: inference_pb2.PredictResponse) -> list[annotation_pb2.Annotation]:
    """Give what an answer says as annotations: a correction that says the same confirms it."""
    result = answer.classification
    if answer.WhichOneof("result") == "classification":
        names = result.decisions or ([result.decision] if result.decision else [score.class_name for score in result.scores[:1]])
        return [annotation_pb2.Annotation(class_name=name) for name in names]
    found = [*answer.detection.objects, *(region.annotation for region in answer.segmentation.regions)]
    bare = []
    for item in found:
        copy = annotation_pb2.Annotation()
        copy.CopyFrom(item)
        copy.ClearField("score")
        bare.append(copy)
    return bare
