"""Changes to files: blind ones, and such that a format's own check sums and packing do not catch."""

from __future__ import annotations

import contextlib
import gzip
import random
import struct
import zlib

from fuzzing.seeds import Seed

_NUMBERS = (0, 1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 127, 128, 255, 256, 257, 4095, 4096, 32767, 32768, 65534, 65535)
_WIDE = (*_NUMBERS, 65536, 1 << 20, 1 << 24, (1 << 31) - 1, 1 << 31, (1 << 32) - 1)
_DICOM_NUMBERS = (0x0002, 0x0008, 0x0010, 0x0011, 0x0100, 0x0101, 0x0102, 0x0103, 0x0004, 0x0006, 0x1101)
_WORDS = (
    b"MONOCHROME1 ",
    b"PALETTE COLOR ",
    b"YBR_FULL",
    b"YBR_FULL_422",
    b"YBR_RCT ",
    b"RGB ",
    b"1.2.840.10008.1.2.4.90\0",
    b"1.2.840.10008.1.2.5\0",
)


def mutated(seed: Seed, others: list[Seed], draw: random.Random) -> bytes:
    """Change a file in one to six places."""
    # What was mutated before may not unpack any more.
    with contextlib.suppress(OSError, EOFError, zlib.error, struct.error):
        if seed.kind == "nifti-gz" and draw.random() < 0.7:
            return gzip.compress(_changed(gzip.decompress(seed.data), seed, others, draw), 1)
        if seed.kind == "dicom-deflated" and draw.random() < 0.7:
            at = behind_meta(seed.data)
            packer = zlib.compressobj(1, zlib.DEFLATED, -15)
            return seed.data[:at] + packer.compress(_changed(zlib.decompress(seed.data[at:], -15), seed, others, draw)) + packer.flush()
    data = _changed(seed.data, seed, others, draw)
    return _summed(data) if data[:4] == b"\x89PNG" and draw.random() < 0.8 else data


def _changed(data: bytes, seed: Seed, others: list[Seed], draw: random.Random) -> bytes:
    held = bytearray(data)
    for _ in range(draw.choice((1, 1, 1, 2, 3, 6))):
        if not held:
            break
        _change(held, seed, others, draw)
    return bytes(held)


def _change(held: bytearray, seed: Seed, others: list[Seed], draw: random.Random) -> None:
    # Headers are short and decide most: half of all changes go there.
    at = draw.randrange(min(len(held), 512) if draw.random() < 0.5 else len(held))
    size = min(draw.choice((1, 2, 4, 8, 16, 64, 256)), len(held))
    way = draw.randrange(10 if seed.kind.startswith("dicom") else 8)
    if way == 0:
        held[at] ^= 1 << draw.randrange(8)
    elif way == 1:
        held[at] = draw.choice((0, 1, 127, 128, 254, 255, draw.randrange(256)))
    elif way == 2:
        form = draw.choice(("<H", ">H"))
        held[at : at + 2] = struct.pack(form, draw.choice(_NUMBERS))
    elif way == 3:
        form = draw.choice(("<I", ">I"))
        held[at : at + 4] = struct.pack(form, draw.choice(_WIDE))
    elif way == 4:
        del held[at : at + size]
    elif way == 5:
        begin = draw.randrange(len(held))
        held[at:at] = held[begin : begin + size]
    elif way == 6:
        if draw.random() < 0.5:
            del held[at:]
        else:
            held[at : at + size] = draw.randbytes(size)
    elif way == 7:
        other = draw.choice([one for one in others if one.kind == seed.kind]).data
        begin = draw.randrange(len(other))
        held[at : at + size] = other[begin : begin + size]
    elif way == 8:
        mark = struct.pack("<HH", 0x0028, draw.choice(_DICOM_NUMBERS))
        where = held.find(mark)
        if where >= 0:
            held[where + 8 : where + 10] = struct.pack("<H", draw.choice(_NUMBERS))
    else:
        known = [
            word
            for word in (b"MONOCHROME2 ", b"RGB ", b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.4.50", b"1.2.840.10008.1.2.4.70")
            if word in held
        ]
        if known:
            word = draw.choice(known)
            where = held.find(word)
            new = draw.choice(_WORDS)
            held[where : where + len(word)] = new
            # The element's own length, of two bytes before its value.
            held[where - 2 : where] = struct.pack("<H", len(new))


def behind_meta(data: bytes) -> int:
    """Give where the data set of a DICOM file begins."""
    at = 132
    while data[at : at + 2] == b"\x02\0":
        long = data[at + 4 : at + 6] in (b"OB", b"UN")
        length = struct.unpack_from("<I", data, at + 8)[0] if long else struct.unpack_from("<H", data, at + 6)[0]
        at += (12 if long else 8) + length
    return at


def _summed(data: bytes) -> bytes:
    """Give a PNG's chunks their right check sums again, as far as there are chunks."""
    held, at = bytearray(data), 8
    while at + 12 <= len(held):
        (length,) = struct.unpack_from(">I", held, at)
        if at + 12 + length > len(held):
            break
        struct.pack_into(">I", held, at + 8 + length, zlib.crc32(held[at + 4 : at + 8 + length]))
        at += 12 + length
    return bytes(held)
