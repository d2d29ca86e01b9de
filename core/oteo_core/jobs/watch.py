"""Watching a job from a thread of its own: cancelled, overtaken, out of time, or told to go."""

from __future__ import annotations

import enum
import os
import select
import signal
import threading
import time
from collections.abc import Callable

import psutil
import structlog

from oteo_core.artifacts import ArtifactStore
from oteo_core.errors import NotFound, OteoError
from oteo_core.jobs import files

_LOG = structlog.get_logger(__name__)


class StopCause(enum.Enum):
    """Why a job is to stop."""

    CANCELLED = "cancelled by a caller"
    OVERTAKEN = "another attempt has taken over"
    TERMINATED = "the process was told to end"
    DEADLINE = "its deadline has passed"


GRACE = {StopCause.CANCELLED: 2.0, StopCause.OVERTAKEN: 0.0, StopCause.TERMINATED: 2.0, StopCause.DEADLINE: 5.0}
"""Seconds that the job's own code has to notice before the process is ended under it."""

STOPPED_STATUS = 143
"""Exit status of a job that was stopped."""


class JobStopped(BaseException):
    """The job is to stop now. Not an `Exception`, so that no handler of errors keeps it alive."""

    def __init__(self, cause: StopCause) -> None:
        super().__init__(cause.value)
        self.cause = cause


class Watch:
    """Looks twice a second whether the job may go on, and ends the process when its own code does not.

    Parameters
    ----------
    artifacts
        Where the operation's files are.
    operation_id, attempt
        Which job this is.
    deadline
        Seconds since 1970.
    on_tick
        Called twice a second: writes progress.
    on_exit
        Called before the process is ended from here, with the cause.
    """

    def __init__(
        self,
        artifacts: ArtifactStore,
        operation_id: str,
        attempt: int,
        *,
        deadline: float | None,
        on_tick: Callable[[], None],
        on_exit: Callable[[StopCause], None],
    ) -> None:
        self._artifacts = artifacts
        self._folder = files.folder(operation_id)
        self._attempt = attempt
        self._deadline = deadline
        self._on_tick = on_tick
        self._on_exit = on_exit
        self._finished = threading.Event()
        self.stopping = threading.Event()
        """Set when the job is to stop."""
        self.cause: StopCause | None = None
        """Why, once it is set."""
        self._signal_read: int | None = None
        self._thread = threading.Thread(target=self._run, name="job-watch", daemon=True)

    def start(self, *, signals: bool) -> None:
        """Begin; with `signals` SIGTERM is noticed even while the main thread is in a library's native code."""
        if signals:
            read, write = os.pipe()
            os.set_blocking(write, False)
            self._signal_read = read
            # Python runs a handler between two of its own instructions, which may be minutes away; the number of the signal
            # is written to this descriptor at once.
            signal.set_wakeup_fd(write, warn_on_full_buffer=False)
            signal.signal(signal.SIGTERM, lambda _number, _frame: None)
        self._thread.start()

    def finish(self) -> None:
        """End the watching: the job's own code is through."""
        self._finished.set()
        self._thread.join(timeout=5.0)

    def check(self) -> None:
        """Raise `JobStopped` where the job is to stop, without asking the store."""
        if self.stopping.is_set() and self.cause is not None:
            raise JobStopped(self.cause)

    def check_now(self) -> None:
        """Raise `JobStopped` where the job is to stop, after asking the store."""
        self.check()
        cause = self._look()
        if cause is not None:
            self._stop(cause)
            raise JobStopped(cause)

    def _look(self) -> StopCause | None:
        if self._artifacts.is_file(f"{self._folder}/{files.CANCEL}"):
            return StopCause.CANCELLED
        try:
            current = files.Attempt.from_json(self._artifacts.read_bytes(f"{self._folder}/{files.ATTEMPT}"))
        except NotFound:
            # The operation was cancelled and cleaned up, or deleted, while this process could not be reached.
            return StopCause.OVERTAKEN
        if current.number != self._attempt:
            return StopCause.OVERTAKEN
        if self._deadline is not None and time.time() > self._deadline:
            return StopCause.DEADLINE
        return None

    def _stop(self, cause: StopCause) -> None:
        if not self.stopping.is_set():
            self.cause = cause
            self.stopping.set()

    def _run(self) -> None:
        while not self._finished.is_set():
            if self._told_to_end(0.5):
                self._stop(StopCause.TERMINATED)
            if not self.stopping.is_set():
                self._tick()
            if self.stopping.is_set():
                self._end()
                return

    def _tick(self) -> None:
        try:
            cause = self._look()
            if cause is not None:
                self._stop(cause)
            else:
                self._on_tick()
        except (OteoError, OSError) as error:
            # The store may answer again in a moment; the job's own writes fail loudly where it does not.
            _LOG.warning("the artifact store does not answer the job's watch", error=str(error))

    def _told_to_end(self, seconds: float) -> bool:
        if self._signal_read is None:
            self._finished.wait(seconds)
            return False
        ready, _, _ = select.select([self._signal_read], [], [], seconds)
        return bool(ready) and signal.SIGTERM in os.read(self._signal_read, 64)

    def _end(self) -> None:
        cause = self.cause or StopCause.TERMINATED
        if self._finished.wait(GRACE[cause]):
            return
        _LOG.warning("the job is ended", cause=cause.value)
        try:
            self._on_exit(cause)
        finally:
            end_children()
            os._exit(STOPPED_STATUS)


def end_children() -> None:
    """Kill all processes that this one started."""
    for child in psutil.Process().children(recursive=True):
        try:
            child.kill()
        except psutil.NoSuchProcess:
            continue
