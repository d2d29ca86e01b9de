"""The public API as the pipeline sees it, and how its steps name their requests."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Protocol

from google.longrunning import operations_pb2
from google.protobuf.message import Message

from oteo_core.operations.model import unpack
from oteo_protos.augment.v1 import dataset_pb2
from oteo_protos.gateway.v1 import inference_pb2
from oteo_protos.type.v1 import report_pb2, task_pb2

# Any fixed UUID does; it only keeps our names apart from other uses of the same operation's id.
_NAMESPACE = uuid.UUID("5b0c5a3e-3f0e-5d0c-9d43-6f74656f0001")


def step_request_id(operation_id: str, step: str) -> str:
    """Give the request id of a pipeline's step: the same whenever the pipeline is run again, so that the call is made once."""
    return str(uuid.uuid5(_NAMESPACE, f"{operation_id}/{step}"))


class PipelineApi(Protocol):
    """The calls that a pipeline makes. Each is retried by the implementation while a service is away; other errors are `OteoError`."""

    def start(self, method: str, request: Message) -> operations_pb2.Operation:
        """Start a long-running method by its name, such as ``TrainModel``; the request bears its request_id."""

    def operation(self, name: str) -> operations_pb2.Operation:
        """Give an operation as it stands."""

    def cancel(self, name: str) -> None:
        """Ask an operation to stop; nothing happens if it has ended."""

    def dataset(self, name: str) -> dataset_pb2.Dataset:
        """Give a dataset."""

    def samples(self, dataset: str, split: task_pb2.Split) -> Iterator[dataset_pb2.Sample]:
        """Give the samples of one part of a dataset."""

    def predict(self, deployment: str, sample: str) -> inference_pb2.PredictResponse:
        """Have a deployment answer for a sample."""


def progress_of(operation: operations_pb2.Operation) -> report_pb2.Progress:
    """Give the progress of any of Oteo's operations: field 1 of its metadata; empty where there is none."""
    message = unpack(operation.metadata)
    found = report_pb2.Progress()
    if message is not None and "progress" in message.DESCRIPTOR.fields_by_name:
        found.CopyFrom(message.progress)  # type: ignore[attr-defined]
    return found
