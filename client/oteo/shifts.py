"""Shifts: whether images still come from the domain that a model knows."""

from __future__ import annotations

import uuid

import grpc

from oteo.connection import call
from oteo.names import resource
from oteo.operations import OperationHandle
from oteo_protos.translate.v1 import translate_pb2, translate_pb2_grpc


class Shifts:
    """Measurements of the translate service."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel
        self._stub = translate_pb2_grpc.TranslateServiceStub(channel)

    def measure(
        self,
        reference: str,
        dataset: str,
        *,
        alpha: float = 0.0,
        seed: int = 0,
        request_id: str | None = None,
    ) -> OperationHandle[translate_pb2.MeasureShiftResponse]:
        """Test whether a dataset comes from the domain that a model or another dataset stands for.

        Parameters
        ----------
        reference
            ``"models/…"``: what the model was trained on, its outputs and what it sees are compared too, and its loss is estimated.
            ``"datasets/…"``, or a name alone: a dataset.
        dataset
            The dataset in question, short or full name.
        alpha
            Chance of a false alarm that is accepted; 0: 0.05.
        seed
            Of every draw.
        request_id
            A UUID; the same twice gives the first operation.
        """
        request = translate_pb2.MeasureShiftRequest(
            dataset=resource("datasets", dataset), alpha=alpha, seed=seed, request_id=request_id or str(uuid.uuid4())
        )
        if reference.startswith("models/"):
            request.model = reference
        else:
            request.reference_dataset = resource("datasets", reference)
        return OperationHandle(self._channel, call(self._stub.MeasureShift, request, timeout=60), translate_pb2.MeasureShiftResponse)
