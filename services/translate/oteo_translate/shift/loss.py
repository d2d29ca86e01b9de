"""How much a model loses on images without labels.

Average thresholded confidence (Garg, Balakrishnan, Lipton, Neyshabur and Sedghi, "Leveraging unlabeled data to predict out-of-distribution
performance", ICLR 2022): the share of images whose confidence is above a threshold that is right at home. Difference of confidences (Guillory,
Shankar, Ebrahimi, Darrell and Schmidt, ICCV 2021): mean confidence at home less mean confidence now. The first is for answers that are right or
wrong, where it is the better one of the two on overconfident networks; figures in between (IoU, F1 of boxes) lie so close to each other at home that a
threshold among them makes everything of nothing, and the second is given for them. Both believe that confidence falls as fast as correctness does,
which a shift may break: models can be confidently wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from oteo_core.evaluation.bootstrap import LEVEL, percentile_interval
from oteo_translate.shift.sides import Floats, Sides

RESAMPLES = 1000


THRESHOLD, DIFFERENCE = "average thresholded confidence", "difference of confidences"


@dataclass(frozen=True, slots=True)
class Estimate:
    """One estimate of the loss: its method, its value, and the ends of its bootstrap interval; above 0: it gets worse. The scores' unit."""

    method: str
    value: float
    lower: float
    upper: float


@dataclass(frozen=True, slots=True)
class ExpectedLoss:
    """What a model is expected to lose.

    Parameters
    ----------
    metric
        The model's figure.
    home
        Mean score at home, 0 to 1.
    expected
        By the method for this kind of scores.
    other
        By the other method.
    level
        Of the intervals.
    measured
        The loss on the shifted images that have truths; None where there are too few.
    images
        Images with score at home, and shifted ones.
    """

    metric: str
    home: float
    expected: Estimate
    other: Estimate
    level: float
    measured: float | None
    images: tuple[int, int]


def threshold_for(confidence: Floats, scores: Floats, weights: Floats) -> float:
    """Give the confidence above which as large a share of home's images lies as their mean score is (equation 1 of Garg et al.).

    Scores may be any figure of 0 to 1 for each image, not only right and wrong.
    """
    error = 1.0 - float((weights * scores).sum() / weights.sum())
    order = np.argsort(confidence, kind="stable")
    if error <= 1e-12:
        return float(confidence[order][0])
    below = int(np.searchsorted(np.cumsum(weights[order]) / weights.sum(), error - 1e-12)) + 1
    return float(confidence[order][below]) if below < len(order) else float("inf")


def thresholded_score(confidence: Floats, threshold: float, weights: Floats) -> float:
    """Give the weighted share of confidences of at least the threshold."""
    return float((weights * (confidence >= threshold)).sum() / weights.sum())


def expect_loss(
    metric: str,
    home_confidence: Floats,
    home_scores: Floats,
    shifted_confidence: Floats,
    shifted_scores: Floats,
    sides: Sides,
    rng: np.random.Generator,
    *,
    least: int = 8,
    resamples: int = RESAMPLES,
) -> ExpectedLoss | None:
    """Estimate the loss.

    Parameters
    ----------
    metric
        Name of the scores.
    home_confidence, shifted_confidence
        ``(N,)`` and ``(M,)``, 0 to 1.
    home_scores, shifted_scores
        The same shapes, 0 to 1, NaN where there is no truth.
    sides
        Groups of all images, home first: resamples draw whole groups of either side.
    rng
        The generator.
    least
        Images with truths that are needed at home.
    resamples
        Of the bootstrap.

    Returns
    -------
    ExpectedLoss or None
        None where home has too few truths.
    """
    count = len(home_confidence)
    known = np.isfinite(home_scores)
    if int(known.sum()) < least:
        return None
    scores = np.where(known, home_scores, 0.0)
    base = known.astype(np.float64)

    def at(home_weights: Floats, shifted_weights: Floats) -> tuple[float, float]:
        weights = home_weights * base
        mean = float((weights * scores).sum() / weights.sum())
        threshold = threshold_for(home_confidence[known], scores[known], weights[known])
        difference = float((weights * home_confidence).sum() / weights.sum())
        difference -= float((shifted_weights * shifted_confidence).sum() / shifted_weights.sum())
        return mean - thresholded_score(shifted_confidence, threshold, shifted_weights), difference

    value, difference = at(np.ones(count), np.ones(len(shifted_confidence)))
    drawn = np.array([pair for _ in range(resamples) if (pair := _resample(at, sides, count, base, rng)) is not None])
    thresholded, apart = (
        Estimate(method, centre, *_ends(drawn[:, column], centre))
        for column, (method, centre) in enumerate(((THRESHOLD, value), (DIFFERENCE, difference)))
    )
    graded = bool(((scores[known] > 0) & (scores[known] < 1)).any())
    true = np.isfinite(shifted_scores)
    return ExpectedLoss(
        metric,
        float(scores[known].mean()),
        apart if graded else thresholded,
        thresholded if graded else apart,
        LEVEL,
        float(scores[known].mean() - shifted_scores[true].mean()) if int(true.sum()) >= least else None,
        (int(known.sum()), len(shifted_confidence)),
    )


def _resample(
    at: Callable[[Floats, Floats], tuple[float, float]], sides: Sides, count: int, base: Floats, rng: np.random.Generator
) -> tuple[float, float] | None:
    homes = np.flatnonzero(~sides.shifted)
    others = np.flatnonzero(sides.shifted)
    times = np.zeros(len(sides.shifted))
    np.add.at(times, rng.choice(homes, len(homes)), 1.0)
    np.add.at(times, rng.choice(others, len(others)), 1.0)
    weights = times[sides.groups]
    if not (weights[:count] * base).sum():
        return None
    return at(weights[:count], weights[count:])


def _ends(values: Floats, centre: float) -> tuple[float, float]:
    found = percentile_interval(values)
    return (min(found.lower, centre), max(found.upper, centre)) if found is not None else (centre, centre)
