"""One way to write a record as JSON, so that the same record is always the same bytes.

Source: RFC 8785 (JSON Canonicalization Scheme): no white space, keys sorted, the shortest escapes, UTF-8. Numbers are whole ones of at most 53 bits
and keys are ASCII here, which leaves out the parts of the scheme that need care: how fractions are written, and sorting by UTF-16 units.
"""

from __future__ import annotations

import json
from typing import Any

LARGEST = 2**53 - 1
"""Largest whole number that every reader of JSON holds exactly."""

_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"))


def canonical(value: dict[str, Any]) -> bytes:
    """Give the canonical bytes of an object.

    Raises
    ------
    ValueError
        A value that has no canonical form here: a fraction, a number beyond 53 bits, a key that is not ASCII, a lone surrogate.
    """
    _check(value)
    return encode(value)


def encode(value: dict[str, Any]) -> bytes:
    """Give the bytes of an object that is known to have a canonical form."""
    return _ENCODER.encode(value).encode("utf-8", "strict")


def _check(value: object) -> None:
    if isinstance(value, str) or value is None or isinstance(value, bool):
        return
    if isinstance(value, int):
        if abs(value) > LARGEST:
            raise ValueError(f"{value} has more than 53 bits")
    elif isinstance(value, dict):
        for key, item in value.items():
            if not (isinstance(key, str) and key.isascii()):
                raise ValueError(f"{key!r} is no key of canonical JSON here")
            _check(item)
    elif isinstance(value, list | tuple):
        for item in value:
            _check(item)
    else:
        raise ValueError(f"{type(value).__name__} has no canonical form here")  # noqa: TRY004 - one error for whatever cannot be written
