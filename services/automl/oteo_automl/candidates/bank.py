"""A search's images, ready to be given out in batches."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from oteo_automl.candidates.modules import to_planes

_RESIDENT_BYTES = 4 * 1024**3


class ImageBank:
    """Prepared images, copied to the device where they fit, else read from their map batch by batch.

    Parameters
    ----------
    images
        ``(N, H, W, C)`` uint8 or float32, mapped into memory or not.
    """

    def __init__(self, images: NDArray[Any]) -> None:
        self._images = images
        self._device = torch.device("cpu")
        self._resident: torch.Tensor | None = None

    def place(self, device: torch.device) -> None:
        """Get ready to give batches on a device."""
        self._device = device
        if self._images.nbytes <= _RESIDENT_BYTES:
            # One copy out of the map: reading a row at a time through it costs more than the memory.
            self._resident = torch.from_numpy(np.array(self._images)).to(device)

    def planes(self, rows: NDArray[np.int64]) -> torch.Tensor:
        """Give ``(n, C, H, W)`` float32 of 0 to 1, channels last in memory, on the device."""
        if self._resident is not None:
            images = self._resident[torch.from_numpy(rows).to(self._resident.device)]
        else:
            images = torch.from_numpy(self._images[np.sort(rows)][np.argsort(np.argsort(rows))])
            if self._device.type == "cuda":
                images = images.pin_memory().to(self._device, non_blocking=True)
        return to_planes(images).contiguous(memory_format=torch.channels_last)


IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_SPREAD = (0.229, 0.224, 0.225)

_STATISTICS_SAMPLE = 256


def spread_rows(count: int, most: int) -> NDArray[np.int64]:
    """Give at most so many places of `count`, ascending and evenly spread; all where there are no more."""
    return np.unique(np.linspace(0, count - 1, min(most, count)).astype(np.int64))


def spread(rows: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """Give at most so many of the rows, evenly spread, in their order."""
    return rows[spread_rows(len(rows), most)]


def some_rows(images: NDArray[Any], rows: NDArray[np.int64], most: int) -> NDArray[Any]:
    """Give at most so many images, evenly spread over the rows."""
    picked: NDArray[Any] = np.ascontiguousarray(images[spread(rows, most)])
    return picked


def normalisation(images: NDArray[Any], rows: NDArray[np.int64], *, pretrained: bool) -> tuple[list[float], list[float]]:
    """Give mean and spread of each channel, on the scale of 0 to 1: ImageNet's for pretrained weights, else those of the rows' images."""
    channels = images.shape[3]
    if pretrained:
        if channels == 3:
            return list(IMAGENET_MEAN), list(IMAGENET_SPREAD)
        return [sum(IMAGENET_MEAN) / 3] * channels, [sum(IMAGENET_SPREAD) / 3] * channels
    some = some_rows(images, rows, _STATISTICS_SAMPLE).astype(np.float32)
    if images.dtype == np.uint8:
        some /= 255.0
    return some.mean(axis=(0, 1, 2)).tolist(), np.maximum(some.std(axis=(0, 1, 2)), 0.02).tolist()
