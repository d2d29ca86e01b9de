"""What is told of trials while a search runs, whoever listens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from oteo_automl.search.result import EpochRecord
from oteo_core.packages.manifest import TrialRecord


class Tracker(Protocol):
    """Keeps trials where people look at them; it never stops a training."""

    def trial(self, record: TrialRecord, curve: Sequence[EpochRecord]) -> str:
        """Take a trial's present state; give the run's id, empty where it is not known yet."""
        ...

    def flush(self, seconds: float) -> None:
        """Send what has not been sent, within so many seconds."""
        ...


class NoTracker:
    """Keeps nothing."""

    def trial(self, record: TrialRecord, curve: Sequence[EpochRecord]) -> str:
        """Forget it."""
        return ""

    def flush(self, seconds: float) -> None:
        """Nothing is left to send."""
