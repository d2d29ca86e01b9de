"""Files of a dataset that is being made."""

from __future__ import annotations

import os

from oteo_core.artifacts import ArtifactStore
from oteo_core.errors import from_exception


class Target:
    """Where copies go: straight files on a local store, objects elsewhere.

    What is staged is nobody's until it is published, so that it needs neither the rename nor the flush that `write_bytes` makes for each
    object: a shard that was killed is written again as a whole.
    """

    def __init__(self, store: ArtifactStore, prefix: str) -> None:
        self._store = store
        self._prefix = prefix
        uri = self._store.uri(self._prefix)
        self._folder = uri.removeprefix("file://") if uri.startswith("file://") else ""
        self._made: set[str] = set()

    def write(self, path: str, data: bytes) -> None:
        """Write a file, inside the dataset's folder.

        Raises
        ------
        OteoError
            DISK_FULL, READ_ONLY_TARGET.
        """
        if not self._folder:
            self._store.write_bytes(f"{self._prefix}/{path}", data)
            return
        folder = path.rpartition("/")[0]
        try:
            if folder not in self._made:
                os.makedirs(f"{self._folder}/{folder}", exist_ok=True)
                self._made.add(folder)
            descriptor = os.open(f"{self._folder}/{path}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
            try:
                view = memoryview(data)
                while view:
                    view = view[os.write(descriptor, view) :]
            finally:
                os.close(descriptor)
        except OSError as exc:
            raise from_exception(exc) from exc


def staged_sizes(store: ArtifactStore, prefix: str) -> dict[str, int]:
    """Give the sizes, bytes, of what is staged, by paths inside the dataset's folder."""
    return {entry.path[len(prefix) + 1 :]: entry.size for entry in store.iter(prefix)}
