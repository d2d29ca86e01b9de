"""Writes a dataset: media, then `samples.parquet`, then `dataset.json`."""

from __future__ import annotations

import hashlib
import json
import tempfile
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from types import TracebackType

import pyarrow.parquet as pq

from oteo_core.artifacts import ArtifactStore
from oteo_core.datasets.columns import SCHEMA, from_batch, to_batch
from oteo_core.datasets.info import ClassInfo, DatasetInfo, FindingCount, SizeRange, SplitCount, now
from oteo_core.datasets.sample import SPLITS, Sample
from oteo_core.errors import InvalidArgument

ROW_GROUP = 4096
"""Rows of one row group: what a reader holds at once."""

SAMPLES = "samples.parquet"
MANIFEST = "dataset.json"


def media_path(sha256: str, name: str) -> str:
    """Give where a file with this content lies inside a dataset: equal contents share one file.

    Parameters
    ----------
    sha256
        Of its bytes, hexadecimal.
    name
        Its name in the source; the ending is kept.
    """
    return f"media/{sha256[:2]}/{sha256}{_ending(name)}"


def _ending(name: str) -> str:
    # By hand: pathlib takes longer than the hash of a small image.
    ending = name.rpartition("/")[2].rpartition(".")
    kept = ending[2].lower() if ending[0] else ""
    kept = kept if kept.isascii() and kept.isalnum() else "".join(c for c in kept if c.isascii() and c.isalnum())
    return f".{kept[:15]}" if kept else ""


class DatasetWriter:
    """Writes one dataset under a prefix of a store.

    Rows go to a local temporary file, a row group at a time, so that a million rows need no more memory than one group (and 32 bytes
    each for the digest). Use it as a context manager, so that the temporary file is removed whatever happens.

    Parameters
    ----------
    store
        Where to write.
    prefix
        The dataset's folder there; while a job runs, its staging folder.
    info
        What is known of the dataset; counts, digest, uid and time are filled in by `finish`.
    table
        Name of the table's file; another than `SAMPLES` for a dataset that is written again while it is read.
    """

    def __init__(self, store: ArtifactStore, prefix: str, info: DatasetInfo, *, table: str = SAMPLES) -> None:
        self._store = store
        self._prefix = prefix.rstrip("/")
        self._info = replace(info, table=table)
        self._folder = tempfile.TemporaryDirectory(prefix="oteo-dataset-")
        self._file = Path(self._folder.name) / SAMPLES
        self._parquet = pq.ParquetWriter(self._file, SCHEMA, compression="zstd")
        self._pending: list[Sample] = []
        self._ids: set[str] = set()
        self._digests: list[bytes] = []
        self._media: dict[str, int] = {}
        self._counts = _Counts()

    def __enter__(self) -> DatasetWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def add_media(self, name: str, data: bytes) -> str:
        """Write a media or mask file unless one of equal content is there.

        Returns
        -------
        str
            Its path inside the dataset, for `Sample.path` or `Sample.mask_path`.
        """
        path = media_path(hashlib.sha256(data).hexdigest(), name)
        if path not in self._media:
            self._store.write_bytes(f"{self._prefix}/{path}", data)
            self._media[path] = len(data)
        return path

    def note_media(self, path: str, size: int) -> None:
        """Count a media file that somebody else wrote under the prefix (shards of a job)."""
        self._media[path] = size

    def add(self, sample: Sample) -> None:
        """Add a row.

        Raises
        ------
        InvalidArgument
            DUPLICATE_SAMPLE for an id that was added before, UNKNOWN_SPLIT for a part that is not known.
        """
        if sample.id in self._ids:
            raise InvalidArgument(f"two samples have the id {sample.id!r}", reason="DUPLICATE_SAMPLE")
        if sample.split not in ("", *SPLITS):
            raise InvalidArgument(f"sample {sample.id!r}: there is no part {sample.split!r}", reason="UNKNOWN_SPLIT")
        self._ids.add(sample.id)
        self._digests.append(row_digest(sample))
        self._counts.add(sample)
        self._pending.append(sample)
        if len(self._pending) >= ROW_GROUP:
            self._flush()

    def finish(self) -> DatasetInfo:
        """Write the table, then `dataset.json`; give what was written."""
        self._flush()
        self._parquet.close()
        info = self._counts.into(self._info)
        info = replace(
            info,
            uid=info.uid or uuid.uuid4().hex,
            create_time=info.create_time or now(),
            media_bytes=sum(self._media.values()),
            digest=self._digest(info),
        )
        self._store.put_file(self._file, f"{self._prefix}/{info.table}")
        self._store.write_bytes(f"{self._prefix}/{MANIFEST}", info.to_json())
        self.close()
        return info

    def close(self) -> None:
        """Remove the temporary file."""
        self._parquet.close()
        self._folder.cleanup()

    def _flush(self) -> None:
        if self._pending:
            self._parquet.write_batch(to_batch(self._pending), row_group_size=ROW_GROUP)
            self._pending = []

    def _digest(self, info: DatasetInfo) -> str:
        return content_digest(info, self._digests)


