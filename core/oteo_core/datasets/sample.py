"""One image, stack or clip of a dataset, with what is known of it and what the checks found."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from oteo_core.datasets.annotations import Box, Keypoints, OrientedBox, Polygons, Rle

SPLITS = ("train", "validation", "test")
"""Names of the parts; "" is none."""


class Severity(StrEnum):
    """How much a finding matters."""

    INFO = "info"
    """Good to know."""
    WARNING = "warning"
    """The sample is kept, and somebody should look."""
    ERROR = "error"
    """The sample or the annotation is left out."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a check found.

    Parameters
    ----------
    severity
        How much it matters.
    code
        For programs, in capitals: "ZERO_AREA_BOX".
    message
        For people: what, where, what to do.
    path
        File inside the source that it speaks of.
    related
        Ids of other samples that it concerns.
    """

    severity: Severity
    code: str
    message: str
    path: str = ""
    related: tuple[str, ...] = ()


@dataclass(slots=True)
class Sample:
    """One row of a dataset.

    Parameters
    ----------
    id
        Last part of the sample's name; letters, digits, "_", "." and "-", unique in the dataset.
    path
        Media inside the dataset's folder; "" if it was left out.
    source_path
        Path inside the source.
    sha256
        Of the file's bytes, hexadecimal.
    pixel_digest
        SHA-256 of shape, dtype and pixels (`oteo_core.images.pixel_digest`).
    phash
        64-bit perceptual hash; None where the image could not be decoded.
    width, height, channels
        Of the decoded image.
    dtype
        "uint8", "uint16" or "float32".
    media_kind
        "image"; "stack" for a slice of a stack or volume, "video" for a frame of a clip.
    frames
        Slices or frames of its sequence; 1 for a still image.
    split
        "train", "validation", "test" or "".
    group
        Samples of one group stay together.
    labels
        Classes of the whole image.
    boxes, polygons, rle, oriented_boxes, keypoints
        Objects.
    mask_path
        A mask image inside the dataset's folder, or "".
    spacing
        Distance of pixels, millimetres: x, y and, for stacks, z.
    excluded
        True if it was left out; findings say why.
    findings
        What the checks found.
    derived_from
        For an augmented sample: the id of the sample it was made from.
    sequence
        The stack, volume or clip that this is a slice or frame of; "" for a still image.
    frame
        Its place there, from 0; 0 for a still image.
    bit_depth
        Bits that its pixels fill, of those that the dtype has: 12 for a 12-bit detector's images in uint16; 0 where it is not known and for
        float32.
    provenance
        For an augmented sample: JSON text from which it can be made again, alone.
    """

    id: str
    path: str = ""
    source_path: str = ""
    sha256: str = ""
    pixel_digest: str = ""
    phash: int | None = None
    width: int = 0
    height: int = 0
    channels: int = 0
    dtype: str = ""
    media_kind: str = "image"
    frames: int = 1
    split: str = ""
    group: str = ""
    labels: tuple[str, ...] = ()
    boxes: tuple[Box, ...] = ()
    polygons: tuple[Polygons, ...] = ()
    rle: tuple[Rle, ...] = ()
    mask_path: str = ""
    spacing: tuple[float, ...] = ()
    excluded: bool = False
    findings: tuple[Finding, ...] = ()
    derived_from: str = ""
    oriented_boxes: tuple[OrientedBox, ...] = ()
    keypoints: tuple[Keypoints, ...] = ()
    sequence: str = ""
    frame: int = 0
    bit_depth: int = 0
    provenance: str = ""

    @property
    def is_picture(self) -> bool:
        """Whether its file holds one picture: a still image, or a slice or frame of a sequence."""
        return bool(self.sequence) or (self.media_kind in ("", "image") and self.frames <= 1)

    def class_names(self) -> list[str]:
        """Give the class of each of its annotations; an object with a box and an outline counts once."""
        names = list(self.labels)
        seen: set[int] = set()
        things: list[Box | Polygons | Rle | OrientedBox | Keypoints] = [
            *self.boxes,
            *self.polygons,
            *self.rle,
            *self.oriented_boxes,
            *self.keypoints,
        ]
        for item in things:
            if item.instance >= 0:
                if item.instance in seen:
                    continue
                seen.add(item.instance)
            names.append(item.class_name)
        return names
