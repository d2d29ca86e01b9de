"""Augmentation of whole batches as tensor operations, on the processor or the GPU.

The catalogue of `oteo_core.augmentation` works on one image at a time and at 500 to 1500 images a second costs as much as a small network's
training step; these few, done to a batch at once, cost a tenth. The parameters are drawn on the processor by a generator of their own, apart
from applying them, so that one seed gives the same images on every device.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F


@dataclass(frozen=True, slots=True)
class Strength:
    """How far images are changed.

    Parameters
    ----------
    mirror
        Mirrors left and right, half of the time.
    upright
        False: also upside down and quarter turns, where up and down mean nothing.
    degrees
        Turns up to so much.
    scale
        Scales by up to so much, a share.
    shift
        Shifts by up to so much, a share of the side.
    light
        Brightness, contrast and gamma, up to so much, a share.
    colour
        Saturation and the balance of channels, up to so much, a share.
    erase
        Chance that a rectangle is greyed out.
    """

    mirror: bool = True
    upright: bool = True
    degrees: float = 15.0
    scale: float = 0.1
    shift: float = 0.05
    light: float = 0.15
    colour: float = 0.1
    erase: float = 0.0


STRENGTHS: dict[str, Strength] = {
    "none": Strength(mirror=False, degrees=0.0, scale=0.0, shift=0.0, light=0.0, colour=0.0),
    "light": Strength(),
    "strong": Strength(degrees=30.0, scale=0.25, shift=0.1, light=0.35, colour=0.25, erase=0.25),
    "turned": Strength(upright=False, degrees=45.0, scale=0.15, shift=0.08, light=0.2, colour=0.15),
}
"""By name; "light" is the default, "turned" for images without an up."""


def augment(planes: torch.Tensor, strength: Strength, generator: torch.Generator) -> torch.Tensor:
    """Change a batch.

    Parameters
    ----------
    planes
        ``(N, C, H, W)`` float32 of 0 to 1.
    strength
        How far.
    generator
        On the processor; the only source of chance.

    Returns
    -------
    Tensor
        The same shape and range.
    """
    count, device = planes.shape[0], planes.device

    def uniform(*shape: int) -> torch.Tensor:
        return (torch.rand(shape, generator=generator) * 2.0 - 1.0).to(device, non_blocking=True)

    matrix = _matrix(strength, count, planes.shape[2] / planes.shape[3], uniform)
    if matrix is not None:
        grid = F.affine_grid(matrix, list(planes.shape), align_corners=False)
        # What comes in from outside is mirrored: black corners would be learnt.
        planes = F.grid_sample(planes, grid.to(planes.dtype), mode="bilinear", padding_mode="reflection", align_corners=False)
    if strength.light > 0:
        contrast = 1.0 + strength.light * uniform(count, 1, 1, 1)
        brightness = 0.5 * strength.light * uniform(count, 1, 1, 1)
        middle = planes.mean(dim=(1, 2, 3), keepdim=True)
        planes = ((planes - middle) * contrast + middle + brightness).clamp(0.0, 1.0)
        gamma = torch.exp(strength.light * uniform(count, 1, 1, 1))
        planes = (planes + 1e-6).pow(gamma)
    if strength.colour > 0 and planes.shape[1] == 3:
        grey = planes.mean(dim=1, keepdim=True)
        saturation = 1.0 + strength.colour * uniform(count, 1, 1, 1)
        balance = 1.0 + 0.5 * strength.colour * uniform(count, 3, 1, 1)
        planes = ((grey + (planes - grey) * saturation) * balance).clamp(0.0, 1.0)
    if strength.erase > 0:
        planes = _erased(planes, strength.erase, uniform)
    return planes


def _matrix(strength: Strength, count: int, aspect: float, uniform: object) -> torch.Tensor | None:
    draw = uniform
    if not callable(draw):
        raise TypeError("a function that draws is needed")
    moved = strength.degrees or strength.scale or strength.shift or strength.mirror or not strength.upright
    if not moved:
        return None
    angle = draw(count) * math.radians(strength.degrees)
    if not strength.upright:
        angle = angle + torch.floor((draw(count) * 0.5 + 0.5) * 4.0) * (math.pi / 2.0)
    scale = torch.exp(draw(count) * math.log1p(strength.scale))
    mirror = torch.where(draw(count) > 0, -1.0, 1.0) if strength.mirror else torch.ones_like(angle)
    cosine, sine = torch.cos(angle) / scale, torch.sin(angle) / scale
    first = torch.stack([cosine * mirror, -sine * aspect, draw(count) * strength.shift * 2.0], dim=1)
    second = torch.stack([sine * mirror / aspect, cosine, draw(count) * strength.shift * 2.0], dim=1)
    matrix: torch.Tensor = torch.stack([first, second], dim=1)
    return matrix


def _erased(planes: torch.Tensor, chance: float, uniform: object) -> torch.Tensor:
    draw = uniform
    if not callable(draw):
        raise TypeError("a function that draws is needed")
    count, _, height, width = planes.shape
    drawn = draw(count, 5) * 0.5 + 0.5
    rows = torch.arange(height, device=planes.device).view(1, height, 1) / height
    columns = torch.arange(width, device=planes.device).view(1, 1, width) / width
    top, left = drawn[:, 0].view(-1, 1, 1), drawn[:, 1].view(-1, 1, 1)
    tall, wide = (0.1 + 0.25 * drawn[:, 2]).view(-1, 1, 1), (0.1 + 0.25 * drawn[:, 3]).view(-1, 1, 1)
    inside = (rows >= top) & (rows < top + tall) & (columns >= left) & (columns < left + wide)
    inside = inside & (drawn[:, 4] < chance).view(-1, 1, 1)
    return torch.where(inside[:, None], planes.mean(dim=(2, 3), keepdim=True), planes)
