"""What a step of the second engine is told besides the pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from oteo_core.augmentation.engines.base import Border

Planes = torch.Tensor | list[torch.Tensor]
"""``(N, C, H, W)``, or as many ``(C, H, W)`` of different sizes."""


class Unsuited(Exception):
    """A step that this engine does not do to these images; the other one does."""


@dataclass(frozen=True, slots=True)
class Work:
    """One step of a batch.

    Attributes
    ----------
    parts
        What was drawn, an image each.
    transforms
        The built transform, an image each.
    top
        White in the scale of the work: 1, 255 or 65535.
    whole
        True if pixels are whole numbers in that scale, too, so that a step computes as the other engine does with whole numbers.
    border
        What comes in from outside.
    """

    parts: Sequence[dict[str, Any]]
    transforms: Sequence[Any]
    top: float
    whole: bool
    border: Border

    def values(self, name: str, like: torch.Tensor) -> torch.Tensor:
        """Give one drawn number of every image, ``(N, 1, 1, 1)``."""
        return tensor([part[name] for part in self.parts], like).view(-1, 1, 1, 1)

    def arrays(self, name: str, like: torch.Tensor) -> torch.Tensor:
        """Give a drawn array ``(H, W)`` or ``(H, W, C)`` of every image as ``(N, 1 or C, H, W)`` float32."""
        return torch.stack([planes_of(np.asarray(part[name]), like) for part in self.parts])


Step = Callable[[torch.Tensor, Work], Planes]


def tensor(values: NDArray[Any] | Sequence[Any], like: torch.Tensor) -> torch.Tensor:
    """Give numbers as float32 on the device of another tensor."""
    return torch.from_numpy(np.ascontiguousarray(values, np.float32)).to(like.device)


def planes_of(array: NDArray[Any], like: torch.Tensor) -> torch.Tensor:
    """Give ``(H, W)`` or ``(H, W, C)`` as ``(1 or C, H, W)`` float32 on the device of another tensor."""
    return tensor(array[:, :, None] if array.ndim == 2 else array, like).permute(2, 0, 1)


def alike(keys: Sequence[Any]) -> dict[Any, list[int]]:
    """Give the numbers of the images that share a key."""
    groups: dict[Any, list[int]] = {}
    for number, key in enumerate(keys):
        groups.setdefault(key, []).append(number)
    return groups


def indices(numbers: Sequence[int], like: torch.Tensor) -> torch.Tensor:
    """Give numbers of images as an index on the device of another tensor."""
    return torch.from_numpy(np.asarray(numbers, np.int64)).to(like.device)
