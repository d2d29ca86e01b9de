"""Networks of the portfolio: what is tried, and how an image becomes their input."""

from __future__ import annotations

import math
from dataclasses import dataclass

import timm
import torch
from torch import nn


@dataclass(frozen=True, slots=True)
class NetworkSpec:
    """A network of the portfolio.

    Attributes
    ----------
    name
        timm's name.
    cost
        Time of a training step relative to resnet18's.
    learning_rate
        For training from scratch with AdamW at batch 32; a tenth of it is used from pretrained weights.
    gpu_only
        Too slow without a GPU.
    """

    name: str
    cost: float
    learning_rate: float
    gpu_only: bool = False


PORTFOLIO: dict[str, NetworkSpec] = {
    spec.name: spec
    for spec in (
        NetworkSpec("resnet18", 1.0, 1e-3),
        NetworkSpec("mobilenetv4_conv_small", 0.6, 2e-3),
        NetworkSpec("efficientnet_lite0", 1.3, 2e-3),
        NetworkSpec("resnet34", 1.9, 1e-3, gpu_only=True),
        NetworkSpec("resnet50", 3.0, 1e-3, gpu_only=True),
        NetworkSpec("convnext_tiny", 4.0, 5e-4, gpu_only=True),
        NetworkSpec("tf_efficientnetv2_s", 4.0, 1e-3, gpu_only=True),
    )
}


class ImageNetwork(nn.Module):
    """A trunk that takes images as `prepare` gives them: it brings them to mean 0 and deviation 1 itself.

    Parameters
    ----------
    trunk
        From ``(N, C, H, W)`` float32 to ``(N, K)``.
    integer
        True for uint8 images (0 to 255), False for float32 (0 to 1).
    mean, deviation
        Of the training images, by channel, on the scale 0 to 1.
    """

    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(self, trunk: nn.Module, integer: bool, mean: list[float], deviation: list[float]) -> None:
        super().__init__()
        self.trunk = trunk
        self.scale = 255.0 if integer else 1.0
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, -1, 1, 1))
        self.register_buffer("deviation", torch.tensor(deviation, dtype=torch.float32).view(1, -1, 1, 1))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Give logits ``(N, K)`` of ``(N, H, W, C)``."""
        out: torch.Tensor = self.trunk(self.normalise(image.permute(0, 3, 1, 2).float() / self.scale))
        return out

    def normalise(self, pixels: torch.Tensor) -> torch.Tensor:
        """Normalise ``(N, C, H, W)`` on the scale 0 to 1."""
        return (pixels - self.mean) / self.deviation


def build_trunk(name: str, channels: int, classes: int, *, drop: float = 0.0, size: int = 128) -> nn.Module:
    """Build a network without weights; small inputs keep more of their resolution (a stride of 1 in the stem of residual networks below 96 pixels)."""
    trunk: nn.Module = timm.create_model(name, pretrained=False, num_classes=classes, in_chans=channels, drop_rate=drop)
    if name.startswith("resnet") and size < 96:
        trunk.maxpool = nn.Identity()
    return trunk


def planned_epochs(samples: int, rung: int) -> int:
    """Give the epochs of a rung: about 1500 images in the first, twice as many in each one after it."""
    return max(4, min(60, math.ceil(1500 / max(samples, 1)))) * 2**rung
