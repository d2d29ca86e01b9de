"""The packages in an artifact store."""

from __future__ import annotations

import re

from oteo_core.artifacts import ArtifactStore
from oteo_core.errors import NotFound
from oteo_core.packages.manifest import ModelPackage

MANIFEST = "package.json"
"""The file that makes a package exist."""

_ID = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")


def model_prefix(model_id: str) -> str:
    """Give the folder of a model in the artifact store; ``models/{id}`` and the bare id are both understood.

    Raises
    ------
    NotFound
        ``MODEL_NOT_FOUND``: not an id that a model can have.
    """
    bare = model_id.removeprefix("models/")
    if not _ID.fullmatch(bare):
        raise NotFound(f"{model_id!r} is not the name of a model", reason="MODEL_NOT_FOUND", field="name")
    return f"models/{bare}"


def read_model(store: ArtifactStore, model_id: str) -> ModelPackage:
    """Read one model's manifest.

    Parameters
    ----------
    store
        The artifact store.
    model_id
        ``models/{id}`` or the id alone.

    Raises
    ------
    NotFound
        ``MODEL_NOT_FOUND``: there is none of that name.
    DataLoss
        ``BROKEN_PACKAGE``: its manifest cannot be read.
    """
    prefix = model_prefix(model_id)
    try:
        data = store.read_bytes(f"{prefix}/{MANIFEST}")
    except NotFound as error:
        raise NotFound(f"there is no model {prefix}", reason="MODEL_NOT_FOUND", field="name") from error
    return ModelPackage.from_json(data, package_uri=store.uri(prefix))


def list_models(store: ArtifactStore) -> list[ModelPackage]:
    """Read all models' manifests, newest first. A folder without a manifest is not a model and is passed over."""
    found: list[ModelPackage] = []
    for child in store.children("models"):
        if not _ID.fullmatch(child):
            continue
        try:
            found.append(read_model(store, child))
        except NotFound:
            # Being written, or deleted while we look.
            continue
    return sorted(found, key=lambda package: (package.create_time, package.id), reverse=True)


def delete_model(store: ArtifactStore, model_id: str, *, allow_missing: bool = False) -> bool:
    """Delete a model, its manifest first, so that it is never seen half-deleted.

    Returns
    -------
    bool
        False where there was none and `allow_missing` is set.

    Raises
    ------
    NotFound
        ``MODEL_NOT_FOUND``: there is none, and `allow_missing` is not set.
    """
    prefix = model_prefix(model_id)
    existed = store.exists(f"{prefix}/{MANIFEST}")
    if not existed and not allow_missing:
        raise NotFound(f"there is no model {prefix}", reason="MODEL_NOT_FOUND", field="name")
    store.delete(f"{prefix}/{MANIFEST}")
    # Also without a manifest: what an interrupted deletion left.
    store.delete(prefix)
    return existed
