"""Vahadane et al., "Structure-Preserving Color Normalization and Sparse Stain Separation for Histological Images", IEEE TMI 2016."""

from __future__ import annotations

from collections.abc import Callable

import torch

from oteo_core.graphs.modules import saved
from oteo_translate.domains import Domain
from oteo_translate.methods.base import method
from oteo_translate.methods.colour.stains import Finder, StainMethod, StainTranslation, density, lasso, ordered, stained
from oteo_translate.methods.sampling import planes

PENALTY = 0.1
"""On the sum of amounts, in density: what makes a pixel be of one stain where it can (lambda of the paper's equation 4)."""

_TAKEN = 4096
_ROUNDS = 12
_DOMAIN_ROUNDS = 100
_PIXELS = 40_000
_IMAGES = 40


def factored(densities: torch.Tensor, mask: torch.Tensor, start: torch.Tensor, rounds: int = _ROUNDS) -> torch.Tensor:
    """Find stains by sparse non-negative factoring: amounts and stains are made best in turn, each exactly.

    scikit-learn's `DictionaryLearning` finds the same stains a hundred times more slowly, and cannot be written as a graph. The stains' step is block coordinate descent (Mairal et al., JMLR 2010, algorithm 2).

    Parameters
    ----------
    densities
        ``(N, 3, P)``.
    mask
        ``(N, P)``: pixels that count.
    start
        ``(N, 3, 2)``: where to begin; it decides between equally good answers.
    rounds
        How often.

    Returns
    -------
    Tensor
        ``(N, 3, 2)``, columns of length 1, not negative.
    """
    counted = densities * mask[:, None, :].float()
    stains = start
    for _ in range(rounds):
        amounts = lasso(counted, stains, PENALTY)
        inner = amounts @ amounts.transpose(1, 2)
        outer = counted @ amounts.transpose(1, 2)
        for column in (0, 1):
            other = 1 - column
            # Without any pixel of this stain nothing is learnt of it.
            used = inner[:, column, column] > 1e-6
            wanted = outer[:, :, column] - stains[:, :, other] * inner[:, other, column][:, None]
            wanted = wanted.clamp(min=0)
            length = wanted.square().sum(1, keepdim=True).sqrt()
            better = torch.where(used[:, None] & (length > 1e-6), wanted / length.clamp(min=1e-6), stains[:, :, column])
            columns = [better, stains[:, :, other]] if column == 0 else [stains[:, :, other], better]
            stains = torch.stack(columns, dim=2)
    return stains


def dictionary(domain: Domain, check: Callable[[], None], light: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
    """Find a domain's stains ``(1, 3, 2)`` from pixels of many images at once; `start` where nothing is stained."""
    parts = []
    for one in planes(domain, check, _IMAGES):
        densities = density(one, light)
        places = stained(densities)[0].nonzero()[:, 0]
        parts.append(densities[:, :, places[:: max(1, len(places) * _IMAGES // _PIXELS)]])
    pixels = torch.cat(parts, dim=2)
    return ordered(factored(pixels, torch.ones_like(pixels[:, 0], dtype=torch.bool), start, _DOMAIN_ROUNDS))


@saved
class VahadaneTranslation(StainTranslation):
    """Stains by sparse factoring of the density of 4096 of an image's pixels; see `StainTranslation`."""

    kind = "translation-vahadane"
    spread: torch.Tensor

    def __init__(self, channels: int, scope: str) -> None:
        super().__init__(channels=channels, scope=scope)
        # Multiples of the golden ratio, without their whole part, are spread as evenly over a line as any numbers can be; and over rows and
        # columns alike, where every n-th pixel would be of a few columns.
        turns = torch.arange(_TAKEN, dtype=torch.float64) * ((5**0.5 - 1) / 2)
        self.register_buffer("spread", (turns - turns.floor()).float(), persistent=False)

    def find(self, densities: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """See `factored`; it starts at the domain's stains."""
        count = torch.ones_like(densities[0, 0]).sum()
        places = torch.minimum((self.spread * count).floor(), count - 1).long()
        return factored(densities[:, :, places], mask[:, places], self.shifted_stains + torch.zeros_like(densities[:, :, :1]))


@method
class Vahadane(StainMethod):
    """Vahadane's stain normalisation."""

    name = "vahadane"
    summary = "Two stains are found by sparse non-negative factoring of optical density and exchanged for home's (Vahadane et al. 2016)."
    cost = 1.5
    per_image = 0.01
    translation = VahadaneTranslation

    def finder(self, domain: Domain, lamp: torch.Tensor, scope: str, check: Callable[[], None]) -> Finder:
        """See `StainMethod`: factoring that starts at the domain's own dictionary."""
        probe = VahadaneTranslation(domain.channels, scope)
        probe.shifted_stains = dictionary(domain, check, lamp, probe.shifted_stains)
        return probe.find
