"""Where files go while an export runs: a folder, an archive, or a store of objects. Nothing of it is final."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
import zipfile
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import IO, Protocol

from oteo_core.artifacts import ArtifactStore

_LONG_AGO = (1980, 1, 1, 0, 0, 0)
"""The time that archives give their members, the same in every run: zip knows no earlier one."""
_BLOCK = 1 << 20


class Sink(ABC):
    """Takes files by their paths; each path once."""

    @abstractmethod
    def write(self, path: str, data: bytes) -> None:
        """Write a file from memory."""

    @abstractmethod
    def put(self, path: str, source: Path) -> int:
        """Write a file of any size from a local one; give its bytes."""

    @abstractmethod
    def close(self) -> None:
        """Finish what was begun."""

    def __enter__(self) -> Sink:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class FolderSink(Sink):
    """A local folder.

    Straight system calls: the folder has a temporary name until all is there, so that its files need no renaming of their own.
    """

    def __init__(self, root: Path) -> None:
        self._root = str(root)
        self._made: set[str] = set()
        os.makedirs(self._root, exist_ok=True)

    def write(self, path: str, data: bytes) -> None:
        """Write a file from memory."""
        descriptor = self._open(path)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
        finally:
            os.close(descriptor)

    def put(self, path: str, source: Path) -> int:
        """Copy a file within the kernel."""
        with open(source, "rb", buffering=0) as stream:
            descriptor = self._open(path)
            size = 0
            try:
                while sent := os.sendfile(descriptor, stream.fileno(), None, _BLOCK * 64):
                    size += sent
            finally:
                os.close(descriptor)
        return size

    def close(self) -> None:
        """Nothing is left open."""

    def _open(self, path: str) -> int:
        folder = path.rpartition("/")[0]
        if folder not in self._made:
            os.makedirs(f"{self._root}/{folder}", exist_ok=True)
            self._made.add(folder)
        return os.open(f"{self._root}/{path}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)


class StoreSink(Sink):
    """Objects below a prefix of a store; a second run writes the same objects again."""

    def __init__(self, store: ArtifactStore, prefix: str) -> None:
        self._store, self._prefix = store, prefix

    def write(self, path: str, data: bytes) -> None:
        """Write an object."""
        self._store.write_bytes(f"{self._prefix}/{path}" if self._prefix else path, data)

    def put(self, path: str, source: Path) -> int:
        """Send a local file."""
        self._store.put_file(source, f"{self._prefix}/{path}" if self._prefix else path)
        return source.stat().st_size

    def close(self) -> None:
        """Nothing is left open."""


class ZipSink(Sink):
    """A zip archive: images are stored as they are, everything else is deflated."""

    def __init__(self, place: Path) -> None:
        self._file = open(place, "xb")  # noqa: SIM115 (closed by `close`)
        self._zip = zipfile.ZipFile(self._file, "w", allowZip64=True)

    def write(self, path: str, data: bytes) -> None:
        """Add a member."""
        self._zip.writestr(self._member(path), data)

    def put(self, path: str, source: Path) -> int:
        """Add a member from a file, block by block."""
        member = self._member(path)
        member.file_size = source.stat().st_size
        with source.open("rb") as stream, self._zip.open(member, "w") as goal:
            shutil.copyfileobj(stream, goal, _BLOCK)
        return member.file_size

    def close(self) -> None:
        """Write the directory and flush all to the disk."""
        try:
            self._zip.close()
            self._file.flush()
            os.fsync(self._file.fileno())
        finally:
            self._file.close()

    def _member(self, path: str) -> zipfile.ZipInfo:
        member = zipfile.ZipInfo(path, _LONG_AGO)
        text = path.endswith((".json", ".txt", ".xml", ".yaml", ".csv"))
        member.compress_type = zipfile.ZIP_DEFLATED if text else zipfile.ZIP_STORED
        member.external_attr = 0o644 << 16
        return member


class TarSink(Sink):
    """A plain tar archive."""

    def __init__(self, place: Path) -> None:
        self._file = open(place, "xb")  # noqa: SIM115 (closed by `close`)
        self._tar = tarfile.open(fileobj=self._file, mode="w", format=tarfile.PAX_FORMAT)  # noqa: SIM115

    def write(self, path: str, data: bytes) -> None:
        """Add a member."""
        self._add(path, len(data), io.BytesIO(data))

    def put(self, path: str, source: Path) -> int:
        """Add a member from a file."""
        size = source.stat().st_size
        with source.open("rb") as stream:
            self._add(path, size, stream)
        return size

    def _add(self, path: str, size: int, stream: IO[bytes]) -> None:
        member = tarfile.TarInfo(path)
        member.size, member.mode = size, 0o644
        self._tar.addfile(member, stream)
        # The library keeps every member for readers; a writer needs none, and there may be a million.
        self._tar.members = []  # type: ignore[attr-defined]

    def close(self) -> None:
        """Write the end and flush all to the disk."""
        try:
            self._tar.close()
            self._file.flush()
            os.fsync(self._file.fileno())
        finally:
            self._file.close()


class Closable(Protocol):
    """What opens sinks by the archive's kind."""

    def __call__(self, place: Path) -> Sink:
        """Open a sink for an archive at `place`."""


ARCHIVES: dict[str, Closable] = {".zip": ZipSink, ".tar": TarSink}
"""Sinks by the archive's ending."""
