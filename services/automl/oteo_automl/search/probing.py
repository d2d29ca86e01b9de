"""The probes of a search: which networks are measured, when, and for how long in all."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Sequence

from oteo_automl.search.budget import Budget
from oteo_automl.search.guards import MEMORY, kind_of
from oteo_automl.search.probe import Probe
from oteo_automl.search.work import Entry, Work
from oteo_core.jobs.executor import Executor, Task

SHARE = 0.05
"""Part of the budget that measuring may take, all networks together."""

_NAME = "probes.json"
_LEAST_SECONDS = 1.0
_CANDIDATES = 8

_log = logging.getLogger(__name__)


class Probing:
    """Measures networks in the order in which they would be tried, until the time for it is up; the others are guessed from these.

    What was measured lies among the checkpoints: a search that was killed does not measure twice.

    Parameters
    ----------
    work
        What can be tried.
    budget
        The time.
    """

    def __init__(self, work: Work, budget: Budget) -> None:  # type: ignore[type-arg]
        self._work = work
        self._budget = budget
        self._tasks: dict[str, Task[Probe]] = {}
        self._asked: set[str] = set()
        self._end = math.inf
        self.found: dict[str, Probe] = {}
        self.messages: dict[str, str] = {}
        stored = work.checkpoints.load(_NAME)
        if stored is not None:
            self.found = {name: Probe.from_json(text) for name, text in json.loads(stored).items()}
            self._asked = set(self.found)

    @property
    def seconds(self) -> float:
        """Time that measuring may take."""
        return SHARE * self._budget.total

    @property
    def tasks(self) -> list[Task[Probe]]:
        """Those that run."""
        return list(self._tasks.values())

    def next(self) -> Entry | None:
        """Give the next network to measure; None where all were, or the time is up."""
        # One at a time: two that run side by side measure each other.
        if self._tasks or self.seconds < _LEAST_SECONDS or time.time() > self._end or len(self._asked) >= _CANDIDATES:
            return None
        for one in self._work.entries:
            if not one.cheap and one.model not in self._asked:
                return one
        return None

    def start(self, executor: Executor, entry: Entry) -> None:
        """Measure one."""
        if math.isinf(self._end):
            self._end = time.time() + self.seconds
        self._asked.add(entry.model)
        task = self._work.probe(executor, entry, self._work.recipe(entry), self._end)
        if task is not None:
            self._tasks[entry.model] = task

    def collect(self, done: Sequence[Task[Probe]]) -> None:
        """Take what has ended."""
        for model in [name for name, task in self._tasks.items() if task in done]:
            task = self._tasks.pop(model)
            try:
                self.found[model] = task.result()
            except Exception as error:  # noqa: BLE001 (a network that cannot be measured may still be tried, and fails alone)
                _log.warning("measuring %s failed: %s: %s", model, type(error).__name__, error)
                self.messages[model] = (
                    "it could not be measured: it needs too much memory"
                    if kind_of(error) == MEMORY
                    else f"it could not be measured: {error}"
                )
        self._work.checkpoints.save(_NAME, json.dumps({name: probe.to_json().decode() for name, probe in self.found.items()}).encode())

    def run(self, executor: Executor) -> None:
        """Measure all that there is time for, for a plan alone."""
        while True:
            if (entry := self.next()) is not None:
                self.start(executor, entry)
            if not self._tasks:
                if self.next() is None:
                    return
                continue
            done, _ = executor.wait(self.tasks, timeout=0.3)
            self.collect(done)

    def stop(self) -> None:
        """Leave what runs."""
        for task in self._tasks.values():
            task.cancel()
        self._tasks.clear()
