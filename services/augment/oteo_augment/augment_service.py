"""`AugmentService`: starts augmentations; their work is a job."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
from google.longrunning import operations_pb2

from oteo_augment.augment_stream import ImageStream
from oteo_augment.augmentation import plan_from_request, policy_of_dataset, preview_sheet
from oteo_augment.augmentation.replay import replay
from oteo_augment.transform_messages import transform_to_proto
from oteo_core.artifacts import ArtifactStore
from oteo_core.augmentation import CATALOGUE, check_policy
from oteo_core.datasets import DatasetReader, dataset_prefix, new_id
from oteo_core.datasets.named_images import ImageStore
from oteo_core.datasets.proto import sample_to_proto
from oteo_core.errors import AlreadyExists, NotFound
from oteo_core.images import ImageLimits, encode_png
from oteo_core.operations import OperationManager
from oteo_core.pagination import paginate
from oteo_protos.augment.v1 import augment_pb2
from oteo_protos.type.v1 import image_pb2, task_pb2

METHOD = "AugmentDataset"


class AugmentService:
    """Augmentation over gRPC. Handlers block; the server runs them in threads.

    Parameters
    ----------
    operations
        The service's operations.
    artifacts
        Where datasets lie.
    limits
        Largest images.
    threads
        Images of streams that are augmented at a time.
    """

    def __init__(self, operations: OperationManager, artifacts: ArtifactStore, limits: ImageLimits, threads: int) -> None:
        self._operations = operations
        self._artifacts = artifacts
        self._limits = limits
        self._stream = ImageStream(ImageStore(artifacts, limits.max_bytes), limits, threads)

    def AugmentDataset(self, request: augment_pb2.AugmentDatasetRequest, context: grpc.ServicerContext) -> operations_pb2.Operation:
        """Start an augmentation."""
        if request.request_id and self._operations.find_request(METHOD, request.request_id) is not None:
            # What has been published since must not turn a replay into an error; the manager compares the requests.
            return self._operations.start(METHOD, request, metadata=augment_pb2.AugmentDatasetMetadata(), request_id=request.request_id)
        source = request.dataset.removeprefix("datasets/")
        info = self._reader(request.dataset).info
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

    def ListTransforms(
        self, request: augment_pb2.ListTransformsRequest, context: grpc.ServicerContext
    ) -> augment_pb2.ListTransformsResponse:
        """Give the catalogue, by name."""
        task = task_pb2.Task.Name(request.task).removeprefix("TASK_").lower() if request.task else ""
        fitting = [spec for _, spec in sorted(CATALOGUE.items()) if not task or task in spec.tasks]
        size = request.page_size or len(fitting)
        page, token = paginate(request, fitting, lambda spec: spec.name, token=request.page_token, size=size)
        return augment_pb2.ListTransformsResponse(transforms=map(transform_to_proto, page), next_page_token=token)

    def PreviewAugmentation(
        self, request: augment_pb2.PreviewAugmentationRequest, context: grpc.ServicerContext
    ) -> augment_pb2.PreviewAugmentationResponse:
        """Show what a policy does."""
        reader = self._reader(request.dataset)
        policy = policy_of_dataset(request.policy, reader.info)
        check_policy(policy)
        sheet = preview_sheet(
            reader, policy, samples=request.sample_count or 4, copies=request.copies or 4, seed=request.seed, limits=self._limits
        )
        return augment_pb2.PreviewAugmentationResponse(sheet=image_pb2.EncodedImage(content=encode_png(sheet), media_type="image/png"))

    def ReplayAugmentation(
        self, request: augment_pb2.ReplayAugmentationRequest, context: grpc.ServicerContext
    ) -> augment_pb2.ReplayAugmentationResponse:
        """Make one copy again."""
        _, dataset, _, sample = request.name.split("/")
        made = replay(self._artifacts, dataset, sample, self._limits)
        return augment_pb2.ReplayAugmentationResponse(
            sample=sample_to_proto(made.row, dataset),
            image=_file(made.content, made.row.path),
            mask=_file(made.mask, made.row.mask_path) if made.mask else None,
            same=made.same,
        )

    async def AugmentImages(
        self, request_iterator: AsyncIterator[bytes], context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[augment_pb2.AugmentImagesResponse]:
        """Augment images as they come. Requests come as bytes, so that a bad one is answered and does not end the stream."""
        async for response in self._stream.answer(request_iterator):
            yield response

    def _reader(self, name: str) -> DatasetReader:
        try:
            return DatasetReader(self._artifacts, name.removeprefix("datasets/"))
        except NotFound as error:
            raise NotFound(error.message, reason=error.reason, field="dataset") from error

    def _published(self, dataset: str) -> bool:
        return self._artifacts.exists(f"{dataset_prefix(dataset)}/dataset.json")

    def _taken(self, dataset: str) -> bool:
        return self._published(dataset) or bool(self._operations.live(dataset_prefix(dataset)))


def _file(content: bytes, path: str) -> image_pb2.EncodedImage:
    return image_pb2.EncodedImage(content=content, media_type="image/png" if path.endswith(".png") else "image/tiff")


SERVICE: str = augment_pb2.DESCRIPTOR.services_by_name["AugmentService"].full_name


def handler(service: AugmentService) -> grpc.GenericRpcHandler:
    """Make the handler of the service; AugmentImages is given bytes."""
    methods = {
        name: grpc.unary_unary_rpc_method_handler(
            getattr(service, name),
            request_deserializer=getattr(augment_pb2, f"{name}Request").FromString,
            response_serializer=message.SerializeToString,
        )
        for name, message in (
            ("ListTransforms", augment_pb2.ListTransformsResponse),
            ("PreviewAugmentation", augment_pb2.PreviewAugmentationResponse),
            ("ReplayAugmentation", augment_pb2.ReplayAugmentationResponse),
            ("AugmentDataset", operations_pb2.Operation),
        )
    }
    methods["AugmentImages"] = grpc.stream_stream_rpc_method_handler(
        service.AugmentImages, response_serializer=augment_pb2.AugmentImagesResponse.SerializeToString
    )
    return grpc.method_handlers_generic_handler(SERVICE, methods)
