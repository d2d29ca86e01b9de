"""Small sets of images for tests of shift, of any depth and number of channels."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import tifffile

from oteo_core.artifacts import ArtifactStore
from oteo_core.datasets import DatasetInfo, DatasetReader, DatasetWriter, MaskEncoding, Sample
from oteo_core.images import encode_png, pixel_digest


def textured(index: int, *, level: float = 0.5, side: int = 40, channels: int = 3, noise: float = 0.05) -> np.ndarray:
    """Draw a blob on a ground of some brightness, uint8 ``(side, side, channels)``; every index is another image."""
    rng = np.random.default_rng([index, 99])
    across, down = np.meshgrid(np.linspace(-1, 1, side), np.linspace(-1, 1, side))
    middle = rng.uniform(-0.3, 0.3, 2)
    blob = np.exp(-((across - middle[0]) ** 2 + (down - middle[1]) ** 2) / rng.uniform(0.05, 0.2))
    image = level + rng.normal(0, 0.03) - 0.3 * blob[:, :, None] + rng.normal(0, noise, (side, side, channels))
    return np.clip(image * 255, 0, 255).astype(np.uint8)


def encoded(pixels: np.ndarray) -> tuple[str, bytes]:
    """Give a file's ending and bytes that hold these pixels: PNG, or TIFF where PNG cannot."""
    if pixels.dtype == np.float32 or pixels.shape[2] > 4:
        buffer = io.BytesIO()
        flat = pixels.shape[2] == 1
        tifffile.imwrite(buffer, pixels[:, :, 0] if flat else pixels, photometric="minisblack", planarconfig=None if flat else "contig")
        return "tif", buffer.getvalue()
    return "png", encode_png(pixels)


def write(
    store: ArtifactStore,
    name: str,
    images: Sequence[np.ndarray],
    *,
    task: str = "classification",
    classes: Sequence[str] = ("dark", "middle", "light"),
    labels: Sequence[str | None] | None = None,
    groups: Sequence[str] | None = None,
    splits: Sequence[str] | None = None,
    masks: Sequence[np.ndarray] | None = None,
    spoilt: Sequence[int] = (),
    copies: Sequence[int] = (),
    **info: Any,
) -> DatasetReader:
    """Write a dataset as an import does; `spoilt` files are cut off, `copies` are noted as augmented."""
    mask = MaskEncoding("class", tuple(range(1, len(classes) + 1))) if masks is not None else None
    made = DatasetInfo(id=name, display_name=name.title(), task=task, classes=tuple(classes), mask=mask, **info)
    with DatasetWriter(store, f"datasets/{name}", made) as writer:
        for index, pixels in enumerate(images):
            ending, data = encoded(pixels)
            if index in spoilt:
                data = data[: len(data) // 2]
            given = labels[index] if labels is not None else None if masks is not None else "middle"
            writer.add(
                Sample(
                    id=f"s{index:03d}",
                    path=writer.add_media(f"{index}.{ending}", data),
                    source_path=f"{name}/{index}.{ending}",
                    sha256=hashlib.sha256(data).hexdigest(),
                    pixel_digest=pixel_digest(pixels),
                    width=pixels.shape[1],
                    height=pixels.shape[0],
                    channels=pixels.shape[2],
                    dtype=pixels.dtype.name,
                    bit_depth=16 if pixels.dtype == np.uint16 else 8,
                    split=splits[index] if splits is not None else "test",
                    group=groups[index] if groups is not None else "",
                    labels=(given,) if given else (),
                    mask_path=writer.add_media(f"m{index}.png", encode_png(masks[index][:, :, None])) if masks is not None else "",
                    derived_from="s000" if index in copies else "",
                )
            )
        writer.finish()
    return DatasetReader(store, name)
