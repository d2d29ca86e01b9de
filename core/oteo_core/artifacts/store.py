"""The store that all parts use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from oteo_core.artifacts.backend import Backend, Entry
from oteo_core.artifacts.localfs import LocalBackend
from oteo_core.artifacts.paths import TEMPORARY_PREFIX, check_path, join
from oteo_core.artifacts.remotefs import RemoteBackend
from oteo_core.errors import InvalidArgument, NotFound, OteoError, from_exception

__all__ = ["ArtifactStore", "Entry", "open_store", "split_uri"]


class ArtifactSettings(Protocol):
    """The settings that name a store."""

    artifacts: str
    artifact_options: dict[str, Any]


class ArtifactStore:
    """Objects under a root URI. All paths are relative to it, "/"-separated and without "..".

    A folder is there when an object is in it; empty folders do not exist. Every write is atomic for its object. Safe to use
    from several threads.

    Parameters
    ----------
    root_uri
        ``file:///folder``, a local path, ``memory://name``, ``s3://bucket/folder`` or any other URI of fsspec.
    **storage_options
        Given to fsspec's file system.

    Raises
    ------
    InvalidArgument
        ``UNKNOWN_SCHEME``: fsspec has no file system for the URI.
    """

    def __init__(self, root_uri: str, **storage_options: Any) -> None:
        local = _local_path(root_uri)
        if local is not None:
            self._backend: Backend = LocalBackend(local)
        else:
            try:
                self._backend = RemoteBackend(root_uri, storage_options)
            except (ValueError, ImportError) as error:
                raise InvalidArgument(f"{root_uri!r} cannot be opened: {error}", reason="UNKNOWN_SCHEME", field="uri") from error
        self.root_uri = self._backend.root_uri
        """The root, as a URI without a trailing slash."""

    def __repr__(self) -> str:
        return f"ArtifactStore({self.root_uri!r})"

    def uri(self, path: str = "") -> str:
        """Give the URI of a path; of the root without one."""
        checked = check_path(path, allow_root=True)
        return f"{self.root_uri}/{checked}" if checked else self.root_uri

    def exists(self, path: str) -> bool:
        """Say whether there is an object of this path, or a folder with at least one object in it."""
        checked = check_path(path, allow_root=True)
        with _translated(self.uri(checked)):
            return (bool(checked) and self._backend.is_file(checked)) or any(True for _ in self._backend.iterate(checked))

    def is_file(self, path: str) -> bool:
        """Say whether there is an object of exactly this path."""
        checked = check_path(path)
        with _translated(self.uri(checked)):
            return self._backend.is_file(checked)

    def read_bytes(self, path: str) -> bytes:
        """Give an object's bytes.

        Raises
        ------
        NotFound
            ``ARTIFACT_NOT_FOUND``: there is none.
        """
        checked = check_path(path)
        with _translated(self.uri(checked)):
            return self._backend.read(checked)

    def write_bytes(self, path: str, data: bytes) -> None:
        """Write an object; a reader sees the old bytes or the new ones, never a part.

        Raises
        ------
        ResourceExhausted
            ``DISK_FULL``.
        FailedPrecondition
            ``READ_ONLY_TARGET``.
        """
        checked = check_path(path)
        with _translated(self.uri(checked)):
            self._backend.write(checked, data)

    def open(self, path: str) -> BinaryIO:
        """Open an object for reading; seekable.

        Raises
        ------
        NotFound
            ``ARTIFACT_NOT_FOUND``: there is none.
        """
        checked = check_path(path)
        with _translated(self.uri(checked)):
            return self._backend.open(checked)

    def put_file(self, local: str | os.PathLike[str], path: str) -> None:
        """Copy a local file into the store; atomic."""
        checked = check_path(path)
        with _translated(self.uri(checked)):
            self._backend.put(Path(local), checked)

    def put_tree(self, local_dir: str | os.PathLike[str], prefix: str) -> None:
        """Copy all regular files below a local folder to `prefix`, in order of their paths; symbolic links are not followed."""
        top = Path(local_dir)
        if not top.is_dir():
            raise NotFound(f"{top} is not a folder", reason="ARTIFACT_NOT_FOUND")
        for file in sorted(file for file in top.rglob("*") if file.is_file() and not file.is_symlink()):
            if not file.name.startswith(TEMPORARY_PREFIX):
                self.put_file(file, join(prefix, file.relative_to(top).as_posix()))

    def get_tree(self, prefix: str, local_dir: str | os.PathLike[str]) -> None:
        """Copy all objects below `prefix` into a local folder, which is made.

        Raises
        ------
        NotFound
            ``ARTIFACT_NOT_FOUND``: nothing is below the prefix.
        """
        top = Path(local_dir)
        checked = check_path(prefix, allow_root=True)
        found = False
        for entry in self.iter(checked):
            found = True
            # A remote store may hold any name; it must not lead out of the folder.
            relative = check_path(entry.path[len(checked) :].lstrip("/"))
            goal = top / relative
            with _translated(self.uri(checked)):
                goal.parent.mkdir(parents=True, exist_ok=True)
                with self._backend.open(entry.path) as source, goal.open("wb") as file:
                    while block := source.read(1 << 20):
                        file.write(block)
        if not found:
            raise NotFound(f"nothing is at {self.uri(checked)}", reason="ARTIFACT_NOT_FOUND")

    def iter(self, prefix: str = "") -> Iterator[Entry]:
        """Give all objects below a folder, recursively, sorted by path; none where it is missing."""
        checked = check_path(prefix, allow_root=True)
        with _translated(self.uri(checked)):
            yield from self._backend.iterate(checked)

    def children(self, prefix: str = "") -> list[str]:
        """Give the names directly in a folder, sorted; none where it is missing."""
        checked = check_path(prefix, allow_root=True)
        with _translated(self.uri(checked)):
            return self._backend.children(checked)

    def delete(self, prefix: str) -> None:
        """Delete an object, or a folder with all that is in it; nothing happens where it is missing."""
        checked = check_path(prefix)
        with _translated(self.uri(checked)):
            self._backend.delete(checked)

    @contextmanager
    def local(self, path: str) -> Iterator[Path]:
        """Give a local file with the object's bytes: the file itself where the store is local, else a temporary copy.

        Raises
        ------
        NotFound
            ``ARTIFACT_NOT_FOUND``: there is no such object.
        """
        checked = check_path(path)
        manager = self._backend.local(checked)
        with _translated(self.uri(checked)):
            file = manager.__enter__()
        try:
            yield file
        finally:
            manager.__exit__(None, None, None)

    def publish(self, staging: str, target: str, manifest: str) -> None:
        """Move every object below `staging` to `target`, the manifest last: its presence is the commit.

        Killed between and called again, it goes on. On a local store it is one rename where the target is not there yet.

        Parameters
        ----------
        staging, target
            Folders of this store.
        manifest
            Path of the manifest inside them.

        Raises
        ------
        NotFound
            ``ARTIFACT_NOT_FOUND``: the manifest is neither in the staging nor already in the target.
        """
        source, goal, last = check_path(staging), check_path(target), check_path(manifest)
        with _translated(self.uri(source)):
            self._backend.publish(source, goal, last)


def open_store(settings: ArtifactSettings) -> ArtifactStore:
    """Open the store that the settings name."""
    return ArtifactStore(settings.artifacts, **settings.artifact_options)


def split_uri(uri: str, **storage_options: Any) -> tuple[ArtifactStore, str]:
    """Open any fsspec URI or local path as a store and the path in it.

    The store's root is the folder that holds what the URI names, so that the path is one name; it is empty where the URI names a
    root. Nothing is checked for being there.

    Raises
    ------
    InvalidArgument
        ``UNKNOWN_SCHEME``: fsspec has no file system for the URI. ``UNSAFE_PATH``: the URI is empty.
    """
    if not uri.strip():
        raise InvalidArgument("the URI is empty", reason="UNSAFE_PATH", field="uri")
    local = _local_path(uri)
    if local is not None:
        absolute = Path(os.path.abspath(local))
        return ArtifactStore(str(absolute.parent)), absolute.name
    scheme, separator, rest = uri.partition("://")
    trimmed = rest.rstrip("/")
    if "::" in uri or "/" not in trimmed:
        return ArtifactStore(uri, **storage_options), ""
    parent, name = trimmed.rsplit("/", 1)
    return ArtifactStore(f"{scheme}{separator}{parent}", **storage_options), check_path(name)


def _local_path(uri: str) -> Path | None:
    for scheme in ("file://", "local://"):
        if uri.startswith(scheme):
            return Path(uri.removeprefix(scheme)).expanduser()
    return None if "://" in uri or "::" in uri else Path(uri).expanduser()


@contextmanager
def _translated(place: str) -> Iterator[None]:
    try:
        yield
    except OteoError:
        raise
    except FileNotFoundError as error:
        raise NotFound(f"nothing is at {place}", reason="ARTIFACT_NOT_FOUND") from error
    except (IsADirectoryError, NotADirectoryError) as error:
        raise NotFound(f"{place} is not an object: {error}", reason="ARTIFACT_NOT_FOUND") from error
    except OSError as error:
        raise from_exception(error) from error
