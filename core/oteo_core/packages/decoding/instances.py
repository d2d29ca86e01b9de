"""From an instance segmentation's served outputs to objects with masks in pixels of the original."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from oteo_core.images.geometry import Placement, place
from oteo_core.images.policy import InputPolicy
from oteo_core.packages.answers import Instances
from oteo_core.packages.decoding.watershed import WATERSHED, watershed_objects

Floats = NDArray[np.float32]

MASKS = {"method": "masks", "foreground": 0.5, "score": 0.3, "overlap": 0.5, "smallest": 8.0}
"""What `decode_instances` takes where ``decoding`` is silent, for outputs with ``masks``; `WATERSHED` is the same for those with ``heights``."""


def decode_instances(
    outputs: Mapping[str, NDArray[Any]], sizes: Sequence[tuple[int, int]], policy: InputPolicy, decoding: Mapping[str, Any]
) -> list[Instances]:
    """Turn a batch of outputs into objects.

    Parameters
    ----------
    outputs
        ``probabilities`` ``(N, K + 1, H, W)``, background first, and either ``heights`` ``(N, H, W)`` float32, the distance from an object's
        border as a share of the object's largest, or ``masks`` ``(N, M, h, w)`` uint8 (255 is certain), ``scores`` ``(N, M)`` and ``classes`` ``(N, M)``.
    sizes
        Width and height of each original, pixels.
    policy
        How the originals became inputs.
    decoding
        ``method`` and thresholds; see `WATERSHED` and `MASKS`: ``foreground`` is the least probability of an object's pixel, ``smallest`` the
        fewest prepared pixels of an object, ``score`` the least of an object, ``overlap`` the share of a mask that others with higher scores may
        have taken.
    """
    found = []
    for number, (width, height) in enumerate(sizes):
        where = place(width, height, policy)
        own = {name: values[number] for name, values in outputs.items()}
        if decoding.get("method", "masks" if "masks" in outputs else "watershed") == "masks":
            found.append(_from_masks(own, where, MASKS | dict(decoding), policy))
        else:
            found.append(_from_heights(own, where, WATERSHED | dict(decoding)))
    return found


def _from_heights(outputs: Mapping[str, NDArray[Any]], where: Placement, settings: Mapping[str, Any]) -> Instances:
    window = (slice(where.top, where.top + where.inner_height), slice(where.left, where.left + where.inner_width))
    probabilities = np.asarray(outputs["probabilities"], dtype=np.float32)
    ids = watershed_objects(1.0 - probabilities[0][window], np.asarray(outputs["heights"], dtype=np.float32)[window], settings)
    found = described(ids, probabilities[(slice(None), *window)])
    found = selected(found, found.scores >= settings["score"])
    if (where.inner_height, where.inner_width) == (where.height, where.width):
        return found
    # Outlines are drawn at the original's own resolution: which object a pixel may belong to comes from the small map, grown a
    # little, and whether it belongs to any from the enlarged probability.
    whole = np.zeros(probabilities.shape[1:], dtype=np.int32)
    whole[window] = _grown(found.ids)
    inside = where.values_out(1.0 - probabilities[0]) > settings["foreground"]
    return without_empty(np.where(inside, where.plane_out(whole), 0).astype(np.int32), found.labels, found.scores)


def described(ids: NDArray[np.int32], probabilities: Floats) -> Instances:
    """Give objects ``(h, w)`` their most probable class and its mean probability as score; probabilities are ``(K + 1, h, w)``."""
    count = int(ids.max(initial=0))
    if not count:
        return Instances(ids, np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32))
    flat = ids.ravel()
    areas = np.maximum(np.bincount(flat, minlength=count + 1)[1:], 1)
    means = np.stack([np.bincount(flat, weights=plane.ravel(), minlength=count + 1)[1:] / areas for plane in probabilities[1:]])
    return Instances(ids, means.argmax(axis=0).astype(np.int64), np.clip(means.max(axis=0), 0.0, 1.0).astype(np.float32))


def selected(found: Instances, keep: NDArray[np.bool_]) -> Instances:
    """Give the objects that are to be kept, ``(M,)`` bool, numbered anew."""
    if keep.all():
        return found
    order = np.zeros(len(keep) + 1, dtype=np.int32)
    order[1:][keep] = np.arange(1, int(keep.sum()) + 1)
    return Instances(order[found.ids], found.labels[keep], found.scores[keep])


def without_empty(ids: NDArray[np.int32], labels: NDArray[np.int64], scores: Floats) -> Instances:
    """Give objects of a map of their numbers, those without a pixel left out."""
    there = np.bincount(ids.ravel(), minlength=len(labels) + 1)[1:] > 0
    return selected(Instances(ids, labels, scores), there)


def _grown(ids: NDArray[np.int32]) -> NDArray[np.int32]:
    """Let objects take the background next to them, two pixels far."""
    grown = ids
    for _ in range(2):
        # The largest number among the neighbours: ties between two objects go one way, always the same.
        spread = cv2.dilate(grown.astype(np.float32), np.ones((3, 3), np.uint8)).astype(np.int32)
        grown = np.where(grown == 0, spread, grown)
    return grown


def _from_masks(outputs: Mapping[str, NDArray[Any]], where: Placement, settings: Mapping[str, Any], policy: InputPolicy) -> Instances:
    """Lay masks on top of each other by falling score; each pixel is the first's that takes it."""
    ids = np.zeros((where.height, where.width), dtype=np.int32)
    labels: list[int] = []
    scores: list[float] = []
    masks, limit = outputs["masks"], 255.0 * settings["foreground"]
    step = policy.height / masks.shape[1]
    smallest = settings["smallest"] / max(where.scale_x * where.scale_y, 1e-12)
    order = np.argsort(-np.asarray(outputs["scores"]), kind="stable")
    for number in order[np.asarray(outputs["scores"])[order] >= settings["score"]].tolist():
        box = _extent(masks[number] > 0.5 * limit, step, where)
        if box is None:
            continue
        inside = _enlarged(masks[number], step, where, box) > limit
        area = int(inside.sum())
        own = ids[box]
        free = inside & (own == 0)
        if area < max(1.0, smallest) or free.sum() < (1.0 - settings["overlap"]) * area:
            continue
        labels.append(int(outputs["classes"][number]))
        scores.append(float(outputs["scores"][number]))
        own[free] = len(labels)
    return without_empty(ids, np.array(labels, dtype=np.int64), np.array(scores, dtype=np.float32))


