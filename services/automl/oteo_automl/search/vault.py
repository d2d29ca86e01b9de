"""A folder in the artifact store that the driver and its tasks share: data, checkpoints, results."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from oteo_automl.search.data import TrainingData
from oteo_core.artifacts import ArtifactStore
from oteo_core.errors import NotFound

DATA = "data"


@dataclass(frozen=True)
class Vault:
    """Names to bytes, atomically; small enough to be sent to tasks.

    Attributes
    ----------
    root, options
        URI and storage options of the artifact store.
    prefix
        Folder in it: the operation's checkpoints.
    """

    root: str
    prefix: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def store(self) -> ArtifactStore:
        """Open the store."""
        return ArtifactStore(self.root, **self.options)

    def save(self, name: str, data: bytes) -> None:
        """Write; a reader sees the old or the new, never half."""
        self.store().write_bytes(f"{self.prefix}/{name}", data)

    def load(self, name: str) -> bytes | None:
        """Read; None where there is none of that name."""
        try:
            return self.store().read_bytes(f"{self.prefix}/{name}")
        except NotFound:
            return None

    def delete(self, name: str) -> None:
        """Forget; nothing happens where there is none."""
        self.store().delete(f"{self.prefix}/{name}")

    def put_data(self, folder: Path) -> None:
        """Put the prepared data, ``data.json`` last."""
        store = self.store()
        for name in ("images.npy", "data.json"):
            store.put_file(folder / name, f"{self.prefix}/{DATA}/{name}")

    def has_data(self) -> bool:
        """Say whether the prepared data is there."""
        return self.store().exists(f"{self.prefix}/{DATA}/data.json")

    def open_data(self) -> TrainingData:
        """Open the prepared data: mapped in place on a file system, else from a copy that the processes of this machine share."""
        store = self.store()
        with store.local(f"{self.prefix}/{DATA}/data.json") as path:
            if self.root.startswith("file://"):
                return TrainingData.open(path.parent)
        target = Path(tempfile.gettempdir()) / "oteo-data" / self.prefix.replace("/", "_")
        if not (target / "data.json").exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            partial = Path(tempfile.mkdtemp(dir=target.parent))
            store.get_tree(f"{self.prefix}/{DATA}", partial)
            try:
                partial.rename(target)
            except OSError:
                # Another process was quicker.
                shutil.rmtree(partial)
        return TrainingData.open(target)
