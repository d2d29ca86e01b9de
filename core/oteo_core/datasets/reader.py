"""Reads a dataset, a row group at a time, without touching its media."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from oteo_core.artifacts import ArtifactStore
from oteo_core.datasets.columns import from_batch
from oteo_core.datasets.info import DatasetInfo
from oteo_core.datasets.sample import Sample
from oteo_core.datasets.writer import MANIFEST
from oteo_core.errors import DataLoss, NotFound
from oteo_core.images import Image, ImageLimits, decode, decode_labels

_LIMITS = ImageLimits()


def with_depth(image: Image, bit_depth: int) -> Image:
    """Say of a 16-bit image how many bits it fills: a lossless copy has 16, whatever the file that it was made from declared."""
    return image if image.pixels.dtype != np.uint16 or not bit_depth else Image(image.pixels, replace(image.header, bit_depth=bit_depth))


class DatasetReader:
    """One dataset of a store.

    Parameters
    ----------
    store
        Where it lies.
    dataset_id
        The last part of its name.
    prefix
        Its folder in the store; `datasets/{dataset_id}` if left out (a job reads its own staging folder so).

    Raises
    ------
    NotFound
        DATASET_NOT_FOUND.
    """

    def __init__(self, store: ArtifactStore, dataset_id: str, *, prefix: str | None = None) -> None:
        self._store = store
        self._prefix = prefix or f"datasets/{dataset_id}"
        try:
            self.info = DatasetInfo.from_json(store.read_bytes(f"{self._prefix}/{MANIFEST}"))
        except NotFound as exc:
            raise NotFound(f"there is no dataset {dataset_id!r}", reason="DATASET_NOT_FOUND", field="name") from exc

    @property
    def uri(self) -> str:
        """Where it lies: the folder of dataset.json."""
        return self._store.uri(self._prefix)

    def samples(self, split: str | None = None, columns: Sequence[str] | None = None, include_excluded: bool = False) -> Iterator[Sample]:
        """Give samples in the dataset's order, a row group at a time.

        Parameters
        ----------
        split
            Only this part; None: all.
        columns
            Only these fields (and id); others keep their defaults. Fewer columns are read faster.
        include_excluded
            True: samples that were left out, too.
        """
        wanted = None if columns is None else list(dict.fromkeys(["id", *columns]))
        extra = [name for name in ("split", "excluded") if wanted is not None and name not in wanted]
        for batch in self.batches(None if wanted is None else [*wanted, *extra]):
            if not include_excluded:
                batch = batch.filter(pc.invert(batch.column("excluded")))
            if split is not None:
                batch = batch.filter(pc.equal(batch.column("split"), split))
            if batch.num_rows:
                yield from from_batch(batch.select(wanted) if wanted is not None else batch)

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[Any]:
        """Give Arrow record batches of at most one row group, all rows, these columns."""
        with self._store.open(f"{self._prefix}/{self.info.table}") as stream:
            file = pq.ParquetFile(stream)
            for index in range(file.num_row_groups):
                yield from file.read_row_group(index, columns=None if columns is None else list(columns)).to_batches()

    def numbered(
        self, start: int = 0, *, split: str | None = None, include_excluded: bool = False, only_findings: bool = False
    ) -> Iterator[tuple[int, Sample]]:
        """Give samples with their row numbers, from row `start` on; row groups before it are not read.

        Parameters
        ----------
        start
            First row, from 0; of all rows, whatever the filters.
        split, include_excluded
            As of `samples`.
        only_findings
            True: only samples with at least one finding.
        """
        with self._store.open(f"{self._prefix}/{self.info.table}") as stream:
            file = pq.ParquetFile(stream)
            row = 0
            for index in range(file.num_row_groups):
                count = file.metadata.row_group(index).num_rows
                first, row = row, row + count
                if row <= start:
                    continue
                table = file.read_row_group(index).append_column("row", pa.array(range(first, row), pa.int64()))
                keep = pc.greater_equal(table.column("row"), start)
                if not include_excluded:
                    keep = pc.and_(keep, pc.invert(table.column("excluded")))
                if split is not None:
                    keep = pc.and_(keep, pc.equal(table.column("split"), split))
                if only_findings:
                    keep = pc.and_(keep, pc.greater(pc.list_value_length(table.column("findings")), 0))
                for batch in table.filter(keep).to_batches(max_chunksize=256):
                    yield from zip(batch.column("row").to_pylist(), from_batch(batch.drop_columns(["row"])), strict=True)

    def table(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Give the whole table, all rows, these columns."""
        with self._store.open(f"{self._prefix}/{self.info.table}") as stream:
            return pq.read_table(stream, columns=None if columns is None else list(columns))

    def sample(self, sample_id: str) -> Sample:
        """Give one sample by its id.

        Raises
        ------
        NotFound
            SAMPLE_NOT_FOUND.
        """
        with self._store.open(f"{self._prefix}/{self.info.table}") as stream:
            table = pq.read_table(stream, filters=[("id", "=", sample_id)])
        for batch in table.to_batches():
            for found in from_batch(batch):
                return found
        raise NotFound(f"dataset {self.info.id!r} has no sample {sample_id!r}", reason="SAMPLE_NOT_FOUND", field="name")

    def read_media(self, sample: Sample) -> bytes:
        """Give the bytes of a sample's file.

        Raises
        ------
        DataLoss
            MEDIA_LOST if the file is not there; NotFound MEDIA_EXCLUDED for a sample that was left out.
        """
        return self._read(sample, sample.path)

    def read_mask(self, sample: Sample) -> bytes:
        """Give the bytes of a sample's mask image; errors as `read_media`."""
        return self._read(sample, sample.mask_path)

    def image(self, sample: Sample, limits: ImageLimits = _LIMITS) -> Image:
        """Decode a sample's image; its header has the bits that the sample's own row says a 16-bit image fills, where that was read."""
        return with_depth(decode(self.read_media(sample), limits), sample.bit_depth)

    def mask(self, sample: Sample, limits: ImageLimits = _LIMITS) -> NDArray[Any]:
        """Decode a sample's mask: ``(H, W)`` whole numbers, whatever way its file holds them.

        An import takes masks of one channel, of equal channels and of floating-point whole numbers.
        """
        numbers = decode_labels(self.read_mask(sample), limits)
        if numbers.ndim == 3:
            numbers = numbers[:, :, 0]
        return numbers if numbers.dtype.kind in "ui" else np.rint(numbers).astype(np.int64)

    def _read(self, sample: Sample, path: str) -> bytes:
        if not path:
            raise NotFound(f"sample {sample.id!r} has no such file: it was left out or has none", reason="MEDIA_EXCLUDED")
        try:
            return self._store.read_bytes(f"{self._prefix}/{path}")
        except NotFound as exc:
            raise DataLoss(f"the file {path} of sample {sample.id!r} is gone from {self.uri}", reason="MEDIA_LOST") from exc
