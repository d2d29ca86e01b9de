"""Reading, hashing, decoding and copying files: the part of an import that touches every byte, a shard at a time.

A shard's answer is one Arrow table, small beside the files, so that it can be kept as a checkpoint: an import that was killed goes on with the
shards that are left.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from oteo_augment.importing.source import SourceFile, SourceRef
from oteo_core.artifacts import ArtifactStore
from oteo_core.datasets import media_path
from oteo_core.errors import InvalidArgument, OteoError, from_exception
from oteo_core.images import ImageLimits, decode, decode_labels, perceptual_hash, pixel_digest, significant_bits

IMAGE, MASK = "image", "mask"
_MOST_VALUES = 4096
_BLOCK_FILES = 32
_BLOCK_BYTES = 2 << 20
"""Files, and bytes encoded or decoded, that go through a step together: about what a core's own cache holds."""
_NOTHING: NDArray[Any] = np.empty(0, np.uint8)


@dataclass(slots=True)
class Scanned:
    """What one file is.

    Parameters
    ----------
    path
        Inside the source.
    kind
        "image" or "mask".
    size
        Bytes.
    sha256
        Of the bytes; "" where they could not be read.
    media
        Where the file was copied to, inside the dataset; "" where it is not readable.
    width, height, channels, dtype, frames, bit_depth
        Of the decoded image.
    pixel_digest, phash
        As in `oteo_core.images`; of images only.
    values, counts
        For a mask: its numbers, ascending, and how many pixels have each.
    code, message
        What is wrong with the file; "" if nothing.
    """

    path: str
    kind: str
    size: int = 0
    sha256: str = ""
    media: str = ""
    width: int = 0
    height: int = 0
    channels: int = 0
    dtype: str = ""
    frames: int = 0
    bit_depth: int = 0
    pixel_digest: str = ""
    phash: int | None = None
    values: tuple[int, ...] = ()
    counts: tuple[int, ...] = ()
    code: str = ""
    message: str = ""


_SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        ("kind", pa.string()),
        ("size", pa.int64()),
        ("sha256", pa.string()),
        ("media", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("channels", pa.int32()),
        ("dtype", pa.string()),
        ("frames", pa.int32()),
        ("bit_depth", pa.int32()),
        ("pixel_digest", pa.string()),
        ("phash", pa.uint64()),
        ("values", pa.list_(pa.int64())),
        ("counts", pa.list_(pa.int64())),
        ("code", pa.string()),
        ("message", pa.string()),
    ]
)


@dataclass(frozen=True)
class ScanPlan:
    """What workers need to scan: picklable.

    Parameters
    ----------
    source
        Where the files are.
    target_root, target_prefix
        Root URI of the artifact store and the dataset's folder in it, to which media are copied.
    limits
        Largest images.
    target_options
        fsspec's options for the store.
    """

    source: SourceRef
    target_root: str
    target_prefix: str
    limits: ImageLimits
    target_options: dict[str, object] = field(default_factory=dict)


def scan_shard(plan: ScanPlan, paths: Sequence[str], masks: Sequence[str], check: Callable[[], None] | None = None) -> bytes:
    """Scan images and masks; give a table of `Scanned` rows as Arrow's stream format.

    Raises
    ------
    OteoError
        DISK_FULL or READ_ONLY_TARGET where copies cannot be written; what is wrong with a file itself is in its row.
    """
    # A shard has a core, not all of them.
    cv2.setNumThreads(1)
    target = _Target(plan)
    rows: list[Scanned] = []
    for kind, group in ((IMAGE, paths), (MASK, masks)):
        block: list[tuple[Scanned, bytes]] = []
        size = 0
        for path in group:
            row = Scanned(path, kind)
            rows.append(row)
            data = _read(plan, row)
            if data is not None:
                block.append((row, data))
                size += len(data)
            if len(block) >= _BLOCK_FILES or size >= _BLOCK_BYTES:
                if check is not None:
                    check()
                _scan_block(plan, target, block)
                block, size = [], 0
        if check is not None:
            check()
        _scan_block(plan, target, block)
    return to_bytes(rows)


def to_bytes(rows: Sequence[Scanned]) -> bytes:
    """Pack rows."""
    batch = pa.RecordBatch.from_arrays(
        [pa.array([getattr(row, name) for row in rows], kind) for name, kind in zip(_SCHEMA.names, _SCHEMA.types, strict=True)],
        schema=_SCHEMA,
    )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, _SCHEMA, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue())


def from_bytes(data: bytes) -> Iterator[Scanned]:
    """Unpack rows."""
    table = pa.ipc.open_stream(data).read_all()
    names = _SCHEMA.names
    for row in zip(*(table.column(name).to_pylist() for name in names), strict=True):
        fields = dict(zip(names, row, strict=True))
        fields["values"], fields["counts"] = tuple(fields["values"]), tuple(fields["counts"])
        yield Scanned(**fields)


