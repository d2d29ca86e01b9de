"""Colour spaces and their histograms as tensor operations that come out the same in every runtime."""

from __future__ import annotations

import torch
import torch.nn.functional as F

_BINS = 16
_COARSE = 4
_EPSILON = 1e-6
_TO_XYZ = ((0.4124564, 0.3575761, 0.1804375), (0.2126729, 0.7151522, 0.0721750), (0.0193339, 0.1191920, 0.9503041))
_WHITE = (0.95047, 1.0, 1.08883)


def to_lab(planes: torch.Tensor) -> torch.Tensor:
    """Turn sRGB into CIE L*a*b* (D65; CIE 15:2004), each axis stretched to 0 to 1.

    Parameters
    ----------
    planes
        ``(N, 3, H, W)`` of 0 to 1; with one channel it is L* alone that is given.

    Returns
    -------
    Tensor
        ``(N, 3, H, W)``: L* / 100, and a*, b* from -100 to 100; or ``(N, 1, H, W)``.
    """
    linear = torch.where(planes <= 0.04045, planes / 12.92, ((planes.clamp(min=0.0) + 0.055) / 1.055).pow(2.4))
    if planes.shape[1] == 1:
        return _lightness(linear) * 1.16 - 0.16
    red, green, blue = linear[:, 0:1], linear[:, 1:2], linear[:, 2:3]
    x, y, z = (_lightness((row[0] * red + row[1] * green + row[2] * blue) / white) for row, white in zip(_TO_XYZ, _WHITE, strict=True))
    return torch.cat([y * 1.16 - 0.16, (x - y) * 2.5 + 0.5, (y - z) + 0.5], dim=1)


def _lightness(value: torch.Tensor) -> torch.Tensor:
    return torch.where(value > 0.008856, value.clamp(min=0.001).pow(1.0 / 3.0), value * 7.787 + 16.0 / 116.0)


def to_hsv(planes: torch.Tensor) -> torch.Tensor:
    """Turn RGB into hue, saturation and value (Smith, SIGGRAPH 1978), each 0 to 1, hue going round.

    Parameters
    ----------
    planes
        ``(N, 3, H, W)`` of 0 to 1; with one channel it is the value alone that is given.
    """
    if planes.shape[1] == 1:
        return planes
    red, green, blue = planes[:, 0:1], planes[:, 1:2], planes[:, 2:3]
    most, least = planes.amax(dim=1, keepdim=True), planes.amin(dim=1, keepdim=True)
    spread = most - least
    safe = spread + _EPSILON
    hue = torch.where(
        most == red,
        (green - blue) / safe,
        torch.where(most == green, (blue - red) / safe + 2.0, (red - green) / safe + 4.0),
    )
    hue = torch.where(hue < 0.0, hue + 6.0, hue) / 6.0
    return torch.cat([hue, spread / (most + _EPSILON), most], dim=1)


def colour_histogram(planes: torch.Tensor, *, circular: bool) -> torch.Tensor:
    """Give the histogram of each axis, and with three axes a coarse joint one, as square roots of shares.

    Parameters
    ----------
    planes
        ``(N, 1 or 3, H, W)`` of 0 to 1; each pixel shares itself between its nearest bins.
    circular
        The first of three axes goes round.

    Returns
    -------
    Tensor
        ``(N, 16)`` or ``(N, 48 + 64)``.
    """
    axes = int(planes.shape[1])
    rounds = [circular and axes == 3 and axis == 0 for axis in range(axes)]
    flat = planes.clamp(0.0, 1.0).flatten(2)
    fine = [torch.stack([share.mean(dim=1) for share in _shares(flat[:, axis], _BINS, around=rounds[axis])], dim=1) for axis in range(axes)]
    parts = [torch.cat(fine, dim=1)]
    if axes == 3:
        first, second, third = (torch.stack(_shares(flat[:, axis], _COARSE, around=rounds[axis]), dim=1) for axis in range(3))
        pairs = (first[:, :, None, :] * second[:, None, :, :]).flatten(1, 2)
        parts.append((torch.matmul(pairs, third.transpose(1, 2)) / float(int(flat.shape[2]))).flatten(1))
    return torch.sqrt(torch.cat(parts, dim=1) + _EPSILON)


def _shares(values: torch.Tensor, bins: int, *, around: bool) -> list[torch.Tensor]:
    """Give each pixel's share in each bin, ``(N, P)`` each; they add up to one."""
    if around:
        positions = values * bins
        return [
            F.relu(1.0 - torch.minimum((positions - float(level)).abs(), float(bins) - (positions - float(level)).abs()))
            for level in range(bins)
        ]
    positions = values * (bins - 1)
    return [F.relu(1.0 - (positions - float(level)).abs()) for level in range(bins)]
