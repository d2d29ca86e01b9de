"""The contract of engines, and what one has to know of an image.

Drawing is no engine's matter: the built transform draws its parameters on the CPU, from a counter-based generator keyed by policy,
seed, sample, copy and step. An engine applies what was drawn to pixels, and gives back what was drawn, so that annotations are
moved by the same parameters.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from oteo_core.augmentation.catalogue import TransformSpec


class Border(IntEnum):
    """What comes in from outside where a step looks beyond the image's edge; the values are OpenCV's."""

    CONSTANT = 0
    """The colour that is usual at the edge: where objects are told apart, a mirrored one would stand there without its annotation."""
    REFLECT = 4
    """The image, mirrored, and its mask likewise: no corner of one colour tells an augmented image."""


class Values(NamedTuple):
    """The range of an image's values, as far as it matters; asked once, of the original: no step of the catalogue leads out of it."""

    low: float = 0.0
    high: float = 1.0
    finite: bool = True

    @property
    def unit(self) -> bool:
        """Whether all values are finite and from 0 to 1."""
        return self.finite and self.low >= 0 and self.high <= 1


def values_of(pixels: NDArray[Any]) -> Values:
    """Give the range of an image's values; that of whole numbers is not looked at."""
    if pixels.dtype != np.float32:
        return Values()
    low, high = float(pixels.min()), float(pixels.max())
    # NaN comes out of both; infinity out of one.
    return Values(low, high, bool(np.isfinite(low) and np.isfinite(high)))


@dataclass(frozen=True, slots=True)
class Applied:
    """What an engine gives for one step.

    Attributes
    ----------
    pixels
        (H, W, C) of the dtype that came in.
    parameters
        What the transform drew, under albumentations' names.
    """

    pixels: NDArray[Any]
    parameters: dict[str, Any]


class Engine(Protocol):
    """Applies one step to one image: same dtype and channels out, the input left as it is."""

    def apply(
        self, transform: Any, spec: TransformSpec, pixels: NDArray[Any], values: Values, generator: np.random.Generator, border: Border
    ) -> Applied:
        """Let a built transform draw from `generator`, and apply what it drew to `pixels` (H, W, C), whose original had `values`."""
        ...
