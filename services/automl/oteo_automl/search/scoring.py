"""How held-out answers are scored, the same for every candidate."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata
from sklearn.metrics import average_precision_score, balanced_accuracy_score, f1_score, roc_auc_score

from oteo_core.evaluation.calibration import fit_temperature, softmax
from oteo_core.evaluation.label_calibration import choose_thresholds, fit_labels, sigmoid

OBJECTIVES = ("log_loss", "auroc", "balanced_accuracy", "accuracy", "f1")
"""What can be chosen by; the first is the usual one."""


def score(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> dict[str, float]:
    """Score held-out logits ``(N, K)``; labels ``(N, K)`` of 0 and 1 are scored by `score_labels`.

    Returns
    -------
    dict
        ``log_loss`` after temperature scaling, nats; ``accuracy``, ``balanced_accuracy``, ``f1`` (macro), 0 to 1; ``auroc`` (macro, one
        class against the rest) where every class is present.
    """
    if labels.ndim == 2:
        return score_labels(logits, labels)
    temperature = fit_temperature(logits, labels)
    probabilities = softmax(logits, temperature.temperature)
    predicted = probabilities.argmax(axis=1)
    present = np.unique(labels)
    recalls = [float((predicted[labels == one] == one).mean()) for one in present]
    scores = {
        "log_loss": temperature.log_loss_after,
        "accuracy": float((predicted == labels).mean()),
        "balanced_accuracy": float(np.mean(recalls))
        if len(present) < logits.shape[1]
        else float(balanced_accuracy_score(labels, predicted)),
        "f1": float(f1_score(labels, predicted, average="macro", zero_division=0)),
    }
    if len(present) == logits.shape[1]:
        if logits.shape[1] == 2:
            scores["auroc"] = float(roc_auc_score(labels, probabilities[:, 1]))
        else:
            scores["auroc"] = float(np.mean([roc_auc_score(labels == one, probabilities[:, one]) for one in present]))
    return scores


def score_labels(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> dict[str, float]:
    """Score held-out logits of several labels, both ``(N, K)``.

    Returns
    -------
    dict
        ``log_loss``: mean binary cross-entropy after Platt's scaling of each label, nats; ``mean_average_precision`` and ``auroc`` (means over
        the labels that some of these samples have and some have not; left out where there is none), ``f1`` (macro) and ``accuracy`` (share of
        labels that are right), both at the thresholds that suit these samples best, 0 to 1.
    """
    calibration = fit_labels(logits, labels)
    probabilities = sigmoid(calibration.apply(logits))
    said = probabilities >= choose_thresholds(labels, probabilities)
    scores = {
        "log_loss": calibration.log_loss_after,
        "accuracy": float((said == (labels == 1)).mean()),
        "f1": float(f1_score(labels, said.astype(np.int64), average="macro", zero_division=0)),
    }
    told = [index for index in range(labels.shape[1]) if 0 < labels[:, index].sum() < len(labels)]
    if told:
        scores["mean_average_precision"] = float(np.mean([average_precision_score(labels[:, k], probabilities[:, k]) for k in told]))
        scores["auroc"] = float(np.mean([roc_auc_score(labels[:, k], probabilities[:, k]) for k in told]))
    return scores


def objective_loss(scores: Mapping[str, float], objective: str) -> float:
    """Give the objective such that smaller is better; the loss itself where it is not defined (AUROC without every class)."""
    loss = scores.get("log_loss", scores.get("loss", 0.0))
    if objective == "log_loss" or objective not in scores:
        return loss
    # The loss decides between equals: rates come in steps on small parts.
    return -scores[objective] + 1e-3 * loss


def quick_loss(answers: NDArray[np.float64], labels: NDArray[np.int64], objective: str) -> float:
    """Give the objective of calibrated answers such that smaller is better, much quicker than `score`, for trying many mixtures.

    Parameters
    ----------
    answers
        ``(N, K)``: log-probabilities up to a constant, or logits of each label where there are several.
    labels
        ``(N,)``, or ``(N, K)`` of 0 and 1.
    objective
        One of `OBJECTIVES` or `LABEL_OBJECTIVES`; the log loss where it is not defined for these labels.
    """
    loss = float(sample_losses(answers, labels).mean())
    if objective == "log_loss" or not math.isfinite(loss):
        return loss
    value = _label_figure(answers, labels, objective) if labels.ndim == 2 else _class_figure(_normalised(answers), labels, objective)
    return loss if value is None else -value + 1e-3 * loss


def sample_losses(answers: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Give each sample's log loss ``(N,)``, nats; of several labels their mean. `answers` and `labels` are those of `quick_loss`."""
    if labels.ndim == 2:
        return np.asarray((np.logaddexp(0.0, answers) - labels * answers).mean(axis=1))
    return np.asarray(-_normalised(answers)[np.arange(len(labels)), labels])


def _normalised(answers: NDArray[np.float64]) -> NDArray[np.float64]:
    shifted = answers - answers.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def _class_figure(answers: NDArray[np.float64], labels: NDArray[np.int64], objective: str) -> float | None:
    present = np.unique(labels)
    said = answers.argmax(axis=1)
    if objective == "accuracy":
        return float((said == labels).mean())
    if objective == "balanced_accuracy":
        return float(np.mean([(said[labels == one] == one).mean() for one in present]))
    if objective == "f1":
        return float(f1_score(labels, said, average="macro", zero_division=0))
    if objective == "auroc" and len(present) == answers.shape[1]:
        kinds = [1] if answers.shape[1] == 2 else list(range(answers.shape[1]))
        return float(np.mean([_auroc(answers[:, one], labels == one) for one in kinds]))
    return None


def _label_figure(answers: NDArray[np.float64], labels: NDArray[np.int64], objective: str) -> float | None:
    if objective == "accuracy":
        return float(((answers >= 0) == (labels == 1)).mean())
    if objective == "f1":
        return float(f1_score(labels, (answers >= 0).astype(np.int64), average="macro", zero_division=0))
    told = [index for index in range(labels.shape[1]) if 0 < labels[:, index].sum() < len(labels)]
    if not told:
        return None
    if objective == "auroc":
        return float(np.mean([_auroc(answers[:, one], labels[:, one] == 1) for one in told]))
    return float(np.mean([average_precision_score(labels[:, one], answers[:, one]) for one in told]))


def _auroc(values: NDArray[np.float64], positive: NDArray[np.bool_]) -> float:
    """Give the Mann-Whitney statistic as a share."""
    ranks = rankdata(values)
    count = int(positive.sum())
    return float((ranks[positive].sum() - count * (count + 1) / 2) / max(1, count * (len(values) - count)))
