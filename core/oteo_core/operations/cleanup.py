"""Removing what operations leave in the artifact store."""

from __future__ import annotations

import hashlib

from oteo_core.artifacts import ArtifactStore
from oteo_core.errors import NotFound
from oteo_core.jobs import files
from oteo_core.jobs.scratch import sweep_scratch
from oteo_core.operations.model import OperationRow, State


def clean_up(artifacts: ArtifactStore, row: OperationRow, state: State) -> None:
    """Remove what an operation that ends so must not leave. May be called again at any time.

    A success keeps what it published; a failure and a cancellation take it back, whole or half. Checkpoints outlive success
    and failure, since they say what was tried; a cancellation leaves nothing at all.
    """
    folder = files.folder(row.id)
    if state is not State.SUCCEEDED:
        _take_back(artifacts, folder)
    if state is State.CANCELLED:
        artifacts.delete(folder)
    else:
        for name in (files.STAGING, files.ATTEMPT, files.CANCEL):
            artifacts.delete(f"{folder}/{name}")
    for prefix in row.cleanup:
        artifacts.delete(prefix)
    sweep_scratch()


def _take_back(artifacts: ArtifactStore, folder: str) -> None:
    for entry in list(artifacts.iter(f"{folder}/{files.PUBLICATIONS}")):
        publication = files.Publication.from_json(artifacts.read_bytes(entry.path))
        manifest = f"{publication.target}/{publication.manifest}"
        try:
            present = hashlib.sha256(artifacts.read_bytes(manifest)).hexdigest()
        except NotFound:
            present = None
        if present is not None and present != publication.digest:
            # Somebody else's: it came there after ours had been deleted.
            continue
        # The manifest first: what is half gone does not exist.
        artifacts.delete(manifest)
        artifacts.delete(publication.target)
