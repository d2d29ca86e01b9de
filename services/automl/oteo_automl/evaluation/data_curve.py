"""What more images would bring about: a power law through scores at growing shares of the training images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class DataCurve:
    """Scores over the number of training images, and what twice as many would give.

    Parameters
    ----------
    metric
        Name of the score.
    candidate
        What was trained at each size.
    counts, scores
        Training images and the held-out scores there, ascending; a count may occur more than once.
    asymptote, factor, exponent
        Of ``error(n) = asymptote + factor * n ** -exponent``, error being 1 - score (or the loss itself); all 0 where it was refused.
    predicted
        Score expected at twice the images; None where it was refused.
    lower, upper
        Its interval.
    level
        Of the interval.
    refusal
        Why no prediction is given; empty where one is.
    sentence
        For the report.
    larger_is_better
        False for losses.
    """

    metric: str
    candidate: str
    counts: tuple[int, ...]
    scores: tuple[float, ...]
    asymptote: float = 0.0
    factor: float = 0.0
    exponent: float = 0.0
    predicted: float | None = None
    lower: float | None = None
    upper: float | None = None
    level: float = 0.9
    refusal: str = ""
    sentence: str = ""
    larger_is_better: bool = True


def curve_line(curve: DataCurve) -> tuple[list[float], list[float]] | None:
    """Give points of the fitted line, from the smallest count to twice the largest, for drawing; None where nothing was fitted."""
    if curve.predicted is None:
        return None
    counts = np.linspace(min(curve.counts), 2 * max(curve.counts), 60)
    errors = curve.asymptote + curve.factor * counts**-curve.exponent
    return counts.tolist(), (1.0 - errors if curve.larger_is_better else errors).tolist()
