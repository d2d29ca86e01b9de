"""A dataset as checks see it: rows and measures side by side."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from oteo_augment.auditing.measuring import Measured
from oteo_augment.importing.duplicates import UnionFind, equal_groups, near_pairs
from oteo_augment.importing.options import SplitOptions
from oteo_core.datasets import DatasetInfo, Sample


class AuditData:
    """What checks are given.

    Parameters
    ----------
    info
        The dataset.
    samples
        Its samples, those left out not among them, in its order.
    excluded
        Those left out.
    measured
        Measures of `samples`, in the same order.
    """

    def __init__(self, info: DatasetInfo, samples: Sequence[Sample], excluded: Sequence[Sample], measured: Sequence[Measured]) -> None:
        self.info = info
        self.samples = list(samples)
        self.excluded = list(excluded)
        self.measured = list(measured)
        self.by_id = {sample.id: index for index, sample in enumerate(self.samples)}
        self.paths = {sample.id: sample.source_path or sample.path for sample in [*self.excluded, *self.samples]}

    @property
    def readable(self) -> list[int]:
        """Places of the samples that could be decoded."""
        return [index for index, row in enumerate(self.measured) if row.readable]

    def ids(self, indices: Sequence[int]) -> tuple[str, ...]:
        """Give samples' ids."""
        return tuple(self.samples[index].id for index in indices)

    def named(self, indices: Sequence[int]) -> list[str]:
        """Give samples' paths in the source, for sentences."""
        return [self.paths[self.samples[index].id] for index in indices]

    def root(self, index: int) -> str:
        """Give the sequence of a frame, else the sample that an augmented one was made from, else its own id: they are alike by design."""
        sample = self.samples[index]
        if sample.sequence:
            return self._first_of.get(sample.derived_from, sample.sequence)
        return sample.derived_from or sample.id

    @cached_property
    def _first_of(self) -> dict[str, str]:
        """Sequences by the ids of their frames that were not made by augmentation."""
        return {sample.id: sample.sequence for sample in self.samples if sample.sequence and not sample.derived_from}

    @property
    def near_distance(self) -> int:
        """Hamming distance of near duplicates, the import's own."""
        split = self.info.provenance.get("split")
        found = split.get("near_duplicate_distance") if isinstance(split, dict) else None
        return found if isinstance(found, int) else SplitOptions.near_duplicate_distance

    @cached_property
    def exact_groups(self) -> list[list[int]]:
        """Groups of samples with the same pixels, augmented copies of one sample not counted against each other."""
        keys = [row.pixel_digest if row.readable else "" for row in self.measured]
        return [kept for group in equal_groups(keys) if len(kept := self._of_different_roots(group)) > 1]

    @cached_property
    def near_groups(self) -> list[list[int]]:
        """Groups of samples that look alike and are not all the same, joined by chains of near pairs."""
        # A flat picture has no form to compare: its hash says nothing.
        places = [i for i in self.readable if self.measured[i].phash is not None and self.measured[i].bright > self.measured[i].dark]
        by_hash: defaultdict[int, list[int]] = defaultdict(list)
        for index in places:
            value = self.measured[index].phash
            assert value is not None
            by_hash[value].append(index)
        values = list(by_hash)
        union = UnionFind(len(self.samples))
        for group in by_hash.values():
            for index in group[1:]:
                union.join(group[0], index)
        for left, right in near_pairs(np.array(values, np.uint64), self.near_distance):
            union.join(by_hash[values[left]][0], by_hash[values[right]][0])
        found = []
        for group in union.sets().values():
            kept = self._of_different_roots(group)
            if len(kept) > 1 and len({self.measured[index].pixel_digest for index in kept}) > 1:
                found.append(kept)
        return found

    def _of_different_roots(self, group: list[int]) -> list[int]:
        """Keep one sample of each family of augmented copies, the original where it is there."""
        kept: dict[str, int] = {}
        for index in sorted(group, key=lambda i: bool(self.samples[i].derived_from)):
            kept.setdefault(self.root(index), index)
        return sorted(kept.values())

    def clusters(self) -> NDArray[np.int64]:
        """Give each sample the number of what must stay together: group, duplicates, near duplicates, augmented copies; (N,)."""
        union = UnionFind(len(self.samples))
        first: dict[str, int] = {}
        for index, sample in enumerate(self.samples):
            for key in (f"group {sample.group}" if sample.group else "", f"root {self.root(index)}"):
                if key:
                    union.join(first.setdefault(key, index), index)
        for group in [*self.exact_groups, *self.near_groups]:
            for index in group[1:]:
                union.join(group[0], index)
        return np.array([union.find(index) for index in range(len(self.samples))], np.int64)
