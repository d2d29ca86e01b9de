"""What folder and file names say."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePosixPath

_SPLITS = {
    "train": "train", "training": "train", "trn": "train",
    "val": "validation", "valid": "validation", "validation": "validation", "dev": "validation",
    "test": "test", "testing": "test", "tst": "test",
}  # fmt: skip
_UNFIT = re.compile(r"[^A-Za-z0-9_-]+")
_DIGITS = re.compile(r"(\d+)")
_TOKENS = re.compile(r"[^a-z]+")


def split_of_name(name: str) -> str:
    """Give the part that a folder's whole name stands for, or ""."""
    return _SPLITS.get(name.lower(), "")


def split_of_words(name: str) -> str:
    """Give the part that a word of a name stands for ("instances_train2017" is training), or ""."""
    found = {_SPLITS[word] for word in _TOKENS.split(name.lower()) if word in _SPLITS}
    return found.pop() if len(found) == 1 else ""


def split_of_path(path: str) -> str:
    """Give the part that one of a path's folders stands for, the innermost first, or ""."""
    for part in reversed(path.split("/")[:-1]):
        if found := split_of_name(part):
            return found
    return ""


def stem(path: str) -> str:
    """Give a file's name without folders and ending."""
    # By hand: called for every file several times, where pathlib takes longer than all else.
    name = path.rpartition("/")[2]
    if name.lower().endswith(".nii.gz"):
        name = name[:-3]
    plain, dot, _ = name.rpartition(".")
    return plain if dot and plain else name


def plain_name(path: str) -> str:
    """Give a file's name as ids may have it: letters, digits, "_" and "-", 48 at most; "" where nothing is left."""
    return _UNFIT.sub("-", stem(path)).strip("-")[:48]


def natural(path: str) -> list[tuple[bool, int, str]]:
    """Give a key by which slice-10 comes after slice-9."""
    return [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in _DIGITS.split(path)]


class ByName:
    """Finds the file that an annotation means by a path that may be from another machine.

    Parameters
    ----------
    paths
        Files of the source.
    """

    def __init__(self, paths: Iterable[str]) -> None:
        self._paths = set(paths)
        self._by_name: dict[str, list[str]] = {}
        for path in sorted(self._paths):
            self._by_name.setdefault(PurePosixPath(path).name.lower(), []).append(path)

    def find(self, named: str, near: str = "", split: str = "") -> str:
        """Give the path that `named` means, or "".

        Parameters
        ----------
        named
            Path or file name as the annotation has it; either slash.
        near
            Path of the annotation file: among several candidates the one nearest to it wins.
        split
            Part that the annotation file speaks of: candidates of another part are left aside.
        """
        clean = named.replace("\\", "/").lstrip("./")
        if clean in self._paths:
            return clean
        candidates = self._by_name.get(PurePosixPath(clean).name.lower(), [])
        if not candidates:
            return ""
        if split:
            candidates = [c for c in candidates if split_of_path(c) in ("", split)] or candidates
        wanted = PurePosixPath(clean.lower()).parts[::-1]
        return max(
            candidates, key=lambda c: (_shared(PurePosixPath(c.lower()).parts[::-1], wanted), _shared(c.split("/"), near.split("/")), c)
        )


def _shared(left: Iterable[str], right: Iterable[str]) -> int:
    count = 0
    for one, other in zip(left, right, strict=False):
        if one != other:
            break
        count += 1
    return count
