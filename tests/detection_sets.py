"""Drawn images with objects for tests of detection."""

from __future__ import annotations

import numpy as np

from oteo_core.packages import TrueBoxes


def discs(count: int, size: int = 64, channels: int = 3, seed: int = 0, most: int = 3) -> tuple[np.ndarray, list[TrueBoxes]]:
    """Draw bright discs of 5 to 10 pixels' radius on noise; every image has 0 to `most` that do not touch."""
    rng = np.random.default_rng(seed)
    ys, xs = np.mgrid[:size, :size] + 0.5
    images, truths = [], []
    for _ in range(count):
        image = rng.normal(70, 15, (size, size, channels))
        placed: list[tuple[float, float, float]] = []
        for _ in range(int(rng.integers(0, most + 1))):
            radius = rng.uniform(5, 10)
            x, y = rng.uniform(radius, size - radius, 2)
            if any(np.hypot(x - a, y - b) < radius + c + 2 for a, b, c in placed):
                continue
            placed.append((x, y, radius))
            image[(xs - x) ** 2 + (ys - y) ** 2 < radius**2] += 90
        images.append(image.clip(0, 255).astype(np.uint8))
        boxes = np.array([[x - r, y - r, x + r, y + r] for x, y, r in placed], np.float32).reshape(-1, 4)
        truths.append(TrueBoxes(boxes, np.zeros(len(boxes), np.int64), np.zeros(len(boxes), np.bool_)))
    return np.stack(images), truths
