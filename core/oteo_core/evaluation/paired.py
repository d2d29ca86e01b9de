"""Several models on the same images: differences of any figure by the paired cluster bootstrap, and DeLong's test of areas under ROC curves."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from oteo_core.evaluation.bootstrap import LEVEL, RESAMPLES, Floats, Interval, Ints, bootstrap, generator, percentile_interval
from oteo_core.evaluation.statistics import holm

Score = Callable[[Floats], Floats]
"""From weights of the images ``(B, N)`` to a figure ``(B,)``."""

MOST_GROUPS = 1000
"""Groups that Friedman's test looks at, at most."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Two models compared on the same images.

    Parameters
    ----------
    first, second
        Their numbers, the better one first.
    value
        Figure of the first minus that of the second.
    interval
        By the paired cluster bootstrap; None where the figure is not defined often enough.
    p_value, adjusted_p
        Two-sided, from the same resamples; and by Holm over all pairs.
    """

    first: int
    second: int
    value: float
    interval: Interval | None
    p_value: float
    adjusted_p: float


@dataclass(frozen=True, slots=True)
class Paired:
    """Models on the same images.

    Parameters
    ----------
    values, intervals
        Of each model, in the order given.
    differences
        Of each pair; the best model's first.
    """

    values: tuple[float, ...]
    intervals: tuple[Interval | None, ...]
    differences: tuple[Difference, ...]


def compare_paired(
    scores: Sequence[Score],
    groups: Ints,
    *,
    larger_is_better: bool = True,
    seed: int = 0,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> Paired:
    """Compare models' figures on the same images; every resample is the same for all of them.

    Parameters
    ----------
    scores
        One for each model.
    groups
        Group numbers of the images, ``(N,)`` from 0; groups are drawn whole.
    larger_is_better
        False for losses.
    seed, resamples, level
        Of the bootstrap.
    """

    def together(weights: Floats) -> Floats:
        return np.stack([score(weights) for score in scores], axis=1)

    values = together(np.ones((1, len(groups))))[0]
    drawn = bootstrap(together, groups, generator(seed, "compare-models"), resamples)
    order = np.argsort(-values if larger_is_better else values, kind="stable")
    raw = []
    for first, second in itertools.combinations(order.tolist(), 2):
        gaps = drawn[:, first] - drawn[:, second]
        interval = percentile_interval(gaps, level)
        raw.append((first, second, float(values[first] - values[second]), interval, _bootstrap_p(gaps) if interval is not None else 1.0))
    adjusted = holm([row[4] for row in raw])
    return Paired(
        tuple(float(value) for value in values),
        tuple(percentile_interval(drawn[:, place], level) for place in range(len(scores))),
        tuple(Difference(*row, corrected) for row, corrected in zip(raw, adjusted, strict=True)),
    )


def friedman_by_group(scores: Sequence[Score], groups: Ints, *, seed: int = 0) -> tuple[float, int] | None:
    """Test whether three or more models are alike, by Friedman's test over the groups' own figures.

    Returns
    -------
    p_value, count : float and int
        The number of groups that have a figure under every model; None where there are fewer than six, or all figures are equal.
    """
    count = int(groups.max()) + 1
    chosen = np.arange(count)
    if count > MOST_GROUPS:
        chosen = generator(seed, "friedman").permutation(count)[:MOST_GROUPS]
    weights = (groups[None] == chosen[:, None]).astype(np.float64)
    table = np.stack([score(weights) for score in scores], axis=1)
    table = table[np.isfinite(table).all(axis=1)]
    if len(table) < 6 or (np.ptp(table, axis=1) <= 0).all():
        return None
    return float(stats.friedmanchisquare(*table.T).pvalue), len(table)


def delong(positive: NDArray[np.bool_], scores: Floats, groups: Ints) -> tuple[Floats, Floats]:
    """Give areas under ROC curves of several models on the same images, and their covariance.

    DeLong, DeLong and Clarke-Pearson, Biometrics 44, 1988; for images in groups Obuchowski, Biometrics 53, 1997, which is the same
    where every image is a group of its own.

    Parameters
    ----------
    positive
        ``(N,)``; both kinds must be there.
    scores
        ``(M, N)`` of M models.
    groups
        ``(N,)`` group numbers from 0.

    Returns
    -------
    areas, covariance : ndarray
        ``(M,)`` and ``(M, M)``.
    """
    m, n = int(positive.sum()), int((~positive).sum())
    here, there = scores[:, positive], scores[:, ~positive]
    everything = np.concatenate([here, there], axis=1)
    ranks = np.stack([stats.rankdata(row) for row in everything])
    within_here = np.stack([stats.rankdata(row) for row in here])
    within_there = np.stack([stats.rankdata(row) for row in there])
    by_positive = (ranks[:, :m] - within_here) / n
    by_negative = 1.0 - (ranks[:, m:] - within_there) / m
    areas = by_positive.mean(axis=1)
    count = int(groups.max()) + 1
    sums = np.zeros((2, len(scores), count))
    for side, (values, mask) in enumerate(((by_positive, positive), (by_negative, ~positive))):
        for model in range(len(scores)):
            sums[side, model] = np.bincount(groups[mask], weights=values[model] - areas[model], minlength=count)
    with_positive = max(len(np.unique(groups[positive])), 2)
    with_negative = max(len(np.unique(groups[~positive])), 2)
    covariance = sums[0] @ sums[0].T * with_positive / (with_positive - 1) / m**2
    covariance = covariance + sums[1] @ sums[1].T * with_negative / (with_negative - 1) / n**2
    shared = sums[0] @ sums[1].T * max(count, 2) / (max(count, 2) - 1) / (m * n)
    mixed = bool(np.intersect1d(groups[positive], groups[~positive]).size)
    return areas, covariance + shared + shared.T if mixed else covariance


def delong_p(areas: Floats, covariance: Floats, first: int, second: int) -> float:
    """Give the two-sided p-value of two areas being equal; 1 where they cannot differ."""
    variance = float(covariance[first, first] + covariance[second, second] - 2 * covariance[first, second])
    gap = float(areas[first] - areas[second])
    if variance <= 1e-15:
        return 1.0 if abs(gap) < 1e-12 else 0.0
    return float(2 * stats.norm.sf(abs(gap) / np.sqrt(variance)))


def _bootstrap_p(gaps: Floats) -> float:
    """Give the two-sided p-value that belongs to percentile intervals: twice the share of resamples on the smaller side of 0 (Efron and Tibshirani 1993, section 15)."""
    defined = gaps[np.isfinite(gaps)]
    smaller = min(int((defined <= 0).sum()), int((defined >= 0).sum()))
    return min(1.0, 2.0 * (smaller + 1) / (len(defined) + 1))
