"""Boxes that several overlapping windows saw of the same objects, put together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from oteo_core.packages.decoding.detection import inside, overlaps

if TYPE_CHECKING:
    from oteo_gateway.prediction.tiling import Tiles

_SAME_OBJECT = 0.5
_PART_OF = 0.7


@dataclass(frozen=True, slots=True)
class Seen:
    """Boxes on the canvas.

    Attributes
    ----------
    boxes
        ``(M, 4)`` left, top, right, bottom, prepared pixels of the canvas.
    scores, classes
        ``(M,)``.
    cut
        ``(M,)``: whether it reached an edge of its window that is none of the image's.
    owners
        ``(M,)``: number of the window that saw it; -1: put together of several windows' pieces.
    """

    boxes: NDArray[np.float64]
    scores: NDArray[np.float32]
    classes: NDArray[np.int64]
    cut: NDArray[np.bool_]
    owners: NDArray[np.int64]

    def take(self, rows: NDArray[np.int64]) -> Seen:
        """Give some of them."""
        return Seen(self.boxes[rows], self.scores[rows], self.classes[rows], self.cut[rows], self.owners[rows])


def together(found: Sequence[Seen], tiles: Tiles) -> Seen:
    """Put pieces together that two windows saw of an object which an edge of each cuts: what lies where both look is alike.

    Parameters
    ----------
    found
        What each window saw, in the order of the windows.
    tiles
        Where the windows lie.
    """
    whole = Seen(*(np.concatenate([getattr(one, name) for one in found]) for name in Seen.__dataclass_fields__))
    begins = np.cumsum([0, *(len(one.scores) for one in found)])
    pairs = []
    for first, second, shared in _neighbours(tiles):
        mine, others = found[first], found[second]
        a, b = np.flatnonzero(mine.cut), np.flatnonzero(others.cut)
        if not len(a) or not len(b):
            continue
        alike = overlaps(_clipped(mine.boxes[a], shared), _clipped(others.boxes[b], shared)) >= _SAME_OBJECT
        alike &= mine.classes[a][:, None] == others.classes[b][None]
        rows, columns = np.nonzero(alike)
        pairs.append(np.stack([a[rows] + begins[first], b[columns] + begins[second]], axis=1))
    linked = np.concatenate(pairs) if pairs else np.zeros((0, 2), dtype=np.int64)
    if not len(linked):
        return whole
    count = len(whole.scores)
    _, groups = connected_components(coo_array((np.ones(len(linked)), (linked[:, 0], linked[:, 1])), shape=(count, count)), directed=False)
    members = np.bincount(groups)
    single = np.flatnonzero(members[groups] == 1)
    joined = [np.flatnonzero(groups == group) for group in np.flatnonzero(members > 1)]
    return Seen(
        np.concatenate([whole.boxes[single], np.stack([_around(whole.boxes[rows]) for rows in joined])]),
        np.concatenate([whole.scores[single], [whole.scores[rows].max() for rows in joined]]).astype(np.float32),
        np.concatenate([whole.classes[single], [whole.classes[rows[0]] for rows in joined]]).astype(np.int64),
        np.concatenate([whole.cut[single], np.ones(len(joined), dtype=np.bool_)]),
        np.concatenate([whole.owners[single], np.full(len(joined), -1)]).astype(np.int64),
    )


def once(seen: Seen) -> Seen:
    """Keep each object once: whole ones before what was put together before mere pieces, then by score.

    What another window saw too gives way, and so does a piece of what another saw whole. What one window saw stands side by side there:
    its own suppression has been applied.
    """
    kept = np.zeros(len(seen.scores), dtype=np.bool_)
    rank = np.where(~seen.cut, 0, np.where(seen.owners < 0, 1, 2))
    for index in np.lexsort((-seen.scores, rank)).tolist():
        others = (seen.owners != seen.owners[index]) | (seen.owners == -1)
        rivals = seen.boxes[kept & (seen.classes == seen.classes[index]) & others]
        one = seen.boxes[index : index + 1]
        second = overlaps(one, rivals) >= _SAME_OBJECT
        if seen.cut[index]:
            second |= inside(one, rivals) >= _PART_OF
        kept[index] = not second.any()
    return seen.take(np.flatnonzero(kept))


def _neighbours(tiles: Tiles) -> list[tuple[int, int, tuple[int, int, int, int]]]:
    """Give the pairs of windows that share pixels, and what they share."""
    found = []
    for first, (left, top) in enumerate(tiles.corners):
        for second in range(first + 1, len(tiles.corners)):
            x, y = tiles.corners[second]
            shared = max(left, x), max(top, y), min(left, x) + tiles.tile.width, min(top, y) + tiles.tile.height
            if shared[0] < shared[2] and shared[1] < shared[3]:
                found.append((first, second, shared))
    return found


def _clipped(boxes: NDArray[np.float64], window: tuple[int, int, int, int]) -> NDArray[np.float64]:
    """Cut boxes off at a window; those that lie outside have no area left."""
    low = np.array([window[0], window[1]] * 2, dtype=np.float64)
    high = np.array([window[2], window[3]] * 2, dtype=np.float64)
    return np.clip(boxes, low, high)


def _around(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.concatenate([boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)])
