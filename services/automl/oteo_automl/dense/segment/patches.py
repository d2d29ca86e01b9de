"""Which images and which parts of them an epoch looks at: nnU-Net's oversampling of foreground (Isensee et al. 2021)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from oteo_core.packages.answers import IGNORED

FOREGROUND_SHARE = 1.0 / 3.0
"""Share of the patches that are laid around a pixel of a class drawn among those that the image has."""

_POINTS = 256
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


@dataclass(frozen=True, slots=True)
class Points:
    """Some pixels of each class in each training image, y and x as shares of the image; where patches are laid around."""

    places: dict[int, dict[int, NDArray[np.float32]]]

    @classmethod
    def of(cls, maps: Maps, rows: NDArray[np.int64], seed: int) -> Points:
        """Look at the class maps of rows."""
        rng = np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, 1, 0]))
        found: dict[int, dict[int, NDArray[np.float32]]] = {}
        for row in rows.tolist():
            labels = np.asarray(maps[row])
            extent = np.array(labels.shape, dtype=np.float32)
            present = np.unique(labels)
            found[row] = {}
            for number in present[(present > 0) & (present != IGNORED)].tolist():
                places = np.argwhere(labels == number)
                if len(places) > _POINTS:
                    places = places[rng.choice(len(places), _POINTS, replace=False)]
                found[row][number] = ((places + 0.5) / extent).astype(np.float32)
        return cls(found)

    def centres(self, rows: NDArray[np.int64], generator: torch.Generator) -> torch.Tensor:
        """Draw where the patches of a batch lie: ``(N, 2)`` y and x, 0 to 1; a third of them on foreground."""
        drawn = torch.rand((len(rows), 5), generator=generator)
        centres = drawn[:, :2].clone()
        for number, row in enumerate(rows.tolist()):
            classes = list(self.places.get(row, {}))
            if classes and float(drawn[number, 2]) < FOREGROUND_SHARE:
                places = self.places[row][classes[int(drawn[number, 3] * len(classes))]]
                centres[number] = torch.from_numpy(places[int(drawn[number, 4] * len(places))])
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
            for number in self.places.get(row, {}):
                having.setdefault(number, []).append(row)
        if having and min(len(found) for found in having.values()) < FOREGROUND_SHARE * len(rows):
            numbers = sorted(having)
            for place in np.flatnonzero(rng.random(len(order)) < FOREGROUND_SHARE):
                chosen = having[numbers[rng.integers(len(numbers))]]
                order[place] = chosen[rng.integers(len(chosen))]
        return np.asarray(order, dtype=np.int64)
