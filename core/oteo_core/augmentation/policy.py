"""What to do to each sample: steps, and how they are combined."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any

from oteo_core.augmentation.catalogue import find_transform
from oteo_core.errors import InvalidArgument

DIGEST_VERSION = 1
"""Raised when the same policy would give other pixels than before."""

DEFAULT_DRAWS, DEFAULT_MAGNITUDE = 2, 0.5
MOST_COMBINED = 10
"""Steps that mode POWER combines at most: 1023 copies."""

DEFAULT_VISIBLE_SHARE = 0.1
"""Share of an object's area that must still be seen, where a policy does not say."""


class Mode(StrEnum):
    """How steps are combined."""

    SEQUENTIAL = "sequential"
    """Every step in its order, each with its probability."""
    LINEAR = "linear"
    """Each copy takes one step, drawn by weight."""
    POWER = "power"
    """A copy for each combination of steps, of one step and more; copy numbers count through them."""
    TRIVIAL = "trivial"
    """One step drawn by weight, at a strength drawn from 0 to 1 (TrivialAugment, Müller and Hutter, 2021)."""
    RANDOM = "random"
    """A number of steps drawn by weight, one may come twice, at one strength (RandAugment, Cubuk et al., 2020)."""


BY_WEIGHT = frozenset({Mode.LINEAR, Mode.TRIVIAL, Mode.RANDOM})
"""Modes that draw steps by weight."""


@dataclass(frozen=True)
class Step:
    """One step.

    Attributes
    ----------
    transform
        Name or alias in the catalogue.
    parameters
        Those given; the others keep the catalogue's defaults.
    probability
        How likely it is taken, 0 to 1.
    weight
        Its weight where a policy draws one step; at least 0.
    optional
        True: left out where it is not defined for an image's pixels; False: such an image is refused.
    """

    transform: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    probability: float = 1.0
    weight: float = 1.0
    optional: bool = False


