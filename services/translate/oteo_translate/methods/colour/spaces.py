"""Colour spaces in which lightness and colour are apart."""

from __future__ import annotations

import kornia.color
import torch

SPACES = ("lalphabeta", "cielab")

# Reinhard et al. 2001, equations 4, 7 and 6: RGB to cone responses and back; logarithms of cone responses to one achromatic and two
# opponent axes (Ruderman et al. 1998).
_CONES = ((0.3811, 0.5783, 0.0402), (0.1967, 0.7244, 0.0782), (0.0241, 0.1288, 0.8444))
_AXES = ((1.0, 1.0, 1.0), (1.0, 1.0, -2.0), (1.0, -1.0, 0.0))
_SCALES = (3**-0.5, 6**-0.5, 2**-0.5)

LEAST = 1.0 / 255
"""Added before the logarithm, which has none of black."""


def to_space(planes: torch.Tensor, space: str) -> torch.Tensor:
    """Turn ``(N, 3, H, W)`` sRGB of 0 to 1 into one of `SPACES`."""
    if space == "cielab":
        found: torch.Tensor = kornia.color.rgb_to_lab(planes)
        return found
    return _mix(torch.log10(_mix(planes, _matrix(_CONES)) + LEAST), _axes())


def from_space(values: torch.Tensor, space: str) -> torch.Tensor:
    """Turn back into sRGB, cut off at 0 and 1."""
    if space == "cielab":
        found: torch.Tensor = kornia.color.lab_to_rgb(values, clip=True)
        return found.clamp(0, 1)
    # Nothing lies above 10 in the logarithm but what a spread-out image throws there; it is white in any case.
    cones = torch.pow(10.0, _mix(values, torch.linalg.inv(_axes())).clamp(max=2.0)) - LEAST
    return _mix(cones, torch.linalg.inv(_matrix(_CONES))).clamp(0, 1)


def _matrix(rows: tuple[tuple[float, ...], ...]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float32)


def _axes() -> torch.Tensor:
    return _matrix(_AXES) * torch.tensor(_SCALES)[:, None]


def _mix(planes: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.conv2d(planes, matrix.to(planes)[:, :, None, None])
