"""From an image's bytes to what a model takes; run in a small thread pool, because decoding is work."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oteo_core.images import ImageHeader, ImageLimits, InputPolicy, decode, prepare
from oteo_core.packages import ReferenceStatistics, image_statistics


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
    """

    pixels: NDArray[Any]
    header: ImageHeader
    sha256: str
    shift: tuple[float, float] | None
    seconds: float
    statistics: NDArray[np.float64] | None = None


def prepare_image(data: bytes, limits: ImageLimits, policy: InputPolicy, reference: ReferenceStatistics | None) -> PreparedImage:
    """Decode an image and bring it to a model's input.

    Raises
    ------
    InvalidArgument
        ``UNREADABLE_IMAGE``, ``TRUNCATED_IMAGE``, ``IMAGE_TOO_LARGE`` or ``UNSUPPORTED_FORMAT``.
    """
    begin = time.perf_counter()
    image = decode(data, limits)
    pixels = prepare(image.pixels, policy, image.header.bit_depth)
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
    )
