"""Unpacking archives that nobody vouches for.

Every member is judged by its name, its kind and its sizes before a byte is written, and real sizes are counted while it is: a zip that
declares little and inflates much stops at the limit. Nothing is ever written outside the goal.
"""

from __future__ import annotations

import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from oteo_core.errors import InvalidArgument, ResourceExhausted
from oteo_core.exports.kinds import archive_kind

_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class ArchiveLimits:
    """How far an archive may grow.

    Parameters
    ----------
    max_bytes
        Of all members together, unpacked.
    max_members
        Files in it.
    max_ratio
        Unpacked by packed bytes of one member of at least 10 MiB. Deflate reaches 1032 on zeros; images and text stay below 200.
    """

    max_bytes: int = 1 << 40
    max_members: int = 10_000_000
    max_ratio: float = 500.0


def unpack(archive: Path, goal: Path, limits: ArchiveLimits, check: Callable[[], None] = lambda: None, *, name: str | None = None) -> None:
    """Unpack a zip or tar archive into a folder.

    Parameters
    ----------
    archive
        The file.
    goal
        The folder; made, and emptied of nothing: it should be new.
    limits
        How far it may grow.
    check
        Called for every member; raises where the work is to stop.
    name
        What the archive is called, where the file itself is a copy under another name.

    Raises
    ------
    InvalidArgument
        UNSAFE_ARCHIVE naming the member, UNSUPPORTED_FORMAT for what is no archive, DAMAGED_ARCHIVE.
    """
    goal.mkdir(parents=True, exist_ok=True)
    kind = archive_kind(name or archive.name)
    try:
        if kind == "zip":
            _unzip(archive, goal, limits, check)
        else:
            _untar(archive, goal, limits, check)
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, NotImplementedError, UnicodeError) as exc:
        raise _damaged(name or archive.name, exc) from exc


def judge_zip(archive: Path, goal: Path, limits: ArchiveLimits) -> None:
    """Judge all members of a zip by its directory alone, which is quick; raises as `unpack`."""
    try:
        with zipfile.ZipFile(archive) as file:
            _judge_members(file, archive, goal, _Budget(limits, goal))
    except (zipfile.BadZipFile, NotImplementedError, UnicodeError) as exc:
        raise _damaged(archive.name, exc) from exc


def _judge_members(file: zipfile.ZipFile, archive: Path, goal: Path, budget: _Budget) -> None:
    members = file.infolist()
    budget.members(len(members))
    packed, size = sum(member.compress_size for member in members), archive.stat().st_size
    if packed > size:
        raise _unsafe("", f"its members declare {packed} packed bytes, the file has {size}: they lie over each other")
    for member in members:  # all are judged before any is written
        mode = member.external_attr >> 16
        if stat.S_ISLNK(mode):
            raise _unsafe(member.filename, "it is a symbolic link")
        if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise _unsafe(member.filename, "it is a device or another special file")
        if member.flag_bits & 1:
            raise InvalidArgument(
                f"the member {member.filename!r} is encrypted; give an archive without a password",
                reason="UNSUPPORTED_FORMAT",
                field="source_uri",
            )
        _place(goal, member.filename)
        budget.declare(member.filename, member.file_size, member.compress_size)


def _unzip(archive: Path, goal: Path, limits: ArchiveLimits, check: Callable[[], None]) -> None:
    budget = _Budget(limits, goal)
    with zipfile.ZipFile(archive) as file:
        _judge_members(file, archive, goal, budget)
        for member in file.infolist():
            check()
            if not member.is_dir():
                with file.open(member) as stream:
                    budget.copy(stream, _place(goal, member.filename), member.filename, check)


def _untar(archive: Path, goal: Path, limits: ArchiveLimits, check: Callable[[], None]) -> None:
    packed = max(1, archive.stat().st_size)
    budget = _Budget(limits, goal)
    # One pass to judge, one to write. A packed tar is inflated twice for that; nothing of an unsafe one is ever written.
    with tarfile.open(archive, "r|*") as file:
        for count, member in enumerate(file, 1):
            check()
            budget.members(count)
            if member.issym() or member.islnk():
                raise _unsafe(member.name, f"it is a {'symbolic' if member.issym() else 'hard'} link to {member.linkname!r}")
            if not (member.isreg() or member.isdir()):
                raise _unsafe(member.name, "it is a device or another special file")
            _place(goal, member.name)
            budget.declare(member.name, member.size, packed)
    budget = _Budget(limits, goal)
    with tarfile.open(archive, "r|*") as file:
        for member in file:
            check()
            if member.isreg():
                stream = file.extractfile(member)
                if stream is not None:
                    budget.copy(stream, _place(goal, member.name), member.name, check)


class _Budget:
    """Counts what an archive declares and what it really holds."""

    def __init__(self, limits: ArchiveLimits, goal: Path) -> None:
        self._limits = limits
        self._free = shutil.disk_usage(goal).free
        self._declared = 0
        self._written = 0

    def members(self, count: int) -> None:
        if count > self._limits.max_members:
            raise _unsafe("", f"it has more than {self._limits.max_members} members")

    def declare(self, name: str, size: int, packed: int) -> None:
        self._declared += size
        if self._declared > self._limits.max_bytes:
            raise _unsafe(name, f"with it the archive declares {self._declared} bytes; the limit is {self._limits.max_bytes}")
        if self._declared > self._free:
            raise ResourceExhausted(
                f"unpacked, the archive takes more than the {self._free} bytes that are free for it; free some space and try again",
                reason="DISK_FULL",
            )
        if size > 10 * _BLOCK and size > self._limits.max_ratio * max(1, packed):
            raise _unsafe(name, f"it grows from {packed} to {size} bytes, as only a bomb does")

    def copy(self, stream: IO[bytes], place: Path, name: str, check: Callable[[], None]) -> None:
        place.parent.mkdir(parents=True, exist_ok=True)
        # Exclusive, and never through a link: a second member of the same name must not overwrite the first.
        try:
            descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
        except FileExistsError:
            raise _unsafe(name, "the archive holds it twice") from None
        with open(descriptor, "wb") as file:
            while block := stream.read(_BLOCK):
                self._written += len(block)
                if self._written > self._limits.max_bytes:
                    raise _unsafe(name, f"with it the archive grows over the limit of {self._limits.max_bytes} bytes")
                file.write(block)
                check()


def _place(goal: Path, name: str) -> Path:
    """Give where a member belongs, or refuse it."""
    if "\0" in name or not name.strip("/"):
        raise _unsafe(name, "its name is empty or holds a zero byte")
    parts = name.replace("\\", "/").split("/")
    if name.startswith(("/", "\\")) or (len(parts[0]) == 2 and parts[0][1] == ":"):
        raise _unsafe(name, "its path is absolute")
    if ".." in parts:
        raise _unsafe(name, "its path leads out of the archive")
    clean = [part for part in parts if part not in ("", ".")]
    if any(len(part.encode()) > 255 for part in clean):
        raise _unsafe(name[:80], "a part of its path has more than 255 bytes")
    return goal.joinpath(*clean)


def _damaged(name: str, error: Exception) -> InvalidArgument:
    return InvalidArgument(
        f"the archive {name} is damaged or not of the kind that its name says: {error}", reason="DAMAGED_ARCHIVE", field="source_uri"
    )


def _unsafe(name: str, why: str) -> InvalidArgument:
    member = f"member {name!r}" if name else "the archive"
    return InvalidArgument(
        f"the archive is not unpacked, {member} is not safe: {why}. Pack the plain files again.",
        reason="UNSAFE_ARCHIVE",
        field="source_uri",
        metadata={"member": name},
    )
