"""One folder per class, "train", "val" and "test" above them where they are."""

from __future__ import annotations

from collections import Counter

from oteo_augment.importing.items import Item, Reading
from oteo_augment.importing.paths import split_of_name
from oteo_augment.importing.source import Source, is_image_name
from oteo_core.datasets import Severity, Task


def detect(source: Source) -> str:
    """Tell whether images lie in folders."""
    base = _base(source)
    with_splits = _has_splits(source, base)
    images = Counter(_folder(path) for path in source.images)
    classes: Counter[str] = Counter()
    for folder, count in images.items():
        if name := _place(folder, base, with_splits)[1]:
            classes[name] += count
    if not classes:
        return ""
    shown = ", ".join(f"{name!r} ({count})" for name, count in sorted(classes.items())[:8])
    return f"images lie in {len(classes)} folder{'s' if len(classes) > 1 else ''}: {shown}{', ...' if len(classes) > 8 else ''}"


def read(source: Source) -> Reading:
    """Read the class, and the part where it is given, from each file's folders.

    Every file in a class's folder is an item, whatever its name; images outside are reported as MISSING_ANNOTATION.
    """
    base = _base(source)
    with_splits = _has_splits(source, base)
    items, used = [], set()
    places: dict[str, tuple[str, str]] = {}
    for path in source.files:
        folder = _folder(path)
        if folder not in places:
            places[folder] = _place(folder, base, with_splits)
        split, name = places[folder]
        if name:
            items.append(Item(path, labels=[name], split=split))
            used.add(path)
        elif is_image_name(path):
            item = Item(path, unlabelled=True, split=split)
            item.report(Severity.ERROR, "MISSING_ANNOTATION", f"{path} lies in no class's folder; move it into one")
            items.append(item)
            used.add(path)
    classes = sorted({item.labels[0] for item in items if item.labels})
    return Reading(items, tuple(classes), (Task.CLASSIFICATION,), frozenset(used))


def _base(source: Source) -> tuple[str, ...]:
    """Give the folders above the classes' folders: those that all images share, as archives of a folder have them.

    The last folder above an image is never taken for one: it is the class even where there is no other.
    """
    paths = [folder.split("/") for folder in _folders(source)]
    if not paths or [""] in paths:
        return ()
    shared: list[str] = []
    for level in zip(*(folders[:-1] for folders in paths), strict=False):
        if len(set(level)) > 1 or split_of_name(level[0]):
            break
        shared.append(level[0])
    return tuple(shared)


def _has_splits(source: Source, base: tuple[str, ...]) -> bool:
    """Tell whether the first folders below the base are all names of parts, with folders in them."""
    depth = len(base)
    deeper = False
    seen = False
    for folder in _folders(source):
        parts = folder.split("/") if folder else []
        if len(parts) > depth:
            seen = True
            if not split_of_name(parts[depth]):
                return False
            deeper = deeper or len(parts) > depth + 1
    return seen and deeper


def _folders(source: Source) -> set[str]:
    """Give the folders that hold images: few, where the images may be a million."""
    return {_folder(path) for path in source.images}


def _folder(path: str) -> str:
    return path.rpartition("/")[0]


def _place(folder: str, base: tuple[str, ...], with_splits: bool) -> tuple[str, str]:
    """Give part and class of what lies in a folder; "" where there is none."""
    parts = folder.split("/") if folder else []
    if tuple(parts[: len(base)]) != base:
        return "", ""
    folders = parts[len(base) :]
    split = ""
    if with_splits and folders:
        split = split_of_name(folders[0])
        folders = folders[1:]
    return split, folders[0] if folders else ""
