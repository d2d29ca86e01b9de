"""Masks in colour beside images, with a list of what each colour is: CVAT's and Pascal VOC's folders, CamVid's usual form."""

from __future__ import annotations

from oteo_augment.importing.colors import VOID, color_list, numbers_of_colors
from oteo_augment.importing.items import Reading
from oteo_augment.importing.paths import stem
from oteo_augment.importing.readers.masks import detect as detect_masks
from oteo_augment.importing.readers.masks import paired_items, pairs_of
from oteo_augment.importing.readers.voc import listed_parts
from oteo_augment.importing.source import Source
from oteo_core.datasets import Task
from oteo_core.errors import OteoError
from oteo_core.images import decode

_PROBED = 20


def detect(source: Source) -> str:
    """Tell whether images have masks, a list of colours lies beside them, and the first masks have such colours."""
    if not (source.ending_with("labelmap.txt", "class_dict.csv") and detect_masks(source)):
        return ""
    listed = color_list(source)
    if listed is None:
        return ""
    for mask in list(pairs_of(source)[0].values())[:_PROBED]:
        try:
            numbers, _ = numbers_of_colors(decode(source.read(mask)).pixels, listed.colors)
        except (OSError, OteoError):
            continue
        if ((numbers != 0) & (numbers != VOID)).any():
            return f"images have masks in colour, and {listed.path} says what the colours are: {mask} has such"
    return ""


def read(source: Source) -> Reading:
    """Pair images with masks, and read the list and the parts."""
    items, used = paired_items(source)
    listed = color_list(source)
    assert listed is not None, "detect has found it"
    parts, lists = listed_parts(source)
    for item in items:
        item.split = item.split or parts.get(stem(item.path), "")
    return Reading(items, (), (Task.SEMANTIC,), used | {listed.path, *lists}, listed.numbers, listed.colors)
