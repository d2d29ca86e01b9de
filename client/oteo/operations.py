"""Long-running operations: wait, watch, cancel."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

import grpc
from google.longrunning import operations_pb2, operations_pb2_grpc
from google.protobuf import any_pb2, duration_pb2, empty_pb2, symbol_database
from google.protobuf.message import Message

from oteo.connection import call, pages
from oteo.errors import OperationFailed, OteoApiError
from oteo.names import resource
from oteo_protos.augment.v1 import augment_pb2, dataset_pb2
from oteo_protos.automl.v1 import automl_pb2
from oteo_protos.gateway.v1 import deployment_pb2, pipeline_pb2
from oteo_protos.translate.v1 import translate_pb2
from oteo_protos.type.v1 import report_pb2

T = TypeVar("T", bound=Message)
# The result of each kind of operation, by the type of its metadata.
RESULTS: dict[str, type[Message]] = {
    "oteo.augment.v1.ImportDatasetMetadata": dataset_pb2.ImportDatasetResponse,
    "oteo.augment.v1.AuditDatasetMetadata": dataset_pb2.AuditDatasetResponse,
    "oteo.augment.v1.ExportDatasetMetadata": dataset_pb2.ExportDatasetResponse,
    "oteo.augment.v1.AugmentDatasetMetadata": augment_pb2.AugmentDatasetResponse,
    "oteo.automl.v1.TrainModelMetadata": automl_pb2.TrainModelResponse,
    "oteo.automl.v1.EvaluateModelMetadata": automl_pb2.EvaluateModelResponse,
    "oteo.automl.v1.CombinePredictionsMetadata": automl_pb2.CombinePredictionsResponse,
    "oteo.automl.v1.ExportModelMetadata": automl_pb2.ExportModelResponse,
    "oteo.translate.v1.MeasureShiftMetadata": translate_pb2.MeasureShiftResponse,
    "oteo.translate.v1.TrainTranslatorMetadata": translate_pb2.TrainTranslatorResponse,
    "oteo.translate.v1.TranslateDatasetMetadata": translate_pb2.TranslateDatasetResponse,
    "oteo.gateway.v1.DeploymentMetadata": deployment_pb2.Deployment,
    "oteo.gateway.v1.RunPipelineMetadata": pipeline_pb2.RunPipelineResponse,
}


def unpack(value: any_pb2.Any) -> Message | None:
    """Give the message inside an ``Any``; None where it is empty or of a type that this release does not know."""
    if not value.type_url:
        return None
    try:
        message: Message = symbol_database.Default().GetSymbol(value.type_url.rsplit("/", 1)[-1])()
    except KeyError:
        return None
    value.Unpack(message)
    return message


def progress_of(operation: operations_pb2.Operation) -> report_pb2.Progress:
    """Give an operation's progress, whatever its type: it is field 1 of every metadata."""
    metadata = unpack(operation.metadata)
    progress = getattr(metadata, "progress", None)
    return progress if isinstance(progress, report_pb2.Progress) else report_pb2.Progress()


