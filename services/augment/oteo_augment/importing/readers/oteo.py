"""Oteo's own form: `dataset.json` and `samples.parquet` beside the media."""

from __future__ import annotations

import io
import re

import pyarrow as pa
import pyarrow.parquet as pq

from oteo_augment.importing.items import Item, Reading, Stored
from oteo_augment.importing.source import Source
from oteo_core.datasets import SPLITS, DatasetInfo, Sample, Task, content_digest, media_path, row_digest
from oteo_core.datasets.columns import SCHEMA, from_batch
from oteo_core.errors import DataLoss, InvalidArgument

_MANIFEST, _TABLE = "dataset.json", "samples.parquet"
_ID = re.compile(r"[A-Za-z0-9_.-]+")


def detect(source: Source) -> str:
    """Tell whether the source is a dataset of Oteo's own, on its own or in one folder of an archive."""
    folders = _folders(source)
    return f"it is a dataset of Oteo's own: {folders[0]}{_MANIFEST} beside {folders[0]}{_TABLE}" if len(folders) == 1 else ""


def read(source: Source) -> Reading:
    """Read the description and all rows.

    Raises
    ------
    InvalidArgument
        BAD_DATASET for a file that is damaged, of a later version, or not of the same dataset as the other.
    """
    folder = _folders(source)[0]
    try:
        info = DatasetInfo.from_json(source.read(folder + _MANIFEST))
    except DataLoss as exc:
        raise _bad(f"{folder}{exc.message}") from exc
    try:
        task = Task(info.task)
    except ValueError as exc:
        raise _bad(f"{folder}{_MANIFEST} is of the task {info.task!r}, which this program does not know: update it") from exc
    samples = _rows(source.read(folder + _TABLE), folder + _TABLE)
    digest = content_digest(info, map(row_digest, samples))
    if digest != info.digest:
        raise _bad(
            f"{folder}{_TABLE} is not the table that {folder}{_MANIFEST} speaks of: its digest is {digest}, where {info.digest} is written. "
            "Copy or export the dataset again."
        )
    items = []
    for sample in samples:
        path = folder + sample.path
        item = Item(path, split=sample.split, group=sample.group, missing=not sample.path or path not in source.files)
        if sample.mask_path and folder + sample.mask_path in source.files:
            item.mask = folder + sample.mask_path
        items.append(item)
    used = {folder + _MANIFEST, folder + _TABLE, *(item.path for item in items), *(item.mask for item in items)}
    return Reading(items, info.classes, (task,), frozenset(used), stored=Stored(info, samples, folder), skeletons=info.skeletons)


def _folders(source: Source) -> list[str]:
    found = [path.removesuffix(_MANIFEST) for path in source.files if path.rpartition("/")[2] == _MANIFEST]
    return [folder for folder in found if folder + _TABLE in source.files]


def _rows(data: bytes, name: str) -> list[Sample]:
    try:
        file = pq.ParquetFile(io.BytesIO(data))
        columns = [column for column in file.schema_arrow.names if column in SCHEMA.names]
        # Columns of a later version are left aside, as in every reading of a dataset; those of the first version must be there.
        if gone := [column for column in ("id", "path", "sha256", "split", "labels", "excluded") if column not in columns]:
            raise _bad(f"{name} has no column {gone[0]}")
        samples: list[Sample] = []
        for index in range(file.num_row_groups):
            for batch in file.read_row_group(index, columns=columns).to_batches():
                samples += from_batch(batch)
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as exc:
        raise _bad(f"{name} is damaged: {exc}") from exc
    seen: set[str] = set()
    for sample in samples:
        if not isinstance(sample.id, str) or not _ID.fullmatch(sample.id) or sample.id in seen:
            raise _bad(f"{name} has the sample {sample.id!r}: ids are of letters, digits, '_', '.' and '-', each once")
        if sample.split not in ("", *SPLITS):
            raise _bad(f"{name} has the sample {sample.id!r} in the part {sample.split!r}; there are {', '.join(SPLITS)}")
        # The digest does not speak of paths, which follow from the content.
        if (
            not sample.excluded
            and sample.path.rpartition(".")[0] != media_path(sample.sha256, "")
            and sample.path != media_path(sample.sha256, "")
        ):
            raise _bad(f"{name} has the sample {sample.id!r} at {sample.path!r}, which is not where its content belongs")
        seen.add(sample.id)
    return samples


def _bad(why: str) -> InvalidArgument:
    return InvalidArgument(why, reason="BAD_DATASET", field="source_uri")
