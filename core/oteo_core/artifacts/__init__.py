"""The artifact store: datasets, models and the files of operations, on any fsspec file system."""

from __future__ import annotations

from oteo_core.artifacts.paths import check_path, join
from oteo_core.artifacts.store import ArtifactStore, Entry, open_store, split_uri

__all__ = ["ArtifactStore", "Entry", "check_path", "join", "open_store", "split_uri"]
