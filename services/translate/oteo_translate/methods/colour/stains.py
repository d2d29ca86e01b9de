"""Optical density and two stains: what Macenko's and Vahadane's normalisation share. Plain tensor operations that ONNX has.

A brightfield image is light that stains took away: by Beer and Lambert, density = stains x amounts, with a column of colour for each stain.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from oteo_core.graphs.modules import saved
from oteo_translate.domains import Domain
from oteo_translate.methods.base import TRAINING_FREE, FitContext, Method, Parameters, Translation
from oteo_translate.methods.colour.moments import SCOPES
from oteo_translate.methods.colour.quantiles import masked_quantile
from oteo_translate.methods.sampling import planes

LIGHTS = ("measured", "white")
"""What counts as unstained: the domain's own brightest colour, for glass and lamps are seldom white, or full white as the papers have it."""

LEAST_DENSITY = 0.15
"""Mean density below which a pixel is taken for unstained (Macenko et al. 2009, section 2)."""

LEAST_SHARE = 0.01
"""Share of stained pixels that an image needs for stains of its own; with fewer it takes those of its domain."""

LEAST_ANGLE = 0.9962
"""Cosine (of 5 degrees) above which two stains found are one and the same, and the domain's are taken."""

_DARKEST = 1.0 / 255
_FULL = 0.99
_MOST = 3.0
"""An amount is raised threefold at most: what is more is noise made large, of a stain that is hardly there."""

_REFERENCE = ((0.5626, 0.2159), (0.7201, 0.8012), (0.4062, 0.5581))
"""Haematoxylin and eosin, from the code published with Macenko et al. 2009: for domains without any stained pixel."""

_REFERENCE_AMOUNTS = (1.9705, 1.0308)

Finder = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Finds the stains ``(N, 3, 2)`` of densities ``(N, 3, P)`` of which those in the mask ``(N, P)`` count."""


def density(planes: torch.Tensor, light: torch.Tensor) -> torch.Tensor:
    """Turn ``(N, 3, H, W)`` of 0 to 1 into optical density ``(N, 3, H * W)``; `light` ``(1, 3, 1)`` is the colour of no stain."""
    return (light.log() - planes.flatten(2).clamp(min=_DARKEST).log()).clamp(min=0)


def stained(densities: torch.Tensor) -> torch.Tensor:
    """Say which pixels are stained, ``(N, P)`` bool."""
    return densities.mean(1) > LEAST_DENSITY


def enough(mask: torch.Tensor) -> torch.Tensor:
    """Say which images have enough stained pixels for stains of their own, ``(N,)`` bool."""
    return mask.float().mean(1) >= LEAST_SHARE


def ordered(stains: torch.Tensor) -> torch.Tensor:
    """Put the stain that takes more of the red first (haematoxylin before eosin); columns of length 1."""
    unit = stains / stains.square().sum(1, keepdim=True).sqrt().clamp(min=1e-6)
    return torch.where(unit[:, 0:1, 0:1] < unit[:, 0:1, 1:2], unit.flip(2), unit)


def apart(stains: torch.Tensor) -> torch.Tensor:
    """Say of which ``(N, 3, 2)``, columns of length 1, the two stains are two and none is nothing, ``(N,)`` bool."""
    present = stains.square().sum(1).amin(1) > 0.5
    return present & ((stains[:, :, 0] * stains[:, :, 1]).sum(1) < LEAST_ANGLE)


def solved(densities: torch.Tensor, stains: torch.Tensor) -> torch.Tensor:
    """Give the amounts ``(N, 2, P)`` of least squares, none negative: exact, since there are but four cases.

    Parameters
    ----------
    densities
        ``(N, 3, P)``.
    stains
        ``(N, 3, 2)``, columns of length 1, not negative.
    """
    return lasso(densities, stains, 0.0)


def lasso(densities: torch.Tensor, stains: torch.Tensor, penalty: float) -> torch.Tensor:
    """Give the amounts ``c >= 0`` that make ``|x - S c|^2 / 2 + penalty * sum(c)`` least, exactly.

    With two columns of length 1 whose product is not negative, the one that comes out negative without the bound is 0 with it.
    """
    reached = stains.transpose(1, 2) @ densities - penalty
    overlap = (stains[:, :, 0] * stains[:, :, 1]).sum(1)[:, None]
    first, second = reached[:, 0], reached[:, 1]
    scale = (1 - overlap.square()).clamp(min=1e-6)
    free_first, free_second = (first - overlap * second) / scale, (second - overlap * first) / scale
    alone_first, alone_second = first.clamp(min=0), second.clamp(min=0)
    nothing = torch.zeros_like(first)
    both = (free_first >= 0) & (free_second >= 0)
    only_second = free_first < 0
    amount_first = torch.where(both, free_first, torch.where(only_second, nothing, alone_first))
    amount_second = torch.where(both, free_second, torch.where(only_second, alone_second, nothing))
    return torch.stack([amount_first, amount_second], dim=1)


def full(amounts: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Give the amount of a full stain ``(N, 2)``: the 99th percentile among stained pixels."""
    return torch.stack([masked_quantile(amounts[:, 0], mask, _FULL), masked_quantile(amounts[:, 1], mask, _FULL)], dim=1)


@dataclass(frozen=True, slots=True)
class Stains:
    """What is known of a domain's stains.

    Parameters
    ----------
    light
        ``(1, 3, 1)``: colour where there is no stain.
    stains
        ``(1, 3, 2)``.
    amounts
        ``(1, 2)``: of a full stain.
    """

    light: torch.Tensor
    stains: torch.Tensor
    amounts: torch.Tensor


