"""All that the report and the card say, gathered in one place before a word is written.

`ReportData` holds what every task's report says; `ReportData.part` holds what only one task's does. `oteo_automl.report.gather` makes the
parts of dense tasks from truths and answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from oteo_automl.report.charts import LearningCurve
from oteo_core.datasets import DatasetInfo
from oteo_core.evaluation.bootstrap import Floats, Ints
from oteo_core.evaluation.conformal import ConformalCheck
from oteo_core.evaluation.data_curve import DataCurve
from oteo_core.evaluation.shifts import ShiftReport
from oteo_core.evaluation.statistics import Significance
from oteo_core.packages.manifest import ModelPackage, OperatingPoint


@dataclass(frozen=True, slots=True)
class Case:
    """One test image of a classifier to be shown.

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
    attention
        Data URI of the picture with the attention map over it; empty where there is none.
    """

    sample: str
    source: str
    picture: str
    truth: str
    ranked: tuple[tuple[str, float], ...]
    prediction_set: tuple[str, ...] = ()
    attention: str = ""

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


@dataclass(frozen=True, slots=True)
class LabelCase:
    """One test image of a multi-label classifier to be shown.

    Parameters
    ----------
    sample, source, picture
        As in `Case`.
    found, missed, invented
        True labels that it named, true labels that it did not, and labels that it named wrongly, each with its probability.
    attention
        As in `Case`.
    """

    sample: str
    source: str
    picture: str
    found: tuple[tuple[str, float], ...] = ()
    missed: tuple[tuple[str, float], ...] = ()
    invented: tuple[tuple[str, float], ...] = ()
    attention: str = ""


@dataclass(frozen=True, slots=True)
class PictureCase:
    """One test image of a detector or segmenter to be shown.

    Parameters
    ----------
    sample, source
        Its id, and its path in what was imported.
    picture
        Data URI of the image as it is.
    drawn
        Data URI of the image with truth and answer drawn over it, see `oteo_core.reporting.overlays`.
    figure
        Its own figure: of `ImageFigures.name`; None where it has none (nothing there and nothing found).
    words
        What there is to say of it: "7 of 9 found, 2 false alarms".
    """

    sample: str
    source: str
    picture: str
    drawn: str
    figure: float | None
    words: str = ""


@dataclass(frozen=True, slots=True)
class PrecisionRecall:
    """Precision over recall of one class's boxes or masks, thresholds falling.

    Parameters
    ----------
    class_name
        The class.
    recall, precision, thresholds
        ``(M,)`` each, recall rising; the precision is the raw one, not interpolated.
    average_precision
        At this overlap.
    objects
        True objects of the class in the test part.
    overlap
        Intersection over union from which on an object counts as found.
    chosen
        The package's score threshold for the class; None: it has none.
    """

    class_name: str
    recall: Floats
    precision: Floats
    thresholds: Floats
    average_precision: float
    objects: int
    overlap: float = 0.5
    chosen: float | None = None


@dataclass(frozen=True, slots=True)
class ThresholdRow:
    """What a score threshold gives on the test part, for all classes together.

    ``chosen`` marks the package's own threshold; ``false_per_image`` is the mean number of false alarms in an image.
    """

    threshold: float
    recall: float
    precision: float
    f1: float
    false_per_image: float
    chosen: bool = False


@dataclass(frozen=True, slots=True)
class ScoreCalibration:
    """How sure and how often right, in bins of scores (of boxes, objects or pixels).

    Parameters
    ----------
    confidence, accuracy, counts
        ``(B,)`` mean score, share that is right, and number, of each bin.
    error
        Expected calibration error: mean gap, weighted by the counts.
    what
        What is counted, in the plural: "boxes", "objects", "pixels".
    """

    confidence: Floats
    accuracy: Floats
    counts: Floats
    error: float
    what: str


@dataclass(frozen=True, slots=True)
class ImageFigures:
    """A figure of each test image, to see how even the model is: its name and values ``(N,)``, NaN where an image has none."""

    name: str
    values: Floats


@dataclass(frozen=True, slots=True)
class Subgroup:
    """The figure on a part of the test images.

    Parameters
    ----------
    attribute, value
        "scanner", "GE".
    count
        Test images.
    figure, lower, upper
        Of the metric that the report names with it; ends are None without an interval.
    metric
        Its name.
    """

    attribute: str
    value: str
    count: int
    figure: float
    lower: float | None
    upper: float | None
    metric: str


@dataclass(frozen=True, slots=True)
class FrontPoint:
    """A model that could be had: its time an image and its figure on the validation part.

    Parameters
    ----------
    name
        The candidate.
    milliseconds
        At inference, one image, on the machine that trained.
    figure
        Of the objective.
    chosen
        True for the model of the report.
    """

    name: str
    milliseconds: float
    figure: float
    chosen: bool = False


@dataclass(frozen=True, slots=True)
class AuditFinding:
    """A finding of the import or of an audit that matters here: code, "error"/"warning"/"info", how often, and what it means for the model."""

    code: str
    severity: str
    count: int
    meaning: str = ""


class Spoken(Protocol):
    """Anything that says its result in a sentence, such as `oteo_core.evaluation.comparison.Comparison`."""

    @property
    def sentence(self) -> str:
        """The sentence."""


@dataclass(slots=True)
class ClassificationPart:
    """What only a classifier's report says.

    Parameters
    ----------
    labels, probabilities, before
        Test part: true classes ``(N,)``, calibrated and uncalibrated probabilities ``(N, K)``.
    conformal
        How the prediction sets fare on the test part.
    points
        Operating points with what they give on the test part.
    worst, unsure
        Test images to show.
    """

    labels: Ints
    probabilities: Floats
    before: Floats
    conformal: ConformalCheck
    points: list[PointCheck] = field(default_factory=list)
    worst: list[Case] = field(default_factory=list)
    unsure: list[Case] = field(default_factory=list)

    @property
    def correct(self) -> int:
        """Test images named rightly."""
        return int((self.probabilities.argmax(axis=1) == self.labels).sum())


@dataclass(slots=True)
class MultiLabelPart:
    """What only a multi-label classifier's report says.

    Parameters
    ----------
    labels
        Test part: ``(N, K)`` bool; True where the image has the label.
    probabilities, before
        Calibrated and uncalibrated, ``(N, K)``; rows need not sum to 1.
    thresholds
        ``(K,)``: named from this probability on.
    points
        Operating points with what they give on the test part.
    worst, unsure
        Test images to show.
    """

    labels: NDArray[np.bool_]
    probabilities: Floats
    before: Floats
    thresholds: Floats
    points: list[PointCheck] = field(default_factory=list)
    worst: list[LabelCase] = field(default_factory=list)
    unsure: list[LabelCase] = field(default_factory=list)


@dataclass(slots=True)
class DetectionPart:
    """What only a detector's report says.

    Parameters
    ----------
    object_counts
        True objects of each class in the test part, ``(K,)``.
    precision_recall
        A curve for each class that has objects.
    thresholds
        What score thresholds give, falling.
    images
        A figure of each test image: F1 at the package's threshold.
    calibration
        Of the boxes' scores; None where nothing was found.
    confusion
        ``(K + 1, K + 1)`` counts at the package's threshold: rows truth, columns answer, the last of both "nothing" (missed; false alarm).
    worst, unsure
        Test images to show.
    """

    object_counts: Sequence[int]
    precision_recall: list[PrecisionRecall]
    thresholds: list[ThresholdRow]
    images: ImageFigures
    calibration: ScoreCalibration | None = None
    confusion: NDArray[np.int64] | None = None
    worst: list[PictureCase] = field(default_factory=list)
    unsure: list[PictureCase] = field(default_factory=list)


@dataclass(slots=True)
class SemanticPart:
    """What only a semantic segmenter's report says.

    Parameters
    ----------
    confusion
        ``(K + 1, K + 1)`` pixels of the test part, background first: rows truth, columns answer.
    images
        A figure of each test image: mean Dice over the classes that are there or found.
    calibration
        Of the pixels' probabilities; None where none were kept.
    worst, unsure
        Test images to show.
    """

    confusion: NDArray[np.int64]
    images: ImageFigures
    calibration: ScoreCalibration | None = None
    worst: list[PictureCase] = field(default_factory=list)
    unsure: list[PictureCase] = field(default_factory=list)


@dataclass(slots=True)
class InstancePart:
    """What only an instance segmenter's report says.

    Parameters
    ----------
    object_counts
        True objects of each class in the test part, ``(K,)``.
    true_counts, found_counts
        Objects in each test image, ``(N,)``: counting is what such models are often for.
    precision_recall
        A curve for each class that has objects, by the overlap of masks.
    images
        A figure of each test image: PQ.
    calibration
        Of the objects' scores.
    worst, unsure
        Test images to show.
    """

    object_counts: Sequence[int]
    true_counts: Ints
    found_counts: Ints
    precision_recall: list[PrecisionRecall]
    images: ImageFigures
    calibration: ScoreCalibration | None = None
    worst: list[PictureCase] = field(default_factory=list)
    unsure: list[PictureCase] = field(default_factory=list)


Part = ClassificationPart | MultiLabelPart | DetectionPart | SemanticPart | InstancePart


@dataclass(slots=True)
class ReportData:
    """What the report says of any model. Whatever is left at its default is left out of the page.

    Parameters
    ----------
    package
        The manifest, complete but for its files and digest; its metrics are what the page's tables show.
    dataset
        The dataset as a whole.
    part
        What is particular to the task.
    count, group_count
        Test images, and independent groups among them.
    training_counts
        Of each class, ``(K,)``: training images (classification, multi-label, semantic) or objects (detection, instances).
    comparisons
        Of the winner with the runner-up and the baseline, on the test part.
    not_compared
        What it was not compared with and why, sentences.
    curves
        Learning curves of the networks tried; empty where none was.
    calibrated_on
        What the temperature and thresholds were found on, in words.
    objective
        Name of the metric that the winner was chosen by.
    plan
        What the training meant to do, in words.
    steps
        Seconds that each step took, in order.
    graph_error
        Largest difference of an output between ONNX Runtime and PyTorch.
    exporter
        How the graph was written, in words.
    audit
        Findings that matter, worst first; empty: the counts in the dataset's manifest are shown.
    significance
        Tests between the candidates over folds.
    shifts
        Figures under simulated shifts.
    subgroups
        Figures on parts of the test images.
    data_curve, no_data_curve
        What more images would bring about; where that was not measured, why, and what to do instead: sentences.
    front
        Accuracy against time at inference.
    notes
        More limits of use, sentences.
    """

    package: ModelPackage
    dataset: DatasetInfo
    part: Part
    count: int
    group_count: int
    training_counts: Sequence[int]
    comparisons: list[Spoken] = field(default_factory=list)
    not_compared: list[str] = field(default_factory=list)
    curves: list[LearningCurve] = field(default_factory=list)
    calibrated_on: str = "the validation part"
    objective: str = "log_loss"
    plan: str = ""
    steps: dict[str, float] = field(default_factory=dict)
    graph_error: float = 0.0
    exporter: str = ""
    audit: list[AuditFinding] = field(default_factory=list)
    significance: Significance | None = None
    shifts: ShiftReport | None = None
    subgroups: list[Subgroup] = field(default_factory=list)
    data_curve: DataCurve | None = None
    no_data_curve: str = ""
    front: list[FrontPoint] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
