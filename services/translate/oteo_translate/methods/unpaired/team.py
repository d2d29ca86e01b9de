"""Processes that train the same weights on different batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from torch import nn


class Team(Protocol):
    """What a trainer asks of its fellows.

    Attributes
    ----------
    rank
        This process's number, from 0.
    """

    rank: int

    def wrap(self, side: nn.Module) -> nn.Module:
        """Make a module's gradients the mean of all processes'."""
        ...

    def agree(self, values: Sequence[float]) -> list[float]:
        """Give the first process's values."""
        ...

    def gather(self, mine: Any) -> list[Any]:
        """Give every process's values, in their order, in every process."""
        ...

    def check(self) -> None:
        """Raise if a fellow has died."""
        ...


class Alone:
    """A team of one."""

    rank = 0

    def wrap(self, side: nn.Module) -> nn.Module:
        """See `Team`."""
        return side

    def agree(self, values: Sequence[float]) -> list[float]:
        """See `Team`."""
        return list(values)

    def gather(self, mine: Any) -> list[Any]:
        """See `Team`."""
        return [mine]

    def check(self) -> None:
        """See `Team`."""
