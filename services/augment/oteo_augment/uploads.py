"""Receiving files that a caller sends, in chunks, into the artifact store."""

from __future__ import annotations

import hashlib
import tempfile
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO

from oteo_augment.conversion import UPLOADS
from oteo_core.artifacts import ArtifactStore, check_path
from oteo_core.errors import AlreadyExists, InvalidArgument, OteoError, ResourceExhausted, from_exception
from oteo_core.exports import archive_kind
from oteo_protos.augment.v1 import dataset_pb2

_ABANDONED = timedelta(days=1)
_IN_MEMORY = 4 << 20


class UploadReceiver:
    """Takes uploads, each into a folder of its own.

    Parameters
    ----------
    artifacts
        Where files go.
    max_bytes, max_files
        Of one upload.
    """

    def __init__(self, artifacts: ArtifactStore, *, max_bytes: int, max_files: int) -> None:
        self._artifacts = artifacts
        self._max_bytes = max_bytes
        self._max_files = max_files
        self._lock = threading.Lock()
        self._busy: set[str] = set()

    @staticmethod
    def folder(request_id: str, caller: str) -> str:
        """Give an upload's folder: the same for the same request, so that a replay asks for the same import."""
        if not request_id:
            return f"{UPLOADS}/{uuid.uuid4().hex}"
        return f"{UPLOADS}/{hashlib.sha256(f'{caller}/{request_id}'.encode()).hexdigest()[:32]}"

    @contextmanager
    def receive(self, folder: str, pieces: Iterator[dataset_pb2.UploadDatasetRequest]) -> Iterator[str]:
        """Write all files of a stream; what was written is deleted if the stream or the block within fails.

        Yields
        ------
        str
            The source: URI of the folder, or of the archive if that is all that was sent.

        Raises
        ------
        InvalidArgument
            BAD_UPLOAD for pieces in a wrong order, SIZE_MISMATCH, UNSAFE_PATH, DUPLICATE_FILE, EMPTY_SOURCE.
        ResourceExhausted
            UPLOAD_TOO_LARGE, DISK_FULL.
        AlreadyExists
            UPLOAD_IN_PROGRESS: the same request is being received just now.
        """
        with self._lock:
            if folder in self._busy:
                raise AlreadyExists(
                    "this upload is being received already, on another stream", reason="UPLOAD_IN_PROGRESS", field="settings.request_id"
                )
            self._busy.add(folder)
        try:
            # What an upload of the same request left when the service was killed under it.
            self._artifacts.delete(folder)
            paths = self._write(folder, pieces)
            if len(paths) == 1 and archive_kind(paths[0]):
                yield self._artifacts.uri(f"{folder}/{paths[0]}")
            else:
                yield self._artifacts.uri(folder)
        except BaseException:
            self._artifacts.delete(folder)
            raise
        finally:
            with self._lock:
                self._busy.discard(folder)

    def sweep(self, needed: set[str]) -> None:
        """Delete uploads that no operation needs and nobody has written to for a day."""
        limit = datetime.now(UTC) - _ABANDONED
        for name in self._artifacts.children(UPLOADS):
            folder = f"{UPLOADS}/{name}"
            if folder not in needed and all(entry.modified < limit for entry in self._artifacts.iter(folder)):
                self._artifacts.delete(folder)

    def _write(self, folder: str, pieces: Iterator[dataset_pb2.UploadDatasetRequest]) -> list[str]:
        paths: dict[str, None] = {}
        total = 0
        current: _Incoming | None = None
        try:
            for piece in pieces:
                kind = piece.WhichOneof("payload")
                if kind == "file":
                    if current is not None:
                        current.finish(self._artifacts, folder)
                    path = _clean(piece.file.path)
                    if path in paths:
                        raise InvalidArgument(f"the file {path!r} is sent twice", reason="DUPLICATE_FILE", field="file.path")
                    paths[path] = None
                    if len(paths) > self._max_files:
                        raise ResourceExhausted(f"an upload may hold {self._max_files} files", reason="UPLOAD_TOO_LARGE")
                    current = _Incoming(path, piece.file.size)
                elif kind == "chunk":
                    if current is None:
                        raise InvalidArgument("a chunk came before any file", reason="BAD_UPLOAD", field="chunk")
                    total += len(piece.chunk)
                    if total > self._max_bytes:
                        raise ResourceExhausted(f"an upload may hold {self._max_bytes} bytes", reason="UPLOAD_TOO_LARGE")
                    current.add(piece.chunk)
                else:
                    raise InvalidArgument("the settings come once, first of all", reason="BAD_UPLOAD", field="settings")
            if current is not None:
                current.finish(self._artifacts, folder)
        except OSError as exc:
            raise from_exception(exc) from exc
        finally:
            if current is not None:
                current.close()
        if not paths:
            raise InvalidArgument("no file was sent", reason="EMPTY_SOURCE", field="file")
        return list(paths)


class _Incoming:
    """One file on its way: in memory while it is small, else in a temporary file."""

    def __init__(self, path: str, size: int) -> None:
        self.path = path
        self._size = size
        self._got = 0
        self._file: IO[bytes] = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115 (closed by `close`)

    def add(self, chunk: bytes) -> None:
        self._got += len(chunk)
        if self._got > self._size:
            raise self._mismatch()
        self._file.write(chunk)

    def finish(self, artifacts: ArtifactStore, folder: str) -> None:
        if self._got != self._size:
            raise self._mismatch()
        self._file.seek(0)
        with tempfile.TemporaryDirectory(prefix="oteo-upload-") as scratch:
            # Through a local file: a store takes those as a stream, whatever their size.
            local = Path(scratch) / "file"
            with local.open("wb") as goal:
                while block := self._file.read(1 << 20):
                    goal.write(block)
            artifacts.put_file(local, f"{folder}/{self.path}")
        self.close()

    def close(self) -> None:
        self._file.close()

    def _mismatch(self) -> InvalidArgument:
        return InvalidArgument(
            f"the file {self.path!r} was announced with {self._size} bytes, and {self._got} or more came",
            reason="SIZE_MISMATCH",
            field="file.size",
        )


def _clean(path: str) -> str:
    try:
        clean = check_path(path)
    except OteoError as exc:
        raise InvalidArgument(f"the path {path!r} is not safe: {exc.message}", reason="UNSAFE_PATH", field="file.path") from exc
    if "\\" in path or "\0" in path:
        raise InvalidArgument(f"the path {path!r} is not safe: use '/' between folders", reason="UNSAFE_PATH", field="file.path")
    return clean
