"""What the transforms of this package share: they compute in float32 from 0 to 1 and give back the type that came."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import albumentations
import numpy as np
from numpy.typing import NDArray

from oteo_core.errors import InvalidArgument

Span = tuple[float, float]
"""Lowest and highest value of a draw."""


class UnitTransform(albumentations.ImageOnlyTransform):  # type: ignore[misc]
    """A transform of brightness.

    A subclass draws in `get_params`, from ``self.py_random`` and ``self.random_generator`` alone, and changes pixels in `change`,
    which must do the same for the same draw. Where a draw is as large as the image, such as noise, it draws the seed of a
    generator instead, so that what was drawn stays small enough to be written down.

    Floating-point pixels are held to be from 0 to 1; the catalogue says so, and what applies policies scales or refuses others.
    """

    def apply(self, img: NDArray[Any], **params: Any) -> NDArray[Any]:
        """Change an image ``(H, W)`` or ``(H, W, C)`` of uint8, uint16 or float32; shape and type stay."""
        pixels = img if img.ndim == 3 else img[:, :, None]
        if img.dtype == np.float32:
            result = np.clip(self.change(pixels, **params), 0.0, 1.0).astype(np.float32, copy=False)
        elif img.dtype in (np.uint8, np.uint16):
            top = np.float32(np.iinfo(img.dtype).max)
            changed = self.change(pixels.astype(np.float32) / top, **params)
            result = np.rint(np.clip(changed, 0.0, 1.0) * top).astype(img.dtype)
        else:
            raise InvalidArgument(
                f"{type(self).__name__} takes uint8, uint16 and float32; the image has {img.dtype.name}", reason="TRANSFORM_NOT_DEFINED"
            )
        return result.reshape(img.shape)

    @abstractmethod
    def change(self, pixels: NDArray[np.float32], **params: Any) -> NDArray[np.float32]:
        """Give the changed image.

        Parameters
        ----------
        pixels
            ``(H, W, C)``, float32, 0 to 1; not to be written to.
        **params
            What `get_params` drew.

        Returns
        -------
        numpy.ndarray
            ``(H, W, C)``, float32; what lies beyond 0 to 1 is cut off by the caller.
        """

    def draw(self, span: Sequence[float]) -> float:
        """Draw a number evenly between two."""
        return float(self.py_random.uniform(span[0], span[1]))

    def draw_seed(self) -> int:
        """Draw the seed of a generator for `seeded`."""
        return int(self.random_generator.integers(0, 2**63))


def seeded(seed: int) -> np.random.Generator:
    """Give the generator of a drawn seed."""
    return np.random.Generator(np.random.Philox(key=seed))


def luma(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Give the brightness ``(H, W)`` of an RGB image ``(H, W, 3)``, with the weights of ITU-R BT.601."""
    return pixels @ np.array([0.299, 0.587, 0.114], np.float32)
