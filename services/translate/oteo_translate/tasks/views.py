"""Other views of an image, and answers brought back from them: a model that understands an image answers alike to all of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oteo_core.packages.answers import ClassMap, Detections, Instances


@dataclass(frozen=True, slots=True)
class View:
    """A movement that loses nothing, and a mild change of the look.

    Parameters
    ----------
    mirrored
        Left and right exchanged, before turning.
    quarters
        Quarter turns, against the clock.
    gamma
        Exponent of the values of 0 to 1; above 1 is darker.
    """

    mirrored: bool = False
    quarters: int = 0
    gamma: float = 1.0

    def image(self, images: NDArray[Any]) -> NDArray[Any]:
        """Give the view of ``(N, H, W, C)`` uint8 or float32 of 0 to 1."""
        moved = images[:, :, ::-1] if self.mirrored else images
        if self.quarters:
            moved = np.rot90(moved, self.quarters, axes=(1, 2))
        if self.gamma == 1.0:
            return np.ascontiguousarray(moved)
        if moved.dtype == np.uint8:
            table = np.rint(255.0 * (np.arange(256) / 255.0) ** self.gamma).astype(np.uint8)
            return np.ascontiguousarray(table[moved])
        return np.ascontiguousarray(np.clip(moved, 0.0, 1.0) ** np.float32(self.gamma)).astype(moved.dtype)

    def back(self, answer: Any, height: int, width: int) -> Any:
        """Bring an answer to the view into the image's own geometry, `height` x `width`; probabilities of classes stay as they are."""
        if isinstance(answer, ClassMap):
            return ClassMap(self._plane(answer.labels))
        if isinstance(answer, Instances):
            return Instances(self._plane(answer.ids), answer.labels, answer.scores)
        if isinstance(answer, Detections):
            return Detections(self._boxes(answer.boxes, height, width), answer.scores, answer.labels)
        return answer

    def _plane(self, plane: NDArray[Any]) -> NDArray[Any]:
        turned = np.rot90(plane, -self.quarters) if self.quarters else plane
        return np.ascontiguousarray(turned[:, ::-1] if self.mirrored else turned)

    def _boxes(self, boxes: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
        left, top, right, bottom = (boxes[:, place].astype(np.float64) for place in range(4))
        # One turn back at a time; the view's own size changes with each.
        high, wide = (width, height) if self.quarters % 2 else (height, width)
        for _ in range(self.quarters % 4):
            left, top, right, bottom = high - bottom, left, high - top, right
            high, wide = wide, high
        if self.mirrored:
            left, right = wide - right, wide - left
        return np.stack([left, top, right, bottom], axis=1).astype(np.float32)


def usual_views(height: int, width: int) -> tuple[View, ...]:
    """Give the views that agreement is measured by: mirrored and a little lighter, turned and a little darker (turned once where images are square)."""
    return View(mirrored=True, gamma=0.85), View(quarters=1 if height == width else 2, gamma=1.2)
