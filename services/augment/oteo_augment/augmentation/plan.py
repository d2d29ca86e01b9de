"""How many copies are made of which sample, and what each is called."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from oteo_core.augmentation import Policy
from oteo_core.datasets import Sample

DEFAULT_COPIES = 2
"""Copies of each training sample where a request does not say."""

_LONGEST_ID = 128


@dataclass(frozen=True)
class AugmentationPlan:
    """What is to be made of a dataset.

    Attributes
    ----------
    policy
        What is done to each copy.
    copies
        Copies of a training sample.
    copies_by_class
        Copies of those of a class, instead; of a sample of several classes the most of theirs.
    seed
        Seed of the draws.
    drop_originals
        True: of a training sample only its copies are kept, if it has any.
    copies_by_sequence
        Copies of all frames of a stack or clip, filled in by `for_sequences`: where each counted for itself, copies would have gaps.
    """

    policy: Policy
    copies: int = DEFAULT_COPIES
    copies_by_class: Mapping[str, int] = field(default_factory=dict)
    seed: int = 0
    drop_originals: bool = False
    copies_by_sequence: Mapping[str, int] = field(default_factory=dict)

    def copies_of(self, sample: Sample) -> int:
        """Give the number of copies to make of a sample: none outside the training part."""
        if sample.split != "train" or sample.excluded:
            return 0
        if sample.sequence in self.copies_by_sequence:
            return self.copies_by_sequence[sample.sequence]
        return max((self.copies_by_class.get(label, self.copies) for label in set(sample.class_names())), default=self.copies)

    def for_sequences(self, samples: Iterable[Sample]) -> AugmentationPlan:
        """Give a plan under which all frames of a sequence get as many copies as the one of them that gets most."""
        most: dict[str, int] = {}
        for sample in samples:
            if sample.sequence:
                most[sample.sequence] = max(most.get(sample.sequence, 0), self.copies_of(sample))
        return replace(self, copies_by_sequence=most)

    def copy_id(self, sample: Sample, copy: int) -> str:
        """Give the id of a copy: the sample's own with a mark of policy and seed, and the copy's number."""
        return self.copy_name(sample.id, copy)

    def copy_name(self, name: str, copy: int) -> str:
        """Give what the copy of a sample or sequence of that name is called."""
        mark = hashlib.blake2b(f"{self.policy.digest}/{self.seed}".encode(), digest_size=3).hexdigest()
        plain = f"{name}.{mark}-{copy}"
        if len(plain) <= _LONGEST_ID:
            return plain
        return f"{hashlib.sha256(name.encode()).hexdigest()[:32]}.{mark}-{copy}"

    def to_json(self) -> dict[str, Any]:
        """Give the plan as plain values, for provenance."""
        return {
            "policy": self.policy.to_json(),
            "policy_digest": self.policy.digest,
            "copies": self.copies,
            "copies_by_class": dict(sorted(self.copies_by_class.items())),
            "seed": self.seed,
            "drop_originals": self.drop_originals,
        }
