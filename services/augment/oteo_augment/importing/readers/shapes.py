"""What programs that draw shapes have in common: LabelMe and CVAT."""

from __future__ import annotations

from collections.abc import Mapping

from oteo_augment.importing.items import Item
from oteo_core.datasets import Task


def tasks_of(items: Mapping[str, Item]) -> tuple[str, ...]:
    """Give the tasks that shapes can serve, the natural one first."""
    boxes = sum(len(item.boxes) + len(item.oriented_boxes) + len(item.quads) for item in items.values())
    outlines = sum(len(item.polygons) + len(item.rle) for item in items.values())
    marked = sum(len(item.keypoints) for item in items.values())
    if not boxes and not outlines and not marked and any(item.labels for item in items.values()):
        single = all(len(item.labels) <= 1 for item in items.values())
        return (Task.CLASSIFICATION, Task.MULTI_LABEL) if single else (Task.MULTI_LABEL,)
    tasks: tuple[str, ...] = (Task.DETECTION, Task.MULTI_LABEL)
    if outlines:
        # Where few outlines have a box, boxes are no answer.
        tasks = (Task.INSTANCE, Task.DETECTION, Task.MULTI_LABEL) if boxes * 2 >= outlines else (Task.INSTANCE, Task.MULTI_LABEL)
    if not marked:
        return tasks
    if not boxes and not outlines:
        return (Task.KEYPOINTS, Task.MULTI_LABEL)
    return (Task.KEYPOINTS, *tasks) if marked * 2 >= max(boxes, outlines) else (*tasks, Task.KEYPOINTS)
