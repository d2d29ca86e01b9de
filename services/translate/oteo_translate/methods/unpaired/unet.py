"""The U-Net generator."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from oteo_translate.methods.unpaired.generators import Generator
from oteo_translate.methods.unpaired.layers import InstanceNorm, convolution, double


class UnetGenerator(Generator):
    """Down to a few pixels and up again, with the maps of each size handed over.

    Isola et al., "Image-to-image translation with conditional adversarial networks", CVPR 2017, which DualGAN uses (Yi et al., ICCV 2017, section
    3.3). Instance norm takes the place of batch norm, so that an image's answer does not depend on others; upsampling is bilinear before a convolution
    instead of transposed, which leaves no chessboard; there is no dropout: answers are the same twice.

    Parameters
    ----------
    channels, residual
        See `Generator`.
    width
        Channels at half size; doubled at each depth up to eight times.
    depth
        How many times the size is halved.
    """

    kind = "unet"

    def __init__(self, channels: int, residual: bool = True, width: int = 64, depth: int = 5) -> None:
        super().__init__(channels, residual)
        self.multiple = 2**depth
        sizes = [width * min(8, 2**level) for level in range(depth)]
        self.downs = nn.ModuleList(
            convolution(inside, outside, 3, 2, "replicate", bias=level == 0)
            for level, (inside, outside) in enumerate(zip([channels, *sizes[:-1]], sizes, strict=True))
        )
        self.ups = nn.ModuleList(
            convolution(sizes[level] * (1 if level == depth - 1 else 2), sizes[level - 1] if level else width, 3, 1, "replicate")
            for level in reversed(range(depth))
        )
        self.norm = InstanceNorm()
        self.out = convolution(width + channels, channels, 3, 1, "replicate", bias=True)
        self.widths = [channels, *sizes]

    def encode(self, signed: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """See `Generator`."""
        maps = [signed]
        for level, down in enumerate(self.downs):
            found = down(maps[-1] if level == 0 else F.leaky_relu(maps[-1], 0.2))
            maps.append(found if level == 0 else self.norm(found))
        return maps[-1], maps

    def decode(self, deepest: torch.Tensor, maps: list[torch.Tensor]) -> torch.Tensor:
        """See `Generator`."""
        found = deepest
        for number, up in enumerate(self.ups):
            found = self.norm(up(double(F.relu(found))))
            beside = maps[-2 - number]
            found = torch.cat([found, beside.to(found.dtype)], 1)
        answer: torch.Tensor = self.out(F.relu(found))
        return answer

    def last(self) -> nn.Conv2d:
        """See `Generator`."""
        return self.out
