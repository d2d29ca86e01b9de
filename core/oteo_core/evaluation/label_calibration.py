"""Several labels at once: probabilities that mean what they say, thresholds, and sets that miss no more than is allowed.

Each label has its own sigmoid, so each is calibrated by itself: Platt's scaling (Advances in Large Margin Classifiers, 1999), a slope and an
offset on the logit, found on held-out samples by penalised likelihood. Neither changes the order of cases within a label.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from oteo_core.evaluation import scores
from oteo_core.evaluation.bootstrap import Floats, Ints
from oteo_core.evaluation.calibration import fit_temperature, softmax
from oteo_core.evaluation.classification import BINS
from oteo_core.evaluation.operating import NEVER, OperatingRequest, choose_points, roc_curve
from oteo_core.packages.manifest import OperatingPoint

LOWEST, HIGHEST = 0.05, 20.0
"""Limits of a slope."""

_PRIOR_WEIGHT = 2.0


def sigmoid(logits: NDArray[Any]) -> Floats:
    """Turn logits into probabilities, elementwise."""
    values = np.asarray(logits, dtype=np.float64)
    # The half that does not overflow.
    small = np.exp(-np.abs(values))
    probabilities: Floats = np.where(values >= 0, 1.0 / (1.0 + small), small / (1.0 + small))
    return probabilities


def label_log_loss(logits: NDArray[Any], labels: Ints) -> float:
    """Give the mean binary cross-entropy over samples and labels, nats; `logits` and `labels` (0 or 1) are ``(N, K)``."""
    values = np.asarray(logits, dtype=np.float64)
    return float((np.maximum(values, 0) - values * labels + np.log1p(np.exp(-np.abs(values)))).mean())


def level(logits: NDArray[Any], labels: Ints) -> tuple[Floats, float]:
    """Bring a model's held-out answers to the scale on which models can be mixed.

    Parameters
    ----------
    logits
        ``(N, K)``.
    labels
        ``(N,)``, or ``(N, K)`` of 0 and 1.

    Returns
    -------
    answers, temperature
        Log-probabilities after temperature scaling; for several labels logits divided by one temperature for all of them (the finished model's are
        calibrated label by label). ``oteo_automl.candidates.modules.Blend`` mixes the same.
    """
    if labels.ndim == 1:
        temperature = fit_temperature(logits, labels).temperature
        return np.log(np.clip(softmax(logits, temperature), 1e-12, 1.0)), temperature
    values = np.asarray(logits, dtype=np.float64)
    slope = _fit_one(values.ravel(), np.asarray(labels, dtype=np.int64).ravel())[0]
    return np.clip(values * slope, -30.0, 30.0), 1.0 / slope


@dataclass(frozen=True, slots=True)
class LabelCalibration:
    """Slope and offset of each label, and what they did to the samples that they were found on.

    Parameters
    ----------
    scale, bias
        ``(K,)``: the calibrated logit is ``scale * logit + bias``; scales are positive.
    log_loss_before, log_loss_after
        `label_log_loss`.
    ece_before, ece_after
        `label_calibration_error`.
    count
        Number of samples.
    """

    scale: Floats
    bias: Floats
    log_loss_before: float
    log_loss_after: float
    ece_before: float
    ece_after: float
    count: int

    def apply(self, logits: NDArray[Any]) -> Floats:
        """Give calibrated logits ``(N, K)``."""
        calibrated: Floats = np.asarray(logits, dtype=np.float64) * self.scale + self.bias
        return calibrated

    def to_dict(self) -> dict[str, Any]:
        """Give JSON values for the package's manifest."""
        return {
            "method": "platt",
            "scale": [float(value) for value in self.scale],
            "bias": [float(value) for value in self.bias],
            "log_loss_before": self.log_loss_before,
            "log_loss_after": self.log_loss_after,
            "ece_before": self.ece_before,
            "ece_after": self.ece_after,
            "count": self.count,
        }


