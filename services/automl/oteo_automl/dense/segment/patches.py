"""Which images and which parts of them an epoch looks at: nnU-Net's oversampling of foreground (Isensee et al. 2021)."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from oteo_core.packages.answers import IGNORED

FOREGROUND_SHARE = 1.0 / 3.0
"""Share of the patches that are laid around a pixel of a class drawn among those that the image has."""

_LEAST_SAMPLES = 64


def patch_size(height: int, width: int, *, gpu: bool) -> tuple[int, int] | None:
    """Give the patch that is trained on, multiples of 32; None where the whole image is small enough.

    Notes
    -----
    A step costs what its pixels cost, and a patch that holds the objects with their surroundings teaches as much as the image; on a
    processor about 256 x 256, on a GPU 512 x 512.
    """
    side = 512 if gpu else 256
    if height * width <= (1.25 * side) ** 2:
        return None
    return min(height, side), min(width, side)


class Maps(Protocol):
    """Class maps ``(H, W)`` uint8 by row."""

    def __getitem__(self, row: int, /) -> NDArray[np.uint8]:
        """Give a row's."""


class Points:
    """Which classes each training image has, and pixels of them drawn when asked for.

    Parameters
    ----------
    maps
        Class maps by row.
    rows
        Training rows.
    """

    def __init__(self, maps: Maps, rows: NDArray[np.int64]) -> None:
        self._maps = maps
        self._present: dict[int, list[int]] = {}
        for row in rows.tolist():
            counts = np.bincount(np.asarray(maps[row]).ravel(), minlength=IGNORED + 1)
            self._present[row] = (np.flatnonzero(counts[1:IGNORED]) + 1).tolist()

    def centres(self, rows: NDArray[np.int64], generator: torch.Generator) -> torch.Tensor:
        """Draw where the patches of a batch lie: ``(N, 2)`` y and x, 0 to 1; a third of them on foreground."""
        drawn = torch.rand((len(rows), 5), generator=generator)
        centres = drawn[:, :2].clone()
        for number, row in enumerate(rows.tolist()):
            classes = self._present.get(row, [])
            if classes and float(drawn[number, 2]) < FOREGROUND_SHARE:
                labels = np.asarray(self._maps[row])
                places = np.flatnonzero(labels == classes[int(drawn[number, 3] * len(classes))])
                y, x = divmod(int(places[int(drawn[number, 4] * len(places))]), labels.shape[1])
                centres[number] = torch.tensor([(y + 0.5) / labels.shape[0], (x + 0.5) / labels.shape[1]])
        return centres

    def order(self, rows: NDArray[np.int64], repeats: int, seed: int, epoch: int) -> NDArray[np.int64]:
        """Give the rows of an epoch: each `repeats` times, and where a class is rare among the images a third anew by class.

        Small sets are repeated so that an epoch is worth judging.
        """
        rng = np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, 0, epoch]))
        repeats = max(repeats, -(-_LEAST_SAMPLES // max(1, len(rows))))
        order = np.concatenate([rng.permutation(rows) for _ in range(repeats)])
        having: dict[int, list[int]] = {}
        for row in rows.tolist():
            for number in self._present.get(row, []):
                having.setdefault(number, []).append(row)
        if having and min(len(found) for found in having.values()) < FOREGROUND_SHARE * len(rows):
            numbers = sorted(having)
            for place in np.flatnonzero(rng.random(len(order)) < FOREGROUND_SHARE):
                chosen = having[numbers[rng.integers(len(numbers))]]
                order[place] = chosen[rng.integers(len(chosen))]
        return np.asarray(order, dtype=np.int64)
