"""NumPy archives in MedMNIST's form, as `oteo_augment.importing.arrays` has opened them."""

from __future__ import annotations

import json

from oteo_augment.importing.arrays import LIST
from oteo_augment.importing.items import Item, Reading
from oteo_augment.importing.paths import split_of_name
from oteo_augment.importing.source import Source
from oteo_core.datasets import Severity, Task


def detect(source: Source) -> str:
    """Tell whether the source was a NumPy archive of pictures."""
    lists = _lists(source)
    return (
        f"NumPy arrays train_images, train_labels and their like were found ({len(lists)} archive{'s' if len(lists) > 1 else ''})"
        if lists
        else ""
    )


def read(source: Source) -> Reading:
    """Read the lists that lie beside the pictures."""
    items: list[Item] = []
    classes: dict[str, None] = {}
    multiple = False
    for path in _lists(source):
        content = json.loads(source.read(path))
        names: list[str] = content["classes"]
        classes.update(dict.fromkeys(names))
        multiple = multiple or content["multiple"]
        folder = path.rpartition("/")[0]
        for file, part, numbers in content["rows"]:
            item = Item(f"{folder}/{file}", labels=[names[number] for number in numbers], split=split_of_name(part))
            if not numbers and not content["multiple"]:
                item.unlabelled = True
                item.report(Severity.ERROR, "MISSING_ANNOTATION", f"the archive has no array {part}_labels")
            items.append(item)
    tasks = (Task.MULTI_LABEL,) if multiple else (Task.CLASSIFICATION, Task.MULTI_LABEL)
    return Reading(items, tuple(classes), tasks, frozenset([*_lists(source), *(item.path for item in items)]))


def _lists(source: Source) -> list[str]:
    return [path for path in source.ending_with(LIST) if path.rpartition("/")[2] == LIST]
