"""The client: datasets, training, models, deployments, predictions and pipelines behind one address."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from google.longrunning import operations_pb2, operations_pb2_grpc
from google.protobuf import empty_pb2
from google.protobuf.message import Message

from oteo.connection import call, find_endpoint, open_channel, pages
from oteo.errors import OteoApiError
from oteo.operations import OperationHandle, unpack
from oteo.upload import upload_requests
from oteo_protos.augment.v1 import augment_pb2, augment_pb2_grpc, dataset_pb2, dataset_pb2_grpc
from oteo_protos.automl.v1 import automl_pb2, automl_pb2_grpc
from oteo_protos.gateway.v1 import deployment_pb2, deployment_pb2_grpc, inference_pb2, inference_pb2_grpc, pipeline_pb2, pipeline_pb2_grpc
from oteo_protos.type.v1 import image_pb2, task_pb2

OperationStub = operations_pb2_grpc.OperationsStub
# The result of each kind of operation, by the type of its metadata.
RESULTS: dict[str, type[Message]] = {
    "oteo.augment.v1.ImportDatasetMetadata": dataset_pb2.ImportDatasetResponse,
    "oteo.augment.v1.AuditDatasetMetadata": dataset_pb2.AuditDatasetResponse,
    "oteo.augment.v1.ExportDatasetMetadata": dataset_pb2.ExportDatasetResponse,
    "oteo.augment.v1.AugmentDatasetMetadata": augment_pb2.AugmentDatasetResponse,
    "oteo.automl.v1.TrainModelMetadata": automl_pb2.TrainModelResponse,
    "oteo.automl.v1.EvaluateModelMetadata": automl_pb2.EvaluateModelResponse,
    "oteo.automl.v1.ExportModelMetadata": automl_pb2.ExportModelResponse,
    "oteo.gateway.v1.DeploymentMetadata": deployment_pb2.Deployment,
    "oteo.gateway.v1.RunPipelineMetadata": pipeline_pb2.RunPipelineResponse,
}


def resource(collection: str, name: str) -> str:
    """Give the full resource name of a short or full one: ``("datasets", "x")`` gives ``datasets/x``."""
    return name if name.startswith(f"{collection}/") else f"{collection}/{name}"


def source_uri(source: str | os.PathLike[str]) -> str:
    """Give what the service is told of a source: URIs as they are, local paths made absolute."""
    text = os.fspath(source)
    return text if "://" in text else str(Path(text).expanduser().absolute())


def enum_name(enum: Any, prefix: str, value: str | None, field: str) -> str:
    """Give an enum's full name of a short one such as ``"pascal-voc"``; None or empty: the unspecified one.

    Raises
    ------
    OteoApiError
        INVALID_ARGUMENT, reason UNKNOWN_VALUE: there is none of that name; the message lists those that there are.
    """
    full = prefix + (value or "unspecified").upper().replace("-", "_")
    if full not in enum.keys():  # noqa: SIM118 - an enum wrapper, not a mapping
        known = ", ".join(name.removeprefix(prefix).lower().replace("_", "-") for name in enum.keys() if not name.endswith("_UNSPECIFIED"))  # noqa: SIM118
        raise OteoApiError("INVALID_ARGUMENT", f"{value!r} is not one of: {known}", reason="UNKNOWN_VALUE", field=field)
    return full


class Datasets:
    """Datasets of the augment service."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._stub = dataset_pb2_grpc.DatasetServiceStub(client.channel)
        self._augment = augment_pb2_grpc.AugmentServiceStub(client.channel)

    def import_(
        self,
        source: str | os.PathLike[str],
        *,
        name: str = "",
        dataset_id: str = "",
        task: str | None = None,
        classes: Iterable[str] = (),
        format: str = "",
        split: dataset_pb2.SplitOptions | None = None,
        domain: str = "",
        validate_only: bool = False,
        request_id: str | None = None,
    ) -> OperationHandle[dataset_pb2.ImportDatasetResponse]:
        """Import a folder, an archive or a URI that the service can read; see ``ImportDatasetRequest``."""
        request = dataset_pb2.ImportDatasetRequest(
            dataset_id=dataset_id,
            display_name=name,
            source_uri=source_uri(source),
            format=enum_name(dataset_pb2.DatasetFormat, "DATASET_FORMAT_", format, "format"),
            task=enum_name(task_pb2.Task, "TASK_", task, "task"),
            classes=list(classes),
            split=split,
            domain=domain,
            validate_only=validate_only,
            request_id=request_id or str(uuid.uuid4()),
        )
        operation = call(self._stub.ImportDataset, request, timeout=120)
        return OperationHandle(self._client.channel, operation, dataset_pb2.ImportDatasetResponse)

    def upload(
        self,
        source: str | os.PathLike[str],
        settings: dataset_pb2.ImportDatasetRequest | None = None,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> OperationHandle[dataset_pb2.ImportDatasetResponse]:
        """Send a folder's files, or one archive, through the connection and import them; ``on_progress(sent, total)`` in bytes."""
        request = dataset_pb2.ImportDatasetRequest()
        if settings is not None:
            request.CopyFrom(settings)
        request.request_id = request.request_id or str(uuid.uuid4())
        operation = call(self._stub.UploadDataset, upload_requests(Path(source), request, on_progress))
        return OperationHandle(self._client.channel, operation, dataset_pb2.ImportDatasetResponse)

    def get(self, name: str) -> dataset_pb2.Dataset:
        """Give one dataset."""
        return call(self._stub.GetDataset, dataset_pb2.GetDatasetRequest(name=resource("datasets", name)), timeout=30)

    def list(self, limit: int | None = None) -> Iterator[dataset_pb2.Dataset]:
        """Give datasets, newest first."""
        return pages(self._stub.ListDatasets, dataset_pb2.ListDatasetsRequest(), "datasets", limit)

    def samples(
        self,
        name: str,
        *,
        split: str = "",
        class_name: str = "",
        finding: str = "",
        only_findings: bool = False,
        include_excluded: bool = False,
        limit: int | None = None,
    ) -> Iterator[dataset_pb2.Sample]:
        """Give a dataset's samples with annotations and findings."""
        request = dataset_pb2.ListSamplesRequest(
            parent=resource("datasets", name),
            split=enum_name(task_pb2.Split, "SPLIT_", split, "split"),
            class_name=class_name,
            finding_code=finding,
            only_findings=only_findings,
            include_excluded=include_excluded,
            page_size=min(limit or 500, 500),
        )
        return pages(self._stub.ListSamples, request, "samples", limit)

    def delete(self, name: str, *, allow_missing: bool = False) -> empty_pb2.Empty:
        """Delete a dataset and its files."""
        request = dataset_pb2.DeleteDatasetRequest(
            name=resource("datasets", name), allow_missing=allow_missing, request_id=str(uuid.uuid4())
        )
        return call(self._stub.DeleteDataset, request, timeout=120)

    def augment(
        self,
        name: str,
        *,
        copies: int = 0,
        dataset_id: str = "",
        seed: int = 0,
        drop_originals: bool = False,
        request_id: str | None = None,
    ) -> OperationHandle[augment_pb2.AugmentDatasetResponse]:
        """Publish a dataset with augmented copies of the training part."""
        request = augment_pb2.AugmentDatasetRequest(
            dataset=resource("datasets", name),
            dataset_id=dataset_id,
            copies=copies,
            seed=seed,
            drop_originals=drop_originals,
            request_id=request_id or str(uuid.uuid4()),
        )
        operation = call(self._augment.AugmentDataset, request, timeout=60)
        return OperationHandle(self._client.channel, operation, augment_pb2.AugmentDatasetResponse)


class Models:
    """Models of the automl service."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._stub = automl_pb2_grpc.AutoMLServiceStub(client.channel)

    def train(
        self,
        dataset: str,
        *,
        budget: float,
        name: str = "",
        model_id: str = "",
        task: str | None = None,
        objective: str = "",
        candidates: Iterable[str] = (),
        pretrained_uri: str = "",
        seed: int = 0,
        validate_only: bool = False,
        request_id: str | None = None,
    ) -> OperationHandle[automl_pb2.TrainModelResponse]:
        """Train the best model that ``budget`` seconds allow; see ``TrainModelRequest``."""
        request = automl_pb2.TrainModelRequest(
            dataset=resource("datasets", dataset),
            model_id=model_id,
            display_name=name,
            task=enum_name(task_pb2.Task, "TASK_", task, "task"),
            objective=objective,
            candidates=list(candidates),
            pretrained_uri=pretrained_uri,
            seed=seed,
            validate_only=validate_only,
            request_id=request_id or str(uuid.uuid4()),
        )
        request.budget.FromNanoseconds(int(budget * 1e9))
        operation = call(self._stub.TrainModel, request, timeout=120)
        return OperationHandle(self._client.channel, operation, automl_pb2.TrainModelResponse)

    def get(self, name: str) -> automl_pb2.Model:
        """Give one model."""
        return call(self._stub.GetModel, automl_pb2.GetModelRequest(name=resource("models", name)), timeout=30)

    def list(self, limit: int | None = None) -> Iterator[automl_pb2.Model]:
        """Give models, newest first."""
        return pages(self._stub.ListModels, automl_pb2.ListModelsRequest(), "models", limit)

    def trials(self, parent: str, limit: int | None = None) -> Iterator[automl_pb2.Trial]:
        """Give what was tried for a model, or by a running training's operation, best first."""
        parent = parent if parent.startswith("operations/") else resource("models", parent)
        return pages(self._stub.ListTrials, automl_pb2.ListTrialsRequest(parent=parent), "trials", limit)

    def delete(self, name: str, *, allow_missing: bool = False) -> empty_pb2.Empty:
        """Delete a model and its package."""
        request = automl_pb2.DeleteModelRequest(name=resource("models", name), allow_missing=allow_missing, request_id=str(uuid.uuid4()))
        return call(self._stub.DeleteModel, request, timeout=120)


class Deployments:
    """Deployments of the gateway."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._stub = deployment_pb2_grpc.DeploymentServiceStub(client.channel)

    def create(
        self, model: str, *, deployment_id: str = "", name: str = "", request_id: str | None = None
    ) -> OperationHandle[deployment_pb2.Deployment]:
        """Put a model into service; the operation ends when every Triton replica has answered a probe."""
        request = deployment_pb2.CreateDeploymentRequest(
            deployment_id=deployment_id,
            deployment=deployment_pb2.Deployment(
                display_name=name, models=[deployment_pb2.DeployedModel(model=resource("models", model), traffic_percent=100)]
            ),
            request_id=request_id or str(uuid.uuid4()),
        )
        operation = call(self._stub.CreateDeployment, request, timeout=60)
        return OperationHandle(self._client.channel, operation, deployment_pb2.Deployment)

    def update(self, name: str, model: str, *, request_id: str | None = None) -> OperationHandle[deployment_pb2.Deployment]:
        """Let a deployment serve another model."""
        request = deployment_pb2.UpdateDeploymentRequest(
            deployment=deployment_pb2.Deployment(
                name=resource("deployments", name),
                models=[deployment_pb2.DeployedModel(model=resource("models", model), traffic_percent=100)],
            ),
            request_id=request_id or str(uuid.uuid4()),
        )
        request.update_mask.paths.append("models")
        operation = call(self._stub.UpdateDeployment, request, timeout=60)
        return OperationHandle(self._client.channel, operation, deployment_pb2.Deployment)

    def get(self, name: str) -> deployment_pb2.Deployment:
        """Give one deployment."""
        return call(self._stub.GetDeployment, deployment_pb2.GetDeploymentRequest(name=resource("deployments", name)), timeout=30)

    def list(self, limit: int | None = None) -> Iterator[deployment_pb2.Deployment]:
        """Give deployments, newest first."""
        return pages(self._stub.ListDeployments, deployment_pb2.ListDeploymentsRequest(), "deployments", limit)

    def delete(self, name: str, *, allow_missing: bool = False) -> empty_pb2.Empty:
        """Take a deployment out of service."""
        request = deployment_pb2.DeleteDeploymentRequest(
            name=resource("deployments", name), allow_missing=allow_missing, request_id=str(uuid.uuid4())
        )
        return call(self._stub.DeleteDeployment, request, timeout=120)


class Operations:
    """Long-running operations of all services."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._stub = operations_pb2_grpc.OperationsStub(client.channel)

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
        return OperationHandle(self._client.channel, operation, result)


class Client:
    """A connection to Oteo's gateway.

    Parameters
    ----------
    address
        ``host:port``; None: ``OTEO_ADDRESS``, else the stack that `oteo up` started on this machine.
    token
        Bearer token; None: ``OTEO_TOKEN``, else the stack's.
    """

    def __init__(self, address: str | None = None, token: str | None = None) -> None:
        self.endpoint = find_endpoint(address, token)
        self.channel = open_channel(self.endpoint)
        self.datasets = Datasets(self)
        self.models = Models(self)
        self.deployments = Deployments(self)
        self.operations = Operations(self)
        self._inference = inference_pb2_grpc.InferenceServiceStub(self.channel)
        self._pipelines = pipeline_pb2_grpc.PipelineServiceStub(self.channel)

    def __enter__(self) -> Client:
        """Give the client; leaving the block closes it."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close the connection."""
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self.channel.close()

    def predict(
        self,
        deployment: str,
        image: bytes | str | os.PathLike[str],
        *,
        top_k: int = 0,
        timeout: float = 60.0,
    ) -> inference_pb2.PredictResponse:
        """Answer for one image.

        Parameters
        ----------
        deployment
            Short or full name.
        image
            Encoded bytes (PNG, JPEG, TIFF), a path, or a dataset sample's name (``datasets/…/samples/…``).
        top_k
            Classes to give, the likeliest first; 0: all.
        timeout
            Deadline of the call, seconds.
        """
        source = image_pb2.ImageSource()
        if isinstance(image, bytes):
            source.content = image
        elif isinstance(image, str) and image.startswith("datasets/") and "/samples/" in image and not Path(image).exists():
            source.sample = image
        else:
            try:
                source.content = Path(image).expanduser().read_bytes()
            except OSError as error:
                raise OteoApiError("NOT_FOUND", f"cannot read {image}: {error.strerror}", reason="FILE_NOT_FOUND", field="image") from None
        request = inference_pb2.PredictRequest(deployment=resource("deployments", deployment), image=source, top_k=top_k)
        return call(self._inference.Predict, request, timeout=timeout)

    def run_pipeline(
        self,
        source: str | os.PathLike[str] = "",
        *,
        budget: float,
        dataset: str = "",
        name: str = "",
        task: str | None = None,
        augment_copies: int = 0,
        evaluate: bool = False,
        request_id: str | None = None,
    ) -> OperationHandle[pipeline_pb2.RunPipelineResponse]:
        """Import, train and deploy in one operation: give ``source`` (see `Datasets.import_`) or a ``dataset`` that is there.

        ``budget``: seconds of training. ``augment_copies``: publish an augmented dataset first, with so many copies of each training sample.
        """
        request = pipeline_pb2.RunPipelineRequest(evaluate=evaluate, request_id=request_id or str(uuid.uuid4()))
        if dataset:
            request.dataset = resource("datasets", dataset)
        else:
            getattr(request, "import").CopyFrom(
                dataset_pb2.ImportDatasetRequest(
                    source_uri=source_uri(source), display_name=name, task=enum_name(task_pb2.Task, "TASK_", task, "task")
                )
            )
        if augment_copies:
            request.augment.copies = augment_copies
        if name:
            request.train.display_name = name
        request.budget.FromNanoseconds(int(budget * 1e9))
        operation = call(self._pipelines.RunPipeline, request, timeout=120)
        return OperationHandle(self.channel, operation, pipeline_pb2.RunPipelineResponse)