def fit_labels(logits: NDArray[Any], labels: Ints) -> LabelCalibration:
    """Find slope and offset of each label.

    Parameters
    ----------
    logits
        ``(N, K)`` on the calibration part, finite.
    labels
        ``(N, K)`` of 0 and 1.

    Raises
    ------
    ValueError
        Shapes that do not match, no sample, or logits that are not finite.

    Notes
    -----
    Weak normal priors on the logarithm of the slope about 0 and on the offset about 0, each worth two samples, keep both finite where a label
    is told apart perfectly or has no positive sample.
    """
    logits = np.asarray(logits, dtype=np.float64)
    labels = np.asarray(labels, dtype=np.int64)
    if logits.ndim != 2 or logits.shape != labels.shape or not len(labels) or not np.isfinite(logits).all():
        raise ValueError(f"finite logits and labels (N, K) with N > 0 are needed, not {logits.shape} and {labels.shape}")
    pairs = np.array([_fit_one(logits[:, index], labels[:, index]) for index in range(logits.shape[1])])
    scale, bias = pairs[:, 0], pairs[:, 1]
    calibrated = logits * scale + bias
    return LabelCalibration(
        scale=scale,
        bias=bias,
        log_loss_before=label_log_loss(logits, labels),
        log_loss_after=label_log_loss(calibrated, labels),
        ece_before=label_calibration_error(labels, sigmoid(logits)),
        ece_after=label_calibration_error(labels, sigmoid(calibrated)),
        count=len(labels),
    )


def _fit_one(logits: Floats, labels: Ints) -> tuple[float, float]:
    count = len(labels)

    def objective(parameters: Floats) -> tuple[float, Floats]:
        slope = math.exp(float(parameters[0]))
        values = slope * logits + parameters[1]
        loss = (np.maximum(values, 0) - values * labels + np.log1p(np.exp(-np.abs(values)))).mean()
        slack = sigmoid(values) - labels
        prior = 0.5 * _PRIOR_WEIGHT / count
        gradient = np.array([(slack * logits).mean() * slope, slack.mean()]) + 2 * prior * parameters
        return float(loss + prior * float(parameters @ parameters)), gradient

    limits = (math.log(LOWEST), math.log(HIGHEST))
    found = minimize(objective, np.zeros(2), jac=True, method="L-BFGS-B", bounds=[limits, (-30.0, 30.0)])
    return math.exp(float(found.x[0])), float(found.x[1])


def label_calibration_error(labels: Ints, probabilities: Floats) -> float:
    """Give the mean over labels of the calibration error of "has the label", `oteo_core.evaluation.classification.BINS` equal bins, 0 to 1."""
    count = len(labels)
    ones = np.ones((1, count))
    errors = []
    for index in range(labels.shape[1]):
        chance = np.ascontiguousarray(probabilities[:, index], dtype=np.float64)
        bins = scores.equal_width_bins(chance, BINS)
        errors.append(float(scores.calibration_error(ones, chance, labels[:, index].astype(np.float64), bins, BINS)[0]))
    return float(np.mean(errors))


def choose_thresholds(labels: Ints, probabilities: Floats) -> Floats:
    """Give for each label the threshold ``(K,)`` from which on it is said, such that F1 is largest on these samples.

    Parameters
    ----------
    labels, probabilities
        ``(N, K)``; the probabilities calibrated.

    Returns
    -------
    ndarray
        One half for a label without positive or without negative samples.

    Notes
    -----
    With calibrated probabilities the best threshold is half of the best F1 (Lipton et al., ECML 2014), hence at most one half: a threshold
    found above that is luck, and is cut.
    """
    thresholds = np.full(labels.shape[1], 0.5)
    for index in range(labels.shape[1]):
        positive = labels[:, index] == 1
        if not positive.any() or positive.all():
            continue
        curve = roc_curve(positive, np.asarray(probabilities[:, index], dtype=np.float64))
        with np.errstate(invalid="ignore", divide="ignore"):
            f1 = np.nan_to_num(2 * curve.precision * curve.sensitivity / (curve.precision + curve.sensitivity))
        at = int(np.argmax(f1))
        upper = float(curve.thresholds[at])
        lower = float(curve.thresholds[at + 1]) if at + 1 < len(curve.thresholds) else 0.0
        thresholds[index] = min(0.5, (upper + lower) / 2) if math.isfinite(upper) else 0.5
    return thresholds


