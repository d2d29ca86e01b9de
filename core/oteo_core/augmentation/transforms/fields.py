"""Distortions by a smooth field of displacements, under which points follow the image to a small fraction of a pixel.

albumentations' own move points by the displacement at the point's old place, which is up to two pixels off; here the field is
inverted.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import albumentations
import cv2
import numpy as np
from numpy.typing import NDArray

from oteo_core.augmentation.transforms.base import Span, seeded

Field = NDArray[np.float32]
"""``(H, W, 2)``: what is added to x and y of a pixel of the result to find where it came from, in pixels."""
_STEEPEST = 0.5
"""Change of the displacement from one pixel to the next that is never exceeded: below 1 the field cannot fold."""


class FieldTransform(albumentations.DualTransform):  # type: ignore[misc]
    """Moves pixels by a field.

    A subclass draws a few numbers in `get_params` and makes the field of them in `field`.

    Attributes
    ----------
    border_mode, fill
        OpenCV's way to fill what comes in from outside, and the colour for its constant way; the applier sets them.
    """

    def __init__(self, p: float = 1.0) -> None:
        super().__init__(p=p)
        self.border_mode: int = cv2.BORDER_REFLECT_101
        self.fill: tuple[float, ...] | float = 0.0
        self._last: tuple[Any, Field] | None = None

    @abstractmethod
    def field(self, height: int, width: int, **params: Any) -> Field:
        """Give the field of a draw, ``(H, W, 2)`` float32."""

    def apply(self, img: NDArray[Any], **params: Any) -> NDArray[Any]:
        """Move an image of up to four channels."""
        return self._moved(img, cv2.INTER_LINEAR, self.border_mode, self.fill, params)

    def apply_to_mask(self, mask: NDArray[Any], **params: Any) -> NDArray[Any]:
        """Move a label image by the nearest pixel; from outside comes background, or what the image's border gives."""
        return self._moved(mask, cv2.INTER_NEAREST, self.border_mode, 0.0, params)

    def apply_to_keypoints(self, keypoints: NDArray[Any], **params: Any) -> NDArray[Any]:
        """Move points: find, for each, the place that its surroundings were moved to."""
        field = self.displacements(params)
        start = np.asarray(keypoints[:, :2], np.float64)
        place = start.copy()
        for _ in range(40):
            # The steps shrink at least by half each, as the field is no steeper than that.
            following = start - _sampled(field, place)
            done = np.abs(following - place).max(initial=0.0) < 1e-3
            place = following
            if done:
                break
        moved = np.array(keypoints)
        moved[:, :2] = place
        return moved

    def displacements(self, params: dict[str, Any]) -> Field:
        """Give the field of what was drawn, ``shape`` included."""
        drawn = {name: value for name, value in params.items() if name in self._drawn}
        height, width = (int(side) for side in params["shape"][:2])
        key = (height, width, drawn)
        # The image, its mask and its points are moved one after the other by the same draw.
        if self._last is None or self._last[0] != key:
            self._last = key, self.field(height, width, **drawn)
        return self._last[1]

    _drawn: frozenset[str] = frozenset()
    """Names of what `get_params` draws."""

    def _moved(self, pixels: NDArray[Any], method: int, border: int, fill: Any, params: dict[str, Any]) -> NDArray[Any]:
        field = self.displacements(params)
        height, width = pixels.shape[:2]
        across = np.arange(width, dtype=np.float32)[None, :] + field[:, :, 0]
        down = np.arange(height, dtype=np.float32)[:, None] + field[:, :, 1]
        value = fill if isinstance(fill, tuple) else (float(fill),) * 4
        moved = cv2.remap(np.ascontiguousarray(pixels), across, down, method, borderMode=border, borderValue=value)
        return np.asarray(moved).reshape(pixels.shape)


