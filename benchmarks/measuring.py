"""What the benchmarks of augmentation share: time, medians and spreads, ratios to a peer."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def timed(work: Callable[[], object]) -> float:
    """Give the seconds that a call takes."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def ratio(values: Sequence[float], peer: Sequence[float]) -> float:
    """Give the median of the ratios of runs that followed each other: what slows the machine for a minute slows both."""
    return statistics.median([v / p for v, p in zip(values, peer, strict=True)])


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Give median and, in brackets, smallest and largest."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def tree_cpu_seconds() -> float:
    """Give the processor time that this process and all below it have used, those included that have ended and were waited for; Linux."""
    parents: dict[int, int] = {}
    used: dict[int, int] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                # The name, in brackets, may hold spaces; what follows it does not.
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            parents[int(folder.name)] = int(fields[1])
            used[int(folder.name)] = sum(map(int, fields[11:15]))
    tree = {os.getpid()}
    while found := {child for child, parent in parents.items() if parent in tree} - tree:
        tree |= found
    return sum(used.get(member, 0) for member in tree) / os.sysconf("SC_CLK_TCK")


def table(
    title: str,
    rows: Mapping[str, Sequence[float]],
    peers: Mapping[str, str],
    cpus: Mapping[str, Sequence[float]] | None = None,
    unit: str = "images/s",
) -> None:
    """Print rates with their spreads, and ratios to peers.

    Parameters
    ----------
    title
        Of the table.
    rows
        Rates by name, one for each repeat.
    peers
        Headings of the columns of ratios, and which row each divides by.
    cpus
        Processor time of an item, milliseconds, by name.
    unit
        Of the rates.
    """
    print(f"\n{title}\n")
    heads = ["", unit, *peers, *(["CPU ms each", *(f"{name}, CPU" for name in peers)] if cpus else [])]
    print("| " + " | ".join(heads) + " |")
    print("|---" * len(heads) + "|")
    for name, values in rows.items():
        cells = [name, spread(values), *(f"{ratio(values, rows[peer]):.2f}" for peer in peers.values())]
        if cpus:
            # The other way round, so that more is better as it is for rates.
            cells += [spread(cpus[name]), *(f"{ratio(cpus[peer], cpus[name]):.2f}" for peer in peers.values())]
        print("| " + " | ".join(cells) + " |")
    print(flush=True)
