"""Several segmentation networks as one: the weighted mean of their maps.

Logits of pixels' classes are averaged, which is the weighted geometric mean of probabilities (log-probabilities differ from logits by a number a
pixel, which softmax does not see); heights likewise, before the sigmoid.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from oteo_automl.candidates.modules import SavedModule, build, saved, to_planes
from oteo_automl.candidates.training import runs_on
from oteo_automl.dense.base import Mixing

_PIXELS = 4 * 256 * 256


@saved
class MeanMaps(SavedModule):
    """From ``(N, H, W, C)`` to the weighted mean ``(N, outputs, H, W)`` of several networks' maps.

    Parameters
    ----------
    parts
        Networks with equal outputs, or their specs.
    weights
        One each; they sum to one.
    """

    kind = "mean-maps"

    def __init__(self, parts: Sequence[Any], weights: Sequence[float]) -> None:
        modules = [part if isinstance(part, SavedModule) else build(part) for part in parts]
        super().__init__(parts=[module.spec() for module in modules], weights=[float(one) for one in weights])
        self.parts = nn.ModuleList(modules)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Give ``(N, outputs, H, W)``."""
        return self.from_planes(to_planes(image))

    def from_planes(self, planes: torch.Tensor) -> torch.Tensor:
        """Give ``(N, outputs, H, W)`` of ``(N, C, H, W)`` float32 of 0 to 1."""
        return self.combined([part.from_planes(planes) for part in self.parts])  # type: ignore[operator]

    def combined(self, raws: Sequence[torch.Tensor]) -> torch.Tensor:
        """Give the mean of the parts' maps, one tensor each."""
        return weighted_mean(raws, self.settings["weights"])


def weighted_mean(values: Sequence[torch.Tensor], weights: Sequence[float]) -> torch.Tensor:
    """Give the weighted mean of tensors of one shape, float32; weights sum to one."""
    total = values[0].float() * weights[0]
    for value, weight in zip(values[1:], weights[1:], strict=True):
        total = total + value.float() * weight
    return total


class MapMixing(Mixing):
    """Mixtures of trained networks with equal maps.

    Parameters
    ----------
    networks
        In evaluation mode.
    images, rows
        Prepared images, and the rows that answers are given of.
    truths
        Of the rows, in the prepared geometry.
    read
        From a place among the rows and the mixture's maps ``(outputs, H, W)`` to an answer.
    check
        Called between batches and images; may raise.
    """

    def __init__(
        self,
        networks: Sequence[SavedModule],
        images: NDArray[Any],
        rows: NDArray[np.int64],
        truths: list[Any],
        read: Callable[[int, NDArray[np.float32]], Any],
        *,
        check: Callable[[], None],
    ) -> None:
        self.truths = truths
        self._networks, self._read, self._check = list(networks), read, check
        size = max(1, min(16, _PIXELS // int(np.prod(images.shape[1:3]))))
        parts: list[list[torch.Tensor]] = [[] for _ in networks]
        device = runs_on()
        with torch.inference_mode():
            for network, kept in zip(networks, parts, strict=True):
                network.to(device)
                for start in range(0, len(rows), size):
                    check()
                    batch = torch.from_numpy(np.stack([images[row] for row in rows[start : start + size].tolist()]))
                    kept.append(network(batch.to(device)).float().cpu())
                network.cpu()
        self._maps = [torch.cat(kept) for kept in parts]

    def module(self, parts: Sequence[int], weights: Sequence[float]) -> MeanMaps:
        """Give the mixture of some of the networks as a network."""
        return MeanMaps([self._networks[part] for part in parts], weights).eval()

    def answers(self, parts: Sequence[int], weights: Sequence[float]) -> list[Any]:
        """Give what it says of the rows' images, in prepared pixels."""
        maps = weighted_mean([self._maps[part] for part in parts], weights).numpy()
        found = []
        for place, one in enumerate(maps):
            self._check()
            found.append(self._read(place, one))
        return found
