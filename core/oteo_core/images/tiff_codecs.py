"""What stands in for two of tifffile's decoders that damaged files bring down: imagecodecs' own of LZW, and liblj92.

- imagecodecs (2026.3.6) takes a code that is in no table, where it is the first behind a Clear, for one of the table, and follows what
  memory held before. LZW goes to libtiff instead, a strip or tile at a time, each in a TIFF of its own.
- `imagecodecs.jpeg_decode` gives what libjpeg-turbo refuses to liblj92, which reads beyond its memory where a Huffman table is damaged.
  tifffile calls it by its name, so liblj92 itself is taken away.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, NoReturn

import imagecodecs

_LZW, _UNCOMPRESSED = 5, 1
_LSB_FIRST, _MSB_FIRST = 2, 1
_SHORT, _LONG = 3, 4


def _none(*_: object, **__: object) -> NoReturn:
    raise ValueError("JPEG that libjpeg-turbo refuses is not read")


imagecodecs.ljpeg_decode = _none


def prepare(page: Any) -> None:
    """Let a page that is compressed by LZW decode its strips and tiles by `lzw_decode`; others stay as they are.

    Parameters
    ----------
    page
        A `tifffile.TiffPage` or `TiffFrame`, not yet decoded.
    """
    key = page.keyframe
    if int(key.compression) != _LZW or getattr(vars(key).get("decode"), "by_libtiff", False):
        return
    compression, order = key.compression, key.fillorder
    bits = int(key.bitspersample)
    # tifffile makes a page's decoder when it is first asked for, and keeps it: here one that unpacks what is not compressed any more.
    key.compression, key.fillorder = _UNCOMPRESSED, _MSB_FIRST
    try:
        unpack: Callable[..., Any] = key.decode
    finally:
        key.compression, key.fillorder = compression, order

    def decode(data: bytes | None, index: int, /, **options: Any) -> Any:
        if data is not None:
            depth, length, width, samples = unpack(None, index)[2]
            size = depth * length * ((width * samples * bits + 7) // 8)
            data = lzw_decode(imagecodecs.bitorder_decode(data) if order == _LSB_FIRST else data, size)
        return unpack(data, index, **options)

    decode.by_libtiff = True  # type: ignore[attr-defined]
    key.decode = decode


def lzw_decode(data: bytes | bytearray, size: int) -> bytes:
    """Decode an LZW stream (TIFF 6.0, section 13; the older form, whose codes begin with their lowest bit, too).

    Parameters
    ----------
    data
        The stream.
    size
        Bytes that it stands for, 1 to 2**31 - 1; what lies behind them is not looked at.

    Raises
    ------
    ValueError
        The stream is damaged, or stands for fewer bytes.
    """
    entries = [
        (256, _LONG, size),  # width
        (257, _LONG, 1),  # length
        (258, _SHORT, 8),  # bits of a sample
        (259, _SHORT, _LZW),
        (262, _SHORT, 1),  # black is zero
        (273, _LONG, 8),  # where the strip begins
        (277, _SHORT, 1),  # samples of a pixel
        (278, _LONG, 1),  # rows of a strip
        (279, _LONG, len(data)),
    ]
    even = data + b"\0" * (len(data) % 2)
    directory = (
        struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries) + bytes(4)
    )
    try:
        return bytes(imagecodecs.tiff_decode(b"II*\0" + struct.pack("<I", 8 + len(even)) + even + directory))
    except RuntimeError as exc:
        raise ValueError(f"its LZW stream is damaged: {exc}") from exc
