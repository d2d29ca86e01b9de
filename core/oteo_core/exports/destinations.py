"""Where an export ends up: written beside the place, and renamed into it when all is there."""

from __future__ import annotations

import errno
import json
import os
import shutil
import urllib.parse
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from oteo_core.artifacts import ArtifactStore, split_uri
from oteo_core.errors import FailedPrecondition, InvalidArgument, OteoError
from oteo_core.exports.kinds import archive_kind
from oteo_core.exports.sinks import ARCHIVES, FolderSink, Sink, StoreSink

FIELD = "destination_uri"
EXPORTS = "exports"
"""Folder of the artifact store for exports without a destination."""
_PREFIX = ".oteo-export-"


@dataclass(frozen=True)
class Memory:
    """What an export keeps for its next attempt: `load` and `save` small notes by name, atomically."""

    load: Callable[[str], bytes | None]
    save: Callable[[str, bytes], None]


class Destination(ABC):
    """A place outside the artifact store. `key` names the export, the same in all its attempts."""

    uri: str
    """As a caller is told."""

    @abstractmethod
    def refuse_if_taken(self) -> None:
        """Refuse a place where something is already.

        Raises
        ------
        FailedPrecondition
            DESTINATION_NOT_EMPTY.
        """

    @abstractmethod
    def published(self, memory: Memory) -> bool:
        """Tell whether an earlier attempt got as far as publishing."""

    @abstractmethod
    def open(self, key: str, memory: Memory, scratch: Path) -> Sink:
        """Open a sink; what an earlier attempt left unfinished goes first."""

    @abstractmethod
    def publish(self, memory: Memory) -> None:
        """Give what was written its final name; the sink is closed."""

    @abstractmethod
    def abandon(self) -> None:
        """Take back what has no final name yet."""