def lamp_of(domain: Domain, check: Callable[[], None], light: str) -> torch.Tensor:
    """Give the colour of no stain ``(1, 3, 1)``; `light` is one of `LIGHTS`."""
    if light == "white":
        return torch.ones(1, 3, 1)
    # The median over images of nearly the brightest: a single overexposed image does not set it.
    brightest = [torch.quantile(one.flatten(2)[:, :, :: _thin(one)], 0.98, dim=2, keepdim=True) for one in planes(domain, check)]
    return torch.stack(brightest).median(0).values.clamp(min=0.1)


def learn(domain: Domain, check: Callable[[], None], lamp: torch.Tensor, find: Finder) -> Stains:
    """Find a domain's stains: the medians over its images; the reference's where no image has two."""
    found, amounts = [], []
    for one in planes(domain, check):
        densities = density(one, lamp)
        mask = stained(densities)
        stains = ordered(find(densities, mask))
        if not bool(enough(mask)[0]) or not bool(apart(stains)[0]):
            continue
        found.append(stains)
        amounts.append(full(solved(densities, stains), mask))
    if not found:
        return Stains(lamp, torch.tensor(_REFERENCE)[None], torch.tensor(_REFERENCE_AMOUNTS)[None])
    return Stains(lamp, ordered(torch.stack(found).median(0).values), torch.stack(amounts).median(0).values.clamp(min=1e-2))


def _thin(one: torch.Tensor) -> int:
    return max(1, one.shape[2] * one.shape[3] // 65536)


@saved
class StainTranslation(Translation):
    """Take an image apart into amounts of two stains and put it together with home's stains.

    Parameters
    ----------
    channels
        3.
    scope
        Of `oteo_translate.methods.colour.moments.SCOPES`: stains found in each image, or those of the shifted domain.
    """

    kind = "translation-stains"
    home_light: torch.Tensor
    home_stains: torch.Tensor
    home_amounts: torch.Tensor
    shifted_light: torch.Tensor
    shifted_stains: torch.Tensor
    shifted_amounts: torch.Tensor

    def __init__(self, channels: int, scope: str) -> None:
        super().__init__(channels=channels, scope=scope)
        self.scope = scope
        for domain in ("home", "shifted"):
            self.register_buffer(f"{domain}_light", torch.ones(1, 3, 1))
            self.register_buffer(f"{domain}_stains", torch.tensor(_REFERENCE)[None])
            self.register_buffer(f"{domain}_amounts", torch.tensor(_REFERENCE_AMOUNTS)[None])

    def keep(self, home: Stains, shifted: Stains) -> None:
        """Take over what was learnt."""
        self.home_light, self.home_stains, self.home_amounts = home.light, home.stains, home.amounts
        self.shifted_light, self.shifted_stains, self.shifted_amounts = shifted.light, shifted.stains, shifted.amounts

    def find(self, densities: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Find each image's stains; see `Finder`."""
        raise NotImplementedError

    def forward(self, planes: torch.Tensor) -> torch.Tensor:
        """See `Translation`."""
        densities = density(planes, self.shifted_light)
        mask = stained(densities)
        stains, amounts = self.shifted_stains + torch.zeros_like(densities[:, :, :1]), self.shifted_amounts
        if self.scope == "image":
            own = ordered(self.find(densities, mask))
            good = enough(mask) & apart(own)
            stains = torch.where(good[:, None, None], own, stains)
            # Three times more or less than usual for the domain is an image with little of a stain, and stays one.
            ratio = full(solved(densities, stains), mask).clamp(max=1e6) / amounts
            amounts = torch.where(good[:, None], amounts * ratio.clamp(1 / _MOST, _MOST), amounts + torch.zeros_like(ratio))
        scaled = solved(densities, stains) * (self.home_amounts / amounts).clamp(1 / _MOST, _MOST)[:, :, None]
        return (self.home_light * torch.exp(-(self.home_stains @ scaled))).reshape(planes.shape).clamp(0, 1)


class StainMethod(Method):
    """What both normalisations are, but for how stains are found."""

    kind = TRAINING_FREE
    colours = (3,)
    translation: ClassVar[type[StainTranslation]]

    def read(self, given: Parameters) -> dict[str, Any]:
        """See `Method`."""
        return {"scope": given.choice("scope", *SCOPES), "light": given.choice("light", *LIGHTS)}

    def fit(self, shifted: Domain, home: Domain, parameters: Mapping[str, Any], context: FitContext) -> Translation:
        """See `Method`; ``scope`` is one of `SCOPES`, ``light`` one of `LIGHTS`."""
        self.check(shifted, home)
        settings = self.settings(parameters)
        scope: str = settings["scope"]
        found = self.translation(home.channels, scope)
        known = []
        for domain in (home, shifted):
            lamp = lamp_of(domain, context.check, settings["light"])
            known.append(learn(domain, context.check, lamp, self.finder(domain, lamp, scope, context.check)))
        found.keep(*known)
        return found.eval()

    @abstractmethod
    def finder(self, domain: Domain, lamp: torch.Tensor, scope: str, check: Callable[[], None]) -> Finder:
        """Give what finds the stains of a domain's images."""

    def grid(self) -> tuple[Mapping[str, Any], ...]:
        """See `Method`."""
        return ({}, {"light": "white"}, {"scope": "domain"})
