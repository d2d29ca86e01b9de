"""How good a classifier is when a sample can have several classes, or none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oteo_core.evaluation import scores
from oteo_core.evaluation.bootstrap import LEVEL, RESAMPLES, Floats
from oteo_core.evaluation.classification import BINS
from oteo_core.evaluation.resampled import Column, image_means, measure
from oteo_core.packages import MetricValue

OVERALL = (
    "mean_average_precision",
    "auroc",
    "f1",
    "f1_micro",
    "subset_accuracy",
    "hamming_loss",
    "ranking_loss",
    "log_loss",
    "brier",
    "ece",
)
"""Figures of the whole; the first three are means over the classes. ``log_loss`` and ``brier`` are means over samples and classes, ``ece`` over
the classes' own calibration errors."""

PER_CLASS = ("average_precision", "auroc", "sensitivity", "specificity", "precision", "f1", "ece")
"""Figures of each class: present against absent."""

_TINY = 1e-12


class MultilabelScorer:
    """Computes all figures on any weighting of the samples.

    Parameters
    ----------
    truths
        ``(N, K)``, 1 or True where the sample has the class.
    probabilities
        ``(N, K)``, 0 to 1, each class on its own.
    thresholds
        ``(K,)`` probability from which a class counts as present; None: 0.5.

    Raises
    ------
    ValueError
        Shapes that do not match, or values that are no probabilities.
    """

    def __init__(self, truths: NDArray[Any], probabilities: NDArray[Any], thresholds: Sequence[float] | None = None) -> None:
        self.truths = np.asarray(truths).astype(np.bool_)
        self.probabilities = np.asarray(probabilities, dtype=np.float64)
        if self.truths.ndim != 2 or self.truths.shape != self.probabilities.shape:
            raise ValueError(f"truths of shape {self.truths.shape} and probabilities of shape {self.probabilities.shape}")
        given = self.probabilities
        if not np.isfinite(given).all() or (given < -1e-6).any() or (given > 1 + 1e-6).any():
            raise ValueError("values that are not probabilities: finite, 0 to 1")
        self.count, self.class_count = self.truths.shape
        self.work = self.count
        self._limits = [0.5] * self.class_count if thresholds is None else [float(value) for value in thresholds]
        self.called = self.probabilities >= np.array(self._limits)[None]
        clipped = np.clip(self.probabilities, _TINY, 1 - _TINY)
        wrong = self.called != self.truths
        self._terms: Floats = np.stack(
            [
                ~wrong.any(axis=1),
                wrong.mean(axis=1),
                -np.where(self.truths, np.log(clipped), np.log1p(-clipped)).mean(axis=1),
                ((self.probabilities - self.truths) ** 2).mean(axis=1),
                _ranking_losses(self.truths, self.probabilities),
            ],
            axis=1,
        ).astype(np.float64)
        everyone = np.ones(self.count, dtype=np.bool_)
        shares = {"f1", "f1_micro", "subset_accuracy"}
        self.columns = [Column(name, -1, self.count, everyone if name in shares else None) for name in OVERALL]
        for index in range(self.class_count):
            true, called = self.truths[:, index], self.called[:, index]
            basis = {"sensitivity": true, "specificity": ~true, "precision": called, "f1": true | called}
            self.columns += [Column(name, index, int(true.sum()), basis.get(name)) for name in PER_CLASS]

    def subset(self, rows: Sequence[int]) -> MultilabelScorer:
        """Give the scorer of some of the samples."""
        return MultilabelScorer(self.truths[list(rows)], self.probabilities[list(rows)], self._limits)

    def score(self, weights: Floats) -> Floats:
        """Give all figures ``(B, len(columns))`` for weights ``(B, N)``."""
        total = weights.sum(axis=1)[:, None]
        hits = weights @ (self.truths & self.called).astype(np.float64)
        true = weights @ self.truths.astype(np.float64)
        called = weights @ self.called.astype(np.float64)
        indices = range(self.class_count)
        average = [scores.average_precision(weights, self.truths[:, k], self.probabilities[:, k]) for k in indices]
        per_class = {
            "average_precision": np.stack([np.where(true[:, k] > 0, average[k], np.nan) for k in indices], axis=1),
            "auroc": np.stack([scores.auroc(weights, self.truths[:, k], self.probabilities[:, k]) for k in indices], axis=1),
            "sensitivity": scores.divide(hits, true),
            "specificity": scores.divide(total - true - called + hits, total - true),
            "precision": scores.divide(hits, called),
            "f1": scores.divide(2 * hits, true + called),
            "ece": np.stack([self._calibration(weights, k) for k in indices], axis=1),
        }
        means = image_means(weights, self._terms)
        overall = {
            "mean_average_precision": scores.mean_defined(per_class["average_precision"]),
            "auroc": scores.mean_defined(per_class["auroc"]),
            "f1": scores.mean_defined(per_class["f1"]),
            "f1_micro": scores.divide(2 * hits.sum(axis=1), (true + called).sum(axis=1)),
            "subset_accuracy": means[:, 0],
            "hamming_loss": means[:, 1],
            "log_loss": means[:, 2],
            "brier": means[:, 3],
            "ranking_loss": means[:, 4],
            "ece": scores.mean_defined(per_class["ece"]),
        }
        table = np.stack([per_class[name] for name in PER_CLASS], axis=2).reshape(len(weights), -1)
        return np.concatenate([np.stack([overall[name] for name in OVERALL], axis=1), table], axis=1)

    def _calibration(self, weights: Floats, index: int) -> Floats:
        confidence = self.probabilities[:, index]
        bins = scores.equal_width_bins(confidence, BINS)
        return scores.calibration_error(weights, confidence, self.truths[:, index].astype(np.float64), bins, BINS)


