"""Classes that a training sees too seldom, or that a part lacks."""

from __future__ import annotations

from collections import Counter, defaultdict

from oteo_augment.auditing.data import AuditData
from oteo_augment.auditing.findings import AuditFinding, CheckResult, plural
from oteo_core.datasets import SPLITS, Severity

_NAME = "balance"
FEW = 10
"""Samples under which a class can be neither learned nor measured."""
_RARE = 20
_UNEVEN = 10


def run(data: AuditData) -> CheckResult:
    """Count samples by class and part."""
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    parts: Counter[str] = Counter(sample.split for sample in data.samples)
    holders: defaultdict[str, list[str]] = defaultdict(list)
    for sample in data.samples:
        for name in set(sample.class_names()):
            counts[name][sample.split] += 1
            holders[name].append(sample.id)
    totals = {name: counts[name].total() for name in data.info.classes}
    largest = max(totals.values(), default=0)
    present = [split for split in SPLITS if parts[split]]
    found = [*_parts(parts, len(data.samples))]
    for name, total in totals.items():
        ids = tuple(holders[name])
        if not total:
            told = f"class {name!r} has no sample; collect some, or import again without it."
            found.append(AuditFinding(_NAME, Severity.WARNING, "EMPTY_CLASS", told, score=largest))
            continue
        missing = [split for split in present if not counts[name][split]]
        if missing:
            severity = Severity.ERROR if "train" in missing else Severity.WARNING
            effect = "it cannot be learned" if "train" in missing else "its figures cannot be measured there"
            told = f"class {name!r} ({plural(total, 'sample')}) is missing from {' and '.join(missing)}: {effect}; part the dataset anew or collect more."
            found.append(AuditFinding(_NAME, severity, "CLASS_MISSING_IN_PART", told, related=ids, score=largest - total))
        if total < FEW or total * _RARE < largest:
            told = f"class {name!r} is rare: {plural(total, 'sample')}, the largest class has {largest:,}; collect more or augment it (copies_by_class)."
            found.append(AuditFinding(_NAME, Severity.WARNING, "RARE_CLASS", told, related=ids, score=largest - total))
    held = {name: total for name, total in totals.items() if total}
    if len(held) > 1 and largest >= _UNEVEN * min(held.values()):
        small, big = min(held, key=lambda n: held[n]), max(held, key=lambda n: held[n])
        told = (
            f"classes are uneven: {big!r} has {largest:,} samples, {small!r} {held[small]:,}, {largest / held[small]:.0f} times fewer. Judge by "
            "balanced accuracy, and augment the small classes."
        )
        found.append(AuditFinding(_NAME, Severity.INFO, "UNEVEN_CLASSES", told, score=largest / held[small]))
    order = [*present, *([""] if parts[""] else [])]
    note = f"{plural(len(totals), 'class', 'classes')}, {min(totals.values(), default=0):,} to {largest:,} samples each."
    return CheckResult(tuple(found), note, {"parts": order, "classes": {name: [counts[name][split] for split in order] for name in totals}})


def _parts(parts: Counter[str], total: int) -> list[AuditFinding]:
    missing = [split for split in SPLITS if not parts[split]]
    if not total or not missing:
        return []
    severity = Severity.ERROR if "train" in missing else Severity.WARNING
    told = f"the dataset has no {' and no '.join(missing)} part: import it again without its own parts (ignore_source_split) to have all three."
    return [AuditFinding(_NAME, severity, "PART_MISSING", told)]
