"""Distances between two sets of embeddings: FID and KID, with confidence intervals.

- Fréchet inception distance: Heusel et al., "GANs trained by a two time-scale update rule converge to a local Nash equilibrium", NeurIPS 2017.
- Kernel inception distance: Binkowski et al., "Demystifying MMD GANs", ICLR 2018.

Both are given for any encoder: the frozen task model's embeddings, or a network with given weights (`oteo_translate.measures.encoders`). Figures of
different encoders do not compare. FID is too large on small sets, by an amount that shrinks as 1/N (Chong and Forsyth, CVPR 2020): compare
only figures of sets of the same size; KID is unbiased at any size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oteo_core.errors import InvalidArgument
from oteo_core.evaluation.bootstrap import LEVEL, Interval, encode_groups, generator, resample_weights, shifted_interval

Floats = NDArray[np.float64]

RESAMPLES = 200
"""Resamples of an interval: a distance takes milliseconds to a second each."""


@dataclass(frozen=True, slots=True)
class Distance:
    """A distance between two sets.

    Parameters
    ----------
    value
        The distance.
    interval
        Its confidence interval: both sets are resampled, whole groups at a time, and the bootstrap's own bias is taken off; None where a set has
        only one group.
    counts
        Images of the two sets.
    """

    value: float
    interval: Interval | None
    counts: tuple[int, int]


def fid(
    first: NDArray[Any],
    second: NDArray[Any],
    *,
    groups: tuple[Sequence[Any] | None, Sequence[Any] | None] = (None, None),
    seed: int = 0,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> Distance:
    """Give the Fréchet distance between normal distributions fitted to two sets of embeddings.

    Parameters
    ----------
    first, second
        Embeddings ``(N, D)`` and ``(M, D)``, finite; N and M at least 2.
    groups
        Of each set: what belongs together (a patient); None: every image is alone.
    seed
        Of the resampling.
    resamples
        Number of resamples; 0: no interval.
    level
        Of the interval.

    Returns
    -------
    Distance
        Squared distance, 0 or more.

    Raises
    ------
    InvalidArgument
        ``BAD_EMBEDDINGS``: not two finite matrices of equal width with two rows each.
    """
    ours, theirs = _checked(first, second)
    return _with_interval(_Frechet(ours, theirs), groups, seed, resamples, level, (0.0, math.inf))


def kid(
    first: NDArray[Any],
    second: NDArray[Any],
    *,
    groups: tuple[Sequence[Any] | None, Sequence[Any] | None] = (None, None),
    seed: int = 0,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> Distance:
    """Give the unbiased squared maximum mean discrepancy under the kernel ``(x.y / D + 1)^3``, over all pairs.

    Parameters, errors: see `fid`.

    Returns
    -------
    Distance
        May be below 0: its mean is 0 where both sets come from one distribution.
    """
    ours, theirs = _checked(first, second)
    return _with_interval(_Kernel(ours, theirs), groups, seed, resamples, level, (-math.inf, math.inf))


def frechet_distance(mean: Floats, covariance: Floats, other_mean: Floats, other_covariance: Floats) -> float:
    """Give the squared Fréchet distance of two normal distributions, from means ``(D,)`` and covariances ``(D, D)``.

    Dowson and Landau, "The Fréchet distance between multivariate normal distributions", J. Multivariate Anal. 12, 1982.
    """
    root = _root(covariance)
    cross = np.linalg.eigvalsh(root @ other_covariance @ root)
    between = float(np.sqrt(cross.clip(0.0)).sum())
    value = float(np.square(mean - other_mean).sum() + np.trace(covariance) + np.trace(other_covariance) - 2.0 * between)
    return max(0.0, value)


def _root(covariance: Floats) -> Floats:
    values, vectors = np.linalg.eigh(covariance)
    found: Floats = (vectors * np.sqrt(values.clip(0.0))) @ vectors.T
    return found


class _Frechet:
    """The distance under weights of rows.

    Where there are fewer images than dimensions, the root of the product of covariances is not taken in the space of dimensions: its trace is the sum of
    the singular values of A B', whose rows are the images less their mean.
    """

    def __init__(self, first: Floats, second: Floats) -> None:
        self._sets = first, second
        self.counts = len(first), len(second)

    def __call__(self, weights: tuple[Floats, Floats]) -> float:
        means, spreads = [], []
        for rows, weight in zip(self._sets, weights, strict=True):
            kept = weight > 0
            total = weight.sum()
            mean = weight[kept] @ rows[kept] / total
            means.append(mean)
            spreads.append((rows[kept] - mean) * np.sqrt(weight[kept] / (total - 1.0))[:, None])
        ours, theirs = spreads
        if min(len(ours), len(theirs)) < ours.shape[1]:
            between = float(np.linalg.svd(ours @ theirs.T, compute_uv=False).sum())
            value = np.square(means[0] - means[1]).sum() + np.square(ours).sum() + np.square(theirs).sum() - 2.0 * between
            return max(0.0, float(value))
        return frechet_distance(means[0], ours.T @ ours, means[1], theirs.T @ theirs)


class _Kernel:
    """The discrepancy under weights of rows; an image drawn twice is not compared with itself."""

    def __init__(self, first: Floats, second: Floats) -> None:
        self._ours, self._theirs, self._cross = _cubic(first, first), _cubic(second, second), _cubic(first, second)
        self.counts = len(first), len(second)
        np.fill_diagonal(self._ours, 0.0)
        np.fill_diagonal(self._theirs, 0.0)

    def __call__(self, weights: tuple[Floats, Floats]) -> float:
        ours, theirs = weights
        same = _pairs(self._ours, ours) + _pairs(self._theirs, theirs)
        return float(same - 2.0 * (ours @ self._cross @ theirs) / (ours.sum() * theirs.sum()))


def _cubic(first: Floats, second: Floats) -> Floats:
    found: Floats = (first @ second.T / first.shape[1] + 1.0) ** 3
    return found


def _pairs(kernel: Floats, weights: Floats) -> float:
    count = weights.sum() ** 2 - np.square(weights).sum()
    return float(weights @ kernel @ weights / count) if count > 0 else math.nan


def _with_interval(
    distance: _Frechet | _Kernel,
    groups: tuple[Sequence[Any] | None, Sequence[Any] | None],
    seed: int,
    resamples: int,
    level: float,
    bounds: tuple[float, float],
) -> Distance:
    counts = distance.counts
    value = distance((np.ones(counts[0]), np.ones(counts[1])))
    numbers = [encode_groups(one, count) for one, count in zip(groups, counts, strict=True)]
    interval = None
    if resamples > 0 and min(int(one.max()) for one in numbers) > 0:
        drawn = [
            [row for chunk in resample_weights(one, generator(seed, "distance", which), resamples) for row in chunk]
            for which, one in zip(("first", "second"), numbers, strict=True)
        ]
        values = np.array([distance(pair) for pair in zip(*drawn, strict=True)])
        interval = shifted_interval(value, values, level, bounds)
    return Distance(value, interval, counts)


def _checked(first: NDArray[Any], second: NDArray[Any]) -> tuple[Floats, Floats]:
    ours, theirs = np.asarray(first, np.float64), np.asarray(second, np.float64)
    for one in (ours, theirs):
        if one.ndim != 2 or len(one) < 2 or one.shape[1] == 0 or one.shape[1] != ours.shape[-1] or not np.isfinite(one).all():
            raise InvalidArgument(
                f"embeddings of shapes {ours.shape} and {theirs.shape}: wanted two finite matrices of equal width, two rows or more each",
                reason="BAD_EMBEDDINGS",
            )
    return ours, theirs
