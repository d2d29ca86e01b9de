"""Two made-up domains of cells, and a network that knows one of them, for tests of translation."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch

from oteo_core.graphs.programs import write_program
from oteo_core.images import InputPolicy
from oteo_translate.domains import Domain
from oteo_translate.tasks.network import FrozenNetwork

FEW: dict[str, dict[str, object]] = {
    "gatys": {"steps": 3},
    "strotss": {"steps": 2},
    "analogy": {"rounds": 1, "exemplars": 2},
    "adain": {"steps": 3},
    **{
        name: {"steps": 3, "width": 6, "blocks": 1, "critic_width": 6, "patches": 16, "vector": 16}
        for name in ("cut", "cyclegan", "dualgan", "fastcut", "ganilla", "sincut")
    },
}
"""Parameters with which slow methods take few steps."""


def smears(count: int, channels: int, side: tuple[int, int] = (32, 40)) -> tuple[Domain, Domain]:
    """Give unpaired images of dark cells, shifted (pink, dim) and home (yellow, bright), uint8."""
    return _domain("datasets/shifted", count, channels, side, 1, (0.80, 0.60, 0.75)), _domain(
        "datasets/home", count, channels, side, 2, (0.95, 0.92, 0.70)
    )


def _domain(name: str, count: int, channels: int, side: tuple[int, int], seed: int, paper: tuple[float, ...]) -> Domain:
    draws = np.random.default_rng(seed)
    rows, columns = np.mgrid[: side[0], : side[1]]
    images = []
    for _ in range(count):
        picture = np.ones((*side, 3)) * np.array(paper)
        for radius, colour in ((9.0, (0.35, 0.05, 0.15)), (5.0, (0.30, 0.35, 0.10))):
            centre = draws.uniform(0.3, 0.7, 2) * side
            inside = (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 < (radius * draws.uniform(0.7, 1.2)) ** 2
            picture -= inside[:, :, None] * np.array(colour)
        picture += draws.normal(0, 0.02, picture.shape)
        if channels == 1:
            picture = picture.mean(axis=2, keepdims=True)
        images.append((picture.clip(0, 1) * 255).round().astype(np.uint8))
    names = [f"{name}-{row}" for row in range(count)]
    return Domain(name, np.stack(images), names, names)


@cache
def encoder_network(channels: int, side: tuple[int, int] = (32, 40), width: int = 8) -> FrozenNetwork:
    """Give a frozen network, untrained, for images of this size."""
    policy = InputPolicy(width=side[1], height=side[0], channels=channels, dtype="uint8", resize="stretch", interpolation="area")

    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            stages: list[torch.nn.Module] = []
            before = channels
            for stage in range(3):
                after = width * 2**stage
                stages += [torch.nn.Conv2d(before, after, 3, 1 + (stage > 0), 1), torch.nn.BatchNorm2d(after), torch.nn.ReLU()]
                before = after
            self.body = torch.nn.Sequential(*stages)
            self.head = torch.nn.Linear(before, 2)

        def forward(self, image: torch.Tensor) -> tuple[torch.Tensor]:
            found = self.body(image.permute(0, 3, 1, 2).float() / 255.0)
            return (torch.softmax(self.head(found.mean((2, 3))), dim=1),)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        served = Network().eval()
    return FrozenNetwork.from_bytes(write_program(served, policy, ["probabilities"]), policy)
