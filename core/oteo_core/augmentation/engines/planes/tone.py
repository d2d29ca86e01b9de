"""Steps that change brightness, contrast and colour, pixel by pixel, by the numbers that were drawn."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from kornia.color import hsv_to_rgb, rgb_to_hsv, rgb_to_lab
from kornia.enhance import adjust_gamma
from numpy.typing import NDArray

from oteo_core.augmentation.engines.planes.work import Planes, Step, Work, alike, indices, tensor
from oteo_core.augmentation.transforms import bias_field
from oteo_core.augmentation.transforms.stain import DARKEST, TO_COLOUR, TO_STAIN

_LUMA = (0.299, 0.587, 0.114)
"""Weights of ITU-R BT.601."""
_MOST = 16_000_000
"""Values of which torch gives quantiles."""


def cut(planes: torch.Tensor, work: Work) -> torch.Tensor:
    """Cut to the range, and cut off fractions where the other engine looks whole numbers up in a table that does."""
    inside = planes.clamp(0, work.top)
    # A product such as 40 * 1.1 may lie just below the whole number that it is.
    return (inside + 1e-3).floor() if work.whole else inside


def _same(planes: torch.Tensor, work: Work) -> Planes:
    return planes.clone()


def _negative(planes: torch.Tensor, work: Work) -> Planes:
    return work.top - planes


def _brightness_contrast(planes: torch.Tensor, work: Work) -> Planes:
    return cut(planes * work.values("alpha", planes) + work.values("beta", planes), work)


def _gamma(planes: torch.Tensor, work: Work) -> Planes:
    changed: torch.Tensor = adjust_gamma(planes, work.values("gamma", planes).flatten(), torch.ones(1, device=planes.device))
    return changed


def _curve(planes: torch.Tensor, work: Work) -> Planes:
    t = torch.linspace(0, 1, 256, dtype=torch.float64, device=planes.device)
    changed = []
    for plane, part in zip(planes, work.parts, strict=True):
        # A Bézier curve from black to white by the two points that were drawn.
        curve = 3 * (1 - t) ** 2 * t * float(part["low_y"]) + 3 * (1 - t) * t**2 * float(part["high_y"]) + t**3
        changed.append((curve * 255).round().clamp(0, 255).float()[plane.long()])
    return torch.stack(changed)


def _stretched(planes: torch.Tensor, work: Work) -> Planes:
    changed = []
    for plane, part in zip(planes, work.parts, strict=True):
        flat = plane.flatten()
        percent = float(part["percent"])
        if flat.numel() <= _MOST:
            low, high = torch.quantile(flat, torch.tensor([percent / 100, 1 - percent / 100], device=flat.device))
        else:
            low, high = tensor(np.percentile(flat.cpu().numpy(), (percent, 100 - percent)), flat)
        stretched = ((plane - low) / (high - low).clamp_min(1e-9)).clamp(0, 1) * work.top
        changed.append(torch.where(high > low, plane + float(part["share"]) * (stretched - plane), plane))
    return torch.stack(changed)


def _shifted(planes: torch.Tensor, work: Work) -> Planes:
    shifts = tensor(np.array([part["shifts"] for part in work.parts]), planes)
    return planes + shifts[:, :, None, None] * work.top


def _grey(planes: torch.Tensor, work: Work) -> torch.Tensor:
    """Give the brightness ``(N, 1, H, W)`` of red, green and blue."""
    grey = (planes * torch.tensor(_LUMA, device=planes.device).view(1, 3, 1, 1)).sum(dim=1, keepdim=True)
    return grey.round() if work.whole else grey


def _without_colour(planes: torch.Tensor, work: Work) -> Planes:
    return _grey(planes, work).expand(-1, 3, -1, -1)


def _lit(planes: torch.Tensor, work: Work) -> Planes:
    # What the light does to grey says what it does to all.
    grey = np.full((1, 1, 3), 0.25, np.float32)
    factors = [
        one.apply(grey, temperature=part["temperature"]).ravel() / 0.25 for one, part in zip(work.transforms, work.parts, strict=True)
    ]
    return cut(planes * tensor(np.stack(factors), planes)[:, :, None, None], work)


def _brighter(planes: torch.Tensor, factors: torch.Tensor, work: Work) -> torch.Tensor:
    return cut(planes * factors, work)


def _more_contrast(planes: torch.Tensor, factors: torch.Tensor, work: Work) -> torch.Tensor:
    mean = _grey(planes, work).double().mean(dim=(1, 2, 3), keepdim=True).float()
    return cut(planes * factors + mean * (1 - factors), work)


def _more_saturation(planes: torch.Tensor, factors: torch.Tensor, work: Work) -> torch.Tensor:
    mixed = (planes * factors + _grey(planes, work) * (1 - factors)).clamp(0, work.top)
    return mixed.round() if work.whole else mixed


def _other_hue(planes: torch.Tensor, turns: torch.Tensor, work: Work) -> torch.Tensor:
    hue, saturation, value = rgb_to_hsv(planes / work.top).split(1, dim=1)
    circle = 2 * math.pi
    hue = hue / circle
    if work.whole:
        # OpenCV holds hues of 8-bit images in steps of two degrees.
        hue = torch.remainder((hue * 180).round() + 180 * turns, 180).floor() / 180
        saturation = (saturation * 255).round() / 255
    else:
        hue = torch.remainder(hue + turns, 1)
    rgb: torch.Tensor = hsv_to_rgb(torch.cat([hue * circle, saturation, value], dim=1)) * work.top
    return rgb.round() if work.whole else rgb


_JITTERS: tuple[tuple[str, float, Callable[[torch.Tensor, torch.Tensor, Work], torch.Tensor]], ...] = (
    ("brightness", 1.0, _brighter),
    ("contrast", 1.0, _more_contrast),
    ("saturation", 1.0, _more_saturation),
    ("hue", 0.0, _other_hue),
)
"""The four parts of a jitter: what each draws, the value that changes nothing, and what it does."""


def _jittered(planes: torch.Tensor, work: Work) -> Planes:
    changed = planes.clone()
    for place in range(len(_JITTERS)):
        for kind, numbers in alike([int(part["order"][place]) for part in work.parts]).items():
            name, still, change = _JITTERS[kind]
            moving = [number for number in numbers if work.parts[number][name] != still]
            if moving:
                drawn = tensor([work.parts[number][name] for number in moving], planes).view(-1, 1, 1, 1)
                chosen = indices(moving, planes)
                changed[chosen] = change(changed[chosen], drawn, work)
    return changed


def _other_space(planes: torch.Tensor, work: Work) -> Planes:
    share = planes / work.top
    if work.transforms[0].space == "hsv":
        scale, offset, converted = (2 * math.pi, 1.0, 1.0), (0.0, 0.0, 0.0), rgb_to_hsv(share)
    else:
        scale, offset, converted = (100.0, 255.0, 255.0), (0.0, 128.0, 128.0), rgb_to_lab(share)
    device = planes.device
    moved: torch.Tensor = converted + torch.tensor(offset, device=device).view(1, 3, 1, 1)
    return moved / torch.tensor(scale, device=device).view(1, 3, 1, 1) * work.top


def _stained(planes: torch.Tensor, work: Work) -> Planes:
    scales = tensor(np.array([part["scales"] for part in work.parts]), planes)[:, :, None, None]
    shifts = tensor(np.array([part["shifts"] for part in work.parts]), planes)[:, :, None, None]
    density = -(planes / work.top).clamp_min(float(DARKEST)).log10()
    stains = _mixed(density, TO_STAIN) * scales + shifts
    return torch.pow(10.0, -_mixed(stains, TO_COLOUR)) * work.top


def _mixed(planes: torch.Tensor, matrix: NDArray[np.float32]) -> torch.Tensor:
    """Multiply the channels ``(N, 3, H, W)`` of each pixel, as a row, by a matrix; term by term, as processors round products of matrices."""
    parts = planes.unbind(1)
    return torch.stack(
        [sum((float(matrix[i, j]) * part for i, part in enumerate(parts)), torch.zeros_like(parts[0])) for j in range(3)], dim=1
    )


def _spread(planes: torch.Tensor, work: Work) -> Planes:
    changed = []
    for plane, part in zip(planes, work.parts, strict=True):
        share = plane / work.top
        if plane.shape[0] == 3:
            grey = _grey(share[None], Work((), (), 1.0, False, work.border))[0]
            added = _evened(grey[0])[None] - grey
        else:
            added = torch.stack([_evened(one) for one in share]) - share
        changed.append((share + float(part["share"]) * added) * work.top)
    return torch.stack(changed)


def _evened(grey: torch.Tensor) -> torch.Tensor:
    """Give each value of ``(H, W)`` the share of the pixels that are no brighter, without those of the darkest."""
    levels = (grey.clamp(0, 1) * 65535).round().long()
    levels_flat = levels.flatten()
    counts = torch.zeros(65536, dtype=torch.int64, device=grey.device).scatter_add_(0, levels_flat, torch.ones_like(levels_flat))
    sums = torch.cumsum(counts, 0)
    lowest = sums[levels_flat.min().view(1)]
    left = (sums[-1] - lowest).double()
    return torch.where(left > 0, ((sums - lowest).double() / left.clamp_min(1)).float()[levels], grey)


def _vignetted(planes: torch.Tensor, work: Work) -> Planes:
    height, width = planes.shape[2:]
    axes = torch.tensor([part["axis"] for part in work.parts], dtype=torch.float64)
    loss = torch.tensor([float(part["loss"]) for part in work.parts], dtype=torch.float64)
    x = torch.arange(width, dtype=torch.float64) + 0.5 - width * (0.5 + axes[:, :1])
    y = torch.arange(height, dtype=torch.float64) + 0.5 - height * (0.5 + axes[:, 1:])
    farthest = ((x**2).amax(1) + (y**2).amax(1)).clamp_min(1e-9)[:, None]
    tangent = (1 / (1 - loss).clamp_min(1e-3).sqrt() - 1)[:, None]
    across, down = (tangent * line**2 / farthest for line in (x, y))
    across, down = across.float().to(planes.device), down.float().to(planes.device)
    return planes / ((1 + across[:, None, None, :] + down[:, None, :, None]) ** 2)


def _uneven(planes: torch.Tensor, work: Work) -> Planes:
    height, width = planes.shape[2:]
    order = bias_field.ORDER + 1
    table = np.zeros((len(work.parts), order, order), np.float32)
    for number, part in enumerate(work.parts):
        for (i, j), coefficient in zip(bias_field.TERMS, part["coefficients"], strict=True):
            table[number, j, i] = coefficient
    powers = torch.arange(order, device=planes.device)[:, None]
    across, down = (torch.linspace(-1, 1, length, device=planes.device)[None, :] ** powers for length in (width, height))
    # In float64, as graphics processors may round products of matrices to fewer digits than float32 has.
    exponent = (down.T.double() @ tensor(table, planes).double() @ across.double()).float()
    return planes * torch.exp(exponent - exponent.mean(dim=(1, 2), keepdim=True))[:, None]


STEPS: dict[str, Step] = {
    "RandomBrightnessContrast": _brightness_contrast,
    "RandomGamma": _gamma,
    "RandomToneCurve": _curve,
    "Equalize": _spread,
    "AutoContrast": _stretched,
    "InvertImg": _negative,
    "NoOp": _same,
    "ColorJitter": _jittered,
    "ColorShift": _shifted,
    "raise_red": _shifted,
    "raise_green": _shifted,
    "raise_blue": _shifted,
    "raise_hue": _jittered,
    "raise_saturation": _jittered,
    "raise_value": _jittered,
    "PlanckianJitter": _lit,
    "ToGray": _without_colour,
    "change_to_hsv": _other_space,
    "change_to_lab": _other_space,
    "StainJitter": _stained,
    "Vignette": _vignetted,
    "BiasField": _uneven,
}
