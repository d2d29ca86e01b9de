"""Chains and blends of modules, and where automl's kinds of modules are found; how modules are written down: `oteo_core.graphs.modules`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from oteo_core.graphs.modules import (
    SavedModule,
    Spec,
    build,
    dump_module,
    find_kinds,
    load_module,
    load_with_more,
    saved,
    to_planes,
)

__all__ = ["Blend", "Chain", "SavedModule", "Spec", "build", "dump_module", "load_module", "load_with_more", "saved", "to_planes"]


def _find(kind: str) -> None:
    """Import the module of a kind; classes make themselves known when their modules are imported."""
    from oteo_automl.candidates import descriptors, heads, networks, patches  # noqa: F401

    if kind == "served-detector":
        from oteo_automl.dense.detect import serving  # noqa: F401
    elif kind.endswith("-detector"):
        from oteo_automl.dense.detect.making import know_kind

        know_kind(kind)
    else:
        from oteo_automl.dense.segment import kinds  # noqa: F401


find_kinds(_find)


@saved
class Chain(SavedModule):
    """Modules one after the other."""

    kind = "chain"

    def __init__(self, parts: Sequence[Any]) -> None:
        modules = [part if isinstance(part, SavedModule) else build(part) for part in parts]
        super().__init__(parts=[module.spec() for module in modules])
        self.parts = nn.ModuleList(modules)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Apply all."""
        for part in self.parts:
            image = part(image)
        return image


@saved
class Blend(SavedModule):
    """Several classifiers' log-probabilities, each with its own temperature, weighted (weights sum to one).

    Where an image may have several labels (`several`), their logits are mixed instead: each label stands alone.
    """

    kind = "blend"

    def __init__(self, parts: Sequence[Any], weights: Sequence[float], temperatures: Sequence[float], several: bool = False) -> None:
        modules = [part if isinstance(part, SavedModule) else build(part) for part in parts]
        super().__init__(
            parts=[module.spec() for module in modules], weights=list(weights), temperatures=list(temperatures), several=several
        )
        self.parts = nn.ModuleList(modules)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Give ``(N, K)``."""
        total: torch.Tensor | None = None
        for part, weight, temperature in zip(self.parts, self.settings["weights"], self.settings["temperatures"], strict=True):
            term = self.mixed(part(image), temperature) * weight
            total = term if total is None else total + term
        if total is None:
            raise ValueError("a blend of nothing")
        return total

    def mixed(self, logits: torch.Tensor, temperature: float) -> torch.Tensor:
        """Bring a part's logits ``(N, K)`` to the scale on which they are mixed."""
        scaled = logits / temperature
        return scaled.clamp(-30.0, 30.0) if self.settings["several"] else torch.log_softmax(scaled, dim=1)
