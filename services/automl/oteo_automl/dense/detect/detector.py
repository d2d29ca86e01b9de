"""What all detectors have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import timm
import torch
from torch import nn

from oteo_automl.candidates.modules import SavedModule, to_planes
from oteo_automl.dense.detect.targets import BatchBoxes

Raw = tuple[torch.Tensor, ...]
"""Raw heads of a detector: float32 or half tensors whose first axis is the batch."""


class Detector(SavedModule):
    """From images to raw heads, from those to a loss and to boxes.

    Contract: `decode` is made of operations that ONNX knows, gives shapes that do not depend on values, and works on any batch;
    `lesson_loss` may draw from torch's global generator only.

    Parameters
    ----------
    channels
        C.
    mean, spread
        Of each channel, on the scale of 0 to 1.
    settings
        Of the subclass, JSON values; see `SavedModule`.
    """

    mean: torch.Tensor
    spread: torch.Tensor
    encoder: nn.Module

    draws = False
    """True where losses draw from torch's global generator."""

    can_mirror = False
    """True where raw heads of a mirrored image can be brought back by `mirror_raw`, and `balance` says something."""

    balance = 0.5
    """How much a predicted overlap weighs in the score."""

    def __init__(self, *, channels: int, mean: Sequence[float], spread: Sequence[float], **settings: Any) -> None:
        super().__init__(channels=channels, mean=list(mean), spread=list(spread), **settings)
        self.register_buffer("mean", torch.tensor(list(mean), dtype=torch.float32).view(1, -1, 1, 1))
        self.register_buffer("spread", torch.tensor(list(spread), dtype=torch.float32).view(1, -1, 1, 1))

    def forward(self, image: torch.Tensor) -> Raw:
        """Give raw heads of ``(N, H, W, C)``."""
        return self.from_planes(to_planes(image))

    def normalised(self, planes: torch.Tensor) -> torch.Tensor:
        """Bring planes of 0 to 1 to what the encoder takes."""
        return (planes - self.mean) / self.spread

    @abstractmethod
    def from_planes(self, planes: torch.Tensor) -> Raw:
        """Give raw heads of ``(N, C, H, W)`` float32 of 0 to 1."""

    @abstractmethod
    def raw_loss(self, raw: Raw, targets: BatchBoxes, height: int, width: int) -> torch.Tensor:
        """Give the mean loss of raw heads, a scalar; in float32 whatever they are."""

    @abstractmethod
    def decode(self, raw: Raw, height: int, width: int, limit: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Give boxes ``(N, M, 4)`` in prepared pixels, scores ``(N, M)`` falling, and classes ``(N, M)`` int64; M is at most `limit`."""

    def mirror_raw(self, raw: Raw) -> Raw:
        """Turn the raw heads of an image mirrored left and right into such of the image itself."""
        raise TypeError(f"{self.kind} has no heads that can be mirrored")

    def held_out_loss(self, planes: torch.Tensor, raw: Raw, targets: BatchBoxes) -> torch.Tensor:
        """Give the mean loss of held-out planes whose raw heads are known, in evaluation mode."""
        return self.raw_loss(raw, targets, planes.shape[2], planes.shape[3])

    def lesson_loss(self, planes: torch.Tensor, targets: BatchBoxes) -> torch.Tensor:
        """Give the mean loss of a batch of planes."""
        return self.raw_loss(self.from_planes(planes), targets, planes.shape[2], planes.shape[3])


def make_encoder(architecture: str, channels: int, finest: int, coarsest: int = 32) -> tuple[nn.Module, list[int]]:
    """Make a timm network that gives features at strides from `finest` to `coarsest`; also their channels, fine to coarse."""
    whole = timm.create_model(architecture, pretrained=False, features_only=True, in_chans=channels)
    kept = [index for index, stride in enumerate(whole.feature_info.reduction()) if finest <= stride <= coarsest]
    encoder = timm.create_model(architecture, pretrained=False, features_only=True, in_chans=channels, out_indices=kept)
    return encoder, list(encoder.feature_info.channels())


def pyramid(features: Sequence[torch.Tensor], neck: nn.Module) -> list[torch.Tensor]:
    """Run torchvision's feature pyramid over features, fine to coarse."""
    found = neck(OrderedDict((str(number), feature) for number, feature in enumerate(features)))
    return list(found.values())


def quiet_head(inside: int, outside: int, bias: float = 0.0) -> nn.Conv2d:
    """Make a last 1x1 convolution that says `bias` at first."""
    head = nn.Conv2d(inside, outside, 1)
    nn.init.normal_(head.weight, std=0.01)
    nn.init.constant_(head.bias, bias)  # type: ignore[arg-type]
    return head


def cell_centres(height: int, width: int, stride: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Give x ``(1, w)`` and y ``(h, 1)`` of the centres of a grid's cells, prepared pixels."""
    xs = (torch.arange(width // stride, device=device, dtype=torch.float32) + 0.5) * stride
    ys = (torch.arange(height // stride, device=device, dtype=torch.float32) + 0.5) * stride
    return xs[None, :], ys[:, None]
