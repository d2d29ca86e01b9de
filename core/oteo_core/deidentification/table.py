"""PS3.15 table E.1-1: what becomes of an attribute.

`profile.json` is made by ``tools/deidentification_table.py`` and says where each column comes from.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources

_UNKNOWN = 1
"""What is assumed of an attribute whose type is not known: that a value is needed. A dummy says no more than an absence."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A row of the table.

    Parameters
    ----------
    basic
        The Basic Profile's action: X, Z, D, U or several, of which the type of the attribute in its object chooses.
    options
        Actions by the column of an option.
    types
        By SOP class, what its object needs: 1 a value, 2 at least the empty attribute.
    """

    basic: str
    options: Mapping[str, str] = field(default_factory=dict)
    types: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Table:
    """The whole table: rules by tag, those of repeating groups by pattern, and the SOP classes whose types are known."""

    rules: Mapping[int, Rule]
    patterns: tuple[tuple[int, int, Rule], ...]
    sop_classes: frozenset[str]
    source: Mapping[str, str]

    def find(self, tag: int) -> Rule | None:
        """Give an attribute's rule; None where the table does not name it."""
        found = self.rules.get(tag)
        return found or next((rule for mask, value, rule in self.patterns if tag & mask == value), None)

    def action(self, rule: Rule, columns: Sequence[str], sop_class: str, nested: bool) -> str:
        """Choose the one action of a rule.

        Parameters
        ----------
        rule
            The attribute's.
        columns
            Options that were chosen. Where two speak of an attribute the one that keeps it holds.
        sop_class
            Of the object.
        nested
            True inside a sequence, where the attribute's type is not known.

        Returns
        -------
        str
            "K" keep, "C" clean, "X" remove, "Z" empty, "D" dummy, "U" replace UIDs.
        """
        chosen = {rule.options[name] for name in columns if name in rule.options}
        for action in ("K", "C"):
            if action in chosen:
                return action
        if "/" not in rule.basic:
            return rule.basic
        known = not nested and sop_class in self.sop_classes
        needed = rule.types.get(sop_class, 3) if known else _UNKNOWN
        possible = rule.basic.rstrip("*").split("/")
        if needed == 3 or (needed == 2 and "Z" in possible):
            return "X" if needed == 3 and "X" in possible else "Z"
        return possible[-1]


@functools.cache
def table() -> Table:
    """Read the table; once."""
    raw = json.loads(resources.files(__package__).joinpath("profile.json").read_text())
    sop_classes = raw["sop_classes"]
    rules: dict[int, Rule] = {}
    patterns = []
    for tag, row in raw["attributes"].items():
        types = {sop_classes[index]: int(kind) for kind, indices in row.get("types", {}).items() for index in indices}
        rule = Rule(row["basic"], {name: row[name] for name in row if name not in ("keyword", "basic", "types")}, types)
        if "x" in tag:
            mask = int("".join("0" if digit == "x" else "f" for digit in tag), 16)
            patterns.append((mask, int(tag.replace("x", "0"), 16), rule))
        else:
            rules[int(tag, 16)] = rule
    return Table(rules, tuple(patterns), frozenset(sop_classes), raw["source"])
