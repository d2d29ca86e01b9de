"""The client: datasets, training, models, deployments, predictions and pipelines behind one address."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any

from oteo.augmentations import Augmentations
from oteo.connection import Endpoint, call, find_endpoint, open_channel
from oteo.corrections import Corrections
from oteo.credentials import TokenSource
from oteo.datasets import Datasets
from oteo.deployments import Deployments
from oteo.models import Models
from oteo.names import enum_name, resource, slug, source_uri
from oteo.operations import OperationHandle, Operations
from oteo.predictions import predict_request
from oteo.shifts import Shifts
from oteo.streaming import WINDOW, Image, Streamed, predict_many
from oteo.translators import Translators
from oteo_protos.augment.v1 import dataset_pb2
from oteo_protos.automl.v1 import automl_pb2
from oteo_protos.gateway.v1 import identity_pb2, identity_pb2_grpc, inference_pb2, inference_pb2_grpc, pipeline_pb2, pipeline_pb2_grpc
from oteo_protos.type.v1 import task_pb2


class Client:
    """A connection to Oteo's gateway.

    Parameters
    ----------
    address
        ``host:port``; None: ``OTEO_ADDRESS``, else the stack that `oteo up` started on this machine.
    token
        Bearer token, or a function that gives the one to send now; None: ``OTEO_TOKEN``, ``OTEO_TOKEN_FILE`` or ``OTEO_TOKEN_COMMAND``, else the
        stack's.
    endpoint
        In the place of both: everything about the connection, TLS and one's own certificate too.
    """

    def __init__(self, address: str | None = None, token: str | TokenSource | None = None, *, endpoint: Endpoint | None = None) -> None:
        self.endpoint = endpoint or find_endpoint(address, token)
        self.channel = open_channel(self.endpoint)
        self.datasets = Datasets(self.channel)
        self.augmentations = Augmentations(self.channel)
        self.models = Models(self.channel)
        self.shifts = Shifts(self.channel)
        self.translators = Translators(self.channel)
        self.deployments = Deployments(self.channel)
        self.corrections = Corrections(self.channel)
        self.operations = Operations(self.channel)
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

    def who_am_i(self) -> identity_pb2.WhoAmIResponse:
        """Give whom the gateway takes the caller for: name, roles, limits, and the methods that it may call."""
        return call(identity_pb2_grpc.IdentityServiceStub(self.channel).WhoAmI, identity_pb2.WhoAmIRequest(), timeout=60)

    def upload(
        self,
        path: str | os.PathLike[str],
        on_progress: Callable[[int, int], None] | None = None,
        settings: dataset_pb2.ImportDatasetRequest | None = None,
    ) -> OperationHandle[dataset_pb2.ImportDatasetResponse]:
        """Send a folder or an archive of this machine and import it; see `Datasets.upload`."""
        return self.datasets.upload(path, settings, on_progress)

    def train(self, dataset: str, *, budget: float, **options: Any) -> OperationHandle[automl_pb2.TrainModelResponse]:
        """Train the best model that ``budget`` seconds allow; see `Models.train`."""
        return self.models.train(dataset, budget=budget, **options)

    def predict(
        self, deployment: str, image: bytes | str | os.PathLike[str], *, timeout: float = 60.0, **options: Any
    ) -> inference_pb2.PredictResponse:
        """Answer for one image.

        Parameters
        ----------
        deployment
            Short or full name.
        image
            Encoded bytes (PNG, JPEG, TIFF, DICOM), a path, or a dataset sample's name (``datasets/…/samples/…``).
        timeout
            Deadline of the call, seconds.
        **options
            Those of `oteo.predictions.predict_request`: ``top_k``, ``operating_point``, ``score_threshold``, ``explain``, ``draw``, ``frame``,
            ``tiling``, ``masks``, ``alias``, ``adapt``.
        """
        return call(self._inference.Predict, predict_request(deployment, image, **options), timeout=timeout)

    def predict_many(
        self, deployment: str, images: Iterable[Image], *, window: int = WINDOW, timeout: float | None = None, **options: Any
    ) -> Iterator[Streamed]:
        """Answer for many images through one stream, in order.

        Parameters
        ----------
        deployment
            Short or full name.
        images
            As for `predict`; read as there is room for them.
        window
            Images that are under way at a time.
        timeout
            Seconds for all of them together; None: no limit.
        **options
            As for `predict`.

        Yields
        ------
        Streamed
            Image by image, its answer or its error; an image's error ends nothing. A stream that breaks with UNAVAILABLE is taken up where it broke.

        Raises
        ------
        OteoApiError
            The stream itself failed.
        """
        return predict_many(self._inference, deployment, images, window=window, timeout=timeout, **options)

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
        """Import, train and deploy in one operation.

        Parameters
        ----------
        source
            What to import; see `Datasets.import_`.
        budget
            Wall-clock time of the training, seconds.
        dataset
            A dataset that is there, instead of ``source``.
        name
            Name of the model and of the deployment, as an id: ``"Lesions 2"`` gives ``lesions-2``; empty: the dataset's.
        task
            ``"classification"``, …; None: read from the annotations.
        augment_copies
            Copies of each training sample in an augmented dataset that is published first; 0: training augments as it goes.
        evaluate
            True: judge the deployment on the test part, too.
        request_id
            A UUID; the same twice gives the first operation.
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
            request.pipeline_id = slug(name)
            request.train.display_name = name
        request.budget.FromNanoseconds(int(budget * 1e9))
        operation = call(self._pipelines.RunPipeline, request, timeout=120)
        return OperationHandle(self.channel, operation, pipeline_pb2.RunPipelineResponse)
