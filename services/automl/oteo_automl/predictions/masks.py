"""Masks as text: COCO's compressed run lengths."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask


def to_runs(inside: NDArray[np.bool_]) -> str:
    """Write a mask ``(H, W)``."""
    return str(coco_mask.encode(np.asfortranarray(inside.astype(np.uint8)))["counts"].decode("ascii"))


def from_runs(counts: Any, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Read a mask of this height and width, from compressed run lengths (text) or plain ones (a list).

    Raises
    ------
    ValueError
        It is of another size, or no mask.
    """
    height, width = shape
    if height <= 0 or width <= 0:
        raise ValueError("a mask without the image's width and height")
    values = _decompress(counts) if isinstance(counts, str) else [int(value) for value in counts]
    if any(value < 0 for value in values) or sum(values) != height * width:
        raise ValueError(f"a mask of {sum(values)} pixels in an image of {width} x {height}")
    runs = coco_mask.frPyObjects({"size": [height, width], "counts": values}, height, width)
    return np.asarray(coco_mask.decode(runs), dtype=np.bool_)


def _decompress(text: str) -> list[int]:
    """Read the run lengths themselves, so that a broken text is refused here and not by a crash in C.

    The form is that of ``maskApi.c``: six bits a character from 48 on, five of value and one that says "more", signed; from the third run
    on the difference to the run before the last.
    """
    values: list[int] = []
    at = 0
    while at < len(text):
        value, shift, more = 0, 0, True
        while more:
            if at >= len(text) or shift > 60:
                raise ValueError("a mask that is cut off")
            code = ord(text[at]) - 48
            if not 0 <= code < 64:
                raise ValueError("a mask with a character that no mask has")
            value |= (code & 0x1F) << shift
            more = bool(code & 0x20)
            at, shift = at + 1, shift + 5
            if not more and code & 0x10:
                value |= -1 << shift
        if len(values) > 2:
            value += values[-2]
        values.append(value)
    return values
