"""Files that brought decoders down or made them allocate by what nobody had checked, drawn here: each is refused, in bounded memory."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
from collections.abc import Iterable

import imagecodecs
import numpy as np
import PIL.Image
import pytest
import tifffile
from google.rpc import code_pb2
from pydicom import uid
from sequence_files import packed, slices
from waiting import patient

from oteo_core.errors import InvalidArgument, from_exception
from oteo_core.images import ImageLimits, decode, decode_labels
from oteo_core.images.sequences import open_image
from oteo_core.images.sequences.codestreams import Declared, declared
from oteo_core.images.tiff_codecs import lzw_decode

LIMITS = ImageLimits(max_pixels=4_000_000)
DEEP = slices(2, 2, size=24, dtype="uint16", top=4095)
GREY = slices(1, 3, size=24)
_BOUNDED = """
import resource, sys
from pathlib import Path
from oteo_core.errors import InvalidArgument
from oteo_core.images import ImageLimits
from oteo_core.images.sequences import dicom, nifti, open_image, stacks
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (512 << 20),) * 2)
while head := sys.stdin.buffer.read(8):
    data = sys.stdin.buffer.read(int.from_bytes(head, "little"))
    try:
        print(*(frame.pixels.shape for frame in open_image(data, ImageLimits(max_pixels=4_000_000)).frames))
    except InvalidArgument as error:
        print(error.reason)
"""


def reasons(*files: bytes) -> set[str]:
    """Read files in a process of 512 MiB; give the reasons why they are refused, and fail where the process dies or lacks memory."""
    sent = b"".join(len(data).to_bytes(8, "little") + data for data in files)
    done = subprocess.run([sys.executable, "-c", _BOUNDED], input=sent, capture_output=True, timeout=patient(60), check=False)
    assert done.returncode == 0, (done.returncode, done.stderr.decode()[-2000:])
    answers = done.stdout.decode().splitlines()
    assert len(answers) == len(files)
    return set(answers)


def lzw(codes: Iterable[int]) -> bytes:
    """Pack LZW codes as TIFF 6.0 has them, the highest bit first; the width of a code grows with the table."""
    bits, entries = "", 0
    for code in codes:
        width = max(9, (257 + max(entries, 1)).bit_length()) if 257 + max(entries, 1) < 511 else (258 + entries).bit_length()
        bits += format(code, f"0{width}b")
        entries = 0 if code == 256 else entries + 1
    bits += "0" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big")


def lzw_tiff(stream: bytes, width: int) -> bytes:
    """Give a TIFF of one row of bytes, whose strip is this LZW stream."""
    made = io.BytesIO()
    tifffile.imwrite(made, np.zeros((1, width), np.uint8), photometric="minisblack", compression="lzw", metadata=None)
    data = made.getvalue()
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        tags = file.pages.first.tags
        places = {name: tags[name].valueoffset for name in ("StripOffsets", "StripByteCounts")}
        kinds = {name: int(tags[name].dtype) for name in places}
    held = bytearray(data + stream)
    for name, value in (("StripOffsets", len(data)), ("StripByteCounts", len(stream))):
        struct.pack_into("<H" if kinds[name] == 3 else "<I", held, places[name], value)
    return bytes(held)


def size_of(stream: bytes, **changed: int) -> bytes:
    """Change numbers of a JPEG 2000 codestream's SIZ marker (T.800, A.5.1)."""
    names = ("right", "bottom", "left", "top", "tile_width", "tile_height", "tiles_left", "tiles_top")
    held = bytearray(stream)
    for name, value in changed.items():
        if name in names:
            struct.pack_into(">I", held, 8 + 4 * names.index(name), value)
        elif name == "components":
            struct.pack_into(">H", held, 40, value)
        else:
            held[{"bits": 42, "step_x": 43, "step_y": 44}[name]] = value
    return bytes(held)


def htj2k(pixels: np.ndarray) -> bytes:
    return bytes(imagecodecs.htj2k_encode(pixels, reversible=True))


