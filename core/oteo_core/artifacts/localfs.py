"""A store in a directory of this machine."""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from oteo_core.artifacts.backend import Backend, Entry
from oteo_core.artifacts.paths import TEMPORARY_PREFIX

_ATTEMPTS = 20


class LocalBackend(Backend):
    """A directory. Objects are written beside their place and renamed into it; publishing renames the folder.

    Parameters
    ----------
    root
        The directory; made with the first write.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(os.path.abspath(root))
        self.root_uri = f"file://{self.root}"

    def _at(self, path: str) -> Path:
        return self.root / path if path else self.root

    def is_file(self, path: str) -> bool:
        """Say whether there is a file of exactly this path."""
        return self._at(path).is_file()

    def read(self, path: str) -> bytes:
        """Give a file's bytes."""
        return self._at(path).read_bytes()

    def open(self, path: str) -> BinaryIO:
        """Open a file for reading."""
        return self._at(path).open("rb")

    def write(self, path: str, data: bytes) -> None:
        """Write a file beside its place, flush it to the disk and rename it."""
        with self._replacing(self._at(path)) as temporary, temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

    def put(self, source: Path, path: str) -> None:
        """Copy a file beside its place and rename it."""
        with self._replacing(self._at(path)) as temporary:
            shutil.copyfile(source, temporary)

    @contextmanager
    def _replacing(self, place: Path) -> Iterator[Path]:
        temporary = place.parent / f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}"
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            temporary.replace(place)
        finally:
            temporary.unlink(missing_ok=True)

    def iterate(self, prefix: str) -> Iterator[Entry]:
        """Walk the folder in order of names; what vanishes meanwhile is left out."""
        folder = self._at(prefix)
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except (FileNotFoundError, NotADirectoryError):
            return
        for entry in entries:
            if entry.name.startswith(TEMPORARY_PREFIX):
                continue
            path = f"{prefix}/{entry.name}" if prefix else entry.name
            if entry.is_dir():
                yield from self.iterate(path)
                continue
            try:
                status = entry.stat()
            except FileNotFoundError:
                continue
            yield Entry(path, status.st_size, datetime.fromtimestamp(status.st_mtime, UTC))

    def children(self, prefix: str) -> list[str]:
        """Give the names in the folder that are files or hold something."""
        try:
            with os.scandir(self._at(prefix)) as entries:
                found = [(entry.name, entry.is_dir()) for entry in entries if not entry.name.startswith(TEMPORARY_PREFIX)]
        except (FileNotFoundError, NotADirectoryError):
            return []
        # An empty folder is no object anywhere else, so it is none here.
        return sorted(
            name for name, folder in found if not folder or any(True for _ in self.iterate(f"{prefix}/{name}" if prefix else name))
        )

    def delete(self, prefix: str) -> None:
        """Delete a file or a folder, also while somebody still writes in it."""
        place = self._at(prefix)
        if place.is_dir() and not place.is_symlink():
            for _ in range(_ATTEMPTS):
                try:
                    shutil.rmtree(place)
                    break
                except FileNotFoundError:
                    if not place.exists():
                        break
                except OSError as error:
                    # A writer put something into a folder that had just been emptied.
                    if error.errno != errno.ENOTEMPTY:
                        raise
            else:
                raise OSError(errno.ENOTEMPTY, "still being written to", str(place))
        else:
            place.unlink(missing_ok=True)

    @contextmanager
    def local(self, path: str) -> Iterator[Path]:
        """Give the file itself."""
        place = self._at(path)
        if not place.is_file():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(place))
        yield place

    def publish(self, staging: str, target: str, manifest: str) -> None:
        """Rename the folder, or each of its files where the target is there already."""
        source, goal = self._at(staging), self._at(target)
        sealed = source / manifest
        if sealed.is_file():
            _flush(sealed)
        elif not (goal / manifest).is_file():
            raise FileNotFoundError(errno.ENOENT, "the manifest is not in the staging folder", str(sealed))
        goal.parent.mkdir(parents=True, exist_ok=True)
        if not goal.exists() and sealed.is_file() and not any(_temporaries(source)):
            try:
                source.rename(goal)
            except OSError as error:
                if error.errno not in (errno.EXDEV, errno.ENOTEMPTY, errno.EEXIST):
                    raise
            else:
                _flush(goal.parent)
                return
        last = f"{staging}/{manifest}"
        for path in [entry.path for entry in self.iterate(staging) if entry.path != last]:
            _move(self._at(path), goal / path.removeprefix(f"{staging}/"))
        if sealed.is_file():
            _move(sealed, goal / manifest)
        _flush(goal)
        shutil.rmtree(source, ignore_errors=True)


def _move(source: Path, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        source.replace(place)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        # Another file system below the same root: copied beside its place, then renamed.
        temporary = place.parent / f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}"
        try:
            shutil.copyfile(source, temporary)
            _flush(temporary)
            temporary.replace(place)
        finally:
            temporary.unlink(missing_ok=True)
        source.unlink()


def _temporaries(folder: Path) -> Iterator[Path]:
    return folder.rglob(f"{TEMPORARY_PREFIX}*")


def _flush(place: Path) -> None:
    descriptor = os.open(place, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
