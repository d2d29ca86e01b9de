"""Black, white and mean brought to home's: contrast and a power law."""

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

_ENDS = (0.01, 0.99)
_STEEPEST = 2.5
_LEAST_RANGE = 1e-3
_ROUNDS = 5
_PIXELS = 4096


def placed(values: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
    """Bring ``(N, C, P)`` to where they lie between the ends ``(N, C, 2)``: 0 to 1, a little less or more outside."""
    low, high = ends[:, :, 0:1], ends[:, :, 1:2]
    return ((values - low) / (high - low).clamp(min=_LEAST_RANGE)).clamp(-1, 2)


def exponent(places: torch.Tensor, due: torch.Tensor) -> torch.Tensor:
    """Find the power ``(N, C, 1)`` that gives places ``(N, C, P)`` this mean ``(N, C, 1)``, within limits, by a few steps towards it."""
    inside = places.clamp(1e-3, 1)
    wanted = due.clamp(0.02, 0.98).log()
    found = torch.ones_like(due) + torch.zeros_like(places[:, :, :1])
    for _ in range(_ROUNDS):
        now = inside.pow(found).mean(2, keepdim=True).clamp(0.02, 0.98).log()
        found = (found * wanted / now).clamp(1 / _STEEPEST, _STEEPEST)
    return found


@saved
class GammaTranslation(Translation):
    """Stretch each channel's first to 99th percentile to home's, on a curve ``x ** gamma`` that brings the mean to home's.

    Parameters
    ----------
    channels
        Of the images.
    scope
        Of `oteo_translate.methods.colour.moments.SCOPES`.
    """

    kind = "translation-gamma"
    home: torch.Tensor
    middle: torch.Tensor
    shifted: torch.Tensor
    power: torch.Tensor
    ends: torch.Tensor

    def __init__(self, channels: int, scope: str) -> None:
        super().__init__(channels=channels, scope=scope)
        self.scope = scope
        self.register_buffer("home", torch.zeros(1, channels, 2))
        self.register_buffer("middle", torch.zeros(1, channels, 1))
        self.register_buffer("shifted", torch.zeros(1, channels, 2))
        self.register_buffer("power", torch.ones(1, channels, 1))
        self.register_buffer("ends", torch.tensor(_ENDS))

    def forward(self, planes: torch.Tensor) -> torch.Tensor:
        """See `Translation`."""
        values = planes.flatten(2)
        own = quantiles(values, self.ends) if self.scope == "image" else self.shifted
        place = placed(values, own)
        power = exponent(place, self.middle) if self.scope == "image" else self.power
        # Below black the curve goes on as a straight line: a power of a negative number is none.
        curved = place.clamp(min=1e-6).pow(power) + place.clamp(max=0)
        low, high = self.home[:, :, 0:1], self.home[:, :, 1:2]
        flat = own[:, :, 1:2] - own[:, :, 0:1] < _LEAST_RANGE
        # An image without any contrast gets home's mean.
        curved = torch.where(flat, self.middle + torch.zeros_like(curved), curved)
        return (low + curved * (high - low)).reshape(planes.shape).clamp(0, 1)


@method
class Gamma(Method):
    """Gamma and contrast alignment."""

    name = "gamma"
    kind = TRAINING_FREE
    summary = "Each channel's black, white and mean are brought to home's by contrast and a power law."
    cost = 0.5
    per_image = 0.004

    def read(self, given: Parameters) -> dict[str, Any]:
        """See `Method`."""
        return {"scope": given.choice("scope", *SCOPES)}

    def fit(self, shifted: Domain, home: Domain, parameters: Mapping[str, Any], context: FitContext) -> Translation:
        """See `Method`; ``scope`` is one of `oteo_translate.methods.colour.moments.SCOPES`."""
        self.check(shifted, home)
        found = GammaTranslation(home.channels, self.settings(parameters)["scope"])
        found.home, found.middle, _ = self._measured(home, found.ends, context)
        found.shifted, _, places = self._measured(shifted, found.ends, context)
        found.power = exponent(places, found.middle)
        return found.eval()

    def grid(self) -> tuple[Mapping[str, Any], ...]:
        """See `Method`."""
        return tuple({"scope": scope} for scope in SCOPES)

    @staticmethod
    def _measured(domain: Domain, at: torch.Tensor, context: FitContext) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Give a domain's mean ends, mean place between the ends, and places of some pixels of every image."""
        ends, middles, some = [], [], []
        for one in planes(domain, context.check):
            flat = one.flatten(2)
            ends.append(quantiles(flat, at))
            places = placed(flat, ends[-1]).clamp(0, 1)
            middles.append(places.mean(2, keepdim=True))
            some.append(places[:, :, torch.linspace(0, flat.shape[2] - 1, min(_PIXELS, flat.shape[2])).round().long()])
        return torch.stack(ends).mean(0), torch.stack(middles).mean(0), torch.cat(some, dim=2)
