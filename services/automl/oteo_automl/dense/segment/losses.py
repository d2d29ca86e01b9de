"""Losses of segmentation; all in float32, pixels that are ignored have no share in value or gradient."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from oteo_core.packages.answers import IGNORED


def cross_entropy_and_dice(logits: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
    """Give cross-entropy plus 1 - soft Dice, nnU-Net's loss (Isensee et al., Nature Methods 2021).

    Parameters
    ----------
    logits
        ``(N, K + 1, H, W)``.
    maps
        ``(N, H, W)`` int64: 0 background, ``k + 1`` class ``k``, `IGNORED`.

    Returns
    -------
    Tensor
        A scalar. Dice is taken over the whole batch for each class, so that images without the class do not make it jump; classes that the
        batch does not hold count by what is wrongly called so.
    """
    logits = logits.float()
    counted = maps != IGNORED
    entropy = F.cross_entropy(logits, maps, ignore_index=IGNORED, reduction="sum") / counted.sum().clamp_min(1)
    return entropy + soft_dice_loss(torch.softmax(logits, dim=1), maps)


def soft_dice_loss(probabilities: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
    """Give 1 - the mean of the classes' soft Dice over a batch, background aside; shapes as in `cross_entropy_and_dice`."""
    classes = probabilities.shape[1]
    counted = (maps != IGNORED)[:, None]
    truth = F.one_hot(torch.where(counted[:, 0], maps, torch.zeros_like(maps)), classes).permute(0, 3, 1, 2)[:, 1:].float()
    truth = truth * counted
    found = probabilities[:, 1:] * counted
    both = (found * truth).sum(dim=(0, 2, 3))
    total = found.sum(dim=(0, 2, 3)) + truth.sum(dim=(0, 2, 3))
    # A few pixels' worth of smoothing: a class of nothing, found nowhere, costs nothing.
    return 1.0 - ((2.0 * both + 1.0) / (total + 1.0)).mean()


def deep_loss(levels: Sequence[torch.Tensor], maps: torch.Tensor) -> torch.Tensor:
    """Weigh the losses of several resolutions, each half as much as the finer one; maps are thinned out to fit."""
    total: torch.Tensor | None = None
    weights = [0.5**number for number in range(len(levels))]
    for level, weight in zip(levels, weights, strict=True):
        step = maps.shape[1] // level.shape[2]
        fitting = maps if step == 1 else maps[:, step // 2 :: step, step // 2 :: step]
        term = cross_entropy_and_dice(level, fitting) * (weight / sum(weights))
        total = term if total is None else total + term
    if total is None:
        raise ValueError("no maps to compare")
    return total
