"""`AugmentService`: starts augmentations; their work is a job."""

from __future__ import annotations

from typing import NoReturn

import grpc
from google.longrunning import operations_pb2

from oteo_augment.augmentation import plan_from_request
from oteo_core.artifacts import ArtifactStore
from oteo_core.datasets import DatasetReader, dataset_prefix, new_id
from oteo_core.errors import AlreadyExists, NotFound, Unimplemented
from oteo_core.operations import OperationManager
from oteo_protos.augment.v1 import augment_pb2, augment_pb2_grpc

METHOD = "AugmentDataset"


class AugmentService(augment_pb2_grpc.AugmentServiceServicer):
    """Augmentation over gRPC. Handlers block; the server runs them in threads.

    Parameters
    ----------
    operations
        The service's operations.
    artifacts
        Where datasets lie.
    """

    def __init__(self, operations: OperationManager, artifacts: ArtifactStore) -> None:
        self._operations = operations
        self._artifacts = artifacts

    def AugmentDataset(self, request: augment_pb2.AugmentDatasetRequest, context: grpc.ServicerContext) -> operations_pb2.Operation:
        """Start an augmentation."""
        if request.request_id and self._operations.find_request(METHOD, request.request_id) is not None:
            # What has been published since must not turn a replay into an error; the manager compares the requests.
            return self._operations.start(METHOD, request, metadata=augment_pb2.AugmentDatasetMetadata(), request_id=request.request_id)
        source = request.dataset.removeprefix("datasets/")
        try:
            info = DatasetReader(self._artifacts, source).info
        except NotFound as error:
            raise NotFound(error.message, reason=error.reason, field="dataset") from error
        plan_from_request(request, info)
        target = request.dataset_id or new_id(request.display_name or f"{source}-augmented", self._taken)
        if request.dataset_id and self._published(target):
            raise AlreadyExists(
                f"there is a dataset datasets/{target} already: choose another dataset_id or delete it",
                reason="DATASET_EXISTS",
                field="dataset_id",
            )
        name = dataset_prefix(target)
        metadata = augment_pb2.AugmentDatasetMetadata(
            source_dataset=request.dataset, dataset=name, total_count=info.sample_count + info.excluded_count
        )
        return self._operations.start(METHOD, request, metadata=metadata, request_id=request.request_id, resource=name)

    def ListTransforms(self, request: augment_pb2.ListTransformsRequest, context: grpc.ServicerContext) -> NoReturn:
        """Not yet."""
        raise _later("ListTransforms", "docs/augmentation.md lists the transforms that AugmentDataset takes")

    def PreviewAugmentation(self, request: augment_pb2.PreviewAugmentationRequest, context: grpc.ServicerContext) -> NoReturn:
        """Not yet."""
        raise _later("PreviewAugmentation", "AugmentDataset on a small dataset shows what a policy does")

    def AugmentImages(self, request_iterator: object, context: grpc.ServicerContext) -> NoReturn:
        """Not yet."""
        raise _later("AugmentImages", "AugmentDataset augments whole datasets")

    def _published(self, dataset: str) -> bool:
        return self._artifacts.exists(f"{dataset_prefix(dataset)}/dataset.json")

    def _taken(self, dataset: str) -> bool:
        return self._published(dataset) or bool(self._operations.live(dataset_prefix(dataset)))


def _later(method: str, instead: str) -> Unimplemented:
    return Unimplemented(f"{method} comes with a later release; {instead}", reason="NOT_IN_THIS_RELEASE")
