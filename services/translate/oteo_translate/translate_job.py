"""The work of TranslateDataset, as a job."""

from __future__ import annotations

import uuid

from oteo_core.datasets import DatasetInfo, DatasetReader, dataset_prefix
from oteo_core.images import ImageLimits
from oteo_core.jobs import JobContext, JobHandler
from oteo_core.packages.translators import check_usable, read_translator
from oteo_protos.translate.v1 import translate_pb2
from oteo_translate.translating.dataset import translate_dataset

Context = JobContext[translate_pb2.TranslateDatasetRequest, translate_pb2.TranslateDatasetMetadata]

_LAST_STEP = 0.95
"""Share of the work that is done when all shards are; the table is left."""


def run(context: Context) -> translate_pb2.TranslateDatasetResponse:
    """Make the translated dataset and publish it."""
    request, metadata = context.request, context.metadata
    source = request.dataset.removeprefix("datasets/")
    target = metadata.dataset.removeprefix("datasets/")
    package = read_translator(context.artifacts, request.translator)
    check_usable(package, allow_rejected=request.allow_rejected)
    info = DatasetReader(context.artifacts, source).info

    def progress(done: int, total: int) -> None:
        metadata.written_count = done
        context.progress(_LAST_STEP * done / max(total, 1), "translating images", f"{done} of {total} images of {request.dataset} are done")

    context.progress(0.0, "translating images")
    rejected = "" if package.accepted else ", by a rejected translator"
    with context.executor() as executor:
        outcome = translate_dataset(
            context.artifacts,
            source,
            package,
            DatasetInfo(
                id=target,
                display_name=f"{info.display_name or source}, translated by {package.display_name or package.id}{rejected}",
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
    left = f", {outcome.left_out} left out with the reason" if outcome.left_out else ""
    context.progress(1.0, "done", f"{outcome.translated} images translated{left}")
    return translate_pb2.TranslateDatasetResponse(dataset=dataset_prefix(target), sample_count=outcome.translated)


HANDLERS = {"TranslateDataset": JobHandler(translate_pb2.TranslateDatasetRequest, translate_pb2.TranslateDatasetMetadata, run)}
"""For the service's `job.py`."""
