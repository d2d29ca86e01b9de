"""Running a handler in a test: the same code path as a job, in this process."""

from __future__ import annotations

import time
from typing import Any

from google.protobuf import any_pb2
from google.protobuf.message import Message
from google.rpc import status_pb2

from oteo_core.artifacts import ArtifactStore
from oteo_core.errors import NotFound, from_status
from oteo_core.jobs import files
from oteo_core.jobs.entry import JobHandler, execute
from oteo_core.operations.ids import new_operation_id
from oteo_core.settings import CoreSettings


def run_handler(
    handler: JobHandler[Any, Any],
    request: Message,
    *,
    settings: CoreSettings,
    artifacts: ArtifactStore,
    operation_id: str | None = None,
    attempt: int = 1,
    deadline: float | None = None,
) -> any_pb2.Any:
    """Run a handler as a job would and give its packed response.

    Set the environment variable ``OTEO_EXECUTOR`` to ``inline`` or ``process`` where the handler fans out and no Ray runs.

    Raises
    ------
    OteoError
        The job ended with this error.
    RuntimeError
        The job crashed or was stopped; its traceback is on standard error.
    """
    identity = operation_id or new_operation_id("test")
    folder = files.folder(identity)
    record = files.Attempt(attempt, 5, "test", "Test", "", time.time(), deadline)
    artifacts.write_bytes(f"{folder}/{files.REQUEST}", request.SerializeToString())
    artifacts.write_bytes(f"{folder}/{files.ATTEMPT}", record.to_json())
    status = execute(identity, attempt, settings, artifacts, {"Test": handler}, signals=False)
    try:
        return any_pb2.Any.FromString(artifacts.read_bytes(f"{folder}/{files.RESULT}"))
    except NotFound:
        pass
    try:
        error = status_pb2.Status.FromString(artifacts.read_bytes(f"{folder}/{files.ERROR}"))
    except NotFound:
        raise RuntimeError(f"the job ended with status {status} and without a result") from None
    raise from_status(error)
