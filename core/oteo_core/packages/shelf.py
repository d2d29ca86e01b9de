"""Packages of one kind in an artifact store: each a folder of a collection, which exists if its manifest does, because that is written last."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from typing import Generic, Protocol, TypeVar

from oteo_core.artifacts import ArtifactStore
from oteo_core.errors import NotFound

_ID = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")


class _Package(Protocol):
    id: str
    create_time: datetime


P = TypeVar("P", bound=_Package)


class Shelf(Generic[P]):
    """The packages of a collection.

    Parameters
    ----------
    kind
        What one is called: ``"model"``; its collection is ``"models"``, its refusals' reason ``MODEL_NOT_FOUND``.
    manifest
        Name of the file that makes a package exist.
    parse
        Reads a manifest; the package's URI is given by keyword, ``package_uri``.
    """

    def __init__(self, kind: str, manifest: str, parse: Callable[..., P]) -> None:
        self._kind, self._manifest, self._parse = kind, manifest, parse
        self._collection, self._reason = f"{kind}s", f"{kind.upper()}_NOT_FOUND"

    def prefix(self, name: str) -> str:
        """Give the folder of a package; its full name and the bare id are both understood.

        Raises
        ------
        NotFound
            Not an id that one can have.
        """
        bare = name.removeprefix(f"{self._collection}/")
        if not _ID.fullmatch(bare):
            raise NotFound(f"{name!r} is not the name of a {self._kind}", reason=self._reason, field="name")
        return f"{self._collection}/{bare}"

    def read(self, store: ArtifactStore, name: str) -> P:
        """Read one manifest.

        Raises
        ------
        NotFound
            There is none of that name.
        DataLoss
            ``BROKEN_PACKAGE``: its manifest cannot be read.
        """
        prefix = self.prefix(name)
        try:
            data = store.read_bytes(f"{prefix}/{self._manifest}")
        except NotFound as error:
            raise NotFound(f"there is no {self._kind} {prefix}", reason=self._reason, field="name") from error
        return self._parse(data, package_uri=store.uri(prefix))

    def list(self, store: ArtifactStore) -> list[P]:
        """Read all manifests, newest first. A folder without a manifest is passed over."""
        found: list[P] = []
        for child in store.children(self._collection):
            if not _ID.fullmatch(child):
                continue
            try:
                found.append(self.read(store, child))
            except NotFound:
                # Being written, or deleted while we look.
                continue
        return sorted(found, key=lambda package: (package.create_time, package.id), reverse=True)

    def delete(self, store: ArtifactStore, name: str, *, allow_missing: bool = False) -> bool:
        """Delete a package, its manifest first, so that it is never seen half-deleted; False where there was none and `allow_missing` is set.

        Raises
        ------
        NotFound
            There is none, and `allow_missing` is not set.
        """
        prefix = self.prefix(name)
        existed = store.exists(f"{prefix}/{self._manifest}")
        if not existed and not allow_missing:
            raise NotFound(f"there is no {self._kind} {prefix}", reason=self._reason, field="name")
        store.delete(f"{prefix}/{self._manifest}")
        # Also without a manifest: what an interrupted deletion left.
        store.delete(prefix)
        return existed
