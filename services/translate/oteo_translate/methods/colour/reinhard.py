"""Reinhard et al., "Color Transfer between Images", IEEE CG&A 2001: moments in a space whose axes hardly depend on each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from oteo_core.graphs.modules import saved
from oteo_translate.domains import Domain
from oteo_translate.methods.base import TRAINING_FREE, FitContext, Method, Parameters, Translation, method
from oteo_translate.methods.colour.moments import averaged, brought, measured
from oteo_translate.methods.colour.spaces import SPACES, from_space, to_space
from oteo_translate.methods.sampling import planes


@saved
class ReinhardTranslation(Translation):
    """Bring each image's mean and spread on each axis of the space to home's; of grey images those of the intensity.

    Parameters
    ----------
    channels
        1 or 3.
    space
        Of `oteo_translate.methods.colour.spaces.SPACES`: the paper's, or CIE 1976 L*a*b*.
    """

    kind = "translation-reinhard"
    mean: torch.Tensor
    spread: torch.Tensor

    def __init__(self, channels: int, space: str) -> None:
        super().__init__(channels=channels, space=space)
        self.space = space
        self.coloured = channels == 3
        self.register_buffer("mean", torch.zeros(1, channels, 1, 1))
        self.register_buffer("spread", torch.zeros(1, channels, 1, 1))

    def forward(self, planes: torch.Tensor) -> torch.Tensor:
        """See `Translation`."""
        values = self.seen(planes)
        moved = brought(values, *measured(values), self.mean, self.spread)
        return from_space(moved, self.space) if self.coloured else moved.clamp(0, 1)

    def seen(self, planes: torch.Tensor) -> torch.Tensor:
        """Give the values whose moments are brought to home's."""
        return to_space(planes, self.space) if self.coloured else planes


@method
class Reinhard(Method):
    """Reinhard's colour transfer."""

    name = "reinhard"
    kind = TRAINING_FREE
    summary = "Mean and spread of lightness and of two colour axes are brought to home's (Reinhard et al. 2001)."
    colours = (1, 3)
    cost = 0.1
    per_image = 0.003

    def read(self, given: Parameters) -> dict[str, Any]:
        """See `Method`."""
        return {"space": given.choice("space", *SPACES)}

    def fit(self, shifted: Domain, home: Domain, parameters: Mapping[str, Any], context: FitContext) -> Translation:
        """See `Method`; ``space`` is one of `oteo_translate.methods.colour.spaces.SPACES`."""
        self.check(shifted, home)
        found = ReinhardTranslation(home.channels, self.settings(parameters)["space"])
        found.mean, found.spread = averaged([measured(found.seen(one)) for one in planes(home, context.check)])
        return found.eval()

    def grid(self) -> tuple[Mapping[str, Any], ...]:
        """See `Method`."""
        return tuple({"space": space} for space in SPACES)
