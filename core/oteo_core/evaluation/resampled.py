"""From figures that can be computed on any weighting of the images to metrics with intervals: what all tasks share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from oteo_core.evaluation.bootstrap import (
    LEVEL,
    RESAMPLES,
    Floats,
    Interval,
    bootstrap,
    encode_groups,
    generator,
    percentile_interval,
    wilson_interval,
)
from oteo_core.packages.manifest import MetricValue

LEAST_RESAMPLES = 250
MOST_WORK = 10_000_000


@dataclass(frozen=True, slots=True)
class Column:
    """What a column of a table of figures is.

    Parameters
    ----------
    name
        Name of the metric.
    index
        Class number; -1 for the whole.
    count
        Images (for the whole) or objects behind it.
    basis
        ``(N,)`` bool: images that say something about it, where the figure is a share of which all resamples may agree (no mistake at all):
        Wilson's interval on the number of their groups is given then. None: it is not such a share.
    fixed
        True where resampling makes no sense: a count, a threshold. It has no interval.
    """

    name: str
    index: int = -1
    count: int = 0
    basis: NDArray[np.bool_] | None = None
    fixed: bool = False


class Scorer(Protocol):
    """Figures of images on any weighting of them."""

    columns: list[Column]
    work: int
    """Numbers that each resample goes through, such as found objects; see `affordable`."""

    def score(self, weights: Floats) -> Floats:
        """Give all figures ``(B, len(columns))`` for weights ``(B, N)``."""

    def subset(self, rows: Sequence[int]) -> Scorer:
        """Give the scorer of some of the images."""


def affordable(resamples: int, work: int) -> int:
    """Give the number of resamples that takes seconds, not minutes: fewer than asked for, at least `LEAST_RESAMPLES`, where there is much to go through.

    With tens of thousands of objects intervals are narrow, and a few hundred resamples place their ends well enough.
    """
    return min(resamples, max(LEAST_RESAMPLES, MOST_WORK // max(work, 1)))


def measure(
    score: Callable[[Floats], Floats],
    columns: Sequence[Column],
    images: int,
    classes: Sequence[str],
    *,
    groups: Sequence[Any] | None,
    split: str,
    seed: int,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> list[MetricValue]:
    """Compute figures and their intervals by the cluster bootstrap.

    Parameters
    ----------
    score
        From weights of the images ``(B, N)`` to figures ``(B, len(columns))``; NaN where a figure is not defined.
    columns
        What the figures are.
    images
        Number of images, N; none gives no metric.
    classes
        Names of the classes.
    groups
        Group key of each image (patient, slide); whole groups are drawn. None: every image alone.
    split
        Name of the part.
    seed
        Seed of the bootstrap.
    resamples
        Number of resamples; 0: no intervals.
    level
        Level of the intervals.

    Returns
    -------
    list of MetricValue
        In the order of the columns, without those that are not defined.
    """
    if not images:
        return []
    numbers = encode_groups(groups, images)
    estimate = score(np.ones((1, images)))[0]
    values = bootstrap(score, numbers, generator(seed, "bootstrap", split), resamples) if resamples else None
    metrics = []
    for at, column in enumerate(columns):
        value = float(estimate[at])
        if not np.isfinite(value):
            continue
        interval: Interval | None = None
        if values is not None and not column.fixed:
            interval = percentile_interval(values[:, at], level)
            if interval is not None and column.basis is not None and interval.upper - interval.lower < 1e-12 and 0 <= value <= 1:
                interval = wilson_interval(value, len(np.unique(numbers[column.basis])), level)
        metrics.append(
            MetricValue(
                column.name,
                value,
                interval.lower if interval else None,
                interval.upper if interval else None,
                interval.level if interval else 0.0,
                split,
                "" if column.index < 0 else classes[column.index],
                column.count,
            )
        )
    return metrics


def image_means(weights: Floats, values: Floats) -> Floats:
    """Average figures of images ``(N, M)`` over the images in which they are defined (not NaN), by each row of weights ``(B, N)``: ``(B, M)``."""
    defined = np.isfinite(values)
    total = weights @ np.where(defined, values, 0.0)
    count = weights @ defined.astype(np.float64)
    out = np.full(total.shape, np.nan)
    np.divide(total, count, out=out, where=count > 0)
    return out
