"""File and folder names that people know again, and that are unique on every file system."""

from __future__ import annotations

import re

from oteo_augment.importing.paths import stem

_UNFIT = re.compile(r"""[\s\\/:*?"<>|\x00-\x1f\x7f]+""")
_LONGEST = 120


def clean(name: str, default: str = "unnamed") -> str:
    """Give a name without white space, control characters and what Windows forbids; it neither begins nor ends with a dot."""
    plain = _UNFIT.sub("_", name).strip(".")
    # 255 bytes are what file systems take; an ending and a number come on top.
    while len(plain.encode()) > _LONGEST:
        plain = plain[:-1]
    return plain or default


class Names:
    """Gives each sample a stem of its own within a scope; upper and lower case count as equal.

    The first sample of a name keeps it. A later one has its folder's name set before it, and a number behind where that is taken too, so that
    names depend on the order of samples alone.
    """

    def __init__(self) -> None:
        self._taken: dict[str, set[str]] = {}

    def give(self, source_path: str, scope: str = "") -> str:
        """Give the stem for a file that lies at `source_path` in the source.

        Parameters
        ----------
        source_path
            Path inside the source.
        scope
            Folder in which names must differ.
        """
        taken = self._taken.setdefault(scope, set())
        plain = clean(stem(source_path))
        folder = source_path.rpartition("/")[0].rpartition("/")[2]
        base = plain if plain.lower() not in taken or not folder else f"{clean(folder)}_{plain}"
        name, number = base, 2
        while name.lower() in taken:
            name, number = f"{base}-{number}", number + 1
        taken.add(name.lower())
        return name


def ending(path: str) -> str:
    """Give a media file's ending with its dot, or ""."""
    name = path.rpartition("/")[2]
    return f".{name.rpartition('.')[2]}" if "." in name else ""
