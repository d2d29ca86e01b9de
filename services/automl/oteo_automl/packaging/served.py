"""The network as it is served: image in, calibrated probabilities out."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from oteo_automl.candidates.attention import attention, class_maps


class ServedClassifier(torch.nn.Module):
    """A network with its calibration, as the exported graph computes it.

    Parameters
    ----------
    network
        From ``(N, H, W, C)``, uint8 or float32 as `oteo_core.images.prepare` gives it, to logits ``(N, K)``; it does its own
        normalisation.
    temperature
        Divides the logits.
    maps
        True: the attention map of the first class as well; the network is one that `oteo_automl.candidates.attention.map_size` knows.
    """

    temperature: torch.Tensor

    def __init__(self, network: torch.nn.Module, temperature: float, *, maps: bool = False) -> None:
        super().__init__()
        self.network = network
        self.maps = maps
        self.register_buffer("temperature", torch.tensor(float(temperature), dtype=torch.float32))

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Give probabilities and logits, both ``(N, K)`` float32, and attention ``(N, h, w)`` float32 of 0 to 1 where there are maps."""
        if self.maps:
            raw, places = class_maps(self.network, image)
            logits = raw.float() / self.temperature
            return torch.softmax(logits, dim=1), logits, attention(logits, places)
        logits = self.network(image).float() / self.temperature
        return torch.softmax(logits, dim=1), logits


class ServedLabels(torch.nn.Module):
    """A network of several labels with its calibration, as the exported graph computes it.

    Parameters
    ----------
    network
        As in `ServedClassifier`; one logit for each label.
    scale, bias
        K each: the calibrated logit is ``scale * logit + bias``.
    maps
        As in `ServedClassifier`; of the most probable label.
    """

    scale: torch.Tensor
    bias: torch.Tensor

    def __init__(self, network: torch.nn.Module, scale: Sequence[float], bias: Sequence[float], *, maps: bool = False) -> None:
        super().__init__()
        self.network = network
        self.maps = maps
        self.register_buffer("scale", torch.tensor([float(value) for value in scale], dtype=torch.float32))
        self.register_buffer("bias", torch.tensor([float(value) for value in bias], dtype=torch.float32))

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Give probabilities of having each label and logits, both ``(N, K)`` float32, and attention where there are maps."""
        if self.maps:
            raw, places = class_maps(self.network, image)
            logits = raw.float() * self.scale + self.bias
            return torch.sigmoid(logits), logits, attention(logits, places, several=True)
        logits = self.network(image).float() * self.scale + self.bias
        return torch.sigmoid(logits), logits
