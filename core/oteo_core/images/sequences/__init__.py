"""Files of several frames: TIFF stacks, DICOM objects, NIfTI volumes, video clips and animated pictures, one frame at a time."""

from __future__ import annotations

from oteo_core.images.sequences.base import ENDINGS, Frame, FrameDecoder, Opened, SequenceHeader
from oteo_core.images.sequences.opening import open_frames, open_image, open_labels

__all__ = ["ENDINGS", "Frame", "FrameDecoder", "Opened", "SequenceHeader", "open_frames", "open_image", "open_labels"]
