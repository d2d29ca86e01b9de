"""Prediction sets that hold the truth with a stated probability.

Split conformal prediction with the least ambiguous set-valued classifier (Sadinle, Lei and Wasserman, J. Am. Stat. Assoc. 114,
2019), as laid out by Angelopoulos and Bates, "A gentle introduction to conformal prediction" (2021), section 1. For new cases drawn
like the calibration cases the set holds the true class with at least the coverage asked for, whatever the model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oteo_core.evaluation.bootstrap import (
    Floats,
    Interval,
    Ints,
    bootstrap,
    encode_groups,
    generator,
    percentile_interval,
    wilson_interval,
)
from oteo_core.packages.manifest import Conformal


def fit_conformal(labels: Ints, probabilities: Floats, coverage: float = 0.9) -> Conformal:
    """Find the threshold.

    Parameters
    ----------
    labels
        ``(N,)``, calibration part.
    probabilities
        ``(N, K)``, calibrated.
    coverage
        0.5 to below 1.

    Returns
    -------
    Conformal
        The ``ceil((N + 1) * coverage)``-th smallest of ``1 - probability of the true class``; 1 (every class in every set) where N is
        too small for that.
    """
    if not 0.5 <= coverage < 1:
        raise ValueError(f"a coverage of {coverage}; 0.5 to below 1 is meant")
    count = len(labels)
    if not count:
        raise ValueError("no calibration sample")
    misfit = np.sort(1.0 - probabilities[np.arange(count), labels])
    # The rounding keeps (9 + 1) * 0.9 from becoming 10.000000000000002 or the like.
    rank = math.ceil(round((count + 1) * coverage, 9))
    quantile = 1.0 if rank > count else float(np.clip(misfit[rank - 1], 0.0, 1.0))
    return Conformal(quantile, coverage, count)


def prediction_sets(probabilities: Floats, quantile: float) -> NDArray[np.bool_]:
    """Tell which classes are in each case's set, ``(N, K)``; the most probable class always is.

    That one class more, where the threshold would leave the set empty, can only raise the coverage.
    """
    sets: NDArray[np.bool_] = probabilities >= 1.0 - quantile
    sets[np.arange(len(sets)), probabilities.argmax(axis=1)] = True
    return sets


@dataclass(frozen=True, slots=True)
class ConformalCheck:
    """How the sets fare on other data.

    Parameters
    ----------
    coverage
        Share of cases whose set holds the truth.
    interval
        Its confidence interval by group.
    mean_size
        Mean number of classes in a set.
    size_shares
        Share of the sets with 1, 2, ... K classes.
    class_coverage
        Coverage for each true class; NaN where the class is not there.
    count
        Number of cases.
    """

    coverage: float
    interval: Interval | None
    mean_size: float
    size_shares: tuple[float, ...]
    class_coverage: tuple[float, ...]
    count: int


def check_conformal(
    labels: Ints, probabilities: Floats, conformal: Conformal, *, groups: Sequence[Any] | None = None, seed: int = 0
) -> ConformalCheck:
    """Measure coverage and size of the sets on data that the threshold was not found on.

    Parameters
    ----------
    labels
        ``(N,)``.
    probabilities
        ``(N, K)``, calibrated.
    conformal
        The threshold.
    groups
        Group keys, for the interval.
    seed
        Seed of the bootstrap.
    """
    sets = prediction_sets(probabilities, conformal.quantile)
    held = sets[np.arange(len(labels)), labels].astype(np.float64)
    numbers = encode_groups(groups, len(labels))
    values = bootstrap(lambda weights: ((weights @ held) / weights.sum(axis=1))[:, None], numbers, generator(seed, "conformal"))[:, 0]
    interval = percentile_interval(values)
    coverage = float(held.mean())
    if interval is not None and interval.upper - interval.lower < 1e-12:
        interval = wilson_interval(coverage, int(numbers.max()) + 1)
    sizes = sets.sum(axis=1)
    class_count = probabilities.shape[1]
    return ConformalCheck(
        coverage=coverage,
        interval=interval,
        mean_size=float(sizes.mean()),
        size_shares=tuple(float((sizes == size).mean()) for size in range(1, class_count + 1)),
        class_coverage=tuple(float(held[labels == k].mean()) if (labels == k).any() else math.nan for k in range(class_count)),
        count=len(labels),
    )
