"""The plain mean of the weights at the last epochs' ends (Izmailov et al., "Averaging weights leads to wider optima", UAI 2018).

The moving average that a training follows weighs the last steps most; where the learning rate falls slowly the plain mean of several
epochs can be better. Both are judged, and one is kept.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

SHARE = 0.75
"""Weights are taken from this share of the planned epochs on."""

_LEAST = 3


class LastWeights:
    """A running mean of a network's parameters."""

    def __init__(self) -> None:
        self._count = 0
        self._mean: list[torch.Tensor] = []

    @property
    def ready(self) -> bool:
        """Whether enough epochs were taken for a mean to be worth judging."""
        return self._count >= _LEAST

    @property
    def count(self) -> int:
        """Epochs taken."""
        return self._count

    @torch.no_grad()
    def take(self, model: nn.Module) -> None:
        """Take the present parameters into the mean."""
        now = [parameter.detach() for parameter in model.parameters()]
        self._count += 1
        if not self._mean:
            self._mean = [one.clone() for one in now]
            return
        for mean, one in zip(self._mean, now, strict=True):
            mean.lerp_(one, 1.0 / self._count)

    @torch.no_grad()
    def put(self, network: nn.Module) -> None:
        """Give a network the mean as its parameters; its buffers stay as they are."""
        for parameter, mean in zip(network.parameters(), self._mean, strict=True):
            parameter.copy_(mean)

    def state(self) -> dict[str, Any]:
        """Give what `restore` takes."""
        return {"count": self._count, "mean": self._mean}

    def restore(self, state: dict[str, Any]) -> None:
        """Take up what `state` gave."""
        self._count, self._mean = int(state["count"]), list(state["mean"])
