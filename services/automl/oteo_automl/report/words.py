"""Figures, times and lists as people write them."""

from __future__ import annotations

from collections.abc import Sequence

from oteo_automl.report.metrics import about
from oteo_core.packages.manifest import MetricValue

_NAMES = {"Dice", "Hausdorff", "Matthews", "Cohen's", "Brier", "Hamming"}

FEW = 30
"""Test images of a class under which its figures are called rough."""


def percent(share: float, digits: int = 1) -> str:
    """Write 0.8235 as "82.4 %", with a blank that does not break."""
    return f"{100 * share:.{digits}f}\N{NO-BREAK SPACE}%"


def number(name: str, value: float) -> str:
    """Write a value the way its metric is read: "82.4 %", "0.824", "12.5 px"."""
    unit = about(name).unit
    if unit == "share":
        return percent(value)
    if unit == "count":
        return f"{value:,.0f}"
    if unit in ("px", "mm"):
        return f"{value:.1f}\N{NO-BREAK SPACE}{unit}"
    return f"{value:.3f}"


def figure(metric: MetricValue) -> str:
    """Write a figure the way its kind is read."""
    return number(metric.name, metric.value)


def span(metric: MetricValue) -> str:
    """Write a figure's interval; a dash where there is none."""
    if metric.lower is None or metric.upper is None:
        return "–"
    lower, upper = number(metric.name, metric.lower), number(metric.name, metric.upper)
    return f"{lower.split(chr(0xA0))[0]} to {upper}"


def duration(seconds: float) -> str:
    """Write seconds for people."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if rest else f"{minutes} min"


def column(name: str, task: str = "") -> str:
    """Give a figure's name as a column's head: "accuracy", "AUROC"."""
    title = about(name, task).title
    first = title.split(" ")[0].rstrip(",")
    return title if first in _NAMES or any(letter.isupper() or letter.isdigit() for letter in first[1:]) else title[:1].lower() + title[1:]


def listing(names: Sequence[str], limit: int = 12) -> str:
    """Write "a, b and c"; of more than `limit` names the first ones and how many others."""
    if len(names) > limit:
        return f"{', '.join(names[:limit])} and {len(names) - limit} others"
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else "".join(names)


def plural(count: int, one: str, many: str | None = None) -> str:
    """Write "1 image", "2 images"."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def signed(value: float) -> str:
    """Write a difference: "+0.012", with a true minus."""
    return f"{value:+.3f}".replace("-", "\N{MINUS SIGN}")


def p_value(value: float) -> str:
    """Write what comes after "p": "= .012", "< .001"."""
    return "< .001" if value < 0.001 else "= " + (f"{value:.3f}".lstrip("0") if value < 0.9995 else "1")