def _sampled(field: Field, places: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give the field between its pixels, ``(N, 2)``; beyond the edge that of the edge."""
    height, width = field.shape[:2]
    x, y = np.clip(places[:, 0], 0, width - 1), np.clip(places[:, 1], 0, height - 1)
    left, top = np.minimum(x.astype(int), max(width - 2, 0)), np.minimum(y.astype(int), max(height - 2, 0))
    right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    u, v = (x - left)[:, None], (y - top)[:, None]
    upper = field[top, left] * (1 - u) + field[top, right] * u
    lower = field[bottom, left] * (1 - u) + field[bottom, right] * u
    return np.asarray(upper * (1 - v) + lower * v, np.float64)


class ElasticTransform(FieldTransform):
    """Bends as soft tissue under a cover glass: random displacements, smoothed.

    Simard et al., "Best practices for convolutional neural networks applied to visual document analysis", 2003. Where it would fold,
    the displacement is made smaller.

    Parameters
    ----------
    displacement
        Root mean square of the displacement along each axis, as a share of the shorter side.
    smoothness
        Distance over which the displacement changes, as a share of the shorter side.
    p
        How likely it is applied.
    """

    _drawn = frozenset({"amount", "distance", "seed"})

    def __init__(self, displacement: Span = (0.005, 0.02), smoothness: Span = (0.1, 0.2), p: float = 1.0) -> None:
        super().__init__(p=p)
        self.displacement = displacement
        self.smoothness = smoothness

    def get_params(self) -> dict[str, Any]:
        """Draw strength, smoothness and the seed of the displacements."""
        return {
            "amount": self.py_random.uniform(*self.displacement),
            "distance": self.py_random.uniform(*self.smoothness),
            "seed": int(self.random_generator.integers(0, 2**63)),
        }

    def field(self, height: int, width: int, **params: Any) -> Field:
        """Give displacements drawn on a coarse grid and smoothed between its points."""
        side = min(height, width)
        distance = max(params["distance"] * side, 1.0)
        rows, columns = (max(4, round(length / distance) + 3) for length in (height, width))
        coarse = seeded(params["seed"]).standard_normal((rows, columns, 2), np.float32)
        coarse = cv2.GaussianBlur(coarse, (0, 0), 0.7, borderType=cv2.BORDER_REFLECT_101)
        field = np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), np.float32)
        spread = float(np.sqrt(np.mean(field**2)))
        field = field * np.float32(params["amount"] * side / max(spread, 1e-6))
        # The largest slope in any direction is at most twice the largest along one axis.
        slope = max(float(np.abs(np.diff(field, axis=axis)).max(initial=0.0)) for axis in (0, 1))
        return field * np.float32(min(1.0, _STEEPEST / 2 / max(slope, 1e-9)))


class OpticalDistortion(FieldTransform):
    """Bends straight lines outwards or inwards, as wide lenses and endoscopes do: the radius grows by its third power.

    Brown, "Decentering distortion of lenses", 1966, its first radial term.

    Parameters
    ----------
    strength
        Displacement in the corner as a share of the half diagonal; above 0 a barrel, below a cushion.
    p
        How likely it is applied.
    """

    _drawn = frozenset({"corner"})

    def __init__(self, strength: Span = (-0.08, 0.08), p: float = 1.0) -> None:
        super().__init__(p=p)
        self.strength = strength

    def get_params(self) -> dict[str, Any]:
        """Draw the strength."""
        return {"corner": self.py_random.uniform(*self.strength)}

    def field(self, height: int, width: int, **params: Any) -> Field:
        """Give the radial field."""
        y = (np.arange(height) - (height - 1) / 2)[:, None]
        x = (np.arange(width) - (width - 1) / 2)[None, :]
        squared = (x**2 + y**2) / max((height**2 + width**2) / 4, 1e-9)
        field = np.empty((height, width, 2), np.float32)
        field[:, :, 0], field[:, :, 1] = params["corner"] * squared * x, params["corner"] * squared * y
        return field
