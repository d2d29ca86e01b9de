"""Mean and spread of each channel brought to home's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from oteo_core.graphs.modules import saved
from oteo_translate.domains import Domain
from oteo_translate.methods.base import NEGATIVE, TRAINING_FREE, FitContext, Method, Parameters, Translation, method
from oteo_translate.methods.sampling import planes

SCOPES = ("image", "domain")
"""What is brought to home's look: each image by its own figures, or all by the figures of the shifted domain."""

TONES = ("kept", NEGATIVE)
"""Whether bright stays bright, or images are turned into their negatives first: stained nuclei are dark, fluorescent ones bright."""

_COLOURLESS = 0.003
"""Mean distance of channels from their mean: less than a step of 8 bits."""

GAIN = 10.0
"""Contrast is raised tenfold at most: an empty image holds noise alone."""


def toned(planes: torch.Tensor, tone: str, grey: bool) -> torch.Tensor:
    """Give the planes or their negatives, in colour or grey; `tone` is one of `TONES`."""
    turned = 1 - planes if tone == NEGATIVE else planes
    return turned.mean(1, keepdim=True) + torch.zeros_like(turned) if grey else turned


def is_grey(domain: Domain, check: Callable[[], None]) -> bool:
    """Say whether a domain's images of several channels have no colour; what is brought to it is made grey first."""
    if domain.channels == 1:
        return False
    return all(float((one - one.mean(1, keepdim=True)).abs().mean()) < _COLOURLESS for one in planes(domain, check))


def measured(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Give mean and standard deviation (over all, not all but one) of ``(N, C, H, W)``: twice ``(N, C, 1, 1)``."""
    mean = values.mean(dim=(2, 3), keepdim=True)
    return mean, (values - mean).square().mean(dim=(2, 3), keepdim=True).sqrt()


def brought(values: torch.Tensor, mean: torch.Tensor, spread: torch.Tensor, to_mean: torch.Tensor, to_spread: torch.Tensor) -> torch.Tensor:
    """Bring values of this mean and spread to others."""
    gain = (to_spread / spread.clamp(min=1e-6)).clamp(max=GAIN)
    return (values - mean) * gain + to_mean


@saved
class MomentsTranslation(Translation):
    """Bring mean and standard deviation of each channel to home's.

    Parameters
    ----------
    channels
        Of the images.
    scope
        Of `SCOPES`.
    tone
        Of `TONES`.
    grey
        Whether home has no colour.
    """

    kind = "translation-moments"
    mean: torch.Tensor
    spread: torch.Tensor
    shifted_mean: torch.Tensor
    shifted_spread: torch.Tensor

    def __init__(self, channels: int, scope: str, tone: str, grey: bool) -> None:
        super().__init__(channels=channels, scope=scope, tone=tone, grey=grey)
        self.scope, self.tone, self.grey = scope, tone, grey
        for name in ("mean", "spread", "shifted_mean", "shifted_spread"):
            self.register_buffer(name, torch.zeros(1, channels, 1, 1))

    def forward(self, planes: torch.Tensor) -> torch.Tensor:
        """See `Translation`."""
        values = toned(planes, self.tone, self.grey)
        mean, spread = measured(values) if self.scope == "image" else (self.shifted_mean, self.shifted_spread)
        return brought(values, mean, spread, self.mean, self.spread).clamp(0, 1)


@method
class Moments(Method):
    """Per-channel moments."""

    name = "moments"
    kind = TRAINING_FREE
    summary = "Mean and contrast of each channel are brought to home's."
    cost = 0.05
    per_image = 0.002

    def read(self, given: Parameters) -> dict[str, Any]:
        """See `Method`."""
        return {"scope": given.choice("scope", *SCOPES), "tone": given.choice("tone", *TONES)}

    def fit(self, shifted: Domain, home: Domain, parameters: Mapping[str, Any], context: FitContext) -> Translation:
        """See `Method`; ``scope`` is one of `SCOPES`, ``tone`` one of `TONES`."""
        self.check(shifted, home)
        settings = self.settings(parameters)
        found = MomentsTranslation(home.channels, settings["scope"], settings["tone"], is_grey(home, context.check))
        found.mean, found.spread = averaged([measured(one) for one in planes(home, context.check)])
        figures = [measured(toned(one, found.tone, found.grey)) for one in planes(shifted, context.check)]
        found.shifted_mean, found.shifted_spread = averaged(figures)
        return found.eval()

    def grid(self) -> tuple[Mapping[str, Any], ...]:
        """See `Method`."""
        return tuple({"scope": scope, "tone": tone} for tone in TONES for scope in SCOPES)


def averaged(figures: list[tuple[torch.Tensor, torch.Tensor]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Give the means of means and spreads over images."""
    means, spreads = zip(*figures, strict=True)
    return torch.stack(means).mean(0), torch.stack(spreads).mean(0)
