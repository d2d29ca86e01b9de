"""Outlines as signed distances: negative inside, positive outside, in the unit of the grid given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Field = npt.NDArray[np.float32]
"""A float32 array (height, width): one number a pixel."""


@dataclass(frozen=True, slots=True)
class Grid:
    """Coordinates of the pixels, in any unit and turned as one likes.

    Attributes
    ----------
    x, y
        float32 (height, width).
    """

    x: Field
    y: Field

    def local(self, x: float, y: float, scale: float, angle: float = 0.0) -> Grid:
        """Give the coordinates about a point, in units of `scale`, turned by `angle` radians."""
        dx, dy = (self.x - np.float32(x)) / np.float32(scale), (self.y - np.float32(y)) / np.float32(scale)
        cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        return Grid(dx * cos + dy * sin, dy * cos - dx * sin)


def pixel_grid(size: int) -> Grid:
    """Give the coordinates of a square image's pixel centres, pixels."""
    axis = np.arange(size, dtype=np.float32) + np.float32(0.5)
    x, y = np.meshgrid(axis, axis)
    return Grid(x, y)


def coverage(distance: Field, softness: float) -> Field:
    """Give the share of each pixel that lies inside, 0 to 1, with an edge as wide as `softness` (unit of the distance)."""
    t = np.clip(0.5 - distance / np.float32(softness), 0, 1)
    return _float32(t * t * (3 - 2 * t))


def disc(grid: Grid, x: float, y: float, radius: float) -> Field:
    """Give the signed distance to a disc."""
    return _float32(np.hypot(grid.x - np.float32(x), grid.y - np.float32(y)) - np.float32(radius))


def ellipse(grid: Grid, x: float, y: float, along: float, across: float, angle: float) -> Field:
    """Give the signed distance to an ellipse, near enough for half axes (`along`, `across`) that differ by less than 3."""
    local = grid.local(x, y, 1.0, angle)
    return _float32((np.hypot(local.x / np.float32(along), local.y / np.float32(across)) - 1) * np.float32(min(along, across)))


def capsule(grid: Grid, start: tuple[float, float], end: tuple[float, float], radius: float) -> Field:
    """Give the signed distance to a straight stroke of round ends."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    px, py = grid.x - np.float32(start[0]), grid.y - np.float32(start[1])
    t = np.clip((px * np.float32(dx) + py * np.float32(dy)) / np.float32(max(dx * dx + dy * dy, 1e-9)), 0, 1)
    return _float32(np.hypot(px - t * np.float32(dx), py - t * np.float32(dy)) - np.float32(radius))


def arc(grid: Grid, radius: float, span: float, thickness: float) -> Field:
    """Give the signed distance to a thick arc about the origin, symmetric to the positive x axis, `span` radians long."""
    angle = np.arctan2(grid.y, grid.x)
    bounded = np.clip(angle, -span / 2, span / 2).astype(np.float32)
    return np.hypot(grid.x - radius * np.cos(bounded), grid.y - radius * np.sin(bounded)).astype(np.float32) - np.float32(thickness)


def union(first: Field, second: Field, smooth: float) -> Field:
    """Join two shapes with a rounded seam as wide as `smooth` (polynomial smooth minimum)."""
    h = np.clip(0.5 + 0.5 * (second - first) / np.float32(smooth), 0, 1)
    return _float32(second + (first - second) * h - np.float32(smooth) * h * (1 - h))


def without(first: Field, second: Field, smooth: float) -> Field:
    """Take the second shape out of the first, with a rounded seam as wide as `smooth`."""
    return -union(-first, second, smooth)


def wobble(grid: Grid, rng: np.random.Generator, strength: float, lowest: int = 2, highest: int = 6) -> Field:
    """Give a smooth function of the direction from the origin, about `strength` in size: what makes an outline irregular."""
    angle = np.arctan2(grid.y, grid.x)
    total = np.zeros_like(grid.x)
    for order in range(lowest, highest + 1):
        amplitude, phase = rng.normal() * strength / np.sqrt(order - lowest + 1), rng.uniform(0, 2 * np.pi)
        total += np.float32(amplitude) * np.cos(np.float32(order) * angle + np.float32(phase))
    return total.astype(np.float32)


def texture(rng: np.random.Generator, size: int, grain: float) -> Field:
    """Give smooth noise of mean 0 and deviation 1 whose spots are about `grain` pixels wide."""
    sigma = max(grain / 2.0, 0.3)
    noise = rng.standard_normal((size, size), dtype=np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), sigma, borderType=cv2.BORDER_REFLECT)
    return _float32((smooth - smooth.mean()) / max(float(smooth.std()), 1e-6))


def _float32(values: npt.NDArray[np.floating[Any]]) -> Field:
    """Give the values as float32, without a copy where they are that already."""
    return np.asarray(values, dtype=np.float32)
