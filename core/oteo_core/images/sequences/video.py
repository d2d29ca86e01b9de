"""Video clips through OpenCV's FFmpeg."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import numpy as np

from oteo_core.images.header import ImageHeader, truncated, unreadable
from oteo_core.images.limits import ImageLimits
from oteo_core.images.sequences.base import Frame, FrameDecoder, Opened, SequenceHeader, too_large

# FFmpeg and OpenCV write what they think of a damaged file to standard error; it is said once, by the exception.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def open_video(data: bytes, limits: ImageLimits) -> Opened:
    """Open a clip; its frames are RGB, 8 bit, upright as the file's own mark says.

    A frame that cannot be decoded ends it: the iterator raises TRUNCATED_IMAGE there.
    """
    with _capture(data) as capture:
        declared = max(int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0)
        width, height = int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)), int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
    limits.check(ImageHeader("video", width, height, 3, "uint8", max(declared, 1)))
    return Opened(SequenceHeader("video", "video", declared), lambda start: _frames(data, declared, limits, start))


@contextmanager
def _capture(data: bytes) -> Iterator[cv2.VideoCapture]:
    # FFmpeg reads files, not memory.
    with tempfile.NamedTemporaryFile(prefix="oteo-clip-", suffix=".video") as file:
        file.write(data)
        file.flush()
        capture = cv2.VideoCapture(file.name, cv2.CAP_FFMPEG)
        try:
            if not capture.isOpened():
                raise unreadable("no video stream was found in it, or its codec is not known")
            yield capture
        finally:
            capture.release()


def _frames(data: bytes, declared: int, limits: ImageLimits, start: int) -> Iterator[FrameDecoder]:
    count = 0
    with _capture(data) as capture:
        while True:
            # Where a frame stands is known for sure only by going there.
            there, pixels = capture.read() if count >= start else (capture.grab(), None)
            if not there:
                break
            count += 1
            if count > limits.max_frames:
                raise too_large(f"more than {limits.max_frames} frames")
            if pixels is not None:
                frame = Frame(np.ascontiguousarray(pixels[:, :, ::-1]))
                yield lambda frame=frame: frame  # type: ignore[misc]
    # Containers round their count; one frame is no loss.
    if count < declared - 1:
        raise truncated(f"frame {count + 1} of {declared} cannot be decoded")
    if not count:
        raise unreadable("it holds no frame that can be decoded")
