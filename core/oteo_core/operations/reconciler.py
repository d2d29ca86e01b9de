"""What keeps rows, jobs and files of operations in step."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import structlog
from google.protobuf import any_pb2
from google.rpc import status_pb2

from oteo_core import tracing
from oteo_core.artifacts import ArtifactStore
from oteo_core.errors import Cancelled, DeadlineExceeded, FailedPrecondition, Internal, NotFound, OteoError, ResourceExhausted, Unavailable
from oteo_core.jobs import files
from oteo_core.jobs.environment import job_environment
from oteo_core.jobs.resources import Placing, Wanted, place
from oteo_core.jobs.runner import NOTHING, JobRunner, JobState
from oteo_core.operations.cleanup import clean_up
from oteo_core.operations.model import DONE, OperationRow, State, unpack
from oteo_core.operations.store import OperationStore
from oteo_core.settings import CoreSettings
from oteo_core.telemetry import SILENT, UNFINISHED
from oteo_protos.type.v1 import report_pb2

_LOG = structlog.get_logger(__name__)

HEARTBEAT_TIMEOUT = 20.0
"""Seconds without a sign of life after which a job that its runner calls running is taken for dead."""
START_TIMEOUT = 180.0
"""The same for a job that has not given its first sign yet: imports take long on a busy machine."""
CANCEL_WAIT = 4.0
"""Seconds that a job is given to end after it was asked to."""
CANCEL_LIMIT = 10.0
"""Seconds after which a cancelled operation ends whatever its runner says; its files' absence ends the process."""
DEADLINE_GRACE = 8.0
"""Seconds that a job has to end by itself after its deadline."""
SWEEP_AFTER = 15.0
"""Seconds after a cancellation at which a late writer's leftovers are deleted once more."""
STORE_REFUSES = frozenset({"DISK_FULL", "READ_ONLY_TARGET"})
"""Reasons for which an artifact store takes nothing, and which do not go away by themselves."""


@dataclass(slots=True)
class _Sign:
    attempt: int
    progress: bytes
    seen: float


