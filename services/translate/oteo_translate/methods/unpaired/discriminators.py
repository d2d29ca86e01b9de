"""Who tells drawn images from real ones."""

from __future__ import annotations

import torch
from torch import nn

from oteo_translate.methods.unpaired.layers import BlurDown, InstanceNorm

LARGE, MEDIUM = 112, 48
"""Sides of crops from which a discriminator of three or two layers is taken."""


def layers_for(side: int) -> int:
    """Give the number of layers for crops of a side: patches of 84, 40 or 18 pixels must be smaller than the crop."""
    return 3 if side >= LARGE else 2 if side >= MEDIUM else 1


class PatchDiscriminator(nn.Module):
    """Judge overlapping patches.

    Isola et al., CVPR 2017, section 3.2.2: three layers are the PatchGAN of 70x70 pixels, two that of 34x34, one that of 16x16; the blur of CUT's anti-aliased
    downsampling widens what they see to 84, 40 and 18 pixels. Instance norm and leaky ReLU.

    Parameters
    ----------
    channels
        Of the images.
    width
        Channels of the first layer; doubled at each, up to eight times.
    layers
        How many times the size is halved.
    normed
        False: no normalisation, for Wasserstein critics and for patches whose brightness must count.
    """

    def __init__(self, channels: int, width: int = 64, layers: int = 3, normed: bool = True) -> None:
        super().__init__()
        norm = InstanceNorm if normed else nn.Identity
        parts: list[nn.Module] = [nn.Conv2d(channels, width, 4, padding=1), nn.LeakyReLU(0.2, inplace=True), BlurDown(width)]
        inside = width
        for level in range(1, layers + 1):
            outside = width * min(8, 2**level)
            parts += [nn.Conv2d(inside, outside, 4, padding=1, bias=not normed), norm(), nn.LeakyReLU(0.2, inplace=True)]
            if level < layers:
                parts.append(BlurDown(outside))
            inside = outside
        parts.append(nn.Conv2d(inside, 1, 4, padding=1))
        self.body = nn.Sequential(*parts)

    def forward(self, planes: torch.Tensor) -> torch.Tensor:
        """Judge ``(N, C, H, W)`` float32 of 0 to 1: ``(N, 1, h, w)``, one figure a patch, higher is more real."""
        found: torch.Tensor = self.body(planes * 2.0 - 1.0)
        return found
