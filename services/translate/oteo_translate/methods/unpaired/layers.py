"""Layers that generators and discriminators are made of."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

Edges = Literal["reflect", "replicate"]

SPREAD = 0.02
"""Standard deviation of first weights (Zhu et al., "Unpaired image-to-image translation using cycle-consistent adversarial networks", ICCV 2017)."""


class InstanceNorm(nn.Module):
    """Instance normalisation without parameters (Ulyanov et al. 2016); a map of one pixel becomes zero instead of being refused."""

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Bring each map of ``(N, C, H, W)`` to mean 0 and variance 1."""
        return torch.instance_norm(maps, None, None, None, None, True, 0.0, 1e-5, torch.backends.cudnn.enabled)


class BlurDown(nn.Module):
    """Halve height and width after a binomial blur (Zhang, "Making convolutional networks shift-invariant again", ICML 2019), as CUT does.

    Parameters
    ----------
    channels
        Of the maps.
    """

    taps: torch.Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        line = torch.tensor([1.0, 2.0, 1.0]) / 4.0
        kernel = (line[:, None] * line[None, :]).expand(channels, 1, 3, 3).contiguous()
        self.register_buffer("taps", kernel, persistent=False)
        self._channels = channels

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Give ``(N, C, ceil(H / 2), ceil(W / 2))``."""
        return F.conv2d(F.pad(maps, (1, 1, 1, 1), mode="replicate"), self.taps.to(maps.dtype), stride=2, groups=self._channels)


def double(maps: torch.Tensor) -> torch.Tensor:
    """Double height and width. Bilinear weights are .75 and .25: CUT's transposed binomial filter of four taps, edges repeated."""
    return F.interpolate(maps, scale_factor=2.0, mode="bilinear", align_corners=False)


def normed(inside: int, outside: int, kernel: int = 3, stride: int = 1, edges: Edges = "reflect") -> nn.Sequential:
    """Give convolution, instance norm and ReLU; see `convolution`."""
    return nn.Sequential(convolution(inside, outside, kernel, stride, edges), InstanceNorm(), nn.ReLU(inplace=True))


def convolution(inside: int, outside: int, kernel: int, stride: int = 1, edges: Edges = "reflect", bias: bool = False) -> nn.Conv2d:
    """Give a convolution that keeps the size (at stride 1); no bias, where instance norm follows.

    Parameters
    ----------
    inside, outside
        Channels.
    kernel
        Odd side of the kernel.
    stride
        Step.
    edges
        ``"reflect"`` mirrors at edges; ``"replicate"`` repeats them, which also works on maps of one pixel.
    bias
        Whether there is one.
    """
    return nn.Conv2d(inside, outside, kernel, stride=stride, padding=kernel // 2, padding_mode=edges, bias=bias)


def pad_to(planes: torch.Tensor, multiple: int) -> torch.Tensor:
    """Repeat the last row and column of ``(N, C, H, W)`` until height and width are multiples."""
    if multiple == 1:
        return planes
    height, width = planes.shape[-2:]
    return F.pad(planes, (0, -width % multiple, 0, -height % multiple), mode="replicate")


def begin(network: nn.Module, generator: torch.Generator) -> None:
    """Draw first weights, normal with `SPREAD`; biases are zero."""
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            nn.init.normal_(module.weight, 0.0, SPREAD, generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
