"""The whole distribution of each channel brought to home's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from oteo_core.graphs.modules import saved
from oteo_translate.domains import Domain
from oteo_translate.methods.base import TRAINING_FREE, FitContext, Method, Parameters, Translation, method
from oteo_translate.methods.colour.moments import SCOPES, TONES, is_grey, toned
from oteo_translate.methods.colour.quantiles import KNOTS, mapped, probabilities, quantiles
from oteo_translate.methods.sampling import planes

_PIXELS = 4096
"""Pixels of an image that enter a domain's distribution: each image weighs the same."""


@saved
class HistogramTranslation(Translation):
    """Send each pixel to the value of the same rank at home.

    Parameters
    ----------
    channels
        Of the images.
    scope
        Of `SCOPES`: ranks within the image itself, or within the shifted domain (then it is one map for all images).
    tone
        Of `oteo_translate.methods.colour.moments.TONES`.
    grey
        Whether home has no colour.
    """

    kind = "translation-histogram"
    home: torch.Tensor
    shifted: torch.Tensor
    probabilities: torch.Tensor

    def __init__(self, channels: int, scope: str, tone: str, grey: bool) -> None:
        super().__init__(channels=channels, scope=scope, tone=tone, grey=grey)
        self.scope, self.tone, self.grey = scope, tone, grey
        self.register_buffer("home", torch.zeros(1, channels, KNOTS))
        self.register_buffer("shifted", torch.zeros(1, channels, KNOTS))
        self.register_buffer("probabilities", probabilities())

    def forward(self, planes: torch.Tensor) -> torch.Tensor:
        """See `Translation`."""
        values = toned(planes, self.tone, self.grey).flatten(2)
        like = torch.zeros_like(values[:, :, :1])
        source = quantiles(values, self.probabilities) if self.scope == "image" else self.shifted + like
        return mapped(values, source, self.home + like).reshape(planes.shape).clamp(0, 1)


@method
class Histogram(Method):
    """Histogram matching."""

    name = "histogram"
    kind = TRAINING_FREE
    summary = "Each channel's histogram is matched with home's, per image to the mean quantile function or with one map for all images."
    cost = 0.2
    per_image = 0.01

    def read(self, given: Parameters) -> dict[str, Any]:
        """See `Method`."""
        return {"scope": given.choice("scope", *SCOPES), "tone": given.choice("tone", *TONES)}

    def fit(self, shifted: Domain, home: Domain, parameters: Mapping[str, Any], context: FitContext) -> Translation:
        """See `Method`; ``scope`` is one of `SCOPES`, ``tone`` one of `TONES`."""
        self.check(shifted, home)
        settings = self.settings(parameters)
        found = HistogramTranslation(home.channels, settings["scope"], settings["tone"], is_grey(home, context.check))
        if found.scope == "image":
            # The mean of quantile functions is the distribution nearest to all (the barycentre of Wasserstein's distance on a line).
            found.home = torch.stack([quantiles(one.flatten(2), found.probabilities) for one in planes(home, context.check)]).mean(0)
        else:
            found.home = self._pooled(home, found.probabilities, context, "kept", False)
            found.shifted = self._pooled(shifted, found.probabilities, context, found.tone, found.grey)
        return found.eval()

    def grid(self) -> tuple[Mapping[str, Any], ...]:
        """See `Method`."""
        return tuple({"scope": scope, "tone": tone} for tone in TONES for scope in SCOPES)

    def undoes_imitation(self, parameters: Mapping[str, Any]) -> bool:
        """See `Method`: both match the quantiles of all of a domain's pixels."""
        return parameters.get("scope") == "domain"

    @staticmethod
    def _pooled(domain: Domain, at: torch.Tensor, context: FitContext, tone: str, grey: bool) -> torch.Tensor:
        parts = []
        for one in planes(domain, context.check):
            flat = toned(one, tone, grey).flatten(2)
            places = torch.linspace(0, flat.shape[2] - 1, min(_PIXELS, flat.shape[2])).round().long()
            parts.append(flat[:, :, places])
        return quantiles(torch.cat(parts, dim=2), at)
