"""What a step of training costs on this machine: measured before time is spent on it.

A few steps of the real network on the real images, with optimiser and averaged weights, at the batch that is planned, or at the largest
half, quarter, … of it that fits into memory.
"""

from __future__ import annotations

import gc
import json
import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from oteo_automl.candidates.lesson import Lesson
from oteo_automl.candidates.modules import SavedModule
from oteo_automl.candidates.training import Recipe, Trainer
from oteo_automl.search.guards import MEMORY, kind_of

_SAFE = 0.8
"""Part of the free memory that trainings may plan to use."""

_STEPS = 4
_LEAST_STEPS = 2
_JUDGING = 1.2
"""An epoch with its judging and saving, relative to its steps."""


@dataclass(frozen=True, slots=True)
class Probe:
    """What was measured of a network.

    Parameters
    ----------
    batch
        Images in a batch, as many as were planned or as fit.
    step_seconds
        Of a step with that batch, median.
    peak_bytes
        Memory that training takes at its peak: of a GPU the most allocated, of a processor the growth of the resident set.
    peaks
        The same by batch, of every batch that was tried, or foretold to be too large.
    limit_bytes
        Memory that there was.
    message
        For people: what did not fit.
    """

    batch: int
    step_seconds: float
    peak_bytes: int
    peaks: Mapping[int, int]
    limit_bytes: int = 0
    message: str = ""

    def epoch_seconds(self, count: int) -> float:
        """Say how long an epoch of so many images takes."""
        return math.ceil(count / max(1, self.batch)) * self.step_seconds * _JUDGING

    def to_json(self) -> bytes:
        """Write it."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_json(cls, data: bytes | str) -> Probe:
        """Read what `to_json` wrote."""
        values: dict[str, Any] = json.loads(data)
        values["peaks"] = {int(batch): int(peak) for batch, peak in values["peaks"].items()}
        return cls(**values)


def free_memory() -> None:
    """Give a GPU's memory that earlier pieces left in this process's hands back to the others that share it."""
    if torch.cuda.is_available():
        gc.collect()
        torch.cuda.empty_cache()


def memory_limit(device: str, share: float) -> int:
    """Give the bytes that one training may take.

    Parameters
    ----------
    device
        Of PyTorch.
    share
        Part of what is free that is its own: one over the trainings side by side.
    """
    if torch.device(device).type == "cuda":
        # What this process has reserved already is its own to use again.
        free, total = torch.cuda.mem_get_info()
        return int(min(0.9 * total * share, free + torch.cuda.memory_reserved()))
    free = psutil.virtual_memory().available
    for most, used in (("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes")):
        top = Path("/sys/fs/cgroup")
        try:
            free = min(free, int((top / most).read_text()) - int((top / used).read_text()))
        except (OSError, ValueError):
            continue
    return max(0, int(_SAFE * free * share))


def measure(
    make: Callable[[], SavedModule],
    lesson: Lesson,
    recipe: Recipe,
    *,
    seed: int,
    device: str = "cpu",
    half: bool = False,
    deadline: float = math.inf,
    limit: int = 0,
) -> Probe:
    """Measure a network's training.

    Parameters
    ----------
    make
        Makes the network anew.
    lesson
        What it is taught; not yet placed.
    recipe
        How; its batch is the largest that is tried.
    seed, device, half
        See `Trainer`.
    deadline
        Seconds since 1970; two steps are measured in any case.
    limit
        Bytes that it may take; 0: what there is.

    Raises
    ------
    MemoryError
        Not even a batch of one fits.
    """
    rows = lesson.order(0)
    batch = max(1, min(recipe.batch, len(rows)))
    peaks: dict[int, int] = {}
    notes: list[str] = []
    while True:
        refused = ""
        with _Memory(device) as memory:
            try:
                trainer = Trainer(make(), lesson, replace(recipe, batch=batch), seed=seed, device=device, half=half)
                base = memory.peak()
                # A quarter first: what a whole batch takes can be told from it without running into the wall.
                quarter = max(1, batch // 4)
                trainer.rehearse(_rows(rows, quarter))
                foretold = base + (memory.peak() - base) * batch // quarter
                if limit and foretold > limit and batch > 1:
                    refused = f"a batch of {batch} would take {_gigabytes(foretold)}"
                    peaks[batch] = foretold
                else:
                    times = _timed(trainer, _rows(rows, batch), device, deadline)
                    peaks[batch] = memory.peak()
                    if limit and peaks[batch] > limit and batch > 1:
                        refused = f"a batch of {batch} takes {_gigabytes(peaks[batch])}"
            except (MemoryError, RuntimeError) as error:
                if kind_of(error) != MEMORY:
                    raise
                if batch == 1:
                    raise MemoryError(f"not even one image fits into memory: {error}") from error
                refused = f"a batch of {batch} does not fit"
            trainer = None  # type: ignore[assignment]
        if not refused:
            return Probe(batch, float(np.median(times)), peaks[batch], peaks, limit, "; ".join(notes))
        notes.append(f"{refused}, and there are {_gigabytes(limit)}" if limit else refused)
        batch //= 2


def _rows(rows: np.ndarray[Any, Any], count: int) -> np.ndarray[Any, Any]:
    return rows[np.arange(count) % len(rows)]


def _timed(trainer: Trainer, rows: np.ndarray[Any, Any], device: str, deadline: float) -> list[float]:
    gpu = torch.device(device).type == "cuda"
    times: list[float] = []
    for turn in range(_STEPS + 1):
        if turn > _LEAST_STEPS and time.time() > deadline:
            break
        began = time.perf_counter()
        trainer.rehearse(rows)
        if gpu:
            torch.cuda.synchronize()
        # The first with a shape is slower: kernels are chosen.
        if turn:
            times.append(time.perf_counter() - began)
    return times


def _gigabytes(count: float) -> str:
    return f"{count / 2**30:.2g} GiB"


def _restart_peak() -> bool:
    """Have the kernel begin anew with the peak of this process's resident memory; False where it cannot."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return _kernels_peak() > 0


def _kernels_peak() -> int:
    """Give the peak of this process's resident memory, bytes; 0 where the kernel does not tell."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)


class _Memory:
    """Watches how much more memory there is in use than when it began."""

    def __init__(self, device: str) -> None:
        self._gpu = torch.device(device).type == "cuda"
        self._process = psutil.Process()
        self._stop = threading.Event()
        self._most = 0
        self._base = 0
        self._thread: threading.Thread | None = None
        self._marked = False

    def __enter__(self) -> _Memory:
        if self._gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            self._base = torch.cuda.memory_allocated()
        else:
            # The kernel keeps the peak itself, and begins anew when asked to (proc(5), clear_refs); where it does not, a thread looks.
            self._marked = _restart_peak()
            self._base = self._most = self._process.memory_info().rss
            self._thread = threading.Thread(target=self._watch, name="memory", daemon=True)
            self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._stop.wait(0.01):
            self._most = max(self._most, self._process.memory_info().rss)

    def peak(self) -> int:
        """Give the most so far, bytes."""
        if self._gpu:
            return torch.cuda.max_memory_allocated() - self._base
        self._most = max(self._most, self._process.memory_info().rss, _kernels_peak() if self._marked else 0)
        return self._most - self._base

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        if self._gpu:
            gc.collect()
            torch.cuda.empty_cache()
