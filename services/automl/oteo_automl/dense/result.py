"""What a dense search hands over."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from oteo_automl.candidates.modules import SavedModule
from oteo_automl.dense.base import DenseCandidate
from oteo_automl.search.result import EpochRecord, Plan
from oteo_core.packages import TrialRecord


@dataclass(slots=True)
class FittedNetwork:
    """A trained network of a dense search.

    Parameters
    ----------
    trial_id, candidate
        Last part of its trial's name; the candidate.
    module
        On the processor, in evaluation mode.
    parameters, initial_weights, curve, duration
        As in `oteo_automl.search.result.FittedCandidate`.
    objective
        Value on the held-out rows, in the prepared geometry.
    """

    trial_id: str
    candidate: DenseCandidate
    module: SavedModule
    parameters: dict[str, Any]
    initial_weights: str
    curve: list[EpochRecord] = field(default_factory=list)
    duration: float = 0.0
    objective: float = float("nan")


@dataclass(slots=True)
class DenseResult:
    """What a dense search found; see `oteo_automl.search.result.SearchResult`."""

    objective: str
    best: FittedNetwork
    runner_up: FittedNetwork | None
    baseline: FittedNetwork
    curves: dict[str, list[EpochRecord]]
    plan: Plan
    seconds: float
    trials: list[TrialRecord] = field(default_factory=list)
