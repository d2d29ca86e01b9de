"""Operations of one service: started once, watched, mended, ended."""

from __future__ import annotations

import hashlib
import os
import secrets
import socket
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TYPE_CHECKING

import structlog
from google.longrunning import operations_pb2
from google.protobuf.message import Message
from google.rpc import status_pb2

from oteo_core import context as call_context
from oteo_core import tracing
from oteo_core.artifacts import ArtifactStore
from oteo_core.errors import Cancelled, FailedPrecondition, NotFound, OteoError
from oteo_core.jobs import files
from oteo_core.jobs.resources import Wanted
from oteo_core.jobs.runner import JobRunner
from oteo_core.operations.ids import new_operation_id, operation_id, operation_name
from oteo_core.operations.model import OperationRow, State, pack
from oteo_core.operations.reconciler import Reconciler
from oteo_core.operations.store import NewOperation, OperationStore
from oteo_core.settings import CoreSettings

if TYPE_CHECKING:
    from oteo_core.operations.servicer import OperationsServicer

_LOG = structlog.get_logger(__name__)


class OperationManager:
    """All operations of one service.

    An operation is a row; a job is what the runner starts under the operation's id. Several replicas of a service may each
    have a manager on the same database: leases keep them out of each other's way.

    Parameters
    ----------
    settings
        The service's settings; jobs are given the same.
    service
        ``augment``, ``automl``, ``translate`` or ``gateway``.
    store
        The rows.
    artifacts
        Where jobs find their request and leave their results.
    runner
        What starts jobs; None for a service whose operations are all external.
    job_module
        Module that is the jobs' entry point; ``oteo_{service}.job`` without it.
    wanted
        By method, what its jobs' own processes take of a node; nothing where it is not named.
    """

    def __init__(
        self,
        settings: CoreSettings,
        service: str,
        store: OperationStore,
        artifacts: ArtifactStore,
        runner: JobRunner | None = None,
        *,
        job_module: str | None = None,
        wanted: Mapping[str, Wanted] | None = None,
    ) -> None:
        self.service = service
        self.store = store
        self.artifacts = artifacts
        self.owner = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        """Who holds this manager's leases."""
        self.on_cancel: Callable[[OperationRow], None] | None = None
        """Called (in a thread) when an external operation is asked to stop; whoever works on it ends it with `cancelled`."""
        self._settings = settings
        self._pool = ThreadPoolExecutor(4, thread_name_prefix="operations")
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self.reconciler = Reconciler(
            settings, service, store, artifacts, runner, self.owner, job_module or f"oteo_{service}.job", wanted or {}
        )

    # Starting.

    def start(
        self,
        method: str,
        request: Message,
        *,
        metadata: Message,
        request_id: str = "",
        resource: str = "",
        on_cleanup: Sequence[str] = (),
        deadline: timedelta | None = None,
        caller: str | None = None,
    ) -> operations_pb2.Operation:
        """Begin an operation whose work is a job.

        Parameters
        ----------
        method
            Name of the method, such as ``"TrainModel"``; the job's handler is found by it.
        request
            What the job is given.
        metadata
            The operation's first metadata; field ``progress`` is filled here.
        request_id
            A replay gives the first operation; empty: this call is no replay.
        resource
            Name of what is worked on, such as ``"models/cells"``: one operation at a time. Empty: no limit.
        on_cleanup
            Artifact prefixes that are deleted when the operation ends, however it ends, such as ``("uploads/…",)``.
        deadline
            Time after which the work is stopped and the operation fails with ``OPERATION_DEADLINE``.
        caller
            Who asks; the call's caller without it.

        Raises
        ------
        AlreadyExists
            ``REQUEST_ID_REUSED``, ``OPERATION_IN_PROGRESS``.
        """
        row, new = self.store.insert(
            self._new(method, request, metadata, request_id, resource, caller, cleanup=on_cleanup, deadline=deadline)
        )
        if new:
            _LOG.info("operation begun", operation=row.id, method=method, resource=resource)
            # Not here: the caller need not wait for Ray, which may be away for a while.
            self._pool.submit(self.reconciler.advance, row.id)
        return row.to_proto()

    def start_external(
        self,
        method: str,
        request: Message,
        *,
        metadata: Message,
        request_id: str = "",
        resource: str = "",
        caller: str | None = None,
    ) -> operations_pb2.Operation:
        """Begin an operation whose work somebody else does, who ends it with `succeed`, `fail` or `cancelled`."""
        row, _ = self.store.insert(self._new(method, request, metadata, request_id, resource, caller, external=True))
        return row.to_proto()

    def _new(
        self,
        method: str,
        request: Message,
        metadata: Message,
        request_id: str,
        resource: str,
        caller: str | None,
        *,
        external: bool = False,
        cleanup: Sequence[str] = (),
        deadline: timedelta | None = None,
    ) -> NewOperation:
        serialised = request.SerializeToString(deterministic=True)
        return NewOperation(
            id=new_operation_id(self.service),
            service=self.service,
            method=method,
            caller=current_caller() if caller is None else caller,
            request_id=request_id or f"none-{uuid.uuid4()}",
            request_digest=hashlib.sha256(serialised).hexdigest(),
            request=serialised,
            resource=resource,
            external=external,
            metadata=pack(metadata),
            cleanup=cleanup,
            deadline_seconds=None if deadline is None else deadline.total_seconds(),
            lease_owner=self.owner,
            lease_seconds=self.reconciler.lease_seconds,
            state=State.RUNNING if external else State.QUEUED,
            traceparent=tracing.traceparent(),
        )

    # Looking.

    def get(self, name: str) -> operations_pb2.Operation:
        """Give an operation with its newest metadata.

        Raises
        ------
        NotFound
            ``OPERATION_NOT_FOUND``: none of that name in this service.
        """
        return self.fresh(self.row(name))

    def row(self, name: str) -> OperationRow:
        """Give an operation's row by its resource name or id."""
        row = self.store.get(operation_id(name))
        if row.service != self.service:
            raise NotFound(f"there is no {operation_name(row.id)} in {self.service}", reason="OPERATION_NOT_FOUND")
        return row

    def fresh(self, row: OperationRow) -> operations_pb2.Operation:
        """Give a row's operation with the metadata that the job wrote last."""
        if row.done or row.external:
            return row.to_proto()
        return row.to_proto(self.reconciler.read_progress(row))

    def refuse_being_made(self, resource: str, reason: str) -> None:
        """Refuse while an operation makes a resource, ``models/{id}`` and the like.

        Raises
        ------
        FailedPrecondition
            With this reason, and the operation's name in its metadata.
        """
        live = self.live(resource)
        if live:
            raise FailedPrecondition(
                f"{resource} is being made by operations/{live[0].id}: wait for it or cancel it, then delete",
                reason=reason,
                metadata={"operation": f"operations/{live[0].id}"},
            )

    def live(self, resource: str) -> list[OperationRow]:
        """Give this service's operations on a resource that have not ended, oldest first."""
        return self.store.live(resource, self.service)

    def unfinished(self) -> list[OperationRow]:
        """Give this service's operations that have not ended, oldest first: what a restarted service takes up again."""
        return self.store.unfinished(self.service)

    def find_request(self, method: str, request_id: str, caller: str | None = None) -> operations_pb2.Operation | None:
        """Give the operation that a call with this `request_id` began before, if there is one."""
        row = self.store.find_request(self.service, method, current_caller() if caller is None else caller, request_id)
        return None if row is None else self.fresh(row)

    # External operations.

    def update(self, name: str, metadata: Message) -> bool:
        """Replace a live operation's metadata; False where it has ended."""
        return self.store.change(operation_id(name), metadata=pack(metadata)) is not None

    def succeed(self, name: str, response: Message) -> bool:
        """End an external operation with its response; False where it had ended already."""
        return self.store.change(operation_id(name), state=State.SUCCEEDED, response=pack(response)) is not None

    def fail(self, name: str, error: OteoError | status_pb2.Status) -> bool:
        """End an external operation with an error; False where it had ended already."""
        status = error if isinstance(error, status_pb2.Status) else error.to_status()
        return self.store.change(operation_id(name), state=State.FAILED, error=status.SerializeToString()) is not None

    def cancelled(self, name: str) -> bool:
        """End an external operation that was asked to stop; False where it had ended already."""
        error = Cancelled("the operation was cancelled", reason="OPERATION_CANCELLED").to_status()
        return self.store.change(operation_id(name), state=State.CANCELLED, error=error.SerializeToString()) is not None

    def cancel_requested(self, name: str) -> bool:
        """Say whether an operation was asked to stop."""
        return self.store.get(operation_id(name)).cancel_time is not None

    # Ending.

    def cancel(self, name: str) -> None:
        """Ask for an operation's end; nothing happens where it has ended.

        Raises
        ------
        NotFound
            ``OPERATION_NOT_FOUND``.
        """
        row = self.row(name)
        asked = None if row.done else self.store.cancel(row.id, self.owner, self.reconciler.lease_seconds)
        if asked is None:
            return
        _LOG.info("operation is to stop", operation=row.id)
        if not asked.external:
            self._pool.submit(self.reconciler.advance, row.id)
        elif self.on_cancel is not None:
            self._pool.submit(self.on_cancel, asked)

    def delete(self, name: str) -> None:
        """Delete an operation that has ended, with all that it left; what it published stays.

        Raises
        ------
        NotFound
            ``OPERATION_NOT_FOUND``.
        FailedPrecondition
            ``OPERATION_NOT_DONE``.
        """
        row = self.row(name)
        if not row.done:
            raise FailedPrecondition(f"{operation_name(row.id)} has not ended: cancel it first", reason="OPERATION_NOT_DONE", field="name")
        self.artifacts.delete(files.folder(row.id))
        self.store.delete(row.id)

    # Reconciling.

    def reconcile_once(self) -> None:
        """Compare all operations of this service that nobody else holds with their jobs, and mend."""
        self.reconciler.once()

    def run_reconciler(self, stop_event: threading.Event) -> None:
        """Reconcile every `settings.reconcile_seconds` until the event is set; blocks. Then let go of the leases."""
        while not stop_event.is_set():
            try:
                self.reconcile_once()
            except Exception:  # noqa: BLE001 (the loop outlives whatever is wrong)
                # The database or the store is away: the next turn tries again, for ever.
                _LOG.exception("reconciling failed")
            stop_event.wait(self._settings.reconcile_seconds)
        try:
            self.store.release(self.owner)
        except OteoError:
            _LOG.warning("the leases could not be released; they run out by themselves")

    def start_reconciler(self) -> None:
        """Run the reconciler in a thread of its own."""
        if self._thread is None:
            self._stop.clear()
            self._thread = threading.Thread(target=self.run_reconciler, args=(self._stop,), name="reconciler", daemon=True)
            self._thread.start()

    def stop_reconciler(self) -> None:
        """End the thread that `start_reconciler` began."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=15.0)
            self._thread = None

    def close(self) -> None:
        """Stop reconciling and the threads; jobs go on."""
        self.stop_reconciler()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def servicer(self) -> OperationsServicer:
        """Give the servicer of ``google.longrunning.Operations``."""
        from oteo_core.operations.servicer import OperationsServicer

        return OperationsServicer(self)


def current_caller() -> str:
    """Give the caller of the call that is being answered; empty outside calls."""
    return call_context.current().caller
