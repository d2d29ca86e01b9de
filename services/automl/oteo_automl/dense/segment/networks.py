"""Encoder-decoder networks of segmentation-models-pytorch with timm encoders, as parts that can be written down."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import segmentation_models_pytorch as smp
import torch
from torch import nn

from oteo_automl.candidates.modules import SavedModule, saved, to_planes

DEEP_LEVELS = 3
"""Resolutions that deep supervision looks at: whole, half and a quarter."""

NARROW = (128, 64, 48, 32, 16)
"""Channels of a decoder for processors: a fifth less time than `WIDE`, and on small sets no worse (white blood cells: IoU .945 and .946)."""

WIDE = (256, 128, 64, 32, 16)
"""Channels of a decoder as segmentation-models-pytorch has them."""

DEEP_FROM = 256 * 256
"""Pixels of an image from which deep supervision is worth its while: in smaller ones the coarse maps see no more than the fine one."""


_LEAST_SPREAD = 0.01
"""Added to an image's own spread: noise of a plain image stays small."""


def standardised(planes: torch.Tensor) -> torch.Tensor:
    """Give each channel of each image a mean of 0 and a spread of 1, rows and columns that are black throughout (letterboxing) not counted.

    What a lamp, a dye or a camera's white balance changes in all of an image alike is gone before the network looks at it.

    Parameters
    ----------
    planes
        ``(N, C, H, W)`` float32 of 0 to 1.

    Returns
    -------
    Tensor
        The same shape.
    """
    lit = planes.amax(dim=1, keepdim=True)
    rows = (lit.amax(dim=3, keepdim=True) > 0).to(planes.dtype)
    columns = (lit.amax(dim=2, keepdim=True) > 0).to(planes.dtype)
    # Along one side after the other: no sum grows past what half precision holds.
    rows = rows / rows.sum(dim=2, keepdim=True).clamp(min=1.0)
    columns = columns / columns.sum(dim=3, keepdim=True).clamp(min=1.0)
    mean = ((planes * columns).sum(dim=3, keepdim=True) * rows).sum(dim=2, keepdim=True)
    apart = planes - mean
    spread = ((apart * apart * columns).sum(dim=3, keepdim=True) * rows).sum(dim=2, keepdim=True).sqrt()
    return apart / (spread + _LEAST_SPREAD)


@saved
class SegmentationNetwork(SavedModule):
    """From ``(N, H, W, C)`` to maps of raw numbers ``(N, outputs, H, W)``: normalisation, encoder, decoder, head; sides are multiples of 32.

    Parameters
    ----------
    architecture
        timm's name of the encoder.
    decoder
        ``"unet"`` (Ronneberger et al. 2015), ``"unet++"`` (Zhou et al. 2018) or ``"deeplabv3+"`` (Chen et al. 2018).
    outputs
        Maps.
    channels
        C.
    mean, spread
        Of each channel, on the scale of 0 to 1.
    relative
        True: each image's own means and spreads are taken in place of these (`standardised`).
    widths
        Channels of the decoder's five blocks, from coarse to fine.
    deep
        True: while training, coarser maps too come out of the U-Net's decoder, for deep supervision (`DEEP_LEVELS`).
    """

    kind = "segmentation"
    mean: torch.Tensor
    spread: torch.Tensor

    def __init__(
        self,
        architecture: str,
        decoder: str,
        outputs: int,
        channels: int,
        mean: Sequence[float],
        spread: Sequence[float],
        widths: Sequence[int] = WIDE,
        deep: bool = False,
        relative: bool = False,
    ) -> None:
        super().__init__(
            architecture=architecture,
            decoder=decoder,
            outputs=outputs,
            channels=channels,
            mean=list(mean),
            spread=list(spread),
            widths=list(widths),
            deep=deep,
            relative=relative,
        )
        self._relative = relative
        common: dict[str, Any] = {"encoder_weights": None, "in_channels": channels, "classes": outputs}
        name = f"tu-{architecture}"
        if decoder == "unet":
            self.body: nn.Module = smp.Unet(name, decoder_channels=tuple(widths), **common)
        elif decoder == "unet++":
            self.body = smp.UnetPlusPlus(name, decoder_channels=tuple(widths), **common)
        elif decoder == "deeplabv3+":
            self.body = smp.DeepLabV3Plus(name, encoder_output_stride=16, **common)
        else:
            raise ValueError(f"a decoder {decoder!r} that is not known")
        self.deep_heads = (
            nn.ModuleList(nn.Conv2d(width, outputs, 1) for width in list(widths)[-2 : -DEEP_LEVELS - 1 : -1]) if deep else None
        )
        self.register_buffer("mean", torch.tensor(list(mean), dtype=torch.float32).view(1, -1, 1, 1))
        self.register_buffer("spread", torch.tensor(list(spread), dtype=torch.float32).view(1, -1, 1, 1))

    @property
    def encoder(self) -> nn.Module:
        """Timm's network, whose parts are named as in its weights."""
        found: nn.Module = self.body.encoder.model  # type: ignore[union-attr, assignment]
        return found

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Give ``(N, outputs, H, W)``."""
        return self.levels(to_planes(image))[0]

    def from_planes(self, planes: torch.Tensor) -> torch.Tensor:
        """Give ``(N, outputs, H, W)`` of ``(N, C, H, W)`` float32 of 0 to 1."""
        return self.levels(planes)[0]

    def levels(self, planes: torch.Tensor) -> list[torch.Tensor]:
        """Give the maps, and in training with deep supervision those of half and a quarter of the resolution."""
        image = standardised(planes) if self._relative else (planes - self.mean) / self.spread
        if self.deep_heads is None or not self.training:
            return [self.body(image)]
        features = self.body.encoder(image)  # type: ignore[operator]
        sizes = [feature.shape[2:] for feature in features][::-1]
        skips = features[1:][::-1]
        decoder: Any = self.body.decoder
        x = decoder.center(skips[0])
        coarse: list[torch.Tensor] = []
        for number, block in enumerate(decoder.blocks):
            x = block(x, *sizes[number + 1], skip_connection=skips[number + 1] if number + 1 < len(skips) else None)
            coarse.append(x)
        head: Any = self.body.segmentation_head
        return [head(x), *(one(level) for one, level in zip(self.deep_heads, coarse[-2::-1], strict=False))]
