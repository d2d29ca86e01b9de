"""What a detector's scores are worth, found on held-out images.

A score shall be the chance that the box is right: that it overlaps an object of its class, not yet found, by half or more. Platt scaling of
the score's logit (Platt 1999) with one slope and an offset for each class does it inside the graph; how far off scores were is the expected
calibration error of detections (Küppers et al., CVPR-W 2020).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, logit

from oteo_core.packages import Detections, TrueBoxes
from oteo_core.packages.decoding.detection import inside, overlaps

LEAST_SCORE = 0.05
"""Answers below are left out of fitting and measuring: there are thousands of them, and nobody is shown one."""

_ENOUGH = 30
_BINS = 10


EDGE = 2e-3
"""Scores nearer to 0 or 1 than this go on along the tangent of the logit there: the logit itself would make rounding errors of near-certain
scores large, and two runtimes would not agree."""


def log_odds(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give the logits of scores of 0 to 1, along the tangent beyond `EDGE`; rising throughout."""
    inner = np.clip(scores, EDGE, 1.0 - EDGE)
    return np.asarray(logit(inner) + (scores - inner) / (EDGE * (1.0 - EDGE)))


@dataclass(frozen=True, slots=True)
class Platt:
    """``score = sigmoid(slope * logit(score) + offsets[class])``; the identity by default.

    Parameters
    ----------
    slope
        Above 0.
    offsets
        ``(K,)``, or one for all.
    """

    slope: float = 1.0
    offsets: tuple[float, ...] = (0.0,)

    def apply(self, scores: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
        """Give calibrated scores."""
        offsets = np.asarray(self.offsets)[np.minimum(labels, len(self.offsets) - 1)]
        return np.asarray(expit(self.slope * log_odds(scores) + offsets))


def right(truth: TrueBoxes, found: Detections, overlap: float = 0.5) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Say which answers are right, and which count: those on crowds do not.

    Answers are taken likeliest first; each gets the free object of its class that it overlaps most.

    Returns
    -------
    tuple
        ``(M,)`` and ``(M,)`` bool.
    """
    good, counts = np.zeros(len(found.scores), np.bool_), np.ones(len(found.scores), np.bool_)
    shared = overlaps(found.boxes, truth.boxes)
    taken = np.zeros(len(truth.labels), np.bool_)
    for number in np.argsort(-found.scores, kind="stable"):
        fits = (truth.labels == found.labels[number]) & (shared[number] >= overlap)
        free = np.flatnonzero(fits & ~taken & ~truth.crowd)
        if len(free):
            taken[free[np.argmax(shared[number, free])]] = True
            good[number] = True
        elif (inside(found.boxes[number][None], truth.boxes[truth.crowd]) >= overlap).any():
            counts[number] = False
    return good, counts


@dataclass(frozen=True, slots=True)
class Judged:
    """Answers of held-out images, one after the other: ``(T,)`` each; `image` is the number of the image."""

    scores: NDArray[np.float64]
    labels: NDArray[np.int64]
    right: NDArray[np.bool_]
    image: NDArray[np.int64]


def judge_answers(truths: Sequence[TrueBoxes], found: Sequence[Detections]) -> Judged:
    """Match all answers with what is true."""
    parts: list[tuple[Any, ...]] = []
    for image, (truth, answer) in enumerate(zip(truths, found, strict=True)):
        good, counts = right(truth, answer)
        parts.append((answer.scores[counts], answer.labels[counts], good[counts], np.full(int(counts.sum()), image)))
    if not parts:
        return Judged(np.zeros(0), np.zeros(0, np.int64), np.zeros(0, np.bool_), np.zeros(0, np.int64))
    scores, labels, good, place = (np.concatenate(part) for part in zip(*parts, strict=True))
    return Judged(scores.astype(np.float64), labels.astype(np.int64), good, place.astype(np.int64))


def fit_platt(answers: Judged, classes: int) -> Platt:
    """Fit by least log loss, with offsets drawn to their mean as a class has few answers; the identity where there are too few."""
    used = answers.scores >= LEAST_SCORE
    if used.sum() < _ENOUGH or answers.right[used].all() or not answers.right[used].any():
        return Platt()
    x = log_odds(answers.scores[used])
    y, labels = answers.right[used].astype(np.float64), answers.labels[used]

    def cost(p: NDArray[np.float64]) -> float:
        z = np.exp(p[0]) * x + p[1] + p[2:][labels]
        return float(np.sum(np.logaddexp(0.0, z) - y * z) + 0.5 * np.sum(p[2:] ** 2) + 0.5 * p[0] ** 2)

    best = minimize(cost, np.zeros(2 + classes), method="L-BFGS-B").x
    return Platt(float(np.exp(best[0])), tuple(float(best[1] + own) for own in best[2:]))


def expected_error(scores: NDArray[np.float64], good: NDArray[np.bool_]) -> float:
    """Give the expected calibration error of answers in ten bins of equal width, 0 to 1; 0 without answers."""
    if len(scores) == 0:
        return 0.0
    bins = np.minimum((scores * _BINS).astype(np.int64), _BINS - 1)
    gaps = [abs(float(scores[bins == b].sum() - good[bins == b].sum())) for b in range(_BINS)]
    return sum(gaps) / len(scores)


def calibrate(answers: Judged, classes: int, seed: int) -> tuple[Platt, dict[str, Any]]:
    """Fit, and measure by halves: what is learnt on one half of the images is measured on the other."""
    platt = fit_platt(answers, classes)
    used = answers.scores >= LEAST_SCORE
    before = expected_error(answers.scores[used], answers.right[used])
    images = np.unique(answers.image)
    half = np.isin(answers.image, np.random.Generator(np.random.Philox(key=seed)).permutation(images)[: len(images) // 2])
    after = answers.scores.copy()
    for part in (half, ~half):
        other = ~part
        learnt = fit_platt(Judged(answers.scores[other], answers.labels[other], answers.right[other], answers.image[other]), classes)
        after[part] = learnt.apply(answers.scores[part], answers.labels[part])
    figures = {
        "method": "Platt scaling of a box's score, an offset for each class; right is an overlap of half or more",
        "count": int(used.sum()),
        "ece_before": round(before, 6),
        "ece_after": round(expected_error(after[used], answers.right[used]), 6),
        "slope": round(platt.slope, 6),
        "offsets": [round(offset, 6) for offset in platt.offsets],
    }
    return platt, figures


def best_thresholds(answers: Judged, truths: Sequence[TrueBoxes], classes: int) -> list[float]:
    """Give the score of each class from which on F1 is highest; 0.5 for a class without right answers.

    The threshold lies half-way to the next lower score, so that rounding elsewhere changes nothing.
    """
    found = []
    for number in range(classes):
        objects = sum(int(((truth.labels == number) & ~truth.crowd).sum()) for truth in truths)
        own = answers.labels == number
        scores, good = answers.scores[own], answers.right[own]
        if not good.any() or objects == 0:
            found.append(0.5)
            continue
        order = np.argsort(-scores, kind="stable")
        scores, hits = scores[order], np.cumsum(good[order])
        f1 = 2.0 * hits / (np.arange(1, len(scores) + 1) + objects)
        last = np.r_[scores[1:] < scores[:-1], True]
        at = int(np.argmax(np.where(last, f1, -1.0)))
        below = scores[at + 1] if at + 1 < len(scores) else 0.0
        found.append(round(float(0.5 * (scores[at] + below)), 6))
    return found
