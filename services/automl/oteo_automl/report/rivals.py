"""Whether the winner is better than its rivals on the test part, for any task, in a sentence each."""

from __future__ import annotations

from collections.abc import Collection, Sequence
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


def left_unsaid(
    best: tuple[str, str], runner_up: tuple[str, str] | None, baseline: tuple[str, str], compared: Collection[str]
) -> list[str]:
    """Say what the winner was not compared with, and which rival is which where one is both.

    Parameters
    ----------
    best, runner_up, baseline
        Id of the trial and name of the candidate; no runner-up where nothing else was fitted.
    compared
        Ids of the trials that it was compared with.
    """
    sentences = []
    if runner_up is None and baseline[0] == best[0]:
        return [
            f"{best[1]} had no rival: no model of another kind and none that is cheaper was fitted within what was asked for, so nothing was compared."
        ]
    if baseline[0] == best[0]:
        sentences.append(
            f"No cheaper model was compared with {best[1]}: it is what the search began with, or nothing cheaper could be fitted."
        )
    elif runner_up is not None and runner_up[0] == baseline[0] and baseline[0] in compared:
        sentences.append(f"The runner-up, {baseline[1]}, is also the baseline that the search began with.")
    late = {one[0]: one[1] for one in (runner_up, baseline) if one is not None and one[0] != best[0] and one[0] not in compared}
    if late:
        sentences.append(
            f"There was no time left to judge {' and '.join(late.values())} on the test part, so that the winner was not compared with {'it' if len(late) == 1 else 'them'}."
        )
    return sentences
