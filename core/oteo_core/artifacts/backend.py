"""What a store asks of the storage behind it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO


@dataclass(frozen=True, slots=True)
class Entry:
    """One object of a store."""

    path: str
    """Path relative to the store's root."""
    size: int
    """Bytes."""
    modified: datetime
    """When it was last written, in UTC."""


class Backend(ABC):
    """Storage under a root. Paths are checked by the caller; the empty path is the root itself.

    Writes are atomic one object at a time: a reader sees the old bytes or the new ones. Methods raise the errors of the storage
    (`OSError` and its kin); the store turns them into `OteoError`.
    """

    root_uri: str
    """URI of the root, without a trailing slash."""

    @abstractmethod
    def is_file(self, path: str) -> bool:
        """Say whether there is an object of exactly this path."""

    @abstractmethod
    def read(self, path: str) -> bytes:
        """Give an object's bytes; FileNotFoundError where there is none."""

    @abstractmethod
    def write(self, path: str, data: bytes) -> None:
        """Write an object whole."""

    @abstractmethod
    def open(self, path: str) -> BinaryIO:
        """Open an object for reading; seekable."""

    @abstractmethod
    def put(self, source: Path, path: str) -> None:
        """Write an object from a local file."""

    @abstractmethod
    def iterate(self, prefix: str) -> Iterator[Entry]:
        """Give all objects below a folder, recursively, sorted by path; none where it is missing."""

    @abstractmethod
    def children(self, prefix: str) -> list[str]:
        """Give the names directly in a folder, sorted; none where it is missing."""

    @abstractmethod
    def delete(self, prefix: str) -> None:
        """Delete an object or a folder with all that is in it; nothing happens where it is missing."""

    @abstractmethod
    def local(self, path: str) -> AbstractContextManager[Path]:
        """Give a local file with an object's bytes for the time of the context."""

    @abstractmethod
    def publish(self, staging: str, target: str, manifest: str) -> None:
        """Move all objects below `staging` to `target`, `manifest` last."""
