"""What a killed writer left: where the chain ends, and what of the last line was torn.

A line is written by one call of the system; a kill leaves all of it, a part of it or nothing, and a power cut may leave anything after what was
synchronised. So the chain ends with the last good line, if nothing good comes after it. A good line after a bad one is no kill's doing: the chain is
damaged, and is left as it is.
"""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oteo_core.auditlog.heads import Head
from oteo_core.auditlog.keys import Keys
from oteo_core.auditlog.record import GENESIS, BadRecord, read_line
from oteo_core.auditlog.segments import TORN, first_of, lines_of, segment_name, segments_of, sync_folder

UNNOTED = ".torn"
NOTED = ".noted"


class DamagedChain(Exception):
    """A chain that must not be continued; the message says why, in one word for the log."""


@dataclass(frozen=True)
class Ending:
    """Where a chain goes on.

    Attributes
    ----------
    seq
        Number of its last record; -1: it has none.
    hash
        That record's hash.
    segment
        Number of the first record of the file to go on in.
    size
        Length of that file, bytes.
    day
        Date of that file's first record; empty where it has none.
    """

    seq: int
    hash: str
    segment: int
    size: int
    day: str


def find_ending(folder: Path, chain: str, keys: Keys, head: Head | None) -> Ending:
    """Find where a chain ends, and put what was torn off aside.

    Parameters
    ----------
    folder
        The chain's own folder; only its writer may touch it now.
    chain
        Its name.
    keys
        They check.
    head
        The newest head that the second place has.

    Raises
    ------
    DamagedChain
        The chain was changed, or is shorter than, or other than, its head says.
    OSError
        As the disk says.
    """
    ending = Ending(-1, GENESIS, 0, 0, "")
    files = segments_of(folder)
    if files:
        last = files[-1]
        ending = _read(last, chain, keys)
        if ending.seq < 0:
            # Killed just after the file was made: the record before it is the last one of the file before.
            before = _read(files[-2], chain, keys) if len(files) > 1 else Ending(-1, GENESIS, 0, 0, "")
            if before.seq + 1 != first_of(last) or before.size != (files[-2].stat().st_size if len(files) > 1 else 0):
                raise DamagedChain("GAP")
            ending = Ending(before.seq, before.hash, first_of(last), 0, "")
    if head is not None:
        _agree(folder, chain, keys, ending, head)
    if files and files[-1].stat().st_size > ending.size:
        _put_aside(folder, files[-1], ending.size)
    return ending


def _read(path: Path, chain: str, keys: Keys) -> Ending:
    """Read one file: how far it is good. Raises DamagedChain where something good comes after something bad."""
    first = first_of(path)
    seq, last, good, day = -1, "", 0, ""
    bad = False
    for place, line in lines_of(path):
        try:
            record = read_line(line, keys)
        except BadRecord:
            bad = True
            continue
        if bad or record["chain"] != chain or record["seq"] != (first if seq < 0 else seq + 1) or (seq >= 0 and record["prev"] != last):
            raise DamagedChain("CHANGED")
        seq, last, good = record["seq"], record["hash"], place + len(line)
        day = day or record["time"][:10]
    return Ending(seq, last, first, good, day)


def closed_since(folder: Path, chain: str, keys: Keys, head: Head | None) -> list[tuple[Path, Head]]:
    """Give the chain's closed files that the second place may not have heard of, each with the head that it ends with.

    Raises
    ------
    DamagedChain
        One of them was changed.
    """
    found = []
    for path in segments_of(folder)[:-1]:
        if head is None or first_of(path) >= head.segment:
            ending = _read(path, chain, keys)
            record = record_at(folder, ending.seq, keys)
            if record is None:
                raise DamagedChain("CHANGED")
            found.append((path, Head(chain, ending.seq, ending.hash, record["time"], first_of(path))))
    return found


def record_at(folder: Path, seq: int, keys: Keys) -> dict[str, Any] | None:
    """Give a chain's record by its number; None where it is not there."""
    holding = [path for path in segments_of(folder) if first_of(path) <= seq]
    if holding:
        for _, line in lines_of(holding[-1]):
            try:
                record = read_line(line, keys)
            except BadRecord:
                return None
            if record["seq"] == seq:
                return record
    return None


def _agree(folder: Path, chain: str, keys: Keys, ending: Ending, head: Head) -> None:
    if head.seq > ending.seq:
        raise DamagedChain("TRUNCATED")
    if head.seq == ending.seq:
        found = ending.hash
    else:
        record = record_at(folder, head.seq, keys)
        found = "" if record is None else record["hash"]
    if found != head.hash:
        raise DamagedChain("CHANGED")


def _put_aside(folder: Path, path: Path, size: int) -> None:
    """Copy what follows the last good line into a file of its own, then cut it off: killed between the two, the next start does it again."""
    aside = folder / TORN
    aside.mkdir(exist_ok=True)
    with path.open("rb") as file:
        file.seek(size)
        torn = file.read()
    place = aside / f"{segment_name(first_of(path))}-{size}-{uuid.uuid4().hex[:8]}{UNNOTED}"
    with place.open("xb") as copy:
        copy.write(torn)
        copy.flush()
        os.fsync(copy.fileno())
    sync_folder(aside)
    with path.open("r+b") as file:
        file.truncate(size)
        os.fsync(file.fileno())


def unnoted(folder: Path) -> list[Path]:
    """Give what was put aside and is not noted in the chain yet."""
    aside = folder / TORN
    return sorted(aside.glob(f"*{UNNOTED}")) if aside.is_dir() else []


def note(path: Path) -> None:
    """Mark what was put aside as noted in the chain."""
    path.replace(path.with_suffix(NOTED))
