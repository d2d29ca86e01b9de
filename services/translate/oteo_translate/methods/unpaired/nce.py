"""Contrast between patches of an image and of its translation (PatchNCE).

Park et al., "Contrastive learning for unpaired image-to-image translation", ECCV 2020, section 3: a patch of the translation must be
recognised, by the generator's own features, among other patches of the same source image.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

TEMPERATURE = 0.07


class PatchFeatures(nn.Module):
    """Two-layer networks, one a depth, from feature maps at some places to unit vectors.

    Parameters
    ----------
    widths
        Channels of each feature map.
    size
        Length of the vectors.
    """

    def __init__(self, widths: Sequence[int], size: int = 256) -> None:
        super().__init__()
        self.heads = nn.ModuleList(nn.Sequential(nn.Linear(width, size), nn.ReLU(inplace=True), nn.Linear(size, size)) for width in widths)

    def forward(self, maps: Sequence[torch.Tensor], places: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Give vectors.

        Parameters
        ----------
        maps
            ``(N, C, H, W)`` each.
        places
            Flat positions ``(P,)`` int64 in each map, the same for all images.

        Returns
        -------
        list of Tensor
            ``(N, P, size)`` float32 each, of length 1.
        """
        found = []
        for head, one, where in zip(self.heads, maps, places, strict=True):
            rows = one.flatten(2).index_select(2, where).transpose(1, 2)
            found.append(F.normalize(head(rows).float(), dim=-1))
        return found


def draw_places(maps: Sequence[torch.Tensor], count: int, generator: torch.Generator) -> list[torch.Tensor]:
    """Draw up to `count` different positions in each map."""
    places = []
    for one in maps:
        area = one.shape[-2] * one.shape[-1]
        places.append(torch.randperm(area, generator=generator)[:count].to(one.device))
    return places


def patch_nce(queries: torch.Tensor, keys: torch.Tensor, temperature: float = TEMPERATURE) -> torch.Tensor:
    """Give the cross entropy of finding each query's own key among the keys of its image.

    Parameters
    ----------
    queries, keys
        Unit vectors ``(N, P, D)``; no gradient goes into keys.
    temperature
        Divisor of the similarities.
    """
    similar = torch.bmm(queries.float(), keys.detach().float().transpose(1, 2)) / temperature
    count = similar.shape[1]
    right = torch.arange(count, device=similar.device).repeat(len(similar))
    return F.cross_entropy(similar.flatten(0, 1), right)
