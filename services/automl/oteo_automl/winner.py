"""What a search hands over to be published: the winner, the parts of the data that it is calibrated and judged on, and what was asked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from numpy.typing import NDArray

from oteo_automl.packaging.variants import VariantRequest
from oteo_automl.report.charts import LearningCurve
from oteo_core.datasets import DatasetInfo
from oteo_core.evaluation.bootstrap import Floats, Ints
from oteo_core.evaluation.data_curve import DataCurve
from oteo_core.evaluation.operating import OperatingRequest
from oteo_core.evaluation.statistics import Significance
from oteo_core.images import InputPolicy
from oteo_core.packages import TrialRecord

NO_CURVE = (
    "It was not measured: a classifier on fixed features is fitted again on parts of the images for that, and none was among what was tried, or it "
    "could not be fitted. Train again without a choice of candidates to have it."
)
"""Where a search hands over no learning curve in data: why, and what to do instead."""


@dataclass(slots=True)
class TestPart:
    """The part of the data that nothing was chosen on.

    Parameters
    ----------
    ids, sources, groups
        Of the N samples; an empty group is one of its own.
    labels
        ``(N,)``, from 0; or ``(N, K)`` of 0 and 1.
    images
        Prepared images ``(N, H, W, C)``; a memory map will do.
    sequences
        Stack or clip of each that is a slice or frame of one; empty names for still images; empty: there is none.
    pixels
        Gives the original pixels ``(H, W, C)`` of a sample by its place, for the report; None: the prepared image is shown.
    """

    ids: Sequence[str]
    sources: Sequence[str]
    groups: Sequence[str]
    labels: Ints
    images: NDArray[Any]
    sequences: Sequence[str] = ()
    pixels: Callable[[int], NDArray[Any]] | None = None


@dataclass(slots=True)
class CalibrationPart:
    """What the temperature, the prediction sets and the thresholds are found on; never the test part.

    Parameters
    ----------
    logits
        The network's raw logits ``(N, K)``: of the validation part, or held-out ones of a cross-validation.
    labels
        ``(N,)``, or ``(N, K)`` of 0 and 1.
    description
        In words, for the report.
    """

    logits: NDArray[Any]
    labels: Ints
    description: str = "the validation part"


@dataclass(frozen=True, slots=True)
class Rival:
    """Another model's probabilities ``(N, K)`` on the test part, to compare the winner with; `name` is for people.

    `served` is what gives them, calibrated; None: there is no more of it than these. `trial_id` is its trial.
    """

    name: str
    probabilities: Floats
    trial_id: str = ""
    served: torch.nn.Module | None = None


@dataclass(slots=True)
class Winner:
    """The search's result, and what was asked.

    Parameters
    ----------
    model_id, display_name
        Of the model to be made.
    dataset
        The dataset's manifest.
    classes
        K names, in the order of the network's outputs.
    candidate
        Name of the winning candidate.
    network
        From ``(N, H, W, C)`` as `oteo_core.images.prepare` gives it to logits ``(N, K)``, normalisation included.
    policy
        What it takes.
    calibration, test
        The parts.
    training_images
        Prepared training images ``(H, W, C)``, without augmentation; at most `oteo_automl.publishing.REFERENCE_IMAGES` are looked at.
    training_groups, training_labels
        Of the same images: patient or slide, and classes as of `TestPart.labels`; empty and None where they are not known.
    training_counts
        Training images of each class.
    rivals
        Runner-up and baseline.
    not_compared
        What the winner is not compared with and why, sentences.
    trials, winner_trial
        What was tried, best first, and the winner's id.
    curves
        Learning curves.
    plan, objective
        What the training meant to do, and the metric that it chose by.
    conformal_coverage
        Of the prediction sets.
    operating_points
        Asked for.
    seed, budget, start_time
        Seed; seconds; when the work began, seconds since the epoch.
    run_id, labels
        In MLflow; free labels.
    details
        More for the manifest; JSON values.
    variants
        Smaller or faster forms to make beside the graph; None: none.
    tensorrt
        Precision of TensorRT in Triton's configuration; empty: without it.
    """

    model_id: str
    display_name: str
    dataset: DatasetInfo
    classes: Sequence[str]
    candidate: str
    network: torch.nn.Module
    policy: InputPolicy
    calibration: CalibrationPart
    test: TestPart
    training_images: Iterable[NDArray[Any]]
    training_counts: Sequence[int]
    rivals: Sequence[Rival] = ()
    trials: Sequence[TrialRecord] = ()
    winner_trial: str = ""
    curves: Sequence[LearningCurve] = ()
    plan: str = ""
    significance: Significance | None = None
    growth: DataCurve | None = None
    not_compared: Sequence[str] = ()
    objective: str = "log_loss"
    conformal_coverage: float = 0.9
    operating_points: Sequence[OperatingRequest] = ()
    seed: int = 0
    budget: float = 0.0
    start_time: float = 0.0
    run_id: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
    variants: VariantRequest | None = None
    tensorrt: str = ""
    training_groups: Sequence[str] = ()
    training_labels: Ints | None = None
