"""Which rows of a dataset a segmentation can learn from; what is true of each is drawn by `oteo_core.truths.masks`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from oteo_automl.dense.base import DenseData
from oteo_core.datasets import DatasetReader, Sample
from oteo_core.errors import InvalidArgument
from oteo_core.truths.masks import outlines_of

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
