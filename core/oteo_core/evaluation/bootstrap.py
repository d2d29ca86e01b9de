"""Confidence intervals by the cluster bootstrap.

Images of one patient (slide, video) are not independent, so whole groups are drawn with replacement, not images (Field and Welsh,
"Bootstrapping clustered data", J. R. Stat. Soc. B 69, 2007). A resample is a vector of weights, the number of times that each
image's group was drawn, and every metric is computed on all resamples at once as a weighted metric.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

RESAMPLES = 1000
LEVEL = 0.95
_CHUNK_VALUES = 4_000_000
_LEAST_DEFINED = 0.9


def generator(seed: int, *purpose: str) -> np.random.Generator:
    """Give a counter-based generator of its own for each purpose, whatever was drawn elsewhere.

    Parameters
    ----------
    seed
        The run's seed.
    *purpose
        What it is for; another purpose gives an independent stream.
    """
    key = hashlib.sha256("\0".join((str(seed), *purpose)).encode()).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(key[:16], "big")))


def encode_groups(groups: Sequence[Any] | NDArray[Any] | None, count: int) -> Ints:
    """Number the groups from 0.

    Parameters
    ----------
    groups
        A key for each sample; an empty key or None is a group of its own. None: every sample is its own group.
    count
        Number of samples, N.

    Returns
    -------
    ndarray
        ``(N,)`` int64.
    """
    if groups is None:
        return np.arange(count, dtype=np.int64)
    if len(groups) != count:
        raise ValueError(f"{len(groups)} groups for {count} samples")
    numbers: dict[Any, int] = {}
    keys = [("alone", index) if key is None or key == "" else ("group", key) for index, key in enumerate(groups)]
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)


def resample_weights(groups: Ints, rng: np.random.Generator, resamples: int = RESAMPLES) -> Iterator[Floats]:
    """Draw resamples of whole groups.

    Parameters
    ----------
    groups
        Group numbers ``(N,)``, from 0, without gaps.
    rng
        The generator.
    resamples
        Number of resamples, B.

    Yields
    ------
    ndarray
        Weights ``(b, N)`` float64, whole numbers, in chunks of rows that together are B, so that no chunk takes more than about 32 MB.
    """
    count = int(groups.max()) + 1 if len(groups) else 0
    step = max(1, min(resamples, _CHUNK_VALUES // max(len(groups), 1)))
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        drawn = rng.multinomial(count, np.full(count, 1.0 / count), size=rows)
        yield drawn[:, groups].astype(np.float64)


@dataclass(frozen=True, slots=True)
class Interval:
    """A confidence interval."""

    lower: float
    upper: float
    level: float


def percentile_interval(values: Floats, level: float = LEVEL) -> Interval | None:
    """Give the percentile interval of bootstrap values (Efron and Tibshirani 1993, section 13.3).

    Values that are NaN (a class was in no drawn group) are left out; None where more than a tenth are.
    """
    defined = values[np.isfinite(values)]
    if len(defined) < _LEAST_DEFINED * len(values) or not len(defined):
        return None
    lower, upper = np.quantile(defined, ((1 - level) / 2, (1 + level) / 2))
    return Interval(float(lower), float(upper), level)


def shifted_interval(estimate: float, values: Floats, level: float = LEVEL, bounds: tuple[float, float] = (0.0, 1.0)) -> Interval | None:
    """Give the percentile interval less the bootstrap's bias, for statistics that resampling inflates, such as the calibration error.

    Doubling samples adds noise to every bin, so that a resample's calibration error is too large on average. The mean of the values
    less the estimate measures that bias (Efron and Tibshirani 1993, section 10.2), and the interval is moved down by it. Cut to
    `bounds`, and never without the estimate.
    """
    plain = percentile_interval(values, level)
    if plain is None:
        return None
    bias = float(np.mean(values[np.isfinite(values)])) - estimate
    lower = min(max(plain.lower - bias, bounds[0]), estimate)
    upper = max(min(plain.upper - bias, bounds[1]), estimate)
    return Interval(lower, upper, level)


def wilson_interval(share: float, count: float, level: float = LEVEL) -> Interval:
    """Give Wilson's score interval of a share (J. Am. Stat. Assoc. 22, 1927).

    Used where all resamples agree (no mistake at all, or nothing else): the bootstrap's interval would have no width then. `count`
    is the number of independent groups, not of images.
    """
    z = _normal_quantile((1 + level) / 2)
    count = max(count, 1.0)
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return Interval(max(0.0, min(centre - half, share)), min(1.0, max(centre + half, share)), level)


def bootstrap(statistic: Callable[[Floats], Floats], groups: Ints, rng: np.random.Generator, resamples: int = RESAMPLES) -> Floats:
    """Evaluate a weighted statistic on all resamples.

    Parameters
    ----------
    statistic
        From weights ``(b, N)`` to values ``(b, M)``.
    groups
        Group numbers ``(N,)``.
    rng
        The generator.
    resamples
        Number of resamples, B.

    Returns
    -------
    ndarray
        ``(B, M)`` float64.
    """
    return np.concatenate([statistic(weights) for weights in resample_weights(groups, rng, resamples)])


def _normal_quantile(probability: float) -> float:
    from statistics import NormalDist

    return NormalDist().inv_cdf(probability)
