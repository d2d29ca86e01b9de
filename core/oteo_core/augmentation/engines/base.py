"""The contract of engines, and what one has to know of an image.

Drawing is no engine's matter: `oteo_core.augmentation.engines.drawing` draws the parameters on the CPU, from a counter-based generator
keyed by policy, seed, sample, copy and step, and from an image's shape and type alone. An engine applies what was drawn to pixels.
So every engine does the same to a sample, to its tolerance, and annotations are moved by the same parameters whichever it was.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from oteo_core.augmentation.catalogue import TransformSpec

GROUP = 4
"""Channels that are worked on at once where there are more than OpenCV takes."""


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


class Scale(NamedTuple):
    """How pixels are brought to what a transform computes with, and back: less `low`, by `span`.

    Attributes
    ----------
    low, span
        0 and 1: as they are, whatever their type; else in float32.
    """

    low: float = 0.0
    span: float = 1.0

    @property
    def scaled(self) -> bool:
        """Whether it changes anything."""
        return (self.low, self.span) != (0.0, 1.0)

    def into(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """Bring pixels of any shape to what the transform computes with."""
        if not self.scaled:
            return pixels
        # In place: fresh memory for every step costs more than the arithmetic.
        work = pixels.astype(np.float32)
        if self.low:
            work -= np.float32(self.low)
        work /= np.float32(self.span)
        return work

    def back(self, changed: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Bring them back to a type, rounded if it is of whole numbers."""
        if self.scaled:
            changed = np.multiply(changed, np.float32(self.span))
            changed += np.float32(self.low)
            if dtype.kind == "u":
                np.rint(changed, out=changed)
        return changed.astype(dtype, copy=False)


def scale_of(spec: TransformSpec, dtype: np.dtype[Any], values: Values) -> Scale:
    """Give the scale of a transform for pixels of a type whose original had `values`."""
    # albumentations computes brightness for uint8 and float32 only, and holds float32 to be within 0 to 1: it clips.
    if dtype == np.uint16 and spec.unit_range:
        return Scale(0.0, 65535.0)
    if dtype == np.uint8 and spec.in_float:
        return Scale(0.0, 255.0)
    if spec.mixes and not values.unit:
        return Scale(values.low, max(values.high - values.low, float(np.finfo(np.float32).tiny)))
    return Scale()


@dataclass(frozen=True, slots=True)
class Drawn:
    """What was drawn for one step of one image.

    Attributes
    ----------
    spec
        The transform in the catalogue.
    transform
        Built of it; it may be shared with other draws, so that only `parts` and `border` say what is this draw's.
    parts
        What it drew, under albumentations' names: once, or for every `GROUP` channels.
    scale
        What its pixels are brought to for the work.
    border
        What comes in from outside; a colour is ``fill`` in `parts`, in the scale of the work.
    """

    spec: TransformSpec
    transform: Any
    parts: tuple[dict[str, Any], ...]
    scale: Scale
    border: Border

    @property
    def parameters(self) -> dict[str, Any]:
        """What was drawn, for annotations and provenance."""
        return self.parts[-1]


class Engine(Protocol):
    """Applies what was drawn for one image."""

    def apply(self, drawn: Drawn, pixels: NDArray[Any]) -> NDArray[Any]:
        """Apply to pixels ``(H, W, C)``: same type and channels out, the input left as it is."""
        ...
