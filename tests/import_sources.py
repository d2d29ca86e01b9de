"""Sources for tests of importing, with pictures that are all different."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from oteo_core.images import encode_jpeg, encode_png


def picture(seed: int, size: tuple[int, int] = (48, 64), channels: int = 3) -> np.ndarray:
    """Draw a picture whose coarse form depends on the seed, so that no two look alike."""
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 12, channels), dtype=np.uint8)
    pixels = cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC)
    return pixels if pixels.ndim == 3 else pixels[:, :, None]


def write_picture(path: Path, seed: int, **kind: Any) -> bytes:
    """Write a picture as PNG or JPEG, after the path's ending; give its bytes."""
    pixels = picture(seed, **kind)
    data = encode_jpeg(pixels) if path.suffix in (".jpg", ".jpeg") else encode_png(pixels)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return data


def class_folders(root: Path, counts: dict[str, int], first_seed: int = 0) -> Path:
    """Write so many pictures for each folder."""
    seed = first_seed
    for name, count in counts.items():
        for index in range(count):
            write_picture(root / name / f"{index:03}.png", seed)
            seed += 1
    return root


def write_json(path: Path, content: Any) -> None:
    """Write JSON, with the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
