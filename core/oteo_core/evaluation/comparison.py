"""Whether one model is really better than another on the same images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import binomtest

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
)
from oteo_core.evaluation.classification import OVERALL, Scorer

_WORDS = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "f1": "macro F1",
    "auroc": "AUROC",
    "log_loss": "log-loss",
}
_LOSSES = {"log_loss", "brier", "ece", "ece_equal_mass"}


@dataclass(frozen=True, slots=True)
class Comparison:
    """A paired comparison of two models, A and B, on the same samples.

    Parameters
    ----------
    first, second
        Their names.
    metric
        Name of the figure compared.
    difference
        A minus B.
    interval
        Its interval by the paired cluster bootstrap; None where the figure is not defined often enough.
    only_first, only_second
        Samples that only A, only B got right.
    mcnemar_p
        Exact two-sided McNemar test (Psychometrika 12, 1947) on those; it takes samples as independent.
    count
        Number of samples.
    """

    first: str
    second: str
    metric: str
    difference: float
    interval: Interval | None
    only_first: int
    only_second: int
    mcnemar_p: float
    count: int

    @property
    def sentence(self) -> str:
        """The verdict in one sentence."""
        word = _WORDS.get(self.metric, self.metric)
        if self.interval is None:
            return f"{self.first} and {self.second} cannot be told apart on {self.count} images: {word} is not defined often enough."
        better = self.difference < 0 if self.metric in _LOSSES else self.difference > 0
        span = (
            f"{self.difference:+.3f} ({self.interval.level:.0%} interval {self.interval.lower:+.3f} to {self.interval.upper:+.3f})".replace(
                "-", "−"
            )
        )
        mistakes = (
            f"of {self.count} images {self.only_first} only the first and {self.only_second} only the second got right, "
            f"McNemar p = {self.mcnemar_p:.2g}"
        )
        if self.interval.lower <= 0 <= self.interval.upper:
            return f"{self.first} and {self.second} do not differ reliably: difference in {word} {span}; {mistakes}."
        return f"{self.first} is {'better' if better else 'worse'} than {self.second}: difference in {word} {span}; {mistakes}."


def compare(
    labels: Ints,
    first: Floats,
    second: Floats,
    names: tuple[str, str],
    *,
    metric: str = "log_loss",
    groups: Sequence[Any] | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> Comparison:
    """Compare two models on the same samples.

    Parameters
    ----------
    labels
        ``(N,)``.
    first, second
        Probabilities of models A and B, ``(N, K)``, in the same order.
    names
        Names of A and B.
    metric
        One of `oteo_core.evaluation.classification.OVERALL`.
    groups
        Group keys; groups are drawn whole.
    seed, resamples, level
        Of the bootstrap.
    """
    scorers = Scorer(labels, first), Scorer(labels, second)
    column = OVERALL.index(metric)
    numbers = encode_groups(groups, len(scorers[0].labels))

    def difference(weights: Floats) -> Floats:
        return (scorers[0].score(weights)[:, column] - scorers[1].score(weights)[:, column])[:, None]

    estimate = float(difference(np.ones((1, len(numbers))))[0, 0])
    values = bootstrap(difference, numbers, generator(seed, "compare", *names), resamples)[:, 0]
    right = [scorer.predicted == scorer.labels for scorer in scorers]
    only_first, only_second = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
    discordant = only_first + only_second
    return Comparison(
        first=names[0],
        second=names[1],
        metric=metric,
        difference=estimate,
        interval=percentile_interval(values, level) if np.isfinite(estimate) else None,
        only_first=only_first,
        only_second=only_second,
        mcnemar_p=float(binomtest(only_first, discordant).pvalue) if discordant else 1.0,
        count=len(numbers),
    )
