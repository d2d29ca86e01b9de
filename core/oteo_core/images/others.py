"""BMP, GIF, WebP and PNM: sizes from the bytes themselves, pixels through Pillow."""

from __future__ import annotations

import io
import struct
import warnings
from typing import Any

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from oteo_core.images.exif import orientation_of
from oteo_core.images.header import ImageHeader, Layout, truncated, unreadable

_PILLOW = {"bmp": ["BMP"], "gif": ["GIF"], "webp": ["WEBP"], "pnm": ["PPM"], "png": ["PNG"], "jpeg": ["JPEG"]}


def layout(data: bytes, name: str) -> Layout:
    """Read the size of a file of the format `name` ("bmp", "gif", "webp" or "pnm").

    Raises
    ------
    InvalidArgument
        UNREADABLE_IMAGE or TRUNCATED_IMAGE.
    """
    return {"bmp": _bmp, "gif": _gif, "webp": _webp, "pnm": _pnm}[name](data)


def decode(data: bytes, header: ImageHeader) -> NDArray[Any]:
    """Decode the first frame with Pillow.

    Parameters
    ----------
    data
        The whole file.
    header
        What `layout`, or another format's, said of it; checked against the limits.

    Returns
    -------
    ndarray
        (H, W, C), dtype uint8 or uint16; as stored, not yet turned upright.

    Raises
    ------
    InvalidArgument
        UNREADABLE_IMAGE or TRUNCATED_IMAGE.
    """
    with open_sized(data, header) as image:
        try:
            image.load()
        except (OSError, SyntaxError, EOFError) as exc:
            if "truncated" in str(exc).lower() or "not enough" in str(exc).lower():
                raise truncated(str(exc)) from exc
            raise unreadable(str(exc)) from exc
        mode = _target_mode(image)
        pixels = np.asarray(image if image.mode == mode else image.convert(mode))
    if pixels.dtype == np.int32:  # Pillow gives 16-bit PNM so
        pixels = np.clip(pixels, 0, 65535).astype(np.uint16)
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def open_sized(data: bytes, header: ImageHeader) -> PIL.Image.Image:
    """Open a file with Pillow; what it takes for the size, and will allocate by, is what was held against the limits.

    Raises
    ------
    InvalidArgument
        UNREADABLE_IMAGE.
    """
    image = _open(data, header.format)
    check_size(image, header)
    return image


def check_size(image: PIL.Image.Image, header: ImageHeader) -> None:
    """Refuse an image, or a frame that was gone to, of another size than its file's header; none of its pixels is decoded yet.

    Raises
    ------
    InvalidArgument
        UNREADABLE_IMAGE.
    """
    if image.size != header.stored_size:
        raise unreadable(
            f"its header declares {header.stored_size[0]} x {header.stored_size[1]} pixels, a frame {image.size[0]} x {image.size[1]}"
        )


def _target_mode(image: PIL.Image.Image) -> str:
    if image.mode in ("L", "LA", "RGB", "RGBA", "I", "I;16", "I;16B", "I;16L"):
        return "I" if image.mode == "I;16B" else image.mode
    if image.mode == "1":
        return "L"
    if image.mode in ("P", "PA"):
        return "RGBA" if image.mode == "PA" or "transparency" in image.info else "RGB"
    return "RGB"


def _open(data: bytes, name: str) -> PIL.Image.Image:
    try:
        with warnings.catch_warnings():
            # Our own limits were checked; Pillow's warning at 89 million pixels would only repeat them.
            warnings.simplefilter("ignore", PIL.Image.DecompressionBombWarning)
            return PIL.Image.open(io.BytesIO(data), formats=_PILLOW[name])
    except (OSError, SyntaxError, PIL.Image.DecompressionBombError) as exc:
        raise unreadable(str(exc)) from exc


