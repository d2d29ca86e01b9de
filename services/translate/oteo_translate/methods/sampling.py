"""What fits look at: images of a domain, evenly spread, as tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch

from oteo_translate.domains import Domain, to_unit

MOST_IMAGES = 200
"""Statistics of more images change in the third digit, measured on two sets of blood cells."""


def rows(domain: Domain, most: int = MOST_IMAGES) -> list[int]:
    """Give at most `most` rows, evenly spread over the domain, ascending."""
    count = min(len(domain), most)
    return sorted({int(row) for row in np.linspace(0, len(domain) - 1, count).round()})


def planes(domain: Domain, check: Callable[[], None], most: int = MOST_IMAGES) -> Iterator[torch.Tensor]:
    """Give images one at a time, ``(1, C, H, W)`` float32 of 0 to 1; `check` is called before each."""
    white = 255.0 if domain.images.dtype == np.uint8 else 1.0
    for row in rows(domain, most):
        check()
        pixels = to_unit(domain.images[row], white).clip(0, 1)
        yield torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))[None]
