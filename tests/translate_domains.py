"""Two made-up domains of cells, and a network that knows one of them, for tests of translation."""

from __future__ import annotations

import numpy as np

from oteo_translate.domains import Domain

FEW: dict[str, dict[str, object]] = {}
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


def encoder_network(channels: int) -> object | None:
    """Give a frozen network whose features style methods can use."""
    return None