def _bmp(data: bytes) -> Layout:
    if len(data) < 54:
        raise truncated("it ends inside its header")
    size, offset, header = struct.unpack_from("<I4xII", data, 2)
    if header < 40:
        raise unreadable(f"the BMP has a header of {header} bytes, as of OS/2")
    width, height, _, bits, compression = struct.unpack_from("<iiHHI", data, 18)
    stored, channels = ("palette", 3) if bits <= 8 else ("rgb", 3)
    width, height = abs(width), abs(height)
    defect = ""
    if compression in (0, 3):
        need = offset + ((width * bits + 31) // 32) * 4 * height
        if need > len(data):
            defect = f"the BMP's pixels need {need} bytes, {len(data)} are there"
    elif size > len(data):
        defect = f"the BMP declares {size} bytes, {len(data)} are there"
    with _open(data, "bmp") as image:
        mode = _target_mode(image)
    channels = {"L": 1, "RGB": 3, "RGBA": 4}.get(mode, channels)
    return Layout(ImageHeader("bmp", width, height, channels, "uint8", 1, 8), stored, defect)


def _gif(data: bytes) -> Layout:
    """Walk the blocks of a GIF (GIF89a, Appendix A), as Pillow walks them.

    Pillow is not asked, because it makes the first frame's background when it opens a file, before any size is held against the limits.
    """
    if len(data) < 13:
        raise truncated("it ends inside its header")
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    table = data[13 : 13 + _table_bytes(flags)]
    position = 13 + len(table)
    frames, defect, transparent = 0, "the GIF has no end mark", False
    while position < len(data):
        block = data[position]
        if block == 0x3B:
            defect = ""
            break
        if block == 0x21:
            _check_extension(data, position)
            if frames == 0 and data[position + 1 : position + 2] == b"\xf9" and position + 3 < len(data):
                transparent |= bool(data[position + 3] & 1)
            position = _skip_sub_blocks(data, position + 2)
        elif block == 0x2C:
            if position + 10 > len(data):
                break
            left, top, wide, high, local = struct.unpack_from("<HHHHB", data, position + 1)
            frames += 1
            # Section 20 of GIF89a; Pillow would make its picture larger, by what no limit was held against.
            if left + wide > width or top + high > height:
                raise unreadable(
                    f"frame {frames} of the GIF reaches to {left + wide} x {top + high}, its screen has {width} x {height} pixels"
                )
            size = _table_bytes(local)
            if frames == 1 and local & 0x80:
                table = data[position + 10 : position + 10 + size]
            position = _skip_sub_blocks(data, position + 10 + size + 1)
        else:
            raise unreadable(f"the GIF has an unknown block {block:#x} at byte {position}")
    if not frames and not defect:
        raise unreadable("the GIF has no image")
    # A table whose colours are grey, each of its own number's brightness, is none: the numbers are the pixels.
    grey = all(value == place // 3 for place, value in enumerate(table))
    channels = 1 if grey else 4 if transparent else 3
    return Layout(ImageHeader("gif", width, height, channels, "uint8", max(1, frames), 8), "palette", defect)


def _table_bytes(flags: int) -> int:
    """Give the bytes of the colour table that a GIF's screen or image descriptor announces."""
    return 3 * (2 << (flags & 7)) if flags & 0x80 else 0


def _check_extension(data: bytes, position: int) -> None:
    """Refuse an extension without what must be in it: Pillow takes its end mark for a beginning, and reads on past where it ends."""
    label, first = data[position + 1 : position + 2], data[position + 2 : position + 3]
    empty = label != b"\xfe" and first == b"\0"  # a comment alone may be empty
    if label == b"\xff" and data[position + 3 : position + 14] == b"NETSCAPE2.0":
        inside = position + 3 + first[0]
        empty |= data[inside : inside + 1] == b"\0"
    if empty:
        raise unreadable(f"the GIF's extension at byte {position} is empty")


def _skip_sub_blocks(data: bytes, position: int) -> int:
    while position < len(data) and data[position]:
        position += data[position] + 1
    return position + 1


def _webp(data: bytes) -> Layout:
    if len(data) < 30:
        raise truncated("it ends inside its header")
    (size,) = struct.unpack_from("<I", data, 4)
    defect = f"the WebP declares {size + 8} bytes, {len(data)} are there" if size + 8 > len(data) else ""
    kind = data[12:16]
    frames, orientation, alpha = 1, 1, False
    if kind == b"VP8X":
        alpha = bool(data[20] & 0x10)
        width = 1 + int.from_bytes(data[24:27], "little")
        height = 1 + int.from_bytes(data[27:30], "little")
        frames, orientation = _webp_chunks(data)
    elif kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        width, height, alpha = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, bool(bits >> 28 & 1)
    elif kind == b"VP8 ":
        width, height = (value & 0x3FFF for value in struct.unpack_from("<HH", data, 26))
    else:
        raise unreadable(f"the WebP begins with an unknown chunk {kind!r}")
    if orientation >= 5:
        width, height = height, width
    stored = "rgba" if alpha else "rgb"
    return Layout(ImageHeader("webp", width, height, 4 if alpha else 3, "uint8", frames, 8, orientation), stored, defect)


def _webp_chunks(data: bytes) -> tuple[int, int]:
    position, frames, orientation = 12, 0, 1
    while position + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, position)
        if kind == b"ANMF":
            frames += 1
        elif kind == b"EXIF":
            orientation = orientation_of(bytes(data[position + 8 : position + 8 + length]))
        position += 8 + length + (length & 1)
    return max(1, frames), orientation


def _pnm(data: bytes) -> Layout:
    fields: list[int] = []
    position, kind = 2, data[1:2]
    wanted = 2 if kind in b"14" else 3
    while len(fields) < wanted:
        if position >= min(len(data), 4096):
            raise truncated("it ends inside its header")
        byte = data[position : position + 1]
        if byte == b"#":
            line_end = data.find(b"\n", position)
            position = len(data) if line_end < 0 else line_end
        elif byte.isspace():
            position += 1
        elif byte.isdigit():
            stop = position
            while stop < len(data) and stop - position < 12 and data[stop : stop + 1].isdigit():
                stop += 1
            fields.append(int(data[position:stop]))
            position = stop
        else:
            raise unreadable("the PNM header is broken")
    width, height = fields[0], fields[1]
    top = fields[2] if wanted == 3 else 1
    channels = 3 if kind in b"36" else 1
    defect = ""
    if kind in b"56":
        need = position + 1 + width * height * channels * (2 if top > 255 else 1)
        if need > len(data):
            defect = f"the PNM's pixels need {need} bytes, {len(data)} are there"
    wide = top > 255 and channels == 1  # Pillow reads 16-bit grey, and 16-bit colour as 8 bits
    return Layout(
        ImageHeader("pnm", width, height, channels, "uint16" if wide else "uint8", 1, top.bit_length()),
        "grey" if channels == 1 else "rgb",
        defect,
    )


def palette_indices(data: bytes, header: ImageHeader) -> NDArray[Any]:
    """Give the indices (H, W), uint8, that a palette image stores, without looking their colours up."""
    with open_sized(data, header) as image:
        try:
            image.load()
        except (OSError, SyntaxError, EOFError) as exc:
            raise unreadable(str(exc)) from exc
        pixels = np.asarray(image)
    return pixels.astype(np.uint8) if pixels.dtype == np.bool_ else pixels
