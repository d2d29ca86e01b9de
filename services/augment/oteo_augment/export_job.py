"""The work of ExportDataset, as a job."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from oteo_augment.exporting import EXPORTS, Exported, FolderSink, Memory, Sink, StoreSink, export_dataset, parse_destination
from oteo_core.artifacts import join
from oteo_core.datasets import DatasetReader, Finding, Severity
from oteo_core.datasets.proto import FORMATS, SPLITS, finding_to_proto, name_of
from oteo_core.errors import NotFound, from_exception
from oteo_core.jobs import JobContext, JobHandler
from oteo_protos.augment.v1 import dataset_pb2

Context = JobContext[dataset_pb2.ExportDatasetRequest, dataset_pb2.ExportDatasetMetadata]

_MANIFEST = "oteo-export.json"
"""Last file of an export in the artifact store: what it is, and what was lost."""
_FOLDER = "export"
_OUTCOME = "outcome.json"
_LAST_STEP = 0.98


def run(context: Context) -> dataset_pb2.ExportDatasetResponse:
    """Write the dataset where the request wants it; killed and run again, it ends as one run would."""
    try:
        uri, outcome = _to_destination(context) if context.request.destination_uri else _to_store(context)
    except OSError as exc:
        error = from_exception(exc)
        if error.reason in ("DISK_FULL", "READ_ONLY_TARGET"):
            error.field = "destination_uri"
        raise error from exc
    dataset = context.request.name.removeprefix("datasets/")
    context.metadata.written_count = outcome.sample_count
    context.progress(1.0, "done", f"{outcome.sample_count} samples in {uri}")
    return dataset_pb2.ExportDatasetResponse(
        uri=uri, sample_count=outcome.sample_count, losses=[finding_to_proto(loss, dataset) for loss in outcome.losses]
    )


def _to_destination(context: Context) -> tuple[str, Exported]:
    destination = parse_destination(context.request.destination_uri, context.artifacts)
    memory = Memory(context.load, context.save)
    earlier = context.load(_OUTCOME)
    if earlier is not None and destination.published(memory):
        return destination.uri, _outcome_from(earlier)
    try:
        with destination.open(context.operation_id, memory, context.scratch) as sink:
            outcome = _write(context, sink)
        context.progress(_LAST_STEP, "publishing")
        context.save(_OUTCOME, _outcome_to(outcome))
        destination.publish(memory)
    except BaseException:
        destination.abandon()
        raise
    return destination.uri, outcome


def _to_store(context: Context) -> tuple[str, Exported]:
    target = f"{EXPORTS}/{context.operation_id}"
    uri = context.artifacts.uri(target)
    try:
        return uri, _outcome_from(context.artifacts.read_bytes(f"{target}/{_MANIFEST}"))
    except NotFound:
        pass
    staging = join(context.staging, _FOLDER)
    context.artifacts.delete(staging)
    with _staged(context, staging) as sink:
        outcome = _write(context, sink)
    context.artifacts.write_bytes(f"{staging}/{_MANIFEST}", _outcome_to(outcome, context))
    context.progress(_LAST_STEP, "publishing")
    context.publish(target, _MANIFEST, subdir=_FOLDER)
    return uri, outcome


def _staged(context: Context, staging: str) -> Sink:
    """Open the staging folder: straight files on a local store, since nothing of it is anybody's yet."""
    uri = context.artifacts.uri(staging)
    return FolderSink(Path(uri.removeprefix("file://"))) if uri.startswith("file://") else StoreSink(context.artifacts, staging)


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


def _outcome_to(outcome: Exported, context: Context | None = None) -> bytes:
    content: dict[str, object] = {"sample_count": outcome.sample_count, "losses": [asdict(loss) for loss in outcome.losses]}
    if context is not None:
        info = DatasetReader(context.artifacts, context.request.name.removeprefix("datasets/")).info
        content |= {"dataset": context.request.name, "digest": info.digest, "format": name_of(FORMATS, context.request.format)}
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
