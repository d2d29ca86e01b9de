"""What is told of trials while a search runs, whoever listens."""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence
from typing import Protocol

from oteo_automl.search.result import EpochRecord
from oteo_core.packages import TrialRecord


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


class BackgroundTracker:
    """Tells another tracker from a thread of its own: a search never waits for a tracking server.

    Parameters
    ----------
    inner
        Who is told; used by one thread at a time.
    """

    def __init__(self, inner: Tracker) -> None:
        self._inner = inner
        self._queue: queue.SimpleQueue[tuple[TrialRecord, list[EpochRecord]] | None] = queue.SimpleQueue()
        self._runs: dict[str, str] = {}
        self._thread = threading.Thread(target=self._run, name="tracker", daemon=True)
        self._thread.start()

    def trial(self, record: TrialRecord, curve: Sequence[EpochRecord]) -> str:
        """Put it in the queue; give the run's id as far as it is known."""
        self._queue.put((record, list(curve)))
        return self._runs.get(record.id, record.run_id)

    def run_id(self, trial: str) -> str:
        """Give a trial's run, empty where it is not known."""
        return self._runs.get(trial, "")

    def flush(self, seconds: float) -> None:
        """Wait until everything has been told, at most so long, and end the thread."""
        self._queue.put(None)
        self._thread.join(timeout=seconds)
        if not self._thread.is_alive():
            self._inner.flush(max(0.5, seconds / 2))

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            record, curve = item
            run = self._inner.trial(record, curve)
            if run:
                self._runs[record.id] = run
