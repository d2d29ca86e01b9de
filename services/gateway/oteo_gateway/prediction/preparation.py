"""From an image's bytes to what a model takes; run in a small thread pool, because decoding is work."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oteo_core.images import ImageHeader, ImageLimits, decode, prepare
from oteo_core.packages import ModelPackage, image_statistics
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
        Of the encoded bytes, lower-case hexadecimal.
    shift
        Distance from the training images and its p-value; None where the package has no reference statistics.
    statistics
        ``(D,)`` of `oteo_core.packages.image_statistics`; None likewise.
    seconds
        Time that decoding and resizing took.
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
    original: NDArray[Any] | None = None
    tiles: Tiles | None = None
    parts: tuple[NDArray[Any], ...] = ()


def prepare_image(data: bytes, limits: ImageLimits, package: ModelPackage, *, tiling: bool = False, keep: bool = False) -> PreparedImage:
    """Decode an image and bring it to a model's input.

    Parameters
    ----------
    data
        The encoded image.
    limits
        Of decoding.
    package
        The model's: its input policy and reference statistics count.
    tiling
        Whether an image larger than the input at the training's scale is cut into windows.
    keep
        Whether the decoded image is kept.

    Raises
    ------
    InvalidArgument
        ``UNREADABLE_IMAGE``, ``TRUNCATED_IMAGE``, ``IMAGE_TOO_LARGE``, ``UNSUPPORTED_FORMAT`` or ``TOO_MANY_TILES``.
    Unimplemented
        ``TILING``.
    """
    begin = time.perf_counter()
    image = decode(data, limits)
    pixels = prepare(image.pixels, package.input, image.header.bit_depth)
    tiles = plan_tiles((image.header.width, image.header.height), package) if tiling else None
    parts = tuple(cut_tiles(image.pixels, tiles, image.header.bit_depth)) if tiles is not None else ()
    reference = package.reference
    seconds = time.perf_counter() - begin
    statistics = image_statistics(pixels) if reference is not None else None
    distance = reference.distance(statistics) if reference is not None and statistics is not None else 0.0
    return PreparedImage(
        pixels=pixels,
        header=image.header,
        sha256=hashlib.sha256(data).hexdigest(),
        shift=(distance, reference.p_value(distance)) if reference is not None else None,
        seconds=seconds,
        statistics=statistics,
        original=image.pixels if keep else None,
        tiles=tiles,
        parts=parts,
    )
