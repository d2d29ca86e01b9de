"""Weighted classification scores, each on many weightings at once.

Every function takes weights ``(B, N)``, a row for each bootstrap resample, and gives ``(B,)`` or ``(B, K)``; with one row of ones it
is the plain score. A score that a row does not define (a class without a sample) is NaN there.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_TINY = 1e-12


def divide(numerator: Floats, denominator: Floats) -> Floats:
    """Divide, with NaN where the denominator is zero."""
    out = np.full(np.broadcast_shapes(numerator.shape, denominator.shape), np.nan)
    np.divide(numerator, denominator, out=out, where=denominator > 0)
    return out


def mean_defined(values: Floats) -> Floats:
    """Average over the last axis, leaving out NaN; NaN where all are."""
    defined = np.isfinite(values)
    return divide(np.where(defined, values, 0.0).sum(axis=-1), defined.sum(axis=-1).astype(np.float64))


def weighted_mean(weights: Floats, values: Floats) -> Floats:
    """Average `values` ``(N,)`` by each row of weights."""
    return divide(weights @ values, weights.sum(axis=1))


def confusion(weights: Floats, labels: Ints, predicted: Ints, class_count: int) -> Floats:
    """Give confusion matrices ``(B, K, K)``; row: true class, column: predicted."""
    cells = np.zeros((len(labels), class_count * class_count))
    cells[np.arange(len(labels)), labels * class_count + predicted] = 1.0
    return (weights @ cells).reshape(-1, class_count, class_count)


def sensitivity(matrix: Floats) -> Floats:
    """Recall of each class ``(B, K)``."""
    return divide(np.diagonal(matrix, axis1=1, axis2=2), matrix.sum(axis=2))


def specificity(matrix: Floats) -> Floats:
    """Share of the other classes' samples that are not called this class, ``(B, K)``."""
    total = matrix.sum(axis=(1, 2))[:, None]
    others = total - matrix.sum(axis=2)
    false_positive = matrix.sum(axis=1) - np.diagonal(matrix, axis1=1, axis2=2)
    return divide(others - false_positive, others)


def precision(matrix: Floats) -> Floats:
    """Positive predictive value of each class ``(B, K)``; NaN where the class was never predicted."""
    return divide(np.diagonal(matrix, axis1=1, axis2=2), matrix.sum(axis=1))


def f1(matrix: Floats) -> Floats:
    """F1 of each class ``(B, K)``; 0 where the class was never predicted though present, NaN where it is in neither."""
    return divide(2 * np.diagonal(matrix, axis1=1, axis2=2), matrix.sum(axis=1) + matrix.sum(axis=2))


def balanced_accuracy(matrix: Floats) -> Floats:
    """Mean sensitivity of the classes that are there ``(B,)``."""
    return mean_defined(sensitivity(matrix))


def accuracy(matrix: Floats) -> Floats:
    """Share of correct answers ``(B,)``."""
    return divide(np.trace(matrix, axis1=1, axis2=2), matrix.sum(axis=(1, 2)))


def matthews(matrix: Floats) -> Floats:
    """Matthews' correlation for K classes (Gorodkin, Comput. Biol. Chem. 28, 2004), ``(B,)``; 0 where one side is constant."""
    total = matrix.sum(axis=(1, 2))
    correct = np.trace(matrix, axis1=1, axis2=2)
    true, predicted = matrix.sum(axis=2), matrix.sum(axis=1)
    covariance = correct * total - (true * predicted).sum(axis=1)
    spread = (total**2 - (predicted**2).sum(axis=1)) * (total**2 - (true**2).sum(axis=1))
    return np.where(spread > 0, covariance / np.sqrt(np.where(spread > 0, spread, 1.0)), 0.0)


