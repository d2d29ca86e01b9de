"""From a decoded image to what a model takes; run in a small thread pool, because resizing is work."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from oteo_core.datasets import Finding
from oteo_core.images import ImageHeader, InputPolicy, prepare
from oteo_core.packages import ReferenceStatistics
from oteo_gateway.prediction.fitting import fit_findings
from oteo_gateway.prediction.inputs import Picture


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
    seconds
        Time that decoding and resizing took.
    frame, frame_count
        Which frame of how many, from 0.
    spacing
        Width and height of a pixel of the original, mm; None where not known.
    findings
        What the caller should know of the file and of how its pixels were brought to the model's.
    """

    pixels: NDArray[Any]
    header: ImageHeader
    sha256: str
    shift: tuple[float, float] | None
    seconds: float
    frame: int = 0
    frame_count: int = 1
    spacing: tuple[float, float] | None = None
    findings: tuple[Finding, ...] = ()


def prepare_image(picture: Picture, policy: InputPolicy, reference: ReferenceStatistics | None) -> PreparedImage:
    """Bring a decoded image to a model's input.

    Raises
    ------
    InvalidArgument
        ``CHANNELS_MISMATCH``.
    """
    begin = time.perf_counter()
    pixels = prepare(picture.pixels, policy, picture.header.bit_depth)
    seconds = picture.seconds + time.perf_counter() - begin
    return PreparedImage(
        pixels=pixels,
        header=picture.header,
        sha256=picture.sha256,
        shift=reference.score(pixels) if reference is not None else None,
        seconds=seconds,
        frame=picture.frame,
        frame_count=picture.frame_count,
        spacing=picture.spacing,
        findings=(*picture.findings, *fit_findings(picture.pixels, policy, picture.header.bit_depth)),
    )
