"""The work of ExportDataset, as a job."""

from __future__ import annotations

import json
from dataclasses import asdict

from oteo_augment.exporting import Exported, export_dataset
from oteo_core.datasets import DatasetReader, Finding, Severity
from oteo_core.datasets.proto import FORMATS, SPLITS, finding_to_proto, name_of
from oteo_core.exports import Sink
from oteo_core.exports.delivery import deliver
from oteo_core.jobs import JobContext, JobHandler
from oteo_protos.augment.v1 import dataset_pb2

Context = JobContext[dataset_pb2.ExportDatasetRequest, dataset_pb2.ExportDatasetMetadata]

_LAST_STEP = 0.98


def run(context: Context) -> dataset_pb2.ExportDatasetResponse:
    """Write the dataset where the request wants it; killed and run again, it ends as one run would."""
    uri, stored = deliver(context, context.request.destination_uri, lambda sink: _outcome_to(_write(context, sink), context))
    outcome = _outcome_from(stored)
    dataset = context.request.name.removeprefix("datasets/")
    context.metadata.written_count = outcome.sample_count
    context.progress(1.0, "done", f"{outcome.sample_count} samples in {uri}")
    return dataset_pb2.ExportDatasetResponse(
        uri=uri, sample_count=outcome.sample_count, losses=[finding_to_proto(loss, dataset) for loss in outcome.losses]
    )


def _write(context: Context, sink: Sink) -> Exported:
    request, metadata = context.request, context.metadata
    metadata.dataset = request.name

    def progress(done: int, total: int) -> None:
        metadata.written_count = done
        context.progress(_LAST_STEP * done / max(total, 1), "writing samples", f"{done} of {total} samples are written")

    context.progress(0.0, "writing samples")
    return export_dataset(
        context.artifacts,
        request.name.removeprefix("datasets/"),
        name_of(FORMATS, request.format),
        sink,
        context.scratch,
        splits=[name_of(SPLITS, split) for split in request.splits],
        stacks=request.stacks,
        check=context.check,
        progress=progress,
    )


def _outcome_to(outcome: Exported, context: Context) -> bytes:
    info = DatasetReader(context.artifacts, context.request.name.removeprefix("datasets/")).info
    content = {
        "sample_count": outcome.sample_count,
        "losses": [asdict(loss) for loss in outcome.losses],
        "dataset": context.request.name,
        "digest": info.digest,
        "format": name_of(FORMATS, context.request.format),
    }
    return json.dumps(content, indent=1, ensure_ascii=False).encode()


def _outcome_from(data: bytes) -> Exported:
    content = json.loads(data)
    losses = tuple(
        Finding(Severity(loss["severity"]), loss["code"], loss["message"], loss["path"], tuple(loss["related"]))
        for loss in content["losses"]
    )
    return Exported(content["sample_count"], losses)


HANDLERS = {"ExportDataset": JobHandler(dataset_pb2.ExportDatasetRequest, dataset_pb2.ExportDatasetMetadata, run)}
"""For the service's `job.py`."""
