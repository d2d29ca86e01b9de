"""Which group of images is on which side, and how the sides are dealt anew under "there is no shift".

Images of one group (a patient, a slide, near duplicates) say the same thing more than once. Whole groups are therefore dealt, and a group counts
as one, however many images it has: what is averaged is averaged within groups first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from oteo_core.evaluation.bootstrap import encode_groups

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Ints = NDArray[np.int64]

PERMUTATIONS = 499
"""Deals that p-values stand on: the smallest is 1/500, which ten tests multiply to 1/50."""


@dataclass(frozen=True, slots=True)
class Sides:
    """Images of two domains put together, home first.

    Parameters
    ----------
    groups
        ``(N,)`` number of each image's group, from 0, without gaps; no group is on both sides.
    shifted
        ``(G,)`` bool: which groups are of the shifted domain.
    """

    groups: Ints
    shifted: Flags

    @classmethod
    def of(cls, home: Sequence[str], shifted: Sequence[str]) -> Sides:
        """Put two domains together by their images' groups; an empty name is a group of its own, and a name on both sides is two groups."""
        first, second = encode_groups(list(home), len(home)), encode_groups(list(shifted), len(shifted))
        count = int(first.max()) + 1
        sides = np.arange(count + int(second.max()) + 1) >= count
        return cls(np.concatenate([first, second + count]), sides)

    @property
    def counts(self) -> tuple[int, int]:
        """Groups at home and of the shifted domain."""
        return int((~self.shifted).sum()), int(self.shifted.sum())

    def average(self, values: NDArray[np.floating]) -> Floats:
        """Average ``(N, ...)`` values of images within groups, ``(G, ...)``."""
        totals = np.zeros((len(self.shifted), *values.shape[1:]))
        np.add.at(totals, self.groups, values)
        sizes = np.bincount(self.groups, minlength=len(self.shifted)).astype(np.float64)
        return totals / sizes.reshape(-1, *[1] * (values.ndim - 1))

    def weights(self) -> Floats:
        """Give each image's share in its group, ``(N,)``."""
        return 1.0 / np.bincount(self.groups)[self.groups]

    def one_each(self, rng: np.random.Generator) -> Ints:
        """Draw an image of each group, ``(G,)`` rows."""
        order = rng.permutation(len(self.groups))
        _, first = np.unique(self.groups[order], return_index=True)
        return order[first]


def deal(sides: Sides, rng: np.random.Generator, count: int = PERMUTATIONS, strata: Ints | None = None) -> Flags:
    """Deal the sides anew.

    Parameters
    ----------
    sides
        The groups.
    rng
        The generator.
    count
        Number of deals, B.
    strata
        ``(G,)`` numbers: sides are dealt within a stratum only, so that each keeps its numbers; None: all together.

    Returns
    -------
    ndarray
        ``(B, G)`` bool: which groups are of the shifted domain.
    """
    dealt = np.empty((count, len(sides.shifted)), dtype=np.bool_)
    for stratum in [np.arange(len(sides.shifted))] if strata is None else [np.flatnonzero(strata == one) for one in np.unique(strata)]:
        order = np.argsort(rng.random((count, len(stratum))), axis=1)
        dealt[:, stratum] = sides.shifted[stratum][order]
    return dealt


def permutation_p(observed: float, null: Floats) -> float:
    """Give the p-value ``(1 + #{null >= observed}) / (1 + B)``: never below 1/(B + 1), valid for any B (Phipson and Smyth 2010)."""
    slack = 1e-12 * max(1.0, abs(observed))
    return float((1 + int((null >= observed - slack).sum())) / (1 + len(null)))


def restricted(sides: Sides, rows: Ints) -> Sides:
    """Give the sides of some of the images alone (rows ascending, so that home stays first)."""
    left, groups = np.unique(sides.groups[rows], return_inverse=True)
    return Sides(groups.astype(np.int64), sides.shifted[left])
