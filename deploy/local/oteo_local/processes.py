"""Find and end processes, and what they leave in shared memory, by what they are and never by their program's name alone."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable
from pathlib import Path

import psutil

SHARED_MEMORY = Path("/dev/shm")
TRITON_SEGMENTS = "triton_*_backend_shm_region_*"
# What programs of the stack make there for themselves: Triton's segments, Python's semaphores and blocks, Ray's store. Other files may be somebody's data.
MADE_BY_PROGRAMS = (TRITON_SEGMENTS, "sem.mp-*", "psm_*", "plasma*")


def with_marker(name: str, value: str) -> list[psutil.Process]:
    """Give the running processes (this one and those above it apart) whose environment has ``name=value``.

    An environment is inherited by every child, whatever becomes of its parent: so strays are found that a walk from parent to child would miss.
    """
    found = []
    spared = {os.getpid(), *(process.pid for process in psutil.Process().parents())}
    for process in psutil.process_iter():
        if process.pid in spared:
            continue
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(name) == value and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def end(processes: Iterable[psutil.Process], *, grace: float) -> list[psutil.Process]:
    """End processes: SIGTERM, then SIGKILL after ``grace`` seconds (at once if 0).

    Returns
    -------
    list of psutil.Process
        Those still there afterwards (stuck in the kernel); normally none.
    """
    alive = [process for process in processes if is_alive(process)]
    if grace > 0:
        for process in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.terminate()
        alive = _wait_gone(alive, grace)
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    return _wait_gone(alive, 5.0)


def is_alive(process: psutil.Process) -> bool:
    """Say whether a process still runs; one that has ended and whose parent has not asked yet (a zombie) does not."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _wait_gone(processes: list[psutil.Process], timeout: float) -> list[psutil.Process]:
    """Wait until processes are gone; those that are not."""
    deadline = time.monotonic() + timeout
    while True:
        # psutil's own wait counts zombies as alive, and waits for them until their parent has asked.
        processes = [process for process in processes if is_alive(process)]
        if not processes or time.monotonic() > deadline:
            return processes
        time.sleep(0.02)


def tree(pid: int) -> list[psutil.Process]:
    """Give a process and all below it, children last; empty if it is gone."""
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def remove_unused_triton_segments(*, older_than: float = 5.0) -> list[str]:
    """Remove this user's Triton segments in shared memory that no process has mapped: a Triton ended by SIGKILL leaves them.

    Parameters
    ----------
    older_than : float
        Seconds; a younger segment may belong to a server that is about to map it.

    Returns
    -------
    list of str
        Names of what was removed.
    """
    candidates = []
    for path in SHARED_MEMORY.glob(TRITON_SEGMENTS):
        with contextlib.suppress(FileNotFoundError):
            status = path.stat()
            if status.st_uid == os.getuid() and time.time() - status.st_mtime >= older_than:
                candidates.append(path)
    if not candidates:
        return []
    used = mapped_in(SHARED_MEMORY)
    removed = []
    for path in candidates:
        if str(path) not in used:
            path.unlink(missing_ok=True)
            removed.append(path.name)
    return removed


def shared_memory_of(members: Iterable[psutil.Process]) -> set[str]:
    """Give the segments in shared memory that processes have mapped: to be taken before they end, for `remove_shared_memory` afterwards."""
    mapped = {Path(path) for process in members for path in mapped_by(process.pid, SHARED_MEMORY)}
    return {str(path) for path in mapped if path.parent == SHARED_MEMORY and any(path.match(pattern) for pattern in MADE_BY_PROGRAMS)}


def remove_shared_memory(paths: Iterable[str]) -> None:
    """Remove files in shared memory, but those that some process still has mapped."""
    paths = set(paths)
    if paths:
        for path in paths - mapped_in(SHARED_MEMORY):
            Path(path).unlink(missing_ok=True)


def mapped_in(folder: Path) -> set[str]:
    """Give the files below a folder that any process which we may look into has mapped."""
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return {path for pid in pids for path in mapped_by(pid, folder)}


def mapped_by(pid: int, folder: Path) -> set[str]:
    """Give the files below a folder that a process has mapped; none if it is gone or another user's."""
    try:
        text = Path(f"/proc/{pid}/maps").read_text()
    except OSError:
        return set()
    return {line.split(maxsplit=5)[5].removesuffix(" (deleted)") for line in text.splitlines() if f" {folder}/" in line}


def variable(process: psutil.Process, name: str) -> str | None:
    """Give a variable of a process's environment; None if it has none or is gone."""
    try:
        value = process.environ().get(name)
    except (psutil.Error, OSError):
        return None
    return None if value is None else str(value)


def memory(process: psutil.Process) -> int:
    """Give the bytes of memory that a process holds, pages shared with others in equal parts where the kernel says so; 0 if it is gone."""
    try:
        full = process.memory_full_info()
    except (psutil.Error, OSError):
        return 0
    return int(getattr(full, "pss", full.rss))
