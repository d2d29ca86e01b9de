"""Making probabilities mean what they say.

Temperature scaling (Guo et al., "On calibration of modern neural networks", ICML 2017): one number that divides the logits, found on
the validation part by minimising the negative log-likelihood. It never changes which class is first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from oteo_core.evaluation import scores
from oteo_core.evaluation.bootstrap import Floats, Ints
from oteo_core.evaluation.classification import BINS, mass_bin_count

LOWEST, HIGHEST = 0.05, 20.0
"""Limits of a temperature."""

_PRIOR_SPREAD = 0.35


def softmax(logits: NDArray[Any], temperature: float = 1.0) -> Floats:
    """Turn logits ``(N, K)`` into probabilities ``(N, K)``."""
    scaled = np.asarray(logits, dtype=np.float64) / temperature
    scaled -= scaled.max(axis=1, keepdims=True)
    exponentials = np.exp(scaled)
    probabilities: Floats = exponentials / exponentials.sum(axis=1, keepdims=True)
    return probabilities


def negative_log_likelihood(logits: NDArray[Any], labels: Ints, temperature: float = 1.0) -> float:
    """Give the mean negative log-likelihood, nats, without the rounding to zero that probabilities suffer."""
    scaled = np.asarray(logits, dtype=np.float64) / temperature
    top = scaled.max(axis=1)
    normaliser = top + np.log(np.exp(scaled - top[:, None]).sum(axis=1))
    return float((normaliser - scaled[np.arange(len(labels)), labels]).mean())


@dataclass(frozen=True, slots=True)
class Calibration:
    """A temperature and what it did to the samples that it was found on.

    Parameters
    ----------
    temperature
        Divides the logits; 1 leaves them.
    log_loss_before, log_loss_after
        Mean negative log-likelihood, nats.
    ece_before, ece_after
        Calibration error, equal width, `oteo_core.evaluation.classification.BINS` bins.
    count
        Number of samples.
    at_limit
        True where the best temperature lies outside `LOWEST` to `HIGHEST`: the classes are separated perfectly, or the model is
        worse than chance.
    """

    temperature: float
    log_loss_before: float
    log_loss_after: float
    ece_before: float
    ece_after: float
    count: int
    at_limit: bool

    def to_dict(self) -> dict[str, Any]:
        """Give JSON values for the package's manifest."""
        return {
            "method": "temperature",
            "temperature": self.temperature,
            "log_loss_before": self.log_loss_before,
            "log_loss_after": self.log_loss_after,
            "ece_before": self.ece_before,
            "ece_after": self.ece_after,
            "count": self.count,
            "at_limit": self.at_limit,
        }


def fit_temperature(logits: NDArray[Any], labels: Ints) -> Calibration:
    """Find the temperature.

    Parameters
    ----------
    logits
        ``(N, K)`` on the calibration part.
    labels
        ``(N,)``, from 0.

    Notes
    -----
    The likelihood is convex in the inverse temperature, so Brent's method on its logarithm finds the one minimum. A log-normal prior
    about 1 (standard deviation of the logarithm .35) keeps the temperature finite where every calibration sample happens to be right
    (the likelihood alone would then call the model infallible), and near 1 where a few dozen samples are easy ones; some hundred
    samples outweigh it.
    """
    logits = np.asarray(logits, dtype=np.float64)
    labels = np.asarray(labels, dtype=np.int64)
    if logits.ndim != 2 or len(logits) != len(labels) or not len(labels) or not np.isfinite(logits).all():
        raise ValueError(f"finite logits (N, K) and labels (N,) with N > 0 are needed, not {logits.shape} and {labels.shape}")

    def objective(log_temperature: float) -> float:
        prior = 0.5 * (log_temperature / _PRIOR_SPREAD) ** 2 / len(labels)
        return negative_log_likelihood(logits, labels, float(np.exp(log_temperature))) + prior

    limits = (float(np.log(LOWEST)), float(np.log(HIGHEST)))
    found = minimize_scalar(objective, bounds=limits, method="bounded", options={"xatol": 1e-6})
    log_temperature = float(found.x)
    temperature = float(np.exp(log_temperature))
    before, after = softmax(logits), softmax(logits, temperature)
    return Calibration(
        temperature=temperature,
        log_loss_before=negative_log_likelihood(logits, labels),
        log_loss_after=negative_log_likelihood(logits, labels, temperature),
        ece_before=expected_calibration_error(labels, before),
        ece_after=expected_calibration_error(labels, after),
        count=len(labels),
        at_limit=min(log_temperature - limits[0], limits[1] - log_temperature) < 1e-3,
    )


def expected_calibration_error(labels: Ints, probabilities: Floats, *, equal_mass: bool = False) -> float:
    """Give the calibration error of the most probable class, 0 to 1.

    Parameters
    ----------
    labels
        ``(N,)``.
    probabilities
        ``(N, K)``.
    equal_mass
        Bins of equal count (`mass_bin_count`) and not of equal width (`BINS`).
    """
    confidence: Floats = probabilities.max(axis=1)
    correct = (probabilities.argmax(axis=1) == labels).astype(np.float64)
    bins = scores.equal_mass_bins(confidence, mass_bin_count(len(labels))) if equal_mass else scores.equal_width_bins(confidence, BINS)
    return float(scores.calibration_error(np.ones((1, len(labels))), confidence, correct, bins, BINS)[0])


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """One point of a calibration plot: mean confidence, share correct with its interval, and count."""

    confidence: float
    accuracy: float
    lower: float
    upper: float
    count: int


def reliability(labels: Ints, probabilities: Floats) -> list[ReliabilityBin]:
    """Give the calibration plot's points, bins of equal count, with Wilson intervals."""
    from oteo_core.evaluation.bootstrap import wilson_interval

    confidence: Floats = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == labels
    bins = scores.equal_mass_bins(confidence, mass_bin_count(len(labels)))
    points = []
    for index in np.unique(bins):
        inside = bins == index
        share, count = float(correct[inside].mean()), int(inside.sum())
        interval = wilson_interval(share, count)
        points.append(ReliabilityBin(float(confidence[inside].mean()), share, interval.lower, interval.upper, count))
    return points
