"""Boxes of all samples of a search, in prepared pixels, as arrays in one file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from oteo_core.datasets import Sample
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
