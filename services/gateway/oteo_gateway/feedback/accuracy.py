"""A deployment's accuracy in use, from corrections."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from oteo_core.evaluation.bootstrap import LEVEL, bootstrap, encode_groups, generator, percentile_interval, wilson_interval
from oteo_core.packages import MetricValue
from oteo_gateway.feedback.agreement import FIGURES

LIVE = "live"
"""What the part of the data is called."""


def live_accuracy(task: str, judged: Sequence[tuple[str, str, float]]) -> MetricValue | None:
    """Give the mean agreement with its 95 % interval; None without a correction.

    Parameters
    ----------
    task
        The model's.
    judged
        Image, group and agreement, one an image. Groups are drawn whole; images without one stand alone.
    """
    if not judged:
        return None
    values = np.array([agreement for _, _, agreement in judged])
    groups = encode_groups([group for _, group, _ in judged], len(judged))
    independent = int(groups.max()) + 1
    mean = float(values.mean())
    interval = wilson_interval(mean, independent, LEVEL)
    if task != "classification" and values.std() > 0 and independent > 1:

        def means(weights: np.ndarray) -> np.ndarray:
            return np.asarray((weights @ values) / np.maximum(weights.sum(axis=1), 1e-12))[:, None]

        drawn = percentile_interval(bootstrap(means, groups, generator(0, "live accuracy"))[:, 0], LEVEL)
        interval = drawn or interval
    return MetricValue(FIGURES[task], mean, interval.lower, interval.upper, LEVEL, LIVE, "", len(judged))
