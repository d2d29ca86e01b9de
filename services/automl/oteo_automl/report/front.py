"""The front of accuracy against time at inference, for the report."""

from __future__ import annotations

from collections.abc import Sequence

from oteo_automl.report.data import FrontPoint
from oteo_core.packages import TrialRecord


def front_points(trials: Sequence[TrialRecord], chosen: str) -> list[FrontPoint]:
    """Give the trials that nothing beats in both, and the chosen one by its id; quickest first, with its time in milliseconds."""
    points = [
        FrontPoint(trial.candidate, 1000 * trial.latency, trial.objective, chosen=trial.id == chosen)
        for trial in trials
        if trial.objective is not None and trial.latency > 0 and (trial.on_front or trial.id == chosen)
    ]
    return sorted(points, key=lambda point: point.milliseconds)
