"""The work of ImportDataset and UploadDataset, as a job."""

from __future__ import annotations

import uuid
from collections import Counter

from oteo_augment.conversion import import_limits, import_options
from oteo_augment.importing import Hooks, import_dataset
from oteo_core.datasets import DatasetInfo, DatasetReader, Severity, dataset_prefix
from oteo_core.datasets.proto import FORMATS, SEVERITIES, dataset_to_proto
from oteo_core.errors import NotFound
from oteo_core.jobs import JobContext, JobHandler
from oteo_protos.augment.v1 import dataset_pb2
from oteo_protos.type.v1 import report_pb2

Context = JobContext[dataset_pb2.ImportDatasetRequest, dataset_pb2.ImportDatasetMetadata]

_MANIFEST = "dataset.json"
_FOLDER = "dataset"


def run(context: Context) -> dataset_pb2.ImportDatasetResponse:
    """Import the source and publish the dataset."""
    metadata = context.metadata
    target = metadata.dataset.removeprefix("datasets/")
    operation = f"operations/{context.operation_id}"
    if not _published(context, target, operation):
        options = import_options(context.request, target)
        import_dataset(
            options,
            context.artifacts,
            f"{context.staging}/{_FOLDER}",
            limits=import_limits(context.settings),
            hooks=_hooks(context),
            provenance={"operation": operation},
            store_options=context.settings.artifact_options,
            scratch=context.scratch,
            # The same on every attempt, so that a job that was killed while publishing finds its own dataset.
            uid=uuid.uuid5(uuid.NAMESPACE_OID, context.operation_id).hex,
            create_time=context.create_time.isoformat(timespec="microseconds"),
        )
        context.publish(dataset_prefix(target), _MANIFEST, subdir=_FOLDER)
    reader = DatasetReader(context.artifacts, target)
    _count(context, reader.info)
    context.progress(1.0, "done", f"{reader.info.sample_count} samples in datasets/{target}, {reader.info.excluded_count} left out")
    return dataset_pb2.ImportDatasetResponse(dataset=dataset_to_proto(reader.info, reader.uri))


def _published(context: Context, target: str, operation: str) -> bool:
    """Tell whether an earlier attempt got as far as publishing."""
    try:
        info = DatasetReader(context.artifacts, target).info
    except NotFound:
        return False
    return info.provenance.get("operation") == operation


def _count(context: Context, info: DatasetInfo) -> None:
    metadata = context.metadata
    metadata.format = FORMATS.get(info.source_format, dataset_pb2.DATASET_FORMAT_UNSPECIFIED)
    del metadata.findings[:]
    metadata.findings.extend(
        report_pb2.FindingCount(code=f.code, severity=SEVERITIES[Severity(f.severity)], count=f.count) for f in info.findings
    )


def _hooks(context: Context) -> Hooks:
    metadata = context.metadata

    def found(name: str, count: int) -> None:
        metadata.format, metadata.found_count = FORMATS[name], count

    def read(count: int, findings: Counter[tuple[str, str]]) -> None:
        metadata.read_count = count
        del metadata.findings[:]
        metadata.findings.extend(
            report_pb2.FindingCount(code=code, severity=SEVERITIES[Severity(severity)], count=number)
            for (code, severity), number in sorted(findings.items())
        )

    def progress(fraction: float, stage: str) -> None:
        message = f"{metadata.read_count} of {metadata.found_count} files are read" if metadata.found_count else stage
        context.progress(fraction, stage, message)

    return Hooks(
        check=context.check,
        progress=progress,
        found=found,
        read=read,
        load=context.load,
        save=context.save,
        executor=context.executor,
        key=context.settings.deidentification_key,
    )


_HANDLER = JobHandler(dataset_pb2.ImportDatasetRequest, dataset_pb2.ImportDatasetMetadata, run)

HANDLERS = {"ImportDataset": _HANDLER, "UploadDataset": _HANDLER}
"""For the service's `job.py`: an upload is an import whose source was sent."""