def _extent(inside: NDArray[np.bool_], step: float, where: Placement) -> tuple[slice, slice] | None:
    """Give the original's rows and columns that a coarse mask may reach; None for an empty one."""
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    if not len(rows):
        return None
    top, bottom = (rows[0] - 1) * step - where.top, (rows[-1] + 2) * step - where.top
    left, right = (columns[0] - 1) * step - where.left, (columns[-1] + 2) * step - where.left
    found = (
        slice(int(np.clip(np.floor(top / where.scale_y), 0, where.height)), int(np.clip(np.ceil(bottom / where.scale_y), 0, where.height))),
        slice(int(np.clip(np.floor(left / where.scale_x), 0, where.width)), int(np.clip(np.ceil(right / where.scale_x), 0, where.width))),
    )
    return found if found[0].stop > found[0].start and found[1].stop > found[1].start else None


def _enlarged(mask: NDArray[Any], step: float, where: Placement, box: tuple[slice, slice]) -> Floats:
    """Look a coarse mask up at the centres of the original's pixels within a box, linearly."""
    y = ((np.arange(box[0].start, box[0].stop) + 0.5) * where.scale_y + where.top) / step - 0.5
    x = ((np.arange(box[1].start, box[1].stop) + 0.5) * where.scale_x + where.left) / step - 0.5
    map_x, map_y = np.meshgrid(x.astype(np.float32), y.astype(np.float32))
    found = cv2.remap(np.asarray(mask).astype(np.float32), map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(found, dtype=np.float32)
