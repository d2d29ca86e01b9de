"""All figures of a classifier on one part of the data, with confidence intervals by group."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oteo_core.evaluation import scores
from oteo_core.evaluation.bootstrap import (
    LEVEL,
    RESAMPLES,
    Floats,
    Interval,
    Ints,
    bootstrap,
    encode_groups,
    generator,
    percentile_interval,
    shifted_interval,
    wilson_interval,
)
from oteo_core.packages.manifest import MetricValue

BINS = 15
"""Bins of the calibration error with equal width."""

OVERALL = (
    "accuracy",
    "balanced_accuracy",
    "f1",
    "auroc",
    "auprc",
    "log_loss",
    "brier",
    "mcc",
    "kappa",
    "ece",
    "ece_equal_mass",
)
"""Figures of the whole: macro averages for f1, auroc (one class against the rest) and auprc; ``ece`` has `BINS` bins of equal width,
``ece_equal_mass`` bins of equal count (`mass_bin_count`)."""

PER_CLASS = ("sensitivity", "specificity", "precision", "f1", "auroc", "auprc")
"""Figures of each class against the rest."""

SHARES = frozenset({"accuracy", "balanced_accuracy", "f1", "sensitivity", "specificity", "precision"})
"""Figures that are shares: where all resamples agree on one, its interval is Wilson's."""

_INFLATED = {"ece", "ece_equal_mass"}
_OF_CONFUSION: dict[str, Callable[[Floats], Floats]] = {
    "accuracy": scores.accuracy,
    "balanced_accuracy": scores.balanced_accuracy,
    "mcc": scores.matthews,
    "kappa": scores.kappa,
}


