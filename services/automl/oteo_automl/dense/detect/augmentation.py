"""Augmentation of whole batches with their boxes: drawn once, applied to pixels and to boxes as tensors.

Only what keeps boxes tight: mirrors, scales, shifts and light; a turned box is no longer the box of what is in it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from oteo_automl.candidates.augmenting import STRENGTHS, Strength
from oteo_automl.candidates.augmenting import augment as change_look
from oteo_automl.candidates.bank import spread
from oteo_automl.dense.detect.targets import BatchBoxes

_STILL = Strength(mirror=False, degrees=0.0, scale=0.0, shift=0.0, light=0.0, colour=0.0)


@dataclass(frozen=True, slots=True)
class BoxStrength:
    """How far images are changed.

    Parameters
    ----------
    mirror
        Mirrors left and right, half of the time.
    upright
        False: also upside down and, where images are square, with rows and columns exchanged: where up and down mean nothing.
    scale
        Scales by up to so much either way, a share; one step for both sides.
    aspect
        Stretches one side against the other by up to so much, a share.
    shift
        Shifts by up to so much, a share of the side.
    look
        Light, colour, stain, sharpness and noise: a strength of classification's augmentation that moves nothing.
    """

    mirror: bool = True
    upright: bool = True
    scale: float = 0.25
    aspect: float = 0.05
    shift: float = 0.1
    look: Strength = _STILL


def box_strength(name: str, *, upright: bool = True) -> BoxStrength:
    """Give the strength of a recipe for boxes.

    Objects are looked for at more scales and places than whole images are classified at; they are not turned, and nothing is erased.

    Parameters
    ----------
    name
        Of `oteo_automl.candidates.augmenting.STRENGTHS`.
    upright
        False: images have no up.

    Raises
    ------
    KeyError
        There is none of that name.
    """
    known = STRENGTHS[name]
    look = replace(known, mirror=False, upright=True, degrees=0.0, scale=0.0, shift=0.0, erase=0.0)
    return BoxStrength(
        mirror=known.mirror,
        upright=not known.mirror or (upright and known.upright),
        scale=2.5 * known.scale,
        aspect=0.5 * known.scale,
        shift=2.0 * known.shift,
        look=look,
    )


_KEPT = 0.3
"""Share of an object that must be left in the picture for it to count; what is less is neither object nor background."""


@dataclass(frozen=True, slots=True)
class Moves:
    """Where the pixels of each image of a batch go: ``x`` to ``a * x + b``, both from -1 to 1 across the image.

    Parameters
    ----------
    exchanged
        ``(N,)`` bool: rows and columns change places first; square images alone.
    scale
        ``(N, 2)`` float32, along x and y; negative where mirrored.
    shift
        ``(N, 2)`` float32.
    """

    exchanged: torch.Tensor
    scale: torch.Tensor
    shift: torch.Tensor


def draw_moves(count: int, strength: BoxStrength, generator: torch.Generator, *, square: bool = False) -> Moves:
    """Draw where the images of a batch go; the same draws on every device."""
    drawn = torch.rand((count, 7), generator=generator) * 2.0 - 1.0
    scale = torch.exp(drawn[:, 0] * np.log1p(strength.scale))
    aspect = torch.exp(drawn[:, 1] * 0.5 * np.log1p(strength.aspect))
    sides = torch.stack([scale * aspect, scale / aspect], dim=1)
    signs = torch.ones(count, 2)
    if strength.mirror:
        signs[:, 0] = torch.where(drawn[:, 2] > 0, -1.0, 1.0)
    if not strength.upright:
        signs[:, 1] = torch.where(drawn[:, 3] > 0, -1.0, 1.0)
    # A grown image may be shifted as far as its own borders besides.
    room = strength.shift * 2.0 + (sides - 1.0).abs()
    shift = drawn[:, 4:6] * (room if strength.shift else torch.zeros_like(room))
    exchanged = (drawn[:, 6] > 0) & (square and not strength.upright)
    return Moves(exchanged, sides * signs, shift)


def move_planes(planes: torch.Tensor, moves: Moves) -> torch.Tensor:
    """Move the pixels of ``(N, C, H, W)``; what comes in from outside is the image's mean: mirrored objects would have no boxes."""
    scale, shift = moves.scale.to(planes.device), moves.shift.to(planes.device)
    if moves.exchanged.any():
        planes = torch.where(moves.exchanged.to(planes.device).view(-1, 1, 1, 1), planes.transpose(2, 3), planes)
    matrix = torch.zeros((len(planes), 2, 3), device=planes.device)
    matrix[:, 0, 0], matrix[:, 1, 1] = 1.0 / scale[:, 0], 1.0 / scale[:, 1]
    matrix[:, :, 2] = -shift / scale
    grid = F.affine_grid(matrix, list(planes.shape), align_corners=False)
    middle = planes.mean(dim=(2, 3), keepdim=True)
    moved = F.grid_sample(planes - middle, grid.to(planes.dtype), mode="bilinear", padding_mode="zeros", align_corners=False)
    return moved + middle


