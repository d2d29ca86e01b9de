"""The structure of PNG files (ISO/IEC 15948): chunks, walked without inflating them."""

from __future__ import annotations

import struct
import zlib

from oteo_core.images.exif import orientation_of
from oteo_core.images.header import ImageHeader, Layout, truncated, unreadable

_STORED = {0: ("grey", 1), 2: ("rgb", 3), 3: ("palette", 3), 4: ("grey-alpha", 2), 6: ("rgba", 4)}
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}


def layout(data: bytes) -> Layout:
    """Read the chunks of a PNG file.

    A chunk that is cut off or a missing IEND is a defect, so that a decoder that fills the rest with nothing is never asked. Check
    sums of the pixel chunks are verified: a decoder that skips them would show wrong pixels.

    Raises
    ------
    InvalidArgument
        UNREADABLE_IMAGE, or TRUNCATED_IMAGE where the header itself is cut.
    """
    if len(data) < 33:
        raise truncated("it ends inside its header")
    length, kind, width, height, depth, colour, compression, filtering, interlace = struct.unpack_from(">I4sIIBBBBB", data, 8)
    if kind != b"IHDR" or length != 13:
        raise unreadable("the PNG does not begin with its header chunk")
    if colour not in _STORED or depth not in _DEPTHS[colour] or compression or filtering or interlace > 1:
        raise unreadable(f"the PNG declares colour type {colour} with {depth} bits, which the standard does not know")
    stored, channels = _STORED[colour]
    frames, orientation, defect = 1, 1, ""
    palette = pixels = False
    view = memoryview(data)
    end, position = len(data), 8
    while True:
        if position + 12 > end:
            defect = "it ends between two chunks, without an end mark"
            break
        length, kind = struct.unpack_from(">I4s", data, position)
        start, stop = position + 8, position + 8 + length
        if stop + 4 > end:
            defect = f"its chunk {kind.decode('latin-1')!r} at byte {position} needs {length} bytes, {max(0, end - start)} are there"
            break
        if kind in (b"IHDR", b"PLTE", b"IDAT", b"tRNS"):
            (declared,) = struct.unpack_from(">I", data, stop)
            if zlib.crc32(view[position + 4 : stop]) != declared:
                raise unreadable(f"the check sum of its chunk {kind.decode()!r} at byte {position} is wrong: the file is damaged")
        if kind == b"IDAT":
            pixels = True
        elif kind == b"PLTE":
            palette = True
        elif kind == b"tRNS" and colour == 3:
            stored, channels = "palette-alpha", 4
        elif kind == b"acTL" and length >= 8:
            frames = max(1, struct.unpack_from(">I", data, start)[0])
        elif kind == b"eXIf":
            orientation = orientation_of(bytes(view[start:stop]))
        elif kind == b"IEND":
            break
        position = stop + 4
    if not defect and not pixels:
        defect = "it has no pixel chunk"
    if not defect and colour == 3 and not palette:
        raise unreadable("the PNG is of palette type and has no palette")
    if orientation >= 5:
        width, height = height, width
    pixel_type = "uint16" if depth == 16 else "uint8"
    return Layout(ImageHeader("png", width, height, channels, pixel_type, frames, depth, orientation), stored, defect)
