"""Run-length masks in COCO's uncompressed form: runs of 0 and 1 in turn, column by column, beginning with 0."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def mask_from_runs(counts: Sequence[int], height: int, width: int) -> NDArray[np.uint8]:
    """Give the mask ``(height, width)`` of 0 and 1 that runs describe.

    Raises
    ------
    ValueError
        The runs do not add up to height times width.
    """
    runs = np.asarray(counts, np.int64)
    if int(runs.sum()) != height * width:
        raise ValueError(f"runs of {int(runs.sum())} pixels for a mask of {width} x {height}")
    flat = np.repeat((np.arange(len(runs)) % 2).astype(np.uint8), runs)
    return np.ascontiguousarray(flat.reshape(width, height).T)


def runs_from_mask(mask: NDArray[Any]) -> tuple[int, ...]:
    """Give the runs of a mask ``(height, width)``: 0 is 0, anything else 1."""
    flat = (np.asarray(mask) != 0).T.ravel()
    if not flat.size:
        return ()
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    counts = np.diff(np.concatenate([[0], changes, [flat.size]])).tolist()
    return tuple([0, *counts] if flat[0] else counts)
