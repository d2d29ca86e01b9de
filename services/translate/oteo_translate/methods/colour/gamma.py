"""Black, white and middle grey brought to home's: contrast and a power law."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from oteo_core.graphs.modules import saved
from oteo_translate.domains import Domain
from oteo_translate.methods.base import TRAINING_FREE, FitContext, Method, Parameters, Translation, method
from oteo_translate.methods.colour.moments import SCOPES
from oteo_translate.methods.colour.quantiles import quantiles
from oteo_translate.methods.sampling import planes

_ENDS = (0.01, 0.5, 0.99)
_STEEPEST = 4.0
_LEAST_RANGE = 1e-3


@saved
class GammaTranslation(Translation):
    """Stretch each channel's first to 99th percentile to home's, on a curve ``x ** gamma`` that brings the median to home's.

    Parameters
    ----------
    channels
        Of the images.
    scope
        Of `oteo_translate.methods.colour.moments.SCOPES`.
    """

    kind = "translation-gamma"
    home: torch.Tensor
    shifted: torch.Tensor
    ends: torch.Tensor

    def __init__(self, channels: int, scope: str) -> None:
        super().__init__(channels=channels, scope=scope)
        self.scope = scope
        self.register_buffer("home", torch.zeros(1, channels, len(_ENDS)))
        self.register_buffer("shifted", torch.zeros(1, channels, len(_ENDS)))
        self.register_buffer("ends", torch.tensor(_ENDS))

    def forward(self, planes: torch.Tensor) -> torch.Tensor:
        """See `Translation`."""
        values = planes.flatten(2)
        own = quantiles(values, self.ends) if self.scope == "image" else self.shifted + torch.zeros_like(values[:, :, :1])
        low, middle, high = own[:, :, 0:1], own[:, :, 1:2], own[:, :, 2:3]
        to_low, to_middle, to_high = self.home[:, :, 0:1], self.home[:, :, 1:2], self.home[:, :, 2:3]
        extent = (high - low).clamp(min=_LEAST_RANGE)
        # Kept off 0 and 1, whose logarithms are none or nothing to divide by.
        now = ((middle - low) / extent).clamp(0.02, 0.98)
        due = ((to_middle - to_low) / (to_high - to_low).clamp(min=_LEAST_RANGE)).clamp(0.02, 0.98)
        gamma = (due.log() / now.log()).clamp(1 / _STEEPEST, _STEEPEST)
        place = (values - low) / extent
        # Below black the curve goes on as a straight line: a power of a negative number is none.
        curved = place.clamp(min=1e-6, max=_STEEPEST).pow(gamma) + place.clamp(max=0)
        flat = (high - low) < _LEAST_RANGE
        moved = torch.where(flat, values - middle + to_middle, to_low + curved * (to_high - to_low))
        return moved.reshape(planes.shape).clamp(0, 1)


@method
class Gamma(Method):
    """Gamma and contrast alignment."""

    name = "gamma"
    kind = TRAINING_FREE
    summary = "Each channel's black, white and median are brought to home's by contrast and a power law."
    cost = 1.0

    def fit(self, shifted: Domain, home: Domain, parameters: Mapping[str, Any], context: FitContext) -> Translation:
        """See `Method`; ``scope`` is one of `oteo_translate.methods.colour.moments.SCOPES`."""
        self.check(shifted, home)
        read = Parameters(self, parameters)
        found = GammaTranslation(home.channels, read.choice("scope", *SCOPES))
        read.done()
        found.home, found.shifted = (
            torch.stack([quantiles(one.flatten(2), found.ends) for one in planes(domain, context.check)]).mean(0)
            for domain in (home, shifted)
        )
        return found.eval()

    def grid(self) -> tuple[Mapping[str, Any], ...]:
        """See `Method`."""
        return tuple({"scope": scope} for scope in SCOPES)
