"""Opening files of any kind: what is told of them, frames one by one, and what is refused before anything is made of it."""

from __future__ import annotations

import io
import struct
import threading

import imagecodecs
import numpy as np
import PIL.Image
import pytest
import tifffile
from fuzzing.seeds import drawn, nested_sequences
from sequence_files import clip, dicom, nifti, packed, slices, tiff

from oteo_core.errors import InvalidArgument
from oteo_core.images import ImageLimits, decode, encode_png
from oteo_core.images.sequences import open_image
from oteo_core.images.sequences.apart import decode_jpegls
from oteo_core.images.sequences.codestreams import Declared, declared
from oteo_core.images.sequences.dicom_structure import sound
from oteo_core.images.tiff_spacing import spacing

LIMITS = ImageLimits()
GREY, DEEP = slices(1, 4), slices(2, 4, dtype="uint16", top=4095)


def gif(frames: np.ndarray) -> bytes:
    stream = io.BytesIO()
    first, *rest = (PIL.Image.fromarray(frame) for frame in frames)
    first.save(stream, "GIF", save_all=True, append_images=rest)
    return stream.getvalue()


def reason(data: bytes, limits: ImageLimits = LIMITS, name: str = "") -> str:
    with pytest.raises(InvalidArgument) as refused:
        list(open_image(data, limits, name).frames)
    return refused.value.reason


def test_a_still_picture_is_what_decode_gives() -> None:
    for seed in drawn():
        opened = open_image(seed.data, LIMITS)
        if opened.image is not None:
            image = decode(seed.data)
            assert opened.image == image.header
            np.testing.assert_array_equal(next(opened.frames).pixels, image.pixels)


@pytest.mark.parametrize("name", ["dicom", "jpeg in dicom", "tiff", "nifti", "gif", "video"])
def test_frames_from_anywhere_are_the_same(name: str, tmp_path) -> None:
    data = {
        "dicom": lambda: dicom(DEEP, 0, series="1"),
        "jpeg in dicom": lambda: packed(GREY, "1.2.840.10008.1.2.4.50", imagecodecs.jpeg_encode),
        "tiff": lambda: tiff(DEEP),
        "nifti": lambda: nifti(DEEP),
        "gif": lambda: gif(GREY),
        "video": lambda: clip(tmp_path / "clip.avi", GREY).read_bytes(),
    }[name]()
    opened = open_image(data, LIMITS)
    frames = [frame.pixels for frame in opened.frames]
    assert len(frames) == opened.header.frames == 4
    for start in range(5):
        later = [decoder().pixels for decoder in opened.decoders(start)]
        assert len(later) == 4 - start
        for one, other in zip(frames[start:], later, strict=True):
            np.testing.assert_array_equal(one, other)


def test_what_lies_behind_a_broken_frame_is_read() -> None:
    data = bytearray(packed(DEEP, "1.2.840.10008.1.2.4.80", imagecodecs.jpegls_encode))
    at = [place for place in range(len(data)) if data[place : place + 4] == b"\xff\xd8\xff\xf7"][1]
    data[at : at + 40] = bytes(40)
    results = []
    for decode_frame in open_image(bytes(data), LIMITS).decoders(0):
        try:
            results.append(int((decode_frame().pixels[:, :, 0] == DEEP[len(results)]).all()))
        except InvalidArgument as error:
            results.append(error.reason)
    assert results == [1, "UNREADABLE_IMAGE", 1, 1]


def test_sequences_within_sequences_are_counted() -> None:
    assert sound(nested_sequences(32), LIMITS)
    assert reason(nested_sequences(33)) == "IMAGE_TOO_LARGE"
    assert reason(nested_sequences(3), ImageLimits(max_nesting=2)) == "IMAGE_TOO_LARGE"
    assert reason(nested_sequences(100_000)) == "IMAGE_TOO_LARGE"
    side_by_side = pydicom_with_items(2000)
    assert next(open_image(side_by_side, LIMITS).frames).pixels.shape == (48, 48, 1), "items beside each other are not within each other"
    assert reason(side_by_side, ImageLimits(max_elements=1000)) == "IMAGE_TOO_LARGE"


def pydicom_with_items(count: int) -> bytes:
    from pydicom import Dataset, Sequence

    items = []
    for _ in range(count):
        item = Dataset()
        item.ReferencedSOPInstanceUID = "1.2.3"
        items.append(item)
    return dicom(GREY[0], 0, series="1", ReferencedImageSequence=Sequence(items))


def test_what_declares_another_size_is_not_decoded() -> None:
    for codec in (
        lambda pixels: imagecodecs.jpeg_encode(pixels, lossless=True, bitspersample=12),
        imagecodecs.jpegls_encode,
        lambda pixels: imagecodecs.jpeg2k_encode(pixels, level=0, codecformat="j2k", reversible=True),
        lambda pixels: imagecodecs.jpeg2k_encode(pixels, level=0, codecformat="jp2", reversible=True),
        lambda pixels: imagecodecs.htj2k_encode(pixels, reversible=True),
    ):
        found = declared(bytes(codec(DEEP[0][:40])))
        assert found is not None
        assert (found.width, found.height, found.components) == (48, 40, 1)
    assert declared(bytes(imagecodecs.jpeg_encode(np.zeros((5, 7, 3), np.uint8)))) == Declared(7, 5, 3, 8)
    assert declared(b"") is declared(b"\xff\xd8\xff") is declared(b"\xff\x4f\xff\x51") is declared(encode_png(GREY[0])) is None
    large = packed(GREY, "1.2.840.10008.1.2.4.50", lambda pixels: imagecodecs.jpeg_encode(np.zeros((2000, 2000), np.uint8)))
    assert reason(large) == "UNREADABLE_IMAGE"


