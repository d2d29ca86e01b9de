"""Where to draw the line between positive and negative."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from oteo_core.evaluation.bootstrap import Floats, Ints
from oteo_core.packages.manifest import OperatingPoint

NEVER = 1.0000001
"""A threshold that no probability reaches, in float32 too."""


@dataclass(frozen=True, slots=True)
class OperatingRequest:
    """A sensitivity or a specificity, 0 to 1, that must be reached on a class; exactly one is set."""

    class_name: str
    sensitivity: float | None = None
    specificity: float | None = None

    def __post_init__(self) -> None:
        """Refuse both or none."""
        if (self.sensitivity is None) == (self.specificity is None):
            raise ValueError("exactly one of sensitivity and specificity is meant")


@dataclass(frozen=True, slots=True)
class RocCurve:
    """Every distinct threshold and what it gives.

    Parameters
    ----------
    thresholds
        Descending, ``(T,)``; the first is infinite (nothing is called positive).
    sensitivity, specificity
        ``(T,)``, for "positive where the probability is at least the threshold".
    precision
        ``(T,)``; 1 where nothing is called positive.
    """

    thresholds: Floats
    sensitivity: Floats
    specificity: Floats
    precision: Floats


def roc_curve(positive: NDArray[np.bool_], scores: Floats) -> RocCurve:
    """Give the curve of a class against the rest; NaN rates where one side is empty."""
    order = np.argsort(-scores, kind="stable")
    ranked, flags = scores[order], positive[order]
    last = np.flatnonzero(np.concatenate([ranked[1:] != ranked[:-1], [True]]))
    found = np.concatenate([[0], np.cumsum(flags)[last]]).astype(np.float64)
    called = np.concatenate([[0], last + 1]).astype(np.float64)
    positives, negatives = float(flags.sum()), float((~flags).sum())
    with np.errstate(invalid="ignore", divide="ignore"):
        sensitivity = found / positives
        specificity = 1.0 - (called - found) / negatives
        precision = np.where(called > 0, found / np.maximum(called, 1), 1.0)
    return RocCurve(np.concatenate([[np.inf], ranked[last]]), sensitivity, specificity, precision)


def choose_points(
    labels: Ints, probabilities: Floats, classes: Sequence[str], requests: Sequence[OperatingRequest] = ()
) -> list[OperatingPoint]:
    """Choose thresholds on the validation part.

    Parameters
    ----------
    labels
        ``(N,)``.
    probabilities
        ``(N, K)``, calibrated.
    classes
        Names of the K classes.
    requests
        What must be reached. For a sensitivity the highest threshold that reaches it (the most specific), for a specificity the
        lowest one (the most sensitive).

    Returns
    -------
    list of OperatingPoint
        The requested points, then for each class the one with the largest Youden index (sensitivity + specificity - 1; Cancer 3,
        1950); for two classes only that of the second class, as the other is its mirror image. A class without positive or without
        negative samples has none.

    Raises
    ------
    ValueError
        A request names a class that is not there.
    """
    names = list(classes)
    points: list[OperatingPoint] = []
    curves: dict[int, RocCurve] = {}

    def curve(index: int) -> RocCurve:
        if index not in curves:
            curves[index] = roc_curve(labels == index, probabilities[:, index])
        return curves[index]

    for request in requests:
        if request.class_name not in names:
            raise ValueError(f"an operating point for class {request.class_name!r}; the classes are {names}")
        rates = curve(names.index(request.class_name))
        if not (np.isfinite(rates.sensitivity).all() and np.isfinite(rates.specificity).all()):
            continue
        if request.sensitivity is not None:
            at = int(np.argmax(rates.sensitivity >= request.sensitivity - 1e-12))
            criterion = f"sensitivity>={request.sensitivity:g}"
        else:
            reached = np.flatnonzero(rates.specificity >= (request.specificity or 0.0) - 1e-12)
            at = int(reached[-1])
            criterion = f"specificity>={request.specificity:g}"
        points.append(_point(request.class_name, rates, at, criterion))
    for index in [1] if len(names) == 2 else range(len(names)):
        rates = curve(index)
        if np.isfinite(rates.sensitivity).all() and np.isfinite(rates.specificity).all():
            points.append(_point(names[index], rates, int(np.argmax(rates.sensitivity + rates.specificity)), "youden"))
    return points


def _point(class_name: str, curve: RocCurve, at: int, criterion: str) -> OperatingPoint:
    # Half way to the next lower score: as many calibration cases on either side, and more room for rounding.
    upper = min(float(curve.thresholds[at]), 1.0)
    lower = float(curve.thresholds[at + 1]) if at + 1 < len(curve.thresholds) else 0.0
    threshold = NEVER if at == 0 else (upper + lower) / 2
    return OperatingPoint(class_name, threshold, float(curve.sensitivity[at]), float(curve.specificity[at]), criterion)


def rates_at(labels: Ints, probabilities: Floats, index: int, threshold: float) -> tuple[float, float]:
    """Give sensitivity and specificity of "class `index` where its probability is at least `threshold`"; NaN where undefined."""
    called = probabilities[:, index] >= threshold
    positive = labels == index
    sensitivity = float(called[positive].mean()) if positive.any() else float("nan")
    specificity = float((~called[~positive]).mean()) if (~positive).any() else float("nan")
    return sensitivity, specificity
