"""The dataset of a deployment's corrections: rows gathered into a table, again with each change.

A dataset never changes under its reader: every gathering writes a table of a new name and then the manifest that names it, in one step. Who has read
the old manifest finds the old table, which is kept for one gathering more.
"""

from __future__ import annotations

import hashlib
import uuid

import structlog

from oteo_core.artifacts import ArtifactStore
from oteo_core.datasets import DatasetInfo, DatasetWriter, Task
from oteo_core.datasets.writer import MANIFEST
from oteo_core.errors import NotFound
from oteo_gateway.feedback.samples import FOLDER, KeptSample, read_row, row_path

log = structlog.get_logger(__name__)

_ENDING = "-corrections"
_MOST_ID = 63


def dataset_of(store: ArtifactStore, deployment: str, uid: str) -> str:
    """Give the id of a deployment's dataset of corrections: ``{deployment}-corrections``, with more where that is too long or somebody else's."""
    mark = hashlib.sha256(uid.encode()).hexdigest()[:6]
    plain = f"{deployment}{_ENDING}"
    marked = f"{deployment[: _MOST_ID - len(_ENDING) - 7].rstrip('-')}{_ENDING}-{mark}"
    if len(plain) > _MOST_ID:
        return marked
    owner = _owner(store, plain)
    return plain if owner in ("", uid) else marked


def _owner(store: ArtifactStore, dataset: str) -> str:
    """Give the uid of the deployment that a dataset belongs to; "" where it is free, "?" where it is no dataset of corrections."""
    try:
        info = DatasetInfo.from_json(store.read_bytes(f"datasets/{dataset}/{MANIFEST}"))
    except NotFound:
        try:
            return store.read_bytes(f"{FOLDER}/{dataset}/owner").decode()
        except NotFound:
            return ""
    return str(info.provenance.get("deployment_uid", "?"))


def claim(store: ArtifactStore, dataset: str, uid: str) -> None:
    """Note whose corrections a dataset will hold, before the first of them is gathered."""
    if not store.is_file(f"{FOLDER}/{dataset}/owner"):
        store.write_bytes(f"{FOLDER}/{dataset}/owner", uid.encode())


def gather(store: ArtifactStore, dataset: str, deployment: str) -> DatasetInfo | None:
    """Write a dataset's table and manifest from all rows that are kept; one gateway at a time does so, by a lease.

    A row whose image is gone (its dataset was deleted, a consent was withdrawn) is forgotten. Rows for another task than the latest model's stay and
    wait. Gives None where no row is left.
    """
    rows: list[tuple[float, KeptSample]] = []
    for entry in store.iter(f"{FOLDER}/{dataset}"):
        if not entry.path.endswith(".arrow"):
            continue
        kept = read_row(store.read_bytes(entry.path))
        if store.is_file(f"datasets/{dataset}/{kept.sample.path}"):
            rows.append((entry.modified.timestamp(), kept))
        else:
            store.delete(row_path(dataset, kept.sample.id))
    if not rows:
        return None
    newest = max(rows, key=lambda row: row[0])[1]
    samples = sorted((kept for _, kept in rows if kept.task == newest.task), key=lambda kept: kept.sample.id)
    try:
        before: DatasetInfo | None = DatasetInfo.from_json(store.read_bytes(f"datasets/{dataset}/{MANIFEST}"))
    except NotFound:
        before = None
    owner = store.read_bytes(f"{FOLDER}/{dataset}/owner").decode()
    info = DatasetInfo(
        id=dataset,
        display_name=f"Corrections of {deployment}",
        task=Task(newest.task),
        classes=newest.classes,
        source=f"deployments/{deployment}",
        provenance={"made_by": "feedback", "deployment": f"deployments/{deployment}", "deployment_uid": owner},
        labels={"oteo-corrections-of": deployment},
        create_time=before.create_time if before is not None else "",
    )
    table = f"samples-{uuid.uuid4().hex[:16]}.parquet"
    with DatasetWriter(store, f"datasets/{dataset}", info, table=table) as writer:
        for kept in samples:
            writer.note_media(kept.sample.path, kept.size)
            writer.add(kept.sample)
        written = writer.finish()
    _tidy(store, dataset, {table, before.table if before is not None else table})
    log.info("corrections_gathered", dataset=dataset, samples=len(samples))
    return written


def _tidy(store: ArtifactStore, dataset: str, tables: set[str]) -> None:
    """Delete tables that nobody reads any more."""
    for name in store.children(f"datasets/{dataset}"):
        if name.startswith("samples-") and name not in tables:
            store.delete(f"datasets/{dataset}/{name}")
