"""Training, validation and test: grouped, stratified, the same for the same seed whatever the order of files.

Clusters (samples that must stay together) go one after the other, the rarest classes and the largest clusters first, to the part in which
they lower the chi-square distance from the wanted class counts most. For single labels this is stratified sampling; for several labels it is
in the spirit of Sechidis, Tsoumakas and Vlahavas, "On the Stratification of Multi-Label Data" (ECML PKDD 2011).
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from oteo_core.datasets import SPLITS

_FIRM = ("test", "validation", "train")
"""Which part wins where a cluster is torn evenly: what was meant for judging is kept for judging."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """Samples that must stay together.

    Parameters
    ----------
    key
        A name that does not depend on the order of samples; ties are drawn by it.
    size
        Number of samples.
    classes
        How many of its samples have each class.
    source_splits
        How many of its samples the source puts into each part; without "".
    """

    key: str
    size: int
    classes: Mapping[str, int]
    source_splits: Mapping[str, int]


def assign(clusters: Sequence[Cluster], shares: Sequence[float], seed: int, keep_source: bool) -> list[str]:
    """Give each cluster its part.

    Parameters
    ----------
    clusters
        All clusters.
    shares
        Of training, validation and test; they add up to 1.
    seed
        Of the draw.
    keep_source
        True: parts that the source names are kept, and only what it leaves open is drawn. A source that names a single part has
        left all open; one that lacks validation or test has them drawn from its training part.

    Returns
    -------
    list
        "train", "validation" or "test" for each cluster.
    """
    named = [winner(cluster.source_splits) if keep_source else "" for cluster in clusters]
    given = set(named) - {""}
    if len(given) < 2:
        return _draw(clusters, [""] * len(clusters), shares, seed)
    wanted = dict(zip(SPLITS, shares, strict=True))
    # What the source lacks is taken out of its training part: a model needs all three.
    lacking = [split for split in SPLITS if split not in given and wanted[split] > 0]
    if lacking and "train" in given:
        pool = [index for index, split in enumerate(named) if split in ("train", "")]
        open_shares = [wanted[split] if split in lacking or split == "train" else 0.0 for split in SPLITS]
        total = sum(open_shares)
        drawn = _draw([clusters[i] for i in pool], [""] * len(pool), [share / total for share in open_shares], seed)
        for index, split in zip(pool, drawn, strict=True):
            named[index] = split
        return named
    return _draw(clusters, named, shares, seed)


def winner(source_splits: Mapping[str, int]) -> str:
    """Give the part that most samples of a cluster have in the source; in a tie the one that is for judging; "" for none."""
    return max(source_splits, key=lambda split: (source_splits[split], -_FIRM.index(split)), default="")


def _draw(clusters: Sequence[Cluster], fixed: Sequence[str], shares: Sequence[float], seed: int) -> list[str]:
    names = sorted({name for cluster in clusters for name in cluster.classes})
    column = {name: index + 1 for index, name in enumerate(names)}
    totals = np.zeros(len(names) + 1)
    vectors: list[NDArray[np.float64]] = []
    for cluster in clusters:
        vector = np.zeros(len(names) + 1)
        vector[0] = cluster.size
        for name, count in cluster.classes.items():
            vector[column[name]] = count
        totals += vector
        vectors.append(vector)
    wanted = np.outer(shares, totals)
    possible = np.asarray(shares) > 0
    weight = 1.0 / np.maximum(wanted, 1e-9)
    have = np.zeros_like(wanted)
    parts = [""] * len(clusters)
    for index, split in enumerate(fixed):
        if split:
            parts[index] = split
            have[SPLITS.index(split)] += vectors[index]
    rarity = {name: totals[column[name]] for name in names}

    def rank(index: int) -> tuple[float, int, bytes]:
        cluster = clusters[index]
        rarest = min((rarity[name] for name in cluster.classes), default=float("inf"))
        return rarest, -cluster.size, hashlib.sha256(f"{seed}/{cluster.key}".encode()).digest()

    for index in sorted((i for i, split in enumerate(fixed) if not split), key=rank):
        vector = vectors[index]
        hot = np.flatnonzero(vector)
        gain = (vector[hot] * (2 * (have[:, hot] - wanted[:, hot]) + vector[hot]) * weight[:, hot]).sum(axis=1)
        gain[~possible] = np.inf
        part = int(np.argmin(gain))
        parts[index] = SPLITS[part]
        have[part] += vector
    return parts


def counts_of(values: Sequence[str]) -> dict[str, int]:
    """Count values, leaving "" aside."""
    counter = Counter(values)
    counter.pop("", None)
    return dict(sorted(counter.items()))
