"""timm's networks as classifiers of prepared images, and the portfolio of those worth trying."""

from __future__ import annotations

import math
from collections.abc import Sequence

import timm
import torch

from oteo_automl.candidates.modules import SavedModule, saved, to_planes


@saved
class NetworkClassifier(SavedModule):
    """From ``(N, H, W, C)`` to logits ``(N, K)``: normalisation and a timm network.

    Parameters
    ----------
    architecture
        timm's name.
    classes
        K; 0 for pooled features without a head.
    channels
        C.
    mean, spread
        Of each channel, on the scale of 0 to 1.
    drop_rate
        Dropout before the head while training.
    """

    kind = "network"
    mean: torch.Tensor
    spread: torch.Tensor

    def __init__(
        self,
        architecture: str,
        classes: int,
        channels: int,
        mean: Sequence[float],
        spread: Sequence[float],
        drop_rate: float = 0.0,
    ) -> None:
        super().__init__(
            architecture=architecture, classes=classes, channels=channels, mean=list(mean), spread=list(spread), drop_rate=drop_rate
        )
        self.network = timm.create_model(architecture, pretrained=False, num_classes=classes, in_chans=channels, drop_rate=drop_rate)
        self.register_buffer("mean", torch.tensor(list(mean), dtype=torch.float32).view(1, -1, 1, 1))
        self.register_buffer("spread", torch.tensor(list(spread), dtype=torch.float32).view(1, -1, 1, 1))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Give ``(N, K)``."""
        return self.from_planes(to_planes(image))

    def from_planes(self, planes: torch.Tensor) -> torch.Tensor:
        """Give ``(N, K)`` of ``(N, C, H, W)`` float32 of 0 to 1: the way in for augmented batches."""
        logits: torch.Tensor = self.network((planes - self.mean) / self.spread)
        return logits


def flops(name: str, size: int) -> float:
    """Guess the cost of one image relative to resnet18 at 128 pixels, for a plan before anything is measured."""
    relative = {
        "resnet18": 1.0,
        "resnet10t": 0.6,
        "mobilenetv4_conv_small": 0.55,
        "efficientnet_lite0": 1.6,
        "regnety_004": 1.2,
        "resnet50d": 3.0,
        "convnextv2_nano": 2.5,
        "efficientnetv2_rw_s": 4.0,
    }
    return relative.get(name, 2.0) * math.pow(size / 128.0, 2)
