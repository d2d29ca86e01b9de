"""How the pixels of an original and of what `prepare` makes of it correspond."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from oteo_core.images.policy import InputPolicy


@dataclass(frozen=True, slots=True)
class Placement:
    """Where an original of ``width`` x ``height`` lies in the prepared image.

    A point of the original, in pixels with the origin at the upper left corner of the upper left pixel, is at ``x * scale_x + left``,
    ``y * scale_y + top`` in the prepared image.

    Parameters
    ----------
    width, height
        Of the original, pixels.
    left, top
        Upper left corner of the original in the prepared image, whole pixels; 0 where it is stretched.
    inner_width, inner_height
        Extent of the original in the prepared image, whole pixels.
    """

    width: int
    height: int
    left: int
    top: int
    inner_width: int
    inner_height: int

    @property
    def scale_x(self) -> float:
        """Prepared pixels to one of the original, along x."""
        return self.inner_width / self.width

    @property
    def scale_y(self) -> float:
        """Prepared pixels to one of the original, along y."""
        return self.inner_height / self.height

    def boxes_in(self, boxes: NDArray[Any]) -> NDArray[np.float32]:
        """Bring boxes ``(M, 4)`` (left, top, right, bottom) from the original into the prepared image."""
        return (boxes * self._scales() + self._corner()).astype(np.float32)

    def boxes_out(self, boxes: NDArray[Any]) -> NDArray[np.float32]:
        """Bring boxes ``(M, 4)`` from the prepared image into the original, cut off at its borders."""
        limits = np.array([self.width, self.height, self.width, self.height], dtype=np.float64)
        return np.clip((boxes - self._corner()) / self._scales(), 0.0, limits).astype(np.float32)

    def plane_in(self, plane: NDArray[Any], policy: InputPolicy, outside: int) -> NDArray[Any]:
        """Bring a label image ``(height, width)`` into the prepared image by nearest pixel; what the original does not cover is `outside`."""
        inner = nearest(plane, self.inner_width, self.inner_height)
        whole = np.full((policy.height, policy.width), outside, dtype=plane.dtype)
        whole[self.top : self.top + self.inner_height, self.left : self.left + self.inner_width] = inner
        return whole

    def plane_out(self, plane: NDArray[Any]) -> NDArray[Any]:
        """Bring a label image of the prepared geometry to the original's ``(height, width)`` by nearest pixel."""
        return nearest(self._inner(plane), self.width, self.height)

    def values_out(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Bring a map of values ``(h, w)`` or ``(C, h, w)`` float32 of the prepared geometry to the original's size, linearly."""
        planes = values if values.ndim == 3 else values[None]
        size = (self.width, self.height)
        grown = np.stack([cv2.resize(np.ascontiguousarray(self._inner(one)), size, interpolation=cv2.INTER_LINEAR) for one in planes])
        return grown.astype(np.float32) if values.ndim == 3 else grown[0].astype(np.float32)

    def _inner(self, plane: NDArray[Any]) -> NDArray[Any]:
        return plane[self.top : self.top + self.inner_height, self.left : self.left + self.inner_width]

    def _scales(self) -> NDArray[np.float64]:
        return np.array([self.scale_x, self.scale_y] * 2)

    def _corner(self) -> NDArray[np.float64]:
        return np.array([self.left, self.top] * 2, dtype=np.float64)


def place(width: int, height: int, policy: InputPolicy) -> Placement:
    """Say where an original of this size (pixels) lies in what `oteo_core.images.prepare` makes of it under a policy."""
    if policy.resize == "stretch":
        return Placement(width, height, 0, 0, policy.width, policy.height)
    scale = min(policy.width / width, policy.height / height)
    inner_width = min(policy.width, max(1, round(width * scale)))
    inner_height = min(policy.height, max(1, round(height * scale)))
    return Placement(width, height, (policy.width - inner_width) // 2, (policy.height - inner_height) // 2, inner_width, inner_height)


def nearest(plane: NDArray[Any], width: int, height: int) -> NDArray[Any]:
    """Bring a label image ``(h, w)`` of any dtype to another size by nearest pixel, by centres."""
    if plane.shape == (height, width):
        return plane
    rows = np.minimum(((np.arange(height) + 0.5) * plane.shape[0] / height).astype(np.int64), plane.shape[0] - 1)
    columns = np.minimum(((np.arange(width) + 0.5) * plane.shape[1] / width).astype(np.int64), plane.shape[1] - 1)
    return np.ascontiguousarray(plane[rows[:, None], columns[None, :]])
