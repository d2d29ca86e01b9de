"""Training, validation and test: grouped, stratified, the same for the same seed whatever the order of files.

Clusters (samples that must stay together) go one after the other, the rarest classes and the largest clusters first, to the part in which
they lower the chi-square distance from the wanted class counts most. For single labels this is stratified sampling; for several labels it is
in the spirit of Sechidis, Tsoumakas and Vlahavas, "On the Stratification of Multi-Label Data" (ECML PKDD 2011).
"""

from __future__ import annotations

import hashlib
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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
    # A cluster's counts by class; "" counts samples, so that parts have their sizes whatever the classes.
    counts = [{"": cluster.size, **cluster.classes} for cluster in clusters]
    totals: Counter[str] = Counter()
    for count in counts:
        totals.update(count)
    wanted = [{name: share * total for name, total in totals.items()} for share in shares]
    have = [dict.fromkeys(totals, 0.0) for _ in shares]
    possible = [part for part, share in enumerate(shares) if share > 0]
    parts = list(fixed)

    def put(index: int, part: int) -> None:
        parts[index] = SPLITS[part]
        for name, number in counts[index].items():
            have[part][name] += number

    def rank(index: int) -> tuple[float, int, bytes]:
        cluster = clusters[index]
        rarest = min((totals[name] for name in cluster.classes), default=sys.maxsize)
        return rarest, -cluster.size, hashlib.sha256(f"{seed}/{cluster.key}".encode()).digest()

    def growth(index: int, part: int) -> float:
        """Give by how much the chi-square distance grows if the cluster goes there."""
        present, goal = have[part], wanted[part]
        return sum(number * (2 * (present[name] - goal[name]) + number) / goal[name] for name, number in counts[index].items())

    for index, split in enumerate(fixed):
        if split:
            put(index, SPLITS.index(split))
    for index in sorted((i for i, split in enumerate(fixed) if not split), key=rank):
        put(index, min(possible, key=lambda part, index=index: growth(index, part)))  # type: ignore[misc]
    return parts


def counts_of(values: Sequence[str]) -> dict[str, int]:
    """Count values, leaving "" aside."""
    if len(values) == 1:
        return {values[0]: 1} if values[0] else {}
    counter = Counter(values)
    counter.pop("", None)
    return dict(sorted(counter.items()))
