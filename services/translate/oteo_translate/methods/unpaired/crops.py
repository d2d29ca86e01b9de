"""Random crops of a domain's images."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from oteo_core.errors import InvalidArgument
from oteo_translate.methods.base import LEAST_SIDE

_ON_DEVICE_BYTES = 2**31
_PROBES = 8
_ROUNDING = 1e-5


def crop_sides(shapes: Iterable[tuple[int, ...]], crop: int, multiple: int) -> tuple[int, int]:
    """Give height and width of crops from images of several shapes ``(N, H, W, C)``: at most `crop`, a multiple where they have as many pixels."""
    found = []
    for sizes in zip(*(shape[1:3] for shape in shapes), strict=True):
        side = min(crop, *sizes)
        found.append(side // multiple * multiple if side >= multiple else side)
    return found[0], found[1]


class Crops:
    """A domain's images, from which batches are cut.

    Parameters
    ----------
    images
        ``(N, H, W, C)`` uint8, or float32 of 0 to 1; may be a memory map.
    height, width
        Of the crops, at most the images'; see `crop_sides`.
    zoom, vertical
        See `oteo_translate.methods.unpaired.recipe.Recipe`.
    device
        Where batches are wanted; images lie there as well if they are few enough.
    """

    def __init__(self, images: NDArray[Any], height: int, width: int, *, zoom: float, vertical: bool, device: torch.device) -> None:
        self.height, self.width = height, width
        self._count = len(images)
        self._device = device
        self._zoom = zoom
        self._vertical = vertical
        self._images = images
        self._here: torch.Tensor | None = None
        if device.type != "cpu" and images.nbytes <= _ON_DEVICE_BYTES:
            self._here = torch.from_numpy(np.ascontiguousarray(images)).to(device)

    def __len__(self) -> int:
        return self._count

    def draw(self, count: int, generator: torch.Generator) -> torch.Tensor:
        """Give ``(count, C, height, width)`` float32 of 0 to 1, drawn with replacement, cropped and flipped at random."""
        rows = torch.randint(self._count, (count,), generator=generator).tolist()
        places = torch.rand((count, 5), generator=generator).tolist()
        return torch.cat([self._cut(row, *place) for row, place in zip(rows, places, strict=True)])

    def _cut(self, row: int, top: float, left: float, across: float, down: float, scale: float) -> torch.Tensor:
        full_height, full_width = self._images.shape[1:3]
        factor = math.exp(self._zoom * (2.0 * scale - 1.0)) if self._zoom else 1.0
        height = min(full_height, max(8, round(self.height * factor)))
        width = min(full_width, max(8, round(self.width * factor)))
        y, x = int(top * (full_height - height + 1)), int(left * (full_width - width + 1))
        planes = self._planes(row, slice(y, y + height), slice(x, x + width))
        if (height, width) != (self.height, self.width):
            planes = F.interpolate(planes, (self.height, self.width), mode="bilinear", antialias=True, align_corners=False)
        axes = ([3] if across < 0.5 else []) + ([2] if self._vertical and down < 0.5 else [])
        return planes.flip(axes) if axes else planes

    def _planes(self, row: int, rows: slice, columns: slice) -> torch.Tensor:
        if self._here is not None:
            part = self._here[row, rows, columns]
        else:
            part = torch.from_numpy(np.ascontiguousarray(self._images[row, rows, columns])).to(self._device)
        planes = part.permute(2, 0, 1)[None]
        return planes.float() / 255.0 if planes.dtype == torch.uint8 else planes.float()

    def probes(self) -> torch.Tensor:
        """Give some images, evenly spread, cut from their middle: always the same."""
        chosen = np.unique(np.linspace(0, self._count - 1, min(_PROBES, self._count)).round().astype(int))
        full_height, full_width = self._images.shape[1:3]
        y, x = (full_height - self.height) // 2, (full_width - self.width) // 2
        return torch.cat([self._planes(int(row), slice(y, y + self.height), slice(x, x + self.width)) for row in chosen])


def must_be_images(images: NDArray[Any], name: str) -> None:
    """Refuse what is not ``(N, H, W, C)`` uint8, or float32 of 0 to 1, of at least 8 x 8 pixels.

    Raises
    ------
    InvalidArgument
        ``BAD_IMAGES``.
    """
    if images.ndim != 4 or images.dtype not in (np.uint8, np.float32) or min(images.shape[1:3]) < LEAST_SIDE:
        raise InvalidArgument(
            f"{name}: images of shape {images.shape} and type {images.dtype}; wanted (N, H, W, C) of uint8 or float32, H and W at least 8",
            reason="BAD_IMAGES",
        )
    if images.dtype == np.float32:
        for number, image in enumerate(images):
            if image.min() < -_ROUNDING or image.max() > 1 + _ROUNDING:
                raise InvalidArgument(f"{name}: image {number} has values outside 0 to 1", reason="BAD_IMAGES")
