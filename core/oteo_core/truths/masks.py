"""From a dataset's masks, outlines and run-length masks to class maps and instance maps, in original pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oteo_core.datasets import DatasetReader, MaskEncoding, Sample
from oteo_core.datasets.annotations import Polygons, Rle
from oteo_core.datasets.runs import mask_from_runs
from oteo_core.errors import InvalidArgument
from oteo_core.packages.answers import IGNORED, ClassMap, Instances


def outlines_of(sample: Sample) -> list[Polygons | Rle]:
    """Give run-length masks, then outlines."""
    return [*sample.rle, *sample.polygons]


def class_map(reader: DatasetReader | None, sample: Sample, classes: tuple[str, ...]) -> ClassMap:
    """Give a sample's classes by pixel; numbers of a mask that are no class of `classes` are `IGNORED`, also those nobody knows.

    `reader` gives the mask images; None where the sample has none.
    """
    numbers = {name: place + 1 for place, name in enumerate(classes)}
    found = np.zeros((sample.height, sample.width), dtype=np.uint8)
    encoding = reader.info.mask if reader is not None else None
    if sample.mask_path and reader is not None and encoding is not None:
        mask = _read(reader, sample)
        found = _by_class(mask, encoding, reader.info.classes, numbers) if encoding.kind == "class" else _all_of_one(mask, encoding)
    for thing, inside in _outlines(sample):
        found[inside] = numbers.get(thing.class_name, IGNORED)
    return ClassMap(found)


def instance_map(reader: DatasetReader | None, sample: Sample, classes: tuple[str, ...]) -> Instances:
    """Give a sample's objects by pixel; crowds and objects of other classes are -1. Of overlapping objects the smaller is on top.

    `reader` gives the mask images; None where the sample has none.
    """
    numbers = {name: place for place, name in enumerate(classes)}
    ids: NDArray[np.int32] = np.zeros((sample.height, sample.width), dtype=np.int32)
    labels: list[int] = []
    encoding = reader.info.mask if reader is not None else None
    if sample.mask_path and reader is not None and encoding is not None and encoding.kind == "instance":
        mask = _read(reader, sample)
        values, places = np.unique(mask, return_inverse=True)
        order = np.zeros(len(values), dtype=np.int32)
        for place, value in enumerate(values.tolist()):
            if value in encoding.ignore:
                order[place] = -1
            elif value != 0:
                labels.append(0)
                order[place] = len(labels)
        ids = order[places].reshape(mask.shape)
    for thing, inside in _outlines(sample):
        if thing.crowd or thing.class_name not in numbers:
            ids[inside & (ids == 0)] = -1
        else:
            labels.append(numbers[thing.class_name])
            ids[inside] = len(labels)
    return renumbered(ids, np.array(labels, dtype=np.int64))


def renumbered(ids: NDArray[np.int32], labels: NDArray[np.int64]) -> Instances:
    """Number the objects that have a pixel left 1, 2, ...; `ids` may be the map of part of an image."""
    left = np.unique(ids)
    left = left[left > 0]
    order = np.zeros(len(labels) + 2, dtype=np.int32)
    order[left] = np.arange(1, len(left) + 1, dtype=np.int32)
    order[-1] = -1
    return Instances(order[ids], labels[left - 1], np.ones(len(left), dtype=np.float32))


def _read(reader: DatasetReader, sample: Sample) -> NDArray[Any]:
    mask = reader.mask(sample)
    if mask.shape != (sample.height, sample.width):
        raise InvalidArgument(
            f"the mask of sample {sample.id!r} has {mask.shape[1]} x {mask.shape[0]} pixels, the image {sample.width} x {sample.height}",
            reason="MASK_SIZE_MISMATCH",
            field="dataset",
        )
    return mask


def _by_class(mask: NDArray[Any], encoding: MaskEncoding, names: Sequence[str], numbers: dict[str, int]) -> NDArray[np.uint8]:
    known = {value: numbers.get(name, IGNORED) for name, value in zip(names, encoding.values, strict=True)}
    values, places = np.unique(mask, return_inverse=True)
    order = np.array([known.get(v, 0 if v == 0 and v not in encoding.ignore else IGNORED) for v in values.tolist()], dtype=np.uint8)
    return np.asarray(order[places].reshape(mask.shape))


def _all_of_one(mask: NDArray[Any], encoding: MaskEncoding) -> NDArray[np.uint8]:
    found: NDArray[np.uint8] = np.asarray(mask != 0).astype(np.uint8)
    found[np.isin(mask, encoding.ignore)] = IGNORED
    return found


def _outlines(sample: Sample) -> list[tuple[Polygons | Rle, NDArray[np.bool_]]]:
    """Give each outlined object with its pixels ``(H, W)``, crowds first, then the largest first.

    One object that has an outline and a run-length mask is there once.
    """
    found: list[tuple[Polygons | Rle, NDArray[np.bool_]]] = []
    seen: set[int] = set()
    for thing in outlines_of(sample):
        if thing.instance >= 0:
            if thing.instance in seen:
                continue
            seen.add(thing.instance)
        inside = _runs(thing, sample) if isinstance(thing, Rle) else _polygons(thing, sample)
        if inside.any():
            found.append((thing, inside))
    return sorted(found, key=lambda pair: (not pair[0].crowd, -int(pair[1].sum())))


def _runs(thing: Rle, sample: Sample) -> NDArray[np.bool_]:
    if (thing.height, thing.width) != (sample.height, sample.width):
        raise InvalidArgument(
            f"a run-length mask of sample {sample.id!r} has {thing.width} x {thing.height} pixels, the image {sample.width} x {sample.height}",
            reason="MASK_SIZE_MISMATCH",
            field="dataset",
        )
    return mask_from_runs(thing.counts, thing.height, thing.width).astype(bool)


def _polygons(thing: Polygons, sample: Sample) -> NDArray[np.bool_]:
    """Rasterise as COCO's own tools do."""
    from pycocotools import mask as coco

    rings = [list(ring) for ring in thing.rings if len(ring) >= 6]
    if not rings:
        return np.zeros((sample.height, sample.width), dtype=bool)
    runs = coco.merge(coco.frPyObjects(rings, sample.height, sample.width))
    return np.asarray(coco.decode(runs)).astype(bool)
