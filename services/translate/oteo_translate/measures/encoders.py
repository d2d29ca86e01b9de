"""Encoders with given weights, for distances between sets of images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from oteo_core.errors import FailedPrecondition

IMAGENET_MEAN, IMAGENET_SPREAD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Encoder:
    """A network that gives vectors, or maps whose means are taken.

    Parameters
    ----------
    network
        From ``(N, 3, side, side)`` to ``(N, D)`` or ``(N, D, h, w)``.
    side
        Of the images that it takes; others are resized, smoothed where they shrink.
    mean, spread
        Its normalisation of channels, for values of 0 to 1.
    device
        Where it runs.
    """

    def __init__(
        self,
        network: nn.Module,
        side: int,
        mean: tuple[float, ...] = IMAGENET_MEAN,
        spread: tuple[float, ...] = IMAGENET_SPREAD,
        device: str = "cpu",
    ) -> None:
        self._network = network.to(device).eval()
        self._side = side
        self._mean, self._spread = (torch.tensor(one, device=device).view(1, -1, 1, 1) for one in (mean, spread))
        self._device = device

    def __call__(self, images: NDArray[Any], batch: int = 32) -> NDArray[np.float32]:
        """Embed images ``(N, H, W, C)`` uint8 or float32 of 0 to 1, C 1 or 3: ``(N, D)`` float32."""
        return np.concatenate(list(self._parts(images, batch)))

    @torch.inference_mode()
    def _parts(self, images: NDArray[Any], batch: int) -> Iterator[NDArray[np.float32]]:
        for start in range(0, len(images), batch):
            part = torch.from_numpy(np.ascontiguousarray(images[start : start + batch])).to(self._device).permute(0, 3, 1, 2)
            planes = part.float() / 255.0 if part.dtype == torch.uint8 else part.float()
            planes = planes.expand(-1, 3, -1, -1)
            if planes.shape[-2:] != (self._side, self._side):
                planes = F.interpolate(planes, (self._side, self._side), mode="bilinear", antialias=True, align_corners=False)
            found = self._network((planes - self._mean) / self._spread)
            yield (found.mean((2, 3)) if found.ndim == 4 else found).float().cpu().numpy()


def inception(weights: Path, device: str = "cpu") -> Encoder:
    """Open torchvision's Inception-v3 with weights from a file: 2,048 dimensions, images of 299 pixels.

    Figures are not those of the original FID, whose network was converted from another framework; they compare among themselves.

    Parameters
    ----------
    weights
        A state dictionary as torchvision publishes it.
    device
        Where it runs.

    Raises
    ------
    FailedPrecondition
        ``BAD_WEIGHTS``: the file is not there, or not this network's.
    """
    from torchvision.models import inception_v3

    try:
        state = torch.load(weights, map_location="cpu", weights_only=True)
        network = inception_v3(weights=None, init_weights=False, aux_logits=True)
        network.load_state_dict(state)
    except (OSError, RuntimeError, ValueError, EOFError, KeyError, TypeError, UnpicklingError) as error:
        raise FailedPrecondition(f"no weights of Inception-v3 can be read from {weights}: {error}"[:400], reason="BAD_WEIGHTS") from error
    network.fc = nn.Identity()
    return Encoder(network, 299, device=device)
