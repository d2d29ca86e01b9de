"""A CSV of files and labels: columns are found by their names, paths are relative to the table."""

from __future__ import annotations

import csv
import posixpath
from collections.abc import Sequence
from dataclasses import dataclass

from oteo_augment.importing.items import Item, Reading
from oteo_augment.importing.paths import ByName, split_of_name, split_of_path, stem
from oteo_augment.importing.source import Source
from oteo_core.datasets import Severity, Task
from oteo_core.errors import InvalidArgument

_FILES = ("file", "path", "image", "filename", "file_name", "filepath", "file_path", "image_path", "image_name", "image_id", "img")
_LABEL = ("label", "class", "category", "target", "diagnosis", "class_name", "label_name")
_LABELS = ("labels", "classes", "tags", "categories")
_SPLIT = ("split", "part", "subset", "set", "fold_name", "partition")
_GROUP = ("group", "patient", "patient_id", "subject", "subject_id", "group_id")
_FRAME = ("frame", "frame_index", "frame_id", "frame_number", "slice", "slice_index")
_TRUE = frozenset({"1", "1.0", "true", "yes"})
_FALSE = frozenset({"0", "0.0", "false", "no", ""})
SEPARATORS = "|;,"
"""What may stand between the classes of one cell; the first that any cell holds is taken."""
_PROBED = 20
_SOME = 200
_LARGEST = 256 << 20


@dataclass(frozen=True)
class _Table:
    """A table whose columns are known: indices, -1 where there is none."""

    path: str
    rows: list[list[str]]
    file: int
    label: int
    labels: int
    one_hot: tuple[tuple[int, str], ...]
    split: int
    group: int
    frame: int


def detect(source: Source) -> str:
    """Tell whether a CSV file names images and their classes."""
    if not source.images:
        return ""
    images = ByName(source.images)
    for path in source.ending_with(".csv", ".tsv")[:_PROBED]:
        table = _open(source, path)
        # Tables of other things lie beside images too: one that speaks of them finds at least some.
        if table is not None and any(_find(_cell(row, table.file), path, images) for row in table.rows[1:_SOME]):
            head = table.rows[0]
            said = (
                head[table.label if table.label >= 0 else table.labels]
                if max(table.label, table.labels) >= 0
                else "a column for each class"
            )
            return f"{path} names images in the column {head[table.file]!r} and their classes in {said!r}"
    return ""


def read(source: Source) -> Reading:
    """Read all tables; rows whose file is missing and files that no row names are reported."""
    images = ByName(source.images)
    items: dict[str, Item] = {}
    tables = [table for path in source.ending_with(".csv", ".tsv") if (table := _open(source, path)) is not None]
    classes: dict[str, None] = {}
    single = True
    for table in tables:
        separator = _separator(table)
        single = single and table.label >= 0
        if table.one_hot:
            classes.update(dict.fromkeys(name for _, name in table.one_hot))
        for number, row in enumerate(table.rows[1:], 2):
            if any(cell.strip() for cell in row):
                _row(table, row, number, separator, images, items, stem(table.path))
    named = {item.path for item in items.values()}
    for path in source.images:
        if path not in named:
            item = items[path] = Item(path, unlabelled=True)
            item.report(Severity.ERROR, "MISSING_ANNOTATION", f"no row of {tables[0].path if tables else 'a table'} names {path}")
    found = list(items.values())
    classes.update(dict.fromkeys(sorted({label for item in found for label in item.labels})))
    single = single and not any(len(item.labels) > 1 for item in found)
    tasks = (Task.CLASSIFICATION, Task.MULTI_LABEL) if single else (Task.MULTI_LABEL,)
    used = frozenset([*(table.path for table in tables), *(item.path for item in found)])
    return Reading(found, tuple(classes), tasks, used)


