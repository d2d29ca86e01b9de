"""A mask image for each image: folders "images" and "masks", or names that differ by an ending such as "_mask"."""

from __future__ import annotations

import re

from oteo_augment.importing.items import Item, Reading
from oteo_augment.importing.paths import split_of_name, split_of_path, stem
from oteo_augment.importing.source import Source
from oteo_core.datasets import Severity, Task

_MASK_FOLDERS = frozenset((
    "masks", "mask", "labels", "label", "groundtruth", "ground_truth", "gt", "annotations", "annotation", "segmentation", "segmentations",
    "segmentationclass", "segmentationobject", "labelstr",
))  # fmt: skip
_IMAGE_FOLDERS = ("images", "image", "imgs", "img", "jpegimages", "data", "input", "inputs", "frames", "imagestr")
MASK_ENDINGS = ("_mask", "-mask", "_label", "-label", "_labels", "_seg", "_gt", "_segmentation")
"""What a mask's name ends with where it lies beside its image."""
_SHORT = ("_L", "_l")
"""Further endings, which count only where no other mask is the image's: CamVid's names."""
_PART_OF_MASKS = re.compile(r"(.+)[_-](labels|masks)", re.IGNORECASE)
_CLASS_LINE = re.compile(r"(\d+|\*)\s+(\S.*)")


def detect(source: Source) -> str:
    """Tell whether images have masks: at least half of them, or every mask in a folder of masks has its image."""
    pairs, rest, lonely = pairs_of(source)
    if not pairs or (len(pairs) < len(rest) and (lonely or not all(_in_mask_folder(mask) for mask in pairs.values()))):
        return ""
    image, mask = next(iter(pairs.items()))
    return f"{len(pairs)} images have a mask: that of {image} is {mask}"


def read(source: Source) -> Reading:
    """Pair images with masks; what is left over on either side is reported."""
    items, used = paired_items(source)
    numbers, described = mask_numbers(source)
    return Reading(items, (), (Task.SEMANTIC, Task.INSTANCE), used | frozenset(described), numbers)


def paired_items(source: Source) -> tuple[list[Item], frozenset[str]]:
    """Give an item for each image and each mask without one, and the files that they are made of."""
    pairs, rest, lonely = pairs_of(source)
    items = [Item(image, mask=mask, split=split_of_path(image)) for image, mask in pairs.items()]
    for path in rest:
        item = Item(path, unlabelled=True)
        item.report(Severity.ERROR, "MISSING_ANNOTATION", f"{path} has no mask")
        items.append(item)
    for path in lonely:
        item = Item(f"{path}#image", missing=True)
        item.report(Severity.ERROR, "MISSING_IMAGE", f"the mask {path} has no image", path)
        items.append(item)
    return items, frozenset([*pairs, *pairs.values(), *rest, *lonely])


def mask_numbers(source: Source) -> tuple[tuple[tuple[int, str], ...], list[str]]:
    """Read what the numbers mean from classes.txt: "128 cytoplasm" a line, or "* nucleus" where every number is an object.

    A file of other lines is of another program and says nothing here.
    """
    for path in source.ending_with("classes.txt"):
        lines = [line.strip() for line in source.read(path).decode("utf-8", "replace").splitlines() if line.strip()]
        found = [match for line in lines if (match := _CLASS_LINE.fullmatch(line))]
        values = [-1 if match[1] == "*" else int(match[1]) for match in found]
        if found and len(found) == len(lines) and len(set(values)) == len(values) and (-1 not in values or len(values) == 1):
            return tuple((value, match[2]) for value, match in zip(values, found, strict=True) if value != 0), [path]
    return (), []


def pairs_of(source: Source) -> tuple[dict[str, str], list[str], list[str]]:
    """Give masks by image, images without a mask, and masks without an image."""
    masks: dict[tuple[str, str], str] = {}
    images: list[str] = []
    for path in source.images:
        key = _mask_key(path)
        if key is not None:
            masks.setdefault(key, path)
        else:
            images.append(path)
    pairs, rest = {}, []
    for path in images:
        folder, name = _image_key(path)
        mask = masks.pop((folder, name), None) or next((masks.pop(key) for end in _SHORT if (key := (folder, name + end)) in masks), None)
        if mask is None:
            rest.append(path)
        else:
            pairs[path] = mask
    return pairs, rest, sorted(masks.values())


def _in_mask_folder(path: str) -> bool:
    return any(part.lower() in _MASK_FOLDERS or _PART_OF_MASKS.fullmatch(part) for part in path.split("/")[:-1])


def _mask_key(path: str) -> tuple[str, str] | None:
    """Give the place and name of the image that a mask belongs to, or None for what is no mask."""
    parts = path.split("/")
    name = stem(path)
    plain = name
    if name.lower().endswith(MASK_ENDINGS):
        plain = next(name[: -len(ending)] for ending in MASK_ENDINGS if name.lower().endswith(ending)) or name
    for index in range(len(parts) - 2, -1, -1):
        if parts[index].lower() in _MASK_FOLDERS:
            return "/".join(parts[:index] + parts[index + 1 : -1]), plain
        # "train_labels" beside "train".
        if (match := _PART_OF_MASKS.fullmatch(parts[index])) and split_of_name(match[1]):
            return "/".join([*parts[:index], match[1], *parts[index + 1 : -1]]), plain
    return ("/".join(parts[:-1]), plain) if plain != name else None


def _image_key(path: str) -> tuple[str, str]:
    parts = path.split("/")
    for index in range(len(parts) - 2, -1, -1):
        if parts[index].lower() in _IMAGE_FOLDERS:
            del parts[index]
            break
    name = stem(path)
    # nnU-Net numbers the channels of a case; one channel has the number 0000.
    return "/".join(parts[:-1]), name.removesuffix("_0000") if path.lower().endswith((".nii", ".nii.gz")) else name
