"""What a search hands over: the winner as a network that can be exported, and everything that was tried."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from oteo_core.evaluation.data_curve import DataCurve
from oteo_core.images import InputPolicy
from oteo_core.packages import TrialRecord


@dataclass(frozen=True, slots=True)
class Predictions:
    """Uncalibrated answers on samples that the model which gave them was not fitted on.

    Parameters
    ----------
    sample_ids
        ``N`` ids of the dataset.
    labels
        ``(N,)`` int64, indices of `SearchResult.classes`.
    logits
        ``(N, K)`` float32, finite.
    groups
        ``N`` group names, for intervals by group; empty names where a sample is alone.
    source
        In words, for the report: "the validation part", or "5 grouped folds of the training and validation parts".
    """

    sample_ids: tuple[str, ...]
    labels: NDArray[np.int64]
    logits: NDArray[np.float32]
    groups: tuple[str, ...] = ()
    source: str = "the validation part"


@dataclass(frozen=True, slots=True)
class EpochRecord:
    """One epoch of a learning curve.

    Parameters
    ----------
    epoch
        From 1.
    train_loss
        Mean training loss (with label smoothing and augmentation), nats.
    validation_loss
        On the validation part: the log loss after temperature scaling, nats, for classification, else the task's loss; NaN where it was not
        measured.
    validation_score
        The task's usual figure there (`oteo_automl.candidates.lesson.Judgement`), 0 to 1; NaN where it was not measured.
    learning_rate
        At the end of the epoch.
    seconds
        Time that the epoch took.
    """

    epoch: int
    train_loss: float
    validation_loss: float
    validation_score: float
    learning_rate: float
    seconds: float


@dataclass(slots=True)
class FittedCandidate:
    """A fitted model, whatever it is inside, as a PyTorch module that can be exported.

    Parameters
    ----------
    trial_id
        Last part of its trial's name.
    candidate
        The candidate's name: ``"classical-logistic"``, ``"timm-resnet18"``.
    module
        In evaluation mode, on the processor: from ``(N, H, W, C)`` uint8 or float32, as `oteo_core.images.prepare` gives it under
        `input_policy`, to uncalibrated logits ``(N, K)`` float32. Made of operations that ``torch.onnx`` exports with a dynamic N.
    input_policy
        What it takes; the same for all candidates of one search.
    parameters
        Its settings; JSON values.
    initial_weights
        ``"pretrained:NAME@DIGEST"`` or ``"scratch"``.
    validation
        Held-out predictions, for calibration and thresholds.
    curve
        One record an epoch; empty where nothing is learnt by epochs.
    duration
        Seconds that fitting took, all its tasks together.
    objective
        Value of the search's objective on the validation part.
    """

    trial_id: str
    candidate: str
    module: torch.nn.Module
    input_policy: InputPolicy
    parameters: dict[str, Any]
    initial_weights: str
    validation: Predictions
    curve: list[EpochRecord] = field(default_factory=list)
    duration: float = 0.0
    objective: float = float("nan")


@dataclass(slots=True)
class PlannedCandidate:
    """One line of the plan, as the contract's ``TrainingPlan.Candidate``.

    ``epoch_seconds`` is 0 where nothing is learnt by epochs; ``step_seconds`` and ``peak_memory`` (bytes) are 0 where they were not measured;
    ``measured`` is False where times are a guess.
    """

    name: str
    input_size: int = 0
    batch_size: int = 0
    epochs: int = 0
    epoch_seconds: float = 0.0
    reason: str = ""
    initial_weights: str = "scratch"
    step_seconds: float = 0.0
    peak_memory: int = 0
    measured: bool = False


@dataclass(slots=True)
class Plan:
    """What a search means to do.

    Parameters
    ----------
    summary
        In words.
    candidates
        Those in, and those out with the reason.
    fingerprint
        What the data is: sizes, classes, groups; JSON values.
    device
        "cpu" or the GPU's name.
    folds
        Folds of the cross-validation of cheap candidates; 1 where only the validation part is used.
    steps
        Measured seconds of each step so far, in order.
    notes
        Sentences that belong to the summary: what was left out, what the data lacks, what was chosen.
    """

    summary: str = ""
    candidates: list[PlannedCandidate] = field(default_factory=list)
    fingerprint: dict[str, Any] = field(default_factory=dict)
    device: str = "cpu"
    folds: int = 1
    steps: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(slots=True)
class SearchResult:
    """What a search found.

    Parameters
    ----------
    classes
        Names, in the order of the logits; only classes that have training images.
    objective
        Name of the metric that the winner was chosen by.
    best
        The winner.
    runner_up
        The best of another candidate; None where there is none.
    baseline
        The first cheap model; the winner itself where nothing was better.
    trials
        Everything tried, best first, also what failed.
    curves
        Learning curves by trial id, of all trials that have one.
    plan
        The plan, with what was measured.
    seconds
        Time that the search took, all attempts together.
    fold_scores
        Accuracy by candidate and fold, of the candidates that were cross-validated.
    growth
        What more images would bring about; None where that was not measured.
    """

    classes: tuple[str, ...]
    objective: str
    best: FittedCandidate
    runner_up: FittedCandidate | None
    baseline: FittedCandidate
    trials: list[TrialRecord]
    curves: dict[str, list[EpochRecord]]
    plan: Plan
    seconds: float
    fold_scores: dict[str, dict[int, float]] = field(default_factory=dict)
    growth: DataCurve | None = None
