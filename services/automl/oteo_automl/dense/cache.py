"""A dense search's images and targets: made once on a machine, mapped into memory by its tasks."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oteo_automl.dense.base import DenseData, find_task
from oteo_automl.search.data import ImageCache
from oteo_core.artifacts import ArtifactStore
from oteo_core.datasets import DatasetReader
from oteo_core.images import InputPolicy

_IMAGES = "images.npy"
_TARGETS = "targets"


@dataclass(frozen=True)
class DenseCache:
    """Images ``(N, H, W, C)`` and what `DenseTask.build_targets` wrote, in a local folder; picklable.

    A task on another machine than the one that made the folder makes its own.

    Parameters
    ----------
    task
        Name of the dense task.
    folder
        Local folder.
    store_root, store_options
        Where the dataset lies.
    dataset
        Its id.
    policy
        How images are prepared.
    max_pixels, max_bytes
        Limits of decoding.
    """

    task: str
    folder: str
    store_root: str
    dataset: str
    policy: InputPolicy
    store_options: Mapping[str, Any] = field(default_factory=dict)
    max_pixels: int = 100_000_000
    max_bytes: int = 512 * 1024 * 1024

    def open(self) -> tuple[NDArray[Any], Any]:
        """Give images and targets, read-only; make them where they are not there."""
        folder = Path(self.folder)
        if not (folder / _IMAGES).exists():
            digest = hashlib.sha256(repr((self.folder, self.dataset, self.policy)).encode()).hexdigest()[:16]
            folder = Path(tempfile.gettempdir()) / f"oteo-dense-{os.geteuid()}" / digest
            if not (folder / _IMAGES).exists():
                reader = DatasetReader(ArtifactStore(self.store_root, **self.store_options), self.dataset)
                self.build(reader, find_task(self.task).read(reader), folder)
        images: NDArray[Any] = np.load(folder / _IMAGES, mmap_mode="r")
        return images, find_task(self.task).open_targets(folder / _TARGETS)

    def build(
        self, reader: DatasetReader, data: DenseData, folder: Path | None = None, check: Callable[[], None] = lambda: None
    ) -> dict[int, str]:
        """Decode and prepare all images and write the targets; `check` is called now and then and may raise.

        Gives, by row, why an image or its mask cannot be read.
        """
        target = folder or Path(self.folder)
        target.mkdir(mode=0o700, parents=True, exist_ok=True)
        own = target / f"{_TARGETS}.{os.getpid()}"
        shutil.rmtree(own, ignore_errors=True)
        own.mkdir()
        find_task(self.task).build_targets(data, self.policy, own, check)
        if not (target / _TARGETS).exists():
            own.replace(target / _TARGETS)
        images = ImageCache(
            str(target / _IMAGES), self.store_root, self.dataset, self.policy, self.store_options, self.max_pixels, self.max_bytes
        )
        # The images last: who finds them finds the targets too.
        unreadable = images.build(reader, data.rows, check=check)
        masks = target / _TARGETS / "unreadable.json"
        if masks.exists():
            unreadable |= {int(row): f"mask: {why}" for row, why in json.loads(masks.read_text())}
        return unreadable
