"""Jobs as plain processes of this machine, for tests."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from oteo_core.jobs.resources import Resources
from oteo_core.jobs.runner import NOTHING, JobRunner, JobState
from oteo_core.jobs.threads import thread_environment

_GRACE = 3.0


class ProcessJobRunner(JobRunner):
    """One process group per attempt; its memory ends with this object, its processes do not.

    Parameters
    ----------
    log_dir
        Folder of the jobs' logs; made.
    executor
        What jobs fan out with, see `JobContext.executor`: ``"process"`` or ``"inline"``.
    """

    def __init__(self, log_dir: Path, executor: str = "process") -> None:
        self._logs = log_dir
        self._executor = executor
        self._lock = threading.Lock()
        self._processes: dict[tuple[str, int], subprocess.Popen[bytes]] = {}
        self._stopped: set[tuple[str, int]] = set()

    def submit(
        self, operation_id: str, attempt: int, entrypoint: Sequence[str], env: Mapping[str, str], resources: Resources = NOTHING
    ) -> None:
        """Start the process in a session of its own, its libraries held to the CPUs that it takes; it waits for none."""
        held = thread_environment(resources.cpus) if resources.cpus else {}
        with self._lock:
            if (operation_id, attempt) in self._processes:
                return
            self._logs.mkdir(parents=True, exist_ok=True)
            with self._log(operation_id, attempt).open("ab") as log:
                self._processes[operation_id, attempt] = subprocess.Popen(
                    list(entrypoint),
                    env={**os.environ, "OTEO_EXECUTOR": self._executor, **held, **env},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )

    def nodes(self) -> Sequence[Resources]:
        """Give this machine's CPUs; GPUs are Ray's to share out."""
        return [Resources(float(os.cpu_count() or 1))]

    def status(self, operation_id: str, attempt: int) -> JobState:
        """Look at the process."""
        process = self._processes.get((operation_id, attempt))
        if process is None:
            return JobState.UNKNOWN
        with self._lock:
            status = process.poll()
        if status is None:
            return JobState.RUNNING
        if (operation_id, attempt) in self._stopped:
            return JobState.STOPPED
        return JobState.SUCCEEDED if status == 0 else JobState.FAILED

    def stop(self, operation_id: str, attempt: int) -> None:
        """Send SIGTERM to the group, and SIGKILL three seconds later."""
        process = self._processes.get((operation_id, attempt))
        if process is None or self.status(operation_id, attempt).ended:
            return
        self._stopped.add((operation_id, attempt))
        _signal(process, signal.SIGTERM)
        threading.Thread(target=self._finish, args=(process,), daemon=True).start()

    def logs(self, operation_id: str, attempt: int) -> str:
        """Read the log's file."""
        file = self._log(operation_id, attempt)
        return file.read_text(errors="replace") if file.exists() else ""

    def pid(self, operation_id: str, attempt: int) -> int:
        """Give the process's id."""
        return self._processes[operation_id, attempt].pid

    def close(self) -> None:
        """Kill what still runs."""
        for process in self._processes.values():
            _signal(process, signal.SIGKILL)
            process.wait()

    def _finish(self, process: subprocess.Popen[bytes]) -> None:
        limit = time.monotonic() + _GRACE
        while time.monotonic() < limit:
            with self._lock:
                if process.poll() is not None:
                    break
            time.sleep(0.05)
        # Also when the leader has ended: its children are of the same group.
        _signal(process, signal.SIGKILL)

    def _log(self, operation_id: str, attempt: int) -> Path:
        return self._logs / f"{operation_id}-{attempt}.log"


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return