def shard_key(files: Sequence[SourceFile], masks: Sequence[SourceFile]) -> str:
    """Give a name for a shard that changes when any of its files does."""
    digest = hashlib.sha256()
    for kind, group in ((IMAGE, files), (MASK, masks)):
        for file in group:
            digest.update(f"{kind}\0{file.path}\0{file.size}\0{file.version}\n".encode())
    return digest.hexdigest()[:32]


class _Target:
    """Where copies go: straight files on a local store, objects elsewhere.

    What is staged is nobody's until it is published, so that it needs neither the rename nor the flush that `write_bytes` makes for each
    object: a shard that was killed is written again as a whole.
    """

    def __init__(self, plan: ScanPlan) -> None:
        self._store = ArtifactStore(plan.target_root, **plan.target_options)
        self._prefix = plan.target_prefix
        uri = self._store.uri(self._prefix)
        self._folder = uri.removeprefix("file://") if uri.startswith("file://") else ""
        self._made: set[str] = set()

    def write(self, path: str, data: bytes) -> None:
        if not self._folder:
            self._store.write_bytes(f"{self._prefix}/{path}", data)
            return
        folder = path.rpartition("/")[0]
        try:
            if folder not in self._made:
                os.makedirs(f"{self._folder}/{folder}", exist_ok=True)
                self._made.add(folder)
            descriptor = os.open(f"{self._folder}/{path}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
            try:
                view = memoryview(data)
                while view:
                    view = view[os.write(descriptor, view) :]
            finally:
                os.close(descriptor)
        except OSError as exc:
            raise from_exception(exc) from exc


def _read(plan: ScanPlan, row: Scanned) -> bytes | None:
    """Read a file; None where that fails, which its row then says."""
    try:
        data = plan.source.read(row.path, plan.limits.max_bytes)
    except InvalidArgument as exc:
        row.code, row.message = exc.reason, exc.message
        return None
    except (OSError, OteoError) as exc:
        row.code, row.message = "UNREADABLE_FILE", f"the file cannot be read: {exc}"
        return None
    row.size = len(data)
    return data


def _scan_block(plan: ScanPlan, target: _Target, block: Sequence[tuple[Scanned, bytes]]) -> None:
    """Take some files through all steps, one step after the other.

    Each step's code and tables stay in the processor's caches while it goes through the block; taking one file through all steps before the next
    was measured to cost nearly twice as much for small images. Decoded pixels are let go as soon as they add up.
    """
    for row, data in block:
        row.sha256 = hashlib.sha256(data).hexdigest()
    decoded: list[tuple[Scanned, bytes, NDArray[Any]]] = []
    held = 0
    for row, data in block:
        try:
            if row.kind == MASK:
                _look_at_mask(row, data, plan.limits)
                pixels = _NOTHING
            else:
                pixels = _look_at_image(row, data, plan.limits)
        except OteoError as exc:
            row.code, row.message = exc.reason, exc.message
            continue
        decoded.append((row, data, pixels))
        held += pixels.nbytes
        if held >= _BLOCK_BYTES:
            _finish_block(target, decoded)
            decoded, held = [], 0
    _finish_block(target, decoded)


def _finish_block(target: _Target, decoded: Sequence[tuple[Scanned, bytes, NDArray[Any]]]) -> None:
    images = [(row, pixels) for row, _, pixels in decoded if row.kind == IMAGE]
    for row, pixels in images:
        row.pixel_digest = pixel_digest(pixels)
    for row, pixels in images:
        row.phash = perceptual_hash(pixels)
    for row, data, _ in decoded:
        row.media = media_path(row.sha256, row.path)
        target.write(row.media, data)


def _look_at_image(row: Scanned, data: bytes, limits: ImageLimits) -> NDArray[Any]:
    image = decode(data, limits)
    row.height, row.width, row.channels = image.pixels.shape
    row.dtype = image.header.pixel_type
    row.frames = image.header.frames
    row.bit_depth = significant_bits(image.pixels, image.header.bit_depth)
    return image.pixels


def _look_at_mask(row: Scanned, data: bytes, limits: ImageLimits) -> None:
    pixels: Any = decode_labels(data, limits)
    row.height, row.width = pixels.shape[:2]
    row.channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    row.dtype = pixels.dtype.name
    row.frames = 1
    if pixels.ndim == 3:
        # Grey saved as colour is common: equal channels are one.
        if not (pixels[:, :, :1] == pixels[:, :, : min(3, pixels.shape[2])]).all():
            raise InvalidArgument("the mask is in colour; a mask holds one number for each pixel", reason="MASK_NOT_GREY")
        pixels = pixels[:, :, 0]
    if pixels.dtype.kind == "f":
        if not (pixels == np.rint(pixels)).all():
            raise InvalidArgument("the mask holds fractions; a mask holds one whole number for each pixel", reason="MASK_NOT_INTEGER")
        pixels = pixels.astype(np.int64)
    values, counts = np.unique(pixels, return_counts=True)
    if len(values) > _MOST_VALUES:
        raise InvalidArgument(
            f"the mask holds {len(values)} different numbers: it looks like a picture, not like labels", reason="MASK_NOT_LABELS"
        )
    row.values, row.counts = tuple(int(v) for v in values), tuple(int(c) for c in counts)
