"""Where trials keep what they have done, so that a killed search goes on where it was."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from oteo_core.artifacts import ArtifactStore, join
from oteo_core.errors import NotFound


class Checkpoints(Protocol):
    """Named bytes that outlive the process; picklable, for tasks. Writing is atomic."""

    def save(self, name: str, data: bytes) -> None:
        """Keep `data` under a name."""

    def load(self, name: str) -> bytes | None:
        """Give what was kept, or None."""

    def saved(self, prefix: str = "") -> list[str]:
        """Give the names that begin with `prefix`, sorted."""

    def discard(self, name: str) -> None:
        """Delete; nothing happens where there is nothing of that name."""


class StoredCheckpoints:
    """Checkpoints below a prefix of an artifact store.

    Parameters
    ----------
    root
        URI of the store.
    prefix
        Folder in it.
    options
        Of the store's file system.
    """

    def __init__(self, root: str, prefix: str, options: Mapping[str, Any] | None = None) -> None:
        self._root = root
        self._prefix = prefix
        self._options = dict(options or {})
        self._store: ArtifactStore | None = None

    @classmethod
    def of_operation(cls, store: ArtifactStore, operation: str) -> StoredCheckpoints:
        """Give the checkpoints of an operation, in a store that is open already."""
        made = cls(store.root_uri, f"operations/{operation}/checkpoints")
        made._store = store
        return made

    def __getstate__(self) -> dict[str, Any]:
        """Leave the open store behind: a process opens its own."""
        return {**self.__dict__, "_store": None}

    @property
    def store(self) -> ArtifactStore:
        """The store, opened when first used."""
        if self._store is None:
            self._store = ArtifactStore(self._root, **self._options)
        return self._store

    def save(self, name: str, data: bytes) -> None:
        """Write a file."""
        self.store.write_bytes(join(self._prefix, name), data)

    def load(self, name: str) -> bytes | None:
        """Read a file."""
        try:
            return self.store.read_bytes(join(self._prefix, name))
        except NotFound:
            return None

    def saved(self, prefix: str = "") -> list[str]:
        """List files."""
        names = (entry.path.removeprefix(f"{self._prefix}/") for entry in self.store.iter(self._prefix))
        return sorted(name for name in names if name.startswith(prefix))

    def discard(self, name: str) -> None:
        """Delete a file."""
        self.store.delete(join(self._prefix, name))