class Reconciler:
    """Brings live operations forward, one step at a time; every step may be repeated.

    Parameters
    ----------
    settings, service, store, artifacts, runner
        As for `OperationManager`.
    owner
        Whose leases it acts under.
    job_module
        Entry point of jobs.
    wanted
        As for `OperationManager`.
    """

    def __init__(
        self,
        settings: CoreSettings,
        service: str,
        store: OperationStore,
        artifacts: ArtifactStore,
        runner: JobRunner | None,
        owner: str,
        job_module: str,
        wanted: Mapping[str, Wanted] | None = None,
    ) -> None:
        self._settings = settings
        self._service = service
        self._store = store
        self._artifacts = artifacts
        self._runner = runner
        self._owner = owner
        self._job_module = job_module
        self._wanted = wanted or {}
        self._locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._signs: dict[str, _Sign] = {}
        self._not_before: dict[str, float] = {}
        self.lease_seconds = max(5.0, 5 * settings.reconcile_seconds)
        """How long a replica that has died keeps others from its operations."""
        self.heartbeat_timeout = HEARTBEAT_TIMEOUT
        self.start_timeout = START_TIMEOUT

    def once(self) -> None:
        """Take the leases that are free and bring each operation forward."""
        rows = self._store.lease(self._service, self._owner, self.lease_seconds)
        self._count(rows)
        for row in rows:
            self.advance(row.id, wait=False)
        for row in self._store.sweep_due(self._service):
            if self._clean_up(row, row.state):
                self._store.schedule_sweep(row.id, None)
        live = {row.id for row in rows}
        for known in (self._signs, self._not_before):
            for identity in [identity for identity in list(known) if identity not in live]:
                known.pop(identity, None)

    def _count(self, rows: Sequence[OperationRow]) -> None:
        """Show Prometheus the operations that are this replica's to bring forward."""
        for state in State:
            if state not in DONE:
                UNFINISHED.labels(self._service, state.name).set(sum(row.state is state for row in rows))
        SILENT.labels(self._service).set(max(0.0, self._store.now() - min(row.update_time for row in rows)) if rows else 0.0)

    def advance(self, operation_id: str, *, wait: bool = True) -> None:
        """Bring one operation forward; errors are logged, since the next turn tries again."""
        lock = self._locks[operation_id]
        if not lock.acquire(blocking=wait):
            return
        try:
            row = self._store.get(operation_id)
            if not row.done and row.lease_owner == self._owner:
                self._step(row)
            if row.done:
                self._locks.pop(operation_id, None)
        except NotFound:
            self._locks.pop(operation_id, None)
        except Unavailable as error:
            _LOG.warning("an operation waits", operation=operation_id, error=str(error))
        except Exception:  # noqa: BLE001 (one broken operation must not stop the others)
            _LOG.exception("an operation could not be brought forward", operation=operation_id)
        finally:
            lock.release()

    def read_progress(self, row: OperationRow) -> bytes | None:
        """Give what the job wrote last (`google.protobuf.Any`, serialised); None where it has written nothing."""
        try:
            return self._artifacts.read_bytes(f"{files.folder(row.id)}/{files.PROGRESS}")
        except OteoError:
            return None

    def _step(self, row: OperationRow) -> None:
        if row.state is State.CANCELLING:
            self._stop(row)
            return
        # Results first: they count whatever has become of the process that left them, or of Ray.
        if row.attempt and self._take_over(row):
            return
        if row.deadline is not None and self._store.now() > row.deadline + (DEADLINE_GRACE if row.submitted else 0.0):
            self._stop_job(row)
            error = DeadlineExceeded("the operation's deadline has passed before its work was done", reason="OPERATION_DEADLINE")
            self._end(row, State.FAILED, error=error.to_status())
            return
        if not row.submitted:
            try:
                self._submit(row)
            except (ResourceExhausted, FailedPrecondition) as error:
                if error.reason not in STORE_REFUSES:
                    raise
                # Waiting would help only if somebody looked here: the caller is told, and may ask again.
                _LOG.warning("an operation cannot be written down", operation=row.id, error=str(error))
                self._end(row, State.FAILED, error=error.to_status())
            return
        self._compare(row)

    def _take_over(self, row: OperationRow) -> bool:
        folder = files.folder(row.id)
        try:
            response = self._artifacts.read_bytes(f"{folder}/{files.RESULT}")
        except NotFound:
            pass
        else:
            any_pb2.Any.FromString(response)
            self._end(row, State.SUCCEEDED, response=response)
            return True
        try:
            error = self._artifacts.read_bytes(f"{folder}/{files.ERROR}")
        except NotFound:
            return False
        self._end(row, State.FAILED, error=status_pb2.Status.FromString(error))
        return True

    def _submit(self, row: OperationRow) -> None:
        runner = self._need_runner()
        if time.monotonic() < self._not_before.get(row.id, 0.0):
            return
        # Asked anew for each attempt: nodes come and go.
        placing = place(self._wanted[row.method], runner.nodes()) if row.method in self._wanted else None
        if row.attempt == 0:
            first = self._store.change(row.id, owner=self._owner, attempt=1)
            if first is None:
                return
            row = first
        folder = files.folder(row.id)
        # The same bytes each time, so that it does not matter how often, nor where it was interrupted.
        self._artifacts.write_bytes(f"{folder}/{files.REQUEST}", row.request)
        if self.read_progress(row) is None:
            self._artifacts.write_bytes(f"{folder}/{files.PROGRESS}", _waiting(row.metadata, placing))
        attempt = files.Attempt(
            number=row.attempt,
            limit=self._settings.job_attempts,
            service=row.service,
            method=row.method,
            caller=row.caller,
            create_time=row.create_time,
            deadline=row.deadline,
        )
        self._artifacts.write_bytes(f"{folder}/{files.ATTEMPT}", attempt.to_json())
        command = [self._settings.job_python, "-m", self._job_module, row.id, str(row.attempt)]
        variables = {**job_environment(self._settings), **tracing.job_variables(row.traceparent)}
        if placing is not None:
            variables |= placing.environment()
        runner.submit(row.id, row.attempt, command, variables, placing.resources if placing is not None else NOTHING)
        if self._store.change(row.id, owner=self._owner, submitted=True) is not None:
            _LOG.info("job submitted", operation=row.id, attempt=row.attempt)

    def _compare(self, row: OperationRow) -> None:
        sign = self._sign_of_life(row)
        state = self._need_runner().status(row.id, row.attempt)
        if state is JobState.UNKNOWN or state.ended:
            # It may have left its result between our look at the files and at the runner.
            if not self._take_over(row):
                self._again(row, f"its process ended without a result (state {state.value})")
            return
        begun = self._has_begun(sign, row)
        if begun and row.state is State.QUEUED:
            self._store.started(row.id, self._owner)
        silent = time.monotonic() - sign.seen
        if state is JobState.RUNNING and silent > (self.heartbeat_timeout if begun else self.start_timeout):
            # After a restart of Ray's head its record says RUNNING for ever, of a process that is gone.
            self._need_runner().stop(row.id, row.attempt)
            self._again(row, f"it gave no sign of life for {silent:.0f} s")

    def _sign_of_life(self, row: OperationRow) -> _Sign:
        progress = self.read_progress(row) or b""
        known = self._signs.get(row.id)
        # Measured by change, with this process's own clock: the clocks of others may be wrong.
        if known is None or known.attempt != row.attempt or known.progress != progress:
            known = self._signs[row.id] = _Sign(row.attempt, progress, time.monotonic())
            if progress and progress != row.metadata:
                self._store.change(row.id, owner=self._owner, metadata=progress)
        return known

    def _has_begun(self, sign: _Sign, row: OperationRow) -> bool:
        message = unpack(any_pb2.Any.FromString(sign.progress))
        return message is not None and getattr(getattr(message, "progress", None), "attempt", 0) == row.attempt

    def _again(self, row: OperationRow, what: str) -> None:
        crash = self._crash(row, row.attempt)
        reason = crash.message if crash is not None else what
        before = self._crash(row, row.attempt - 1)
        same = crash is not None and before is not None and not crash.transient and crash.place == before.place
        _LOG.warning("a job is lost", operation=row.id, attempt=row.attempt, cause=reason)
        if same or row.attempt >= self._settings.job_attempts:
            error = Internal(
                f"the job failed {row.attempt} times; the last time: {reason}",
                reason="JOB_CRASHED" if same else "JOB_LOST",
                metadata={"attempts": str(row.attempt)},
            )
            self._end(row, State.FAILED, error=error.to_status())
            return
        if row.attempt > 1:
            # What failed twice gets some air: memory may be short, or a server starting.
            self._not_before[row.id] = time.monotonic() + min(30.0, 2.0 ** (row.attempt - 1))
        following = self._store.change(row.id, owner=self._owner, attempt=row.attempt + 1, submitted=False)
        if following is not None:
            self._submit(following)

    def _crash(self, row: OperationRow, attempt: int) -> files.Crash | None:
        try:
            return files.Crash.from_json(self._artifacts.read_bytes(files.crash_path(row.id, attempt)))
        except NotFound:
            return None

    def _stop(self, row: OperationRow) -> None:
        age = self._store.now() - (row.cancel_time or 0.0)
        if row.attempt:
            self._artifacts.write_bytes(f"{files.folder(row.id)}/{files.CANCEL}", b"")
            if not self._stop_job(row) and age < CANCEL_LIMIT:
                return
        error = Cancelled("the operation was cancelled", reason="OPERATION_CANCELLED")
        self._end(row, State.CANCELLED, error=error.to_status())
        if row.attempt:
            # A process that nobody could reach may still have been writing.
            self._store.schedule_sweep(row.id, SWEEP_AFTER)

    def _stop_job(self, row: OperationRow) -> bool:
        """Stop the job and wait for its end; True where it has ended for certain."""
        runner = self._need_runner()
        limit = time.monotonic() + CANCEL_WAIT
        try:
            runner.stop(row.id, row.attempt)
            while True:
                state = runner.status(row.id, row.attempt)
                if state.ended or state is JobState.UNKNOWN:
                    return True
                if time.monotonic() > limit:
                    return False
                time.sleep(0.1)
        except Unavailable as error:
            _LOG.warning("a job could not be stopped through its runner", operation=row.id, error=str(error))
            return False

    def _end(self, row: OperationRow, state: State, *, response: bytes | None = None, error: status_pb2.Status | None = None) -> None:
        # Before the row says that it has ended: whoever is told so finds nothing half-done, and a crash here is repeated.
        progress = self.read_progress(row)
        values = {"metadata": progress} if progress else {}
        self._clean_up(row, state)
        serialised = None if error is None else error.SerializeToString()
        if state in DONE and self._store.change(row.id, owner=self._owner, state=state, response=response, error=serialised, **values):
            _LOG.info("operation ended", operation=row.id, state=state.name, attempts=row.attempt)

    def _clean_up(self, row: OperationRow, state: State) -> bool:
        try:
            clean_up(self._artifacts, row, state)
        except FailedPrecondition as error:
            if error.reason not in STORE_REFUSES:
                raise
            # Nothing can be removed from a store that cannot be written; the operation ends all the same.
            _LOG.warning("what an operation left is removed later", operation=row.id, error=str(error))
            self._store.schedule_sweep(row.id, SWEEP_AFTER)
            return False
        return True

    def _need_runner(self) -> JobRunner:
        if self._runner is None:
            raise RuntimeError(f"{self._service} has an operation with a job, and no job runner")
        return self._runner


def _waiting(metadata: bytes, placing: Placing | None) -> bytes:
    """Add to an operation's first metadata (`google.protobuf.Any`, serialised) what its job waits for."""
    packed = any_pb2.Any.FromString(metadata)
    message = unpack(packed)
    if placing is None or message is None or placing.resources == NOTHING:
        return metadata
    progress: report_pb2.Progress = getattr(message, "progress")  # noqa: B009 (field 1 of every metadata message)
    progress.message = f"waits for a node with {placing.resources} free"
    packed.Pack(message)
    return packed.SerializeToString()
