"""Whether a training is still of use."""

from __future__ import annotations

import torch
from torch import nn

_DEAD = 0.05
_EVEN = 1.0 / 255.0


@torch.no_grad()
def complaint(generator: nn.Module, probes: torch.Tensor, home: torch.Tensor) -> str:
    """Say what is wrong with a generator; empty where nothing is.

    Parameters
    ----------
    generator
        From ``(N, C, H, W)`` to the same.
    probes
        Images of the shifted domain.
    home
        Images of home.

    Returns
    -------
    str
        That its answers are not numbers, or even areas where images are not, or all the same where images are not; or nothing.
    """
    drawn = generator(probes).clamp(0.0, 1.0)
    if not bool(torch.isfinite(drawn).all()):
        return "the generator's answers are not numbers"
    inner = min(_within(probes), _within(home))
    if inner > _EVEN and _within(drawn) < _DEAD * inner:
        return "the generator answers with even areas"
    if len(probes) > 1 and len(home) > 1:
        between = min(_between(probes), _between(home))
        if between > _EVEN and _between(drawn) < _DEAD * between:
            return "the generator gives the same answer to all images"
    return ""


def _within(planes: torch.Tensor) -> float:
    return float(planes.std((2, 3), correction=0).mean())


def _between(planes: torch.Tensor) -> float:
    return float(planes.std(0, correction=0).mean())
