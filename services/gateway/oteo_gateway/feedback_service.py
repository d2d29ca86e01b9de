"""``FeedbackService``: what readers say of answers."""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import grpc

from oteo_core.context import current
from oteo_core.datasets.proto import finding_to_proto
from oteo_core.errors import InvalidArgument, NotFound
from oteo_core.images import ImageLimits
from oteo_core.operations.ids import new_operation_id
from oteo_core.operations.replays import request_digest
from oteo_core.packages import ModelPackage
from oteo_core.pagination import decode_token, encode_token, page_size
from oteo_gateway.deployments.store import DeploymentStore
from oteo_gateway.feedback.keeper import Consented, CorrectionKeeper
from oteo_gateway.feedback.keys import FeedbackKey
from oteo_gateway.feedback.reading import missing, read_correction
from oteo_gateway.feedback.records import CorrectionRecord
from oteo_gateway.feedback.store import CorrectionStore
from oteo_gateway.prediction.admission import Admission
from oteo_protos.gateway.v1 import feedback_pb2, feedback_pb2_grpc

Context = grpc.ServicerContext


class FeedbackService(feedback_pb2_grpc.FeedbackServiceServicer):
    """Corrections over gRPC. Those that bring a picture are taken in the places, and by the threads, of predictions; the other handlers block.

    Parameters
    ----------
    deployments
        The table of deployments.
    store
        The table of corrections.
    keeper
        Judges and keeps.
    key
        Hashes that stand for images.
    read_package
        Gives a model's package by its id; raises NotFound.
    limits
        Largest images.
    admission
        Bound on what runs and waits, of predictions too.
    decoders
        Threads that decode.
    """

    def __init__(
        self,
        deployments: DeploymentStore,
        store: CorrectionStore,
        keeper: CorrectionKeeper,
        key: FeedbackKey,
        read_package: Callable[[str], ModelPackage],
        limits: ImageLimits,
        admission: Admission,
        decoders: ThreadPoolExecutor,
    ) -> None:
        self._deployments = deployments
        self._store = store
        self._keeper = keeper
        self._key = key
        self._read_package = read_package
        self._limits = limits
        self._admission = admission
        self._decoders = decoders

    async def SubmitCorrection(
        self, request: feedback_pb2.SubmitCorrectionRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> feedback_pb2.Correction:
        """Take a correction or a confirmation."""
        labels = request.answer.segmentation.label_image.content
        if not (request.consent or labels):
            return await asyncio.to_thread(self._submit, request)
        async with self._admission.enter(len(request.image.content) + len(labels), current().remaining, current().caller):
            # Kept and recorded in one piece: what is begun is ended, whether or not the caller still waits.
            here = contextvars.copy_context()
            return await asyncio.get_running_loop().run_in_executor(self._decoders, here.run, self._submit, request)

    def _submit(self, request: feedback_pb2.SubmitCorrectionRequest) -> feedback_pb2.Correction:
        deployment = self._deployments.get(_deployment_id(request.parent))
        fingerprint = self._key.request(request_digest(request, "request_id"))
        earlier = self._store.replayed(request.request_id, fingerprint)
        if earlier is not None:
            return encode(earlier)
        answer = request.answer
        if answer.deployment != deployment.name:
            raise InvalidArgument(
                f"The answer is of {answer.deployment or 'no deployment'}, not of {deployment.name}.",
                reason="ANSWER_OF_ANOTHER",
                field="answer.deployment",
            )
        if not answer.model:
            raise missing("The answer does not say which model gave it; give it as Predict gave it.")
        try:
            package = self._read_package(answer.model.removeprefix("models/"))
        except NotFound as error:
            raise NotFound(error.message, reason="MODEL_NOT_FOUND", field="answer.model") from error
        # What is stored is what was sent, before it is read for the comparison.
        said = feedback_pb2.Correction(annotations=request.annotations)
        judged = read_correction(request, package, self._limits)
        sample = ""
        if request.consent:
            if request.image.WhichOneof("source") is None:
                raise InvalidArgument("With consent the image must be sent too.", reason="IMAGE_MISSING", field="image")
            consented = Consented(request.image, answer.image.sha256, answer.frame)
            sample, kept = self._keeper.keep(deployment, package, judged, consented, request.group)
            said.findings.extend(finding_to_proto(finding, sample.split("/")[1], kept.id) for finding in kept.findings)
        record = CorrectionRecord(
            id=new_operation_id("gateway").removeprefix("gateway-"),
            deployment=deployment.id,
            uid=deployment.uid,
            model=package.id,
            image=self._key.image(answer.image.sha256, answer.frame),
            group=self._key.group(request.group),
            annotations=said.SerializeToString(),
            agreement=self._keeper.judge(package, judged),
            sample=sample,
            create_time=time.time(),
        )
        return encode(self._store.add(record, request.request_id, fingerprint))

    def GetCorrection(self, request: feedback_pb2.GetCorrectionRequest, context: Context) -> feedback_pb2.Correction:
        """Give one correction."""
        _, deployment, _, correction = request.name.split("/")
        return encode(self._store.get(self._deployments.get(deployment).uid, correction))

    def ListCorrections(self, request: feedback_pb2.ListCorrectionsRequest, context: Context) -> feedback_pb2.ListCorrectionsResponse:
        """Give a deployment's corrections, newest first."""
        size = page_size(request.page_size)
        before = decode_token(request, request.page_token)
        uid = self._deployments.get(_deployment_id(request.parent)).uid
        found = self._store.latest(uid, size + 1, before=before)
        token = encode_token(request, found[size - 1].id if len(found) > size else "")
        return feedback_pb2.ListCorrectionsResponse(corrections=[encode(one) for one in found[:size]], next_page_token=token)


def encode(record: CorrectionRecord) -> feedback_pb2.Correction:
    """Write a correction."""
    message = feedback_pb2.Correction.FromString(record.annotations)
    message.name = f"deployments/{record.deployment}/corrections/{record.id}"
    message.model, message.image_hash = f"models/{record.model}", record.image
    message.agreement, message.sample = record.agreement, record.sample
    message.create_time.FromDatetime(datetime.fromtimestamp(record.create_time, UTC))
    return message


def _deployment_id(name: str) -> str:
    return name.removeprefix("deployments/")
