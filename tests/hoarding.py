"""A training that takes much memory, measured in a process of its own: in one that has run a thousand tests the kernel moves pages meanwhile."""

from __future__ import annotations

import time

import numpy as np
import torch
from torch import nn

from oteo_automl.candidates.modules import SavedModule
from oteo_automl.candidates.training import Recipe
from oteo_automl.search.probe import measure

MEGABYTE = 2**20


class Linear(SavedModule):
    """Two numbers of each image."""

    kind = "hoarding-linear"

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def from_planes(self, planes: torch.Tensor) -> torch.Tensor:
        return self.layer(planes.mean(dim=(2, 3)))


class Hoarding:
    """Holds 16 MB for each image of a batch."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def place(self, device: torch.device) -> None:
        pass

    def order(self, epoch: int) -> np.ndarray:
        return np.arange(32)

    def batch(self, rows: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.zeros((len(rows), 3, 8, 8)), torch.zeros(len(rows), dtype=torch.int64)

    def loss(self, model, batch, recipe, generator) -> torch.Tensor:
        held = np.ones((len(batch[0]), 4_000_000), np.float32)
        time.sleep(0.03)
        del held
        self.batches.append(len(batch[0]))
        return torch.nn.functional.cross_entropy(model.from_planes(batch[0]), batch[1])


def probe(limit: int) -> tuple[int, int, int]:
    """Give the batch that was found, the largest that was run, and the peak, bytes."""
    lesson = Hoarding()
    found = measure(Linear, lesson, Recipe(batch=32), seed=0, limit=limit)
    return found.batch, max(lesson.batches), found.peak_bytes
