"""Images of one domain, all prepared alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Domain:
    """Images of one hospital, scanner or stain.

    Parameters
    ----------
    name
        ``"datasets/{id}"``, for messages.
    images
        ``(N, H, W, C)`` uint8, or float32 of 0 to 1, as `oteo_core.images.prepare` gives them; may be a memory map.
    ids
        Sample ids, N.
    groups
        What belongs together (a patient, a slide), N: statistics resample whole groups.
    truths
        What is right, N in the form of the task's answers in the geometry of `images`: int labels of classification, ``(K,)`` bool of several labels,
        `TrueBoxes`, `ClassMap`, `Instances`; None for an image without annotation. Empty: nothing is annotated.
    """

    name: str
    images: NDArray[Any]
    ids: Sequence[str]
    groups: Sequence[str]
    truths: Sequence[Any] = field(default=())

    def __len__(self) -> int:
        return len(self.images)

    @property
    def channels(self) -> int:
        """Of the images."""
        return int(self.images.shape[3])

    def take(self, rows: NDArray[np.int64]) -> Domain:
        """Give some of the images."""
        chosen = [int(row) for row in rows]
        return Domain(
            self.name,
            self.images[np.asarray(chosen, dtype=np.int64)],
            [self.ids[row] for row in chosen],
            [self.groups[row] for row in chosen],
            [self.truths[row] for row in chosen] if len(self.truths) else (),
        )


def to_unit(pixels: NDArray[Any], white: float) -> NDArray[np.float32]:
    """Bring stored pixels to float32 of 0 to 1; `white` is the value of 1 (255, 4095, 65535, 1.0)."""
    return np.asarray(pixels, dtype=np.float32) / np.float32(white)


def from_unit(values: NDArray[np.float32], like: NDArray[Any], white: float) -> NDArray[Any]:
    """Bring float32 of 0 to 1 back to the type of `like`: integers are rounded and cut off at 0 and `white`, floats are kept as they are."""
    scaled = values * np.float32(white)
    if like.dtype.kind == "f":
        return np.asarray(scaled, dtype=like.dtype)
    return np.asarray(np.clip(np.rint(scaled), 0, white), dtype=like.dtype)
