"""One way to the figures of any task: truths and answers in, a function of image weights out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oteo_core.evaluation.bootstrap import (
    LEVEL,
    RESAMPLES,
    Floats,
    Interval,
    Ints,
    bootstrap,
    generator,
    percentile_interval,
    wilson_interval,
)
from oteo_core.evaluation.classification import OVERALL, SHARES
from oteo_core.evaluation.classification import Scorer as ClassScorer
from oteo_core.evaluation.detection import ObjectScorer, match_boxes
from oteo_core.evaluation.instances import InstanceScorer
from oteo_core.evaluation.multilabel import MultilabelScorer
from oteo_core.evaluation.semantic import SemanticScorer

_NO_WIDTH = 1e-12


@dataclass(frozen=True, slots=True)
class Scored:
    """Answers that were looked at once.

    Parameters
    ----------
    score
        From weights of the images ``(B, N)`` to all figures ``(B, M)``.
    places
        Column of each figure of the whole, by its name.
    single
        From a figure's name and weights ``(B, N)`` to that figure alone ``(B,)``, where that is quicker; None: it is not.
    shares
        For figures that are shares, on which all resamples may agree: the images ``(N,)`` bool that say something about them.
    work
        Numbers that each resample goes through; see `oteo_core.evaluation.resampled.affordable`.
    """

    score: Callable[[Floats], Floats]
    places: dict[str, int]
    single: Callable[[str, Floats], Floats] | None = None
    shares: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    work: int = 1

    def one(self, name: str) -> Callable[[Floats], Floats]:
        """Give the function of one figure, from weights ``(B, N)`` to ``(B,)``."""
        place, single = self.places[name], self.single
        if single is not None:
            return lambda weights: single(name, weights)
        return lambda weights: self.score(weights)[:, place]

    def interval(
        self, name: str, groups: Ints, *, seed: int = 0, resamples: int = RESAMPLES, level: float = LEVEL
    ) -> tuple[float, Interval | None]:
        """Give a figure and its interval by the cluster bootstrap.

        Parameters
        ----------
        name
            One of `places`.
        groups
            Group numbers of the images ``(N,)``, from 0 without gaps; groups are drawn whole.
        seed, resamples, level
            Of the bootstrap.

        Returns
        -------
        value, interval
            NaN where the figure is not defined. No interval where more than a tenth of the resamples do not define it; Wilson's on the number of
            groups for a share on which all resamples agree.
        """
        figure = self.one(name)
        value = float(figure(np.ones((1, len(groups))))[0])
        if not np.isfinite(value):
            return value, None
        values = bootstrap(lambda weights: figure(weights)[:, None], groups, generator(seed, "interval", name), resamples)[:, 0]
        interval = percentile_interval(values, level)
        if interval is not None and name in self.shares and interval.upper - interval.lower < _NO_WIDTH and 0 <= value <= 1:
            interval = wilson_interval(value, len(np.unique(groups[self.shares[name]])), level)
        return value, interval


def score_answers(
    task: str, classes: int, truths: Sequence[Any], answers: Sequence[Any], thresholds: float | Sequence[float] | None = None
) -> Scored:
    """Look at truths and answers of any task.

    Parameters
    ----------
    task
        A value of `oteo_core.datasets.Task`.
    classes
        Number of classes, K.
    truths
        One for each of N images: class numbers (classification), ``(K,)`` bool (multi-label), or the task's form in `oteo_core.packages.answers`.
    answers
        One for each: probabilities ``(K,)``, or the task's form.
    thresholds
        Multi-label: ``(K,)``; detection: one score threshold or one for each class. None: 0.5; where F1 is best.
    """
    if task == "classification":
        scorer = ClassScorer(np.array(truths, dtype=np.int64), np.stack(answers))
        everyone = np.ones(len(scorer.labels), dtype=np.bool_)
        places = {name: place for place, name in enumerate(OVERALL)}
        shares = {name: everyone for name in OVERALL if name in SHARES}
        return Scored(scorer.score, places, scorer.figure, shares, len(scorer.labels) * scorer.class_count)
    made: Any
    if task == "multi_label_classification":
        several = None if thresholds is None else np.broadcast_to(np.asarray(thresholds, dtype=np.float64), (classes,)).tolist()
        made = MultilabelScorer(np.stack(truths), np.stack(answers), several)
    elif task == "detection":
        made = ObjectScorer(match_boxes(truths, answers, classes, by_size=False), thresholds)
    elif task == "semantic_segmentation":
        made = SemanticScorer(truths, answers, classes, surface=False)
    else:
        made = InstanceScorer(truths, answers, classes, by_size=False)
    whole = [(place, column) for place, column in enumerate(made.columns) if column.index < 0]
    bases = {column.name: column.basis for _, column in whole if column.basis is not None}
    return Scored(made.score, {column.name: place for place, column in whole}, None, bases, made.work)
