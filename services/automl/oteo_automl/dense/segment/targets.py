"""What segmentation networks learn, for all samples, in the geometry of the prepared images and mapped into memory; and what it is like."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from oteo_automl.candidates.bank import spread
from oteo_automl.dense.base import DenseData, Facts
from oteo_core.errors import OteoError
from oteo_core.images import InputPolicy
from oteo_core.images.geometry import place
from oteo_core.packages.answers import IGNORED, ClassMap, Instances
from oteo_core.truths.masks import renumbered

_MAPS, _IDS, _HEIGHTS, _OBJECTS, _UNREADABLE = "maps.npy", "ids.npy", "heights.npy", "objects.npz", "unreadable.json"
_CHUNK = 32
_LOOKED_AT = 200


@dataclass(frozen=True, slots=True)
class InstanceTargets:
    """Objects of all samples.

    Parameters
    ----------
    ids
        ``(N, H, W)`` int32: 0 background, ``i + 1`` the sample's object ``i``, -1 ignored.
    heights
        ``(N, H, W)`` uint8: distance to the object's border as a share of the largest in that object, 255 at its innermost pixels; 0 outside.
    labels
        Class numbers of all samples' objects, one after the other.
    starts
        ``(N + 1,)`` where a sample's objects begin in `labels`.
    """

    ids: NDArray[np.int32]
    heights: NDArray[np.uint8]
    labels: NDArray[np.int64]
    starts: NDArray[np.int64]

    def objects(self, row: int) -> NDArray[np.int64]:
        """Give the class numbers of a sample's objects."""
        return self.labels[self.starts[row] : self.starts[row + 1]]


def build_maps(data: DenseData, policy: InputPolicy, folder: Path, check: Callable[[], None]) -> None:
    """Write class maps ``(N, H, W)`` uint8, `IGNORED` where the image does not reach and where a mask cannot be read."""
    shape = (len(data.samples), policy.height, policy.width)
    maps = np.lib.format.open_memmap(folder / _MAPS, mode="w+", dtype=np.uint8, shape=shape)

    def fill(index: int, truth: ClassMap) -> None:
        maps[index] = place(*_size(data, index), policy).plane_in(truth.labels, policy, IGNORED)

    def skip(index: int) -> None:
        maps[index] = IGNORED

    _each(data, folder, check, fill, skip)
    maps.flush()


def open_maps(folder: Path) -> NDArray[np.uint8]:
    """Map what `build_maps` wrote into memory, read-only."""
    maps: NDArray[np.uint8] = np.load(folder / _MAPS, mmap_mode="r")
    return maps


def build_instances(data: DenseData, policy: InputPolicy, folder: Path, check: Callable[[], None]) -> None:
    """Write what `InstanceTargets` holds; objects too small for the prepared geometry are left out."""
    shape = (len(data.samples), policy.height, policy.width)
    ids = np.lib.format.open_memmap(folder / _IDS, mode="w+", dtype=np.int32, shape=shape)
    heights = np.lib.format.open_memmap(folder / _HEIGHTS, mode="w+", dtype=np.uint8, shape=shape)
    labels: list[NDArray[np.int64]] = [np.zeros(0, dtype=np.int64)] * len(data.samples)

    def fill(index: int, truth: Instances) -> None:
        moved = renumbered(place(*_size(data, index), policy).plane_in(truth.ids, policy, -1), truth.labels)
        ids[index], labels[index], heights[index] = moved.ids, moved.labels, normalised_distance(moved.ids)

    def skip(index: int) -> None:
        ids[index] = -1

    _each(data, folder, check, fill, skip)
    ids.flush()
    heights.flush()
    starts = np.concatenate([[0], np.cumsum([len(one) for one in labels])]).astype(np.int64)
    np.savez(folder / _OBJECTS, labels=np.concatenate([np.zeros(0, dtype=np.int64), *labels]), starts=starts)


