"""What networks are trained on: GPUs that are there, or that come when they are asked for; else processors."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from oteo_automl.search.budget import Budget
from oteo_automl.search.checkpoints import Checkpoints
from oteo_core.jobs import Executor

GPU_SHARE = 0.5
"""Part of a GPU that one training takes."""

WAIT_SHARE, WAIT_MOST = 0.2, 900.0
"""Part of the time that is left to a search, and seconds, that a worker with a GPU is waited for at most."""

WAIT_LEAST = 30.0
"""Seconds below which none is asked for: no worker starts in less."""

_KEPT = 600.0
"""Seconds that a worker is kept while images are prepared; without work Ray would end it."""

_NAME = "device.json"
_LOOK_SECONDS, _KEEP_SECONDS = 0.5, 2.0


@dataclass(frozen=True, slots=True)
class Device:
    """What a search goes by.

    Parameters
    ----------
    gpu
        True where candidates and input sizes are chosen for a GPU. Later attempts of a training keep to it, since their images have that size.
    share
        Part of a GPU that a network's training takes; 0: networks train on processors.
    note
        For the plan: what was waited for, and what came of it; empty where nothing was.
    """

    gpu: bool
    share: float
    note: str = ""


def find_device(
    executor: Executor,
    budget: Budget,
    checkpoints: Checkpoints,
    workers: Sequence[tuple[float, int]],
    *,
    networks: bool,
    check: Callable[[], None],
    say: Callable[[str], None],
) -> Device:
    """Say what networks are trained on; where only a worker that can still come has a GPU, have it come and wait for it.

    The wait is part of the budget. A training that went on without GPUs does so in all its attempts, and waits once.

    Parameters
    ----------
    executor
        What networks will be trained on.
    budget
        The time.
    checkpoints
        Of the training.
    workers
        ``(CPUs, GPUs)`` of each kind of worker that can come (`oteo_core.settings.CoreSettings.ray_workers`).
    networks
        False where nothing that is asked for trains on a GPU: then none is waited for.
    check
        Called several times a second; raises where the work is to stop.
    say
        Told in a sentence what is waited for.
    """
    there = executor.gpus >= 1
    if not any(cpus >= 1 and gpus >= 1 for cpus, gpus in workers):
        return Device(there, GPU_SHARE if there else 0.0)
    stored = checkpoints.load(_NAME)
    before = json.loads(stored) if stored is not None else None
    if before is not None and not before["gpu"]:
        return Device(False, 0.0, before["note"])
    note = ""
    if not there and networks:
        there, note = _wait(executor, budget, checkpoints, check, say)
    gpu = there or before is not None
    checkpoints.save(_NAME, json.dumps({"gpu": gpu, "note": note}).encode())
    return Device(gpu, GPU_SHARE if there else 0.0, note)


def _wait(
    executor: Executor, budget: Budget, checkpoints: Checkpoints, check: Callable[[], None], say: Callable[[str], None]
) -> tuple[bool, str]:
    """Wait for a worker with a GPU; say whether there is one, and that in a sentence."""
    most = min(WAIT_SHARE * budget.left, WAIT_MOST)
    if most < WAIT_LEAST:
        return False, "Networks train on processors: this budget is too short to wait for a worker with a GPU to start."
    if not executor.reserve(cpus=1.0, gpus=GPU_SHARE, seconds=_KEPT):
        return False, ""
    began = kept = time.monotonic()
    say(f"waits at most {most:.0f} s for a worker with a GPU to start; if none comes, networks train on processors")
    while (waited := time.monotonic() - began) < most:
        check()
        if executor.gpus >= 1:
            return True, f"Networks train on GPUs: a worker that has one was asked for, and was there after {waited:.0f} s."
        if time.monotonic() - kept > _KEEP_SECONDS:
            budget.keep(checkpoints)
            kept = time.monotonic()
        time.sleep(_LOOK_SECONDS)
    executor.release()
    return False, f"Networks train on processors: a worker with a GPU was asked for, and did not come within {most:.0f} s."
