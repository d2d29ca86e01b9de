"""What a network is taught: the part of a training that differs between tasks.

`oteo_automl.candidates.training.Trainer` knows optimisers, learning rates, averaged weights, statistics, states and deadlines; a
lesson knows images, targets, augmentation, the loss, and how held-out answers are judged.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

if TYPE_CHECKING:
    from oteo_automl.candidates.training import Recipe


@dataclass(slots=True)
class Judgement:
    """Held-out answers and what they are worth.

    Parameters
    ----------
    loss
        Smaller is better, finite: what the learning curve shows and trials of equal score are told apart by (the log loss after temperature
        scaling for classification; the mean training loss on held-out images for dense tasks).
    score
        The task's usual figure for people, 0 to 1, larger is better: accuracy, mAP50, mean Dice, PQ.
    scores
        Every figure by name, for `oteo_automl.search`: names as in the contract's ``objective``.
    kept
        The answers themselves, to be stored with the model: arrays by name.
    message
        Something a person should know ("it finds no object of class x"); empty mostly.
    collapsed
        True where every answer is the same though the truths are not: one class for all images, no object anywhere.
    """

    loss: float
    score: float
    scores: dict[str, float]
    kept: dict[str, NDArray[Any]] = field(default_factory=dict)
    message: str = ""
    collapsed: bool = False


class Lesson(Protocol):
    """Contract: every method may be called any number of times; draws come from the generator or from (seed, epoch) alone, so that a training that was stopped and taken up again is the same training.

    `place` is called once, before all others, with the device that the network is on.
    """

    def place(self, device: torch.device) -> None:
        """Get ready to give batches on a device; may copy the images there."""

    def order(self, epoch: int) -> NDArray[np.int64]:
        """Give the rows of an epoch (from 0) in their order, repeated or left out as balance asks for."""

    def batch(self, rows: NDArray[np.int64]) -> Any:
        """Give images and targets of these rows on the device, not augmented; ``[0]`` of it are planes ``(N, C, H, W)`` float32 of 0 to 1."""

    def loss(self, model: torch.nn.Module, batch: Any, recipe: Recipe, generator: torch.Generator) -> torch.Tensor:
        """Augment the batch, run ``model.from_planes`` and give the mean loss, a scalar.

        Called under autocast where that pays: do in float32 what needs it.
        """

    def clean_rows(self) -> NDArray[np.int64]:
        """Give training rows, at most a few hundred, whose images renew the averaged network's batch-normalisation statistics."""

    def judge(self, model: torch.nn.Module) -> Judgement:
        """Judge the averaged network, in evaluation mode, on the held-out rows, in float32.

        Raises
        ------
        oteo_automl.candidates.training.Diverged
            Its answers are not finite.
        """
