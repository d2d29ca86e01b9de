"""Encoders with given weights, for distances between sets of images."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from oteo_core.artifacts import ArtifactStore
from oteo_core.errors import InvalidArgument
from oteo_translate.weights import find_weights_file, read_tensors

INCEPTION_MEAN, INCEPTION_SPREAD = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
"""What Inception-v3 was trained with: values of -1 to 1."""

LAST, FIRST = 2048, 64
"""Dimensions of Inception's end and of its first pooling."""

SIDE = 299
"""Pixels of Inception's images."""


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
    source
        Which weights they are, for people.
    """

    def __init__(
        self,
        network: nn.Module,
        side: int,
        mean: tuple[float, ...],
        spread: tuple[float, ...],
        device: str = "cpu",
        source: str = "",
    ) -> None:
        self.source = source
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


class _Pooled(nn.Module):
    """Inception-v3 as one vector of an image: what is pooled at its end, then the means of its first pooling."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        network.fc = nn.Identity()
        self.network = network
        self._first: list[torch.Tensor] = []
        network.maxpool1.register_forward_hook(lambda module, given, made: self._first.append(made.mean((2, 3))))

    def forward(self, planes: torch.Tensor) -> torch.Tensor:
        self._first.clear()
        last = self.network(planes)
        return torch.cat([last, self._first.pop()], dim=1)


def open_inception(uri: str, device: str = "cpu") -> Encoder:
    """Open torchvision's Inception-v3 with weights of a file, for images of 299 pixels: `LAST` dimensions of its end, then `FIRST` of its first pooling.

    Szegedy et al., "Rethinking the Inception architecture for computer vision", CVPR 2016. Figures are not those of the original FID, whose network has other
    weights and poolings; they compare among themselves.

    Parameters
    ----------
    uri
        A file, or a folder that holds one whose name begins with ``inception_v3``: ``.pth`` as torchvision publishes it, or ``.safetensors`` with the same
        names. A local path, or anything that fsspec opens.
    device
        Where it runs.

    Raises
    ------
    InvalidArgument
        ``NO_INCEPTION_WEIGHTS``: no such file; ``BAD_INCEPTION_WEIGHTS``: it holds other tensors. No pickled code is run.
    """
    from torchvision.models import inception_v3

    store, path = find_inception(uri)
    name = path.rsplit("/", 1)[-1]
    data = store.read_bytes(path)
    network = inception_v3(weights=None, init_weights=False, aux_logits=True)
    try:
        network.load_state_dict(read_tensors(name, data))
    except Exception as error:
        raise InvalidArgument(
            f"{name} does not hold weights of torchvision's Inception-v3: {error}"[:400], reason="BAD_INCEPTION_WEIGHTS"
        ) from error
    source = f"{name}@{hashlib.sha256(data).hexdigest()[:16]}"
    return Encoder(_Pooled(network), SIDE, INCEPTION_MEAN, INCEPTION_SPREAD, device, source)


def find_inception(uri: str) -> tuple[ArtifactStore, str]:
    """Find the file that `open_inception` reads, without reading it; the store that it lies in, and its path there.

    Raises
    ------
    InvalidArgument
        ``NO_INCEPTION_WEIGHTS``.
    """
    return find_weights_file(uri, ("inception_v3",), "NO_INCEPTION_WEIGHTS")
