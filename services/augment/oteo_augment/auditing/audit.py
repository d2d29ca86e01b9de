"""The audit as a whole: measure every image, run the checks, write the report; the same however the work is shared out."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from oteo_augment.auditing.catalogue import CATALOGUE, NAMES
from oteo_augment.auditing.data import AuditData
from oteo_augment.auditing.findings import RANK, AuditFinding, CheckResult
from oteo_augment.auditing.measuring import Measured, MeasureJob, from_bytes, measure_shard
from oteo_core.artifacts import ArtifactStore
from oteo_core.datasets import DatasetReader, Sample, Severity
from oteo_core.images import ImageLimits
from oteo_core.jobs.executor import Executor, Task

SHARD_PIXELS = 48_000_000
SHARD_SAMPLES = 500
"""Pixels, and samples, of one shard, about: a few seconds of work."""
FAN_OUT_FROM = 600_000_000
"""Pixels from which shards go to an executor: below, its workers would not be warm before the work is done."""
_LEAST = 40_000
"""Pixels that a small image counts for: opening it costs as much."""
_MEASURED = 0.8
MANIFEST = "summary.json"
REPORT = "report.html"
FINDINGS = "findings.jsonl"


@dataclass(frozen=True)
class AuditPlan:
    """What to audit.

    Parameters
    ----------
    dataset
        Id of the dataset.
    checks
        Names, as `oteo_augment.auditing.choose` gives them.
    operation
        Name of the operation, for the report.
    create_time
        When it was asked for, RFC 3339, for the report: a rerun writes the same.
    fixed_dataset
        Id of the cleaned dataset, for the report; "" for none.
    """

    dataset: str
    checks: tuple[str, ...] = NAMES
    operation: str = ""
    create_time: str = ""
    fixed_dataset: str = ""


@dataclass
class AuditHooks:
    """What an audit tells its surroundings and asks of them; the defaults do nothing. As `oteo_augment.importing.Hooks`."""

    check: Callable[[], None] = lambda: None
    progress: Callable[[float, str, str], None] = lambda fraction, stage, message: None
    finished: Callable[[str, Sequence[AuditFinding]], None] = lambda name, findings: None
    load: Callable[[str], bytes | None] = lambda name: None
    save: Callable[[str, bytes], None] = lambda name, data: None
    executor: Callable[[], AbstractContextManager[Executor]] | None = None


@dataclass(frozen=True)
class AuditOutcome:
    """What an audit found.

    Parameters
    ----------
    data
        The dataset and its measures.
    findings
        Worst first.
    results
        What each check found, by name, in order.
    """

    data: AuditData
    findings: tuple[AuditFinding, ...]
    results: dict[str, CheckResult] = field(default_factory=dict)

    def counts(self) -> list[tuple[str, Severity, int]]:
        """Give how often each finding occurs, worst and most frequent first."""
        counter = Counter((finding.code, finding.severity) for finding in self.findings)
        return [(code, severity, n) for (code, severity), n in sorted(counter.items(), key=lambda e: (RANK[e[0][1]], -e[1], e[0][0]))]


def audit_dataset(
    store: ArtifactStore, plan: AuditPlan, *, limits: ImageLimits, store_options: dict[str, Any] | None = None, hooks: AuditHooks | None = None
) -> AuditOutcome:  # fmt: skip
    """Look at every sample of a dataset and run the checks.

    Parameters
    ----------
    store, store_options
        The artifact store, and the options that workers open it with.
    plan
        What to audit.
    limits
        Largest images.
    hooks
        Progress, stopping, checkpoints, fan-out.

    Raises
    ------
    NotFound
        DATASET_NOT_FOUND.
    """
    from oteo_augment.auditing.checks import CHECKS

    hooks = hooks or AuditHooks()
    reader = DatasetReader(store, plan.dataset)
    hooks.progress(0.0, "reading the table", "")
    samples: list[Sample] = []
    excluded: list[Sample] = []
    for sample in reader.samples(include_excluded=True):
        (excluded if sample.excluded else samples).append(sample)
    applicable = {check.name for check in CATALOGUE if reader.info.task in check.tasks}
    job = MeasureJob(
        store.root_uri, store_options or {}, plan.dataset, limits,
        features="label_errors" in plan.checks and "label_errors" in applicable, writing="text" in plan.checks,
    )  # fmt: skip
    measured = _measure(job, samples, hooks)
    data = AuditData(reader.info, samples, excluded, measured)
    results: dict[str, CheckResult] = {}
    for number, name in enumerate(plan.checks):
        hooks.check()
        hooks.progress(_MEASURED + 0.1 * number / len(plan.checks), f"checking: {name.replace('_', ' ')}", "")
        if name not in applicable:
            results[name] = CheckResult(note=f"Does not apply to {reader.info.task.replace('_', ' ') or 'this task'}.")
        else:
            result = CHECKS[name](data)
            results[name] = CheckResult(tuple(sorted(result.findings, key=AuditFinding.key)), result.note, result.figures)
        hooks.finished(name, results[name].findings)
    everything = [finding for name in plan.checks for finding in results[name].findings]
    everything.sort(key=lambda finding: RANK[finding.severity])
    return AuditOutcome(data, tuple(everything), results)


def _measure(job: MeasureJob, samples: Sequence[Sample], hooks: AuditHooks) -> list[Measured]:
    shards = list(_cut(samples))
    done: dict[int, list[Measured]] = {}
    seen = 0

    def take(number: int, data: bytes) -> None:
        nonlocal seen
        done[number] = list(from_bytes(data))
        seen += len(done[number])
        hooks.progress(_MEASURED * seen / max(1, len(samples)), "looking at images", f"{seen:,} of {len(samples):,} images are looked at")

    pending: list[tuple[int, Sequence[Sample]]] = []
    for number, piece in enumerate(shards):
        data = hooks.load(_name(number))
        if data is None:
            pending.append((number, piece))
        else:
            take(number, data)
    if hooks.executor is not None and sum(_work(sample) for _, shard in pending for sample in shard) > FAN_OUT_FROM:
        with hooks.executor() as executor:
            _fan_out(executor, job, pending, hooks, take)
    else:
        for number, shard in pending:
            data = measure_shard(job, shard, hooks.check)
            hooks.save(_name(number), data)
            take(number, data)
    return [row for number in range(len(shards)) for row in done[number]]


def _fan_out(
    executor: Executor, job: MeasureJob, pending: Sequence[tuple[int, Sequence[Sample]]], hooks: AuditHooks, take: Callable[[int, bytes], None]
) -> None:  # fmt: skip
    width = max(2, int(executor.cpus) * 2)
    queue = list(pending)[::-1]
    running: dict[Task[bytes], int] = {}
    while queue or running:
        hooks.check()
        while queue and len(running) < width:
            number, shard = queue.pop()
            running[executor.submit(measure_shard, job, shard)] = number
        finished, _ = executor.wait(list(running), timeout=0.5)
        for task in finished:
            number = running.pop(task)
            data = task.result()
            hooks.save(_name(number), data)
            take(number, data)


def _work(sample: Sample) -> int:
    return max(_LEAST, sample.width * sample.height)


def _cut(samples: Sequence[Sample]) -> Iterator[list[Sample]]:
    """Cut the dataset into pieces of about equal work; the same on every attempt."""
    piece: list[Sample] = []
    work = 0
    for sample in samples:
        piece.append(sample)
        work += _work(sample)
        if work >= SHARD_PIXELS or len(piece) >= SHARD_SAMPLES:
            yield piece
            piece, work = [], 0
    if piece:
        yield piece


def _name(number: int) -> str:
    return f"audit/{number:06d}.arrow"


def write_outcome(
    store: ArtifactStore, prefix: str, plan: AuditPlan, outcome: AuditOutcome, page: bytes, fixed: dict[str, Any] | None
) -> None:
    """Write the report, the list and, last, the summary below a prefix.

    Parameters
    ----------
    page
        The report, HTML.
    fixed
        What the cleaned dataset leaves out; None where there is none.
    """
    lines = "".join(finding.to_json(outcome.data.paths) + "\n" for finding in outcome.findings)
    store.write_bytes(f"{prefix}/{REPORT}", page)
    store.write_bytes(f"{prefix}/{FINDINGS}", lines.encode())
    info = outcome.data.info
    summary = {
        "format_version": 1,
        "dataset": f"datasets/{plan.dataset}",
        "dataset_digest": info.digest,
        "operation": plan.operation,
        "create_time": plan.create_time,
        "task": info.task,
        "sample_count": len(outcome.data.samples),
        "excluded_count": len(outcome.data.excluded),
        "finding_count": len(outcome.findings),
        "counts": [{"code": code, "severity": severity.value, "count": count} for code, severity, count in outcome.counts()],
        "checks": {
            name: {"note": result.note, "finding_count": len(result.findings), "figures": result.figures}
            for name, result in outcome.results.items()
        },
        "report": REPORT,
        "findings": FINDINGS,
        "fixed_dataset": f"datasets/{plan.fixed_dataset}" if plan.fixed_dataset else "",
        "fix": fixed,
    }
    store.write_bytes(f"{prefix}/{MANIFEST}", json.dumps(summary, indent=1, ensure_ascii=False, sort_keys=True).encode())
