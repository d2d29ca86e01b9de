"""The engine that defines the result: albumentations and OpenCV, the same bytes on any machine's every run."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oteo_core.augmentation.catalogue import TransformSpec
from oteo_core.augmentation.engines.base import Applied, Border, Values


class CpuEngine:
    """Applies steps by albumentations; `oteo_core.augmentation.engines.base.Engine` says how."""

    def apply(
        self, transform: Any, spec: TransformSpec, pixels: NDArray[Any], values: Values, generator: np.random.Generator, border: Border
    ) -> Applied:
        """Apply one step; give the pixels, and what was drawn."""
        transform.set_random_state(generator, random.Random(int(generator.integers(0, 2**63))))
        dtype = pixels.dtype
        # albumentations computes brightness for uint8 and float32 only, and holds float32 to be within 0 to 1: it clips.
        low, span = 0.0, 1.0
        if dtype == np.uint16 and spec.unit_range:
            span = 65535.0
        elif dtype == np.uint8 and spec.in_float:
            span = 255.0
        elif spec.mixes and not values.unit:
            low, span = values.low, max(values.high - values.low, float(np.finfo(np.float32).tiny))
        scaled = (low, span) != (0.0, 1.0)
        work = (pixels.astype(np.float32) - np.float32(low)) / np.float32(span) if scaled else pixels
        fills = spec.geometric and border is Border.CONSTANT and hasattr(transform, "fill")
        changed = _once(transform, work, fills) if work.shape[2] <= 4 or spec.unit_range else _by_parts(transform, work, generator, fills)
        params: dict[str, Any] = transform.get_applied_params()
        if scaled:
            changed = changed * np.float32(span) + np.float32(low)
            if dtype.kind == "u":
                changed = np.rint(changed)
        return Applied(changed.astype(dtype, copy=False), params)


def _once(transform: Any, pixels: NDArray[Any], fills: bool) -> NDArray[Any]:
    if fills:
        transform.fill = _edge_colour(pixels)
    return _restored(transform(image=np.ascontiguousarray(pixels))["image"])


def _edge_colour(pixels: NDArray[Any]) -> tuple[float, ...]:
    """Give the median of an image's outermost pixels, a value a channel."""
    edge = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    return tuple(float(value) for value in np.median(edge, axis=0).astype(pixels.dtype))


def _by_parts(transform: Any, pixels: NDArray[Any], generator: np.random.Generator, fills: bool) -> NDArray[Any]:
    """Apply one draw to four channels at a time: most of OpenCV takes no more."""
    seed = int(generator.integers(0, 2**63))
    parts = []
    for start in range(0, pixels.shape[2], 4):
        transform.set_random_state(np.random.Generator(np.random.Philox(key=seed)), random.Random(seed))
        parts.append(_once(transform, pixels[:, :, start : start + 4], fills))
    return np.concatenate(parts, axis=2)


def _restored(pixels: NDArray[Any]) -> NDArray[Any]:
    """Give back the axis of a single channel, which OpenCV drops."""
    return pixels[:, :, None] if pixels.ndim == 2 else pixels