def kappa(matrix: Floats) -> Floats:
    """Cohen's kappa, unweighted, ``(B,)``; NaN where chance alone would always agree."""
    total = matrix.sum(axis=(1, 2))
    expected = divide((matrix.sum(axis=2) * matrix.sum(axis=1)).sum(axis=1), total**2)
    return divide(accuracy(matrix) - expected, 1.0 - expected)


def log_loss_terms(labels: Ints, probabilities: Floats) -> Floats:
    """Negative logarithm of each true class's probability, ``(N,)``, nats; probabilities below 1e-12 count as that."""
    loss: Floats = -np.log(np.maximum(probabilities[np.arange(len(labels)), labels], _TINY))
    return loss


def brier_terms(labels: Ints, probabilities: Floats) -> Floats:
    """Squared distance of each case's probabilities from the truth, summed over the classes (Brier 1950), ``(N,)``, 0 to 2."""
    target = np.zeros_like(probabilities)
    target[np.arange(len(labels)), labels] = 1.0
    squared: Floats = ((probabilities - target) ** 2).sum(axis=1)
    return squared


def _tied(scores: Floats) -> tuple[Ints, Ints]:
    """Give the descending order and where each run of equal scores begins in it."""
    order = np.argsort(-scores, kind="stable").astype(np.int64)
    ranked = scores[order]
    starts = np.flatnonzero(np.concatenate([[True], ranked[1:] != ranked[:-1]])).astype(np.int64)
    return order, starts


def auroc(weights: Floats, positive: NDArray[np.bool_], scores: Floats) -> Floats:
    """Area under the ROC curve: chance that a positive outranks a negative, ties counting half, ``(B,)``."""
    order, starts = _tied(scores)
    flags = positive[order]
    ranked = weights[:, order]
    hits = np.add.reduceat(ranked * flags, starts, axis=1)
    misses = np.add.reduceat(ranked * ~flags, starts, axis=1)
    positives, negatives = hits.sum(axis=1), misses.sum(axis=1)
    below = negatives[:, None] - np.cumsum(misses, axis=1)
    return divide((hits * (below + 0.5 * misses)).sum(axis=1), positives * negatives)


def average_precision(weights: Floats, positive: NDArray[np.bool_], scores: Floats) -> Floats:
    """Area under the precision-recall curve as a step function (no interpolation), ``(B,)``."""
    order, starts = _tied(scores)
    flags = positive[order]
    ranked = weights[:, order]
    hits = np.add.reduceat(ranked * flags, starts, axis=1)
    called = np.cumsum(np.add.reduceat(ranked, starts, axis=1), axis=1)
    found = np.cumsum(hits, axis=1)
    reached = np.divide(found, called, out=np.zeros_like(found), where=called > 0)
    return divide((hits * reached).sum(axis=1), found[:, -1])


def calibration_error(weights: Floats, confidence: Floats, correct: Floats, bins: Ints, bin_count: int) -> Floats:
    """Expected calibration error ``(B,)``: mean over the bins of |accuracy - confidence|, weighted by the bin's share.

    Naeini, Cooper and Hauskrecht, AAAI 2015; Guo et al., ICML 2017. `bins` ``(N,)`` gives each sample's bin, so that the same
    bins serve all resamples.
    """
    cells = np.zeros((len(bins), bin_count))
    cells[np.arange(len(bins)), bins] = correct - confidence
    return divide(np.abs(weights @ cells).sum(axis=1), weights.sum(axis=1))


def equal_width_bins(confidence: Floats, bin_count: int) -> Ints:
    """Number bins of equal width over 0 to 1, ``(N,)``."""
    return np.clip((confidence * bin_count).astype(np.int64), 0, bin_count - 1)


def equal_mass_bins(confidence: Floats, bin_count: int) -> Ints:
    """Number bins of (nearly) equal count, ``(N,)``; equal confidences stay in one bin."""
    edges = np.unique(np.quantile(confidence, np.linspace(0, 1, bin_count + 1)[1:-1]))
    return np.searchsorted(edges, confidence, side="left").astype(np.int64)