def open_instances(folder: Path) -> InstanceTargets:
    """Map what `build_instances` wrote into memory, read-only."""
    with np.load(folder / _OBJECTS) as objects:
        labels, starts = objects["labels"], objects["starts"]
    return InstanceTargets(np.load(folder / _IDS, mmap_mode="r"), np.load(folder / _HEIGHTS, mmap_mode="r"), labels, starts)


def normalised_distance(ids: NDArray[np.int32]) -> NDArray[np.uint8]:
    """Give each object pixel's distance to what is not the object, as a share of the object's largest distance, times 255.

    An object cut off by the image's border is taken to go on there.
    """
    heights = np.zeros(ids.shape, dtype=np.uint8)
    for number, (rows, columns) in boxes_of(ids).items():
        top, left = max(rows.start - 1, 0), max(columns.start - 1, 0)
        window = (slice(top, rows.stop + 1), slice(left, columns.stop + 1))
        inside = (ids[window] == number).astype(np.uint8)
        distance = cv2.distanceTransform(inside, cv2.DIST_L2, 5) if inside.min() == 0 else np.ones(inside.shape, dtype=np.float32)
        share = np.rint(255.0 * distance / distance.max()).astype(np.uint8)
        heights[window] = np.where(inside > 0, share, heights[window])
    return heights


def boxes_of(ids: NDArray[np.int32]) -> dict[int, tuple[slice, slice]]:
    """Give the rows and columns that each object (number above 0) takes."""
    from scipy.ndimage import find_objects

    found = find_objects(np.maximum(ids, 0))
    return {number + 1: box for number, box in enumerate(found) if box is not None}


def _size(data: DenseData, index: int) -> tuple[int, int]:
    return int(data.sizes[index, 0]), int(data.sizes[index, 1])


def _each(data: DenseData, folder: Path, check: Callable[[], None], fill: Callable[[int, Any], None], skip: Callable[[int], None]) -> None:
    """Make all truths, some at a time; those that cannot be read are skipped and listed."""
    unreadable: list[tuple[int, str]] = []

    def one(index: int) -> None:
        try:
            truth = data.truths(index)
        except (OteoError, ValueError) as error:
            unreadable.append((index, str(error)))
            skip(index)
            return
        fill(index, truth)

    with ThreadPoolExecutor(max(2, min(16, os.cpu_count() or 2)), thread_name_prefix="masks") as pool:
        for start in range(0, len(data.samples), _CHUNK):
            check()
            list(pool.map(one, range(start, min(start + _CHUNK, len(data.samples)))))
    (folder / _UNREADABLE).write_text(json.dumps(sorted(unreadable)))


def semantic_facts(maps: NDArray[np.uint8], rows: NDArray[np.int64], classes: int) -> Facts:
    """Look at class maps.

    Returns
    -------
    dict
        ``shares`` of background and classes among pixels that count; ``present``, the share of images that have each class; ``pieces``, the
        median number of connected pieces where a class is there; ``single``, whether one piece is typical of it (nine tenths of the images
        that have it); ``areas``, the median area of a piece, pixels; ``sided``, whether two classes are each other's mirror images, as left and
        right lungs are.
    """
    pixels = np.zeros(256, dtype=np.int64)
    pieces: list[list[int]] = [[] for _ in range(classes)]
    areas: list[list[int]] = [[] for _ in range(classes)]
    middles: list[list[tuple[float, float]]] = []
    looked = spread(rows, _LOOKED_AT)
    for row in looked:
        labels = np.asarray(maps[row])
        middles.append([_middle(labels == number + 1) for number in range(classes)])
        pixels += np.bincount(labels.ravel(), minlength=256)
        for number in range(classes):
            inside = (labels == number + 1).astype(np.uint8)
            if inside.any():
                _count, _, stats, _ = cv2.connectedComponentsWithStats(inside, connectivity=8)
                # Specks of an annotator's hand or of shrinking are no pieces.
                sizes = stats[1:, cv2.CC_STAT_AREA]
                large = sizes[sizes >= max(4, 0.02 * sizes.max())]
                pieces[number].append(len(large))
                areas[number].extend(large.tolist())
    counted = max(1, int(pixels[: classes + 1].sum()))
    return {
        "shares": [float(value) / counted for value in pixels[: classes + 1]],
        "present": [len(found) / max(1, len(looked)) for found in pieces],
        "pieces": [float(np.median(found)) if found else 0.0 for found in pieces],
        "single": [bool(found) and float(np.mean(np.array(found) == 1)) >= 0.9 for found in pieces],
        "areas": [float(np.median(found)) if found else 0.0 for found in areas],
        "sided": _sided(np.array(middles).reshape(-1, classes, 2)),
        "images": len(rows),
        "height": int(maps.shape[1]),
        "width": int(maps.shape[2]),
    }


