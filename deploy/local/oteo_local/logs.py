"""Read the processes' logs."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

STARTED = "oteo: starting "


def of_last_start(lines: list[str]) -> list[str]:
    """Give those lines of a log that were written since the process was last started; all if that is further back."""
    starts = [index for index, line in enumerate(lines) if line.startswith(STARTED)]
    return lines[starts[-1] :] if starts else lines


def tail(file: Path, lines: int) -> list[str]:
    """Give the last lines of a file, without reading more of it than needed; none if it is missing."""
    try:
        stream = open(file, "rb")  # noqa: SIM115 - closed below
    except FileNotFoundError:
        return []
    with stream:
        position = stream.seek(0, os.SEEK_END)
        data = b""
        while position > 0 and data.count(b"\n") <= lines:
            step = min(65536, position)
            position = stream.seek(position - step)
            data = stream.read(step) + data
    return data.decode(errors="replace").splitlines()[-lines:] if lines > 0 else []


def follow(file: Path, *, lines: int = 20, ended: Callable[[], bool] = lambda: False, period: float = 0.2) -> Iterator[str]:
    """Give the last lines of a log and then those that are written to it, also after it was rotated.

    Parameters
    ----------
    file : Path
        The log.
    lines : int
        Lines given at first.
    ended : callable
        Asked when nothing is new; True ends it.
    period : float
        Seconds between looks.
    """
    yield from tail(file, lines)
    while not file.exists():
        if ended():
            return
        time.sleep(period)
    stream = open(file, errors="replace")  # noqa: SIM115 - another file takes its name when it is rotated
    try:
        stream.seek(0, os.SEEK_END)
        rest = ""
        while True:
            text = stream.read()
            if text:
                *whole, rest = (rest + text).split("\n")
                yield from whole
                continue
            if _replaced(stream.fileno(), file):
                stream.close()
                stream = open(file, errors="replace")  # noqa: SIM115
                continue
            if ended():
                return
            time.sleep(period)
    finally:
        stream.close()


def _replaced(descriptor: int, file: Path) -> bool:
    """Say whether another file now has the name of the one that is open."""
    try:
        named = file.stat()
    except FileNotFoundError:
        return False  # between renaming the old and making the new
    opened = os.fstat(descriptor)
    return (named.st_ino, named.st_dev) != (opened.st_ino, opened.st_dev)
