"""What holds for every model, in sentences: limits of use, what the tests between candidates, the shifts and the data curve say."""

from __future__ import annotations

from typing import NamedTuple

from oteo_automl.report import words
from oteo_automl.report.data import ReportData
from oteo_automl.report.metrics import LOSSES
from oteo_core.packages.manifest import MetricValue, ModelPackage

_HARMED = 0.1
_SUBGROUP_GAP = 0.1
_SMALL_SUBGROUP = 10


class Verdict(NamedTuple):
    """A headline, whether it is good news, and the sentences below it."""

    headline: str
    good: bool
    sentences: list[str]


def needed(package: ModelPackage, name: str) -> MetricValue:
    """Give a figure that every package of its task has."""
    metric = package.metric(name)
    if metric is None:
        raise ValueError(f"a package without {name}")
    return metric


def of_groups(data: ReportData) -> str:
    """Say " from 12 groups" where the test images are not independent."""
    several = data.group_count < data.count
    return f" from {words.plural(data.group_count, 'group')} (patients, slides or copies)" if several else ""


def lower_end(metric: MetricValue | None) -> float:
    """Give the lower end of an interval, the value where there is none, 0 where there is no figure: what may be promised."""
    if metric is None:
        return 0.0
    return metric.value if metric.lower is None else metric.lower


def general_limits(data: ReportData) -> list[str]:
    """Say where any model must not be trusted."""
    return [
        "It knows only what it was shown: images of another scanner, stain, magnification, population or file treatment may be answered "
        "wrongly and surely. The gateway gives with every answer how usual the image is (a p-value against the training images); small "
        "values ask for a person.",
        "It is no medical device and was not tested in use. Let a person decide, and check it on images of your own site first.",
    ]


def found_limits(data: ReportData) -> list[str]:
    """Say what this model's own figures warn of."""
    sentences = []
    if data.group_count == data.count and not data.dataset.exact_duplicate_groups:
        sentences.append(
            "No groups (patients, slides) were given. If several images come from one patient, the figures are too good and the intervals too narrow: "
            "import again with a group column."
        )
    harmed = shift_sentence(data)
    sentences.append(
        harmed or "How it bears changes of light, stain, focus and noise was not measured: there was no time for simulated shifts."
    )
    low = weak_subgroups(data)
    if low:
        sentences.append(low)
    return [*sentences, *data.notes]


def shift_sentence(data: ReportData) -> str:
    """Say which simulated shifts harm the model; empty where none was tried, or none does."""
    shifts = data.shifts
    if shifts is None or not shifts.results:
        return ""
    name = words.column(shifts.metric, data.package.task)
    sign = 1.0 if shifts.larger_is_better else -1.0
    harmful = sorted(
        {r.name for r in shifts.results if sign * (shifts.clean - r.value) > _HARMED * max(abs(shifts.clean), 1e-9)},
    )
    clean, mean = words.number(shifts.metric, shifts.clean), words.number(shifts.metric, shifts.mean)
    if not harmful:
        return f"Under simulated shifts it holds: {name} {mean} on average instead of {clean}. Simulations are milder than another hospital can be."
    worst = shifts.worst
    said = f"; worst under {worst.name}, {words.number(shifts.metric, worst.value)}" if worst is not None else ""
    return f"Simulated shifts harm it: {name} {mean} on average instead of {clean}{said}. Mind {words.listing(harmful)}."


def weak_subgroups(data: ReportData) -> str:
    """Name the subgroups in which the model is much worse than on all; empty where there is none."""
    weak = []
    for group in data.subgroups:
        whole = data.package.metric(group.metric)
        if whole is None or group.count < _SMALL_SUBGROUP:
            continue
        gap = (group.figure - whole.value) if group.metric in LOSSES else (whole.value - group.figure)
        if gap > _SUBGROUP_GAP * max(abs(whole.value), 1e-9):
            weak.append(
                f"{group.attribute} {group.value} ({words.number(group.metric, group.figure)} on {words.plural(group.count, 'image')})"
            )
    return f"It is clearly worse on some: {words.listing(weak)}." if weak else ""
