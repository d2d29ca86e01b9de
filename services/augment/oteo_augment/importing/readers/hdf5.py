"""HDF5 files of pictures, as `oteo_augment.importing.hdf5` has opened them."""

from __future__ import annotations

import json
from typing import Any

from oteo_augment.importing.hdf5 import LIST
from oteo_augment.importing.items import Item, Reading
from oteo_augment.importing.paths import split_of_name
from oteo_augment.importing.source import Source
from oteo_core.datasets import Severity, Task


def detect(source: Source) -> str:
    """Tell whether the source was HDF5."""
    return "HDF5 data sets of pictures were found" if LIST in source.files else ""


def read(source: Source) -> Reading:
    """Read the list that lies beside the pictures; masks are the natural task where they are."""
    content: dict[str, Any] = json.loads(source.read(LIST))
    names: list[str] = content["classes"]
    items = []
    for row in content["rows"]:
        item = Item(row["file"], split=split_of_name(row["part"]), group=row["group"], mask=row.get("mask", ""))
        item.labels = [names[number] for number in row["labels"] or ()]
        if row["labels"] is None and not item.mask:
            item.unlabelled = True
            item.report(Severity.ERROR, "MISSING_ANNOTATION", "no data set of labels or masks belongs to its pictures")
        items.append(item)
    tasks: tuple[str, ...] = ()
    if any(item.mask for item in items):
        tasks = (Task.SEMANTIC, Task.INSTANCE)
    if any(item.labels for item in items) or not tasks:
        tasks += (Task.MULTI_LABEL,) if content["multiple"] else (Task.CLASSIFICATION, Task.MULTI_LABEL)
    numbers = tuple((int(value), str(name)) for value, name in content["mask_numbers"])
    used = frozenset([LIST, *(item.path for item in items), *(item.mask for item in items if item.mask)])
    return Reading(items, tuple(names), tasks, used, numbers)