class LocalDestination(Destination):
    """A folder or an archive of this machine.

    All is written beside the place under a name that begins with a dot. Before it is renamed, the number by which the file system knows it is noted:
    an attempt that was killed just after the renaming is recognised by it.
    """

    def __init__(self, place: Path) -> None:
        self._place = place
        self._kind = place.suffix.lower() if place.suffix.lower() in ARCHIVES else ""
        self._temporary: Path | None = None
        self.uri = str(place)

    def refuse_if_taken(self) -> None:
        """Refuse a folder that holds anything, and a file where none may be."""
        try:
            free = not os.path.lexists(self._place) or (not self._kind and self._place.is_dir() and not any(self._place.iterdir()))
        except PermissionError as exc:
            raise FailedPrecondition(f"{self.uri} cannot be looked into: {exc.strerror}", reason="READ_ONLY_TARGET", field=FIELD) from exc
        if not free:
            raise _taken(self.uri)

    def published(self, memory: Memory) -> bool:
        """Tell whether what lies at the place is what an earlier attempt made."""
        noted = memory.load("commit.json")
        try:
            return noted is not None and json.loads(noted) == _identity(self._place)
        except FileNotFoundError:
            return False

    def open(self, key: str, memory: Memory, scratch: Path) -> Sink:
        """Open a folder or an archive beside the place."""
        self.refuse_if_taken()
        folder = self._place.parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as exc:
            raise InvalidArgument(
                f"{folder} is no folder, so nothing can be written there", reason="BAD_DESTINATION_URI", field=FIELD
            ) from exc
        # An attempt that was killed, or one that has lost its lease and is about to notice.
        for left in folder.glob(f"{_PREFIX}{key}-*"):
            _remove(left)
        temporary = folder / f"{_PREFIX}{key}-{uuid.uuid4().hex[:8]}"
        self._temporary = temporary
        return ARCHIVES[self._kind](temporary) if self._kind else FolderSink(temporary)

    def publish(self, memory: Memory) -> None:
        """Rename; a folder or file that has come meanwhile is not overwritten."""
        assert self._temporary is not None
        memory.save("commit.json", json.dumps(_identity(self._temporary)).encode())
        try:
            if self._kind:
                _rename_file(self._temporary, self._place)
            else:
                # Onto an empty folder the system renames, onto any other it refuses.
                self._temporary.rename(self._place)
        except OSError as exc:
            if exc.errno in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                raise _taken(self.uri) from exc
            raise
        self._temporary = None
        descriptor = os.open(self._place.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def abandon(self) -> None:
        """Remove the unfinished folder or archive."""
        if self._temporary is not None:
            _remove(self._temporary)


class RemoteDestination(Destination):
    """A folder or an archive on any file system of fsspec.

    An archive is made on this machine and sent whole. A folder's objects are written one by one, each atomically: such stores rename nothing. An
    attempt after a kill writes the same objects again.
    """

    def __init__(self, uri: str, store: ArtifactStore, path: str) -> None:
        self._store, self._path = store, path
        self._kind = next((ending for ending in ARCHIVES if path.lower().endswith(ending)), "")
        self._local: Path | None = None
        self.uri = uri

    def refuse_if_taken(self) -> None:
        """Refuse a place where objects are."""
        if self._store.exists(self._path):
            raise _taken(self.uri)

    def published(self, memory: Memory) -> bool:
        """Never: the last word of an attempt is its answer."""
        return False

    def open(self, key: str, memory: Memory, scratch: Path) -> Sink:
        """Open the place; what lies there is this export's own if an earlier attempt has begun to write."""
        if memory.load("begun") is None:
            self.refuse_if_taken()
            memory.save("begun", b"")
        if not self._kind:
            return StoreSink(self._store, self._path)
        self._local = scratch / f"export{self._kind}"
        return ARCHIVES[self._kind](self._local)

    def publish(self, memory: Memory) -> None:
        """Send the archive."""
        if self._local is not None:
            self._store.put_file(self._local, self._path)

    def abandon(self) -> None:
        """Leave what is there: it may be the next attempt's beginning, and nothing of others is deleted."""


def parse(uri: str, artifacts: ArtifactStore) -> Destination:
    """Give the destination that a URI names.

    Parameters
    ----------
    uri
        A local path, absolute, or any fsspec URI; ".zip" and ".tar" name archives.
    artifacts
        The artifact store, into which nobody may write by hand.

    Raises
    ------
    InvalidArgument
        BAD_DESTINATION_URI, UNSUPPORTED_FORMAT for another kind of archive.
    FailedPrecondition
        DESTINATION_IN_STORE.
    """
    if archive_kind(uri.rstrip("/")) and not uri.rstrip("/").lower().endswith(tuple(ARCHIVES)):
        raise InvalidArgument(f"archives are written as {' or '.join(ARCHIVES)}, not as {uri}", reason="UNSUPPORTED_FORMAT", field=FIELD)
    if "://" not in uri or uri.startswith("file://"):
        place = Path(urllib.parse.unquote(uri.removeprefix("file://")) if uri.startswith("file://") else uri).expanduser()
        if not place.is_absolute() or "\0" in uri:
            raise InvalidArgument(
                f"{uri!r} is not an absolute path: it is the service that writes, in a folder of its own",
                reason="BAD_DESTINATION_URI",
                field=FIELD,
            )
        place = Path(os.path.normpath(place))
        if artifacts.root_uri.startswith("file://"):
            root = Path(artifacts.root_uri.removeprefix("file://")).resolve()
            if place.resolve() == root or root in place.resolve().parents:
                raise _in_store(uri)
        return LocalDestination(place)
    if f"{uri.rstrip('/')}/".startswith(f"{artifacts.root_uri}/"):
        raise _in_store(uri)
    try:
        store, path = split_uri(uri)
        if not path:
            raise InvalidArgument("it is the root of a file system; name a folder below it")
    except OteoError as exc:
        raise InvalidArgument(f"{uri!r} cannot be written to: {exc.message}", reason="BAD_DESTINATION_URI", field=FIELD) from exc
    return RemoteDestination(uri, store, path)


def _taken(uri: str) -> FailedPrecondition:
    return FailedPrecondition(
        f"there is something at {uri} already, and nothing is overwritten: name a new place or an empty folder",
        reason="DESTINATION_NOT_EMPTY",
        field=FIELD,
    )


def _in_store(uri: str) -> FailedPrecondition:
    return FailedPrecondition(
        f"{uri} lies in the artifact store, which the services alone write to; leave the destination empty to have the export in {EXPORTS}/",
        reason="DESTINATION_IN_STORE",
        field=FIELD,
    )


def _identity(place: Path) -> list[int]:
    status = place.stat()
    return [status.st_dev, status.st_ino]


def _rename_file(source: Path, goal: Path) -> None:
    try:
        # A second name, which fails where the goal exists; a renaming would overwrite it.
        os.link(source, goal)
    except OSError as exc:
        if exc.errno not in (errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS):
            raise
        if goal.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(goal)) from exc
        source.rename(goal)
    else:
        source.unlink()


def _remove(place: Path) -> None:
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place, ignore_errors=True)
    else:
        place.unlink(missing_ok=True)
