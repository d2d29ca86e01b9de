"""He et al., "Guided Image Filtering", TPAMI 2013, and "Fast Guided Filter", 2015: a change of looks without a change of edges."""

from __future__ import annotations

import torch
from torch.nn import functional

RADIUS = 0.06
"""Of the windows, as a share of the shorter side."""

EPSILON = 1e-3
"""Variance below which a window counts as flat: contrast of 0.03."""


def carried(image: torch.Tensor, small: torch.Tensor, changed: torch.Tensor) -> torch.Tensor:
    """Carry over what was done to a small copy to the image: in every window and channel the gain and offset that fit best.

    Edges stay where the image has them, and new ones cannot appear, however the small copy was painted; size and depth stay as well.

    Parameters
    ----------
    image
        ``(N, C, H, W)``.
    small
        ``(N, C, h, w)``: the image at the size that was worked on.
    changed
        ``(N, C, h, w)``: what was made of it.

    Returns
    -------
    Tensor
        ``(N, C, H, W)`` of 0 to 1.
    """
    radius = max(1, round(RADIUS * min(int(small.shape[2]), int(small.shape[3]))))
    mean, other = _box(small, radius), _box(changed, radius)
    variance = _box(small * small, radius) - mean * mean
    shared = _box(small * changed, radius) - mean * other
    # A window with little contrast must not gain it: its gain goes to 1 and not to 0, which would wipe out what is faint.
    gain = (shared + EPSILON) / (variance.clamp(min=0) + EPSILON)
    offset = other - gain * mean
    size = image.shape[2:]
    gain, offset = (functional.interpolate(_box(one, radius), size, mode="bilinear", align_corners=False) for one in (gain, offset))
    return (gain * image + offset).clamp(0, 1)


def _box(values: torch.Tensor, radius: int) -> torch.Tensor:
    return functional.avg_pool2d(values, 2 * radius + 1, stride=1, padding=radius, count_include_pad=False)
