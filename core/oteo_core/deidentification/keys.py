"""The key, and what is made with it: every name, identifier and shift that stands for what a header says is an HMAC (RFC 2104, SHA-256).

Whoever lacks the key cannot tell from a hash what it stands for, not even by trying all names and numbers there are.
"""

from __future__ import annotations

import base64
import contextlib
import hmac
import os
import secrets
import tempfile
import uuid
from pathlib import Path

from pydicom.uid import UID_dictionary

from oteo_core.errors import FailedPrecondition

_LEAST = 32
_MOST_DAYS = 3650


def load_key(path: Path) -> bytes:
    """Give the key that a file holds; make the file, readable by its owner alone, where there is none.

    Raises
    ------
    FailedPrecondition
        BAD_DEIDENTIFICATION_KEY: the file holds fewer than 32 characters, or cannot be read or made.
    """
    path = path.expanduser()
    try:
        if not path.exists():
            _make(path)
        key = path.read_bytes().strip()
    except OSError as exc:
        raise FailedPrecondition(
            f"the de-identification key {path} cannot be read or made: {exc.strerror}", reason="BAD_DEIDENTIFICATION_KEY"
        ) from exc
    if len(key) < _LEAST:
        raise FailedPrecondition(
            f"the de-identification key {path} has {len(key)} characters; at least {_LEAST} are needed", reason="BAD_DEIDENTIFICATION_KEY"
        )
    return key


def _make(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Whole or not at all, and the first of two processes wins: both then read the same key. A temporary file is the owner's alone (0600).
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".key-")
    try:
        with os.fdopen(descriptor, "w") as stream:
            stream.write(secrets.token_hex(32) + "\n")
        with contextlib.suppress(FileExistsError):
            os.link(name, path)
    finally:
        os.unlink(name)


def derived(key: bytes, purpose: str, *words: str) -> bytes:
    """Give a key (32 bytes) for one purpose, so that hashes made for one cannot be held against those made for another."""
    return hmac.digest(key, "\0".join(("oteo-deidentification", purpose, *words)).encode(), "sha256")


def pseudonym(key: bytes, purpose: str, value: str, length: int = 16) -> str:
    """Give `length` characters a-z, 2-7 (5 bits each) that stand for a value."""
    digest = hmac.digest(derived(key, purpose), value.encode("utf-8", "surrogateescape"), "sha256")
    return base64.b32encode(digest).decode().lower()[:length]


def hashed_uid(key: bytes, uid: str) -> str:
    """Give the UID that stands for another: 2.25 and a UUID (PS3.5 B.2) whose bits are a keyed hash; UIDs that the standard registers stay."""
    uid = uid.strip("\0 ")
    if not uid or uid in UID_dictionary:
        return uid
    digest = hmac.digest(derived(key, "uid"), uid.encode("utf-8", "surrogateescape"), "sha256")
    return f"2.25.{uuid.UUID(bytes=digest[:16], version=4).int}"


def shift_of(key: bytes, patient: str) -> int:
    """Give the days, -3650 to -1, by which all dates of a patient move: distances between a patient's dates stay what they are."""
    digest = hmac.digest(derived(key, "dates"), patient.encode("utf-8", "surrogateescape"), "sha256")
    return -1 - int.from_bytes(digest[:8], "big") % _MOST_DAYS
