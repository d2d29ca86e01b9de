"""What a job's code is given."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Generic, TypeVar

from google.protobuf import any_pb2
from google.protobuf.message import Message

from oteo_core.artifacts import ArtifactStore, check_path, join
from oteo_core.errors import AlreadyExists, DeadlineExceeded, NotFound
from oteo_core.jobs import files
from oteo_core.jobs.executor import Executor, InlineExecutor, ProcessExecutor
from oteo_core.jobs.resources import Placing
from oteo_core.jobs.watch import JobStopped, StopCause, Watch
from oteo_core.settings import CoreSettings
from oteo_protos.type.v1 import report_pb2

HEARTBEAT_SECONDS = 2.0
"""How often the progress file is rewritten while nothing new is to be said."""

_Request = TypeVar("_Request", bound=Message)
_Metadata = TypeVar("_Metadata", bound=Message)


class JobContext(Generic[_Request, _Metadata]):
    """One attempt of one operation, as its code sees it.

    Everything a job leaves for its next attempt goes through `save`; everything it leaves for others through `staging` and
    `publish`. Safe to use from several threads.
    """

    operation_id: str
    attempt: int
    """From 1; more after a crash."""
    request: _Request
    metadata: _Metadata
    """Change its fields, then call `progress`."""
    artifacts: ArtifactStore
    settings: Any
    """The service's settings."""
    scratch: Path
    """Local temporary folder, emptied at the end."""
    deadline: datetime | None
    """When the work must have ended, in UTC; None for no limit."""

    def __init__(
        self,
        *,
        operation_id: str,
        attempt: files.Attempt,
        request: _Request,
        metadata: _Metadata,
        artifacts: ArtifactStore,
        settings: CoreSettings,
        scratch: Path,
    ) -> None:
        self.operation_id = operation_id
        self.attempt = attempt.number
        self.request = request
        self.metadata = metadata
        self.artifacts = artifacts
        self.settings = settings
        self.scratch = scratch
        self.deadline = attempt.deadline_time
        self.caller = attempt.caller
        """Who asked for the work."""
        self.create_time = datetime.fromtimestamp(attempt.create_time, UTC)
        """When the work was asked for."""
        self.placing = Placing.from_environment(os.environ)
        """What this process was submitted with; None where its method asks for nothing."""
        self.watch: Watch | None = None
        self._folder = files.folder(operation_id)
        self._lock = threading.RLock()
        self._fraction = 0.0
        self._changed = True
        self._written = float("-inf")
        self._snapshot = type(metadata)()
        progress = self._progress()
        progress.state = report_pb2.Progress.STATE_RUNNING
        progress.attempt = attempt.number
        progress.fraction = 0.0
        self._snapshot.CopyFrom(metadata)

    @property
    def staging(self) -> str:
        """Artifact prefix for files to be published. What an earlier attempt put there is still there."""
        return f"{self._folder}/{files.STAGING}"

    def _progress(self) -> report_pb2.Progress:
        progress: report_pb2.Progress = getattr(self.metadata, "progress")  # noqa: B009 (field 1 of every metadata message)
        return progress

    def progress(
        self,
        fraction: float,
        stage: str | None = None,
        message: str | None = None,
        predicted_end: datetime | None = None,
    ) -> None:
        """Say how far the work is; also takes over what was changed in `metadata`.

        Cheap enough for every turn of a loop: a thread writes the last word once a second.

        Parameters
        ----------
        fraction
            Share that is done, 0 to 1; a smaller one than before is taken as the one before.
        stage
            What is done now, in a few words; as before with None.
        message
            A sentence for a person; as before with None.
        predicted_end
            When it is expected to end (aware); as before with None.
        """
        with self._lock:
            self._fraction = max(self._fraction, min(1.0, max(0.0, fraction)))
            progress = self._progress()
            progress.fraction = self._fraction
            if stage is not None:
                progress.stage = stage
            if message is not None:
                progress.message = message
            if predicted_end is not None:
                progress.predicted_end_time.FromDatetime(predicted_end.astimezone(UTC))
            self._snapshot.CopyFrom(self.metadata)
            self._changed = True

    def flush(self, *, force: bool = True) -> None:
        """Write progress; without `force` only what is new and a second old, or the heartbeat that is due."""
        with self._lock:
            age = time.monotonic() - self._written
            if not force and not (self._changed and age >= 1.0) and age < HEARTBEAT_SECONDS:
                return
            self._changed = False
            self._written = time.monotonic()
            progress: report_pb2.Progress = getattr(self._snapshot, "progress")  # noqa: B009
            progress.update_time.GetCurrentTime()
            packed = any_pb2.Any()
            packed.Pack(self._snapshot)
        self.artifacts.write_bytes(f"{self._folder}/{files.PROGRESS}", packed.SerializeToString())

    def check(self) -> None:
        """Return where the job may go on; costs next to nothing.

        Raises
        ------
        JobStopped
            It was cancelled, or another attempt has taken over.
        DeadlineExceeded
            ``OPERATION_DEADLINE``: its time is up.
        """
        if self.deadline is not None and datetime.now(UTC) > self.deadline:
            raise self.deadline_error()
        if self.watch is not None:
            try:
                self.watch.check()
            except JobStopped as stop:
                if stop.cause is StopCause.DEADLINE:
                    raise self.deadline_error() from stop
                raise

    def deadline_error(self) -> DeadlineExceeded:
        """Give the error of a job whose time is up."""
        return DeadlineExceeded("the operation's deadline has passed before its work was done", reason="OPERATION_DEADLINE")

    def save(self, name: str, data: bytes) -> None:
        """Keep a checkpoint for the next attempt, atomically.

        Raises
        ------
        JobStopped
            The job is to stop: what it would write might belong to another attempt.
        """
        self.check()
        self.artifacts.write_bytes(self._checkpoint(name), data)

    def load(self, name: str) -> bytes | None:
        """Give a checkpoint, or None where there is none of that name."""
        try:
            return self.artifacts.read_bytes(self._checkpoint(name))
        except NotFound:
            return None

    def saved(self, prefix: str = "") -> list[str]:
        """Give the names of all checkpoints that begin with `prefix`, sorted."""
        top = f"{self._folder}/{files.CHECKPOINTS}"
        names = (entry.path.removeprefix(f"{top}/") for entry in self.artifacts.iter(top))
        return sorted(name for name in names if name.startswith(prefix))

    def discard(self, name: str) -> None:
        """Delete a checkpoint that no attempt will need any more; nothing happens where there is none."""
        self.artifacts.delete(self._checkpoint(name))

    def _checkpoint(self, name: str) -> str:
        return f"{self._folder}/{files.CHECKPOINTS}/{check_path(name)}"

    def publish(self, target: str, manifest: str, *, subdir: str = "") -> None:
        """Make what lies in `staging` visible at `target`, all at once: the manifest is written last and is the commit.

        Where the target's manifest is there already and this operation published it (a rerun after the commit), it is left as
        it is and the staging is deleted.

        Parameters
        ----------
        target
            Artifact prefix, such as ``datasets/blood``.
        manifest
            Path of the manifest in it.
        subdir
            Folder of the staging to publish; all of it without one.

        Raises
        ------
        JobStopped
            The job is to stop, asked of the store itself.
        AlreadyExists
            ``TARGET_EXISTS``: somebody else published there.
        NotFound
            ``ARTIFACT_NOT_FOUND``: the manifest is not in the staging.
        """
        self.check()
        source = join(self.staging, subdir)
        record = f"{self._folder}/{files.Publication(target, manifest, '').name}"
        present = self._digest(f"{target}/{manifest}")
        if present is not None:
            try:
                earlier = files.Publication.from_json(self.artifacts.read_bytes(record))
            except NotFound:
                earlier = None
            if earlier is None or earlier.digest != present:
                raise AlreadyExists(f"{target} is there already", reason="TARGET_EXISTS", metadata={"target": target})
            self.artifacts.delete(source)
            return
        staged = self._digest(f"{source}/{manifest}")
        if staged is None:
            raise NotFound(f"{manifest} is not among the files to be published at {target}", reason="ARTIFACT_NOT_FOUND")
        # Written before the first file moves, so that a half-published target is known and can be removed.
        self.artifacts.write_bytes(record, files.Publication(target, manifest, staged).to_json())
        if self.watch is not None:
            self.watch.check_now()
        self.artifacts.publish(source, target, manifest)

    def _digest(self, path: str) -> str | None:
        try:
            return hashlib.sha256(self.artifacts.read_bytes(path)).hexdigest()
        except NotFound:
            return None

    def executor(self, kind: str | None = None) -> Executor:
        """Give what tasks are handed to; use it as a context manager.

        Parameters
        ----------
        kind
            ``"ray"``, ``"process"`` or ``"inline"``; the environment variable ``OTEO_EXECUTOR`` without it, else Ray.
        """
        chosen = kind or os.environ.get("OTEO_EXECUTOR") or "ray"
        if chosen == "inline":
            return InlineExecutor()
        if chosen == "process":
            return ProcessExecutor()
        from oteo_core.jobs.ray_executor import RayExecutor

        return RayExecutor()
