"""All that the report and the card say, gathered in one place before a word is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from oteo_automl.evaluation.bootstrap import Floats, Ints
from oteo_automl.evaluation.comparison import Comparison
from oteo_automl.evaluation.conformal import ConformalCheck
from oteo_automl.report.charts import LearningCurve
from oteo_core.datasets import DatasetInfo
from oteo_core.packages.manifest import ModelPackage, OperatingPoint


@dataclass(frozen=True, slots=True)
class Case:
    """One test image to be shown.

    Parameters
    ----------
    sample
        Its id.
    source
        Its path in what was imported.
    picture
        A data URI.
    truth
        Its class.
    ranked
        Classes and probabilities, most probable first.
    prediction_set
        Classes in its conformal set.
    """

    sample: str
    source: str
    picture: str
    truth: str
    ranked: tuple[tuple[str, float], ...]
    prediction_set: tuple[str, ...] = ()

    @property
    def right(self) -> bool:
        """Whether the model named the true class."""
        return self.ranked[0][0] == self.truth

    @property
    def truth_probability(self) -> float:
        """Probability that the model gave the true class."""
        return dict(self.ranked)[self.truth]


@dataclass(frozen=True, slots=True)
class PointCheck:
    """An operating point and what it gives on the test part (NaN where that is undefined)."""

    point: OperatingPoint
    test_sensitivity: float
    test_specificity: float


@dataclass(slots=True)
class ReportData:
    """What the report says.

    Parameters
    ----------
    package
        The manifest, complete but for its files and digest.
    dataset
        The dataset as a whole.
    labels, probabilities, before
        Test part: true classes ``(N,)``, calibrated and uncalibrated probabilities ``(N, K)``.
    group_count
        Number of independent groups in the test part.
    comparisons
        Of the winner with the runner-up and the baseline, on the test part.
    conformal
        How the prediction sets fare on the test part.
    points
        Operating points with what they give on the test part.
    curves
        Learning curves of the networks tried; empty where none was.
    worst, unsure
        Test images to show.
    training_counts
        Training images of each class, ``(K,)``.
    calibrated_on
        What the temperature and thresholds were found on, in words.
    objective
        Name of the metric that the winner was chosen by.
    plan
        What the training meant to do, in words.
    steps
        Seconds that each step took, in order.
    graph_error
        Largest difference of a probability between ONNX Runtime and PyTorch.
    exporter
        How the graph was written, in words.
    """

    package: ModelPackage
    dataset: DatasetInfo
    labels: Ints
    probabilities: Floats
    before: Floats
    group_count: int
    conformal: ConformalCheck
    training_counts: Sequence[int]
    comparisons: list[Comparison] = field(default_factory=list)
    points: list[PointCheck] = field(default_factory=list)
    curves: list[LearningCurve] = field(default_factory=list)
    worst: list[Case] = field(default_factory=list)
    unsure: list[Case] = field(default_factory=list)
    calibrated_on: str = "the validation part"
    objective: str = "log_loss"
    plan: str = ""
    steps: dict[str, float] = field(default_factory=dict)
    graph_error: float = 0.0
    exporter: str = ""

    @property
    def correct(self) -> int:
        """Test images named rightly."""
        return int((self.probabilities.argmax(axis=1) == self.labels).sum())

    @property
    def majority(self) -> tuple[str, float]:
        """The most common class in training, and how often answering nothing else would be right on the test part."""
        index = int(np.argmax(self.training_counts))
        return self.package.classes[index], float((self.labels == index).mean())


def choose_cases(labels: Ints, probabilities: Floats, groups: Ints, *, worst: int = 12, unsure: int = 6) -> tuple[list[int], list[int]]:
    """Choose test images to show.

    Parameters
    ----------
    labels
        ``(N,)``.
    probabilities
        ``(N, K)``.
    groups
        Group numbers ``(N,)``; of each group only one image is shown, since copies would crowd out others.
    worst, unsure
        How many at most.

    Returns
    -------
    worst, unsure : list of int
        Mistakes, the surest first; and the images with the least difference between the two most probable classes, without those groups.
    """
    predicted = probabilities.argmax(axis=1)
    confidence = probabilities.max(axis=1)
    wrong = np.flatnonzero(predicted != labels)
    ordered = np.sort(probabilities, axis=1)
    margin = ordered[:, -1] - ordered[:, -2]
    shown: set[int] = set()

    def first(candidates: Ints, limit: int) -> list[int]:
        chosen: list[int] = []
        for index in candidates.tolist():
            if len(chosen) < limit and int(groups[index]) not in shown:
                shown.add(int(groups[index]))
                chosen.append(index)
        return chosen

    mistakes = first(wrong[np.argsort(-confidence[wrong], kind="stable")], worst)
    return mistakes, first(np.argsort(margin, kind="stable"), unsure)
