"""The file of static tokens of this machine's gateway, or of another's that is to be given it."""

from __future__ import annotations

from pathlib import Path

from oteo_core.errors import OteoError
from oteo_core.tokens import TokenFile, TokenRecord

__all__ = ["OteoError", "TokenFile", "TokenRecord", "open_tokens"]


def open_tokens(home: Path, path: Path | None) -> TokenFile:
    """Give a file of tokens; without a path the one that the gateway of a stack's folder reads."""
    return TokenFile(path or home / "tokens.json")
