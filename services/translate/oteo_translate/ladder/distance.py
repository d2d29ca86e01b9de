"""How far shifted images are from home as the frozen model sees them: the kernel distance of embeddings, by weights of the images.

The biased estimate of the squared maximum mean discrepancy (Gretton et al., J. Mach. Learn. Res. 13, 2012, equation 5), with one Gaussian kernel whose width is the
median distance between home images, so that distances of different candidates are on one scale. Its root is used: it is in the units of the kernel's feature space.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from oteo_core.evaluation.bootstrap import Floats, Ints, generator

_LEAST_SPREAD = 1e-6


class HomeDistance:
    """Distances to one home.

    Parameters
    ----------
    home
        Embeddings ``(M, D)`` of home images; each dimension is put to its own spread there.
    """

    def __init__(self, home: NDArray[np.float32]) -> None:
        wide = home.astype(np.float64)
        self._mean = wide.mean(axis=0)
        spread = wide.std(axis=0)
        # A dimension that stands still at home says nothing of how far something is from it.
        self._used = spread > max(_LEAST_SPREAD, 0.01 * float(spread.max(initial=0.0)))
        self._spread = spread
        self._home = self._scaled(home)
        squares = cdist(self._home, self._home, "sqeuclidean")
        between = squares[np.triu_indices(len(squares), 1)]
        self._width = float(np.median(between)) if len(between) and np.median(between) > 0 else 1.0
        self._within = float(np.exp(-squares / (2.0 * self._width)).mean())

    def _scaled(self, values: NDArray[np.float32]) -> Floats:
        wide = (values.astype(np.float64) - self._mean)[:, self._used]
        # Far is far: beyond ten spreads there is nothing to tell apart.
        return np.asarray(np.clip(wide / self._spread[self._used], -10.0, 10.0))

    def of(self, shifted: NDArray[np.float32]) -> Distances:
        """Look at embeddings ``(N, D)`` of shifted images."""
        own = self._scaled(shifted)
        across = np.exp(-cdist(own, self._home, "sqeuclidean") / (2.0 * self._width)).mean(axis=1)
        inside = np.exp(-cdist(own, own, "sqeuclidean") / (2.0 * self._width))
        return Distances(across, inside, self._within)

    def differs(self, shifted: NDArray[np.float32], groups: Ints, *, seed: int = 0, draws: int = 200) -> float:
        """Give the p-value of a permutation test that shifted images are not from home; groups of shifted images stay together.

        Parameters
        ----------
        shifted
            Embeddings ``(N, D)``.
        groups
            Group numbers ``(N,)`` from 0; every home image is its own.
        seed, draws
            Of the permutations.
        """
        everything = np.concatenate([self._scaled(shifted), self._home])
        # Both sides alike: the width is the median of all distances.
        squares = cdist(everything, everything, "sqeuclidean")
        kernel = np.exp(-squares / (2.0 * max(float(np.median(squares)), 1e-12)))
        np.fill_diagonal(kernel, 0.0)
        keys = np.concatenate([groups, groups.max() + 1 + np.arange(len(self._home))])
        count, many = int(keys.max()) + 1, int(groups.max()) + 1
        member = (keys[:, None] == np.arange(count)[None]).astype(np.float64)
        blocks, sizes = member.T @ kernel @ member, member.sum(axis=0)
        rng = generator(seed, "ladder-differs")
        dealt = np.zeros((draws + 1, count))
        dealt[0, :many] = 1.0
        for row in range(1, draws + 1):
            dealt[row, rng.permutation(count)[:many]] = 1.0
        ones, others = dealt @ sizes, (1.0 - dealt) @ sizes
        right = ((dealt @ blocks) * dealt).sum(axis=1)
        left = (((1.0 - dealt) @ blocks) * (1.0 - dealt)).sum(axis=1)
        between = ((dealt @ blocks) * (1.0 - dealt)).sum(axis=1)
        found = right / np.maximum(ones * (ones - 1), 1) + left / np.maximum(others * (others - 1), 1) - 2.0 * between / (ones * others)
        return float((1 + (found[1:] >= found[0] - 1e-12).sum()) / (draws + 1))


class Distances:
    """The distance of a set of images to home, as a function of their weights."""

    def __init__(self, across: Floats, inside: Floats, within: float) -> None:
        self._across, self._inside, self._within = across, inside, within

    def score(self, weights: Floats) -> Floats:
        """Give the distance ``(B,)`` for weights ``(B, N)``; 0 and more, at most the square root of 2."""
        shares = weights / weights.sum(axis=1, keepdims=True)
        inside = ((shares @ self._inside) * shares).sum(axis=1)
        return np.asarray(np.sqrt(np.maximum(inside + self._within - 2.0 * (shares @ self._across), 0.0)))
