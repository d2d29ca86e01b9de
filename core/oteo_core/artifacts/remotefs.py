"""A store on any other file system that fsspec knows: S3, memory, and so on."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, cast

import fsspec

from oteo_core.artifacts.backend import Backend, Entry

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class RemoteBackend(Backend):
    """Objects of an fsspec file system; each is written by one call, which such stores make atomic.

    Parameters
    ----------
    root_uri
        URI of the root, such as ``s3://bucket/folder``.
    options
        Given to the file system: endpoint, credentials and the like. Without them the file system takes its usual environment
        (for S3: ``AWS_ENDPOINT_URL``, ``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY``, ``AWS_REGION`` or a profile).
    """

    def __init__(self, root_uri: str, options: Mapping[str, Any]) -> None:
        self.root_uri = root_uri.rstrip("/")
        # Other processes write too: a remembered listing would be wrong. (Not every file system takes this option, all keep it apart.)
        self._fs, root = fsspec.core.url_to_fs(root_uri, **{"use_listings_cache": False, **options})
        self._root = root.rstrip("/")
        # S3's asks for the size before each reading, to read what is very large by several requests: here one is enough.
        self._whole: dict[str, Any] = {"max_concurrency": 1} if "s3" in self._fs.protocol else {}

    def _at(self, path: str) -> str:
        return f"{self._root}/{path}" if path else self._root

    def is_file(self, path: str) -> bool:
        """Say whether there is an object of exactly this path."""
        return bool(self._fs.isfile(self._at(path)))

    def read(self, path: str) -> bytes:
        """Give an object's bytes."""
        return cast(bytes, self._fs.cat_file(self._at(path), **self._whole))

    def open(self, path: str) -> BinaryIO:
        """Open an object for reading, in blocks."""
        return cast(BinaryIO, self._fs.open(self._at(path), "rb"))

    def write(self, path: str, data: bytes) -> None:
        """Write an object by one call."""
        self._fs.pipe_file(self._at(path), data)

    def put(self, source: Path, path: str) -> None:
        """Send a local file, in parts where it is large."""
        self._fs.put_file(str(source), self._at(path))

    def iterate(self, prefix: str) -> Iterator[Entry]:
        """List the objects below a folder."""
        top = self._at(prefix)
        try:
            found: dict[str, dict[str, Any]] = self._fs.find(top, detail=True)
        except FileNotFoundError:
            return
        for name in sorted(found):
            # Some file systems give the object itself where the prefix is one: it is not below itself.
            if name != top and name.startswith(f"{top}/"):
                yield Entry(name[len(self._root) :].lstrip("/"), int(found[name].get("size") or 0), _modified(found[name]))

    def children(self, prefix: str) -> list[str]:
        """List the names in a folder."""
        top = self._at(prefix)
        try:
            names: list[str] = self._fs.ls(top, detail=False)
        except (FileNotFoundError, NotADirectoryError):
            return []
        found = {name.rstrip("/") for name in names}
        # Memory keeps folders that have become empty; an object store does not.
        return sorted(
            name.rsplit("/", 1)[-1]
            for name in found
            if name.startswith(f"{top}/") and (self._fs.isfile(name) or any(True for _ in self._fs.find(name)))
        )

    def delete(self, prefix: str) -> None:
        """Delete the object and what lies below the prefix."""
        top = self._at(prefix)
        for name in [entry.path for entry in self.iterate(prefix)]:
            self._remove(self._at(name))
        self._remove(top)

    def _remove(self, name: str) -> None:
        try:
            if self._fs.isfile(name):
                self._fs.rm_file(name)
            elif self._fs.isdir(name):
                self._fs.rm(name, recursive=True)
        except FileNotFoundError:
            # Somebody else was faster: it is gone, which was wanted.
            return

    @contextmanager
    def local(self, path: str) -> Iterator[Path]:
        """Give a temporary copy that keeps the object's name."""
        with tempfile.TemporaryDirectory(prefix="oteo-artifact-") as folder:
            copy = Path(folder) / path.rsplit("/", 1)[-1]
            with self._fs.open(self._at(path), "rb") as source, copy.open("wb") as goal:
                shutil.copyfileobj(source, goal, 1 << 20)
            yield copy

    def publish(self, staging: str, target: str, manifest: str) -> None:
        """Copy every object, the manifest last, then delete the staging."""
        last = f"{staging}/{manifest}"
        names = [entry.path for entry in self.iterate(staging)]
        if last not in names and not self.is_file(f"{target}/{manifest}"):
            raise FileNotFoundError(self._at(last))
        for name in [*(name for name in names if name != last), *(name for name in names if name == last)]:
            self._fs.cp_file(self._at(name), self._at(f"{target}/{name.removeprefix(f'{staging}/')}"))
        self.delete(staging)


def _modified(info: Mapping[str, Any]) -> datetime:
    for key in ("LastModified", "mtime", "created", "last_modified"):
        value = info.get(key)
        if isinstance(value, datetime):
            return value if value.tzinfo else value.replace(tzinfo=UTC)
        if isinstance(value, int | float):
            return datetime.fromtimestamp(value, UTC)
    return _EPOCH
