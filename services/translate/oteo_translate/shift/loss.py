"""How much a model loses on images without labels.

Average thresholded confidence (Garg, Balakrishnan, Lipton, Neyshabur and Sedghi, "Leveraging unlabeled data to predict out-of-distribution
performance", ICLR 2022): the share of images whose confidence is above a threshold that is right at home. Difference of confidences (Guillory,
Shankar, Ebrahimi, Darrell and Schmidt, ICCV 2021): mean confidence at home less mean confidence now, as it is, or times what a point of confidence
costs on simulated shifts (`oteo_translate.shift.simulated`). The first is for answers that are right or wrong. Figures in between (IoU, F1 of boxes)
lie so close to each other at home that a threshold among them makes everything of nothing: for them the last is given. All believe that confidence
falls where correctness does, which a shift may break: models can be confidently wrong.

Where the model's package has a second network (`oteo_core.packages.second`, with its sources), another estimate goes before them: by how much the two agree less
than at home, the second network's answers scored against the model's as if those were true. It needs no confidence. Both may be wrong alike, and then it is too
small; where the second loses more than the model does, it is too large.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from oteo_core.evaluation.bootstrap import LEVEL, percentile_interval
from oteo_translate.shift.sides import Floats, Sides
from oteo_translate.shift.simulated import Simulated

RESAMPLES = 1000


THRESHOLD, DIFFERENCE = "average thresholded confidence", "difference of confidences"
LEARNED = "difference of confidences, weighed on simulated shifts"
SECOND = "agreement with a second network"


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
        By the second network where there is one, else by the method for this kind of scores.
    others
        By the other methods.
    level
        Of the intervals. They hold what drawing other images would change; of `LEARNED` also how the simulated shifts differ in what they cost.
    measured
        The loss on the shifted images that have truths; None where there are too few.
    images
        Images with score at home, and shifted ones.
    """

    metric: str
    home: float
    expected: Estimate
    others: tuple[Estimate, ...]
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
    simulated: Simulated | None = None,
    seconded: tuple[Floats, Floats] | None = None,
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
    simulated
        What known shifts cost; None: not known.
    seconded
        Scores of a second network's answers against the model's, at home ``(N,)`` and shifted ``(M,)``, NaN where there is nothing to agree on; None: there is
        none.
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

    agreed = _known(seconded, least)

    def at(home_weights: Floats, shifted_weights: Floats) -> tuple[float, float, float]:
        weights = home_weights * base
        mean = float((weights * scores).sum() / weights.sum())
        threshold = threshold_for(home_confidence[known], scores[known], weights[known])
        difference = float((weights * home_confidence).sum() / weights.sum())
        difference -= float((shifted_weights * shifted_confidence).sum() / shifted_weights.sum())
        apart = _mean(agreed[0], home_weights) - _mean(agreed[1], shifted_weights) if agreed is not None else 0.0
        return mean - thresholded_score(shifted_confidence, threshold, shifted_weights), difference, apart

    value, difference, disagreement = at(np.ones(count), np.ones(len(shifted_confidence)))
    drawn = np.array([found for _ in range(resamples) if (found := _resample(at, sides, count, base, rng)) is not None])
    thresholded = Estimate(THRESHOLD, value, *_ends(drawn[:, 0], value))
    apart = Estimate(DIFFERENCE, difference, *_ends(drawn[:, 1], difference))
    learned = _learned(difference, drawn[:, 1], simulated, rng)
    graded = bool(((scores[known] > 0) & (scores[known] < 1)).any())
    second = Estimate(SECOND, disagreement, *_ends(drawn[np.isfinite(drawn[:, 2]), 2], disagreement)) if agreed is not None else None
    given = [one for one in ((second, learned, apart) if graded else (second, thresholded, learned, apart)) if one is not None]
    true = np.isfinite(shifted_scores)
    return ExpectedLoss(
        metric,
        float(scores[known].mean()),
        given[0],
        tuple(given[1:]),
        LEVEL,
        float(scores[known].mean() - shifted_scores[true].mean()) if int(true.sum()) >= least else None,
        (int(known.sum()), len(shifted_confidence)),
    )


def _known(seconded: tuple[Floats, Floats] | None, least: int) -> tuple[Floats, Floats] | None:
    """Give what two networks agree, where either side has enough of it."""
    if seconded is None or min(int(np.isfinite(side).sum()) for side in seconded) < least:
        return None
    return seconded


def _mean(values: Floats, weights: Floats) -> float:
    """Give the weighted mean of what is known; NaN where nothing is."""
    known = np.isfinite(values)
    total = float(weights[known].sum())
    return float((weights[known] * values[known]).sum() / total) if total else float("nan")


def _learned(difference: float, drawn: Floats, simulated: Simulated | None, rng: np.random.Generator) -> Estimate | None:
    """Weigh the difference of confidences by what a point of confidence costs; None where no simulated shift costs confidence."""
    if simulated is None:
        return None
    ratios, weights = simulated.ratios()
    if not len(ratios):
        return None
    value = difference * simulated.slope
    return Estimate(LEARNED, value, *_ends(drawn * rng.choice(ratios, len(drawn), p=weights), value))


def _resample(
    at: Callable[[Floats, Floats], tuple[float, float, float]], sides: Sides, count: int, base: Floats, rng: np.random.Generator
) -> tuple[float, float, float] | None:
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