def _row(table: _Table, row: Sequence[str], number: int, separator: str, images: ByName, items: dict[str, Item], name: str) -> None:
    where = f"row {number} of {table.path}"
    named = _cell(row, table.file)
    if not named:
        key = f"{table.path}#row={number}"
        items[key] = Item(key, missing=True)
        items[key].report(Severity.ERROR, "MISSING_IMAGE", f"{where} names no file", table.path)
        return
    path = _find(named, table.path, images)
    labels = _labels(table, row, separator)
    cell = _cell(row, table.frame)
    frame = int(cell) if cell.isdecimal() else -1
    if cell and frame < 0:
        odd = items[f"{table.path}#row={number}"] = Item(f"{table.path}#row={number}", missing=True)
        odd.report(Severity.ERROR, "BAD_ANNOTATION", f"{where} names the frame {cell!r}; a number from 0 is wanted", table.path)
        return
    key = f"{path or named}#frame={frame}" if frame >= 0 else path or named
    item = items.get(key)
    if item is None:
        split = split_of_name(_cell(row, table.split)) or split_of_name(name) or split_of_path(path)
        item = items[key] = Item(path or named, missing=not path, split=split, group=_cell(row, table.group), frame=frame)
        if not path:
            item.report(Severity.ERROR, "MISSING_IMAGE", f"{where} names {named}, which is not in the source", table.path)
        item.labels = labels
    elif table.label >= 0 and labels and item.labels and labels != item.labels:
        item.unlabelled = True
        item.report(
            Severity.ERROR,
            "BAD_ANNOTATION",
            f"{where} gives {named} the class {labels[0]!r}, a row before it {item.labels[0]!r}; one of them is wrong",
            table.path,
        )
    else:
        item.labels += [label for label in labels if label not in item.labels]
    if table.one_hot:
        wrong = [f"{cell!r} for {label!r}" for index, label in table.one_hot if (cell := _cell(row, index)).lower() not in _TRUE | _FALSE]
        if wrong:
            item.report(Severity.ERROR, "BAD_ANNOTATION", f"{where} has {', '.join(wrong[:3])}; 0 or 1 is wanted", table.path)


def _labels(table: _Table, row: Sequence[str], separator: str) -> list[str]:
    if table.label >= 0:
        label = _cell(row, table.label)
        return [label] if label else []
    if table.labels >= 0:
        cell = _cell(row, table.labels)
        return list(dict.fromkeys(part.strip() for part in (cell.split(separator) if separator else [cell]) if part.strip()))
    return [label for index, label in table.one_hot if _cell(row, index).lower() in _TRUE]


def _separator(table: _Table) -> str:
    if table.labels < 0:
        return ""
    return next((letter for letter in SEPARATORS if any(letter in _cell(row, table.labels) for row in table.rows[1:])), "")


def _find(named: str, table: str, images: ByName) -> str:
    """Give the image that a cell means: relative to the table, else by its path's last parts."""
    beside = posixpath.normpath(posixpath.join(table.rpartition("/")[0], named.replace("\\", "/"))).lstrip("./")
    return images.find(beside, near=table) if named else ""


def _cell(row: Sequence[str], index: int) -> str:
    return row[index].strip() if 0 <= index < len(row) else ""


def _open(source: Source, path: str) -> _Table | None:
    """Read a table; None for one that does not name files and classes."""
    if source.files[path].size > _LARGEST:
        return None
    try:
        text = source.read(path).decode("utf-8-sig")
    except UnicodeDecodeError:
        text = source.read(path).decode("latin-1")
    first = text.partition("\n")[0]
    delimiter = max(",;\t", key=first.count)
    try:
        rows = list(csv.reader(text.splitlines(keepends=True), delimiter=delimiter))
    except csv.Error as exc:
        raise InvalidArgument(f"{path} is no table: {exc}", reason="BAD_ANNOTATION_FILE", field="source_uri") from exc
    if len(rows) < 2:
        return None
    head = [name.strip().lower() for name in rows[0]]
    file = _column(head, _FILES)
    if file < 0:
        return None
    label, labels, split, group, frame = (_column(head, names) for names in (_LABEL, _LABELS, _SPLIT, _GROUP, _FRAME))
    one_hot: tuple[tuple[int, str], ...] = ()
    if label < 0 and labels < 0:
        rest = [index for index in range(len(head)) if index not in (file, split, group, frame) and head[index]]
        one_hot = tuple((index, rows[0][index].strip()) for index in rest if _is_flag(rows[1:], index))
        if len(one_hot) < 2:
            return None
    return _Table(path, rows, file, label, -1 if label >= 0 else labels, one_hot, split, group, frame)


def _column(head: Sequence[str], names: Sequence[str]) -> int:
    return next((head.index(name) for name in names if name in head), -1)


def _is_flag(rows: Sequence[Sequence[str]], index: int) -> bool:
    """Tell whether a column is one class's: most of its cells are 0 or 1, and some is."""
    cells = [_cell(row, index).lower() for row in rows]
    fits = sum(cell in _TRUE | _FALSE for cell in cells)
    return any(cells) and fits * 4 >= len(cells) * 3