@dataclass(frozen=True)
class Policy:
    """What to do to each sample. It is checked when it is made.

    Attributes
    ----------
    steps
        The steps, in order.
    mode
        How they are combined.
    laterality
        True where left and right mean something: mirrors are then refused, unless `mirror_swaps` says what they change.
    name
        For people; it does not enter the draws.
    min_visible_share
        An object that keeps less than this share of its area is dropped and counted, 0 to 1.
    draws
        Steps that a copy takes in mode RANDOM, at least 1.
    magnitude
        Their strength, 0 to 1: 0 changes nothing, 1 goes to an end of each parameter's range.
    mirror_swaps
        Classes that a mirror changes into each other, each pair once: {"left lung": "right lung"}.

    Raises
    ------
    InvalidArgument
        UNKNOWN_TRANSFORM, BAD_PARAMETER, MIRROR_REFUSED, BAD_POLICY; the field names the step.
    """

    steps: tuple[Step, ...]
    mode: Mode = Mode.SEQUENTIAL
    laterality: bool = False
    name: str = ""
    min_visible_share: float = DEFAULT_VISIBLE_SHARE
    draws: int = DEFAULT_DRAWS
    magnitude: float = DEFAULT_MAGNITUDE
    mirror_swaps: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for number, step in enumerate(self.steps):
            where = f"policy.steps[{number}]"
            spec = find_transform(step.transform, field=f"{where}.transform")
            spec.check_names(step.parameters, field=f"{where}.parameters")
            if self.laterality and spec.mirrors and not self.mirror_swaps:
                raise InvalidArgument(
                    f"step {number + 1}, {spec.name}, swaps left and right, which mean something here (laterality): take it out, or say in mirror_swaps which classes it swaps",
                    reason="MIRROR_REFUSED",
                    field=f"{where}.transform",
                )
            if not 0 <= step.probability <= 1:
                raise InvalidArgument(f"probability {step.probability}: give 0 to 1", reason="BAD_POLICY", field=f"{where}.probability")
            if not step.weight >= 0:
                raise InvalidArgument(f"weight {step.weight}: give 0 or more", reason="BAD_POLICY", field=f"{where}.weight")
        self._check_swaps()
        if not 0 <= self.min_visible_share <= 1:
            raise InvalidArgument(
                f"min_visible_share {self.min_visible_share}: give 0 to 1", reason="BAD_POLICY", field="policy.min_visible_share"
            )
        if self.mode in BY_WEIGHT and not sum(step.weight for step in self.steps) > 0:
            raise InvalidArgument("a policy that draws steps needs one with a weight above 0", reason="BAD_POLICY", field="policy.steps")
        if self.mode is Mode.POWER and not 1 <= len(self.steps) <= MOST_COMBINED:
            raise InvalidArgument(
                f"{len(self.steps)} steps: all combinations are made of 1 to {MOST_COMBINED} steps",
                reason="BAD_POLICY",
                field="policy.steps",
            )
        if self.draws < 1:
            raise InvalidArgument(f"draws {self.draws}: give 1 or more", reason="BAD_POLICY", field="policy.draws")
        if not 0 <= self.magnitude <= 1:
            raise InvalidArgument(f"magnitude {self.magnitude}: give 0 to 1", reason="BAD_POLICY", field="policy.magnitude")

    def _check_swaps(self) -> None:
        named = [*self.mirror_swaps, *self.mirror_swaps.values()]
        twice = next((name for name in named if named.count(name) > 1), "")
        if twice:
            raise InvalidArgument(
                f"mirror_swaps names the class {twice!r} twice: give each pair once, and no class to itself",
                reason="BAD_POLICY",
                field="policy.mirror_swaps",
            )

    @property
    def combinations(self) -> int:
        """Number of combinations of one step and more, which mode POWER makes a copy of each."""
        return (1 << len(self.steps)) - 1

    @cached_property
    def digest(self) -> str:
        """SHA-256, hexadecimal, over everything that decides the pixels and classes."""
        steps = [
            [find_transform(s.transform).name, _canonical(s.parameters), float(s.probability), float(s.weight), s.optional]
            for s in self.steps
        ]
        drawn = [self.draws, float(self.magnitude)] if self.mode is Mode.RANDOM else []
        swaps = [sorted(sorted(pair) for pair in self.mirror_swaps.items())] if self.mirror_swaps else []
        words = json.dumps([DIGEST_VERSION, self.mode, steps, *drawn, *swaps], sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(words.encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """Give the policy as plain values, for provenance."""
        return {
            "name": self.name,
            "mode": self.mode.value,
            "laterality": self.laterality,
            "min_visible_share": self.min_visible_share,
            "draws": self.draws,
            "magnitude": self.magnitude,
            "mirror_swaps": dict(sorted(self.mirror_swaps.items())),
            "steps": [
                {
                    "transform": step.transform,
                    "parameters": _canonical(step.parameters),
                    "probability": step.probability,
                    "weight": step.weight,
                    "optional": step.optional,
                }
                for step in self.steps
            ],
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Policy:
        """Read what `to_json` gave."""
        steps = tuple(Step(**step) for step in values["steps"])
        return cls(
            steps,
            Mode(values["mode"]),
            bool(values["laterality"]),
            str(values["name"]),
            float(values.get("min_visible_share", DEFAULT_VISIBLE_SHARE)),
            int(values.get("draws", DEFAULT_DRAWS)),
            float(values.get("magnitude", DEFAULT_MAGNITUDE)),
            dict(values.get("mirror_swaps", {})),
        )


def _canonical(value: Any) -> Any:
    """Give JSON values that are equal for equal parameters: 3 and 3.0, a tuple and a list."""
    if isinstance(value, Mapping):
        return {str(name): _canonical(item) for name, item in sorted(value.items())}
    if isinstance(value, (list, tuple)):
        return [_canonical(item) for item in value]
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return value
    return float(value)
