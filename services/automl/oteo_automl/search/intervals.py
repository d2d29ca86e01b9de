"""Confidence intervals of what trials were compared by: once, at the end, from the answers that each has left among the checkpoints.

Whole groups of the held-out images are drawn (`oteo_core.evaluation.bootstrap`). An interval holds what other images would have changed. It does not
hold that the best of many was picked, nor that a temperature or a threshold was found on the same images: those stay as they are in all resamples.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from oteo_core.evaluation.bootstrap import Interval, encode_groups
from oteo_core.evaluation.scored import score_answers
from oteo_core.packages import MetricValue, TrialRecord

MOST_TRIALS = 12
"""Trials whose figure is given an interval, the best ones."""

SECONDS = 2.0
"""After which none is begun; one takes a few tenths of a second with a thousand images."""

_RESAMPLES, _LEAST_RESAMPLES = 1000, 200
_MOST_WORK = 2_000_000
_SAME = 0.01

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class HeldOut:
    """What a trial said of images that it did not learn from.

    Parameters
    ----------
    truths, answers, thresholds
        Of N images, as `oteo_core.evaluation.scored.score_answers` takes them.
    groups
        Of the same images.
    """

    truths: Sequence[Any]
    answers: Sequence[Any]
    groups: Sequence[str]
    thresholds: float | Sequence[float] | None = None


def add_intervals(
    records: Sequence[TrialRecord],
    held_out: Callable[[TrialRecord], HeldOut | None],
    *,
    task: str,
    classes: int,
    objective: str,
    first: str = "",
    seed: int = 0,
    seconds: float = SECONDS,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Give the objective of the best trials its interval, in place; a trial whose answers are gone, or are not those of its figure, stays as it is.

    Parameters
    ----------
    records
        Trials, best first.
    held_out
        Gives a trial's answers; None where there are none.
    task, classes
        As `oteo_core.evaluation.scored.score_answers` takes them.
    objective
        Name of the figure; the log loss where a trial has it not.
    first
        Id of the trial that must not be left out: the winner.
    seed
        Of the resamples.
    seconds
        No trial is begun after this time, counted from when the winner is done; 0: none at all.
    clock
        Seconds.
    """
    began = clock()
    listed = [one for one in records if one.objective is not None]
    for record in sorted(listed, key=lambda one: one.id != first)[:MOST_TRIALS]:
        at = _place(record, objective)
        if at is None or record.metrics[at].lower is not None:
            continue
        if seconds <= 0 or (record.id != first and clock() - began > seconds):
            return
        try:
            found = held_out(record)
            metric = None if found is None else _with_interval(record.metrics[at], found, task, classes, seed)
        except Exception:  # noqa: BLE001 (whatever a file holds, the model and the list of trials are there)
            _log.warning("trial %s has no interval", record.id, exc_info=True)
            continue
        if metric is not None:
            record.metrics[at] = metric
        if record.id == first:
            # Its answers may have had to be computed again, which the others shall not pay for.
            began = clock()


def _place(record: TrialRecord, objective: str) -> int | None:
    names = [metric.name if not metric.class_name else "" for metric in record.metrics]
    return next((names.index(name) for name in (objective, "log_loss") if name in names), None)


def _with_interval(metric: MetricValue, found: HeldOut, task: str, classes: int, seed: int) -> MetricValue | None:
    scored = score_answers(task, classes, found.truths, found.answers, found.thresholds)
    if metric.name not in scored.places or len(found.truths) < 2:
        return None
    resamples = max(_LEAST_RESAMPLES, min(_RESAMPLES, _MOST_WORK // max(1, scored.work)))
    value, interval = scored.interval(metric.name, encode_groups(found.groups, len(found.truths)), seed=seed, resamples=resamples)
    # Where the answers that were kept give another figure than the one that is listed, an interval about them would be of something else.
    if interval is None or abs(value - metric.value) > _SAME * max(1.0, abs(metric.value)):
        return None
    return _told(metric, interval, len(found.truths))


def _told(metric: MetricValue, interval: Interval, count: int) -> MetricValue:
    return replace(
        metric,
        lower=min(interval.lower, metric.value),
        upper=max(interval.upper, metric.value),
        confidence_level=interval.level,
        sample_count=count,
    )
