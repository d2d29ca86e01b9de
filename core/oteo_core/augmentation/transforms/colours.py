"""Colours shifted, and images in other colour spaces."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from oteo_core.augmentation.transforms.base import Span, UnitTransform

CHANNELS = ("all", "any", "red", "green", "blue")


class ColorShift(UnitTransform):
    """Adds to the channels of an RGB image.

    Parameters
    ----------
    shift
        What is added, as a share of the full range.
    channel
        "all": to each channel a draw of its own; "any": to one that is drawn; or "red", "green", "blue".
    p
        How likely it is applied.
    """

    def __init__(self, shift: Span = (-0.08, 0.08), channel: str = "all", p: float = 1.0) -> None:
        super().__init__(p=p)
        self.shift = shift
        self.channel = channel

    def get_params(self) -> dict[str, Any]:
        """Draw what is added to each channel."""
        shifts = [self.draw(self.shift) for _ in range(3)]
        if self.channel != "all":
            one = self.py_random.randrange(3) if self.channel == "any" else CHANNELS.index(self.channel) - 2
            shifts = [shift if number == one else 0.0 for number, shift in enumerate(shifts)]
        return {"shifts": shifts}

    def change(self, pixels: NDArray[np.float32], **params: Any) -> NDArray[np.float32]:
        """Add."""
        return pixels + np.array(params["shifts"], np.float32)


class ColorSpace(UnitTransform):
    """Gives the channels of another colour space in place of red, green and blue, each scaled to the full range.

    Parameters
    ----------
    space
        "hsv": hue, saturation, value. "lab": lightness, and the two colour axes of CIE 1976 L*a*b* with their zero in the middle.
    p
        How likely it is applied.
    """

    def __init__(self, space: str = "hsv", p: float = 1.0) -> None:
        super().__init__(p=p)
        self.space = space

    def get_params(self) -> dict[str, Any]:
        """Draw nothing."""
        return {}

    def change(self, pixels: NDArray[np.float32], **params: Any) -> NDArray[np.float32]:
        """Convert."""
        if self.space == "hsv":
            hsv = np.asarray(cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2HSV), np.float32)
            return np.asarray(hsv / np.array([360, 1, 1], np.float32), np.float32)
        lab = np.asarray(cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2LAB), np.float32)
        return np.asarray((lab + np.array([0, 128, 128], np.float32)) / np.array([100, 255, 255], np.float32), np.float32)