def choose_label_points(
    labels: Ints, probabilities: Floats, classes: Sequence[str], requests: Sequence[OperatingRequest] = ()
) -> list[OperatingPoint]:
    """Choose operating points label by label; see `oteo_core.evaluation.operating.choose_points`.

    Parameters
    ----------
    labels, probabilities
        ``(N, K)`` of the calibration part.
    classes
        Names of the K labels.
    requests
        What must be reached; the points asked for come first, then each label's of the largest Youden index.

    Raises
    ------
    ValueError
        A request names a label that is not there.
    """
    unknown = [request.class_name for request in requests if request.class_name not in classes]
    if unknown:
        raise ValueError(f"operating points for {unknown}; the labels are {list(classes)}")
    asked: list[OperatingPoint] = []
    usual: list[OperatingPoint] = []
    for index, name in enumerate(classes):
        # "Has it" against "has it not": the name of the latter only has to be another one.
        pair = np.stack([1.0 - probabilities[:, index], probabilities[:, index]], axis=1)
        wanted = [request for request in requests if request.class_name == name]
        points = choose_points(labels[:, index], pair, [f"not {name}", name], wanted)
        asked += [point for point in points if point.criterion != "youden"]
        usual += [point for point in points if point.criterion == "youden"]
    return asked + usual


def fit_label_sets(labels: Ints, probabilities: Floats, coverage: float = 0.9) -> Floats:
    """Find from which probability on each label belongs to a case's set, such that the set misses few labels that are true.

    Split conformal prediction label by label (Mondrian: Vovk et al., "Algorithmic learning in a random world", 2005; the same as controlling the risk of a
    miss, Angelopoulos et al., "Conformal risk control", ICLR 2024): for new cases drawn like these, a true label is in the set with at least
    the coverage asked for, whatever the model.

    Parameters
    ----------
    labels, probabilities
        ``(N, K)`` of the calibration part.
    coverage
        0.5 to below 1.

    Returns
    -------
    ndarray
        ``(K,)`` thresholds; 0, which puts the label in every set, where it has too few positive samples.
    """
    if not 0.5 <= coverage < 1:
        raise ValueError(f"a coverage of {coverage}; 0.5 to below 1 is meant")
    thresholds = np.zeros(labels.shape[1])
    for index in range(labels.shape[1]):
        chances = np.sort(probabilities[labels[:, index] == 1, index])
        # The rounding keeps (9 + 1) * 0.1 from falling short of 1.
        rank = math.floor(round((len(chances) + 1) * (1.0 - coverage), 9))
        thresholds[index] = float(chances[rank - 1]) if rank >= 1 else 0.0
    return np.minimum(thresholds, NEVER)


@dataclass(frozen=True, slots=True)
class LabelSetCheck:
    """How label sets fare on other data: share of true labels that are in the sets, by label (NaN where there is none) and in all, and mean size."""

    coverage: float
    label_coverage: tuple[float, ...]
    mean_size: float
    count: int


def check_label_sets(labels: Ints, probabilities: Floats, thresholds: Floats) -> LabelSetCheck:
    """Measure sets on data that the thresholds were not found on; ``(N, K)`` both."""
    inside = probabilities >= thresholds
    each = tuple(
        float(inside[labels[:, index] == 1, index].mean()) if (labels[:, index] == 1).any() else math.nan
        for index in range(labels.shape[1])
    )
    whole = float(inside[labels == 1].mean()) if (labels == 1).any() else math.nan
    return LabelSetCheck(whole, each, float(inside.sum(axis=1).mean()), len(labels))
