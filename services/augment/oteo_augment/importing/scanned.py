"""What a scan says of files: rows, and the Arrow table that they travel and are kept in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from oteo_augment.tables import pack, unpack

IMAGE, MASK = "image", "mask"


@dataclass(slots=True)
class Scanned:
    """What one file, or one frame of a file of several, is.

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
    frame
        Number of the frame in its file, from 0; each has a row, in order.
    media_kind
        "image", "stack" or "video".
    spacing
        Distance of pixels, millimetres: x, y and, where the file says it, z.
    series, patient
        Keyed hashes of what a DICOM header says, "" where there is none: equal where the header is, and telling nothing else.
    position
        Where a slice lies along its series, millimetres or a number; None where nothing says so.
    note_code, note
        What somebody should look at, though the file can be used; "" for nothing.
    dicom
        True: it is a DICOM file, or is named like one.
    suspicion
        Why there may be text in the picture, which may name a patient; "" for nothing. Of DICOM files only.
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
    frame: int = 0
    media_kind: str = "image"
    spacing: tuple[float, ...] = ()
    series: str = ""
    patient: str = ""
    position: float | None = None
    note_code: str = ""
    note: str = ""
    dicom: bool = False
    suspicion: str = ""


Scans = Mapping[str, Sequence[Scanned]]
"""Rows by the path of their file: one for a still image, one for each frame of a stack or clip."""

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
        ("frame", pa.int32()),
        ("media_kind", pa.string()),
        ("spacing", pa.list_(pa.float64())),
        ("series", pa.string()),
        ("patient", pa.string()),
        ("position", pa.float64()),
        ("note_code", pa.string()),
        ("note", pa.string()),
        ("dicom", pa.bool_()),
        ("suspicion", pa.string()),
    ]
)


def to_bytes(rows: Sequence[Scanned]) -> bytes:
    """Pack rows."""
    return pack(rows, _SCHEMA)


def from_bytes(data: bytes) -> Iterator[Scanned]:
    """Unpack rows."""
    for fields in unpack(data, _SCHEMA):
        for name in ("values", "counts", "spacing"):
            fields[name] = tuple(fields[name])
        yield Scanned(**fields)
