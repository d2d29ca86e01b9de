"""The work of AugmentDataset, as a job."""

from __future__ import annotations

import uuid

from oteo_augment.augmentation import augment_dataset, plan_from_request
from oteo_core.datasets import DatasetInfo, DatasetReader, dataset_prefix
from oteo_core.datasets.proto import dataset_to_proto, finding_to_proto
from oteo_core.images import ImageLimits
from oteo_core.jobs import JobContext, JobHandler
from oteo_protos.augment.v1 import augment_pb2

Context = JobContext[augment_pb2.AugmentDatasetRequest, augment_pb2.AugmentDatasetMetadata]

_LAST_STEP = 0.95
"""Share of the work that is done when all shards are; the table is left."""


def run(context: Context) -> augment_pb2.AugmentDatasetResponse:
    """Make the augmented dataset and publish it."""
    request, metadata = context.request, context.metadata
    source = request.dataset.removeprefix("datasets/")
    target = metadata.dataset.removeprefix("datasets/")
    info = DatasetReader(context.artifacts, source).info
    plan = plan_from_request(request, info)

    def progress(done: int, total: int) -> None:
        metadata.written_count, metadata.total_count = done, total
        context.progress(_LAST_STEP * done / max(total, 1), "augmenting images", f"{done} of {total} images of {request.dataset} are done")

    context.progress(0.0, "augmenting images")
    with context.executor() as executor:
        outcome = augment_dataset(
            context.artifacts,
            source,
            plan,
            DatasetInfo(
                id=target,
                display_name=request.display_name or f"{info.display_name or source}, augmented",
                # The same on every attempt.
                uid=uuid.uuid5(uuid.NAMESPACE_OID, context.operation_id).hex,
                create_time=context.create_time.isoformat(timespec="microseconds"),
                provenance={"operation": f"operations/{context.operation_id}"},
            ),
            staging=context.staging,
            store_options=context.settings.artifact_options,
            limits=ImageLimits(context.settings.max_image_bytes, context.settings.max_image_pixels),
            executor=executor,
            checkpoints=context,
            progress=progress,
        )
    context.progress(_LAST_STEP, "publishing")
    context.publish(dataset_prefix(target), "dataset.json")
    published = DatasetReader(context.artifacts, target)
    return augment_pb2.AugmentDatasetResponse(
        dataset=dataset_to_proto(published.info, published.uri),
        augmented_count=outcome.copies,
        dropped_annotation_count=outcome.dropped_annotations,
        findings=[finding_to_proto(finding, target, sample) for sample, finding in outcome.findings],
    )


HANDLERS = {"AugmentDataset": JobHandler(augment_pb2.AugmentDatasetRequest, augment_pb2.AugmentDatasetMetadata, run)}
"""For the service's `job.py`."""
