"""The gateway's public API over gRPC, as the pipeline's job calls it: patient while a service is away, exact in its errors."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import grpc
import structlog
from google.longrunning import operations_pb2, operations_pb2_grpc
from google.protobuf.message import Message
from google.rpc import code_pb2, status_pb2

from oteo_core.errors import OteoError, ResourceExhausted, Unavailable, from_status
from oteo_protos.augment.v1 import augment_pb2_grpc, dataset_pb2, dataset_pb2_grpc
from oteo_protos.automl.v1 import automl_pb2_grpc
from oteo_protos.gateway.v1 import deployment_pb2_grpc, inference_pb2, inference_pb2_grpc
from oteo_protos.type.v1 import image_pb2, task_pb2

log = structlog.get_logger(__name__)

R = TypeVar("R")

_CALL_SECONDS = 30.0
_PATIENCE_SECONDS = 600.0
_LONGEST_PAUSE = 5.0
_PAGE = 200


def error_of(error: Any) -> OteoError:
    """Give the error that a failed call stands for, with its reason and details where it carries them."""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            return from_status(status_pb2.Status.FromString(value))
    code = error.code()
    number = code.value[0] if isinstance(code, grpc.StatusCode) else code_pb2.UNKNOWN
    return from_status(status_pb2.Status(code=number, message=error.details() or ""))


class PublicApi:
    """The public API behind one channel; see `oteo_gateway.pipeline.api.PipelineApi`.

    Parameters
    ----------
    channel
        To the gateway, with its token.
    check
        Raises when the caller is to stop; called while waiting for a service that is away.
    patience
        Seconds for which a service may be away.
    """

    def __init__(self, channel: grpc.Channel, check: Callable[[], None], *, patience: float = _PATIENCE_SECONDS) -> None:
        self._check = check
        self._patience = patience
        datasets = dataset_pb2_grpc.DatasetServiceStub(channel)
        deployments = deployment_pb2_grpc.DeploymentServiceStub(channel)
        models = automl_pb2_grpc.AutoMLServiceStub(channel)
        self._datasets = datasets
        self._operations = operations_pb2_grpc.OperationsStub(channel)
        self._inference = inference_pb2_grpc.InferenceServiceStub(channel)
        self._methods: dict[str, Any] = {
            "ImportDataset": datasets.ImportDataset,
            "AuditDataset": datasets.AuditDataset,
            "AugmentDataset": augment_pb2_grpc.AugmentServiceStub(channel).AugmentDataset,
            "TrainModel": models.TrainModel,
            "EvaluateModel": models.EvaluateModel,
            "CreateDeployment": deployments.CreateDeployment,
            "UpdateDeployment": deployments.UpdateDeployment,
        }

    def start(self, method: str, request: Message) -> operations_pb2.Operation:
        """Start a long-running method; called again after a failure it is the same call, by its request_id."""
        operation: operations_pb2.Operation = self._patiently(self._methods[method], request)
        return operation

    def operation(self, name: str) -> operations_pb2.Operation:
        """Give an operation as it stands."""
        operation: operations_pb2.Operation = self._patiently(self._operations.GetOperation, operations_pb2.GetOperationRequest(name=name))
        return operation

    def cancel(self, name: str) -> None:
        """Ask an operation to stop; quick, because the caller is being stopped itself."""
        try:
            self._operations.CancelOperation(operations_pb2.CancelOperationRequest(name=name), timeout=0.8)
        except grpc.RpcError as error:
            # The gateway, which took the pipeline's cancellation, cancels its steps as well.
            log.warning("step_not_cancelled", operation=name, error=error_of(error).message)

    def dataset(self, name: str) -> dataset_pb2.Dataset:
        """Give a dataset."""
        dataset: dataset_pb2.Dataset = self._patiently(self._datasets.GetDataset, dataset_pb2.GetDatasetRequest(name=name))
        return dataset

    def samples(self, dataset: str, split: task_pb2.Split) -> Iterator[dataset_pb2.Sample]:
        """Give the samples of one part of a dataset, page by page."""
        token = ""
        while True:
            request = dataset_pb2.ListSamplesRequest(parent=dataset, split=split, page_size=_PAGE, page_token=token)
            page: dataset_pb2.ListSamplesResponse = self._patiently(self._datasets.ListSamples, request)
            yield from page.samples
            token = page.next_page_token
            if not token:
                return

    def predict(self, deployment: str, sample: str) -> inference_pb2.PredictResponse:
        """Have a deployment answer for a sample."""
        request = inference_pb2.PredictRequest(deployment=deployment, image=image_pb2.ImageSource(sample=sample))
        response: inference_pb2.PredictResponse = self._patiently(self._inference.Predict, request)
        return response

    def _patiently(self, method: Callable[..., R], request: Message) -> R:
        """Call; while the service is away or full, wait and call again.

        Raises
        ------
        OteoError
            Any other error, or the last one when the patience is used up.
        """
        until = time.monotonic() + self._patience
        pause = 0.2
        while True:
            try:
                return method(request, timeout=_CALL_SECONDS)
            except grpc.RpcError as failed:
                error = error_of(failed)
                away = isinstance(error, Unavailable) or (isinstance(error, ResourceExhausted) and error.retry_after is not None)
                if not away or time.monotonic() > until:
                    raise error from failed
                log.info("waiting_for_service", reason=error.reason, message=error.message)
                self._wait(max(pause, min(error.retry_after or 0.0, _LONGEST_PAUSE)))
                pause = min(_LONGEST_PAUSE, 2 * pause)

    def _wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self._check()
            time.sleep(min(0.1, left))
