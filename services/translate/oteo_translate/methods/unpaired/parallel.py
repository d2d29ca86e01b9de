"""Training in several processes of one machine, each with a device of its own.

The first process is the one that was called: it tells, checks and keeps; the others are started by it and end with it. Gradients are averaged by
`torch.nn.parallel.DistributedDataParallel` (Li et al., VLDB 2020), over NCCL between GPUs and Gloo between processors; what is decided by the clock is
decided by the first and told to the others.
"""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from numpy.typing import NDArray
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from oteo_core.errors import Internal

_PATIENCE = timedelta(minutes=5)
_ENDING_SECONDS = 20.0


class Fellows:
    """A team of processes; see `oteo_translate.methods.unpaired.team.Team`.

    Parameters
    ----------
    rank, size
        This process's number, and how many there are.
    device
        This process's device.
    started
        The other processes, in the first.
    """

    def __init__(self, rank: int, size: int, device: torch.device, started: Sequence[BaseProcess] = ()) -> None:
        self.rank = rank
        self._size = size
        self._device = device
        self._started = started
        # Figures are told over Gloo also where gradients go over NCCL: no GPU has to be waited for.
        self._telling: Any = dist.new_group(backend="gloo", timeout=_PATIENCE)

    def wrap(self, side: nn.Module) -> nn.Module:
        """See `Team`."""
        devices = [self._device] if self._device.type == "cuda" else None
        return DistributedDataParallel(side, device_ids=devices, forward_sync_buffers=False)

    def agree(self, values: Sequence[float]) -> list[float]:
        """See `Team`."""
        told = torch.tensor(list(values), dtype=torch.float64)
        dist.broadcast(told, 0, group=self._telling)
        return [float(value) for value in told]

    def gather(self, mine: Any) -> list[Any]:
        """See `Team`."""
        found: list[Any] = [None] * self._size
        dist.all_gather_object(found, mine, group=self._telling)
        return found

    def check(self) -> None:
        """See `Team`."""
        for number, process in enumerate(self._started, start=1):
            if process.exitcode is not None:
                raise Internal(f"training process {number} ended with {process.exitcode}", reason="TRAINING_PROCESS_DIED")


@dataclass(frozen=True, slots=True)
class Order:
    """What another process is started with.

    Parameters
    ----------
    work
        A function at the top of a module, called with team, device, content, and the images of the two domains.
    content
        What pickles.
    folder
        Where the images lie, and the processes meet.
    size
        Number of processes.
    device
        ``"cuda"`` or ``"cpu"``.
    threads
        Of PyTorch, in each.
    """

    work: Callable[[Fellows, torch.device, Any, NDArray[Any], NDArray[Any]], None]
    content: Any
    folder: str
    size: int
    device: str
    threads: int


def _device(order: Order, rank: int) -> torch.device:
    return torch.device("cuda", rank) if order.device == "cuda" else torch.device("cpu")


def _meet(order: Order, rank: int) -> torch.device:
    device = _device(order, rank)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        init_method=(Path(order.folder) / "meeting").as_uri(),
        rank=rank,
        world_size=order.size,
        timeout=_PATIENCE,
    )
    return device


def _fellow(rank: int, order: Order) -> None:
    torch.set_num_threads(order.threads)
    device = _meet(order, rank)
    shifted, home = (np.load(Path(order.folder) / f"{name}.npy", mmap_mode="r") for name in ("shifted", "home"))
    order.work(Fellows(rank, order.size, device), device, order.content, shifted, home)
    dist.destroy_process_group()


@contextmanager
def fellows(
    size: int,
    device: str,
    work: Callable[[Fellows, torch.device, Any, NDArray[Any], NDArray[Any]], None],
    content: Any,
    shifted: NDArray[Any],
    home: NDArray[Any],
) -> Iterator[tuple[Fellows, torch.device]]:
    """Start the other processes; they call `work`, and this process does the same in the body of the ``with``.

    Raises
    ------
    Internal
        ``TRAINING_PROCESS_DIED``.
    """
    context = mp.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="oteo-team-") as folder:
        for name, images in (("shifted", shifted), ("home", home)):
            np.save(Path(folder) / f"{name}.npy", images)
        order = Order(work, content, folder, size, device, max(1, torch.get_num_threads() // size) if device == "cpu" else 1)
        started = [context.Process(target=_fellow, args=(rank, order), daemon=True) for rank in range(1, size)]
        for process in started:
            process.start()
        try:
            place = _meet(order, 0)
            yield Fellows(0, size, place, started), place
            for process in started:
                process.join(_ENDING_SECONDS)
        except RuntimeError as error:
            dead = [process.exitcode for process in started if process.exitcode]
            if dead:
                raise Internal(f"a training process ended with {dead[0]}: {error}", reason="TRAINING_PROCESS_DIED") from error
            raise
        finally:
            for process in started:
                if process.is_alive():
                    process.kill()
                process.join()
            if dist.is_initialized():
                dist.destroy_process_group()


def can_be_sent(content: Any) -> bool:
    """Say whether something can be sent to another process."""
    try:
        pickle.dumps(content)
    except (pickle.PicklingError, TypeError, AttributeError, RuntimeError):
        return False
    return True
