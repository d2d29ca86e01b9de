"""COCO's key points: names and edges with a category, three numbers for each point with an annotation (cocodataset.org/#format-data).

COCO counts points by pixels, 0 is the first: its middle is half a pixel from the corner that boxes, outlines and Oteo count from. So half a pixel
is added here, and taken off where COCO is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from oteo_augment.importing.items import Item
from oteo_augment.importing.paths import stem
from oteo_augment.importing.source import Source
from oteo_core.datasets import Keypoint, Severity, Skeleton

PIXEL_MIDDLE = 0.5


def companion(source: Source, file: str) -> str:
    """Give the file that has the key points of an instances file's annotations under the same ids, as COCO publishes them; "" if there is none."""
    name = stem(file)
    if not name.startswith("instances"):
        return ""
    folder, slash, base = file.rpartition("/")
    other = f"{folder}{slash}person_keypoints{base.removeprefix('instances')}"
    return other if other in source.files else ""


def add_skeletons(content: Mapping[str, Any], into: dict[str, Skeleton]) -> None:
    """Read the points of the categories; a class that several files define keeps the first, with the points that later ones add."""
    for entry in content["categories"]:
        if not isinstance(entry, dict) or "name" not in entry or not entry.get("keypoints") or not isinstance(entry["keypoints"], list):
            continue
        names = tuple(dict.fromkeys(str(name) for name in entry["keypoints"]))
        edges = tuple(edge for pair in entry.get("skeleton") or () if (edge := _edge(pair, len(names))) is not None)
        old = into.get(str(entry["name"]))
        if old is None:
            into[str(entry["name"])] = Skeleton(str(entry["name"]), names, edges)
        else:
            into[old.class_name] = Skeleton(old.class_name, tuple(dict.fromkeys((*old.points, *names))), old.edges or edges)


def _edge(pair: Any, count: int) -> tuple[int, int] | None:
    # COCO counts points from 1 here.
    fits = isinstance(pair, list) and len(pair) == 2 and all(isinstance(end, int) and 1 <= end <= count for end in pair)
    return (pair[0] - 1, pair[1] - 1) if fits else None


def category_points(content: Mapping[str, Any]) -> dict[Any, tuple[str, ...]]:
    """Give the names of each category's points, by its id, in the file's own order."""
    return {
        entry.get("id"): tuple(str(name) for name in entry["keypoints"])
        for entry in content["categories"]
        if isinstance(entry, dict) and entry.get("keypoints") and isinstance(entry["keypoints"], list)
    }


def read_points(entry: Mapping[str, Any], names: tuple[str, ...], what: str, file: str, item: Item) -> tuple[Keypoint, ...]:
    """Give the points of an annotation that are marked; those of visibility 0 are not."""
    values = entry.get("keypoints")
    if not values:
        return ()
    if not isinstance(values, list) or len(values) % 3 or not all(isinstance(v, int | float) for v in values):
        item.report(Severity.ERROR, "BAD_ANNOTATION", f"{what} has key points that are not three numbers each", file)
        return ()
    if names and len(values) != 3 * len(names):
        item.report(
            Severity.ERROR,
            "BAD_ANNOTATION",
            f"{what} has {len(values) // 3} key points, its category has {len(names)}; they are left out",
            file,
        )
        return ()
    named = names or tuple(f"point_{number}" for number in range(len(values) // 3))
    found = []
    for name, x, y, seen in zip(named, values[0::3], values[1::3], values[2::3], strict=True):
        if seen not in (0, 1, 2):
            item.report(
                Severity.ERROR, "BAD_ANNOTATION", f"{what} has the point {name!r} with visibility {seen!r}; there are 0, 1 and 2", file
            )
        elif seen:
            found.append(Keypoint(name, float(x) + PIXEL_MIDDLE, float(y) + PIXEL_MIDDLE, seen == 2))
    return tuple(found)


def numbered(skeletons: dict[str, Skeleton], class_name: str, count: int) -> None:
    """Note the points of a class whose file has no names for them."""
    old = skeletons.get(class_name)
    if old is None or len(old.points) < count:
        skeletons[class_name] = Skeleton(class_name, tuple(f"point_{number}" for number in range(count)))
