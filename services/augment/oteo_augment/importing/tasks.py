"""What a dataset can be used for, and the errors where it cannot."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from oteo_augment.importing.items import Item, Reading
from oteo_core.datasets import Box, Keypoints, OrientedBox, Polygons, Rle, Severity, Task
from oteo_core.errors import InvalidArgument

_SAYS = {
    Task.CLASSIFICATION: "one class for each image",
    Task.MULTI_LABEL: "classes for each image",
    Task.DETECTION: "boxes",
    Task.SEMANTIC: "a class for each pixel",
    Task.INSTANCE: "an outline for each object",
    Task.KEYPOINTS: "key points",
}


def choose_task(wanted: str, reading: Reading, format_name: str) -> str:
    """Give the task: the one asked for if the annotations can serve it, else the natural one.

    Raises
    ------
    InvalidArgument
        WRONG_TASK, naming the tasks that can be served.
    """
    if not wanted:
        return reading.tasks[0]
    if wanted not in reading.tasks:
        given = ", ".join(f"{task} ({_SAYS[Task(task)]})" for task in reading.tasks)
        raise InvalidArgument(
            f"the annotations cannot serve {wanted}, which needs {_SAYS[Task(wanted)]}: the source is {format_name} and serves {given}",
            reason="WRONG_TASK",
            field="task",
        )
    return wanted


def shape_for_task(item: Item, task: str) -> None:
    """Bring an item's annotations to what the task asks for, in place."""
    if task == Task.INSTANCE:
        # Four corners are an outline where outlines are asked for.
        item.polygons += item.quads
        numbers = {(quad.instance, quad.class_name) for quad in item.quads}
        item.oriented_boxes = [box for box in item.oriented_boxes if (box.instance, box.class_name) not in numbers]
    item.quads = []
    if task in (Task.SEMANTIC, Task.INSTANCE) and item.mask and item.labels:
        shown = ", ".join(repr(name) for name in item.labels)
        item.report(
            Severity.INFO,
            "LABELS_NOT_KEPT",
            f"the classes {shown} of the whole image are not kept beside its mask; ask for classification for them",
        )
        item.labels = []
    if task == Task.MULTI_LABEL and not item.labels:
        things: list[Box | Polygons | Rle | OrientedBox | Keypoints] = [
            *item.boxes,
            *item.polygons,
            *item.rle,
            *item.oriented_boxes,
            *item.keypoints,
        ]
        item.labels = sorted({thing.class_name for thing in things})
        item.boxes, item.polygons, item.rle, item.oriented_boxes, item.keypoints = [], [], [], [], []


def check_classes(task: str, present: Iterable[str], given: Sequence[str], declared: Sequence[str]) -> None:
    """Refuse a source from which nothing can be learnt.

    Parameters
    ----------
    task
        What it is for.
    present
        Classes that occur in the samples that are kept.
    given
        Classes that the caller allows; empty: all.
    declared
        Classes that the source has.

    Raises
    ------
    InvalidArgument
        UNKNOWN_CLASS if none of the given classes occurs, SINGLE_CLASS for a classification of one class.
    """
    found = sorted(set(present))
    if given and not found:
        raise InvalidArgument(
            f"none of the classes {_listed(given)} occurs in the source, which has {_listed(declared) or 'none'}",
            reason="UNKNOWN_CLASS",
            field="classes",
        )
    if task == Task.CLASSIFICATION and len(found) < 2:
        raise InvalidArgument(
            f"classification needs two classes or more, and only {_listed(found) or 'none'} has images. "
            "Put the images of each class into a folder of its own.",
            reason="SINGLE_CLASS",
            field="source_uri",
        )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names[:10]) + (", ..." if len(names) > 10 else "")
