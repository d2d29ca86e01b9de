"""Ids of operations: 20 lower-case base32 characters that sort by the time they were made."""

from __future__ import annotations

import re
import secrets
import time

from oteo_core.errors import InvalidArgument

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
"""Crockford's base 32: no i, l, o, u."""
_NAME = re.compile(r"(?:operations/)?([a-z]+-[0-9a-z]{20})")


def new_operation_id(service: str, *, now: float | None = None) -> str:
    """Make an id, ``{service}-{20 characters}``: 50 bits of milliseconds, then 50 random bits.

    Parameters
    ----------
    service
        ``augment``, ``automl``, ``translate`` or ``gateway``.
    now
        Seconds since 1970; the clock's without it.
    """
    milliseconds = int((time.time() if now is None else now) * 1000)
    number = (milliseconds & ((1 << 50) - 1)) << 50 | secrets.randbits(50)
    return f"{service}-" + "".join(_ALPHABET[number >> shift & 31] for shift in range(95, -1, -5))


def operation_name(operation_id: str) -> str:
    """Give the resource name, ``operations/{id}``."""
    return f"operations/{operation_id}"


def operation_id(name: str) -> str:
    """Take the id out of a resource name.

    Raises
    ------
    InvalidArgument
        ``INVALID_NAME``: not the name of an operation.
    """
    found = _NAME.fullmatch(name)
    if not found:
        raise InvalidArgument(
            f"{name!r} is not the name of an operation: operations/{{service}}-{{id}}", reason="INVALID_NAME", field="name"
        )
    return found[1]
