"""Files of several frames: TIFF stacks, DICOM objects, NIfTI volumes, video clips and animated pictures, one frame at a time."""

from __future__ import annotations

from oteo_core.images.sequences.base import ENDINGS, Frame, Opened, SequenceHeader
from oteo_core.images.sequences.opening import holds_frames, open_frames, open_labels

__all__ = ["ENDINGS", "Frame", "Opened", "SequenceHeader", "holds_frames", "open_frames", "open_labels"]
