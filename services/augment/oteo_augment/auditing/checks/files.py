"""Files that cannot be read any more, and what the import left out."""

from __future__ import annotations

from collections import defaultdict

from oteo_augment.auditing.data import AuditData
from oteo_augment.auditing.findings import AuditFinding, CheckResult, plural, some
from oteo_core.datasets import Severity

_NAME = "files"


def run(data: AuditData) -> CheckResult:
    """Report every stored file that could not be decoded, and for each reason of the import the files that it left out."""
    found = []
    for sample, row in zip(data.samples, data.measured, strict=True):
        for code, message, what in ((row.code, row.message, "image"), (row.mask_code, row.mask_message, "mask")):
            if code:
                told = f"the {what} cannot be used: {message}. Restore the file and import the dataset again, or let --fix leave it out."
                found.append(AuditFinding(_NAME, Severity.ERROR, code, told, sample.id, drop=(sample.id,)))
    by_code: defaultdict[str, list[str]] = defaultdict(list)
    for sample in data.excluded:
        codes = (
            {f.code for f in sample.findings if f.severity == Severity.ERROR} or {f.code for f in sample.findings} or {"NO_REASON_GIVEN"}
        )
        for code in codes:
            by_code[code].append(sample.id)
    for code, ids in sorted(by_code.items()):
        names = some([data.paths[name] for name in ids])
        told = f"{plural(len(ids), 'file was', 'files were')} left out before as {code}: {names}. Repair and import again if they matter."
        found.append(AuditFinding(_NAME, Severity.WARNING, "LEFT_OUT_BEFORE", told, related=tuple(ids), score=len(ids)))
    others = sum(not sample.is_picture for sample in data.samples)
    note = f"{plural(len(data.readable), 'image')} of {len(data.samples):,} could be decoded; {plural(len(data.excluded), 'file')} left out before."
    if others:
        note += f" {plural(others, 'stack or video', 'stacks and videos')} not looked into."
    return CheckResult(tuple(found), note)
