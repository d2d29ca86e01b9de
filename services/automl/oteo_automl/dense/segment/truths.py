"""From a dataset's masks, outlines and run-length masks to class maps and instance maps, in original pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oteo_automl.dense.base import DenseData
from oteo_core.datasets import DatasetReader, MaskEncoding, Sample
from oteo_core.datasets.annotations import Polygons, Rle
from oteo_core.datasets.runs import mask_from_runs
from oteo_core.errors import InvalidArgument
from oteo_core.packages.answers import IGNORED, ClassMap, Instances

MOST_CLASSES = 254
"""Classes that a uint8 map can tell apart beside background and `IGNORED`."""

_PARTS = ("train", "validation", "test")


def read_rows(reader: DatasetReader, truth: Callable[[DatasetReader, Sample, tuple[str, ...]], Any], *, instances: bool) -> DenseData:
    """Read the rows of a dataset that a segmentation can use; no pixels are read.

    Parameters
    ----------
    reader
        The dataset.
    truth
        Makes what is true of a sample from the reader, its row and the classes (`class_map` or `instance_map`).
    instances
        True: objects must be told apart.

    Raises
    ------
    InvalidArgument
        ``WRONG_TASK``: no masks or outlines, or masks of classes where objects are to be told apart. ``NO_OBJECTS``: nothing is marked in the
        training part. ``TOO_MANY_CLASSES``.
    """
    mask = reader.info.mask
    rows: list[Sample] = []
    left_out: dict[str, int] = {}

    def leave(why: str) -> None:
        left_out[why] = left_out.get(why, 0) + 1

    outlined = masked = 0
    for sample in reader.samples():
        has_mask = bool(sample.mask_path) and mask is not None and not (instances and mask.kind == "class")
        has_outlines = bool(sample.polygons or sample.rle)
        if sample.split not in _PARTS:
            leave("in no part")
        elif not sample.is_picture:
            leave(f"a {sample.media_kind} in one file; import it again, which makes a sample of each frame")
        elif not has_mask and not has_outlines and sample.mask_path:
            leave("with a mask of classes, which does not tell objects apart")
        elif not has_mask and not has_outlines and (sample.boxes or sample.oriented_boxes or sample.keypoints):
            leave("with boxes or points alone")
        else:
            rows.append(sample)
            masked += has_mask
            outlined += has_outlines
    if not masked and not outlined:
        hint = "; masks of classes do not tell objects apart: choose semantic segmentation" if instances and mask is not None else ""
        raise InvalidArgument(
            f"dataset {reader.info.id!r} has no masks or outlines that {'instance' if instances else 'semantic'} segmentation could learn from{hint}",
            reason="WRONG_TASK",
            field="task",
        )
    if masked and not outlined:
        # Where every image has a mask, one without is not an image without objects.
        bare = [sample for sample in rows if not sample.mask_path]
        if bare:
            left_out["without a mask"] = len(bare)
            rows = [sample for sample in rows if sample.mask_path]
    classes = _present_classes(reader, rows, left_out)
    if len(classes) > MOST_CLASSES:
        raise InvalidArgument(
            f"dataset {reader.info.id!r} has {len(classes)} classes; segmentation can learn {MOST_CLASSES}: join some",
            reason="TOO_MANY_CLASSES",
            field="dataset",
        )
    return DenseData.of(rows, classes, lambda index: truth(reader, rows[index], classes), left_out)


def _present_classes(reader: DatasetReader, rows: Sequence[Sample], left_out: dict[str, int]) -> tuple[str, ...]:
    """Give the classes that something in the training part is marked as; an import notes a mask's classes as labels."""
    train = [sample for sample in rows if sample.split == "train"]
    present = {name for sample in train for name in sample.labels}
    present |= {thing.class_name for sample in train for thing in outlines_of(sample)}
    masked = any(sample.mask_path for sample in train)
    noted = any(sample.labels for sample in rows if sample.mask_path)
    if masked and not noted:
        present |= set(reader.info.classes)
    classes = tuple(name for name in reader.info.classes if name in present)
    if not classes:
        raise InvalidArgument(
            f"nothing is marked in the {len(train)} training images of dataset {reader.info.id!r}: there is no object to learn from",
            reason="NO_OBJECTS",
            field="dataset",
        )
    for name in reader.info.classes:
        if name not in present:
            left_out[f"class {name!r} without training pixels"] = sum(
                name in sample.labels or any(thing.class_name == name for thing in outlines_of(sample)) for sample in rows
            )
    return classes


def outlines_of(sample: Sample) -> list[Polygons | Rle]:
    """Give run-length masks, then outlines."""
    return [*sample.rle, *sample.polygons]


def class_map(reader: DatasetReader, sample: Sample, classes: tuple[str, ...]) -> ClassMap:
    """Give a sample's classes by pixel; numbers of a mask that are no class of `classes` are `IGNORED`, also those nobody knows."""
    numbers = {name: place + 1 for place, name in enumerate(classes)}
    found = np.zeros((sample.height, sample.width), dtype=np.uint8)
    encoding = reader.info.mask
    if sample.mask_path and encoding is not None:
        mask = _read(reader, sample)
        found = _by_class(mask, encoding, reader.info.classes, numbers) if encoding.kind == "class" else _all_of_one(mask, encoding)
    for thing, inside in _outlines(sample):
        found[inside] = numbers.get(thing.class_name, IGNORED)
    return ClassMap(found)


def instance_map(reader: DatasetReader, sample: Sample, classes: tuple[str, ...]) -> Instances:
    """Give a sample's objects by pixel; crowds and objects of other classes are -1. Of overlapping objects the smaller is on top."""
    numbers = {name: place for place, name in enumerate(classes)}
    ids: NDArray[np.int32] = np.zeros((sample.height, sample.width), dtype=np.int32)
    labels: list[int] = []
    encoding = reader.info.mask
    if sample.mask_path and encoding is not None and encoding.kind == "instance":
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
