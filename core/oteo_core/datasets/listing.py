"""Which datasets a store has, and what a new one may be called."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Container

from oteo_core.artifacts import ArtifactStore
from oteo_core.datasets.info import DatasetInfo
from oteo_core.datasets.writer import MANIFEST
from oteo_core.errors import NotFound

_MAX_ID = 63


def dataset_prefix(dataset_id: str) -> str:
    """Give a dataset's folder in the artifact store."""
    return f"datasets/{dataset_id}"


def list_datasets(store: ArtifactStore) -> list[DatasetInfo]:
    """Give all datasets, newest first."""
    found = []
    for name in store.children("datasets"):
        try:
            found.append(DatasetInfo.from_json(store.read_bytes(f"datasets/{name}/{MANIFEST}")))
        except NotFound:  # not published (yet), or deleted since
            continue
    return sorted(found, key=lambda info: (info.create_time, info.id), reverse=True)


def delete_dataset(store: ArtifactStore, dataset_id: str) -> None:
    """Delete a dataset: its manifest first, so that it never exists in part.

    Raises
    ------
    NotFound
        DATASET_NOT_FOUND.
    """
    prefix = dataset_prefix(dataset_id)
    if not store.exists(f"{prefix}/{MANIFEST}"):
        raise NotFound(f"there is no dataset {dataset_id!r}", reason="DATASET_NOT_FOUND", field="name")
    store.delete(f"{prefix}/{MANIFEST}")
    store.delete(prefix)


def new_id(display_name: str, taken: Container[str] | Callable[[str], bool]) -> str:
    """Make an id from a name for people.

    Parameters
    ----------
    display_name
        Any text.
    taken
        Ids that are in use, or a function that tells whether one is.

    Returns
    -------
    str
        Lower-case letters, digits and hyphens, at most 63, beginning with a letter; a number is added where it is taken.
    """
    plain = unicodedata.normalize("NFKD", display_name).encode("ascii", "ignore").decode().lower()
    base = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")
    if not base or not base[0].isalpha():
        base = f"data-{base}".strip("-")
    base = base[: _MAX_ID - 6].strip("-")
    is_taken = taken if callable(taken) else taken.__contains__
    candidate, number = base, 2
    while is_taken(candidate):
        candidate, number = f"{base}-{number}", number + 1
    return candidate
