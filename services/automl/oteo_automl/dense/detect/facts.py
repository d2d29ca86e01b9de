"""What a dataset's objects are like, and what input follows from them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from oteo_automl.candidates.training import has_bfloat16
from oteo_automl.dense.detect.targets import BoxTable
from oteo_core.images import InputPolicy
from oteo_core.packages import TrueBoxes

_FEWEST_ANSWERS, _MOST_ANSWERS = 100, 300
_EPOCHS = 40
"""Epochs that the time shall allow."""
_SHARE = 0.5
"""Of the budget, for one training."""
_SECONDS = {"bfloat16": 1.1, "float32": 2.1, "gpu": 0.02}
"""Seconds of a training step of ``centre-resnet18`` for a million pixels on one core, or on a GPU (measured: docs/benchmarks.md)."""
_LEAST_SIDE, _MOST_SIDE = 64, {"cpu": 768, "gpu": 1344}
_USUAL_SMALL = 40.0
"""Prepared pixels of the smaller objects' sides above which more pixels tell little."""
_LEAST_SMALL = 12.0
"""Below this, images that are small themselves are enlarged."""
_FEW = 8
"""Objects of a class that say something of its size."""
_STRETCHED = 1.1
"""Widest spread of the images' proportions that is stretched away."""


def box_facts(table: BoxTable, rows: NDArray[np.int64], policy: InputPolicy, classes: int) -> dict[str, Any]:
    """Look at the boxes of training rows.

    Returns
    -------
    dict
        ``input`` (width and height, prepared pixels); ``objects``, ``crowds`` (counts), ``images``, ``empty_images``; ``per_image`` (median, 95th percentile and most); ``by_class``
        (counts); ``side`` (percentiles 5, 25, 50, 75, 95 of the square root of the area, prepared pixels), ``short`` (the same of the
        shorter side), ``aspect`` (the same of width to height); ``limit``: objects that may be found in an image.
    """
    parts = list(table.rows(rows))
    counts = np.array([int((~part.crowd).sum()) for part in parts], dtype=np.int64)
    boxes = np.concatenate([np.zeros((0, 4), np.float32), *(part.boxes[~part.crowd] for part in parts)])
    labels = np.concatenate([np.zeros(0, np.int64), *(part.labels[~part.crowd] for part in parts)])
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 1e-3)
    most = int(counts.max()) if len(counts) else 0
    return {
        "input": [policy.width, policy.height],
        "images": len(rows),
        "empty_images": int((counts == 0).sum()),
        "objects": len(labels),
        "crowds": int(sum(part.crowd.sum() for part in parts)),
        "per_image": [float(np.median(counts)), float(np.percentile(counts, 95)), most] if len(counts) else [0.0, 0.0, 0],
        "by_class": np.bincount(labels, minlength=classes).tolist(),
        "side": _percentiles(np.sqrt(sides.prod(axis=1)), 0.1 * min(policy.width, policy.height)),
        "short": _percentiles(sides.min(axis=1), 0.1 * min(policy.width, policy.height)),
        "aspect": _percentiles(sides[:, 0] / sides[:, 1], 1.0),
        "limit": int(np.clip(math.ceil(2 * most / 20) * 20, _FEWEST_ANSWERS, _MOST_ANSWERS)),
    }


def _percentiles(values: NDArray[Any], otherwise: float) -> list[float]:
    if len(values) == 0:
        return [otherwise] * 5
    return [round(float(value), 3) for value in np.percentile(values, [5, 25, 50, 75, 95])]


def box_policy(
    sizes: NDArray[np.int64],
    truths: Sequence[TrueBoxes],
    *,
    count: int,
    deep: bool,
    bit_depth: int,
    gpu: bool,
    budget: float,
    channels: int,
    largest: int = 0,
) -> InputPolicy:
    """Choose how images become inputs.

    The images' own size; twice that where images and objects are small; less where objects are large, or where the time would not
    allow some forty epochs. Proportions that hardly differ are stretched to one, others keep theirs.

    Parameters
    ----------
    sizes
        ``(N, 2)`` width and height of the originals, pixels.
    truths
        Boxes of some training images, original pixels.
    count
        Training images.
    deep, bit_depth, channels
        Of the pixels.
    gpu, budget
        What there is: a GPU, seconds.
    largest
        Limit of the longer side, pixels; 0: none but what is usual.
    """
    widths, heights = np.maximum(sizes[:, 0], 1), np.maximum(sizes[:, 1], 1)
    width, height = float(np.median(widths)), float(np.median(heights))
    low, high = np.percentile(widths / heights, [5, 95])
    small = _small_side(truths)
    scale = 1.0
    if small > 0:
        if small < _LEAST_SMALL and max(width, height) < 512:
            scale = min(2.0, _LEAST_SMALL / small)
        scale = min(scale, max(_USUAL_SMALL / small, 128.0 / min(width, height)))
    most = largest or _MOST_SIDE["gpu" if gpu else "cpu"]
    scale = min(scale, most / max(width, height))
    pixels = 1e6 * _SHARE * budget / (_EPOCHS * max(1, count) * _cost(gpu))
    if not largest:
        scale = min(scale, max(math.sqrt(pixels / (width * height)), 128.0 / max(width, height)))
    limit = max(_LEAST_SIDE, most // 32 * 32)
    inner = [int(np.clip(round(side * scale / 32) * 32, _LEAST_SIDE, limit)) for side in (width, height)]
    return InputPolicy(
        width=inner[0],
        height=inner[1],
        channels=channels,
        dtype="float32" if deep else "uint8",
        bit_depth=bit_depth,
        resize="stretch" if high / low <= _STRETCHED else "letterbox",
    )


def _small_side(truths: Sequence[TrueBoxes]) -> float:
    """Give the shorter side of the smaller objects of the class that has the smallest, pixels; 0 without objects."""
    boxes = np.concatenate([np.zeros((0, 4), np.float32), *(truth.boxes for truth in truths)])
    labels = np.concatenate([np.zeros(0, np.int64), *(truth.labels for truth in truths)])
    sides = (boxes[:, 2:] - boxes[:, :2]).min(axis=1)
    counts = np.bincount(labels, minlength=1)
    found = [float(np.percentile(sides[labels == number], 10)) for number in np.flatnonzero(counts >= min(_FEW, counts.max()))]
    return min(found) if len(labels) else 0.0


def _cost(gpu: bool) -> float:
    if gpu:
        return _SECONDS["gpu"]
    return float(_SECONDS["bfloat16" if has_bfloat16() else "float32"] / torch.get_num_threads() ** 0.8)
