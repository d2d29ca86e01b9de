"""The files of a chain: ``{folder}/{chain}/{number of its first record}.jsonl``, one after the other; what was torn off lies in ``torn`` beside them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

SUFFIX = ".jsonl"
TORN = "torn"
_NAME = re.compile(r"[0-9]{16}\.jsonl")


def segment_name(first: int) -> str:
    """Give the name of the file whose first record has this number."""
    return f"{first:016d}{SUFFIX}"


def first_of(path: Path) -> int:
    """Give the number of the first record of a file, by its name."""
    return int(path.name.removesuffix(SUFFIX))


def segments_of(folder: Path) -> list[Path]:
    """Give a chain's files in their order."""
    try:
        return sorted(path for path in folder.iterdir() if _NAME.fullmatch(path.name))
    except (FileNotFoundError, NotADirectoryError):
        return []


def chains_of(folder: Path) -> list[str]:
    """Give the names of the chains below a folder."""
    try:
        return sorted(path.name for path in folder.iterdir() if path.is_dir() and (segments_of(path) or (path / TORN).is_dir()))
    except FileNotFoundError:
        return []


def lines_of(path: Path) -> Iterator[tuple[int, bytes]]:
    """Give the lines of a file with the place of each, bytes; the last one may lack its line feed."""
    place = 0
    with path.open("rb") as file:
        for line in file:
            yield place, line
            place += len(line)


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
