"""What a compressed frame declares of itself, read before any decoder allocates by it.

Sources: ITU-T T.81 (JPEG) B.2.2, ITU-T T.87 (JPEG-LS) C.2.2, ITU-T T.800 (JPEG 2000) A.5.1, which HTJ2K (T.814) keeps.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

_FRAME_MARKERS = (frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}) | {0xF7}
_ALONE = frozenset({0x01, *range(0xD0, 0xD9)})
_JP2, _J2K = b"\x00\x00\x00\x0cjP  ", b"\xff\x4f\xff\x51"
_BOXED = 4096
"""A JPEG 2000 codestream that is boxed as a file begins within so many bytes."""


@dataclass(frozen=True, slots=True)
class Declared:
    """Width and height in pixels, number of components, bits of a sample."""

    width: int
    height: int
    components: int
    bits: int


def declared(data: bytes) -> Declared | None:
    """Read the size of a JPEG, JPEG-LS, JPEG 2000 or HTJ2K codestream; None where it begins like none of them."""
    if data[:2] == b"\xff\xd8":
        return _jpeg(data)
    at = bytes(data[:_BOXED]).find(_J2K)
    return _jpeg2000(data, at) if at >= 0 else None


def unboxed(data: bytes) -> bytes:
    """Give a frame's codestream without the JP2 boxes around it, if there are any: pydicom 3.0 goes round for ever over a box of no length.

    Raises
    ------
    ValueError
        There are boxes and no codestream.
    """
    if data[:8] != _JP2:
        return data
    at = bytes(data[:_BOXED]).find(_J2K)
    if at < 0:
        raise ValueError("the compressed frame is a JP2 file without a codestream")
    return data[at:]


def _jpeg(data: bytes) -> Declared | None:
    position, end = 2, len(data)
    while position + 4 <= end:
        if data[position] != 0xFF:
            return None
        marker = data[position + 1]
        if marker == 0xFF:
            position += 1
        elif marker in _ALONE:
            position += 2
        elif marker in _FRAME_MARKERS:
            if position + 10 > end:
                return None
            bits, height, width, components = struct.unpack_from(">BHHB", data, position + 4)
            return Declared(width, height, components, bits)
        else:
            position += 2 + int(struct.unpack_from(">H", data, position + 2)[0])
    return None


def _jpeg2000(data: bytes, at: int) -> Declared | None:
    if at + 43 > len(data):
        return None
    right, bottom, left, top = struct.unpack_from(">IIII", data, at + 8)
    components, bits = struct.unpack_from(">HB", data, at + 40)
    return Declared(right - left, bottom - top, components, (bits & 0x7F) + 1)
