"""What a prediction is asked about: a file opened, one of its frames decoded, and what the caller should know of both.

Files are opened by `oteo_core.images.sequences.open_image`, as an import opens them, so that a model is given the pixels that it was trained on.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from oteo_core.datasets import Finding, Severity
from oteo_core.datasets.named_images import ImageStore
from oteo_core.errors import InvalidArgument, OteoError, ResourceExhausted
from oteo_core.images import ImageHeader, ImageLimits
from oteo_core.images.header import truncated
from oteo_core.images.sequences import Frame, FrameDecoder, Opened, open_image
from oteo_core.images.sequences.opening import kind_of


class Asked(Protocol):
    """An image as a query names it: one of the three is set."""

    @property
    def content(self) -> bytes:
        """Encoded bytes."""

    @property
    def sample(self) -> str:
        """A dataset's sample."""

    @property
    def uri(self) -> str:
        """An object of the artifact store."""

    @property
    def frame(self) -> int | None:
        """The frame that is asked for, from 0; None: the first."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded frame.

    Attributes
    ----------
    pixels
        ``(H, W, C)`` of uint8, uint16 or float32, as the file's numbers mean; no window is applied.
    header
        What the image is; `bit_depth` are the bits that the file declares.
    sha256
        Of the encoded file, lower-case hexadecimal; empty where it was read without.
    frame, frame_count
        Which of how many, from 0.
    spacing
        Width and height of a pixel, mm; None where not known.
    findings
        What the caller should know of the file.
    seconds
        Time that reading and decoding took.
    """

    pixels: NDArray[Any]
    header: ImageHeader
    sha256: str
    frame: int = 0
    frame_count: int = 1
    spacing: tuple[float, float] | None = None
    findings: tuple[Finding, ...] = ()
    seconds: float = 0.0


class OpenFile:
    """An opened file whose frames are decoded one by one, each when it is asked for."""

    def __init__(self, opened: Opened, sha256: str, spacing: tuple[float, float] | None, bit_depth: int) -> None:
        self.frames = max(1, opened.header.frames)
        self._opened = opened
        self._sha256 = sha256
        self._spacing = spacing
        self._bit_depth = bit_depth
        self._notes = tuple(Finding(Severity.WARNING, code, message) for code, message in opened.header.notes)

    def decoders(self, start: int = 0) -> Iterator[FrameDecoder]:
        """Give what decodes each frame, from this one on; raises where the file ends too early."""
        return self._opened.decoders(start)

    def picture(self, decoders: Iterator[FrameDecoder], number: int, *, told: bool = True) -> Picture:
        """Decode the next frame.

        Parameters
        ----------
        decoders
            Of this file.
        number
            Which it is, from 0.
        told
            False: the caller has not said which frame is meant, and is told that there are more.
        """
        begin = time.perf_counter()
        decode = next(decoders, None)
        if decode is None:
            raise truncated(f"it declares {self.frames} frames and holds {number}")
        frame = decode()
        notes = self._notes
        if self.frames > 1 and not told:
            notes += (
                Finding(
                    Severity.WARNING,
                    "SEVERAL_FRAMES",
                    f"The image has {self.frames} frames and this answers for the first; name one by frame, or ask for all_frames in PredictStream.",
                ),
            )
        return Picture(
            pixels=frame.pixels,
            header=self._header(frame),
            sha256=self._sha256,
            frame=number,
            frame_count=self.frames,
            spacing=self._spacing,
            findings=notes,
            seconds=time.perf_counter() - begin,
        )

    def _header(self, frame: Frame) -> ImageHeader:
        deep = frame.pixels.dtype == np.uint16
        if self._opened.image is not None:
            return replace(self._opened.image, bit_depth=self._bit_depth) if deep and self._bit_depth else self._opened.image
        height, width, channels = frame.pixels.shape
        name = frame.pixels.dtype.name
        depth = frame.bit_depth if deep and frame.bit_depth else frame.pixels.dtype.itemsize * 8
        return ImageHeader(self._opened.header.format, width, height, channels, name, self.frames, depth)


class Inputs:
    """Opens what predictions are asked about.

    Parameters
    ----------
    images
        Images that are named.
    limits
        Largest images, held against what headers declare.
    """

    def __init__(self, images: ImageStore, limits: ImageLimits) -> None:
        self._images = images
        self._limits = limits

    def open(self, asked: Asked, *, hashed: bool = True) -> OpenFile:
        """Open a file; nothing is decoded yet. `hashed` as of `read`.

        Raises
        ------
        InvalidArgument
            UNREADABLE_IMAGE, TRUNCATED_IMAGE, IMAGE_TOO_LARGE, UNSUPPORTED_FORMAT; NotFound as of `ImageStore`.
        """
        if asked.sample:
            data = self._images.sample(asked.sample)
            return self._opened(data, asked.sample, self._images.spacing(asked.sample), self._images.bit_depth(asked.sample))
        if asked.uri:
            return self._opened(self._images.object(asked.uri), asked.uri)
        return self._opened(asked.content, hashed=hashed)

    def read(self, asked: Asked, *, hashed: bool = True) -> Picture:
        """Open a file and decode the frame that is asked for.

        Parameters
        ----------
        asked
            The image.
        hashed
            False: bytes that the caller sent are left without their digest, for whoever takes it later.

        Raises
        ------
        InvalidArgument
            As `open`; FRAME_NOT_FOUND for a frame that the file does not have.
        """
        begin = time.perf_counter()
        file = self.open(asked, hashed=hashed)
        number = asked.frame or 0
        if number >= file.frames:
            raise InvalidArgument(
                f"frame {number} is asked for and the image has {file.frames}, counted from 0", reason="FRAME_NOT_FOUND", field="frame"
            )
        with at_image():
            picture = file.picture(file.decoders(number), number, told=asked.frame is not None)
        return replace(picture, seconds=time.perf_counter() - begin)

    def _opened(
        self, data: bytes, name: str = "", spacing: tuple[float, float] | None = None, bit_depth: int = 0, *, hashed: bool = True
    ) -> OpenFile:
        with at_image():
            if kind_of(data, name) == "video":
                raise InvalidArgument(
                    "a video clip is not read here: send its frames, or import it into a dataset and name the samples",
                    reason="UNSUPPORTED_FORMAT",
                )
            opened = open_image(data, self._limits, name)
        own = opened.header.spacing
        sha256 = hashlib.sha256(data).hexdigest() if hashed else ""
        return OpenFile(opened, sha256, spacing or ((own[0], own[1]) if len(own) >= 2 else None), bit_depth)


@contextmanager
def at_image() -> Iterator[None]:
    """Say of errors which field they are about, and of missing memory what to do."""
    try:
        yield
    except InvalidArgument as error:
        raise type(error)(error.message, reason=error.reason, field=error.field or "image", metadata=error.metadata) from error
    except MemoryError as error:
        raise ResourceExhausted("There is not enough memory for this image at the moment.", reason="OUT_OF_MEMORY") from error


def goes_on(error: OteoError) -> bool:
    """Tell whether the frames behind one that failed so may be whole: not where the file ends, or is of a kind that is not read."""
    return error.reason == "UNREADABLE_IMAGE"
