"""A transform's parameters: their types, ranges, units and defaults, how a given value is checked, and their JSON schema."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from oteo_core.errors import InvalidArgument


class Kind(StrEnum):
    """What a parameter's value is."""

    RANGE = "range"
    """Two numbers, [lowest, highest], between which every draw is made."""
    INTEGER_RANGE = "integer_range"
    """Two whole numbers, [lowest, highest], both of which may be drawn."""
    NUMBER = "number"
    """A number."""
    INTEGER = "integer"
    """A whole number."""
    INTEGER_PAIR = "integer_pair"
    """Two whole numbers of their own, such as rows and columns."""
    CHOICE = "choice"
    """One of some words."""
    FLAG = "flag"
    """True or false."""


_PAIRS = (Kind.RANGE, Kind.INTEGER_RANGE, Kind.INTEGER_PAIR)
_WHOLE = (Kind.INTEGER, Kind.INTEGER_RANGE, Kind.INTEGER_PAIR)


@dataclass(frozen=True)
class Parameter:
    """One parameter of a transform.

    Attributes
    ----------
    kind
        What its value is.
    default
        The value where none is given: a tuple for pairs.
    description
        What it does, without a stop at the end.
    minimum, maximum
        Smallest and largest number allowed, both themselves allowed; None: no bound.
    unit
        Unit of the numbers; empty where they have none.
    choices
        The words of a choice.
    odd
        True if only odd whole numbers are allowed, as for the side of a kernel.
    """

    kind: Kind
    default: Any
    description: str = ""
    minimum: float | None = None
    maximum: float | None = None
    unit: str = ""
    choices: tuple[str, ...] = ()
    odd: bool = False

    def check(self, value: Any, name: str) -> Any:
        """Give a value as the transform takes it: JSON's lists as tuples, whole numbers as int.

        Parameters
        ----------
        value
            As it was given, by Python or by JSON.
        name
            The parameter's name, for messages.

        Raises
        ------
        InvalidArgument
            BAD_PARAMETER with field ``parameters.NAME``.
        """
        if self.kind is Kind.FLAG:
            if not isinstance(value, bool):
                raise self._bad(value, name, "true or false")
            return value
        if self.kind is Kind.CHOICE:
            if value not in self.choices:
                raise self._bad(value, name, f"one of {', '.join(self.choices)}")
            return value
        if self.kind not in _PAIRS:
            return self._number(value, value, name)
        if isinstance(value, str) or not isinstance(value, Sequence) or len(value) != 2:
            raise self._bad(
                value, name, f"two {self._numbers}: [{'first, second' if self.kind is Kind.INTEGER_PAIR else 'lowest, highest'}]"
            )
        low, high = (self._number(one, value, name) for one in value)
        if self.kind is not Kind.INTEGER_PAIR and low > high:
            raise self._bad(value, name, "the lower number first")
        return low, high

    def schema(self) -> dict[str, Any]:
        """Give its JSON schema (draft 2020-12), with the unit in the description."""
        told = f"{self.description} ({self.unit})" if self.unit else self.description
        default = list(self.default) if isinstance(self.default, tuple) else self.default
        if self.kind is Kind.FLAG:
            return {"type": "boolean", "default": default, "description": told}
        if self.kind is Kind.CHOICE:
            return {"type": "string", "enum": list(self.choices), "default": default, "description": told}
        number: dict[str, Any] = {"type": "integer" if self.kind in _WHOLE else "number"}
        if self.minimum is not None:
            number["minimum"] = self.minimum
        if self.maximum is not None:
            number["maximum"] = self.maximum
        if self.kind not in _PAIRS:
            return {**number, "default": default, "description": told}
        return {"type": "array", "items": number, "minItems": 2, "maxItems": 2, "default": default, "description": told}

    @property
    def allowed(self) -> str:
        """Say in words which numbers are allowed; empty for words and flags."""
        if self.minimum is not None and self.maximum is not None:
            told = f"{self.minimum:g} to {self.maximum:g}"
        elif self.minimum is not None:
            told = f"{self.minimum:g} or more"
        elif self.maximum is not None:
            told = f"{self.maximum:g} or less"
        else:
            return ""
        return f"{told}, odd" if self.odd else told

    @property
    def _numbers(self) -> str:
        return "whole numbers" if self.kind in _WHOLE else "numbers"

    def _number(self, one: Any, value: Any, name: str) -> float | int:
        # bool is an int to Python, and NaN compares as neither too small nor too large.
        if isinstance(one, bool) or not isinstance(one, (int, float)) or not math.isfinite(one):
            raise self._bad(value, name, self._numbers if self.kind in _PAIRS else f"a {self._numbers.removesuffix('s')}")
        if self.kind in _WHOLE:
            if one != int(one):
                raise self._bad(value, name, self._numbers if self.kind in _PAIRS else "a whole number")
            one = int(one)
        number: float | int = one
        below = self.minimum is not None and number < self.minimum
        above = self.maximum is not None and number > self.maximum
        if below or above or (self.odd and number % 2 == 0):
            raise self._bad(value, name, f"{self.allowed}{f' {self.unit}' if self.unit else ''}")
        return number

    def _bad(self, value: Any, name: str, wanted: str) -> InvalidArgument:
        told = list(value) if isinstance(value, tuple) else value
        return InvalidArgument(f"{name} is {told!r}: give {wanted}", reason="BAD_PARAMETER", field=f"parameters.{name}")


def span(
    low: float, high: float, description: str, minimum: float | None = None, maximum: float | None = None, unit: str = ""
) -> Parameter:
    """Give a `Kind.RANGE`: the default's ends, then the bounds."""
    return Parameter(Kind.RANGE, (float(low), float(high)), description, minimum, maximum, unit)


def whole_span(
    low: int, high: int, description: str, minimum: int | None = None, maximum: int | None = None, unit: str = "", *, odd: bool = False
) -> Parameter:
    """Give a `Kind.INTEGER_RANGE`: the default's ends, then the bounds."""
    return Parameter(Kind.INTEGER_RANGE, (low, high), description, minimum, maximum, unit, odd=odd)


def number(default: float, description: str, minimum: float | None = None, maximum: float | None = None, unit: str = "") -> Parameter:
    """Give a `Kind.NUMBER`."""
    return Parameter(Kind.NUMBER, float(default), description, minimum, maximum, unit)


def whole(
    default: int, description: str, minimum: int | None = None, maximum: int | None = None, unit: str = "", *, odd: bool = False
) -> Parameter:
    """Give a `Kind.INTEGER`."""
    return Parameter(Kind.INTEGER, default, description, minimum, maximum, unit, odd=odd)


def whole_pair(
    first: int, second: int, description: str, minimum: int | None = None, maximum: int | None = None, unit: str = ""
) -> Parameter:
    """Give a `Kind.INTEGER_PAIR`."""
    return Parameter(Kind.INTEGER_PAIR, (first, second), description, minimum, maximum, unit)


def choice(default: str, choices: tuple[str, ...], description: str) -> Parameter:
    """Give a `Kind.CHOICE`."""
    return Parameter(Kind.CHOICE, default, description, choices=choices)


def flag(default: bool, description: str) -> Parameter:
    """Give a `Kind.FLAG`."""
    return Parameter(Kind.FLAG, default, description)
