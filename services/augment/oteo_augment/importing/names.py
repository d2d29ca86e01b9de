"""Names that stand for names: files and folders beside DICOM are often called after patients, so that their names are kept as keyed hashes.

What a dataset needs of a path stays in it: folders that are a class or a part, and the ending. Nothing else does. The same name gives the same
hash within an import, so that files of one folder stay together; another import has another key.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from oteo_augment.importing.items import Item, Reading
from oteo_augment.importing.options import ImportOptions
from oteo_augment.importing.paths import split_of_name
from oteo_augment.importing.scanned import Scanned
from oteo_augment.importing.source import IMAGE_ENDINGS, Source
from oteo_core.datasets import Finding
from oteo_core.deidentification.keys import pseudonym
from oteo_core.errors import OteoError

_TOKENS = re.compile(r"[^\s'\"`,;:()<>|]+")
_ANNOTATIONS = frozenset({".csv", ".tsv", ".json", ".jsonl", ".xml", ".txt", ".yaml", ".yml", ".npz", ".h5", ".tar", ".zip", ".pdf"})
_LENGTH = 12
_MOST_SPACED = 1000
"""Names with spaces that are looked for in every text; each costs a pass over it."""


class Names:
    """Hidden names of one import, and the way back, which is in memory alone.

    Parameters
    ----------
    key
        Of the hashes; b"": nothing is hidden, and every method gives back what it is given.
    words
        Names of folders that stay: classes.
    """

    def __init__(self, key: bytes, words: Iterable[str] = ()) -> None:
        self._key = key
        self._words = frozenset(words)
        self._hidden: dict[str, str] = {}
        self._shown: dict[str, str] = {}
        self._parts: dict[str, str] = {}
        self._spaced: list[str] = []
        """Names that are more than one token of a text."""

    def __bool__(self) -> bool:
        """Whether anything is hidden."""
        return bool(self._key)

    def hide(self, path: str) -> str:
        """Give the path that stands for a path; a slash at its end stays."""
        if not self._key:
            return path
        found = self._hidden.get(path)
        if found is None:
            folders, _, name = path.rpartition("/")
            parts = [self._folder(part) for part in folders.split("/")] if folders else []
            found = "/".join([*parts, self._file(name)] if "/" in path else [self._file(name)])
            self._hidden[path], self._shown[found] = found, path
        return found

    def show(self, hidden: str) -> str:
        """Give the path that a hidden one stands for."""
        return self._shown.get(hidden, hidden)

    def group(self, name: str) -> str:
        """Give the name that stands for that of a group; "" stays."""
        return f"group-{pseudonym(self._key, 'group', name, _LENGTH)}" if name and self._key else name

    def text(self, text: str) -> str:
        """Give a text in which the paths, files and folders that were hidden so far are hidden too."""
        if not self._key or not text:
            return text
        for name in self._spaced:
            text = text.replace(name, self._hidden.get(name) or self._parts[name])
        return _TOKENS.sub(lambda match: self._token(match.group(0)), text)

    def error(self, error: OteoError) -> OteoError:
        """Give an error whose message names no file by its own name."""
        if not self._key:
            return error
        return type(error)(
            self.text(error.message), reason=error.reason, field=error.field, metadata=error.metadata, retry_after=error.retry_after
        )

    def row(self, row: Scanned) -> None:
        """Hide the names of a scanned row."""
        row.message, row.note = self.text(row.message), self.text(row.note)
        row.path = self.hide(row.path)

    def reading(self, reading: Reading) -> None:
        """Hide the names of all that a reader found."""
        for item in reading.items if self._key else ():
            self._item(item)

    def _item(self, item: Item) -> None:
        path, mask = item.path, item.mask
        item.path, item.mask = self.hide(path), self.hide(mask) if mask else ""
        item.group = self.group(item.group)
        item.findings = [self._finding(one, {path: item.path, mask: item.mask}) for one in item.findings]

    def _finding(self, one: Finding, known: dict[str, str]) -> Finding:
        message = one.message
        for path, hidden in known.items():
            for plain, covered in ((path, hidden), (path.rpartition("/")[2], hidden.rpartition("/")[2])):
                if plain:
                    message = message.replace(plain, covered)
        return Finding(
            one.severity, one.code, self.text(message), self.hide(one.path) if one.path not in known.values() else one.path, one.related
        )

    def _folder(self, name: str) -> str:
        if not name or name in self._words or split_of_name(name):
            return name
        return self._part(name, "")

    def _file(self, name: str) -> str:
        if not name:
            return ""
        lower = name.lower()
        dot = lower.rfind(".")
        ending = ".nii.gz" if lower.endswith(".nii.gz") else lower[dot:] if dot > 0 and lower[dot:] in IMAGE_ENDINGS | _ANNOTATIONS else ""
        return self._part(name, ending)

    def _part(self, name: str, ending: str) -> str:
        found = self._parts.get(name)
        if found is None:
            found = self._parts[name] = pseudonym(self._key, "name", name, _LENGTH) + ending
            if _TOKENS.fullmatch(name) is None and len(self._spaced) < _MOST_SPACED:
                self._spaced.append(name)
        return found

    def _token(self, token: str) -> str:
        plain = token.rstrip(".")
        for known in (token, plain):
            if known in self._hidden or known in self._parts:
                return (self._hidden.get(known) or self._parts[known]) + token[len(known) :]
        if "/" in plain:
            return "/".join(self._parts.get(part, part) for part in plain.split("/")) + token[len(plain) :]
        return token


def names_of(source: Source, reading: Reading | None, options: ImportOptions, key: bytes) -> Names:
    """Give the names of a source whose files may be called after patients: all its files are hidden, classes are not.

    Parameters
    ----------
    source
        All files.
    reading
        What a reader made of it; None: nothing yet, so that only classes that the caller names are known.
    options
        `keep_names` and the caller's classes.
    key
        Of the hashes; b"" for a source without DICOM.
    """
    if options.keep_names or not key or (reading is not None and reading.stored is not None):
        return Names(b"")
    classes = {*options.classes}
    if reading is not None:
        classes |= {*reading.classes} | {label for item in reading.items for label in item.labels}
    made = Names(key, classes)
    for path in source.files:
        made.hide(path)
    for item in reading.items if reading is not None else ():
        for path in (item.path, item.mask):
            if path:
                made.hide(path)
    return made
