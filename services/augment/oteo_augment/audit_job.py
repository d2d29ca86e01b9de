"""The work of AuditDataset, as a job."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Sequence
from typing import Any

from oteo_augment.auditing import AuditHooks, AuditOutcome, AuditPlan, audit_dataset, choose
from oteo_augment.auditing.audit import FINDINGS, MANIFEST, REPORT, write_outcome
from oteo_augment.auditing.findings import AuditFinding
from oteo_augment.auditing.fixing import plan_repair, write_fixed
from oteo_core.datasets import DatasetInfo, DatasetReader, dataset_prefix
from oteo_core.datasets.proto import SEVERITIES
from oteo_core.errors import NotFound
from oteo_core.images import ImageLimits
from oteo_core.jobs import JobContext, JobHandler
from oteo_protos.augment.v1 import dataset_pb2
from oteo_protos.type.v1 import report_pb2

Context = JobContext[dataset_pb2.AuditDatasetRequest, dataset_pb2.AuditDatasetMetadata]

MOST_FINDINGS = 1000
"""Findings that an answer names; all are in the list."""
_MOST_RELATED = 100
_REPORT, _DATASET = "report", "dataset"


def run(context: Context) -> dataset_pb2.AuditDatasetResponse:
    """Audit the dataset, publish the cleaned one where it was asked for, then the report."""
    request = context.request
    source = request.name.removeprefix("datasets/")
    plan = AuditPlan(
        source,
        choose(request.checks),
        operation=f"operations/{context.operation_id}",
        create_time=context.create_time.isoformat(timespec="seconds"),
        fixed_dataset=request.fixed_dataset_id if request.fix else "",
    )
    limits = ImageLimits(context.settings.max_image_bytes, context.settings.max_image_pixels)
    outcome = audit_dataset(context.artifacts, plan, limits=limits, store_options=context.settings.artifact_options, hooks=_hooks(context))
    fixed = _fix(context, plan, outcome) if request.fix else None
    context.progress(0.97, "writing the report", f"{len(outcome.findings)} findings")
    # Loaded last: plotting is needed by nothing before.
    from oteo_augment.auditing.report.page import write_page

    page = write_page(context.artifacts, plan, outcome, fixed, limits, context.check)
    write_outcome(context.artifacts, f"{context.staging}/{_REPORT}", plan, outcome, page, fixed)
    target = f"audits/{context.operation_id}"
    context.publish(target, MANIFEST, subdir=_REPORT)
    context.progress(1.0, "done", f"{len(outcome.findings)} findings in {request.name}")
    return dataset_pb2.AuditDatasetResponse(
        dataset=request.name,
        findings=[_finding(finding, source, outcome.data.paths) for finding in outcome.findings[:MOST_FINDINGS]],
        counts=[
            report_pb2.FindingCount(code=code, severity=SEVERITIES[severity], count=count) for code, severity, count in outcome.counts()
        ],
        report_uri=context.artifacts.uri(f"{target}/{REPORT}"),
        findings_uri=context.artifacts.uri(f"{target}/{FINDINGS}"),
        fixed_dataset=dataset_prefix(plan.fixed_dataset) if plan.fixed_dataset else "",
    )


def _fix(context: Context, plan: AuditPlan, outcome: AuditOutcome) -> dict[str, Any]:
    """Publish the cleaned dataset, unless an earlier attempt did; give what it leaves out."""
    repair = plan_repair(outcome)
    told = repair.to_json(outcome.data.paths)
    if _published(context, plan):
        return told
    info = outcome.data.info

    def progress(done: int, total: int) -> None:
        context.progress(0.9 + 0.06 * done / max(1, total), "writing the cleaned dataset", f"{done:,} of {total:,} samples are written")

    write_fixed(
        context.artifacts,
        plan.dataset,
        DatasetInfo(
            id=plan.fixed_dataset,
            display_name=f"{info.display_name or plan.dataset}, cleaned",
            # The same on every attempt.
            uid=uuid.uuid5(uuid.NAMESPACE_OID, context.operation_id).hex,
            create_time=context.create_time.isoformat(timespec="microseconds"),
            provenance={"operation": plan.operation, "checks": list(plan.checks)},
        ),
        outcome,
        repair,
        f"{context.staging}/{_DATASET}",
        check=context.check,
        progress=progress,
    )
    context.publish(dataset_prefix(plan.fixed_dataset), "dataset.json", subdir=_DATASET)
    return told


def _published(context: Context, plan: AuditPlan) -> bool:
    """Tell whether an earlier attempt got as far as publishing the cleaned dataset."""
    try:
        info = DatasetReader(context.artifacts, plan.fixed_dataset).info
    except NotFound:
        return False
    return info.provenance.get("operation") == plan.operation


def _hooks(context: Context) -> AuditHooks:
    metadata = context.metadata
    counts: Counter[tuple[str, str]] = Counter()
    # What an earlier attempt had said of itself is said anew.
    del metadata.finished_checks[:]
    del metadata.findings[:]

    def finished(name: str, findings: Sequence[AuditFinding]) -> None:
        metadata.finished_checks.append(name)
        counts.update((finding.code, finding.severity) for finding in findings)
        del metadata.findings[:]
        metadata.findings.extend(
            report_pb2.FindingCount(code=code, severity=SEVERITIES[severity], count=count)
            for (code, severity), count in sorted(counts.items())
        )

    return AuditHooks(
        check=context.check,
        progress=lambda fraction, stage, message: context.progress(fraction, stage, message or stage),
        finished=finished,
        load=context.load,
        save=context.save,
        executor=context.executor,
    )


def _finding(finding: AuditFinding, dataset: str, paths: dict[str, str]) -> report_pb2.Finding:
    prefix = f"datasets/{dataset}/samples/"
    return report_pb2.Finding(
        severity=SEVERITIES[finding.severity],
        code=finding.code,
        message=finding.message,
        sample=prefix + finding.sample if finding.sample else "",
        path=paths.get(finding.sample, ""),
        related_samples=[prefix + name for name in finding.related[:_MOST_RELATED]],
    )


HANDLERS = {"AuditDataset": JobHandler(dataset_pb2.AuditDatasetRequest, dataset_pb2.AuditDatasetMetadata, run)}
"""For the service's `job.py`."""
