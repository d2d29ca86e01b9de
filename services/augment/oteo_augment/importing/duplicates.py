"""Which images are the same, and which look the same."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

_BANDS_FROM = 4096
_BLOCK = 1024


class UnionFind:
    """Sets that grow together.

    Parameters
    ----------
    count
        Number of elements, 0 to count - 1.
    """

    def __init__(self, count: int) -> None:
        self._parent = list(range(count))

    def find(self, element: int) -> int:
        """Give the smallest element of the set."""
        root = element
        while self._parent[root] != root:
            root = self._parent[root]
        while self._parent[element] != root:
            self._parent[element], element = root, self._parent[element]
        return root

    def join(self, left: int, right: int) -> None:
        """Make two sets one."""
        left, right = self.find(left), self.find(right)
        if left != right:
            self._parent[max(left, right)] = min(left, right)

    def sets(self) -> dict[int, list[int]]:
        """Give the elements of each set by its smallest."""
        found: defaultdict[int, list[int]] = defaultdict(list)
        for element in range(len(self._parent)):
            found[self.find(element)].append(element)
        return dict(found)


def equal_groups(keys: Sequence[Hashable]) -> list[list[int]]:
    """Give the groups of at least two elements with the same key; keys that are false belong to none."""
    found: defaultdict[Hashable, list[int]] = defaultdict(list)
    for index, key in enumerate(keys):
        if key:
            found[key].append(index)
    return [group for group in found.values() if len(group) > 1]


def near_pairs(hashes: NDArray[np.uint64], distance: int) -> NDArray[np.int64]:
    """Give all pairs of 64-bit hashes that differ in at most so many bits.

    Up to a few thousand hashes all pairs are compared. Above, hashes are cut into `distance` + 1 bands: two hashes within the distance agree
    in one band at least (Manku, Jain and Das Sarma, "Detecting Near-Duplicates for Web Crawling", WWW 2007), so that only those that share a
    band are compared.

    Parameters
    ----------
    hashes
        (N,), distinct.
    distance
        0 to 64.

    Returns
    -------
    ndarray
        (P, 2), int64: indices, the smaller first, each pair once, sorted.
    """
    count = len(hashes)
    if count < 2 or distance < 0:
        return np.empty((0, 2), np.int64)
    if count <= _BANDS_FROM:
        found = [
            _compare(hashes, np.arange(start, min(start + _BLOCK, count)), np.arange(count), distance) for start in range(0, count, _BLOCK)
        ]
        pairs = np.concatenate(found)
    else:
        pairs = _by_bands(hashes, distance)
    pairs = np.unique(pairs, axis=0) if len(pairs) else pairs
    return pairs


def _by_bands(hashes: NDArray[np.uint64], distance: int) -> NDArray[np.int64]:
    edges = np.linspace(0, 64, distance + 2).astype(int)
    found = [np.empty((0, 2), np.int64)]
    for low, high in pairwise(edges):
        mask = np.uint64(((1 << int(high - low)) - 1) << int(low))
        bands = hashes & mask
        order = np.argsort(bands, kind="stable")
        ordered = bands[order]
        # Equal bands lie side by side: each is compared with its next, second next, ... neighbour as long as that has the same band.
        left = np.arange(len(order) - 1)
        step = 1
        while len(left := left[left + step < len(order)]) and len(left := left[ordered[left] == ordered[left + step]]):
            one, other = order[left], order[left + step]
            near = np.bitwise_count(hashes[one] ^ hashes[other]) <= distance
            found.append(np.sort(np.stack([one[near], other[near]], axis=1), axis=1))
            step += 1
    return np.concatenate(found)


def _compare(hashes: NDArray[np.uint64], left: NDArray[np.int64], right: NDArray[np.int64], distance: int) -> NDArray[np.int64]:
    apart = np.bitwise_count(hashes[left][:, None] ^ hashes[right][None, :])
    rows, columns = np.nonzero(apart <= distance)
    pairs = np.stack([left[rows], right[columns]], axis=1)
    return pairs[pairs[:, 0] < pairs[:, 1]]