def _ranking_losses(truths: NDArray[np.bool_], probabilities: Floats) -> Floats:
    """Share of each sample's pairs (class that it has, class that it has not) in wrong order, ties counting as wrong; NaN without a pair."""
    losses = np.full(len(truths), np.nan)
    for index, (has, values) in enumerate(zip(truths, probabilities, strict=True)):
        if has.any() and not has.all():
            losses[index] = float((values[has][:, None] <= values[~has][None]).mean())
    return losses


def multilabel_scores(truths: NDArray[Any], probabilities: NDArray[Any], thresholds: Sequence[float] | None = None) -> dict[str, float]:
    """Compute `OVERALL` without intervals, from truths and probabilities ``(N, K)``; what is not defined is 0."""
    scorer = MultilabelScorer(truths, probabilities, thresholds)
    if not scorer.count:
        return dict.fromkeys(OVERALL, 0.0)
    values = scorer.score(np.ones((1, scorer.count)))[0]
    return {name: float(np.nan_to_num(value)) for name, value in zip(OVERALL, values, strict=False)}


def evaluate_multilabel(
    truths: NDArray[Any],
    probabilities: NDArray[Any],
    classes: Sequence[str],
    *,
    thresholds: Sequence[float] | None = None,
    groups: Sequence[Any] | None = None,
    split: str = "test",
    seed: int = 0,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> list[MetricValue]:
    """Measure a multi-label classifier.

    Parameters
    ----------
    truths
        ``(N, K)``, 1 or True where the sample has the class.
    probabilities
        ``(N, K)``, 0 to 1, each class on its own.
    classes
        Names of the K classes.
    thresholds
        ``(K,)`` probability from which a class counts as present; None: 0.5.
    groups
        Group key of each sample; samples of one group are drawn together. None: every sample alone.
    split
        Name of the part, for the metrics.
    seed
        Seed of the bootstrap.
    resamples, level
        Number of resamples (0: no intervals) and the intervals' level.

    Returns
    -------
    list of MetricValue
        `OVERALL`, then `PER_CLASS` for each class, without what is not defined: a class that no sample has, has neither average precision
        nor AUROC and takes no part in the means.

    Notes
    -----
    Ranking loss: Tsoumakas, Katakis and Vlahavas, "Mining multi-label data", 2010. Average precision is the step-wise area, as scikit-learn's.
    """
    scorer = MultilabelScorer(truths, probabilities, thresholds)
    if len(classes) != scorer.class_count:
        raise ValueError(f"{len(classes)} class names for {scorer.class_count} columns")
    return measure(
        scorer.score, scorer.columns, scorer.count, classes, groups=groups, split=split, seed=seed, resamples=resamples, level=level
    )
