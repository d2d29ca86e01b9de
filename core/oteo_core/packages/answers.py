"""What models say of an image, by task, and what is true of it: the same forms in training, evaluation and the gateway.

Everything is in pixels of the original image, origin at the upper left corner of its upper left pixel; class numbers are places in
`ModelPackage.classes`, from 0.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


def _empty_boxes() -> NDArray[np.float32]:
    return np.zeros((0, 4), dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Detections:
    """Objects found in one image.

    Parameters
    ----------
    boxes
        ``(M, 4)`` float32: left, top, right, bottom.
    scores
        ``(M,)`` float32, 0 to 1, falling.
    labels
        ``(M,)`` int64, class numbers.
    """

    boxes: NDArray[np.float32] = field(default_factory=_empty_boxes)
    scores: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, dtype=np.float32))
    labels: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))


@dataclass(frozen=True, slots=True)
class TrueBoxes:
    """Objects that are in one image.

    Parameters
    ----------
    boxes
        ``(M, 4)`` float32: left, top, right, bottom.
    labels
        ``(M,)`` int64, class numbers.
    crowd
        ``(M,)`` bool: regions of many objects that are not told apart; finding them counts neither for nor against (COCO's iscrowd).
    """

    boxes: NDArray[np.float32] = field(default_factory=_empty_boxes)
    labels: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    crowd: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, dtype=np.bool_))


IGNORED = 255
"""Number of pixels in `ClassMap.labels` that belong to no class and are left out of learning and measuring."""


@dataclass(frozen=True, slots=True)
class ClassMap:
    """A class for each pixel of one image, found or true.

    Parameters
    ----------
    labels
        ``(H, W)`` uint8: 0 background, ``k + 1`` class number ``k``, `IGNORED` in truths alone.
    """

    labels: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Instances:
    """Objects of one image with their masks, found or true; masks do not overlap.

    Parameters
    ----------
    ids
        ``(H, W)`` int32: 0 background, ``i + 1`` object ``i``; -1 in truths alone: left out of learning and measuring.
    labels
        ``(M,)`` int64, class number of each object.
    scores
        ``(M,)`` float32, 0 to 1; ones for truths.
    """

    ids: NDArray[np.int32]
    labels: NDArray[np.int64]
    scores: NDArray[np.float32]
