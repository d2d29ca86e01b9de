"""Jobs in threads of the test: the service's own handlers, without starting a process for each."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

from oteo_core.artifacts import ArtifactStore
from oteo_core.jobs import JobHandler, JobRunner, JobState, Resources
from oteo_core.jobs.entry import execute
from oteo_core.jobs.runner import NOTHING
from oteo_core.settings import CoreSettings


class ThreadRunner(JobRunner):
    """Runs jobs of these handlers in threads."""

    def __init__(self, settings: CoreSettings, artifacts: ArtifactStore, handlers: Mapping[str, JobHandler[Any, Any]]) -> None:
        self._settings, self._artifacts, self._handlers = settings, artifacts, handlers
        self._states: dict[tuple[str, int], JobState] = {}

    def submit(
        self, operation_id: str, attempt: int, entrypoint: Sequence[str], env: Mapping[str, str], resources: Resources = NOTHING
    ) -> None:
        key = (operation_id, attempt)
        if key in self._states:
            return
        self._states[key] = JobState.RUNNING

        def work() -> None:
            status = execute(operation_id, attempt, self._settings, self._artifacts, self._handlers, signals=False)
            self._states[key] = JobState.FAILED if status else JobState.SUCCEEDED

        threading.Thread(target=work, daemon=True).start()

    def nodes(self) -> Sequence[Resources]:
        return [Resources(2.0)]

    def status(self, operation_id: str, attempt: int) -> JobState:
        return self._states.get((operation_id, attempt), JobState.UNKNOWN)

    def stop(self, operation_id: str, attempt: int) -> None:
        """The job's own watch sees the cancellation."""

    def logs(self, operation_id: str, attempt: int) -> str:
        return ""
