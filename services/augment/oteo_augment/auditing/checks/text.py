"""Writing that may be burned in: it may name a patient, and a model may read it instead of looking."""

from __future__ import annotations

from collections import Counter

from oteo_augment.auditing.data import AuditData
from oteo_augment.auditing.findings import AuditFinding, CheckResult, plural
from oteo_core.datasets import Severity, Task

_NAME = "text"
_SURE = 8
_TELLING = 3.0
_ENOUGH = 8


def run(data: AuditData) -> CheckResult:
    """Report images with lines of letter-like marks; see `oteo_core.deidentification.text_in_pictures` for what it cannot find."""
    found = []
    marked: list[int] = []
    for index, (sample, row) in enumerate(zip(data.samples, data.measured, strict=True)):
        if not row.writing:
            continue
        marked.append(index)
        boxes = tuple(tuple(row.writing[i : i + 4]) for i in range(0, len(row.writing), 4))
        severity = Severity.WARNING if row.letters >= _SURE else Severity.INFO
        told = (
            f"{row.letters} marks in {plural(len(boxes), 'line')} look like writing: look whether it names a patient or a "
            "device, and cover it."
        )
        found.append(AuditFinding(_NAME, severity, "TEXT_SUSPECT", told, sample.id, score=row.letters, boxes=boxes))  # type: ignore[arg-type]
    found += _telling(data, marked)
    note = f"{plural(len(marked), 'image')} with marks like print; single letters and handwriting are not found."
    return CheckResult(tuple(found), note)


def _telling(data: AuditData, marked: list[int]) -> list[AuditFinding]:
    """Report where writing is far commoner in one class than in the others."""
    if data.info.task != Task.CLASSIFICATION or len(marked) < _ENOUGH:
        return []
    total = Counter(sample.labels[0] for sample in data.samples if len(sample.labels) == 1)
    having = Counter(data.samples[i].labels[0] for i in marked if len(data.samples[i].labels) == 1)
    shares = {name: having[name] / n for name, n in total.items()}
    most = max(shares, key=lambda name: shares[name], default="")
    others = sum(total.values()) - total.get(most, 0)
    if not others:
        return []
    rest = (sum(having.values()) - having[most]) / others
    if having[most] < _ENOUGH or shares[most] < _TELLING * max(rest, 1 / others):
        return []
    told = f"marks like writing are in {shares[most]:.0%} of the images of {most!r} and {rest:.0%} of the others: a model may read instead of look. Cover them."
    return [AuditFinding(_NAME, Severity.WARNING, "TEXT_TELLS_CLASS", told, score=shares[most] - rest)]
