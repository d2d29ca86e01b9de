"""Calls that end at once and must not be made twice: the same request_id from the same caller is answered as the first time (AIP-155)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

from google.protobuf.message import Message

from oteo_core import context as call_context
from oteo_core.artifacts import ArtifactStore

_FOLDER = "requests"


def request_digest(request: Message, *without: str) -> str:
    """Give the SHA-256 (lower-case hexadecimal) of all that a request asks for, but for some of its fields: two calls of equal digests ask the same."""
    bare = type(request)()
    bare.CopyFrom(request)
    for field in without:
        bare.ClearField(field)
    return hashlib.sha256(bare.SerializeToString(deterministic=True)).hexdigest()


@contextmanager
def once(artifacts: ArtifactStore, method: str, request_id: str, name: str) -> Iterator[bool]:
    """Give whether the call's work is still to be done, and note that it was when the block ends without an error.

    Parameters
    ----------
    artifacts
        Where calls that were made are noted.
    method, name
        Of the call, and of what it works on.
    request_id
        The caller's; empty: it is always to be done, and nothing is noted.
    """
    if not request_id:
        yield True
        return
    key = hashlib.sha256(f"{call_context.current().caller}/{method}/{request_id}/{name}".encode()).hexdigest()
    note = f"{_FOLDER}/{key[:32]}"
    if artifacts.is_file(note):
        yield False
        return
    yield True
    artifacts.write_bytes(note, name.encode())
