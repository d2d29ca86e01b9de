"""From a detector's outputs to objects in original pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oteo_core.images import InputPolicy
from oteo_core.images.geometry import place
from oteo_core.packages.answers import Detections


def decode_detections(
    outputs: Mapping[str, NDArray[Any]],
    sizes: Sequence[tuple[int, int]],
    policy: InputPolicy,
    decoding: Mapping[str, Any],
) -> list[Detections]:
    """Turn a batch of outputs into objects, also unlikely ones; `confident` keeps those that a person is shown.

    Parameters
    ----------
    outputs
        ``boxes`` float32 ``(N, M, 4)`` left, top, right, bottom in prepared pixels, ``scores`` float32 ``(N, M)`` falling, 0 where there is
        nothing, ``classes`` int64 ``(N, M)``.
    sizes
        Width and height of the N originals, pixels.
    policy
        How they were prepared.
    decoding
        `ModelPackage.decoding`; ``nms_iou``, where above 0, is the overlap from which a box of the same class gives way to a likelier one.
    """
    overlap = float(decoding.get("nms_iou") or 0.0)
    found = []
    for row, (width, height) in enumerate(sizes):
        scores = np.asarray(outputs["scores"][row], dtype=np.float32)
        labels = np.asarray(outputs["classes"][row], dtype=np.int64)
        boxes = place(width, height, policy).boxes_out(np.asarray(outputs["boxes"][row], dtype=np.float64))
        # What lies wholly in the padding of a letterbox has no area left.
        kept = np.flatnonzero((scores > 0) & (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1]))
        kept = kept[np.argsort(-scores[kept], kind="stable")]
        if overlap > 0:
            kept = kept[suppress(boxes[kept], scores[kept], labels[kept], overlap)]
        found.append(Detections(boxes[kept], scores[kept], labels[kept]))
    return found


def confident(found: Detections, decoding: Mapping[str, Any]) -> Detections:
    """Keep the objects whose score reaches their class's threshold.

    Parameters
    ----------
    found
        Of one image.
    decoding
        ``score_threshold``: a number, or one for each class in their order; without it 0.5 counts.
    """
    thresholds = np.atleast_1d(np.asarray(decoding.get("score_threshold", 0.5), dtype=np.float64))
    wanted = thresholds[np.minimum(found.labels, len(thresholds) - 1)]
    kept = found.scores >= wanted
    return Detections(found.boxes[kept], found.scores[kept], found.labels[kept])


def suppress(boxes: NDArray[np.float32], scores: NDArray[np.float32], labels: NDArray[np.int64], overlap: float) -> NDArray[np.int64]:
    """Give the indices of boxes that no likelier box of their class overlaps by more than `overlap`, likeliest first.

    Parameters
    ----------
    boxes, scores, labels
        ``(M, 4)``, ``(M,)`` and ``(M,)``.
    overlap
        Intersection over union, 0 to 1.
    """
    order = np.argsort(-scores, kind="stable")
    shared = overlaps(boxes[order], boxes[order]) > overlap
    shared &= labels[order][:, None] == labels[order][None, :]
    kept: list[int] = []
    gone = np.zeros(len(order), dtype=np.bool_)
    for index in range(len(order)):
        if not gone[index]:
            kept.append(index)
            gone |= shared[index]
    return order[np.array(kept, dtype=np.int64)]


def overlaps(first: NDArray[Any], second: NDArray[Any]) -> NDArray[np.float64]:
    """Give the intersection over union of each of ``(A, 4)`` with each of ``(B, 4)`` boxes: ``(A, B)``; 0 where a box has no area."""
    common, areas, others = _shared(first, second)
    whole = areas[:, None] + others[None] - common
    return np.asarray(np.divide(common, whole, out=np.zeros_like(common), where=whole > 0))


def inside(first: NDArray[Any], second: NDArray[Any]) -> NDArray[np.float64]:
    """Give the share of each of ``(A, 4)`` boxes that lies in each of ``(B, 4)``: ``(A, B)``; 0 where a box has no area."""
    common, areas, _ = _shared(first, second)
    whole = np.broadcast_to(areas[:, None], common.shape)
    return np.asarray(np.divide(common, whole, out=np.zeros_like(common), where=whole > 0))


def _shared(first: NDArray[Any], second: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Give the areas that boxes share, ``(A, B)``, and their own, ``(A,)`` and ``(B,)``."""
    one, two = first.astype(np.float64), second.astype(np.float64)
    sides = np.clip(np.minimum(one[:, None, 2:], two[None, :, 2:]) - np.maximum(one[:, None, :2], two[None, :, :2]), 0.0, None)
    areas, others = (np.clip(boxes[:, 2:] - boxes[:, :2], 0.0, None).prod(axis=1) for boxes in (one, two))
    return sides[..., 0] * sides[..., 1], areas, others
