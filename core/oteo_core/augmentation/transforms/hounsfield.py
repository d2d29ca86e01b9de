"""The grey curve of computed tomography, bent within a window of Hounsfield units."""

from __future__ import annotations

from typing import Any

import albumentations
import numpy as np
from numpy.typing import NDArray

from oteo_core.augmentation.transforms.base import Span
from oteo_core.errors import InvalidArgument

WINDOWS = {
    "brain": (40.0, 80.0),
    "soft_tissue": (40.0, 400.0),
    "liver": (60.0, 160.0),
    "lung": (-600.0, 1500.0),
    "bone": (400.0, 1800.0),
}
"""Level and width of the usual windows, in Hounsfield units."""


class HounsfieldGamma(albumentations.ImageOnlyTransform):  # type: ignore[misc]
    """Raises values within a window to a power, and leaves those outside as they are, so that units keep their meaning there.

    Pixels that are no numbers stay so.

    Parameters
    ----------
    gamma
        The power.
    window
        Name of a window of `WINDOWS`.
    p
        How likely it is applied.
    """

    def __init__(self, gamma: Span = (0.8, 1.25), window: str = "soft_tissue", p: float = 1.0) -> None:
        super().__init__(p=p)
        self.gamma = gamma
        self.window = window

    def get_params(self) -> dict[str, Any]:
        """Draw the power."""
        return {"power": self.py_random.uniform(*self.gamma)}

    def apply(self, img: NDArray[Any], power: float = 1.0, **params: Any) -> NDArray[Any]:
        """Bend the curve of an image ``(H, W)`` or ``(H, W, C)`` of float32, in Hounsfield units."""
        if img.dtype != np.float32:
            raise InvalidArgument(
                f"HounsfieldGamma takes float32 in Hounsfield units; the image has {img.dtype.name}", reason="TRANSFORM_NOT_DEFINED"
            )
        if power == 1:
            return img
        level, width = WINDOWS[self.window]
        # Within the image's own values, too, so that none goes beyond them; fmin and fmax pass over what is no number.
        low = max(level - width / 2, float(np.fmin.reduce(img, axis=None)))
        high = min(level + width / 2, float(np.fmax.reduce(img, axis=None)))
        if not low < high:
            return img
        share = (img - np.float32(low)) / np.float32(high - low)
        inside = (share > 0) & (share < 1)
        bent = np.power(share, np.float32(power), out=np.zeros_like(share), where=inside)
        return np.where(inside, np.float32(low) + bent * np.float32(high - low), img)
