"""Contrast drawn from an image's own histogram, at any depth."""

from __future__ import annotations

from typing import Any

import albumentations
import cv2
import numpy as np
from numpy.typing import NDArray

from oteo_core.augmentation.transforms.base import Span, UnitTransform, luma
from oteo_core.errors import InvalidArgument

_LEVELS = 65536


class Equalize(UnitTransform):
    """Spreads the grey values so that each is about as frequent as the others.

    Three channels keep their differences: the brightness is spread, and what it changes by is added to all three.

    Parameters
    ----------
    blend
        Share of the spread image in the result.
    p
        How likely it is applied.
    """

    def __init__(self, blend: Span = (0.1, 0.5), p: float = 1.0) -> None:
        super().__init__(p=p)
        self.blend = blend

    def get_params(self) -> dict[str, Any]:
        """Draw the share."""
        return {"share": self.draw(self.blend)}

    def change(self, pixels: NDArray[np.float32], **params: Any) -> NDArray[np.float32]:
        """Spread."""
        share = np.float32(params["share"])
        if share == 0:
            return pixels
        if pixels.shape[2] == 3:
            grey = luma(pixels)
            return pixels + (share * (_spread(grey) - grey))[:, :, None]
        spread = np.stack([_spread(pixels[:, :, number]) for number in range(pixels.shape[2])], axis=2)
        return pixels + share * (spread - pixels)


def _spread(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    levels = np.rint(np.clip(grey, 0, 1) * (_LEVELS - 1)).astype(np.int64)
    sums = np.cumsum(np.bincount(levels.ravel(), minlength=_LEVELS))
    lowest = sums[levels.min()]
    if lowest == sums[-1]:
        return grey
    result: NDArray[np.float32] = ((sums - lowest) / (sums[-1] - lowest)).astype(np.float32)[levels]
    return result


class AutoContrast(UnitTransform):
    """Stretches the grey values to the full range, all channels alike.

    Parameters
    ----------
    cutoff
        Share of the darkest and of the brightest pixels that may be lost, percent.
    blend
        Share of the stretched image in the result.
    p
        How likely it is applied.
    """

    def __init__(self, cutoff: Span = (0.0, 1.0), blend: Span = (0.1, 0.5), p: float = 1.0) -> None:
        super().__init__(p=p)
        self.cutoff = cutoff
        self.blend = blend

    def get_params(self) -> dict[str, Any]:
        """Draw both shares."""
        return {"percent": self.draw(self.cutoff), "share": self.draw(self.blend)}

    def change(self, pixels: NDArray[np.float32], **params: Any) -> NDArray[np.float32]:
        """Stretch."""
        share = np.float32(params["share"])
        low, high = np.percentile(pixels, (params["percent"], 100 - params["percent"]))
        if share == 0 or high <= low:
            return pixels
        stretched = np.clip((pixels - np.float32(low)) / np.float32(high - low), 0, 1)
        return np.asarray(pixels + share * (stretched - pixels), np.float32)


class CLAHE(albumentations.ImageOnlyTransform):  # type: ignore[misc]
    """Equalises by tiles, with a limit to what is raised (Zuiderveld, "Contrast limited adaptive histogram equalization", 1994).

    Three channels keep their differences, as in `Equalize`; others are equalised each by itself.

    Parameters
    ----------
    clip_limit
        How many times its even share a grey value may count.
    tile_grid_size
        Rows and columns of tiles.
    p
        How likely it is applied.
    """

    def __init__(self, clip_limit: Span = (1.0, 2.0), tile_grid_size: tuple[int, int] = (8, 8), p: float = 1.0) -> None:
        super().__init__(p=p)
        self.clip_limit = clip_limit
        self.tile_grid_size = tile_grid_size

    def get_params(self) -> dict[str, Any]:
        """Draw the limit."""
        return {"limit": self.py_random.uniform(*self.clip_limit)}

    def apply(self, img: NDArray[Any], limit: float = 1.0, **params: Any) -> NDArray[Any]:
        """Equalise an image ``(H, W)`` or ``(H, W, C)`` of uint8 or uint16."""
        if img.dtype not in (np.uint8, np.uint16):
            raise InvalidArgument(f"CLAHE takes uint8 and uint16; the image has {img.dtype.name}", reason="TRANSFORM_NOT_DEFINED")
        pixels = img if img.ndim == 3 else img[:, :, None]
        rows, columns = self.tile_grid_size
        method = cv2.createCLAHE(clipLimit=limit, tileGridSize=(columns, rows))
        if pixels.shape[2] == 3:
            grey = np.rint(luma(pixels.astype(np.float32))).astype(img.dtype)
            change = method.apply(grey).astype(np.int32) - grey.astype(np.int32)
            changed = np.clip(pixels.astype(np.int32) + change[:, :, None], 0, np.iinfo(img.dtype).max)
        else:
            changed = np.stack([method.apply(np.ascontiguousarray(pixels[:, :, i])) for i in range(pixels.shape[2])], axis=2)
        return np.asarray(changed.astype(img.dtype).reshape(img.shape))
