"""Images: depth, channels and orientation are kept; limits hold before decoding; cut files are told apart from whole ones."""

from __future__ import annotations

import contextlib
import io
import json
import struct
import time
import zlib

import cv2
import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest
import tifffile

from oteo_core.errors import InvalidArgument
from oteo_core.images import (
    ImageLimits,
    InputPolicy,
    decode,
    decode_labels,
    encode_jpeg,
    encode_png,
    perceptual_hash,
    pixel_digest,
    prepare,
    probe,
)

_RNG = np.random.default_rng(3)
RGB = _RNG.integers(0, 256, (40, 50, 3), dtype=np.uint8)
RGBA = _RNG.integers(0, 256, (40, 50, 4), dtype=np.uint8)
GREY = RGB[:, :, 0].copy()
DEEP = _RNG.integers(0, 65536, (40, 50), dtype=np.uint16)
DEEP_RGB = _RNG.integers(0, 65536, (40, 50, 3), dtype=np.uint16)
SMOOTH = cv2.GaussianBlur(_RNG.integers(0, 256, (120, 160, 3), dtype=np.uint8), (0, 0), 6)


def pillow(pixels: np.ndarray, kind: str, **options) -> bytes:
    return saved(PIL.Image.fromarray(pixels), kind, **options)


def saved(image: PIL.Image.Image, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def tiff(pixels: np.ndarray, **options) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, pixels, **options)
    return stream.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, depth: int, colour: int, rows: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


PALETTE = PIL.Image.fromarray(RGB).quantize(16)
CMYK = PIL.Image.fromarray(RGB).convert("CMYK")
LOSSLESS = {
    "png grey": (pillow(GREY, "PNG"), GREY),
    "png rgb": (pillow(RGB, "PNG"), RGB),
    "png rgba": (pillow(RGBA, "PNG"), RGBA),
    "png grey with alpha": (
        saved(PIL.Image.fromarray(RGBA[:, :, 0]).convert("LA"), "PNG"),
        np.dstack([RGBA[:, :, 0], np.full((40, 50), 255, np.uint8)]),
    ),
    "png 16 bit grey": (pillow(DEEP, "PNG"), DEEP),
    "png 16 bit rgb": (encode_png(DEEP_RGB), DEEP_RGB),
    "png palette": (saved(PALETTE, "PNG"), np.asarray(PALETTE.convert("RGB"))),
    "png colour key": (pillow(RGB, "PNG", transparency=(1, 2, 3)), RGB),
    "tiff grey": (tiff(GREY), GREY),
    "tiff rgb deflate": (tiff(RGB, compression="zlib"), RGB),
    "tiff rgb lzw tiles": (tiff(RGB, compression="lzw", tile=(16, 16)), RGB),
    "tiff rgb planar": (tiff(np.moveaxis(RGB, 2, 0), photometric="rgb", planarconfig="separate"), RGB),
    "tiff 16 bit": (tiff(DEEP), DEEP),
    "tiff 16 bit rgb big-endian": (tiff(DEEP_RGB, byteorder=">"), DEEP_RGB),
    "tiff float": (tiff(GREY.astype(np.float32) / 3), GREY.astype(np.float32) / 3),
    "tiff signed": (tiff(GREY.astype(np.int16) - 300), GREY.astype(np.float32) - 300),
    "tiff 5 channels": (
        tiff(np.dstack([RGB, RGBA[:, :, :2]]), photometric="minisblack", planarconfig="contig"),
        np.dstack([RGB, RGBA[:, :, :2]]),
    ),
    "tiff palette": (saved(PALETTE, "TIFF"), np.asarray(PALETTE.convert("RGB"))),
    "tiff bilevel": (saved(PIL.Image.fromarray(GREY > 99), "TIFF", compression="group4"), (GREY > 99).astype(np.uint8) * 255),
    "tiff cmyk": (saved(CMYK, "TIFF"), RGB),
    "bmp": (pillow(RGB, "BMP"), RGB),
    "bmp grey": (pillow(GREY, "BMP"), GREY),
    "webp with alpha": (pillow(RGBA, "WEBP", lossless=True, exact=True), RGBA),
    "pgm 16 bit": (pillow(DEEP, "PPM"), DEEP),
    "ppm": (pillow(RGB, "PPM"), RGB),
    "gif": (saved(PALETTE, "GIF"), np.asarray(PALETTE.convert("RGB"))),
}


