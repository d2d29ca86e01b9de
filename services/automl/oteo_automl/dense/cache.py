"""A dense search's images and targets: made once on a machine, mapped into memory by its tasks."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oteo_automl.dense.base import DenseData, find_task
from oteo_automl.search.data import ImageCache
from oteo_core.artifacts import ArtifactStore
from oteo_core.datasets import DatasetReader

_TARGETS = "targets"


@dataclass(frozen=True)
class DenseCache:
    """Images ``(N, H, W, C)`` and what `DenseTask.build_targets` wrote, in a local folder; picklable.

    A task on another machine than the one that made the folder makes its own.

    Parameters
    ----------
    task
        Name of the dense task.
    images
        The images, in a file of a folder that holds nothing else.
    """

    task: str
    images: ImageCache

    def open(self) -> tuple[NDArray[Any], Any]:
        """Give images and targets, read-only; make them where they are not there."""
        folder = Path(self.images.path).parent
        if not Path(self.images.path).exists():
            digest = hashlib.sha256(repr((str(folder), self.images.dataset, self.images.policy)).encode()).hexdigest()[:16]
            folder = Path(tempfile.gettempdir()) / f"oteo-dense-{os.geteuid()}" / digest
            if not (folder / Path(self.images.path).name).exists():
                store = ArtifactStore(self.images.store_root, **self.images.store_options)
                reader = DatasetReader(store, self.images.dataset)
                self.build(reader, find_task(self.task).read(reader), folder)
        images: NDArray[Any] = np.load(folder / Path(self.images.path).name, mmap_mode="r")
        return images, find_task(self.task).open_targets(folder / _TARGETS)

    def build(
        self, reader: DatasetReader, data: DenseData, folder: Path | None = None, check: Callable[[], None] = lambda: None
    ) -> dict[int, str]:
        """Decode and prepare all images and write the targets; `check` is called now and then and may raise.

        Gives, by row, why an image or its mask cannot be read.
        """
        target = folder or Path(self.images.path).parent
        target.mkdir(mode=0o700, parents=True, exist_ok=True)
        own = target / f"{_TARGETS}.{os.getpid()}"
        shutil.rmtree(own, ignore_errors=True)
        own.mkdir()
        find_task(self.task).build_targets(data, self.images.policy, own, check)
        if not (target / _TARGETS).exists():
            own.replace(target / _TARGETS)
        # The images last: who finds them finds the targets too.
        unreadable = self.images.build(reader, data.rows, target / Path(self.images.path).name, check)
        masks = target / _TARGETS / "unreadable.json"
        if masks.exists():
            unreadable |= {int(row): f"mask: {why}" for row, why in json.loads(masks.read_text())}
        return unreadable
