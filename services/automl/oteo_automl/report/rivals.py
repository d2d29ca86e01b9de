"""Whether the winner is better than its rivals on the test part, for any task, in a sentence each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from oteo_automl.report import words
from oteo_automl.report.metrics import LOSSES
from oteo_core.evaluation.bootstrap import encode_groups, generator
from oteo_core.evaluation.paired import compare_paired
from oteo_core.evaluation.scored import score_answers

MOST_IMAGES = 1000
"""With more, so many are drawn by seed."""

_RESAMPLES = 500


@dataclass(frozen=True, slots=True)
class Said:
    """A sentence."""

    sentence: str


@dataclass(frozen=True, slots=True)
class RivalAnswers:
    """What a model said of the test images: its name and role for people, one answer for each image, and its thresholds as `score_answers` takes them."""

    name: str
    answers: Sequence[Any]
    thresholds: float | Sequence[float] | None = None


def against_rivals(
    task: str,
    classes: int,
    truths: Sequence[Any],
    groups: Sequence[str] | None,
    winner: RivalAnswers,
    rivals: Sequence[RivalAnswers],
    metric: str,
    *,
    seed: int = 0,
) -> list[Said]:
    """Compare the winner with each rival on the same images, whole groups drawn at a time.

    Parameters
    ----------
    task, classes, truths
        As `oteo_core.evaluation.scored.score_answers` takes them.
    groups
        Of the N images; None: every image alone.
    winner, rivals
        Their answers.
    metric
        What is compared.
    seed
        Of the resamples.
    """
    numbers = encode_groups(groups, len(truths))
    if len(truths) > MOST_IMAGES:
        # Whole groups, by seed, until there are enough: the comparison must not take longer than the report.
        order = generator(seed, "rivals").permutation(int(numbers.max()) + 1)
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order))
        kept = np.sort(np.argsort(rank[numbers], kind="stable")[:MOST_IMAGES])
        numbers = encode_groups([str(number) for number in numbers[kept]], len(kept))
        truths = [truths[place] for place in kept]
        winner = replace(winner, answers=[winner.answers[place] for place in kept])
        rivals = [replace(rival, answers=[rival.answers[place] for place in kept]) for rival in rivals]
    own = score_answers(task, classes, truths, winner.answers, winner.thresholds).one(metric)
    found = []
    name = words.column(metric, task)
    better = -1.0 if metric in LOSSES else 1.0
    for rival in rivals:
        other = score_answers(task, classes, truths, rival.answers, rival.thresholds).one(metric)
        paired = compare_paired([own, other], numbers, larger_is_better=metric not in LOSSES, seed=seed, resamples=_RESAMPLES)
        first, second = paired.values
        one = paired.differences[0]
        interval = one.interval
        figures = (
            f"{name} {words.number(metric, first)} and {words.number(metric, second)} on the same {words.plural(len(truths), 'image')}"
        )
        if interval is None:
            found.append(
                Said(f"{winner.name} and {rival.name} cannot be told apart: {figures}, and the figure is not defined often enough.")
            )
            continue
        # The difference is told as winner minus rival, whichever of them is better.
        lower, upper = (interval.lower, interval.upper) if one.first == 0 else (-interval.upper, -interval.lower)
        span = f"difference {words.signed(first - second)}, {interval.level:.0%} interval {words.signed(lower)} to {words.signed(upper)}, p {words.p_value(one.p_value)}"
        if lower <= 0 <= upper:
            verdict = f"{winner.name} is not shown to be better than {rival.name}"
        else:
            verdict = f"{winner.name} is {'better' if better * (first - second) > 0 else 'worse'} than {rival.name}"
        found.append(Said(f"{verdict}: {figures}, {span}."))
    return found
