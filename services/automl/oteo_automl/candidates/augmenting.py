"""Augmentation of whole batches as tensor operations, on the processor or the GPU.

The catalogue of `oteo_core.augmentation` works on one image at a time and at 500 to 1500 images a second costs as much as a small network's
training step; these few, done to a batch at once, cost a tenth. The parameters are drawn on the processor by a generator of their own, apart
from applying them, so that one seed gives the same images on every device.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F

from oteo_automl.candidates.appearance import blurred, coarsened, field, noisy, relit, restained

Draw = Callable[..., torch.Tensor]
"""Gives numbers from -1 to 1 of a shape."""


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
        Brightness, contrast and gamma, up to so much, a share of what the image itself takes up of the range.
    colour
        Saturation and the balance of channels, up to so much, a share.
    erase
        Chance that a rectangle is greyed out.
    stain
        How far the amounts of dyes are changed, a share; images of three channels.
    field
        How far brightness may differ from one side to another, a share.
    sharpness
        Chance that an image is blurred or loses resolution, as another device would have it.
    noise
        Largest standard deviation of added noise, a share of what the image itself takes up of the range.
    single
        True: of all these each image gets one, at twice its strength at most (TrivialAugment; Müller and Hutter, ICCV 2021); mirrors come on top.
    """

    mirror: bool = True
    upright: bool = True
    degrees: float = 15.0
    scale: float = 0.1
    shift: float = 0.05
    light: float = 0.15
    colour: float = 0.1
    erase: float = 0.0
    stain: float = 0.0
    field: float = 0.0
    sharpness: float = 0.0
    noise: float = 0.0
    single: bool = False


_STRONG = Strength(degrees=30.0, scale=0.25, shift=0.1, light=0.35, colour=0.25, erase=0.25)

STRENGTHS: dict[str, Strength] = {
    "none": Strength(mirror=False, degrees=0.0, scale=0.0, shift=0.0, light=0.0, colour=0.0),
    "light": Strength(),
    "strong": _STRONG,
    "turned": Strength(upright=False, degrees=45.0, scale=0.15, shift=0.08, light=0.2, colour=0.15),
    "trivial": replace(_STRONG, stain=0.2, field=0.2, sharpness=0.5, noise=0.04, single=True),
    "robust": Strength(degrees=20.0, scale=0.2, light=0.4, colour=0.3, stain=0.3, field=0.25, sharpness=0.3, noise=0.04),
}
"""By name; "light" is the default, "turned" for images without an up, "robust" against other devices, stains and lighting than those at home."""

_KINDS = ("turn", "scale", "shift", "light", "colour", "erase", "stain", "field", "sharpness", "noise")


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

    share = _shares(strength, count, generator, device)
    matrix = _matrix(strength, share, count, planes.shape[2] / planes.shape[3], uniform)
    if matrix is not None:
        grid = F.affine_grid(matrix, list(planes.shape), align_corners=False)
        # What comes in from outside is mirrored: black corners would be learnt.
        planes = F.grid_sample(planes, grid.to(planes.dtype), mode="bilinear", padding_mode="reflection", align_corners=False)
    if strength.stain > 0 and planes.shape[1] == 3:
        planes = restained(planes, strength.stain * _column(share["stain"]), uniform)
    if strength.field > 0:
        planes = field(planes, strength.field * _column(share["field"]), uniform)
    if strength.light > 0:
        planes = relit(planes, strength.light * _column(share["light"]), uniform)
    if strength.colour > 0 and planes.shape[1] == 3:
        grey = planes.mean(dim=1, keepdim=True)
        far = strength.colour * _column(share["colour"])
        saturation = 1.0 + far * uniform(count, 1, 1, 1)
        balance = 1.0 + 0.5 * far * uniform(count, 3, 1, 1)
        planes = ((grey + (planes - grey) * saturation) * balance).clamp(0.0, 1.0)
    if strength.sharpness > 0:
        drawn = uniform(count) * 0.5 + 0.5
        limit = strength.sharpness * share["sharpness"]
        # Only those that are chosen are computed: filters are dear.
        for number, soften in enumerate((blurred, coarsened)):
            which = torch.nonzero((drawn >= 0.5 * number * limit) & (drawn < 0.5 * (number + 1) * limit)).flatten()
            if len(which):
                planes = planes.index_copy(0, which, soften(planes[which], uniform))
    if strength.noise > 0:
        planes = noisy(planes, strength.noise * _column(share["noise"]), uniform, generator)
    if strength.erase > 0:
        planes = _erased(planes, strength.erase * share["erase"], uniform)
    return planes


