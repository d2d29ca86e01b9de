"""Pixel types and channels that do not go together."""

from __future__ import annotations

from collections import Counter, defaultdict

from oteo_augment.auditing.data import AuditData
from oteo_augment.auditing.findings import AuditFinding, CheckResult, plural, some
from oteo_core.datasets import Severity, Task

_NAME = "modes"
_TELLING = 0.2
_ENOUGH = 20


def _mode(channels: int, grey_as_colour: bool) -> str:
    if channels in (1, 2) or grey_as_colour:
        return "grey"
    return "colour" if channels in (3, 4) else f"{channels} channels"


def run(data: AuditData) -> CheckResult:
    """Report mixed pixel types and channels, grey saved as colour, and modes that give a class away."""
    rows = [(index, data.measured[index]) for index in data.readable]
    found: list[AuditFinding] = []
    types, channels = Counter(row.dtype for _, row in rows), Counter(row.channels for _, row in rows)
    if len(types) > 1:
        usual = types.most_common(1)[0][0]
        odd = [index for index, row in rows if row.dtype != usual]
        counts = ", ".join(f"{plural(n, 'image')} of {name}" for name, n in types.most_common())
        told = f"pixel types are mixed: {counts}. The same brightness is another number in each: {some(data.named(odd))}. Bring them to one type."
        found.append(AuditFinding(_NAME, Severity.WARNING, "MIXED_PIXEL_TYPES", told, related=data.ids(odd), score=len(odd)))
    if len(channels) > 1:
        usual_count = channels.most_common(1)[0][0]
        odd = [index for index, row in rows if row.channels != usual_count]
        counts = ", ".join(f"{plural(n, 'image')} of {plural(c, 'channel')}" for c, n in channels.most_common())
        told = f"channels are mixed: {counts}. Trainings bring all to one number and drop alpha; see that nothing is lost: {some(data.named(odd))}."
        found.append(AuditFinding(_NAME, Severity.INFO, "MIXED_CHANNELS", told, related=data.ids(odd), score=len(odd)))
    grey = [index for index, row in rows if row.grey_as_colour]
    if grey:
        total = sum(row.channels >= 3 for _, row in rows)
        told = f"{len(grey):,} of {total:,} colour images are grey: their three channels are equal. Saved as grey they need a third: {some(data.named(grey))}."
        found.append(AuditFinding(_NAME, Severity.INFO, "GREY_AS_COLOUR", told, related=data.ids(grey), score=len(grey)))
    found += _telling(data)
    modes = Counter((row.dtype, _mode(row.channels, row.grey_as_colour)) for _, row in rows)
    note = "; ".join(f"{plural(n, 'image')} {dtype} {mode}" for (dtype, mode), n in modes.most_common()) + "."
    return CheckResult(tuple(found), note)


def _telling(data: AuditData) -> list[AuditFinding]:
    """Report where stored channels give the class away: a model may then learn the file format."""
    if data.info.task != Task.CLASSIFICATION:
        return []
    table: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for index in data.readable:
        row, labels = data.measured[index], data.samples[index].labels
        if len(labels) == 1:
            table[f"{row.dtype}, {plural(row.channels, 'channel')}"][labels[0]] += 1
    total: Counter[str] = sum(table.values(), Counter())
    count = total.total()
    if len(table) < 2 or len(total) < 2:
        return []
    # Share of wrong guesses that knowing the mode saves (Goodman and Kruskal's lambda).
    base = count - max(total.values())
    saved = sum(max(classes.values()) for classes in table.values()) - max(total.values())
    if count < _ENOUGH or not base or saved / base < _TELLING:
        return []
    kinds = "; ".join(
        f"{mode}: {', '.join(f'{n} {name}' for name, n in sorted(classes.items()))}" for mode, classes in sorted(table.items())
    )
    told = f"how images are stored tells their class ({kinds}): a model may learn that instead of the picture. Store all alike."
    return [AuditFinding(_NAME, Severity.WARNING, "MODE_TELLS_CLASS", told, score=saved / base)]
