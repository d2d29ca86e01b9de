"""A folder of masks for each image, each file one object, as in the 2018 Data Science Bowl: ``ID/images/ID.png``, ``ID/masks/*.png``."""

from __future__ import annotations

from dataclasses import dataclass, field

from oteo_augment.importing.items import Item, Reading
from oteo_augment.importing.paths import split_of_path, split_of_words
from oteo_augment.importing.readers.masks import mask_numbers
from oteo_augment.importing.source import Source
from oteo_core.datasets import Severity, Task

_IMAGES, _MASKS = ("images", "image"), ("masks", "mask")


@dataclass(slots=True)
class _Case:
    images: list[str] = field(default_factory=list)
    masks: list[str] = field(default_factory=list)
    folder: str = ""


def detect(source: Source) -> str:
    """Tell whether half of the images or more lie alone in a folder "images" beside a folder "masks", and some have several masks."""
    cases = _cases(source)
    whole = {name: case for name, case in cases.items() if len(case.images) == 1 and case.masks}
    several = next((name for name, case in whole.items() if len(case.masks) > 1), None)
    if several is None or 2 * sum(len(case.masks) + 1 for case in whole.values()) < len(source.images):
        return ""
    return f"each image has a folder of masks, one for each object: {cases[several].images[0]} has {len(cases[several].masks)}"


def read(source: Source) -> Reading:
    """Give an item for each folder; its mask is the folder of masks."""
    items: list[Item] = []
    used: set[str] = set()
    for name, case in _cases(source).items():
        used.update(case.images, case.masks)
        for path in case.images:
            item = Item(path, split=_split(path))
            items.append(item)
            if len(case.images) > 1:
                item.unlabelled = True
                item.report(Severity.ERROR, "BAD_ANNOTATION", f"{name} holds {len(case.images)} images; whose masks they are is not known")
            elif not case.masks:
                item.unlabelled = True
                item.report(Severity.ERROR, "MISSING_ANNOTATION", f"{path} has no folder of masks beside it")
            else:
                item.mask = case.folder
        if not case.images:
            item = Item(f"{name}#image", missing=True)
            item.report(Severity.ERROR, "MISSING_IMAGE", f"the masks of {case.folder} have no image", case.folder)
            items.append(item)
    for path in source.images:
        if path not in used:
            item = Item(path, unlabelled=True, split=_split(path))
            item.report(Severity.ERROR, "MISSING_ANNOTATION", f"{path} has no folder of masks beside it")
            items.append(item)
    numbers, described = mask_numbers(source)
    if [value for value, _ in numbers] != [-1]:
        numbers = ((-1, "object"),)
    return Reading(items, (), (Task.INSTANCE,), frozenset([*used, *(item.path for item in items), *described]), numbers)


def _split(path: str) -> str:
    """Give the part: a folder's name, or a word of it ("stage1_train")."""
    return split_of_path(path) or next((found for part in reversed(path.split("/")[:-1]) if (found := split_of_words(part))), "")


def _cases(source: Source) -> dict[str, _Case]:
    """Give what lies in "images" and in "masks" by the folder that holds both."""
    cases: dict[str, _Case] = {}
    for path in source.images:
        folder, _, _ = path.rpartition("/")
        parent, _, name = folder.rpartition("/")
        if name.lower() in _IMAGES:
            cases.setdefault(parent, _Case()).images.append(path)
        elif name.lower() in _MASKS:
            case = cases.setdefault(parent, _Case())
            case.masks.append(path)
            case.folder = f"{folder}/"
    return cases
