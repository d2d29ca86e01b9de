"""GANILLA's generator."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from oteo_translate.methods.unpaired.generators import Generator
from oteo_translate.methods.unpaired.layers import InstanceNorm, convolution, normed


class _Block(nn.Module):
    """A residual block whose sum is a concatenation, so that low-level features go on unmixed."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            normed(inside, outside, 3, stride, "replicate"), convolution(outside, outside, 3, 1, "replicate"), InstanceNorm()
        )
        same = stride == 1 and inside == outside
        self.beside = nn.Identity() if same else nn.Sequential(nn.Conv2d(inside, outside, 1, stride, bias=False), InstanceNorm())
        self.merge = normed(2 * outside, outside, 3, 1, "replicate")

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.merge(torch.cat([self.body(maps), self.beside(maps)], 1))
        return found


class GanillaGenerator(Generator):
    """A residual encoder whose blocks concatenate, and a decoder that sums the encoder's maps of each size.

    Hicsonmez et al., "GANILLA: generative adversarial networks for image to illustration translation", Image and Vision Computing 95,
    2020, section 3: content is kept by low-level features on long ways, style comes from deep ones. Four layers of two blocks after a
    7x7 convolution and a pooling; each layer's maps, brought to one width by a 1x1 convolution, are added on the way up, which
    doubles by nearest pixels and smooths by 3x3 convolutions.

    Parameters
    ----------
    channels, residual
        See `Generator`.
    width
        Channels of the first layer; the others have two, two and four times as many.
    """

    kind = "ganilla"

    def __init__(self, channels: int, residual: bool = True, width: int = 64) -> None:
        super().__init__(channels, residual)
        self.multiple = 16
        sizes = [width, 2 * width, 2 * width, 4 * width]
        self.stem = normed(channels, width, 7, 1, "replicate")
        self.layers = nn.ModuleList(
            nn.Sequential(_Block(inside, outside, 1 if level == 0 else 2), _Block(outside, outside, 1))
            for level, (inside, outside) in enumerate(zip([width, *sizes[:-1]], sizes, strict=True))
        )
        self.across = nn.ModuleList(nn.Conv2d(size, 2 * width, 1) for size in sizes)
        self.smooth = nn.ModuleList(normed(2 * width, 2 * width, 3, 1, "replicate") for _ in sizes)
        self.fine = normed(2 * width + width, width, 3, 1, "replicate")
        self.out = convolution(width, channels, 7, 1, "replicate", bias=True)
        self.widths = [channels, width, *sizes]

    def encode(self, signed: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """See `Generator`."""
        maps = [signed, self.stem(signed)]
        found = F.max_pool2d(maps[-1], 2)
        for layer in self.layers:
            found = layer(found)
            maps.append(found)
        return found, maps

    def decode(self, deepest: torch.Tensor, maps: list[torch.Tensor]) -> torch.Tensor:
        """See `Generator`."""
        found = self.smooth[3](self.across[3](deepest))
        for level in (2, 1, 0):
            found = self.smooth[level](F.interpolate(found, scale_factor=2.0) + self.across[level](maps[2 + level]))
        # The stem's maps come in at full size: the paper pools them away, and cells' edges with them.
        found = self.fine(torch.cat([F.interpolate(found, scale_factor=2.0), maps[1].to(found.dtype)], 1))
        answer: torch.Tensor = self.out(found)
        return answer

    def last(self) -> nn.Conv2d:
        """See `Generator`."""
        return self.out
