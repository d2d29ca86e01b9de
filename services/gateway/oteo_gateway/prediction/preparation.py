"""From a decoded image to what a model takes; run in a small thread pool, because resizing is work."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oteo_core.datasets import Finding
from oteo_core.images import ImageHeader, prepare
from oteo_core.packages import ModelPackage, image_statistics
from oteo_gateway.prediction.fitting import fit_findings
from oteo_gateway.prediction.inputs import Picture
from oteo_gateway.prediction.tiling import Tiles, cut_tiles, plan_tiles


@dataclass(frozen=True, slots=True)
class PreparedImage:
    """An image ready for the model.

    Attributes
    ----------
    pixels
        ``(height, width, channels)`` as the policy says.
    header
        What the image was.
    sha256
        Of the encoded bytes, lower-case hexadecimal; empty before `measured` where the picture has none.
    shift
        Distance from the training images and its p-value; None where the package has no reference statistics, and before `measured`.
    statistics
        ``(D,)`` of `oteo_core.packages.image_statistics`; None likewise.
    seconds
        Time that decoding and resizing took.
    frame, frame_count
        Which frame of how many, from 0.
    spacing
        Width and height of a pixel of the original, mm; None where not known.
    findings
        What the caller should know of the file and of how its pixels were brought to the model's.
    original
        The decoded image, ``(H, W, C)``; None unless it is to be kept.
    tiles
        Where windows lie on an image that is looked at by tiles; None otherwise.
    parts
        The windows, each as the model takes it; none where `tiles` is None.
    """

    pixels: NDArray[Any]
    header: ImageHeader
    sha256: str
    shift: tuple[float, float] | None
    seconds: float
    statistics: NDArray[np.float64] | None = None
    frame: int = 0
    frame_count: int = 1
    spacing: tuple[float, float] | None = None
    findings: tuple[Finding, ...] = ()
    original: NDArray[Any] | None = None
    tiles: Tiles | None = None
    parts: tuple[NDArray[Any], ...] = ()


def prepare_image(picture: Picture, package: ModelPackage, *, tiling: bool = False, keep: bool = False) -> PreparedImage:
    """Bring a decoded image to a model's input; what the answer says of the image beside comes with `measured`.

    Parameters
    ----------
    picture
        The image.
    package
        The model's: its input policy and reference statistics count.
    tiling
        Whether an image larger than the input at the training's scale is cut into windows.
    keep
        Whether the decoded image is kept.

    Raises
    ------
    InvalidArgument
        ``CHANNELS_MISMATCH`` or ``TOO_MANY_TILES``.
    Unimplemented
        ``TILING``.
    """
    begin = time.perf_counter()
    depth = picture.header.bit_depth
    pixels = prepare(picture.pixels, package.input, depth)
    tiles = plan_tiles((picture.header.width, picture.header.height), package) if tiling else None
    parts = tuple(cut_tiles(picture.pixels, tiles, depth)) if tiles is not None else ()
    seconds = picture.seconds + time.perf_counter() - begin
    return PreparedImage(
        pixels=pixels,
        header=picture.header,
        sha256=picture.sha256,
        shift=None,
        seconds=seconds,
        frame=picture.frame,
        frame_count=picture.frame_count,
        spacing=picture.spacing,
        findings=(*picture.findings, *fit_findings(picture.pixels, package.input, depth)),
        original=picture.pixels if keep else None,
        tiles=tiles,
        parts=parts,
    )


def measured(prepared: PreparedImage, package: ModelPackage, content: bytes = b"") -> PreparedImage:
    """Give a prepared image with its statistics, how far it lies from the training images, and its digest.

    Parameters
    ----------
    prepared
        As `prepare_image` gave it for the package.
    package
        The model's: its reference statistics count.
    content
        The encoded bytes; needed where the picture was read without its digest.
    """
    sha256 = prepared.sha256 or hashlib.sha256(content).hexdigest()
    reference = package.reference
    if reference is None:
        return replace(prepared, sha256=sha256)
    statistics = image_statistics(prepared.pixels)
    distance = reference.distance(statistics)
    return replace(prepared, sha256=sha256, shift=(distance, reference.p_value(distance)), statistics=statistics)
