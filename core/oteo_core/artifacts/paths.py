"""Paths inside a store: relative, "/"-separated, unable to leave the root."""

from __future__ import annotations

from oteo_core.errors import InvalidArgument

TEMPORARY_PREFIX = ".oteo-tmp-"
"""Names that begin so are files being written; no listing shows them."""


def check_path(path: str, *, allow_root: bool = False) -> str:
    """Check a path inside a store and give it without a trailing slash.

    Parameters
    ----------
    path
        Relative, "/"-separated.
    allow_root
        Whether the empty path, the root itself, is accepted.

    Raises
    ------
    InvalidArgument
        ``UNSAFE_PATH``: absolute, with ``..``, ``.`` or empty parts, a backslash or a control character.
    """
    trimmed = path.removesuffix("/")
    if not trimmed:
        if allow_root and not path:
            return ""
        raise InvalidArgument("a path inside the artifact store must not be empty", reason="UNSAFE_PATH", field="path")
    parts = trimmed.split("/")
    if (
        any(part in ("", ".", "..") for part in parts)
        or "\\" in trimmed
        or any(ord(letter) < 32 or ord(letter) == 127 for letter in trimmed)
    ):
        raise InvalidArgument(
            f"{path!r} is not a safe path: it must be relative, with '/' between its parts, and without '.', '..' or empty parts",
            reason="UNSAFE_PATH",
            field="path",
        )
    return trimmed


def join(*parts: str) -> str:
    """Join parts of a path, leaving out empty ones."""
    return "/".join(part.strip("/") for part in parts if part.strip("/"))