def mass_bin_count(count: int) -> int:
    """Give the number of equal-mass bins for so many samples: about 15 samples a bin, 2 to `BINS` bins."""
    return int(np.clip(count // 15, 2, BINS))


def check(labels: Ints, probabilities: Floats) -> tuple[Ints, Floats]:
    """Check and convert labels ``(N,)`` and probabilities ``(N, K)``.

    Raises
    ------
    ValueError
        Shapes that do not match, no sample, labels out of range, or rows that are not probabilities.
    """
    true = np.asarray(labels, dtype=np.int64)
    given = np.asarray(probabilities, dtype=np.float64)
    if true.ndim != 1 or given.ndim != 2 or len(true) != len(given) or not len(true):
        raise ValueError(f"labels of shape {true.shape} and probabilities of shape {given.shape}")
    if true.min() < 0 or true.max() >= given.shape[1]:
        raise ValueError(f"labels from {true.min()} to {true.max()} for {given.shape[1]} classes")
    if not np.isfinite(given).all() or (given < -1e-6).any() or (np.abs(given.sum(axis=1) - 1) > 1e-3).any():
        raise ValueError("rows that are not probabilities: finite, not negative, sum 1")
    return true, given


class Scorer:
    """Computes all figures on any weighting of the samples.

    Parameters
    ----------
    labels
        True classes ``(N,)``.
    probabilities
        ``(N, K)``, rows summing to 1.
    """

    def __init__(self, labels: Ints, probabilities: Floats) -> None:
        self.labels, self.probabilities = check(labels, probabilities)
        self.class_count = self.probabilities.shape[1]
        self.predicted: Ints = self.probabilities.argmax(axis=1).astype(np.int64)
        self._log_loss = scores.log_loss_terms(self.labels, self.probabilities)
        self._brier = scores.brier_terms(self.labels, self.probabilities)
        self._confidence: Floats = self.probabilities.max(axis=1)
        self._correct: Floats = (self.predicted == self.labels).astype(np.float64)
        self._width = scores.equal_width_bins(self._confidence, BINS)
        self._mass = scores.equal_mass_bins(self._confidence, mass_bin_count(len(self.labels)))

    @property
    def names(self) -> list[tuple[str, int]]:
        """Name and class (-1: the whole) of each column that `score` gives."""
        return [(name, -1) for name in OVERALL] + [(name, index) for name in PER_CLASS for index in range(self.class_count)]

    def basis(self, name: str, index: int) -> NDArray[np.bool_]:
        """Tell which samples ``(N,)`` a share is a share of."""
        everything = np.ones(len(self.labels), dtype=np.bool_)
        which: dict[str, NDArray[np.bool_]] = {
            "sensitivity": self.labels == index,
            "specificity": self.labels != index,
            "precision": self.predicted == index,
        }
        return which.get(name, everything)

    def figure(self, name: str, weights: Floats, matrix: Floats | None = None) -> Floats:
        """Give one figure of the whole ``(B,)`` for weights ``(B, N)``, without computing the others; `matrix` is their confusion where it is known."""
        if name in ("auroc", "auprc"):
            area = scores.auroc if name == "auroc" else scores.average_precision
            areas = [area(weights, self.labels == k, self.probabilities[:, k]) for k in range(self.class_count)]
            return scores.mean_defined(np.stack(areas, axis=1))
        if name in ("log_loss", "brier"):
            return scores.weighted_mean(weights, self._log_loss if name == "log_loss" else self._brier)
        if name in _INFLATED:
            bins = self._width if name == "ece" else self._mass
            return scores.calibration_error(weights, self._confidence, self._correct, bins, BINS)
        counts = self._confusion(weights) if matrix is None else matrix
        if name == "f1":
            return scores.mean_defined(scores.f1(counts))
        return _OF_CONFUSION[name](counts)

    def _confusion(self, weights: Floats) -> Floats:
        return scores.confusion(weights, self.labels, self.predicted, self.class_count)

    def score(self, weights: Floats) -> Floats:
        """Give all figures ``(B, len(names))`` for weights ``(B, N)``."""
        matrix = self._confusion(weights)
        indices = range(self.class_count)
        roc = np.stack([scores.auroc(weights, self.labels == k, self.probabilities[:, k]) for k in indices], axis=1)
        pr = np.stack([scores.average_precision(weights, self.labels == k, self.probabilities[:, k]) for k in indices], axis=1)
        f1 = scores.f1(matrix)
        ranked = {"auroc": scores.mean_defined(roc), "auprc": scores.mean_defined(pr)}
        overall = {name: ranked[name] if name in ranked else self.figure(name, weights, matrix) for name in OVERALL}
        per_class = {
            "sensitivity": scores.sensitivity(matrix),
            "specificity": scores.specificity(matrix),
            "precision": scores.precision(matrix),
            "f1": f1,
            "auroc": roc,
            "auprc": pr,
        }
        return np.concatenate([np.stack([overall[name] for name in OVERALL], axis=1), *(per_class[name] for name in PER_CLASS)], axis=1)


def evaluate(
    labels: Ints,
    probabilities: Floats,
    classes: Sequence[str],
    *,
    groups: Sequence[Any] | None = None,
    split: str = "test",
    seed: int = 0,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> list[MetricValue]:
    """Measure a classifier.

    Parameters
    ----------
    labels
        True classes ``(N,)``, from 0.
    probabilities
        ``(N, K)``, rows summing to 1.
    classes
        Names of the K classes.
    groups
        Group key of each sample (patient, slide); samples of one group are drawn together. None: every sample alone.
    split
        Name of the part, for the metrics.
    seed
        Seed of the bootstrap.
    resamples
        Number of resamples; 0: no intervals.
    level
        Level of the intervals.

    Returns
    -------
    list of MetricValue
        `OVERALL`, then `PER_CLASS` for each class. A figure that is not defined (AUROC of a class that is not there) is left out.

    Notes
    -----
    Intervals are percentile intervals of the cluster bootstrap; those of the calibration errors are moved by the bootstrap's bias; Wilson's, on the number
    of groups, for shares on which all resamples agree.
    """
    scorer = Scorer(labels, probabilities)
    if len(classes) != scorer.class_count:
        raise ValueError(f"{len(classes)} class names for {scorer.class_count} columns")
    numbers = encode_groups(groups, len(scorer.labels))
    estimate = scorer.score(np.ones((1, len(scorer.labels))))[0]
    values = bootstrap(scorer.score, numbers, generator(seed, "bootstrap", split), resamples) if resamples else None
    metrics = []
    for column, (name, index) in enumerate(scorer.names):
        if not np.isfinite(estimate[column]):
            continue
        count = len(scorer.labels) if index < 0 else int((scorer.labels == index).sum())
        interval: Interval | None = None
        if values is not None:
            group_count = len(np.unique(numbers[scorer.basis(name, index)]))
            interval = _interval(name, float(estimate[column]), values[:, column], group_count, level)
        metrics.append(
            MetricValue(
                name,
                float(estimate[column]),
                interval.lower if interval else None,
                interval.upper if interval else None,
                interval.level if interval else 0.0,
                split,
                "" if index < 0 else classes[index],
                count,
            )
        )
    return metrics


def _interval(name: str, estimate: float, values: Floats, group_count: int, level: float) -> Interval | None:
    if name in _INFLATED:
        return shifted_interval(estimate, values, level)
    interval = percentile_interval(values, level)
    if interval is not None and name in SHARES and interval.upper - interval.lower < 1e-12:
        return wilson_interval(estimate, group_count, level)
    return interval