def _shares(strength: Strength, count: int, generator: torch.Generator, device: torch.device) -> dict[str, torch.Tensor]:
    """Give how much each image gets of each kind, ``(N,)``: all of everything, or of one kind up to twice as much."""
    if not strength.single:
        return dict.fromkeys(_KINDS, torch.ones(count, device=device))
    # One more than there are: an image may be left alone.
    which = torch.randint(0, len(_KINDS) + 1, (count,), generator=generator).to(device)
    amount = 2.0 * torch.rand(count, generator=generator).to(device)
    return {kind: torch.where(which == number, amount, torch.zeros_like(amount)) for number, kind in enumerate(_KINDS)}


def _column(values: torch.Tensor) -> torch.Tensor:
    return values.view(-1, 1, 1, 1)


def _matrix(strength: Strength, share: dict[str, torch.Tensor], count: int, aspect: float, draw: Draw) -> torch.Tensor | None:
    moved = strength.degrees or strength.scale or strength.shift or strength.mirror or not strength.upright
    if not moved:
        return None
    angle = draw(count) * math.radians(strength.degrees) * share["turn"]
    if not strength.upright:
        angle = angle + torch.floor((draw(count) * 0.5 + 0.5) * 4.0) * (math.pi / 2.0)
    scale = torch.exp(draw(count) * math.log1p(strength.scale) * share["scale"])
    mirror = torch.where(draw(count) > 0, -1.0, 1.0) if strength.mirror else torch.ones_like(angle)
    cosine, sine = torch.cos(angle) / scale, torch.sin(angle) / scale
    far = strength.shift * 2.0 * share["shift"]
    first = torch.stack([cosine * mirror, -sine * aspect, draw(count) * far], dim=1)
    second = torch.stack([sine * mirror / aspect, cosine, draw(count) * far], dim=1)
    matrix: torch.Tensor = torch.stack([first, second], dim=1)
    return matrix


def _erased(planes: torch.Tensor, chance: torch.Tensor, draw: Draw) -> torch.Tensor:
    count, _, height, width = planes.shape
    drawn = draw(count, 5) * 0.5 + 0.5
    inside = _rectangle(drawn[:, 0], drawn[:, 1], 0.1 + 0.25 * drawn[:, 2], 0.1 + 0.25 * drawn[:, 3], height, width)
    inside = inside & (drawn[:, 4] < chance).view(-1, 1, 1)
    return torch.where(inside[:, None], planes.mean(dim=(2, 3), keepdim=True), planes)


def _rectangle(top: torch.Tensor, left: torch.Tensor, tall: torch.Tensor, wide: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Mark rectangles ``(N, H, W)``; all in shares of the sides."""
    rows = torch.arange(height, device=top.device).view(1, height, 1) / height
    columns = torch.arange(width, device=top.device).view(1, 1, width) / width
    top, left, tall, wide = (one.view(-1, 1, 1) for one in (top, left, tall, wide))
    return (rows >= top) & (rows < top + tall) & (columns >= left) & (columns < left + wide)


def pasted(planes: torch.Tensor, targets: torch.Tensor, kept: float, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Paste a rectangle of another image of the batch into each (CutMix; Yun et al., ICCV 2019).

    Parameters
    ----------
    planes, targets
        ``(N, C, H, W)`` and ``(N, K)``.
    kept
        Share of each image that stays, 0 to 1.
    generator
        Of the rectangles' places.

    Returns
    -------
    planes, targets
        Mixed; the targets by the share of pixels that stayed.
    """
    count, _, height, width = planes.shape
    side = math.sqrt(max(0.0, 1.0 - kept))
    place = torch.rand((2, count), generator=generator).to(planes.device) * (1.0 - side)
    extent = torch.full((count,), side, device=planes.device)
    inside = _rectangle(place[0], place[1], extent, extent, height, width)
    stays = 1.0 - inside.float().mean(dim=(1, 2)).view(-1, 1)
    return torch.where(inside[:, None], planes.flip(0), planes), stays * targets + (1.0 - stays) * targets.flip(0)