class OperationHandle(Generic[T]):
    """A long-running operation and the type of its result.

    Parameters
    ----------
    channel
        Channel to the gateway.
    operation
        The operation as last seen.
    response_type
        Message class of its result.
    """

    def __init__(self, channel: grpc.Channel, operation: operations_pb2.Operation, response_type: type[T]) -> None:
        self._stub = operations_pb2_grpc.OperationsStub(channel)
        self._operation = operation
        self._response_type = response_type

    @property
    def name(self) -> str:
        """``operations/…``; with it another program or a later session takes it up again."""
        return str(self._operation.name)

    @property
    def done(self) -> bool:
        """True once it has ended, as last seen."""
        return bool(self._operation.done)

    @property
    def operation(self) -> operations_pb2.Operation:
        """The operation as last seen."""
        return self._operation

    @property
    def metadata(self) -> Message | None:
        """The typed metadata as last seen."""
        return unpack(self._operation.metadata)

    @property
    def progress(self) -> report_pb2.Progress:
        """The progress as last seen."""
        return progress_of(self._operation)

    def refresh(self) -> OperationHandle[T]:
        """Ask how it stands."""
        if not self._operation.done:
            self._operation = call(self._stub.GetOperation, operations_pb2.GetOperationRequest(name=self.name), timeout=30)
        return self

    def result(self) -> T:
        """Give the result of an operation that has ended; raise `OperationFailed` if it ended with an error."""
        if self._operation.WhichOneof("result") == "error":
            status = OteoApiError.from_status(self._operation.error)
            failed = OperationFailed(
                status.code,
                status.message,
                reason=status.reason,
                field=status.field,
                metadata=status.metadata,
                retry_after=status.retry_after,
            )
            failed.operation = self.name
            raise failed
        response = self._response_type()
        self._operation.response.Unpack(response)
        return response

    def wait(
        self,
        timeout: float | None = None,
        on_progress: Callable[[OperationHandle[T]], None] | None = None,
        patience: float = 120.0,
    ) -> T:
        """Wait until it has ended and give its result.

        Parameters
        ----------
        timeout
            Seconds to wait; None: as long as it takes. The operation goes on after a timeout.
        on_progress
            Called about once a second with this handle, and once at the end.
        patience
            Seconds for which a gateway that does not answer is borne, such as during a restart.

        Raises
        ------
        OperationFailed
            The operation ended with an error.
        OteoApiError
            DEADLINE_EXCEEDED after ``timeout``; UNAVAILABLE after ``patience``.
        """
        end = None if timeout is None else time.monotonic() + timeout
        last_answer = time.monotonic()
        while not self._operation.done:
            if end is not None and time.monotonic() >= end:
                raise OteoApiError(
                    "DEADLINE_EXCEEDED", f"{self.name} has not ended within {timeout:g} s; it goes on", reason="WAIT_TIMEOUT"
                )
            step = 1.0 if end is None else max(0.05, min(1.0, end - time.monotonic()))
            request = operations_pb2.WaitOperationRequest(name=self.name, timeout=duration_pb2.Duration(nanos=int(min(step, 0.999) * 1e9)))
            asked = time.monotonic()
            try:
                self._operation = call(self._stub.WaitOperation, request, timeout=step + 10)
                last_answer = time.monotonic()
            except OteoApiError as error:
                if error.code not in ("UNAVAILABLE", "DEADLINE_EXCEEDED") or time.monotonic() - last_answer > patience:
                    raise
                time.sleep(0.5)
            if not self._operation.done and time.monotonic() - asked < 0.1:
                # A service that answers at once instead of waiting is not asked without pause.
                time.sleep(0.2)
            if on_progress is not None:
                on_progress(self)
        if on_progress is not None:
            on_progress(self)
        return self.result()

    def cancel(self) -> None:
        """Ask it to stop; `wait` then raises `OperationFailed` with code CANCELLED."""
        call(self._stub.CancelOperation, operations_pb2.CancelOperationRequest(name=self.name), timeout=30)


class Operations:
    """Long-running operations of all services."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel
        self._stub = operations_pb2_grpc.OperationsStub(channel)

    def get(self, name: str) -> OperationHandle[Message]:
        """Take up an operation by its name."""
        return self._handle(
            call(self._stub.GetOperation, operations_pb2.GetOperationRequest(name=resource("operations", name)), timeout=30)
        )

    def list(self, *, done: bool | None = None, limit: int | None = None) -> Iterator[OperationHandle[Message]]:
        """Give operations, newest first; ``done``: only those that have, or have not, ended."""
        request = operations_pb2.ListOperationsRequest(
            name="operations", filter="" if done is None else f"done={str(done).lower()}", page_size=100
        )
        return (self._handle(operation) for operation in pages(self._stub.ListOperations, request, "operations", limit))

    def cancel(self, name: str) -> None:
        """Ask an operation to stop."""
        call(self._stub.CancelOperation, operations_pb2.CancelOperationRequest(name=resource("operations", name)), timeout=30)

    def _handle(self, operation: operations_pb2.Operation) -> OperationHandle[Message]:
        metadata = unpack(operation.metadata)
        result = RESULTS.get(metadata.DESCRIPTOR.full_name, empty_pb2.Empty) if metadata is not None else empty_pb2.Empty
        return OperationHandle(self._channel, operation, result)