@pytest.mark.parametrize("name", LOSSLESS)
def test_lossless_formats_come_out_as_they_went_in(name):
    data, pixels = LOSSLESS[name]
    image = decode(data)
    expected = pixels if pixels.ndim == 3 else pixels[:, :, None]
    assert image.pixels.dtype == expected.dtype
    np.testing.assert_array_equal(image.pixels, expected)
    assert probe(data) == image.header
    assert (image.header.height, image.header.width, image.header.channels) == image.pixels.shape


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_low_depth_grey_uses_the_whole_range(depth):
    values = _RNG.integers(0, 1 << depth, (6, 16), dtype=np.uint8)
    rows = b"".join(b"\0" + int("".join(format(v, f"0{depth}b") for v in row), 2).to_bytes(16 * depth // 8, "big") for row in values)
    pixels = decode(png(16, 6, depth, 0, rows)).pixels[:, :, 0]
    np.testing.assert_array_equal(pixels, values.astype(int) * 255 // ((1 << depth) - 1))


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}])
def test_jpeg_agrees_with_pillow(options):
    data = pillow(SMOOTH, "JPEG", quality=92, **options)
    theirs = np.asarray(PIL.Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
    assert np.abs(decode(data).pixels.astype(int) - theirs).max() <= 4


def test_grey_and_cmyk_jpeg():
    assert decode(pillow(GREY, "JPEG")).pixels.shape == (40, 50, 1)
    smooth = PIL.Image.fromarray(SMOOTH)
    pixels = decode(saved(smooth.convert("CMYK"), "JPEG", quality=95)).pixels
    assert pixels.shape == SMOOTH.shape
    assert np.abs(pixels.astype(int) - SMOOTH).mean() < 3


def test_jpeg_inside_tiff_keeps_its_colours():
    for data in (
        pillow(SMOOTH, "TIFF", compression="jpeg", quality=95),
        tiff(SMOOTH, compression="jpeg", photometric="rgb", tile=(64, 64)),
    ):
        assert np.abs(decode(data).pixels.astype(int) - SMOOTH).mean() < 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_exif_orientation_is_applied(kind, orientation):
    exif = PIL.Image.Exif()
    exif[274] = orientation
    options = {"PNG": {}, "TIFF": {}, "WEBP": {"lossless": True}, "JPEG": {"quality": 95}}[kind]
    data = pillow(SMOOTH, kind, exif=exif, **options)
    upright = np.asarray(PIL.ImageOps.exif_transpose(PIL.Image.open(io.BytesIO(data))).convert("RGB")).astype(int)
    image = decode(data)
    assert image.pixels.shape == upright.shape == (image.header.height, image.header.width, 3)
    assert np.abs(image.pixels.astype(int) - upright).max() <= 4


def test_palettes_of_label_images_are_not_expanded():
    indices = np.asarray(PALETTE)
    for kind in ("PNG", "TIFF", "GIF"):
        np.testing.assert_array_equal(decode_labels(saved(PALETTE, kind)), indices)
    np.testing.assert_array_equal(decode_labels(pillow(DEEP, "PNG")), DEEP)


def test_frames_are_counted_and_the_first_is_given():
    assert decode(tiff(np.stack([GREY] * 7))).header.frames == 7
    frames = [PIL.Image.fromarray(RGB), PIL.Image.fromarray(255 - RGB)]
    for kind in ("GIF", "WEBP", "PNG"):
        image = decode(saved(frames[0], kind, save_all=True, append_images=frames[1:]))
        assert image.header.frames == 2
    np.testing.assert_array_equal(image.pixels, RGB)
    with pytest.raises(InvalidArgument) as caught:
        decode(tiff(np.stack([GREY] * 7)), ImageLimits(max_frames=3))
    assert caught.value.reason == "IMAGE_TOO_LARGE"


def refusal(data: bytes, limits: ImageLimits | None = None) -> str:
    with pytest.raises(InvalidArgument) as caught:
        decode(data, limits or ImageLimits())
    assert len(caught.value.message) > 20
    return caught.value.reason


def test_a_bomb_is_refused_in_milliseconds():
    bomb = png(30_000, 30_000, 8, 2, b"\0" * (30_000 * 3 + 1) * 100)
    refusal(bomb)
    took = []
    for _ in range(5):
        start = time.perf_counter()
        assert refusal(bomb) == "IMAGE_TOO_LARGE"
        took.append(time.perf_counter() - start)
    assert min(took) < 0.05


def test_tiff_that_declares_much_is_refused():
    small = bytearray(tiff(np.zeros((16, 16), np.uint8), compression="zlib", tile=(16, 16)))
    with tifffile.TiffFile(io.BytesIO(bytes(small))) as file:
        page = file.pages.first
        places = {name: page.tags[name].valueoffset for name in ("ImageWidth", "ImageLength", "TileWidth", "TileLength")}
        kinds = {name: page.tags[name].dtype for name in places}
    for names in (("ImageWidth", "ImageLength"), ("TileWidth", "TileLength")):
        hostile = bytearray(small)
        for name in names:
            struct.pack_into("<H" if kinds[name] == 3 else "<I", hostile, places[name], 60_000)
        assert refusal(bytes(hostile)) in ("IMAGE_TOO_LARGE", "TRUNCATED_IMAGE", "UNREADABLE_IMAGE")


def test_a_huge_jpeg_inside_a_small_tiff_is_not_decoded():
    huge = bytearray(encode_jpeg(np.zeros((16, 16, 3), np.uint8)))
    frame = huge.index(b"\xff\xc0") + 5
    struct.pack_into(">HH", huge, frame, 60_000, 60_000)
    data = bytearray(tiff(np.zeros((16, 16, 3), np.uint8), compression="jpeg", photometric="ycbcr", tile=(16, 16)))
    with tifffile.TiffFile(io.BytesIO(bytes(data))) as file:
        offset, count = file.pages.first.dataoffsets[0], file.pages.first.databytecounts[0]
    inner = data.index(b"\xff\xc0", offset, offset + count) + 5
    struct.pack_into(">HH", data, inner, 60_000, 60_000)
    assert refusal(bytes(data)) == "IMAGE_TOO_LARGE"


WHOLE = {
    "png": pillow(RGB, "PNG"),
    "jpeg": pillow(SMOOTH, "JPEG"),
    "progressive jpeg": pillow(SMOOTH, "JPEG", progressive=True),
    "tiff": tiff(RGB, compression="zlib"),
    "bmp": pillow(RGB, "BMP"),
    "gif": saved(PALETTE, "GIF"),
    "webp": pillow(RGB, "WEBP"),
    "pnm": pillow(RGB, "PPM"),
}


@pytest.mark.parametrize("name", WHOLE)
def test_cut_files_are_never_half_an_image(name):
    data = WHOLE[name]
    reasons = {refusal(data[: len(data) * part // 20]) for part in range(20)} | {refusal(data[:-1])}
    assert reasons <= {"TRUNCATED_IMAGE", "UNREADABLE_IMAGE"}
    assert refusal(data[: len(data) // 2]) == "TRUNCATED_IMAGE"
    assert refusal(data[: len(data) - 3]) == "TRUNCATED_IMAGE"


def test_pixel_stream_that_ends_early_in_a_whole_png():
    assert refusal(png(50, 40, 8, 0, b"".join(b"\0" + row.tobytes() for row in GREY[:20]))) == "TRUNCATED_IMAGE"


def test_damage_is_found_by_the_check_sum():
    data = bytearray(WHOLE["png"])
    data[len(data) // 2] ^= 0x55
    assert refusal(bytes(data)) == "UNREADABLE_IMAGE"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "UNREADABLE_IMAGE"),
        (b"hello, world" * 20, "UNREADABLE_IMAGE"),
        (b"\0" * 128 + b"DICM" + b"\0" * 40, "UNSUPPORTED_FORMAT"),
        (b"%PDF-1.4" + b"\0" * 40, "UNSUPPORTED_FORMAT"),
        (png(0, 5, 8, 0, b""), "UNREADABLE_IMAGE"),
        (png(5, 5, 3, 0, b""), "UNREADABLE_IMAGE"),
    ],
)
def test_what_is_no_image(data, reason):
    assert refusal(data) == reason


def test_random_damage_never_escapes_our_errors():
    rng = np.random.default_rng(11)
    for data in WHOLE.values():
        for _ in range(60):
            broken = bytearray(data)
            for place in rng.integers(0, min(len(broken), 600), 4):
                broken[place] = int(rng.integers(0, 256))
            with contextlib.suppress(InvalidArgument):
                assert decode(bytes(broken), ImageLimits(max_pixels=2_000_000)).pixels.size


@pytest.mark.parametrize("pixels", [GREY[:, :, None], RGB, RGBA, DEEP[:, :, None], DEEP_RGB])
def test_png_round_trip(pixels):
    np.testing.assert_array_equal(decode(encode_png(pixels)).pixels, pixels)


def test_encoding_refuses_what_the_format_cannot_hold():
    for call in (lambda: encode_jpeg(DEEP_RGB), lambda: encode_png(np.zeros((4, 4, 7), np.uint8)), lambda: encode_jpeg(RGBA)):
        with pytest.raises(InvalidArgument) as caught:
            call()
        assert caught.value.reason == "UNSUPPORTED_PIXELS"


@pytest.mark.parametrize("policy", [InputPolicy(16, 12), InputPolicy(16, 80, 1, "float32", "letterbox"), InputPolicy(64, 64, 3, "float32")])
@pytest.mark.parametrize("pixels", [RGB, GREY[:, :, None], RGBA, DEEP[:, :, None], DEEP_RGB, (RGB / 255).astype(np.float32)])
def test_prepare_gives_what_the_policy_says(pixels, policy):
    ready = prepare(pixels, policy)
    assert ready.shape == (policy.height, policy.width, policy.channels)
    assert ready.dtype == policy.dtype
    assert ready.flags.c_contiguous
    assert InputPolicy.from_json(policy.to_json()) == policy
    assert json.loads(policy.to_json())["width"] == policy.width


def test_shrinking_averages_instead_of_skipping():
    board = (np.indices((256, 256)).sum(0) % 2 * 255).astype(np.uint8)[:, :, None]
    assert np.ptp(prepare(board, InputPolicy(32, 32, 1))) <= 1
    tall = np.repeat(board, 1, axis=2)[:, :16]
    # One side shrinks and the other grows: the shrinking one is still averaged.
    assert np.ptp(prepare(tall, InputPolicy(64, 32, 1))) <= 1


def test_depths_map_their_whole_range():
    ends = np.array([[0, 65535]], np.uint16)[:, :, None]
    assert prepare(ends, InputPolicy(2, 1, 1)).ravel().tolist() == [0, 255]
    assert prepare(ends, InputPolicy(2, 1, 1, "float32")).ravel().tolist() == [0.0, 1.0]
    same = prepare((ends // 257).astype(np.uint8), InputPolicy(2, 1, 1, "float32"))
    np.testing.assert_allclose(same.ravel(), [0, 1])


def test_letterbox_keeps_proportions_and_alpha_lies_on_black():
    white = np.full((10, 20, 3), 255, np.uint8)
    boxed = prepare(white, InputPolicy(20, 20, 3, resize="letterbox"))
    assert boxed[:5].max() == 0
    assert boxed[5:15].min() == 255
    clear = np.dstack([white, np.zeros((10, 20), np.uint8)])
    assert prepare(clear, InputPolicy(20, 10)).max() == 0


def test_prepare_refuses_other_channels():
    with pytest.raises(InvalidArgument) as caught:
        prepare(np.zeros((4, 4, 5), np.uint8), InputPolicy(4, 4, 3))
    assert caught.value.reason == "CHANNELS_MISMATCH"


def distance(left: int, right: int) -> int:
    return (left ^ right).bit_count()


def test_perceptual_hash_sees_through_scale_brightness_and_compression():
    own = perceptual_hash(SMOOTH)
    half = cv2.resize(SMOOTH, (80, 60), interpolation=cv2.INTER_AREA)
    brighter = np.clip(SMOOTH.astype(int) + 20, 0, 255).astype(np.uint8)
    packed = decode(encode_jpeg(SMOOTH, 60)).pixels
    deep = SMOOTH.astype(np.uint16) * 257
    for other in (half, brighter, packed, deep):
        assert distance(own, perceptual_hash(other)) <= 4
    other = cv2.GaussianBlur(_RNG.integers(0, 256, (120, 160, 3), dtype=np.uint8), (0, 0), 6)
    assert distance(own, perceptual_hash(other)) > 12
    assert distance(own, perceptual_hash(SMOOTH[:, ::-1])) > 12
    assert 0 <= own < 2**64


def test_pixel_digest_is_of_the_picture_not_of_the_file():
    assert pixel_digest(decode(pillow(RGB, "PNG")).pixels) == pixel_digest(decode(tiff(RGB)).pixels)
    assert pixel_digest(GREY[:, :, None]) != pixel_digest(GREY[:, :, None].astype(np.uint16))
    assert pixel_digest(np.zeros((2, 8, 1), np.uint8)) != pixel_digest(np.zeros((8, 2, 1), np.uint8))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_png_keeps_every_bit_whatever_it_is_compressed_for(dtype, channels):
    generator = np.random.default_rng(4)
    noise = generator.integers(0, np.iinfo(dtype).max, (37, 51, channels), dtype=dtype)
    grey = np.repeat(noise[:, :, :1], channels, axis=2)
    nearly = grey.copy()
    nearly[20, 30, -1] ^= 1  # one pixel in colour, in a row that a first look passes over
    for pixels in (noise, grey, nearly, np.ascontiguousarray(noise[::-1])[::-1], noise[:1, :1]):
        for level in (None, 0, 9):
            np.testing.assert_array_equal(decode(encode_png(pixels, level)).pixels, pixels)
        assert encode_png(pixels) == encode_png(pixels.copy())
