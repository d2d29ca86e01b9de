"""Augmentation of whole batches together with their masks, as tensor operations on any device.

One movement (mirroring, turning, scaling, bending) is drawn for each image and brought to the image linearly and to its label maps by
nearest pixel; a patch is cut in the same step, so that what is not looked at costs nothing. The look (light, colour, stain, sharpness) is
changed afterwards. All draws but noise come from one generator on the processor, so that equal seeds give equal batches on every device.

Changes of the look go back to: nnU-Net's list (Isensee et al., Nature Methods 2021: contrast, brightness, gamma, blur, low resolution,
noise); bent intensity curves (Zhou et al., Models Genesis, MIA 2021); mixed channels, for stains whose colours another scanner or dye
changes (Tellez et al., MIA 2019).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F

from oteo_automl.candidates.appearance import extent, relit

Draw = Callable[..., torch.Tensor]
"""Gives a tensor of a shape, uniform in -1 to 1."""


@dataclass(frozen=True, slots=True)
class Look:
    """How far images and masks are changed.

    Parameters
    ----------
    mirror, upright
        Mirrored left and right; False: also upside down and quarter turns, where up and down mean nothing.
    degrees, scale, bend
        Turned up to so much; scaled by up to so much, a share; bent by up to so much of a side (elastic, coarse grid).
    light
        Brightness, contrast and gamma, up to so much, a share of what the image itself takes up of the range.
    curve
        Chance that intensities go through a drawn monotone curve of each channel.
    stain
        How far channels are mixed and scaled against each other, a share; images of several channels alone.
    grey
        Chance that an image of several channels loses its colour.
    blur
        Chance of being blurred or brought to a lower resolution and back.
    noise
        Largest spread of added noise, a share of what the image itself takes up of the range; half of the images.
    chance
        Share of the images whose look is changed; the others are only moved, so that what is at home is not forgotten for what may come.
    """

    mirror: bool = True
    upright: bool = True
    degrees: float = 15.0
    scale: float = 0.15
    bend: float = 0.0
    light: float = 0.15
    curve: float = 0.0
    stain: float = 0.1
    grey: float = 0.0
    blur: float = 0.1
    noise: float = 0.0
    chance: float = 1.0


LOOKS: dict[str, Look] = {
    "none": Look(mirror=False, degrees=0.0, scale=0.0, light=0.0, stain=0.0, blur=0.0),
    "light": Look(),
    "strong": Look(degrees=30.0, scale=0.3, bend=0.03, light=0.35, stain=0.3, blur=0.25, noise=0.05),
    "turned": Look(upright=False, degrees=45.0, scale=0.25, bend=0.02, light=0.2, stain=0.15, blur=0.15, noise=0.03),
    "trivial": Look(degrees=30.0, scale=0.3, light=0.35, stain=0.3, blur=0.5, noise=0.04, chance=0.5),
    "robust": Look(scale=0.2, light=0.3, curve=0.4, stain=0.4, grey=0.1, blur=0.25, noise=0.04, chance=0.6),
}
"""By the names that `Recipe.strength` has (all those of `oteo_automl.candidates.augmenting.STRENGTHS`); "robust" also covers other scanners, stains and resolutions."""


def chosen_look(strength: str, *, sided: bool = False) -> Look:
    """Give the look of a recipe; `sided`: left and right mean something, so nothing is mirrored and turns stay small."""
    look = LOOKS[strength]
    return replace(look, mirror=False, upright=True, degrees=min(look.degrees, 20.0)) if sided else look


def move(
    planes: torch.Tensor,
    maps: torch.Tensor,
    look: Look,
    generator: torch.Generator,
    *,
    patch: tuple[int, int] | None = None,
    centres: torch.Tensor | None = None,
    outside: int | None = None,
    values: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Move images and their maps alike, and cut a patch.

    Parameters
    ----------
    planes
        ``(N, C, H, W)`` float32.
    maps
        ``(N, H, W)`` whole numbers.
    look
        How far.
    generator
        On the processor.
    patch
        Height and width of what comes out; None: of what goes in.
    centres
        ``(N, 2)`` where the patches' middles lie, y and x, 0 to 1 of the image; None: the middle of the image.
    outside
        Number of map pixels that come in from outside; None: what is mirrored in, as the image is.
    values
        ``(N, V, H, W)`` float32 maps that move linearly; from outside comes 0.

    Returns
    -------
    planes, maps, values
        ``(N, C, h, w)``, ``(N, h, w)``, ``(N, V, h, w)``.
    """
    count, _, height, width = planes.shape
    out_height, out_width = patch or (height, width)

    def draw(*shape: int) -> torch.Tensor:
        return torch.rand(shape, generator=generator) * 2.0 - 1.0

    matrix = _matrix(look, count, (height, width), (out_height, out_width), centres, draw)
    still = patch is None and bool((matrix == torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])).all()) and look.bend == 0
    if still:
        return planes, maps, values
    grid = F.affine_grid(matrix, [count, 1, out_height, out_width], align_corners=False)
    if look.bend > 0:
        offsets = F.interpolate(draw(count, 2, 5, 5) * look.bend * 2.0, size=(out_height, out_width), mode="bicubic", align_corners=True)
        grid = grid + offsets.permute(0, 2, 3, 1) * torch.tensor([out_width / width, out_height / height])
    grid = grid.to(planes.device)
    moved = F.grid_sample(planes, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    moved_maps = _nearest(maps, grid, outside)
    if values is not None:
        values = F.grid_sample(values, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return moved, moved_maps, values


def _nearest(maps: torch.Tensor, grid: torch.Tensor, outside: int | None) -> torch.Tensor:
    """Sample whole numbers; float32 would lose large ones, so their places are looked up."""
    height, width = maps.shape[1:]
    x = torch.floor((grid[..., 0] + 1.0) * (width / 2.0)).long()
    y = torch.floor((grid[..., 1] + 1.0) * (height / 2.0)).long()
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    x, y = _mirrored(x, width), _mirrored(y, height)
    flat = maps.reshape(maps.shape[0], -1)
    found = flat.gather(1, (y * width + x).view(maps.shape[0], -1)).view(x.shape)
    return found if outside is None else torch.where(inside, found, torch.full_like(found, outside))


def _mirrored(place: torch.Tensor, size: int) -> torch.Tensor:
    place = torch.remainder(place, 2 * size)
    return torch.where(place >= size, 2 * size - 1 - place, place)


def _matrix(
    look: Look, count: int, inner: tuple[int, int], outer: tuple[int, int], centres: torch.Tensor | None, draw: Draw
) -> torch.Tensor:
    """Give ``(N, 2, 3)``: from places in the patch to places in the image, both -1 to 1."""
    angle = draw(count) * math.radians(look.degrees)
    if not look.upright:
        angle = angle + torch.floor((draw(count) * 0.5 + 0.5) * 4.0) * (math.pi / 2.0)
    size = torch.exp(-draw(count) * math.log1p(look.scale))
    mirror = torch.where(draw(count) > 0, -1.0, 1.0) if look.mirror else torch.ones(count)
    cosine, sine = torch.cos(angle) * size, torch.sin(angle) * size
    height, width = inner
    out_height, out_width = outer
    # In pixels, then in shares of half a side.
    rows = torch.stack(
        [
            torch.stack([cosine * mirror * out_width / width, -sine * out_height / width], dim=1),
            torch.stack([sine * mirror * out_width / height, cosine * out_height / height], dim=1),
        ],
        dim=1,
    )
    middle = torch.zeros(count, 2) if centres is None else centres.float().flip(1) * 2.0 - 1.0
    # A patch stays inside the image where it can.
    room = torch.tensor([max(0.0, 1.0 - out_width / width), max(0.0, 1.0 - out_height / height)])
    middle = torch.maximum(torch.minimum(middle, room), -room)
    return torch.cat([rows, middle[:, :, None]], dim=2)


def change_look(planes: torch.Tensor, look: Look, generator: torch.Generator) -> torch.Tensor:
    """Change light, colour, stain and sharpness of a batch ``(N, C, H, W)`` float32 of 0 to 1; the same shape and range."""
    count, channels, _height, _width = planes.shape
    device = planes.device

    def draw(*shape: int) -> torch.Tensor:
        return (torch.rand(shape, generator=generator) * 2.0 - 1.0).to(device, non_blocking=True)

    original = planes
    if look.curve > 0:
        planes = _curved(planes, look.curve, draw)
    if look.stain > 0 and channels > 1:
        mixing = torch.eye(channels, device=device) + 0.5 * look.stain * draw(count, channels, channels)
        mixing = mixing / mixing.sum(dim=2, keepdim=True).clamp_min(0.25)
        flat = torch.bmm(mixing, planes.reshape(count, channels, -1))
        balance = 1.0 + 0.5 * look.stain * draw(count, channels, 1)
        shift = 0.25 * look.stain * draw(count, channels, 1) * extent(planes)[:, :, 0]
        planes = (flat * balance + shift).view_as(planes).clamp(0.0, 1.0)
    if look.grey > 0 and channels > 1:
        chosen = (draw(count, 1, 1, 1) * 0.5 + 0.5) < look.grey
        planes = torch.where(chosen, planes.mean(dim=1, keepdim=True).expand_as(planes), planes)
    if look.light > 0:
        planes = relit(planes, look.light, draw)
    if look.blur > 0:
        planes = _blurred(planes, look.blur, draw)
    if look.noise > 0:
        spread = look.noise * draw(count, 1, 1, 1).clamp_min(0.0) * extent(planes)
        planes = planes + spread * _noise(planes, generator)
    planes = planes.clamp(0.0, 1.0)
    if look.chance < 1.0:
        planes = torch.where(draw(count, 1, 1, 1) * 0.5 + 0.5 < look.chance, planes, original)
    return planes


def _noise(planes: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Draw normal noise where the planes are: millions of numbers from the processor would hold a GPU up."""
    if planes.device.type == "cpu":
        return torch.randn(planes.shape, generator=generator)
    own = torch.Generator(device=planes.device)
    own.manual_seed(int(torch.randint(2**62, (1,), generator=generator)))
    return torch.randn(planes.shape, generator=own, device=planes.device)


def _curved(planes: torch.Tensor, chance: float, draw: Draw) -> torch.Tensor:
    """Send intensities through drawn rising curves: a line through nine points, one for each image and channel."""
    count, channels = planes.shape[:2]
    steps = torch.exp(1.2 * draw(count, channels, 8))
    steps = 0.5 * steps + 0.5 * torch.exp(1.2 * draw(count, 1, 8))
    knots = F.pad(steps.cumsum(dim=2), (1, 0))
    low = 0.15 * draw(count, channels, 1).clamp_min(0.0) * extent(planes)[:, :, 0]
    high = 1.0 - 0.15 * draw(count, channels, 1).clamp_min(0.0)
    knots = low + (high - low) * knots / knots[:, :, -1:]
    places = planes.reshape(count, channels, -1) * 8.0
    lower = places.floor().clamp(0, 7)
    index = lower.long()
    first, second = knots.gather(2, index), knots.gather(2, index + 1)
    curved = (first + (second - first) * (places - lower)).view_as(planes)
    chosen = (draw(count, 1, 1, 1) * 0.5 + 0.5) < chance
    return torch.where(chosen, curved, planes)


def _blurred(planes: torch.Tensor, chance: float, draw: Draw) -> torch.Tensor:
    """Blur or coarsen some images; the two are done for the whole batch with one strength each, which is cheap and enough."""
    count, _, height, width = planes.shape
    which = draw(count, 1, 1, 1) * 0.5 + 0.5
    strength = draw(2).cpu() * 0.5 + 0.5
    if bool((which < chance / 2).any()):
        spread = 0.5 + float(strength[0]) * 1.2
        reach = max(1, min(3, math.ceil(2 * spread)))
        taps = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, device=planes.device) / spread) ** 2)
        taps = (taps / taps.sum()).to(planes.dtype)
        channels = planes.shape[1]
        padded = F.pad(planes, (reach, reach, reach, reach), mode="reflect")
        once = F.conv2d(padded, taps.view(1, 1, 1, -1).expand(channels, 1, 1, -1), groups=channels)
        twice = F.conv2d(once, taps.view(1, 1, -1, 1).expand(channels, 1, -1, 1), groups=channels)
        planes = torch.where(which < chance / 2, twice, planes)
    if bool((which > 1 - chance / 2).any()):
        factor = 1.0 + float(strength[1]) * 1.5
        small = (max(8, round(height / factor)), max(8, round(width / factor)))
        coarse = F.interpolate(planes, size=small, mode="bilinear", antialias=True)
        coarse = F.interpolate(coarse, size=(height, width), mode="bilinear")
        planes = torch.where(which > 1 - chance / 2, coarse, planes)
    return planes