def level_facts(policy: InputPolicy) -> Facts:
    """Say what grey values mean.

    Returns
    -------
    dict
        ``relative``: True where only differences within an image count, as in grey 8-bit pictures, whose levels are a lamp's or a camera's. In 16-bit
        and float images levels may be measured (Hounsfield units), and in colour ones they may tell dyes apart whatever lies around: both are kept.
    """
    return {"relative": policy.dtype == "uint8" and policy.channels == 1}


def _middle(inside: NDArray[np.bool_]) -> tuple[float, float]:
    """Give the mean x, as a share of the width from the middle, and the share of the image that is inside; NaN where nothing is."""
    area = int(inside.sum())
    if not area:
        return float("nan"), float("nan")
    columns = inside.sum(axis=0)
    return float((columns * (np.arange(len(columns)) + 0.5)).sum() / area / len(columns) - 0.5), area / inside.size


def _sided(middles: NDArray[np.float64]) -> bool:
    """Look for two classes of about one size that always lie on opposite sides, ``(images, K, 2)`` of `_middle`."""
    for first in range(middles.shape[1]):
        for second in range(first + 1, middles.shape[1]):
            both = middles[~np.isnan(middles[:, [first, second], 0]).any(axis=1)][:, [first, second]]
            if len(both) < 8:
                continue
            apart = both[:, 0, 0] - both[:, 1, 0]
            opposite = (both[:, 0, 0] * both[:, 1, 0] < 0).mean() >= 0.9
            ordered = max((apart > 0.1).mean(), (apart < -0.1).mean()) >= 0.95
            alike = 0.5 < float(np.median(both[:, 0, 1] / both[:, 1, 1])) < 2.0
            if opposite and ordered and alike:
                return True
    return False


def instance_facts(targets: InstanceTargets, rows: NDArray[np.int64], classes: int) -> Facts:
    """Look at objects.

    Returns
    -------
    dict
        ``shares`` of background and classes among pixels that count; ``counts``, objects of each class; ``objects``: median and largest number
        in an image; ``diameters``: 5th, 50th and 95th percentile of the diameter of a disc of an object's area, pixels.
    """
    pixels = np.zeros(classes + 1, dtype=np.int64)
    areas: list[int] = []
    objects: list[int] = []
    counts = np.zeros(classes, dtype=np.int64)
    looked = spread(rows, _LOOKED_AT)
    for row in looked:
        ids, labels = np.asarray(targets.ids[row]), targets.objects(row)
        sizes = np.bincount(ids[ids >= 0], minlength=len(labels) + 1)
        pixels[0] += sizes[0]
        np.add.at(pixels, labels + 1, sizes[1:])
        counts += np.bincount(labels, minlength=classes)
        areas.extend(sizes[1:].tolist())
        objects.append(len(labels))
    diameters = np.percentile(np.sqrt(np.array(areas) * 4.0 / np.pi), (5, 50, 95)) if areas else np.zeros(3)
    counted = max(1, int(pixels.sum()))
    return {
        "shares": [float(value) / counted for value in pixels],
        "counts": counts.tolist(),
        "objects": [float(np.median(objects)) if objects else 0.0, int(max(objects, default=0))],
        "diameters": [float(value) for value in diameters],
        "images": len(rows),
        "height": int(targets.ids.shape[1]),
        "width": int(targets.ids.shape[2]),
    }
