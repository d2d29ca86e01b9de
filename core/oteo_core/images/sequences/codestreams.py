"""What a compressed frame declares of itself, read before any decoder allocates by it.

Sources: ITU-T T.81 (JPEG) B.2.2, ITU-T T.87 (JPEG-LS) C.2.2, ITU-T T.800 (JPEG 2000) A.5.1 and B.3, which HTJ2K (T.814) keeps.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

_FRAME_MARKERS = (frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}) | {0xF7}
_ALONE = frozenset({0x01, *range(0xD0, 0xD9)})
_JP2, _J2K = b"\x00\x00\x00\x0cjP  ", b"\xff\x4f\xff\x51"
_BOXED = 4096
"""A JPEG 2000 codestream that is boxed as a file begins within so many bytes."""
_MOST_COMPONENTS, _MOST_BITS, _MOST_TILES = 16384, 38, 65535
"""Of a JPEG 2000 codestream: T.800, table A.9 and, of tiles, whose numbers have two bytes and end at 65534, A.4.2."""


@dataclass(frozen=True, slots=True)
class Declared:
    """Width and height in pixels, number of components, bits of a sample."""

    width: int
    height: int
    components: int
    bits: int


def declared(data: bytes) -> Declared | None:
    """Read the size of a JPEG, JPEG-LS, JPEG 2000 or HTJ2K codestream; None where it begins like none of them.

    Raises
    ------
    ValueError
        A JPEG 2000 codestream declares tiles or components that the standard does not allow: decoders divide by them.
    """
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
    right, bottom, left, top, wide, high, tiles_left, tiles_top, components = struct.unpack_from(">8IH", data, at + 8)
    (length,) = struct.unpack_from(">H", data, at + 4)
    if not 1 <= components <= _MOST_COMPONENTS or length != 38 + 3 * components or at + 4 + length > len(data):
        raise ValueError(f"the JPEG 2000 codestream declares {components} components in a header of {length} bytes")
    tiles = 1
    for begin, end, step, first in ((left, right, wide, tiles_left), (top, bottom, high, tiles_top)):
        if end <= begin:
            raise ValueError(f"the JPEG 2000 codestream declares a picture from {begin} to {end}")
        # The first tile begins no later than the picture and holds a part of it.
        if not step or not first <= begin < first + step:
            raise ValueError(f"the JPEG 2000 codestream declares tiles of {step} from {first} on, its picture begins at {begin}")
        tiles *= -((first - end) // step)
    if tiles > _MOST_TILES:
        raise ValueError(f"the JPEG 2000 codestream declares {tiles} tiles")
    parts = data[at + 42 : at + 4 + length]
    bits = max((value & 0x7F) + 1 for value in parts[::3])
    if bits > _MOST_BITS or not all(parts[1::3]) or not all(parts[2::3]):
        raise ValueError("the JPEG 2000 codestream declares components that are not possible")
    return Declared(right - left, bottom - top, components, bits)
