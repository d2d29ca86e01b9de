"""Which points objects of a class have, and how they are joined."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

_SIDES = {"left": "right", "right": "left", "l": "r", "r": "l"}
_WORD = re.compile(r"(?<![a-z])(left|right|l|r)(?![a-z])", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Skeleton:
    """The points that an object of a class can have.

    Parameters
    ----------
    class_name
        The class.
    points
        Names in the order of their numbers, each once; those that are marked nowhere are among them.
    edges
        Pairs of points that are joined, by number from 0.
    """

    class_name: str
    points: tuple[str, ...]
    edges: tuple[tuple[int, int], ...] = ()


def mirror_pairs(names: Iterable[str]) -> dict[str, str]:
    """Give the names that a mirror swaps by their words: "left_eye" and "right_eye", "l_hip" and "r_hip"; each pair once."""
    known = list(dict.fromkeys(names))
    pairs: dict[str, str] = {}
    for name in known:
        other = _WORD.sub(_other_side, name)
        if other != name and other in known and other not in pairs:
            pairs[name] = other
    return pairs


def _other_side(found: re.Match[str]) -> str:
    word = found[0]
    other = _SIDES[word.lower()]
    return other.upper() if word.isupper() else other.capitalize() if word[0].isupper() else other
