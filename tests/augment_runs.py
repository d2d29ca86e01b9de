"""AugmentDataset's work without its job, and datasets to do it on."""

from __future__ import annotations

import hashlib
import io

import numpy as np
import tifffile

from oteo_augment.augmentation import augment_dataset
from oteo_core.datasets import DatasetInfo, DatasetReader, DatasetWriter, Sample
from oteo_core.images import ImageLimits, decode, encode_png, perceptual_hash, pixel_digest
from oteo_core.jobs.executor import InlineExecutor


class Kept:
    """Checkpoints in memory; stops the work after a number of saves."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.data: dict[str, bytes] = {}
        self.saves = 0
        self.stop_after = stop_after

    def save(self, name: str, data: bytes) -> None:
        self.check()
        self.data[name] = data
        self.saves += 1

    def load(self, name: str) -> bytes | None:
        return self.data.get(name)

    def check(self) -> None:
        if self.stop_after is not None and self.saves >= self.stop_after:
            raise KeyboardInterrupt


def add_image(writer: DatasetWriter, name: str, pixels: np.ndarray, **fields) -> None:
    if pixels.dtype == np.float32 or pixels.shape[2] not in (1, 3, 4):
        stream = io.BytesIO()
        tifffile.imwrite(stream, pixels, photometric="minisblack", planarconfig="contig")
        ending, data = "tif", stream.getvalue()
    else:
        ending, data = "png", encode_png(pixels)
    assert decode(data).pixels.shape == pixels.shape
    writer.add(
        Sample(
            id=name,
            path=writer.add_media(f"{name}.{ending}", data),
            source_path=f"in/{name}.{ending}",
            sha256=hashlib.sha256(data).hexdigest(),
            pixel_digest=pixel_digest(pixels),
            phash=perceptual_hash(pixels),
            width=pixels.shape[1],
            height=pixels.shape[0],
            channels=pixels.shape[2],
            dtype=pixels.dtype.name,
            **fields,
        )
    )


def run(store, plan, name, *, executor=None, kept=None, source="cells"):
    steps = []
    outcome = augment_dataset(
        store,
        source,
        plan,
        DatasetInfo(name, uid="u", create_time="2026-01-01T00:00:00+00:00"),
        staging=f"datasets/{name}",
        store_options={},
        limits=ImageLimits(),
        executor=executor or InlineExecutor(),
        checkpoints=kept or Kept(),
        progress=lambda done, total: steps.append((done, total)),
    )
    assert steps[-1][0] == steps[-1][1]
    assert steps == sorted(steps)
    return outcome, DatasetReader(store, name)


def files(store, name):
    """All of a dataset but its own name: every row, and the digest of every file."""
    reader = DatasetReader(store, name)
    media = {e.path.split("/", 2)[2]: hashlib.sha256(store.read_bytes(e.path)).hexdigest() for e in store.iter(f"datasets/{name}/media")}
    return list(reader.samples(include_excluded=True)), media, reader.info.digest
