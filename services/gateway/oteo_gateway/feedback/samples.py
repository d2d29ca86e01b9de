"""From an image that may be kept to a sample: pixels alone, no header, no name, no place that it came from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
from numpy.typing import NDArray

from oteo_core.artifacts import ArtifactStore
from oteo_core.datasets import Finding, Sample, Severity
from oteo_core.datasets.columns import SCHEMA, from_batch, to_batch
from oteo_core.datasets.media_files import media_file
from oteo_core.deidentification.burned_in import BURNED_IN_TEXT, found_text
from oteo_core.errors import InvalidArgument
from oteo_core.images import ImageLimits, perceptual_hash, pixel_digest, significant_bits
from oteo_core.images.sequences import open_image
from oteo_core.images.sequences.base import SequenceHeader
from oteo_core.images.sequences.opening import kind_of

FOLDER = "corrections"
_PARTS = (("train", 0.7), ("validation", 0.15), ("test", 0.15))


@dataclass(frozen=True, slots=True)
class Pixels:
    """One picture: ``(H, W, C)``, bits that its file declares (0: not known), the distance of pixels in mm, and what somebody should look at."""

    values: NDArray[Any]
    bit_depth: int
    spacing: tuple[float, ...] = ()
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class KeptSample:
    """A sample with the task and classes of the model whose answer was corrected, and its media file's bytes."""

    sample: Sample
    task: str
    classes: tuple[str, ...]
    size: int


def read_pixels(data: bytes, frame: int, limits: ImageLimits, name: str = "") -> Pixels:
    """Decode one frame of an image, DICOM's and volumes' too.

    Parameters
    ----------
    data
        The whole file.
    frame
        Which one, from 0.
    limits
        Largest images.
    name
        The file's name, where it has one.

    Raises
    ------
    InvalidArgument
        ``NO_SUCH_FRAME``, ``UNREADABLE_IMAGE``, ``TRUNCATED_IMAGE``, ``IMAGE_TOO_LARGE`` or ``UNSUPPORTED_FORMAT``.
    """
    if kind_of(data, name) == "video":
        raise InvalidArgument("a video clip is not answered, and not kept: send the frame", reason="UNSUPPORTED_FORMAT")
    opened = open_image(data, limits, name)
    decoder = next(iter(opened.decoders(frame)), None)
    if decoder is None:
        raise InvalidArgument(f"The image has no frame {frame}.", reason="NO_SUCH_FRAME", field="answer.frame")
    found = decoder()
    return Pixels(found.pixels, found.bit_depth, opened.header.spacing, _findings(opened.header, found.pixels))


def _findings(header: SequenceHeader, pixels: NDArray[Any]) -> tuple[Finding, ...]:
    """Give what somebody should look at, as an import tells it: the file's notes, and text in the pixels of DICOM."""
    notes = dict(header.notes)
    if header.format == "dicom" and (text := found_text(pixels)):
        notes[BURNED_IN_TEXT] = text
    return tuple(Finding(Severity.WARNING, code, message) for code, message in notes.items())


def make_sample(pixels: Pixels, truth: Sample, group: str, image: str) -> tuple[Sample, bytes]:
    """Make a sample and its media file.

    Parameters
    ----------
    pixels
        The picture.
    truth
        What the reader says.
    group
        Keyed hash of the group; "": none.
    image
        Keyed hash of the image, which a sample without a group is dealt to a part by.

    Returns
    -------
    sample, file
        Equal pixels have equal ids, so that a later correction takes the earlier one's place.
    """
    values = pixels.values
    path, encoded, sha256 = media_file(values)
    digest = pixel_digest(values)
    sample = replace(
        truth,
        id=digest[:32],
        path=path,
        sha256=sha256,
        pixel_digest=digest,
        phash=perceptual_hash(values),
        height=values.shape[0],
        width=values.shape[1],
        channels=values.shape[2],
        dtype=values.dtype.name,
        bit_depth=significant_bits(values, pixels.bit_depth),
        spacing=pixels.spacing,
        split=part_of(group or image),
        group=group,
        findings=pixels.findings,
    )
    return sample, encoded


def part_of(key: str) -> str:
    """Deal a keyed hash to a part: the same each time, so that a group stays together while the dataset grows."""
    place = int(key[:12], 16) / 16**12
    for name, share in _PARTS:
        if place < share:
            return name
        place -= share
    return _PARTS[0][0]


def keep_sample(store: ArtifactStore, dataset: str, kept: KeptSample, encoded: bytes) -> None:
    """Write media and row, each an object of its own, which any number of gateways may do at once; `corrections.dataset` gathers them."""
    store.write_bytes(f"datasets/{dataset}/{kept.sample.path}", encoded)
    words = {"task": kept.task, "classes": json.dumps(list(kept.classes)), "bytes": str(kept.size)}
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, SCHEMA.with_metadata(words)) as stream:
        stream.write_batch(to_batch([kept.sample]).replace_schema_metadata(words))
    store.write_bytes(row_path(dataset, kept.sample.id), sink.getvalue().to_pybytes())


def row_path(dataset: str, sample: str) -> str:
    """Give where a sample's row lies until it is gathered, and after: the table is made of these."""
    return f"{FOLDER}/{dataset}/{sample}.arrow"


def read_row(data: bytes) -> KeptSample:
    """Read what `keep_sample` wrote."""
    with pa.ipc.open_stream(data) as stream:
        (sample,) = (sample for batch in stream for sample in from_batch(batch))
        words = stream.schema.metadata
    classes: Sequence[str] = json.loads(words[b"classes"])
    return KeptSample(sample, words[b"task"].decode(), tuple(classes), int(words[b"bytes"]))
