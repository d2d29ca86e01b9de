"""Filters that albumentations has for 8 bits alone, or not at all."""

from __future__ import annotations

from typing import Any

import albumentations
import cv2
import numpy as np
from numpy.typing import NDArray

from oteo_core.augmentation.transforms.base import Span, UnitTransform


class MedianBlur(albumentations.ImageOnlyTransform):  # type: ignore[misc]
    """Gives each pixel the median of its neighbourhood.

    Parameters
    ----------
    kernel
        Side of the neighbourhood in pixels: 1 (nothing), 3 or 5; beyond, OpenCV knows 8 bits alone.
    p
        How likely it is applied.
    """

    def __init__(self, kernel: tuple[int, int] = (3, 5), p: float = 1.0) -> None:
        super().__init__(p=p)
        self.kernel = kernel

    def get_params(self) -> dict[str, Any]:
        """Draw the side."""
        return {"side": 2 * self.py_random.randint(self.kernel[0] // 2, self.kernel[1] // 2) + 1}

    def apply(self, img: NDArray[Any], side: int = 1, **params: Any) -> NDArray[Any]:
        """Filter an image of up to four channels of uint8, uint16 or float32."""
        return img if side == 1 else np.asarray(cv2.medianBlur(np.ascontiguousarray(img), side)).reshape(img.shape)


class BilateralBlur(UnitTransform):
    """Blurs what is alike and keeps edges (Tomasi and Manduchi, "Bilateral filtering for gray and color images", 1998).

    Parameters
    ----------
    sigma_color
        Difference of brightness up to which pixels count as alike, as a share of the full range.
    sigma_space
        Standard deviation of the blur, in pixels.
    p
        How likely it is applied.
    """

    def __init__(self, sigma_color: Span = (0.05, 0.15), sigma_space: Span = (1.0, 2.0), p: float = 1.0) -> None:
        super().__init__(p=p)
        self.sigma_color = sigma_color
        self.sigma_space = sigma_space

    def get_params(self) -> dict[str, Any]:
        """Draw both."""
        return {"colour": self.draw(self.sigma_color), "space": self.draw(self.sigma_space)}

    def change(self, pixels: NDArray[np.float32], **params: Any) -> NDArray[np.float32]:
        """Blur; three channels together, others each by itself."""
        groups = [pixels] if pixels.shape[2] == 3 else [pixels[:, :, i] for i in range(pixels.shape[2])]
        diameter = 2 * int(np.ceil(2 * params["space"])) + 1
        done = [
            np.asarray(cv2.bilateralFilter(np.ascontiguousarray(group), diameter, params["colour"], params["space"])).reshape(
                *pixels.shape[:2], -1
            )
            for group in groups
        ]
        return np.concatenate(done, axis=2)


class LowResolution(UnitTransform):
    """Makes an image smaller and as large again, as of an objective or a scanner with fewer pixels.

    Parameters
    ----------
    scale
        Scale of the small image.
    p
        How likely it is applied.
    """

    def __init__(self, scale: Span = (0.5, 0.9), p: float = 1.0) -> None:
        super().__init__(p=p)
        self.scale = scale

    def get_params(self) -> dict[str, Any]:
        """Draw the scale."""
        return {"factor": self.draw(self.scale)}

    def change(self, pixels: NDArray[np.float32], **params: Any) -> NDArray[np.float32]:
        """Shrink by areas, enlarge by lines."""
        height, width = pixels.shape[:2]
        small = (max(1, round(width * params["factor"])), max(1, round(height * params["factor"])))
        if small == (width, height):
            return pixels
        shrunk = cv2.resize(np.ascontiguousarray(pixels), small, interpolation=cv2.INTER_AREA)
        return np.asarray(cv2.resize(shrunk, (width, height), interpolation=cv2.INTER_LINEAR)).reshape(pixels.shape)
