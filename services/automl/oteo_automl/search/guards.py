"""Health of trials: what went wrong, what to try instead, and what is never averaged in silently."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from oteo_automl.candidates.training import Diverged, Recipe
from oteo_core.errors import OteoError

DIVERGED, MEMORY, OTHER = "diverged", "memory", "other"

SAFER_RATE = 0.25
"""What the learning rate of a network that diverged is multiplied by."""

OUTLYING = 4.0
"""Robust z from which on a fold lies far below its siblings."""

_LEAST_FOLDS = 4
_MEMORY_WORDS = re.compile(
    r"out of memory|can't allocate memory|cannot allocate memory|not enough memory|bad_alloc|CUBLAS_STATUS_ALLOC_FAILED", re.I
)


@dataclass(frozen=True, slots=True)
class Remedy:
    """What is tried instead of what failed.

    Parameters
    ----------
    recipe
        The new settings.
    anew
        True: from the first epoch; False: from the last state.
    message
        For the trial's record.
    """

    recipe: Recipe
    anew: bool
    message: str


def kind_of(error: BaseException) -> str:
    """Say what kind of failure an exception is: `DIVERGED`, `MEMORY` or `OTHER`.

    A worker that died under a task counts as memory: the kernel's killer leaves no other trace.
    """
    if isinstance(error, Diverged):
        return DIVERGED
    if isinstance(error, MemoryError | torch.cuda.OutOfMemoryError):
        return MEMORY
    if isinstance(error, OteoError):
        return MEMORY if error.reason == "WORKER_LOST" else OTHER
    if isinstance(error, RuntimeError | OSError) and _MEMORY_WORDS.search(str(error)):
        return MEMORY
    return OTHER


def worker_died(error: BaseException) -> bool:
    """Say whether a piece's process died under it: by the kernel for its memory, by Ray's own watch, or with its machine."""
    return isinstance(error, OteoError) and error.reason == "WORKER_LOST"


def remedy(error: BaseException, recipe: Recipe, *, restarts: int) -> Remedy | None:
    """Give what to try after a failure, or None where the trial stays failed.

    Parameters
    ----------
    error
        What the piece raised.
    recipe
        That it ran with.
    restarts
        How often this trial was begun again after it diverged.
    """
    kind = kind_of(error)
    if kind == DIVERGED and restarts == 0:
        return Remedy(safer(recipe), True, f"diverged ({error})")
    if kind == MEMORY and recipe.batch > 1:
        smaller = replace(recipe, batch=recipe.batch // 2)
        return Remedy(smaller, False, f"needed too much memory with a batch of {recipe.batch}; tried again with {smaller.batch}")
    return None


def safer(recipe: Recipe) -> Recipe:
    """Give the settings with which a network that diverged or collapsed is begun again; its batch is kept."""
    return replace(recipe, rate=float(f"{recipe.rate * SAFER_RATE:.3g}"), half=False)


def failure_message(error: BaseException) -> str:
    """Say in a sentence why a trial failed for good."""
    kind = kind_of(error)
    if kind == DIVERGED:
        return f"diverged: {error}"
    if kind == MEMORY:
        return f"needs more memory than there is, even with its smallest batch ({type(error).__name__}: {error})"
    return f"{type(error).__name__}: {error}"


@dataclass(frozen=True, slots=True)
class FoldCheck:
    """How the folds of a candidate compare.

    Parameters
    ----------
    broken
        Folds whose answers are not finite or all of one class, though the fold is not: left out of averages.
    outlying
        Folds far worse than their siblings, but with answers that can be: reported, and kept.
    message
        For the trial's record; empty where all is well.
    """

    broken: tuple[int, ...] = ()
    outlying: tuple[int, ...] = ()
    message: str = ""


def check_folds(losses: Sequence[float], collapsed: Sequence[bool] | None = None, *, names: Sequence[int] | None = None) -> FoldCheck:
    """Compare a candidate's folds.

    Parameters
    ----------
    losses
        Of each fold, smaller is better; not finite: the fold failed.
    collapsed
        True for folds in which every answer is the same, though the truth is not; None: none.
    names
        Numbers of the folds; None: 0, 1, ….

    Returns
    -------
    FoldCheck
        A fold is outlying from a robust z of `OUTLYING` on: its loss less the median, over 1.4826 times the median absolute deviation (Iglewicz and
        Hoaglin, "How to detect and handle outliers", 1993), which is taken to be at least a tenth of the median. A collapsed fold is broken only
        where most of its siblings have not collapsed: else the candidate itself is no good, and its figures say so.
    """
    values = np.asarray(losses, dtype=np.float64)
    numbers = list(range(len(values))) if names is None else list(names)
    flat = np.zeros(len(values), dtype=bool) if collapsed is None else np.asarray(collapsed, dtype=bool)
    finite = np.isfinite(values)
    worse = np.zeros(len(values))
    if finite.sum() >= _LEAST_FOLDS:
        median = float(np.median(values[finite]))
        spread = max(1.4826 * float(np.median(np.abs(values[finite] - median))), 0.1 * abs(median), 1e-3)
        worse = np.where(finite, (values - median) / spread, 0.0)
    lonely = flat & (flat.sum() * 2 < len(values)) & (worse > 1.0)
    broken = tuple(numbers[place] for place in np.flatnonzero(~finite | lonely))
    outlying = tuple(numbers[place] for place in np.flatnonzero((worse > OUTLYING) & ~lonely & finite))
    words = []
    if broken:
        words.append(
            f"{_folds(broken)} failed (no finite answers, or all of one class) and {_is(broken)} left out of calibration and averages"
        )
    if outlying:
        listed = ", ".join(f"{values[numbers.index(one)]:.3g}" for one in outlying)
        words.append(
            f"{_folds(outlying)} {_is(outlying)} far below {'its' if len(outlying) == 1 else 'their'} siblings "
            f"(loss {listed}, median {np.median(values[finite]):.3g}): look at {'its' if len(outlying) == 1 else 'their'} images"
        )
    return FoldCheck(broken, outlying, "; ".join(words))


def _folds(numbers: Sequence[int]) -> str:
    listed = ", ".join(str(one + 1) for one in numbers)
    return f"fold {listed}" if len(numbers) == 1 else f"folds {listed}"


def _is(numbers: Sequence[int]) -> str:
    return "is" if len(numbers) == 1 else "are"


def one_answer(answers: NDArray[np.int64], truths: NDArray[np.int64]) -> bool:
    """Say whether every answer is the same, though the truths ``(N,)`` are not."""
    return len(answers) >= 2 and len(np.unique(answers)) == 1 and len(np.unique(truths)) > 1
