"""Classes that a mirror changes into each other: a left lung, mirrored, is a right one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from oteo_core.augmentation.moving import Annotations, Motion
from oteo_core.datasets.annotations import Box, Keypoints, OrientedBox, Polygons, Rle

_Object = TypeVar("_Object", Box, Polygons, Rle, OrientedBox, Keypoints)
_CORNER = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])


def mirrors(motion: Motion) -> bool:
    """Tell whether a step turned the picture over: the sign of its Jacobian in the middle of the image."""
    height, width = motion.before
    start, right, down = motion.points(_CORNER + np.array([width / 2, height / 2]))
    along, across = right - start, down - start
    return bool(along[0] * across[1] - along[1] * across[0] < 0)


def both_ways(pairs: Mapping[str, str]) -> dict[str, str]:
    """Give swaps in both directions: who says that left becomes right says that right becomes left."""
    return {**{new: old for old, new in pairs.items()}, **pairs}


def swapped_labels(labels: Iterable[str], swaps: Mapping[str, str]) -> tuple[str, ...]:
    """Rename classes."""
    return tuple(swaps.get(label, label) for label in labels)


def swapped_objects(annotations: Annotations, swaps: Mapping[str, str]) -> Annotations:
    """Rename the classes of objects and the names of key points; the mask is left as it is, its numbers' meaning is the dataset's.

    A left eye, mirrored, is a right one: where the swaps name points, the points change names, not places.
    """
    return replace(
        annotations,
        boxes=_renamed(annotations.boxes, swaps),
        polygons=_renamed(annotations.polygons, swaps),
        rle=_renamed(annotations.rle, swaps),
        oriented_boxes=_renamed(annotations.oriented_boxes, swaps),
        keypoints=tuple(
            replace(item, points=tuple(replace(point, name=swaps.get(point.name, point.name)) for point in item.points))
            for item in _renamed(annotations.keypoints, swaps)
        ),
    )


def swapped_numbers(mask: NDArray[Any], classes: Sequence[str], values: Sequence[int], swaps: Mapping[str, str]) -> NDArray[Any]:
    """Renumber a mask of classes ``(H, W)``: where one class stood, the other stands; the dtype stays."""
    number = dict(zip(classes, values, strict=True))
    changed = mask.copy()
    for old, new in swaps.items():
        if old in number and new in number:
            changed[mask == number[old]] = number[new]
    return changed


def _renamed(items: tuple[_Object, ...], swaps: Mapping[str, str]) -> tuple[_Object, ...]:
    return tuple(replace(item, class_name=swaps[item.class_name]) if item.class_name in swaps else item for item in items)
