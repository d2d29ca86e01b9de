"""The main function of a service's jobs: ``python -m oteo_x.job OPERATION_ID ATTEMPT``."""

from __future__ import annotations

import os
import shutil
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NoReturn, TypeVar

import structlog
from google.protobuf import any_pb2
from google.protobuf.message import Message
from google.rpc import status_pb2

from oteo_core import tracing
from oteo_core.artifacts import ArtifactStore, open_store
from oteo_core.errors import Internal, NotFound, OteoError, ResourceExhausted, Unavailable, from_exception
from oteo_core.jobs import files
from oteo_core.jobs.context import JobContext
from oteo_core.jobs.scratch import open_scratch
from oteo_core.jobs.watch import STOPPED_STATUS, JobStopped, StopCause, Watch, end_children
from oteo_core.settings import CoreSettings
from oteo_core.telemetry import configure_logging

_LOG = structlog.get_logger(__name__)
_Request = TypeVar("_Request", bound=Message)
_Metadata = TypeVar("_Metadata", bound=Message)
_CRASHED = 1


@dataclass(frozen=True)
class JobHandler(Generic[_Request, _Metadata]):
    """What does the work of one method.

    Parameters
    ----------
    request_type
        Message class of the request.
    metadata_type
        Message class of the operation's metadata; its field ``progress`` is `oteo.type.v1.Progress`.
    run
        The work: takes the context, gives the response. It may be killed anywhere and run again. An `OteoError` other than
        `Unavailable` ends the operation; anything else that it raises is tried again, and given up when it happens twice in
        a row at the same place.
    """

    request_type: type[_Request]
    metadata_type: type[_Metadata]
    run: Callable[[JobContext[_Request, _Metadata]], Message]