def test_boxes_around_a_codestream_are_taken_off_whatever_they_say() -> None:
    def boxed(pixels: np.ndarray) -> bytes:
        return bytes(imagecodecs.jpeg2k_encode(pixels, level=0, codecformat="jp2", reversible=True))

    whole = packed(DEEP, "1.2.840.10008.1.2.4.90", boxed)
    for frame, pixels in zip(open_image(whole, LIMITS).frames, DEEP, strict=True):
        np.testing.assert_array_equal(frame.pixels[:, :, 0], pixels)
    # A box of no length, over which pydicom goes round for ever.
    for spoilt in (b"ftyp", b"jp2c"):
        data = bytearray(whole)
        at = data.index(spoilt) - 4
        data[at : at + 8] = bytes(4) + b"free"
        assert len(list(open_image(bytes(data), LIMITS).decoders(0))) == 4
        next(open_image(bytes(data), LIMITS).decoders(0))()
    nothing = packed(DEEP, "1.2.840.10008.1.2.4.90", lambda pixels: boxed(pixels)[:12] + bytes(100))
    assert reason(nothing) == "UNREADABLE_IMAGE"


def endless() -> bytes:
    """A damaged JPEG-LS stream of 117 bytes in which CharLS 2.4.3 counts on and on."""
    stream = bytes(imagecodecs.jpegls_encode(np.zeros((256, 256), np.uint8)))
    return stream[:99] + bytes.fromhex("0000f8a44816454eff62d33efdbfa2aa1a14")


def test_a_decoder_that_does_not_come_to_an_end_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oteo_core.images.sequences.apart.SECONDS", 0.5)
    with pytest.raises(ValueError, match="does not come to an end"):
        decode_jpegls(endless(), 65536)
    monkeypatch.undo()
    # Others go on, several at a time, and good ones behind damaged ones.
    results: list[bool] = []

    def work() -> None:
        for pixels in DEEP:
            with pytest.raises(ValueError, match="Jpegls"):
                decode_jpegls(b"\xff\xd8\xff\xd9", 4)
            results.append(bool((decode_jpegls(bytes(imagecodecs.jpegls_encode(pixels)), pixels.size) == pixels).all()))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 16


def test_a_circle_of_directories_is_refused() -> None:
    for big in (False, True):
        data = bytearray(tiff(GREY, bigtiff=big, metadata=None))
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            offsets = [page.offset for page in file.pages]
        entry, count, link = (20, "<Q", "<Q") if big else (12, "<H", "<I")
        last = offsets[-1]
        end = last + struct.calcsize(count) + entry * struct.unpack_from(count, data, last)[0]
        assert open_image(bytes(data), LIMITS).header.frames == 4
        for goal in (offsets[0], offsets[2], last):
            struct.pack_into(link, data, end, goal)
            assert reason(bytes(data)) == "UNREADABLE_IMAGE"


def test_pixel_sizes_of_tiff_files() -> None:
    def made(**options: object) -> tuple[float, ...]:
        stream = io.BytesIO()
        tifffile.imwrite(stream, GREY, photometric="minisblack", **options)
        return spacing(stream.getvalue())

    assert made(resolution=(20, 40), resolutionunit="CENTIMETER") == pytest.approx((0.5, 0.25))
    assert made(imagej=True, resolution=(2, 4), metadata={"unit": "um"}) == pytest.approx((0.0005, 0.00025))
    assert made(ome=True, metadata={"axes": "ZYX", "PhysicalSizeX": 0.25, "PhysicalSizeY": 0.5}) == pytest.approx((0.00025, 0.0005))
    units = {"PhysicalSizeXUnit": "mm", "PhysicalSizeYUnit": "mm"}
    assert made(ome=True, metadata={"axes": "ZYX", "PhysicalSizeX": 0.25, "PhysicalSizeY": 0.5, **units}) == pytest.approx((0.25, 0.5))
    assert made(resolution=(300, 300), resolutionunit="INCH") == (), "a printer's resolution says nothing of the object"
    assert made() == made(imagej=True, resolution=(2, 4)) == ()
    assert spacing(b"II*\0rubbish") == ()


def test_dicom_without_its_mark_is_known_by_its_first_element() -> None:
    bare = dicom(DEEP[0], 0, series="1")[132:]
    assert open_image(bare, LIMITS).header.format == "dicom"
    assert reason(b"\x08\0\x05\0CS\x0a\0ISO_IR 100") in ("UNREADABLE_IMAGE", "UNSUPPORTED_FORMAT")
    assert reason(b"rubbish") == reason(b"\x08\0") == "UNREADABLE_IMAGE"


def test_volumes_are_known_by_their_bytes_and_bounded() -> None:
    data = nifti(DEEP)
    assert open_image(data, LIMITS).header.frames == 4
    assert reason(data, ImageLimits(max_unpacked=1000)) == "IMAGE_TOO_LARGE"
    negative = DEEP.astype(np.int16)
    negative[3, 0, 0] = -5
    frames = list(open_image(nifti(negative), LIMITS).frames)
    assert {frame.pixels.dtype.name for frame in frames} == {"float32"}, "one type for all planes, though the last alone needs it"
    assert frames[3].pixels[0, 0, 0] == -5
