"""What more images would bring about: a power law through scores at growing shares of the training images.

Errors of learners fall as ``a + b n ** -c`` over wide ranges of n (Cortes et al., "Learning curves: asymptotic values and rate of
convergence", NIPS 1993; Figueroa et al., "Predicting sample size required for classification performance", BMC Med. Inform. Decis. Mak.
12, 2012). Three numbers from a handful of points are soft: the interval is wide where it must be, and where points do not
lie on such a curve nothing is said.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oteo_core.evaluation.bootstrap import Floats, Ints, encode_groups, generator

SHARES = (0.25, 0.5, 0.75, 1.0)
"""Of the training images, at which scores are taken."""

_EXPONENTS = np.linspace(0.1, 2.0, 39)
_DRAWS = 400
_LEAST_SIZES = 3
_LEAST_RATIO = 2.5
_LEAST_FIT = 0.6
_FLOOR = 1e-4
_SCATTER = 0.03


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


def no_curve(metric: str, candidate: str, why: str) -> DataCurve:
    """Give what stands for a curve that nothing was trained for; `why` ends the sentence."""
    return _refused(DataCurve(metric, candidate, (), ()), why)


def draw_share(share: float, labels: NDArray[Any], groups: Sequence[Any] | None, *, seed: int = 0) -> Ints:
    """Draw a share of training samples, whole groups at a time, all classes in about the same mix; smaller shares are parts of larger ones of the same seed.

    Parameters
    ----------
    share
        0 to 1.
    labels
        ``(N,)`` class of each sample, or any number that the mix should be kept of (zeros where there is none).
    groups
        Group of each; None: every sample alone.
    seed
        Of the draw.

    Returns
    -------
    ndarray
        Places, ascending; at least one of each class.
    """
    numbers = encode_groups(groups, len(labels))
    order = generator(seed, "data-curve").permutation(int(numbers.max()) + 1)
    classes, places = np.unique(labels, return_inverse=True)
    taken = np.zeros(len(labels), dtype=np.bool_)
    # Group by group, always for the class that is furthest behind its share.
    members: dict[int, list[int]] = {int(group): [] for group in order}
    for index, group in enumerate(numbers.tolist()):
        members[group].append(index)
    wanted = np.maximum(share * np.bincount(places, minlength=len(classes)), 1.0)
    held = np.zeros(len(classes))
    for group in order.tolist():
        rows = members[int(group)]
        mine = np.bincount(places[rows], minlength=len(classes))
        if ((held < wanted - 1e-9) & (mine > 0)).any():
            taken[rows] = True
            held += mine
    return np.flatnonzero(taken).astype(np.int64)


def measure_data_curve(
    fit_and_score: Callable[[Ints], float],
    labels: NDArray[Any],
    groups: Sequence[Any] | None,
    *,
    metric: str,
    candidate: str,
    larger_is_better: bool = True,
    words: str = "",
    shares: Sequence[float] = SHARES,
    repeats: int = 3,
    noise: float = 0.0,
    seed: int = 0,
    seconds: float = 60.0,
    check: Callable[[], None] = lambda: None,
    clock: Callable[[], float] = time.monotonic,
) -> DataCurve:
    """Refit a cheap candidate on shares of the training samples and fit the curve.

    Parameters
    ----------
    fit_and_score
        Trains on these places of the training samples, and gives the score on held-out samples that are always the same.
    labels, groups
        Of the training samples, as in `draw_share`.
    metric, candidate, larger_is_better, words, noise
        As in `fit_data_curve`.
    shares, repeats
        At which shares, and how often with other draws (all samples: once).
    seed
        Of the draws.
    seconds
        No fit is begun after this time; first all shares once, then the repeats.
    check
        Called before each fit; may raise.
    clock
        Seconds.
    """
    began = clock()
    late = False
    counts, scores = [], []
    for repeat in range(repeats):
        # The whole first: without it there is nothing to extrapolate from.
        for share in sorted(shares, reverse=True):
            if (repeat and share >= 1.0) or (over := clock() - began > seconds):
                late |= over and not repeat
                continue
            check()
            rows = np.arange(len(labels), dtype=np.int64) if share >= 1.0 else draw_share(share, labels, groups, seed=seed + 7919 * repeat)
            value = fit_and_score(rows)
            if np.isfinite(value):
                counts.append(len(rows))
                scores.append(float(value))
    made = fit_data_curve(
        counts, scores, metric=metric, candidate=candidate, larger_is_better=larger_is_better, words=words, noise=noise, seed=seed
    )
    if late and len(set(counts)) < _LEAST_SIZES:
        why = f"in the time that is kept for it {candidate} was fitted at {len(set(counts))} of {len(shares)} sizes of the training part; a longer training has more"
        return _refused(made, why)
    return made


def fit_data_curve(
    counts: Sequence[int],
    scores: Sequence[float],
    *,
    metric: str,
    candidate: str,
    larger_is_better: bool = True,
    words: str = "",
    noise: float = 0.0,
    level: float = 0.9,
    seed: int = 0,
) -> DataCurve:
    """Fit the power law and say what twice the images would bring about.

    Parameters
    ----------
    counts, scores
        Training images, and held-out scores there; a count may come several times.
    metric, candidate
        Name of the score, and of what was trained.
    larger_is_better
        False for losses.
    words
        The metric's name for people.
    noise
        Standard error of one score that comes from the held-out images being few, as far as it is not shared by all scores.
    level
        Of the interval.
    seed
        Of the draws behind the interval.

    Notes
    -----
    Least squares over a grid of exponents with a and b of at least 0, points weighted by their count (Figueroa et al.). The interval: refits on
    scores drawn about the curve with the residuals' spread (or the repeats', or `noise`, whichever is largest), with the same spread added.
    Refused where there are fewer than three sizes, the largest is not two and a half times the smallest, or the curve leaves more than
    four tenths of the scores' variation unexplained.
    """
    order = np.argsort(counts, kind="stable")
    n = np.asarray(counts, dtype=np.float64)[order]
    values = np.asarray(scores, dtype=np.float64)[order]
    made = DataCurve(
        metric, candidate, tuple(int(one) for one in n), tuple(float(one) for one in values), level=level, larger_is_better=larger_is_better
    )
    words = words or metric
    sizes = np.unique(n)
    if len(sizes) < _LEAST_SIZES or sizes[-1] < _LEAST_RATIO * sizes[0]:
        return _refused(made, f"scores at {len(sizes)} sizes of the training part are too few, or too close, to tell")
    errors = 1.0 - values if larger_is_better else values
    weights = n / n.sum()
    asymptote, factor, exponent = (float(one[0]) for one in _fit(n, errors[None], weights))
    fitted = asymptote + factor * n**-exponent
    middle = float((weights * errors).sum())
    spread = float((weights * (errors - middle) ** 2).sum())
    freedom = max(1.0, len(n) - 3.0)
    residual = float(np.sqrt(len(n) * (weights * (errors - fitted) ** 2).sum() / freedom))
    sigma = max(residual, _repeat_spread(n, errors), noise, _FLOOR)
    explained = 1.0 - float((weights * (errors - fitted) ** 2).sum()) / spread if spread > 0 else 0.0
    gain = float(fitted[0] - fitted[-1])
    now = float(fitted[-1])
    if gain <= sigma and sigma > _SCATTER:
        return _refused(made, f"the scores scatter too much (by {sigma:.3f} about the curve)")
    if gain <= sigma:
        sentence = (
            f"More images like these would bring next to nothing that can be measured: from {int(sizes[0])} to {int(sizes[-1])} training images {words} "
            f"of {candidate} changed by no more than chance."
        )
        return replace(made, refusal="no trend beyond chance", sentence=sentence)
    if explained < _LEAST_FIT:
        return _refused(made, "the scores do not lie on a curve that could be drawn out")
    goal = 2.0 * sizes[-1]
    drawn = fitted[None] + generator(seed, "data-curve", metric).normal(0.0, sigma, size=(_DRAWS, len(n)))
    a, b, c = _fit(n, drawn, weights)
    ahead = a + b * goal**-c + generator(seed, "data-curve-ahead", metric).normal(0.0, sigma, size=_DRAWS)
    expected = asymptote + factor * goal**-exponent
    low, high = (float(one) for one in np.quantile(ahead, ((1 - level) / 2, (1 + level) / 2)))
    low, high = max(0.0, min(low, expected)), max(high, expected)
    # What was measured with all images is a point of the curve too: more images do not make it worse than chance can.
    high = min(high, now + 2 * sigma)
    predicted, lower, upper = (1 - expected, 1 - high, 1 - low) if larger_is_better else (expected, low, high)
    reached = 1 - now if larger_is_better else now
    verb = "lift" if larger_is_better else "bring"
    sentence = (
        f"Twice the training images ({int(goal):,} instead of {int(sizes[-1]):,}), if they are like these, would {verb} {words} of {candidate} from {reached:.3f} "
        f"to about {predicted:.3f} ({level:.0%} interval {lower:.3f} to {upper:.3f})."
    )
    return replace(
        made,
        asymptote=asymptote,
        factor=factor,
        exponent=exponent,
        predicted=float(predicted),
        lower=float(lower),
        upper=float(upper),
        sentence=sentence,
    )


def _fit(n: Floats, errors: Floats, weights: Floats) -> tuple[Floats, Floats, Floats]:
    """Fit each row of `errors` ``(R, P)``; gives asymptotes, factors and exponents ``(R,)``."""
    rows = len(errors)
    best = np.full(rows, np.inf)
    out = np.zeros((3, rows))
    for exponent in _EXPONENTS:
        x = n**-exponent
        mean_x, mean_e = float((weights * x).sum()), (weights * errors).sum(axis=1)
        variance = float((weights * (x - mean_x) ** 2).sum())
        slope = np.maximum(((weights * (x - mean_x)) * (errors - mean_e[:, None])).sum(axis=1) / variance, 0.0)
        start = mean_e - slope * mean_x
        # An asymptote below 0 is none: then the line goes through the origin.
        through = np.maximum((weights * x * errors).sum(axis=1) / float((weights * x * x).sum()), 0.0)
        slope, start = np.where(start < 0, through, slope), np.maximum(start, 0.0)
        loss = (weights * (errors - start[:, None] - slope[:, None] * x) ** 2).sum(axis=1)
        better = loss < best - 1e-15
        best = np.where(better, loss, best)
        for place, value in enumerate((start, slope, np.full(rows, exponent))):
            out[place] = np.where(better, value, out[place])
    return out[0], out[1], out[2]


def _repeat_spread(n: Floats, errors: Floats) -> float:
    """Give the pooled standard deviation of scores at equal sizes; 0 where none is repeated."""
    total, freedom = 0.0, 0
    for size in np.unique(n):
        mine = errors[n == size]
        total += float(((mine - mine.mean()) ** 2).sum())
        freedom += len(mine) - 1
    return float(np.sqrt(total / freedom)) if freedom else 0.0


def _refused(made: DataCurve, why: str) -> DataCurve:
    return replace(made, refusal=why, sentence=f"What more images would bring about cannot be said: {why}.")
