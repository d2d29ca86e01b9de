"""Crops and changes of size: a box of the image, brought to a size, with masks and points that follow to a fraction of a pixel.

albumentations' own take the nearest pixel of a mask with a bias of half a pixel, and leave points up to a pixel beside their image.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any

import albumentations
import cv2
import numpy as np
from numpy.typing import NDArray

from oteo_core.augmentation.transforms.base import Span

Box = tuple[int, int, int, int]
"""Left, top, right and bottom in pixels; right and bottom lie just outside."""
Size = tuple[int, int]
"""Height and width in pixels."""


class BoxTransform(albumentations.DualTransform):  # type: ignore[misc]
    """Takes a box of an image and brings it to a size.

    A subclass draws both in `choose`. Where the size is the box's own, pixels are copied and none is computed.
    """

    @abstractmethod
    def choose(self, height: int, width: int) -> tuple[Box, Size]:
        """Draw the box within an image and the size of the result."""

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        """Draw box and size."""
        height, width = params["shape"][:2]
        box, size = self.choose(int(height), int(width))
        return {"box": box, "size": size}

    def apply(self, img: NDArray[Any], box: Box, size: Size, **params: Any) -> NDArray[Any]:
        """Cut and resize an image."""
        larger = size[0] > box[3] - box[1] or size[1] > box[2] - box[0]
        return _resized(img, box, size, cv2.INTER_LINEAR if larger else cv2.INTER_AREA)

    def apply_to_mask(self, mask: NDArray[Any], box: Box, size: Size, **params: Any) -> NDArray[Any]:
        """Cut and resize a label image by the nearest pixel."""
        return _resized(mask, box, size, cv2.INTER_NEAREST_EXACT)

    def apply_to_keypoints(self, keypoints: NDArray[Any], box: Box, size: Size, **params: Any) -> NDArray[Any]:
        """Move points, counted from the middle of the upper left pixel."""
        scale = np.array([size[1] / (box[2] - box[0]), size[0] / (box[3] - box[1])])
        moved = np.array(keypoints)
        moved[:, :2] = (keypoints[:, :2] + 0.5 - (box[0], box[1])) * scale - 0.5
        return moved


def _resized(pixels: NDArray[Any], box: Box, size: Size, method: int) -> NDArray[Any]:
    left, top, right, bottom = box
    part = np.ascontiguousarray(pixels[top:bottom, left:right])
    if part.shape[:2] == tuple(size):
        return part
    return np.asarray(cv2.resize(part, (size[1], size[0]), interpolation=method)).reshape(*size, *pixels.shape[2:])


class RandomCrop(BoxTransform):
    """Cuts a box of a fixed size out of a place that is drawn; a side that is shorter stays as it is.

    Parameters
    ----------
    height, width
        Size of the box, in pixels.
    center
        True: out of the middle.
    p
        How likely it is applied.
    """

    def __init__(self, height: int = 224, width: int = 224, center: bool = False, p: float = 1.0) -> None:
        super().__init__(p=p)
        self.height = height
        self.width = width
        self.center = center

    def choose(self, height: int, width: int) -> tuple[Box, Size]:
        """Draw the place."""
        tall, wide = min(self.height, height), min(self.width, width)
        if self.center:
            top, left = (height - tall) // 2, (width - wide) // 2
        else:
            top, left = self.py_random.randint(0, height - tall), self.py_random.randint(0, width - wide)
        return (left, top, left + wide, top + tall), (tall, wide)


class RandomCropFromBorders(BoxTransform):
    """Cuts a share off each side, each drawn by itself.

    Parameters
    ----------
    share
        What is cut off one side, as a share of height or width.
    p
        How likely it is applied.
    """

    def __init__(self, share: Span = (0.0, 0.1), p: float = 1.0) -> None:
        super().__init__(p=p)
        self.share = share

    def choose(self, height: int, width: int) -> tuple[Box, Size]:
        """Draw the four shares."""
        left, right = (round(self.py_random.uniform(*self.share) * width) for _ in range(2))
        top, bottom = (round(self.py_random.uniform(*self.share) * height) for _ in range(2))
        left, top = min(left, width - 1), min(top, height - 1)
        box = (left, top, max(width - right, left + 1), max(height - bottom, top + 1))
        return box, (box[3] - box[1], box[2] - box[0])


class RandomResizedCrop(BoxTransform):
    """Cuts a part of a drawn area and shape and brings it to a size (Szegedy et al., "Going deeper with convolutions", 2015).

    Parameters
    ----------
    height, width
        Size of the result, in pixels.
    area
        Area of the part, as a share of the image's.
    ratio
        Width of the part by its height.
    p
        How likely it is applied.
    """

    def __init__(self, height: int = 224, width: int = 224, area: Span = (0.6, 1.0), ratio: Span = (0.85, 1.18), p: float = 1.0) -> None:
        super().__init__(p=p)
        self.height = height
        self.width = width
        self.area = area
        self.ratio = ratio

    def choose(self, height: int, width: int) -> tuple[Box, Size]:
        """Draw area, shape and place; the part is cut to the image where it would not fit."""
        area = self.py_random.uniform(*self.area) * height * width
        ratio = math.exp(self.py_random.uniform(math.log(self.ratio[0]), math.log(self.ratio[1])))
        wide = min(width, max(1, round(math.sqrt(area * ratio))))
        tall = min(height, max(1, round(math.sqrt(area / ratio))))
        top, left = self.py_random.randint(0, height - tall), self.py_random.randint(0, width - wide)
        return (left, top, left + wide, top + tall), (self.height, self.width)


class Resize(BoxTransform):
    """Brings the whole image to a size.

    Parameters
    ----------
    height, width
        The size, in pixels.
    p
        How likely it is applied.
    """

    def __init__(self, height: int = 512, width: int = 512, p: float = 1.0) -> None:
        super().__init__(p=p)
        self.height = height
        self.width = width

    def choose(self, height: int, width: int) -> tuple[Box, Size]:
        """Draw nothing."""
        return (0, 0, width, height), (self.height, self.width)


class RandomScale(BoxTransform):
    """Makes the whole image larger or smaller, height and width alike.

    Parameters
    ----------
    scale
        The factor.
    p
        How likely it is applied.
    """

    def __init__(self, scale: Span = (0.8, 1.25), p: float = 1.0) -> None:
        super().__init__(p=p)
        self.scale = scale

    def choose(self, height: int, width: int) -> tuple[Box, Size]:
        """Draw the factor."""
        factor = self.py_random.uniform(*self.scale)
        return (0, 0, width, height), (max(1, round(height * factor)), max(1, round(width * factor)))


class SideToSize(BoxTransform):
    """Scales the whole image so that one side has a length.

    Parameters
    ----------
    max_size
        The length, in pixels.
    side
        "longest" or "smallest".
    p
        How likely it is applied.
    """

    def __init__(self, max_size: int = 512, side: str = "longest", p: float = 1.0) -> None:
        super().__init__(p=p)
        self.max_size = max_size
        self.side = side

    def choose(self, height: int, width: int) -> tuple[Box, Size]:
        """Draw nothing."""
        factor = self.max_size / (max(height, width) if self.side == "longest" else min(height, width))
        return (0, 0, width, height), (max(1, round(height * factor)), max(1, round(width * factor)))
