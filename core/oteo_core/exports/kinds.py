"""Archives by their names."""

from __future__ import annotations

_ENDINGS = {
    ".zip": "zip",
    ".tar": "tar",
    ".tar.gz": "tar",
    ".tgz": "tar",
    ".tar.bz2": "tar",
    ".tbz2": "tar",
    ".tar.xz": "tar",
    ".txz": "tar",
}


def archive_kind(name: str) -> str:
    """Tell by its name whether a file is an archive: "zip", "tar" or ""."""
    lower = name.lower()
    return next((kind for ending, kind in _ENDINGS.items() if lower.endswith(ending)), "")
