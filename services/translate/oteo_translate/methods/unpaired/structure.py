"""What must not move: edges, and how places of an image resemble each other in the eyes of the frozen task model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from oteo_translate.tasks.network import FrozenNetwork

_SOBEL = ((1.0, 2.0, 1.0), (0.0, 0.0, 0.0), (-1.0, -2.0, -1.0))
_EVEN = 1e-4


def edges(planes: torch.Tensor) -> torch.Tensor:
    """Give the strength of the brightness's gradient (Sobel), ``(N, 1, H, W)``, of ``(N, C, H, W)``."""
    grey = planes.float().mean(1, keepdim=True)
    down = torch.tensor(_SOBEL, device=planes.device) / 8.0
    kernel = torch.stack([down, down.T])[:, None]
    both = F.conv2d(F.pad(grey, (1, 1, 1, 1), mode="replicate"), kernel)
    return (both.square().sum(1, keepdim=True) + 1e-8).sqrt()


def edge_correlation(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Give each pair's correlation of edge strengths, ``(N,)``, -1 to 1.

    Blind to brightness, contrast and their reversal, which translation may change; it falls where edges move, come or go. 1 where both images are
    even.
    """
    ours, theirs = edges(first).flatten(1), edges(second).flatten(1)
    ours, theirs = ours - ours.mean(1, keepdim=True), theirs - theirs.mean(1, keepdim=True)
    power, other = ours.square().mean(1), theirs.square().mean(1)
    floor = _EVEN**2
    found = ((ours * theirs).mean(1) + floor) / ((power + floor) * (other + floor)).sqrt()
    return found.clamp(-1.0, 1.0)


def edge_loss(source: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
    """Give one less the mean `edge_correlation`."""
    return 1.0 - edge_correlation(source, drawn).mean()


def self_similarity(maps: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Give cosines between the features at all pairs of places, ``(N, P, P)``.

    Kolkin et al., "Style transfer by relaxed optimal transport and self-similarity", CVPR 2019, section 2.3: what resembles what within an image is its
    structure, whatever its colours are.
    """
    rows = maps.float().flatten(2).index_select(2, places).transpose(1, 2)
    rows = F.normalize(rows - rows.mean(1, keepdim=True), dim=-1, eps=1e-6)
    return rows @ rows.transpose(1, 2)


class TaskStructure:
    """Self-similarity as the frozen task model sees it.

    Parameters
    ----------
    network
        The frozen network.
    places
        Positions compared in each map.
    """

    def __init__(self, network: FrozenNetwork, places: int = 64) -> None:
        self._network = network
        self._places = places

    def __call__(self, source: torch.Tensor, drawn: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Give the mean absolute difference of self-similarities over the network's finer half of depths; the gradient goes into `drawn`."""
        with torch.no_grad():
            before = self._network.features(source, None)
        after = self._network.features(drawn, None)
        kept = max(1, (len(after) + 1) // 2)
        total = drawn.new_zeros(())
        for ours, theirs in zip(after[:kept], before[:kept], strict=True):
            area = ours.shape[-2] * ours.shape[-1]
            where = torch.randperm(area, generator=generator)[: self._places].to(ours.device)
            total = total + (self_similarity(ours, where) - self_similarity(theirs, where)).abs().mean()
        return total / kept
