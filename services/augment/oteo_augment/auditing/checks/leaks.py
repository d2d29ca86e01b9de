"""What is in training and in validation or test at once: a model is then judged on what it has seen."""

from __future__ import annotations

from collections import Counter, defaultdict

from oteo_augment.auditing.data import AuditData
from oteo_augment.auditing.findings import AuditFinding, CheckResult, plural, some
from oteo_core.datasets import SPLITS, Severity

_NAME = "leaks"


def run(data: AuditData) -> CheckResult:
    """Report groups, equal pictures, similar pictures and augmented copies that lie in more than one part."""
    found: list[AuditFinding] = []
    groups: defaultdict[str, list[int]] = defaultdict(list)
    families: defaultdict[str, list[int]] = defaultdict(list)
    for index, sample in enumerate(data.samples):
        if sample.group:
            groups[sample.group].append(index)
        families[data.root(index)].append(index)
    told: set[frozenset[int]] = set()
    kinds = (
        ("LEAK_DUPLICATE", Severity.ERROR, "the same picture", data.exact_groups),
        ("LEAK_GROUP", Severity.ERROR, "one group", list(groups.values())),
        ("LEAK_AUGMENTED", Severity.ERROR, "a picture and its augmented copies", list(families.values())),
        ("LEAK_NEAR_DUPLICATE", Severity.WARNING, "pictures that look alike", data.near_groups),
    )
    for code, severity, what, sets in kinds:
        for members in sets:
            parts = Counter(split for index in members if (split := data.samples[index].split))
            if len(parts) < 2 or frozenset(members) in told:
                continue
            told.add(frozenset(members))
            where = ", ".join(f"{parts[split]} in {split}" for split in SPLITS if parts[split])
            named = f" {data.samples[members[0]].group!r}" if code == "LEAK_GROUP" else ""
            ids = data.ids(members)
            message = (
                f"{what}{named} is in more than one part ({where}): {some(data.named(members))}. Figures of validation or test are too good; "
                "--fix brings them into the part that has most of them."
            )
            found.append(AuditFinding(_NAME, severity, code, message, ids[0], ids[1:], score=len(members)))
    parted = sum(bool(sample.split) for sample in data.samples)
    note = f"{plural(parted, 'sample')} in parts, {plural(len(groups), 'named group')}: {plural(len(found), 'leak')}."
    return CheckResult(tuple(found), note)