def run_job(
    settings_class: type[CoreSettings], handlers: Mapping[str, JobHandler[Any, Any]], arguments: Sequence[str] | None = None
) -> NoReturn:
    """Run the job that the command line names, then end the process.

    Parameters
    ----------
    settings_class
        The service's settings, read from the environment.
    handlers
        By method name, such as ``"ImportDataset"``.
    arguments
        Operation id and attempt; the command line's without them.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if len(given) != 2 or not given[1].isdigit():
        print("usage: python -m oteo_<service>.job OPERATION_ID ATTEMPT", file=sys.stderr)
        sys.exit(2)
    settings = settings_class()
    configure_logging(settings, "job")
    # An operation's id begins with its service.
    tracing.configure_tracing(settings, f"{given[0].partition('-')[0]}-job")
    status = execute(given[0], int(given[1]), settings, open_store(settings), handlers)
    tracing.end_tracing()
    sys.stdout.flush()
    sys.stderr.flush()
    end_children()
    # Not sys.exit: libraries' threads and exit handlers must not keep a finished job alive.
    os._exit(status)


def execute(
    operation_id: str,
    number: int,
    settings: CoreSettings,
    artifacts: ArtifactStore,
    handlers: Mapping[str, JobHandler[Any, Any]],
    *,
    signals: bool = True,
) -> int:
    """Run one attempt in this process; give its exit status.

    0: there is a result, or an error that is final. 1: it crashed, to be tried again. 143: it was stopped.
    """
    folder = files.folder(operation_id)
    try:
        attempt = files.Attempt.from_json(artifacts.read_bytes(f"{folder}/{files.ATTEMPT}"))
    except NotFound:
        _LOG.warning("the operation is gone; nothing is done", operation=operation_id)
        return STOPPED_STATUS
    if attempt.number != number or artifacts.is_file(f"{folder}/{files.CANCEL}"):
        _LOG.warning("the attempt is out of date; nothing is done", operation=operation_id, attempt=number, current=attempt.number)
        return STOPPED_STATUS
    if artifacts.is_file(f"{folder}/{files.RESULT}") or artifacts.is_file(f"{folder}/{files.ERROR}"):
        return 0
    handler = handlers.get(attempt.method)
    if handler is None:
        _finish_with(artifacts, folder, Internal(f"this service has no job for {attempt.method}", reason="UNKNOWN_METHOD"))
        return 0
    context = JobContext(
        operation_id=operation_id,
        attempt=attempt,
        request=handler.request_type.FromString(artifacts.read_bytes(f"{folder}/{files.REQUEST}")),
        metadata=_metadata(handler, artifacts, folder),
        artifacts=artifacts,
        settings=settings,
        scratch=open_scratch(operation_id, number),
    )

    def ended(cause: StopCause) -> None:
        if cause is StopCause.DEADLINE:
            _finish_with(artifacts, folder, context.deadline_error())
        shutil.rmtree(context.scratch, ignore_errors=True)

    context.watch = Watch(
        artifacts,
        operation_id,
        number,
        deadline=attempt.deadline,
        on_tick=lambda: context.flush(force=False),
        on_exit=ended,
    )
    context.watch.start(signals=signals)
    try:
        with tracing.working(f"job {attempt.method}", os.environ, {"oteo.operation": operation_id, "oteo.attempt": number}) as entry:
            if entry.here is not None:
                structlog.contextvars.bind_contextvars(trace_id=entry.here.trace_id)
            return _run(handler, context, attempt, folder)
    finally:
        context.watch.finish()
        shutil.rmtree(context.scratch, ignore_errors=True)


def _run(handler: JobHandler[Any, Any], context: JobContext[Any, Any], attempt: files.Attempt, folder: str) -> int:
    artifacts, watch = context.artifacts, context.watch
    log = _LOG.bind(operation=context.operation_id, attempt=attempt.number, method=attempt.method)
    log.info("the job begins")
    try:
        context.flush()
        response = handler.run(context)
        if watch is not None:
            watch.check_now()
        context.flush()
        packed = any_pb2.Any()
        packed.Pack(response)
        if watch is not None:
            # From here on the operation may be ended by the service at any moment, which the watch would take for a loss.
            watch.finish()
        artifacts.write_bytes(f"{folder}/{files.RESULT}", packed.SerializeToString())
        log.info("the job has a result")
    except JobStopped as stop:
        log.warning("the job stops", cause=stop.cause.value)
        return STOPPED_STATUS
    except Exception as error:  # noqa: BLE001 (whatever the work raises is written down, so that the operation can say it)
        return _failed(error, context, attempt, folder)
    return 0


def _failed(error: Exception, context: JobContext[Any, Any], attempt: files.Attempt, folder: str) -> int:
    traceback.print_exc()
    meaning = from_exception(error)
    known = isinstance(error, OteoError) or type(meaning) is not Internal
    transient = isinstance(meaning, Unavailable) or isinstance(error, MemoryError)
    stopping = context.watch is not None and context.watch.stopping.is_set()
    if stopping and not known:
        # Its tasks were cut off under it: that is no fault of the work.
        return STOPPED_STATUS
    if known and not transient:
        _finish_with(context.artifacts, folder, meaning)
        return 0
    if attempt.number >= attempt.limit and known:
        _finish_with(context.artifacts, folder, meaning)
        return 0
    frame = traceback.extract_tb(error.__traceback__)[-1]
    crash = files.Crash(
        message=meaning.message if known else f"{type(error).__name__}: {error}",
        place=f"{type(error).__name__} at {frame.filename}:{frame.lineno}",
        transient=transient,
    )
    context.artifacts.write_bytes(files.crash_path(context.operation_id, attempt.number), crash.to_json())
    return _CRASHED


def _finish_with(artifacts: ArtifactStore, folder: str, error: OteoError) -> None:
    status: status_pb2.Status = error.to_status()
    try:
        artifacts.write_bytes(f"{folder}/{files.ERROR}", status.SerializeToString())
    except ResourceExhausted:
        # The disk is full, likely of what this job put there. It has failed, so that goes anyway, and makes room to say why.
        artifacts.delete(f"{folder}/{files.STAGING}")
        artifacts.write_bytes(f"{folder}/{files.ERROR}", status.SerializeToString())


def _metadata(handler: JobHandler[Any, Any], artifacts: ArtifactStore, folder: str) -> Message:
    metadata: Message = handler.metadata_type()
    try:
        packed = any_pb2.Any.FromString(artifacts.read_bytes(f"{folder}/{files.PROGRESS}"))
    except NotFound:
        return metadata
    packed.Unpack(metadata)
    return metadata
