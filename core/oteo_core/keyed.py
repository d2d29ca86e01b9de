"""Keyed hashes: what stands for an identifier, the same each time, and tells nothing to who has not the key."""

from __future__ import annotations

import hmac

SHORT = 24


def keyed_hash(secret: bytes, word: str, length: int = SHORT) -> str:
    """Give the first `length` hexadecimal digits of a word's HMAC-SHA-256; "" for an empty word or without a key."""
    return hmac.digest(secret, word.encode(), "sha256").hex()[:length] if word and secret else ""
