"""The gate's eye for rare spoiling: a translation that ruins one image in fifty is no better than one that ruins all, for whoever gets that image.

An honest translation hardly ever leaves a place of which nothing is explained by the image as it was, so that very few such images are proof enough. How many
are too many is told by an exact binomial test against the rate at which honest translations do it. Few images can show common spoiling only; `needed` says
how many show what.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from oteo_translate.ladder.structure import Structure, compare_structure

RUINED_PLACE = 0.9
"""Share of a small place's structure from which it is gone, or new, beyond doubt. Erased, added, moved and mirrored objects reach .95 and more, honest changes
of colour that pass the rest of the gate .82 at most (`benchmarks/gate.py`)."""

HONEST_RATE = 0.001
"""Share of images in which an honest translation does so all the same."""

LEVEL = 0.1
"""Chance that an honest translation is rejected by this test, at most."""

INSPECTED = 512
"""Images that a recommended translation is inspected on, at most."""

_PIXELS = INSPECTED * 256 * 256
_NAMED = 3
_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Inspection:
    """What was found image by image.

    Parameters
    ----------
    images
        That were looked at.
    lost, invented
        Ids of those in which something is gone, or new, beyond doubt.
    """

    images: int
    lost: tuple[str, ...]
    invented: tuple[str, ...]

    @property
    def ruined(self) -> int:
        """Images with one or the other."""
        return len({*self.lost, *self.invented})

    @property
    def complaint(self) -> str:
        """Why the translation is rejected; empty where it may pass."""
        if self.ruined <= allowed(self.images):
            return ""
        word, names = max((("is gone that was there", self.lost), ("is there that was not", self.invented)), key=lambda pair: len(pair[1]))
        named = ", ".join(names[:_NAMED]) + (" and others" if len(names) > _NAMED else "")
        return f"in {self.ruined} of {self.images} images anatomy is ruined: in {named} something {word}"

    def figures(self) -> dict[str, float]:
        """Give numbers by name."""
        return {"inspected_images": float(self.images), "ruined_images": float(self.ruined)}

    def and_also(self, other: Inspection) -> Inspection:
        """Put two together that looked at different images."""
        return Inspection(self.images + other.images, self.lost + other.lost, self.invented + other.invented)


def inspect_each(structure: Structure, ids: Sequence[str]) -> Inspection:
    """Look for ruined images among some whose structure was compared; `ids` are theirs."""
    lost, new = (
        tuple(ids[int(row)] for row in np.flatnonzero(worst > RUINED_PLACE)) for worst in (structure.worst_lost, structure.worst_invented)
    )
    return Inspection(len(ids), lost, new)


def inspect_more(
    images: NDArray[Any], ids: Sequence[str], change: Callable[[NDArray[Any]], NDArray[Any]], goes_on: Callable[[], bool]
) -> Inspection:
    """Inspect more images.

    Parameters
    ----------
    images
        ``(N, H, W, C)``; the first `most_inspected` are looked at.
    ids
        N.
    change
        The translation of some of them.
    goes_on
        Asked before each handful; False: enough, there is no time.
    """
    found = Inspection(0, (), ())
    most = min(len(images), most_inspected(images.shape[1] * images.shape[2]))
    for start in range(0, most, _AT_ONCE):
        if not goes_on():
            break
        part = np.ascontiguousarray(images[start : min(most, start + _AT_ONCE)])
        found = found.and_also(inspect_each(compare_structure(part, change(part)), ids[start : start + len(part)]))
    return found


def most_inspected(pixels: int) -> int:
    """Say how many images of so many pixels are inspected at most."""
    return int(np.clip(_PIXELS // max(1, pixels), _AT_ONCE, INSPECTED))


def allowed(images: int) -> int:
    """Say in how many of so many images an honest translation may be found with a ruined place: more are found in less than `LEVEL` of all cases."""
    return int(binom.isf(LEVEL, images, HONEST_RATE)) if images else 0


def needed(share: float, power: float = 0.95) -> int:
    """Say how many images have to be inspected, so that a translation that ruins a share of all images is rejected with a chance of `power`."""
    count = 1
    while binom.sf(allowed(count), count, share) < power:
        count += 1
    return count
