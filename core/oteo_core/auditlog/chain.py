"""The writer of one chain: one process at a time, a record after the other, file after file."""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from oteo_core.auditlog import recovery
from oteo_core.auditlog.heads import Head
from oteo_core.auditlog.keys import Keys
from oteo_core.auditlog.record import Event, seal, timestamp
from oteo_core.auditlog.segments import first_of, segment_name, segments_of, sync_folder

_LOCK = ".lock"


class ChainTaken(Exception):
    """Another process writes this chain."""


class ChainWriter:
    """Writes one chain. It is not safe for threads by itself; `AuditLog` is.

    Parameters
    ----------
    folder
        The chain's own folder; made if missing.
    chain
        Its name, which every record bears.
    keys
        They sign and check.
    head
        The newest head that the second place has of it.
    boot
        Name of this process's run.
    segment_bytes
        Size at which the chain goes on in another file.
    clock
        Gives the time, seconds since 1970.

    Raises
    ------
    ChainTaken
        Another process has it.
    recovery.DamagedChain
        It must not be continued.
    OSError
        As the disk says.
    """

    def __init__(
        self,
        folder: Path,
        chain: str,
        keys: Keys,
        head: Head | None,
        *,
        boot: str,
        segment_bytes: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.folder = folder
        self.chain = chain
        self._keys = keys
        self._boot = boot
        self._segment_bytes = segment_bytes
        self._clock = clock
        self._file = -1
        self._broken = False
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise ChainTaken(chain) from error
            ending = recovery.find_ending(folder, chain, keys, head)
            self.seq, self.hash = ending.seq, ending.hash
            self._segment, self._size, self._day = ending.segment, ending.size, ending.day
            self._open()
            for torn in recovery.unnoted(folder):
                data = torn.read_bytes()
                used: Mapping[str, str | int] = {"bytes": len(data), "digest": hashlib.sha256(data).hexdigest()}
                self.append(Event("log", "log.recovered", code="OK", reason="TORN_TAIL", used=used))
                os.fsync(self._file)
                recovery.note(torn)
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        path = self.folder / segment_name(self._segment)
        made = not path.exists()
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o640)
        os.lseek(self._file, self._size, os.SEEK_SET)
        if made:
            sync_folder(self.folder)

    @property
    def path(self) -> Path:
        """The file that is written now."""
        return self.folder / segment_name(self._segment)

    def head(self) -> Head:
        """Give how far the chain has come."""
        return Head(self.chain, self.seq, self.hash, timestamp(self._clock()), self._segment)

    def is_full(self) -> bool:
        """Tell whether the next record belongs into another file: this one is large enough, or of another day."""
        return self._size >= self._segment_bytes or bool(self._day and self._day != timestamp(self._clock())[:10])

    def append(self, event: Event) -> int:
        """Write a record and give its number; when this returns, a kill of the process cannot undo it.

        Raises
        ------
        OSError
            It was not written, and what was written of it is not part of the chain.
        """
        if self._broken:
            # An earlier record was not written whole, and could not be taken back then.
            os.ftruncate(self._file, self._size)
            os.lseek(self._file, self._size, os.SEEK_SET)
            self._broken = False
        seconds = self._clock()
        line, digest = seal(
            event.fields(self._keys.signing),
            chain=self.chain,
            boot=self._boot,
            seq=self.seq + 1,
            previous=self.hash,
            seconds=seconds,
            key=self._keys.signing,
        )
        try:
            written = os.write(self._file, line)
            while written < len(line):
                written += os.write(self._file, line[written:])
        except BaseException:
            self._broken = True
            os.ftruncate(self._file, self._size)
            os.lseek(self._file, self._size, os.SEEK_SET)
            self._broken = False
            raise
        self._size += len(line)
        self.seq += 1
        self.hash = digest
        self._day = self._day or timestamp(seconds)[:10]
        return self.seq

    def duplicate(self) -> int:
        """Give another descriptor of the file, to synchronise without holding up the writer."""
        return os.dup(self._file)

    def roll(self) -> tuple[Path, Head]:
        """Close the file and go on in another; give the closed one and the head that it ends with."""
        os.fsync(self._file)
        closed = self.path, self.head()
        old, self._file = self._file, -1
        segment, size, day = self._segment, self._size, self._day
        self._segment, self._size, self._day = self.seq + 1, 0, ""
        try:
            self._open()
        except BaseException:
            self._file, self._segment, self._size, self._day = old, segment, size, day
            raise
        os.close(old)
        return closed

    def forget(self, older_than: float) -> list[Path]:
        """Take closed files away whose last change is older than a time, seconds since 1970, and give their paths.

        The chain notes first what goes, so that what is missing from its beginning is known to be so by its writer's will; then the files go, the
        oldest first, so that a kill leaves no hole.
        """
        old = []
        for path in segments_of(self.folder)[:-1]:
            if path.stat().st_mtime >= older_than:
                break
            old.append(path)
        if old:
            following = segments_of(self.folder)[len(old)]
            self.append(Event("log", "log.forgotten", code="OK", used={"first": first_of(old[0]), "last": first_of(following) - 1}))
            os.fsync(self._file)
            for path in old:
                path.unlink()
        return old

    def close(self) -> None:
        """Give the chain back. Its last records are on the disk where it could be written."""
        for descriptor in (self._file, self._lock):
            if descriptor >= 0:
                if descriptor == self._file:
                    try:
                        os.fsync(descriptor)
                    except OSError:
                        self._broken = True
                os.close(descriptor)
        self._file = self._lock = -1
