"""``network.pt2``: a package's network as a program that loads with torch alone, for who needs its gradients and features (the translate service)."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from torch import nn

from oteo_core.graphs.programs import PROGRAM, likely_seconds, write_program
from oteo_core.images import InputPolicy

_log = logging.getLogger(__name__)


def program_files(served: nn.Module, policy: InputPolicy, outputs: Sequence[str], seconds: float) -> dict[str, bytes]:
    """Give the files by which a package keeps its network as a program: ``network.pt2``.

    Parameters
    ----------
    served, policy, outputs
        What is exported, what it takes, and the names of what it gives.
    seconds
        What it may take. A program is a help to others and no part of what is served: where time is short it is left out.

    Returns
    -------
    dict
        Contents by name; empty where there is no time, where the model is no network (features and a classical classifier, which have no
        gradients to speak of), or where `torch.export` cannot write it.
    """
    if not any(isinstance(module, nn.Conv2d) for module in served.modules()):
        return {}
    likely = likely_seconds(served)
    if likely > seconds:
        _log.info("%s is left out: it may take %.0f s, and there are %.0f", PROGRAM, likely, seconds)
        return {}
    try:
        with torch.random.fork_rng(devices=[]):
            return {PROGRAM: write_program(served, policy, outputs)}
    except Exception as error:  # noqa: BLE001 (torch.export raises whatever the network provokes; the package is whole without the file)
        said = str(error).splitlines()[0][:300] if str(error) else ""
        _log.warning("%s is left out: torch.export failed: %s: %s", PROGRAM, type(error).__name__, said)
        return {}
