"""What every generator owes, and the ResNet generator."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import nn

from oteo_translate.methods.unpaired.layers import BlurDown, InstanceNorm, begin, convolution, double, normed, pad_to

GAIN = 0.1
"""First weights of the last layer of a generator with residual output are so much smaller, so that it begins near the identity."""

_COLOUR_WIDTH = 64


class Generator(nn.Module):
    """A network from images to images.

    A subclass sets `multiple` and `widths` and has ``encode`` and ``decode``. Any height and width from 8 on: images are padded to a
    multiple and cut back.

    Parameters
    ----------
    channels
        Of the images, in and out.
    residual
        True: the network's answer is a change of the image (between -1 and 1), so that an untrained one is near the identity, and a small network
        that sees each pixel's colour alone adds to it: instance norm takes an image's own brightness away, and without it nothing in the
        network could tell an image of home, which should stay, from one that should change. False: the answer is the image, as in the papers.

    Attributes
    ----------
    multiple
        Height and width are padded to multiples of it.
    widths
        Channels of the feature maps that `features` gives, fine to coarse.
    """

    kind: ClassVar[str]

    def __init__(self, channels: int, residual: bool) -> None:
        super().__init__()
        self.channels = channels
        self.residual = residual
        self.colours = (
            nn.Sequential(nn.Conv2d(channels, _COLOUR_WIDTH, 1), nn.LeakyReLU(0.2), nn.Conv2d(_COLOUR_WIDTH, channels, 1))
            if residual
            else None
        )
        self.multiple = 1
        self.widths: list[int] = []

    def encode(self, signed: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Give the deepest map of ``(N, C, H, W)`` of -1 to 1, and maps at several depths."""
        raise NotImplementedError

    def decode(self, deepest: torch.Tensor, maps: list[torch.Tensor]) -> torch.Tensor:
        """Give ``(N, C, H, W)`` before the last activation."""
        raise NotImplementedError

    def last(self) -> nn.Conv2d:
        """Give the last layer."""
        raise NotImplementedError

    def begin(self, generator: torch.Generator) -> None:
        """Draw first weights."""
        begin(self, generator)
        if self.colours is not None:
            first, last = (layer for layer in self.colours if isinstance(layer, nn.Conv2d))
            nn.init.normal_(first.weight, 0.0, 1.0, generator=generator)
            if first.bias is not None:
                nn.init.normal_(first.bias, 0.0, 0.5, generator=generator)
            with torch.no_grad():
                last.weight.mul_(GAIN)
                self.last().weight.mul_(GAIN)

    def forward(self, planes: torch.Tensor) -> torch.Tensor:
        """Translate ``(N, C, H, W)`` float32 of 0 to 1. Not cut off at 0 and 1: a gradient must pass there."""
        return self.seen(planes)[0]

    def seen(self, planes: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Translate, and give the feature maps of `features` from the same pass."""
        height, width = planes.shape[-2:]
        deepest, maps = self.encode(self._signed(planes))
        found = self.decode(deepest, maps)[..., :height, :width].float()
        if self.colours is None:
            return 0.5 * torch.tanh(found) + 0.5, maps
        return planes + torch.tanh(found + self.colours(planes * 2.0 - 1.0).float()), maps

    def features(self, planes: torch.Tensor) -> list[torch.Tensor]:
        """Give feature maps of ``(N, C, H, W)`` float32 of 0 to 1, fine to coarse, `widths` channels each."""
        return self.encode(self._signed(planes))[1]

    def _signed(self, planes: torch.Tensor) -> torch.Tensor:
        return pad_to(planes, self.multiple) * 2.0 - 1.0


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(normed(width, width), convolution(width, width, 3), InstanceNorm())

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = maps + self.body(maps)
        return found


class ResnetGenerator(Generator):
    """Two times down, residual blocks, two times up.

    Johnson et al., "Perceptual losses for real-time style transfer", ECCV 2016, as CycleGAN has it (Zhu et al., ICCV 2017, section 7.2), with
    the anti-aliased sampling of CUT (Park et al., ECCV 2020, appendix C.2). Feature maps are CUT's: the image itself, both
    convolutions that lead down, the first block and the one in the middle.

    Parameters
    ----------
    channels, residual
        See `Generator`.
    width
        Channels at full size; the blocks have four times as many.
    blocks
        Residual blocks; 6 for 128 pixels and 9 for 256 in the papers.
    """

    kind = "resnet"

    def __init__(self, channels: int, residual: bool = True, width: int = 64, blocks: int = 9) -> None:
        super().__init__(channels, residual)
        self.multiple = 4
        self.stem = normed(channels, width, 7)
        self.down1 = convolution(width, 2 * width, 3)
        self.after1 = nn.Sequential(InstanceNorm(), nn.ReLU(), BlurDown(2 * width))
        self.down2 = convolution(2 * width, 4 * width, 3)
        self.after2 = nn.Sequential(InstanceNorm(), nn.ReLU(), BlurDown(4 * width))
        self.middle = blocks // 2 + 1
        self.blocks = nn.ModuleList(_Block(4 * width) for _ in range(blocks))
        self.up2 = normed(4 * width, 2 * width)
        self.up1 = normed(2 * width, width)
        self.out = convolution(width, channels, 7, bias=True)
        self.widths = [channels, 2 * width, 4 * width, 4 * width, 4 * width][: 5 if blocks > 1 else 4]

    def encode(self, signed: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """See `Generator`."""
        first = self.down1(self.stem(signed))
        second = self.down2(self.after1(first))
        maps = [signed, first, second]
        deepest = self.after2(second)
        for number, block in enumerate(self.blocks[: self.middle]):
            deepest = block(deepest)
            if number in (0, self.middle - 1):
                maps.append(deepest)
        return deepest, maps

    def decode(self, deepest: torch.Tensor, maps: list[torch.Tensor]) -> torch.Tensor:
        """See `Generator`."""
        for block in self.blocks[self.middle :]:
            deepest = block(deepest)
        found: torch.Tensor = self.out(self.up1(double(self.up2(double(deepest)))))
        return found

    def last(self) -> nn.Conv2d:
        """See `Generator`."""
        return self.out
