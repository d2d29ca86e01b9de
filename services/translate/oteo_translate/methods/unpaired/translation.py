"""What an unpaired training gives."""

from __future__ import annotations

from typing import Any

import torch

from oteo_core.graphs.modules import saved
from oteo_translate.methods.base import Translation
from oteo_translate.methods.unpaired.objectives import build_generator


@saved
class UnpairedTranslation(Translation):
    """A trained generator.

    Parameters
    ----------
    generator
        One of `oteo_translate.methods.unpaired.recipe.GENERATORS`.
    channels, residual, width, blocks, depth
        Of the generator.
    history
        Loss curves: ``"step"`` and the losses by name, lists of equal length; for reports, nothing is computed from it.
    notes
        What happened in training that a person should know.
    """

    kind = "unpaired-translation"

    def __init__(
        self,
        generator: str,
        channels: int,
        residual: bool,
        width: int,
        blocks: int,
        depth: int,
        history: dict[str, list[float]] | None = None,
        notes: list[str] | None = None,
    ) -> None:
        settings: dict[str, Any] = {
            "generator": generator,
            "channels": channels,
            "residual": residual,
            "width": width,
            "blocks": blocks,
            "depth": depth,
            "history": history or {},
            "notes": notes or [],
        }
        super().__init__(**settings)
        self.network = build_generator(generator, channels, residual, width, blocks, depth)

    @property
    def history(self) -> dict[str, list[float]]:
        """Loss curves; see the class."""
        found: dict[str, list[float]] = self.settings["history"]
        return found

    @property
    def notes(self) -> list[str]:
        """What happened in training; see the class."""
        found: list[str] = self.settings["notes"]
        return found

    def forward(self, planes: torch.Tensor) -> torch.Tensor:
        """Translate ``(N, C, H, W)`` float32 of 0 to 1."""
        found: torch.Tensor = self.network(planes).clamp(0.0, 1.0)
        return found
