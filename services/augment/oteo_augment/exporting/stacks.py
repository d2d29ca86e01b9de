"""Frames of one sequence, collected and written as one TIFF stack."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from oteo_core.datasets import Sample

_CLASSIC = 4_000_000_000
"""Bytes up to which a TIFF file is a classic one; beyond, its offsets need 64 bits."""


class Collector:
    """Holds back the frames of a sequence until all are there.

    Only rows are held, no pixels. Frames whose neighbours were left out come at the end, in `rest`.
    """

    def __init__(self) -> None:
        self._waiting: dict[str, list[Sample]] = {}

    def take(self, sample: Sample) -> list[Sample]:
        """Give what can be written now that `sample` is there: the sample itself, a whole sequence in order, or nothing yet."""
        if not sample.sequence or sample.excluded:
            return [sample]
        frames = self._waiting.setdefault(sample.sequence, [])
        frames.append(sample)
        if len(frames) < sample.frames:
            return []
        return _in_order(self._waiting.pop(sample.sequence))

    def rest(self) -> Iterator[list[Sample]]:
        """Give the sequences of which frames are missing."""
        while self._waiting:
            yield _in_order(self._waiting.pop(next(iter(self._waiting))))


def _in_order(frames: list[Sample]) -> list[Sample]:
    return sorted(frames, key=lambda sample: sample.frame)


def alike(frames: Sequence[Sample]) -> bool:
    """Tell whether frames fit one stack: of one size, type, part and, for a folder of a class, of the same labels."""
    kinds = {(s.width, s.height, s.channels, s.dtype, s.split, s.labels if not s.mask_path else ()) for s in frames}
    return len(kinds) == 1


def write_stack(path: Path, pages: Iterator[NDArray[Any]], count: int, page_bytes: int) -> None:
    """Write a TIFF file of a page for each frame, deflated, the same bytes for the same pixels.

    Parameters
    ----------
    path
        A new file.
    pages
        (H, W) or (H, W, C), uint8, uint16 or float32, one after the other: no more than one is held.
    count, page_bytes
        How many, and how large each.
    """
    with tifffile.TiffWriter(path, bigtiff=count * page_bytes > _CLASSIC) as file:
        for page in pages:
            flat = page[:, :, 0] if page.ndim == 3 and page.shape[2] == 1 else page
            colour = flat.ndim == 3 and flat.shape[2] in (3, 4) and flat.dtype != np.float32
            options: dict[str, Any] = {"photometric": "rgb" if colour else "minisblack"}
            if flat.ndim == 3:
                extra = flat.shape[2] - (3 if colour else 1)
                options |= {"planarconfig": "contig", "extrasamples": ["unspecified"] * extra if extra else None}
            file.write(np.ascontiguousarray(flat), compression="zlib", metadata=None, software=False, **options)
