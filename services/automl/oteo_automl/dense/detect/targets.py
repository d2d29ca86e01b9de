"""Boxes of all samples of a search, in prepared pixels, as arrays in one file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from oteo_core.datasets import Sample
from oteo_core.datasets.annotations import Box, OrientedBox, Polygons, Rle
from oteo_core.images import InputPolicy
from oteo_core.images.geometry import place
from oteo_core.packages import TrueBoxes

FILE = "boxes.npz"


@dataclass(frozen=True, slots=True)
class BoxTable:
    """Boxes of ``N`` samples, ragged.

    Parameters
    ----------
    boxes
        ``(T, 4)`` float32, left, top, right, bottom, prepared pixels.
    labels
        ``(T,)`` int64, class numbers.
    crowd
        ``(T,)`` bool.
    starts
        ``(N + 1,)`` int64: the boxes of sample ``i`` are those from ``starts[i]`` to ``starts[i + 1]``.
    """

    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    crowd: NDArray[np.bool_]
    starts: NDArray[np.int64]

    def of(self, index: int) -> TrueBoxes:
        """Give the boxes of one sample."""
        part = slice(int(self.starts[index]), int(self.starts[index + 1]))
        return TrueBoxes(self.boxes[part], self.labels[part], self.crowd[part])

    def rows(self, indices: NDArray[np.int64]) -> Iterator[TrueBoxes]:
        """Give the boxes of some samples."""
        for index in indices:
            yield self.of(int(index))

    def save(self, folder: Path) -> None:
        """Write them into a folder."""
        np.savez(folder / FILE, boxes=self.boxes, labels=self.labels, crowd=self.crowd, starts=self.starts)

    @classmethod
    def load(cls, folder: Path) -> BoxTable:
        """Read what `save` wrote."""
        with np.load(folder / FILE) as content:
            return cls(content["boxes"], content["labels"], content["crowd"], content["starts"])


def table_of(truths: Sequence[TrueBoxes]) -> BoxTable:
    """Put the boxes of samples into one table."""
    counts = [len(truth.labels) for truth in truths]
    return BoxTable(
        boxes=np.concatenate([np.zeros((0, 4), np.float32), *(truth.boxes.astype(np.float32).reshape(-1, 4) for truth in truths)]),
        labels=np.concatenate([np.zeros(0, np.int64), *(truth.labels for truth in truths)]),
        crowd=np.concatenate([np.zeros(0, np.bool_), *(truth.crowd for truth in truths)]),
        starts=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
    )


def build_table(
    rows: Sequence[Sample],
    sizes: NDArray[np.int64],
    truths: Callable[[int], TrueBoxes],
    policy: InputPolicy,
    check: Callable[[], None],
) -> BoxTable:
    """Bring the boxes of all samples into the geometry of a policy."""
    found = []
    for index in range(len(rows)):
        check()
        truth = truths(index)
        at = place(int(sizes[index, 0]), int(sizes[index, 1]), policy)
        found.append(TrueBoxes(at.boxes_in(truth.boxes.reshape(-1, 4)), truth.labels, truth.crowd))
    return table_of(found)


def boxes_of(sample: Sample, numbers: Mapping[str, int]) -> TrueBoxes:
    """Give the objects of a sample as boxes in original pixels, cut off at the image's borders.

    An object that has a box and an outline counts once, by its box. Boxes without area, and those of classes without a number, are
    left out.

    Parameters
    ----------
    sample
        With boxes, oriented boxes, polygons or run-length masks.
    numbers
        Class numbers by name.
    """
    boxes: list[tuple[float, float, float, float]] = []
    labels: list[int] = []
    crowd: list[bool] = []
    seen: set[int] = set()
    objects: list[Box | OrientedBox | Polygons | Rle] = [*sample.boxes, *sample.oriented_boxes, *sample.polygons, *sample.rle]
    for item in objects:
        if item.class_name not in numbers or (item.instance >= 0 and item.instance in seen):
            continue
        edges = _edges(item)
        if edges is None:
            continue
        left, right = (min(max(x, 0.0), float(sample.width)) for x in (edges[0], edges[2]))
        top, bottom = (min(max(y, 0.0), float(sample.height)) for y in (edges[1], edges[3]))
        if right - left <= 0 or bottom - top <= 0:
            continue
        seen.add(item.instance)
        boxes.append((left, top, right, bottom))
        labels.append(numbers[item.class_name])
        crowd.append(item.crowd)
    return TrueBoxes(np.array(boxes, np.float32).reshape(-1, 4), np.array(labels, np.int64), np.array(crowd, np.bool_))


def _edges(item: Box | OrientedBox | Polygons | Rle) -> tuple[float, float, float, float] | None:
    if isinstance(item, Box):
        return item.x, item.y, item.x + item.width, item.y + item.height
    if isinstance(item, Rle):
        return _mask_edges(item)
    points = np.array(item.corners()) if isinstance(item, OrientedBox) else np.concatenate([np.reshape(r, (-1, 2)) for r in item.rings])
    low, high = points.min(axis=0), points.max(axis=0)
    return float(low[0]), float(low[1]), float(high[0]), float(high[1])


def _mask_edges(item: Rle) -> tuple[float, float, float, float] | None:
    values = np.arange(len(item.counts)) % 2 == 1
    plane = np.repeat(values, item.counts).reshape(item.width, item.height)
    columns, rows = np.flatnonzero(plane.any(axis=1)), np.flatnonzero(plane.any(axis=0))
    if len(columns) == 0:
        return None
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


@dataclass(slots=True)
class BatchBoxes:
    """Boxes of a batch as tensors of one shape.

    Parameters
    ----------
    boxes
        ``(N, K, 4)`` float32, left, top, right, bottom, prepared pixels.
    labels
        ``(N, K)`` int64; -1 where there is no object.
    ignored
        ``(N, J, 4)`` float32: regions that count neither for nor against; without area where there is none.
    """

    boxes: torch.Tensor
    labels: torch.Tensor
    ignored: torch.Tensor

    def to(self, device: torch.device) -> BatchBoxes:
        """Give them on a device."""
        return BatchBoxes(*(part.to(device, non_blocking=True) for part in (self.boxes, self.labels, self.ignored)))


def batch_boxes(truths: Sequence[TrueBoxes]) -> BatchBoxes:
    """Pad the boxes of a batch to one number, at least one."""
    most = max([1, *(int((~truth.crowd).sum()) for truth in truths)])
    crowds = max([1, *(int(truth.crowd.sum()) for truth in truths)])
    boxes = np.zeros((len(truths), most, 4), np.float32)
    labels = np.full((len(truths), most), -1, np.int64)
    ignored = np.zeros((len(truths), crowds, 4), np.float32)
    for row, truth in enumerate(truths):
        own = ~truth.crowd
        boxes[row, : own.sum()], labels[row, : own.sum()] = truth.boxes[own], truth.labels[own]
        ignored[row, : truth.crowd.sum()] = truth.boxes[truth.crowd]
    return BatchBoxes(torch.from_numpy(boxes), torch.from_numpy(labels), torch.from_numpy(ignored))
