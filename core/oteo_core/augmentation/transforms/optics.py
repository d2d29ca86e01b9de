"""Faults of a microscope's optics."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from oteo_core.augmentation.transforms.base import Span, UnitTransform

_FINE = 8
"""Parts of a pixel's side at which the disc is sampled, so that its radius may be a fraction of a pixel."""


class MicroscopeDefocus(UnitTransform):
    """Out of focus: every point becomes an even disc, as geometrical optics has it (Stokseth, 1969).

    Parameters
    ----------
    radius
        Radius of the disc, in pixels.
    p
        How likely it is applied.
    """

    def __init__(self, radius: Span = (0.7, 2.0), p: float = 1.0) -> None:
        super().__init__(p=p)
        self.radius = radius

    def get_params(self) -> dict[str, Any]:
        """Draw the radius."""
        return {"pixels_radius": self.draw(self.radius)}

    def change(self, pixels: NDArray[np.float32], **params: Any) -> NDArray[np.float32]:
        """Blur."""
        kernel = disc_kernel(params["pixels_radius"])
        if kernel.size == 1:
            return pixels
        blurred: NDArray[np.float32] = cv2.filter2D(np.ascontiguousarray(pixels), -1, kernel, borderType=cv2.BORDER_REFLECT_101)
        return np.asarray(blurred.reshape(pixels.shape))


def disc_kernel(radius: float) -> NDArray[np.float32]:
    """Give an even disc as a square kernel of odd side whose sum is 1: each pixel has the share of it that the disc covers."""
    half = max(0, math.ceil(radius - 0.5))
    side = 2 * half + 1
    steps = (np.arange(side * _FINE) + 0.5) / _FINE - side / 2
    covered = (steps[:, None] ** 2 + steps[None, :] ** 2 <= radius**2).astype(np.float64)
    kernel = covered.reshape(side, _FINE, side, _FINE).sum(axis=(1, 3))
    if kernel.sum() == 0:
        kernel[half, half] = 1.0
    return np.asarray(kernel / kernel.sum(), np.float32)


class Vignette(UnitTransform):
    """Darkens towards the edge of the field of view, by the fourth power of the cosine, with the optical axis a little off.

    Kingslake, "Optical System Design", 1983, on natural vignetting.

    Parameters
    ----------
    strength
        Share of the light that is lost at the farthest corner.
    offset
        How far the axis lies from the middle, as a share of the side.
    p
        How likely it is applied.
    """

    def __init__(self, strength: Span = (0.1, 0.4), offset: Span = (-0.1, 0.1), p: float = 1.0) -> None:
        super().__init__(p=p)
        self.strength = strength
        self.offset = offset

    def get_params(self) -> dict[str, Any]:
        """Draw the loss and the axis."""
        return {"loss": self.draw(self.strength), "axis": (self.draw(self.offset), self.draw(self.offset))}

    def change(self, pixels: NDArray[np.float32], **params: Any) -> NDArray[np.float32]:
        """Darken."""
        height, width = pixels.shape[:2]
        across, down = params["axis"]
        y = (np.arange(height) + 0.5 - height * (0.5 + down))[:, None]
        x = (np.arange(width) + 0.5 - width * (0.5 + across))[None, :]
        squared = (x**2 + y**2) / max(float((x**2).max() + (y**2).max()), 1e-9)
        # cos^4 of an angle whose tangent is proportional to the distance, so that the loss is as asked at the farthest corner.
        tangent = 1 / math.sqrt(max(1 - params["loss"], 1e-3)) - 1
        field = (1 / (1 + tangent * squared) ** 2).astype(np.float32)
        return np.asarray(pixels * field[:, :, None])
