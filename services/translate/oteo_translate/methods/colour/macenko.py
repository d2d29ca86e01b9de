"""Macenko et al., "A method for normalizing histology slides for quantitative analysis", ISBI 2009."""

from __future__ import annotations

from collections.abc import Callable

import torch

from oteo_core.graphs.modules import saved
from oteo_translate.domains import Domain
from oteo_translate.methods.base import method
from oteo_translate.methods.colour.quantiles import masked_quantile
from oteo_translate.methods.colour.stains import Finder, StainMethod, StainTranslation

_SQUARINGS = 10
"""Of a matrix: what is a hundredth smaller than the main eigenvalue is 1e-4 of it afterwards."""

_EXTREME = 0.01


def axes(matrices: torch.Tensor) -> torch.Tensor:
    """Give two directions at right angles in the plane of the two main eigenvectors of symmetric ``(N, 3, 3)``: ``(N, 3, 2)``, the main one first.

    ONNX has no eigenvectors. Squaring a matrix again and again leaves its main one; where the two main ones are nearly equal, it leaves a
    direction between them, which spans the same plane with the next.
    """
    first = _main(matrices)
    beside = torch.eye(3).to(matrices) - first @ first.transpose(1, 2)
    return torch.cat([first, _main(beside @ matrices @ beside)], dim=2)


def _main(matrices: torch.Tensor) -> torch.Tensor:
    """Give the main eigenvector ``(N, 3, 1)``; nothing but zeros of a matrix of zeros."""
    power = matrices
    for _ in range(_SQUARINGS):
        power = power / (power[:, 0:1, 0:1] + power[:, 1:2, 1:2] + power[:, 2:3, 2:3]).clamp(min=1e-12)
        power = power @ power
    # Every column points that way; the longest one is least touched by rounding.
    place = power.square().sum(1, keepdim=True).argmax(2, keepdim=True)
    column = power.gather(2, place + torch.zeros_like(power[:, :, :1]).long())
    return column / column.square().sum(1, keepdim=True).sqrt().clamp(min=1e-12)


def find(densities: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Find two stains: the outermost directions, but for one hundredth on either side, in the plane that holds most of the density.

    Parameters
    ----------
    densities
        ``(N, 3, P)``.
    mask
        ``(N, P)``: stained pixels.

    Returns
    -------
    Tensor
        ``(N, 3, 2)``, not negative.
    """
    weights = mask[:, None, :].float()
    count = weights.sum(2, keepdim=True).clamp(min=1)
    centred = (densities - (densities * weights).sum(2, keepdim=True) / count) * weights
    plane = axes(centred @ centred.transpose(1, 2) / count)
    # The first axis looks to where density is, so that no direction of a stained pixel is behind it.
    sign = torch.where(plane.sum(1, keepdim=True) < 0, -torch.ones_like(plane[:, :1]), torch.ones_like(plane[:, :1]))
    plane = plane * sign
    along = plane.transpose(1, 2) @ densities
    ahead = mask & (along[:, 0] > 1e-3)
    # Order and thereby percentiles of angles are those of their tangents.
    slopes = along[:, 1] / along[:, 0].clamp(min=1e-3)
    ends = [masked_quantile(slopes, ahead, share).clamp(-1e3, 1e3)[:, None] for share in (_EXTREME, 1 - _EXTREME)]
    return torch.stack([plane[:, :, 0] + end * plane[:, :, 1] for end in ends], dim=2).clamp(min=0)


@saved
class MacenkoTranslation(StainTranslation):
    """Stains as the outermost directions of density; see `StainTranslation`."""

    kind = "translation-macenko"

    def find(self, densities: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """See `find` of the module."""
        return find(densities, mask)


@method
class Macenko(StainMethod):
    """Macenko's stain normalisation."""

    name = "macenko"
    summary = "Two stains are found as the extreme directions of optical density and exchanged for home's (Macenko et al. 2009)."
    cost = 1.0
    per_image = 0.01
    translation = MacenkoTranslation

    def finder(self, domain: Domain, lamp: torch.Tensor, scope: str, check: Callable[[], None]) -> Finder:
        """See `StainMethod`: the same for every image."""
        return find
