"""Liao et al., "Visual Attribute Transfer through Deep Image Analogy", SIGGRAPH 2017, for photographs.

Each part of an image takes its looks from a part of a home image that shows the same. Differing from the paper: the two domains' features are brought to
one scale before they are compared, since here looks differ and not scenes; matched features are brought down by the matches themselves and not by
deconvolution (as in He et al., "Progressive Color Transfer", TOG 2019); and matches go one way.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from oteo_core.graphs.modules import Spec, saved
from oteo_translate.domains import Domain
from oteo_translate.methods.base import STYLE, FitContext, Method, Parameters, Translation, method
from oteo_translate.methods.style.encoder import Encoder, encoder_for
from oteo_translate.methods.style.optimising import OptimisedTranslation, style_images
from oteo_translate.methods.style.patchmatch import finer, matched, nearest, patches, voted

ROUNDS = 3
_OWN = (0.2, 0.6, 0.8, 0.9)
"""Share of the image's own features against matched ones, fine to coarse (the paper's weights alpha, section 4.3)."""

_EXEMPLARS = 8
_LEAST_SIDE = 4


@saved
class AnalogyTranslation(OptimisedTranslation):
    """Rebuild each image from patches of that home image whose features match best.

    Parameters
    ----------
    channels, encoder
        See `OptimisedTranslation`.
    widths
        Channels of the features at each resolution.
    count
        Home images to choose from.
    rounds
        Of PatchMatch at each resolution.
    """

    kind = "translation-analogy"
    exemplars: torch.Tensor

    def __init__(self, channels: int, encoder: Spec, widths: list[int], count: int, rounds: int) -> None:
        super().__init__(channels, encoder, widths=widths, count=count, rounds=rounds)
        self.rounds, self.levels = rounds, len(widths)
        self.register_buffer("exemplars", torch.zeros(count, channels, self.encoder.height, self.encoder.width))
        for level, width in enumerate(widths):
            for domain in ("home", "shifted"):
                self.register_buffer(f"{domain}_{level}", torch.zeros(2, 1, width, 1, 1))

    @torch.no_grad()
    def work(self, small: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
        """See `OptimisedTranslation`."""
        draws = torch.Generator().manual_seed(0)
        own = [self._even(one, "shifted", level) for level, one in enumerate(self.encoder.seen(small))]
        theirs = [self._even(one, "home", level) for level, one in enumerate(self.encoder.seen(self.exemplars))]
        coarse = [_size(one) for one in own]
        # What is too coarse to tell places apart is left out.
        top = max(level for level in range(self.levels) if level == 0 or min(coarse[level]) >= _LEAST_SIDE)
        wanted = patches(own[top])
        tried = [nearest(wanted, patches(theirs[top][row : row + 1])) for row in range(len(self.exemplars))]
        best = max(range(len(tried)), key=lambda row: float(tried[row][1].mean()))
        places = tried[best][0]
        for level in range(top, -1, -1):
            other = theirs[level][best : best + 1]
            if level < top:
                above = _size(theirs[level + 1])
                places = finer(places, coarse[level + 1], above, coarse[level], _size(other))
            warped = other.flatten(2)[:, :, places].reshape(own[level].shape)
            mixed = _OWN[min(level, len(_OWN) - 1)] * own[level] + (1 - _OWN[min(level, len(_OWN) - 1)]) * warped
            places = matched(patches(mixed), patches(other), coarse[level], _size(other), places, self.rounds, draws)
        size = _size(small)
        places = finer(places, coarse[0], _size(theirs[0]), size, size)
        return voted(self.exemplars[best : best + 1], places, size)

    def _even(self, features: torch.Tensor, domain: str, level: int) -> torch.Tensor:
        mean, spread = self.get_buffer(f"{domain}_{level}")
        even: torch.Tensor = (features - mean) / spread.clamp(min=1e-3)
        return even


def _size(planes: torch.Tensor) -> tuple[int, int]:
    return int(planes.shape[2]), int(planes.shape[3])


def scales(domain: Domain, encoder: Encoder, context: FitContext) -> list[torch.Tensor]:
    """Give mean and spread of a domain's features at each resolution, ``(2, 1, c, 1, 1)``."""
    firsts: list[torch.Tensor] = []
    count = 0
    for one in style_images(domain, encoder, context):
        levels = encoder.seen(one)
        new = [torch.stack([level.mean((2, 3), keepdim=True), level.square().mean((2, 3), keepdim=True)]) for level in levels]
        firsts = [old + more for old, more in zip(firsts, new, strict=True)] if firsts else new
        count += 1
    found = []
    for total in firsts:
        mean, square = total / count
        found.append(torch.stack([mean, (square - mean.square()).clamp(min=0).sqrt()]))
    return found


@method
class Analogy(Method):
    """Deep image analogy."""

    name = "analogy"
    kind = STYLE
    summary = "Each image takes its colours from matching parts of a home image, found by PatchMatch over features (Liao et al. 2017)."
    cost = 100.0
    per_image = 1.0

    def read(self, given: Parameters) -> dict[str, Any]:
        """See `Method`."""
        return {"exemplars": given.count("exemplars", _EXEMPLARS, 1, 64), "rounds": given.count("rounds", ROUNDS, 0, 50)}

    def fit(self, shifted: Domain, home: Domain, parameters: Mapping[str, Any], context: FitContext) -> Translation:
        """See `Method`; ``exemplars`` of home to choose from, ``rounds`` of PatchMatch."""
        self.check(shifted, home)
        settings = self.settings(parameters)
        encoder = encoder_for(context, home.channels)
        with torch.no_grad():
            chosen = list(style_images(home, encoder, context, settings["exemplars"]))
            exemplars = torch.cat(chosen)
            known = {"home": scales(home, encoder, context), "shifted": scales(shifted, encoder, context)}
        widths = [int(one.shape[2]) for one in known["home"]]
        found = AnalogyTranslation(home.channels, encoder.spec(), widths, len(exemplars), settings["rounds"])
        found.keep(encoder, chosen)
        found.exemplars = exemplars
        for domain, levels in known.items():
            for level, one in enumerate(levels):
                found.register_buffer(f"{domain}_{level}", one)
        return found.eval()
