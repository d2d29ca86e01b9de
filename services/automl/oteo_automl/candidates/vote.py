"""Several candidates that answer together."""

from __future__ import annotations

import torch
from torch import nn


class ImageVote(nn.Module):
    """The mean of several networks' probabilities, each at its own temperature, as logits.

    Parameters
    ----------
    members
        Networks from ``(N, H, W, C)`` to logits ``(N, K)``, all with the same input.
    temperatures
        One for each.
    """

    temperatures: torch.Tensor

    def __init__(self, members: list[nn.Module], temperatures: list[float]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.register_buffer("temperatures", torch.tensor(temperatures, dtype=torch.float32))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Give logits ``(N, K)`` of ``(N, H, W, C)``."""
        total = torch.softmax(self.members[0](image).float() / self.temperatures[0], dim=1)
        for index in range(1, len(self.members)):
            total = total + torch.softmax(self.members[index](image).float() / self.temperatures[index], dim=1)
        return torch.log((total / len(self.members)).clamp(min=1e-6))
