"""What a training runs on: GPUs that it was given, or a processor, and why."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from oteo_core.jobs import Placing


@dataclass(frozen=True, slots=True)
class Device:
    """Where a training computes.

    Parameters
    ----------
    name
        PyTorch's: ``"cuda"`` for all GPUs that the process was given, ``"cpu"``.
    words
        A sentence on it.
    short
        It is less than what was asked for or given.
    """

    name: str
    words: str
    short: bool = False


def choose_device(placing: Placing | None) -> Device:
    """Choose by what the job was given, not by what is to be seen: on one machine a job sees GPUs that others were given.

    Parameters
    ----------
    placing
        What the process was submitted with; None: nobody asked for anything, and what is to be seen is taken.
    """
    seen = torch.cuda.device_count() if torch.cuda.is_available() else 0
    given = seen if placing is None else placing.resources.gpus
    note = placing.note if placing is not None else ""
    if given and seen:
        count = min(given, seen)
        words = f"runs on {count} GPU{'' if count == 1 else 's'} ({torch.cuda.get_device_name(0)})"
    elif given:
        words = f"runs on a processor: {given} GPU{'' if given == 1 else 's'} given, and PyTorch can use none"
    else:
        words = "runs on a processor"
    lost = given > seen
    if lost and seen:
        words += f", of {given} given"
    return Device("cuda" if given and seen else "cpu", words + (f"; {note}" if note else ""), lost or bool(note))
