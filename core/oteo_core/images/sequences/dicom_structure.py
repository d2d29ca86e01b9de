"""The structure of a DICOM file (PS3.5 section 7, PS3.10), walked without making anything of it: how deep, how many, and how packed.

What a parser makes objects of is counted first, so that a header that is made to exhaust it is refused for its size. Where the walk meets what it
does not understand, it ends: whether that can be read is for the parser to say.
"""

from __future__ import annotations

import struct
import zlib

from oteo_core.images.header import truncated, unreadable
from oteo_core.images.limits import ImageLimits, too_large

_DEFLATED = b"1.2.840.10008.1.2.1.99"
_IMPLICIT = b"1.2.840.10008.1.2"
_BIG = b"1.2.840.10008.1.2.2"
_LITTLE = b"1.2.840.10008.1.2.1"
_LONG = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})
"""Value representations whose length has four bytes."""
_SHORT = frozenset(
    {b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"LO", b"LT", b"PN", b"SH", b"SL", b"SS", b"ST", b"TM", b"UI"}
    | {b"UL", b"US"}
)
_UNDEFINED = 0xFFFFFFFF
_DELIMITERS, _PIXELS = 0xFFFE, 0x7FE0
_ITEM, _ITEM_END, _SEQUENCE_END = 0xE000, 0xE00D, 0xE0DD
_PREAMBLE = b"\0" * 128 + b"DICM"


def begins_like_dicom(head: bytes) -> bool:
    """Tell whether bytes begin like DICOM: with its mark behind 128 bytes, or, as old archives store it, with a first data element."""
    if head[128:132] == b"DICM":
        return True
    if len(head) < 8 or head[:2] not in (b"\x08\0", b"\x02\0", b"\0\x08"):
        return False
    order = ">" if head[:2] == b"\0\x08" else "<"
    (length,) = struct.unpack_from(order + "I", head, 4)
    return bytes(head[4:6]) in _LONG | _SHORT or length < 4096


def sound(data: bytes, limits: ImageLimits) -> bytes:
    """Hold a file's structure against the limits, and unpack one that is deflated.

    Returns
    -------
    bytes
        The file itself, or, of a deflated one, the same data set as explicit little-endian DICOM.

    Raises
    ------
    InvalidArgument
        IMAGE_TOO_LARGE for too many elements or sequences within each other, or for what becomes too large once unpacked; UNREADABLE_IMAGE and
        TRUNCATED_IMAGE where the packed part is damaged or cut.
    """
    start = 132 if data[128:132] == b"DICM" else 0
    syntax, start = _meta(data, start)
    if syntax == _DEFLATED:
        inflated = _inflate(data, start, limits)
        if inflated[:2] == b"\x02\0":
            raise unreadable("its packed part begins with a file header of its own")
        _walk(inflated, 0, explicit=True, order="<", limits=limits)
        name = _LITTLE + b"\0" * (len(_LITTLE) % 2)
        return _PREAMBLE + struct.pack("<HH2sH", 2, 0x10, b"UI", len(name)) + name + inflated
    explicit = syntax != _IMPLICIT if syntax else bytes(data[start + 4 : start + 6]) in _LONG | _SHORT
    big = syntax == _BIG or (not syntax and data[start : start + 1] == b"\0")
    _walk(data, start, explicit=explicit, order=">" if big else "<", limits=limits)
    return data


def _meta(data: bytes, position: int) -> tuple[bytes, int]:
    """Read the file's own header, group 2; give the transfer syntax, b"" where there is none, and where the data set begins."""
    syntax = b""
    while position + 8 <= len(data) and data[position : position + 2] == b"\x02\0":
        (element,) = struct.unpack_from("<H", data, position + 2)
        head, length, _ = _length(data, position, explicit=True, order="<")
        value = position + head
        if length == _UNDEFINED or value + length > len(data):
            break
        if element == 0x10:
            syntax = bytes(data[value : value + length]).rstrip(b"\0 ")
        position = value + length
    return syntax, position


def _length(data: bytes, position: int, *, explicit: bool, order: str) -> tuple[int, int, bytes]:
    """Give the bytes of an element's head, its declared length, and its value representation where it has one."""
    representation = bytes(data[position + 4 : position + 6]) if explicit else b""
    if representation in _LONG:
        if position + 12 > len(data):
            return 12, _UNDEFINED, b""
        return 12, int(struct.unpack_from(order + "I", data, position + 8)[0]), representation
    if representation in _SHORT:
        return 8, int(struct.unpack_from(order + "H", data, position + 6)[0]), representation
    # Some writers leave the representation out in the middle of an explicit file.
    return 8, int(struct.unpack_from(order + "I", data, position + 4)[0]), b""


def _walk(data: bytes, position: int, *, explicit: bool, order: str, limits: ImageLimits) -> None:
    item_mark = struct.pack(order + "HH", _DELIMITERS, _ITEM)
    pair = struct.Struct(order + "HH")
    end = len(data)
    # Of sequences and items that are open: whether it is a sequence, and where it ends (-1: at its delimiter).
    opened: list[tuple[bool, int]] = []
    depth = elements = 0
    while position + 8 <= end:
        while opened and 0 <= opened[-1][1] <= position:
            depth -= opened.pop()[0]
        group, element = pair.unpack_from(data, position)
        if group == _DELIMITERS:
            if element == _ITEM:
                (length,) = struct.unpack_from(order + "I", data, position + 4)
                opened.append((False, -1 if length == _UNDEFINED else position + 8 + length))
            elif element in (_ITEM_END, _SEQUENCE_END):
                while opened:
                    was_sequence, _ = opened.pop()
                    depth -= was_sequence
                    if was_sequence == (element == _SEQUENCE_END):
                        break
            else:
                return
            position += 8
            continue
        if group == _PIXELS and not opened:
            return
        elements += 1
        if elements > limits.max_elements:
            raise too_large(f"more than {limits.max_elements} data elements")
        head, length, representation = _length(data, position, explicit=explicit, order=order)
        position += head
        if group == _PIXELS and length == _UNDEFINED:
            position = _behind_fragments(data, position, order)
        elif representation == b"SQ" or length == _UNDEFINED or (not representation and data[position : position + 4] == item_mark):
            depth += 1
            if depth > limits.max_nesting:
                raise too_large(f"more than {limits.max_nesting} sequences within each other")
            opened.append((True, -1 if length == _UNDEFINED else position + length))
        else:
            position += length


def _behind_fragments(data: bytes, position: int, order: str) -> int:
    """Skip the compressed frames of a picture inside a sequence (an icon)."""
    while position + 8 <= len(data):
        group, element, length = struct.unpack_from(order + "HHI", data, position)
        position += 8
        if group != _DELIMITERS or element != _ITEM or length == _UNDEFINED:
            break
        position += length
    return position


def _inflate(data: bytes, start: int, limits: ImageLimits) -> bytes:
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        inflated = unpacker.decompress(memoryview(data)[start:], limits.max_unpacked + 1)
    except zlib.error as exc:
        raise unreadable(f"its deflated data set is damaged ({exc})") from exc
    if len(inflated) > limits.max_unpacked:
        raise too_large(f"a deflated data set of more than {limits.max_unpacked} bytes")
    if not unpacker.eof:
        raise truncated("its deflated data set has no end")
    return inflated