def move_boxes(targets: BatchBoxes, moves: Moves, width: int, height: int) -> BatchBoxes:
    """Move boxes as `move_planes` moves pixels, cut off at the borders; objects that are nearly gone become ignored regions."""
    device = targets.boxes.device
    size = torch.tensor([width, height], dtype=torch.float32, device=device)
    scale, shift = moves.scale.to(device)[:, None], moves.shift.to(device)[:, None]

    exchanged = moves.exchanged.to(device).view(-1, 1, 1)

    def moved(boxes: torch.Tensor) -> torch.Tensor:
        boxes = torch.where(exchanged, boxes[..., [1, 0, 3, 2]], boxes)
        first, second = (((corner / size * 2.0 - 1.0) * scale + shift + 1.0) * 0.5 * size for corner in (boxes[..., :2], boxes[..., 2:]))
        return torch.cat([torch.minimum(first, second), torch.maximum(first, second)], dim=-1)

    def cut(boxes: torch.Tensor) -> torch.Tensor:
        return torch.minimum(boxes.clamp(min=0.0), size.repeat(2))

    whole = moved(targets.boxes)
    inside = cut(whole)
    share = _area(inside) / _area(whole).clamp(min=1e-6)
    sides = inside[..., 2:] - inside[..., :2]
    gone = (share < _KEPT) | (sides.amin(dim=-1) < 1.0)
    was = targets.labels >= 0
    labels = torch.where(gone, torch.full_like(targets.labels, -1), targets.labels)
    fragments = torch.where((gone & was)[..., None], inside, torch.zeros_like(inside))
    return BatchBoxes(inside, labels, torch.cat([cut(moved(targets.ignored)), fragments], dim=1))


def _area(boxes: torch.Tensor) -> torch.Tensor:
    return (boxes[..., 2] - boxes[..., 0]).clamp(min=0.0) * (boxes[..., 3] - boxes[..., 1]).clamp(min=0.0)


def augment(
    planes: torch.Tensor, targets: BatchBoxes, strength: BoxStrength, generator: torch.Generator
) -> tuple[torch.Tensor, BatchBoxes]:
    """Change a batch of ``(N, C, H, W)`` float32 of 0 to 1 with its boxes; the generator, on the processor, is the only source of chance."""
    moves = draw_moves(len(planes), strength, generator, square=planes.shape[2] == planes.shape[3])
    moved = move_boxes(targets, moves, planes.shape[3], planes.shape[2])
    return change_look(move_planes(planes, moves), strength.look, generator), moved


def has_up(images: NDArray[Any], rows: NDArray[np.int64], most: int = 256) -> bool:
    """Say whether images differ between up and down: a smear under a microscope does not, a chest does.

    How much detail there is in 8 x 8 fields is compared with itself upside down: the square of the mean difference, in spreads between images and
    less what so many images leave by chance. That a lamp or a lens is uneven shows in brightness more than in detail, and as much between
    left and right; that is asked, too. Measured: blood smears .04 (between left and right .04), nuclei .00, heads .16 (.00).

    Parameters
    ----------
    images
        ``(N, H, W, C)``.
    rows
        Those to look at; `most` of them are.
    """
    chosen = np.unique(spread(rows, most))
    if len(chosen) < 8:
        return True
    stack = np.stack([_detail(np.asarray(images[int(row)], dtype=np.float32).mean(axis=2)) for row in chosen])
    up, left = (_sided(stack - np.flip(stack, axis)) for axis in (1, 2))
    return up > 0.12 or up > 2.0 * max(left, 0.0) + 0.03


def _detail(grey: NDArray[np.float32]) -> NDArray[np.float64]:
    """Give the logarithm of the mean slope of 8 x 8 fields, less their mean; on the scale of 8 bits whatever that of the pixels."""
    height, width = grey.shape[0] // 8 * 8, grey.shape[1] // 8 * 8
    top, left = (grey.shape[0] - height) // 2, (grey.shape[1] - width) // 2
    slopes = np.abs(np.gradient(grey, axis=0)) + np.abs(np.gradient(grey, axis=1))
    fields = slopes[top : top + height, left : left + width].reshape(8, height // 8, 8, width // 8).mean(axis=(1, 3))
    logs = np.log(fields.astype(np.float64) + float(grey.max()) / 255.0 + 1e-9)
    return np.asarray(logs - logs.mean())


def _sided(differences: NDArray[np.float64]) -> float:
    """Give the mean square of the mean difference in shares of the variance, less that of chance."""
    variance = float(differences.var(axis=0).mean())
    return float((differences.mean(axis=0) ** 2).mean()) / variance - 1.0 / len(differences) if variance > 0 else 0.0
