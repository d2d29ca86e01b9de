"""timm's networks as classifiers of prepared images, and the portfolio of those worth trying."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import timm
import torch

from oteo_automl.candidates.modules import SavedModule, saved, to_planes

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_SPREAD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True)
class Architecture:
    """A network of the portfolio.

    Parameters
    ----------
    name
        timm's name.
    scratch
        True where it learns well without pretrained weights, on few images.
    large
        True where it wants a GPU.
    half
        True where bfloat16 is faster on a processor that has it (measured: plain convolutions gain, depthwise ones lose).
    rate
        Learning rate from scratch at a batch of 32, AdamW.
    """

    name: str
    scratch: bool = True
    large: bool = False
    half: bool = False
    rate: float = 1e-3


PORTFOLIO: tuple[Architecture, ...] = (
    Architecture("resnet18", half=True),
    Architecture("mobilenetv4_conv_small", rate=2e-3),
    Architecture("resnet10t", half=True),
    Architecture("efficientnet_lite0", scratch=False),
    Architecture("regnety_004", scratch=False),
    Architecture("resnet50d", large=True),
    Architecture("convnextv2_nano", large=True, scratch=False, rate=5e-4),
    Architecture("efficientnetv2_rw_s", large=True),
)
"""The first are tried first."""


def find_architecture(name: str) -> Architecture:
    """Give an architecture of the portfolio.

    Raises
    ------
    KeyError
        It is not in the portfolio.
    """
    for architecture in PORTFOLIO:
        if architecture.name == name:
            return architecture
    raise KeyError(name)


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