def content_digest(info: DatasetInfo, rows: Iterable[bytes]) -> str:
    """Digest what a dataset is, hexadecimal: task, classes, the meaning of masks, points, and its rows' digests in whatever order."""
    total = hashlib.sha256()
    mask = [info.mask.kind, info.mask.values, info.mask.ignore] if info.mask else None
    words: list[object] = [info.task, info.classes, mask]
    if info.skeletons:
        words.append([[skeleton.class_name, skeleton.points, skeleton.edges] for skeleton in info.skeletons])
    total.update(json.dumps(words).encode())
    for row in sorted(rows):
        total.update(row)
    return total.hexdigest()


def row_digest(sample: Sample) -> bytes:
    """Digest what a sample is; not what the checks say of it, whose words may change with a version."""
    if not _plain(sample):
        # As the table gives it back: a reader must come to the same digest.
        sample = next(from_batch(to_batch([sample])))
    fields = (
        sample.id, sample.sha256, sample.split, sample.group, sample.labels, sample.boxes, sample.polygons, sample.rle, sample.mask_path,
        sample.spacing, sample.excluded, sample.derived_from, sample.media_kind, sample.frames,
    )  # fmt: skip
    later = (sample.oriented_boxes, sample.keypoints, sample.sequence, sample.frame)
    # Fields that came later count where they say something, so that what was written before them keeps its digest.
    return hashlib.sha256(repr((*fields, *later) if any(later) else fields).encode()).digest()


def _plain(sample: Sample) -> bool:
    """Tell whether all numbers are of the types that the table gives: 2 and 2.0 are equal and written differently."""
    numbers: list[object] = [*sample.spacing]
    for box in sample.boxes:
        numbers += (box.x, box.y, box.width, box.height)
    for outline in sample.polygons:
        for ring in outline.rings:
            numbers += ring
    for turned in sample.oriented_boxes:
        numbers += (turned.center_x, turned.center_y, turned.width, turned.height, turned.angle)
    for marked in sample.keypoints:
        for point in marked.points:
            numbers += (point.x, point.y)
    counts = [count for mask in sample.rle for count in (mask.height, mask.width, *mask.counts)]
    return {*map(type, numbers)} <= {float} and {*map(type, counts)} <= {int}


class _Counts:
    """Counts rows as they come."""

    def __init__(self) -> None:
        self.samples = 0
        self.excluded = 0
        self.by_split: Counter[str] = Counter()
        self.groups: defaultdict[str, set[str]] = defaultdict(set)
        self.class_samples: Counter[str] = Counter()
        self.class_annotations: Counter[str] = Counter()
        self.class_splits: Counter[tuple[str, str]] = Counter()
        self.findings: Counter[tuple[str, str]] = Counter()
        self.widths: list[int] = []
        self.heights: list[int] = []
        self.bit_depth = 0

    def add(self, sample: Sample) -> None:
        for finding in sample.findings:
            self.findings[finding.code, finding.severity.value] += 1
        if sample.excluded:
            self.excluded += 1
            return
        self.samples += 1
        self.by_split[sample.split] += 1
        self.groups[sample.split].add(sample.group or sample.id)
        names = sample.class_names()
        self.class_annotations.update(names)
        for name in set(names):
            self.class_samples[name] += 1
            self.class_splits[name, sample.split] += 1
        self.widths = [min([sample.width, *self.widths]), max([sample.width, *self.widths])]
        self.heights = [min([sample.height, *self.heights]), max([sample.height, *self.heights])]
        self.bit_depth = max(self.bit_depth, sample.bit_depth)

    def into(self, info: DatasetInfo) -> DatasetInfo:
        order = [s for s in (*SPLITS, "") if self.by_split[s]]
        names = [*info.classes, *sorted(set(self.class_samples) - set(info.classes))]
        return replace(
            info,
            classes=tuple(names),
            sample_count=self.samples,
            excluded_count=self.excluded,
            splits=tuple(SplitCount(s, self.by_split[s], len(self.groups[s])) for s in order),
            class_info=tuple(
                ClassInfo(
                    name,
                    self.class_samples[name],
                    self.class_annotations[name],
                    tuple(SplitCount(s, self.class_splits[name, s]) for s in order if self.class_splits[name, s]),
                )
                for name in names
            ),
            findings=tuple(FindingCount(code, severity, count) for (code, severity), count in sorted(self.findings.items())),
            sizes=SizeRange(*self.widths, *self.heights) if self.samples else SizeRange(),
            bit_depth=self.bit_depth,
        )
