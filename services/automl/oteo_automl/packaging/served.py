"""The network as it is served: image in, calibrated probabilities out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

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


def run_torch(module: torch.nn.Module, images: NDArray[Any], batch: int = 64) -> tuple[NDArray[Any], ...]:
    """Run a served network in PyTorch, in float32, on the processor.

    Parameters
    ----------
    module
        Gives a tuple of tensors, in evaluation mode: a `ServedClassifier`, or what `oteo_automl.dense.DenseTask.serve` gives.
    images
        ``(N, H, W, C)``.
    batch
        Images at a time.

    Returns
    -------
    tuple of ndarray
        One ``(N, ...)`` for each output: probabilities and logits ``(N, K)`` float32 of a classifier.
    """
    parts: list[list[NDArray[Any]]] = []
    with torch.inference_mode():
        for part in batches(images, batch):
            parts.append([one.numpy() for one in module(torch.from_numpy(np.ascontiguousarray(part)))])
    return tuple(np.concatenate(column) for column in zip(*parts, strict=True))


def batches(images: NDArray[Any], size: int) -> Iterator[NDArray[Any]]:
    """Cut ``(N, ...)`` into parts of at most `size`."""
    for start in range(0, len(images), size):
        yield images[start : start + size]