WRONG_SIZES = [
    {"tile_width": 0},
    {"tile_height": 0},
    {"tiles_left": 1},
    {"tiles_top": 0xFFFFFFFF},
    {"left": 8, "right": 32, "tile_width": 8},
    {"step_x": 0},
    {"step_y": 0},
    {"bits": 38},
    {"components": 0},
    {"components": 2},
    {"left": 24},
    {"top": 25},
    {"tile_width": 1, "tile_height": 1, "right": 24000, "bottom": 24000},
]


@pytest.mark.parametrize("changed", WRONG_SIZES, ids=str)
@pytest.mark.parametrize("syntax", [uid.HTJ2KLossless, uid.JPEG2000Lossless])
def test_a_jpeg_2000_header_that_the_standard_does_not_allow_never_comes_to_a_decoder(
    syntax: str, changed: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def called(*_: object, **__: object) -> None:
        raise AssertionError("a decoder was asked")

    data = packed(DEEP, syntax, lambda pixels: size_of(htj2k(pixels), **changed))
    for name in ("jpeg2k_decode", "htj2k_decode"):
        monkeypatch.setattr(imagecodecs, name, called)
    with pytest.raises(ValueError, match="codestream declares"):
        declared(size_of(htj2k(DEEP[0]), **changed))
    with pytest.raises(InvalidArgument, match="codestream declares") as refused:
        list(open_image(data, LIMITS).frames)
    assert refused.value.reason == "UNREADABLE_IMAGE"


def test_jpeg_2000_headers_that_the_standard_allows_are_read() -> None:
    found = Declared(24, 24, 1, 16)
    whole = htj2k(DEEP[0])
    assert declared(whole) == found
    # A picture that begins within the first tile, and one that is cut into the most tiles.
    assert declared(size_of(whole, left=8, right=32, tiles_left=4, tile_width=5)) == found
    assert declared(size_of(whole, tile_width=1, tile_height=1, right=255, bottom=257)) == Declared(255, 257, 1, 16)
    tiled = bytes(imagecodecs.htj2k_encode(GREY[0], reversible=True, tile=(10, 7)))
    assert struct.unpack_from(">II", tiled, 24) in ((10, 7), (7, 10))
    np.testing.assert_array_equal(
        next(open_image(packed(GREY[:1], uid.HTJ2KLossless, lambda _: tiled), LIMITS).frames).pixels[:, :, 0], GREY[0]
    )


def test_a_damaged_htj2k_header_ends_no_process() -> None:
    spoilt = [packed(DEEP, uid.HTJ2KLossless, lambda pixels, changed=changed: size_of(htj2k(pixels), **changed)) for changed in WRONG_SIZES]
    assert reasons(*spoilt) == {"UNREADABLE_IMAGE"}


CLEAR, END = 256, 257
BROKEN_LZW = {
    # The first code behind a Clear is in no table: memory that nobody wrote, and what the table before it held.
    "at the start": [CLEAR, 300, 65, END],
    "behind another table": [CLEAR, *b"ABC", 258, 259, CLEAR, 259, 65, END],
    "further than the table": [CLEAR, 65, 400, END],
}


def test_an_lzw_code_that_is_in_no_table_ends_no_process() -> None:
    assert reasons(*(lzw_tiff(lzw(codes), 8) for codes in BROKEN_LZW.values())) == {"UNREADABLE_IMAGE"}


@pytest.mark.parametrize("codes", BROKEN_LZW.values(), ids=BROKEN_LZW)
def test_an_lzw_code_that_is_in_no_table_is_refused(codes: list[int]) -> None:
    stream = lzw(codes)
    with pytest.raises(ValueError, match="LZW stream"):
        lzw_decode(stream, 8)
    data = lzw_tiff(stream, 8)
    for read in (decode, decode_labels):
        with pytest.raises(InvalidArgument) as refused:
            read(data, LIMITS)
        assert refused.value.reason == "UNREADABLE_IMAGE"


def test_lzw_streams_stand_for_what_they_stood_for() -> None:
    assert lzw_decode(lzw([CLEAR, *b"ABC", 258, 259, CLEAR, *b"AB", 258, END]), 11) == b"ABCABBCABAB"
    assert decode(lzw_tiff(lzw([CLEAR, *b"ABAB", END]), 4), LIMITS).pixels.ravel().tolist() == list(b"ABAB")
    # Codes of all widths, from 9 to 12 bits, and tables that are full.
    noise = np.random.default_rng(7).integers(0, 256, 20_000).astype(np.uint8).tobytes()
    assert lzw_decode(bytes(imagecodecs.lzw_encode(noise)), len(noise)) == noise
    # The end mark may be missing, and what lies behind the last pixel is not looked at; what is too short is no picture.
    stream = bytes(imagecodecs.lzw_encode(noise))
    assert lzw_decode(stream + b"\x80\x4b\x00", len(noise)) == noise
    with pytest.raises(ValueError, match="LZW stream"):
        lzw_decode(stream[: len(stream) // 2], len(noise))


RGB = np.random.default_rng(8).integers(0, 256, (50, 70, 3)).astype(np.uint8)
TWELVE = np.random.default_rng(9).integers(0, 4096, (50, 70)).astype(np.uint16)
FLOAT = np.random.default_rng(10).normal(size=(50, 70)).astype(np.float32)


@pytest.mark.parametrize(
    ("pixels", "options"),
    [
        (RGB, {"photometric": "rgb"}),
        (RGB, {"photometric": "rgb", "tile": (16, 32), "predictor": True}),
        (np.moveaxis(RGB, 2, 0), {"photometric": "rgb", "planarconfig": "separate"}),
        (TWELVE, {"rowsperstrip": 7}),
        (TWELVE, {"byteorder": ">", "predictor": True, "bigtiff": True}),
        (FLOAT, {"predictor": 3, "tile": (16, 16)}),
    ],
    ids=["rgb", "tiles, predictor", "planes", "strips", "big-endian", "float"],
)
def test_lzw_tiff_files_of_every_form_are_read(pixels: np.ndarray, options: dict[str, object]) -> None:
    stream = io.BytesIO()
    tifffile.imwrite(stream, pixels, compression="lzw", **options)
    expected = np.moveaxis(pixels, 0, 2) if options.get("planarconfig") else pixels
    np.testing.assert_array_equal(np.squeeze(decode(stream.getvalue()).pixels), expected)


def test_lzw_tiff_files_of_bits_and_of_pages_are_read() -> None:
    bits = TWELVE > 2000
    stream = io.BytesIO()
    PIL.Image.fromarray(bits).save(stream, "TIFF", compression="tiff_lzw")
    np.testing.assert_array_equal(decode(stream.getvalue()).pixels[:, :, 0], bits * 255)
    pages = io.BytesIO()
    tifffile.imwrite(pages, DEEP, compression="lzw", photometric="minisblack")
    for frame, page in zip(open_image(pages.getvalue(), LIMITS).frames, DEEP, strict=True):
        np.testing.assert_array_equal(frame.pixels[:, :, 0], page)


def lossless_jpeg(pixels: np.ndarray) -> bytes:
    """A lossless JPEG whose Huffman table is behind a marker that announces another frame: liblj92 reads beyond its memory over it."""
    stream = bytearray(imagecodecs.jpeg_encode(pixels, lossless=True, bitspersample=12))
    stream[stream.index(b"\xff\xc4") + 1] = 0xC5
    return bytes(stream)


def test_a_jpeg_that_libjpeg_refuses_goes_to_no_other_decoder() -> None:
    broken = lossless_jpeg(DEEP[0])
    made = io.BytesIO()
    tifffile.imwrite(made, GREY[0], photometric="minisblack", compression="jpeg", metadata=None)
    data = made.getvalue()
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = file.pages.first
        at, count = page.dataoffsets[0], page.databytecounts[0]
    held = bytearray(data)
    room = broken + bytes(max(0, count - len(broken)))
    assert at + count == len(data), "the strip is the last of the file"
    held[at:] = room
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        tag = file.pages.first.tags["StripByteCounts"]
        struct.pack_into("<H" if int(tag.dtype) == 3 else "<I", held, tag.valueoffset, len(room))
    assert reasons(broken, packed(DEEP, uid.JPEGLosslessSV1, lossless_jpeg), bytes(held)) == {"UNREADABLE_IMAGE"}


def animation(frames: np.ndarray, **options: object) -> bytearray:
    stream = io.BytesIO()
    first, *rest = (PIL.Image.fromarray(frame) for frame in frames)
    first.save(stream, "GIF", save_all=True, append_images=rest, duration=100, **options)
    return bytearray(stream.getvalue())


def descriptors(data: bytes) -> list[int]:
    """Where each frame's image descriptor begins."""
    found, at = [], 13 + (3 * (2 << (data[10] & 7)) if data[10] & 0x80 else 0)
    while data[at] != 0x3B:
        if data[at] == 0x2C:
            found.append(at)
            at += 11 + (3 * (2 << (data[at + 9] & 7)) if data[at + 9] & 0x80 else 0)
        else:
            at += 2
        while data[at]:
            at += data[at] + 1
        at += 1
    return found


def test_a_gif_frame_beyond_its_screen_is_refused_before_it_is_made() -> None:
    spoilt = []
    for frame in ((0, 0, 65535, 65535), (0, 0, 25, 24), (0, 0, 24, 25), (1, 0, 24, 24)):
        for number in range(3):
            held = animation(GREY)
            struct.pack_into("<HHHH", held, descriptors(held)[number] + 1, *frame)
            spoilt.append(bytes(held))
    assert reasons(*spoilt) == {"UNREADABLE_IMAGE"}


def test_a_gif_with_a_large_screen_is_refused_before_its_background_is_made() -> None:
    held = animation(GREY, disposal=2)
    struct.pack_into("<HH", held, 6, 65535, 65535)
    struct.pack_into("<HH", held, descriptors(held)[0] + 5, 65535, 65535)
    assert reasons(bytes(held)) == {"IMAGE_TOO_LARGE"}


def test_a_gif_extension_without_content_hides_no_frame() -> None:
    # Pillow reads on behind the end mark of such an extension as if sub-blocks followed, to a frame that nobody sees who reads by the standard.
    hidden = b"\x2c" + struct.pack("<HHHHB", 0, 0, 65535, 65535, 0) + b"\x02\x01\x00\x00"
    spoilt = []
    for empty in (b"\x21\x01\x00", b"\x21\xff\x0bNETSCAPE2.0\x00"):
        held = animation(GREY)
        at = descriptors(held)[0]
        # A comment by the standard; Pillow takes its first byte for the length of a sub-block, which ends before the hidden frame.
        held[at:at] = empty + b"\x21\xfe" + bytes([32 + len(hidden)]) + b"." * 31 + b"\0" + hidden + b"\0"
        spoilt.append(bytes(held))
    assert reasons(*spoilt) == {"UNREADABLE_IMAGE"}
    commented = animation(GREY)
    at = descriptors(commented)[0]
    commented[at:at] = b"\x21\xfe\x00"
    assert [frame.pixels.shape for frame in open_image(bytes(commented), LIMITS).frames] == [(24, 24, 3)] * 3, "a comment may be empty"


def test_what_a_gif_declares_is_what_is_decoded() -> None:
    colours = PIL.Image.fromarray(RGB[:24, :24]).quantize(8)
    grey = PIL.Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16))  # the table is that of the numbers themselves
    for image, options, channels in ((colours, {}, 3), (colours, {"transparency": 3}, 4), (grey, {}, 1)):
        stream = io.BytesIO()
        image.save(stream, "GIF", **options)
        found = decode(stream.getvalue(), LIMITS)
        assert found.header.channels == found.pixels.shape[2] == channels


def test_missing_memory_is_no_fault_of_the_service() -> None:
    error = from_exception(MemoryError())
    assert (error.code, error.reason) == (code_pb2.RESOURCE_EXHAUSTED, "OUT_OF_MEMORY")
