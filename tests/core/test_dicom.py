"""DICOM in every transfer syntax: pixels come out as they went in, or it is said why not."""

from __future__ import annotations

import io

import imagecodecs
import numpy as np
import pydicom
import pytest
from pydicom import uid
from sequence_files import dicom, packed, slices

from oteo_core.errors import InvalidArgument
from oteo_core.images import ImageLimits
from oteo_core.images.sequences import Opened, open_frames

LIMITS = ImageLimits()
EIGHT, TWELVE = slices(3, 2), slices(4, 2, dtype="uint16", top=4095)
LOSSLESS = {
    "JPEG lossless": (uid.JPEGLosslessSV1, lambda p: imagecodecs.jpeg_encode(p, lossless=True, bitspersample=12 if p.itemsize > 1 else 8)),
    "JPEG-LS": (uid.JPEGLSLossless, imagecodecs.jpegls_encode),
    "JPEG 2000": (uid.JPEG2000Lossless, lambda p: imagecodecs.jpeg2k_encode(p, level=0, codecformat="j2k", reversible=True)),
    "HTJ2K": (uid.HTJ2KLossless, lambda p: imagecodecs.htj2k_encode(p, reversible=True)),
}


def opened(data: bytes) -> tuple[Opened, list[np.ndarray]]:
    found = open_frames(data, LIMITS)
    return found, [frame.pixels for frame in found.frames]


@pytest.mark.parametrize("stack", [EIGHT, TWELVE], ids=["8 bits", "12 bits"])
@pytest.mark.parametrize("name", LOSSLESS)
def test_what_is_compressed_without_loss_comes_back(name: str, stack: np.ndarray) -> None:
    syntax, encode = LOSSLESS[name]
    found, frames = opened(packed(stack, syntax, encode))
    assert (found.header.kind, found.header.frames) == ("stack", 2)
    for frame, pixels in zip(frames, stack, strict=True):
        assert frame.dtype == stack.dtype
        np.testing.assert_array_equal(frame[:, :, 0], pixels)


@pytest.mark.parametrize(("stack", "bits", "syntax"), [(EIGHT, 8, uid.JPEGBaseline8Bit), (TWELVE, 12, uid.JPEGExtended12Bit)])
def test_lossy_jpeg_of_8_and_12_bits(stack: np.ndarray, bits: int, syntax: str) -> None:
    found, frames = opened(packed(stack, syntax, lambda pixels: imagecodecs.jpeg_encode(pixels, level=97, bitspersample=bits)))
    depth = [
        frame.bit_depth
        for frame in open_frames(packed(stack, syntax, lambda p: imagecodecs.jpeg_encode(p, bitspersample=bits)), LIMITS).frames
    ]
    assert depth == ([12, 12] if bits == 12 else [0, 0])
    for frame, pixels in zip(frames, stack, strict=True):
        assert frame.dtype == stack.dtype
        assert np.abs(frame[:, :, 0].astype(int) - pixels).mean() < (1 << bits) * 0.01
    assert found.header.frames == 2


def test_run_lengths_deflated_and_big_endian() -> None:
    plain = pydicom.dcmread(io.BytesIO(dicom(TWELVE, 0, series="1.2")))
    plain.compress(uid.RLELossless)
    rle = io.BytesIO()
    pydicom.dcmwrite(rle, plain)
    for data in (rle.getvalue(), _written(uid.DeflatedExplicitVRLittleEndian), _written(uid.ImplicitVRLittleEndian)):
        for frame, pixels in zip(opened(data)[1], TWELVE, strict=True):
            np.testing.assert_array_equal(frame[:, :, 0], pixels)


def _written(syntax: str) -> bytes:
    made = pydicom.dcmread(io.BytesIO(dicom(TWELVE, 0, series="1.2")))
    made.file_meta.TransferSyntaxUID = syntax
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, made, implicit_vr=syntax == uid.ImplicitVRLittleEndian, little_endian=True, force_encoding=True)
    return stream.getvalue()


def test_colours_come_out_as_rgb() -> None:
    ramp = np.linspace(0, 255, 48).astype(np.uint8)
    picture = np.stack([np.broadcast_to(ramp, (48, 48)), np.broadcast_to(ramp[:, None], (48, 48)), np.full((48, 48), 60, np.uint8)], axis=2)
    colour = {"SamplesPerPixel": 3, "PlanarConfiguration": 0}
    ycc = packed(
        picture[None], uid.JPEGBaseline8Bit, lambda p: imagecodecs.jpeg_encode(p, level=98, subsampling="444"),
        PhotometricInterpretation="YBR_FULL", **colour,
    )  # fmt: skip
    rct = packed(
        picture[None], uid.JPEG2000Lossless, lambda p: imagecodecs.jpeg2k_encode(p, level=0, codecformat="j2k", reversible=True),
        PhotometricInterpretation="YBR_RCT", **colour,
    )  # fmt: skip
    assert np.abs(opened(ycc)[1][0].astype(int) - picture).max() < 12
    np.testing.assert_array_equal(opened(rct)[1][0], picture)
    plain = dicom(EIGHT[0], 0, series="1.2", PixelData=picture.tobytes(), PhotometricInterpretation="RGB", **colour)
    np.testing.assert_array_equal(opened(plain)[1][0], picture)


def test_values_are_what_they_mean() -> None:
    signed = slices(5, 1, dtype="int16", top=2000)[0] - np.int16(900)
    hounsfield = opened(dicom(signed, 0, series="1", Modality="CT", RescaleSlope=2, RescaleIntercept=-10))[1][0]
    np.testing.assert_array_equal(hounsfield[:, :, 0], signed.astype(np.float32) * 2 - 10)
    np.testing.assert_array_equal(opened(dicom(signed, 0, series="1"))[1][0][:, :, 0], signed.astype(np.float32))
    positive = np.abs(signed)
    magnitude = opened(dicom(positive, 0, series="1"))[1][0]
    assert magnitude.dtype == np.uint16
    np.testing.assert_array_equal(magnitude[:, :, 0], positive)
    inverse = opened(dicom(TWELVE[0], 0, series="1", PhotometricInterpretation="MONOCHROME1"))[1][0]
    np.testing.assert_array_equal(inverse[:, :, 0], 4095 - TWELVE[0])


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\0" * 128 + b"DICM" + b"\xff" * 40, "UNREADABLE_IMAGE"),
        (dicom(EIGHT[0], 0, series="1")[:-100], "TRUNCATED_IMAGE"),
        (dicom(EIGHT, 0, series="1")[:-100], "TRUNCATED_IMAGE"),
        (dicom(EIGHT[0], 0, series="1", Rows=0), "UNREADABLE_IMAGE"),
        (dicom(EIGHT[0], 0, series="1", Rows=60000, Columns=60000), "IMAGE_TOO_LARGE"),
        (dicom(EIGHT[0], 0, series="1", NumberOfFrames=2_000_000), "IMAGE_TOO_LARGE"),
        (packed(EIGHT, uid.JPEG2000Lossless, lambda p: b"\xff\x4f\xff\x51" + bytes(60)), "UNREADABLE_IMAGE"),
        (packed(EIGHT, uid.MPEG4HP41, lambda p: bytes(60)), "UNSUPPORTED_FORMAT"),
    ],
    ids=["garbage", "cut", "cut in the second frame", "no rows", "too large", "too many frames", "broken codestream", "video syntax"],
)
def test_each_fault_has_its_reason(data: bytes, reason: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        list(open_frames(data, LIMITS).frames)
    assert refused.value.reason == reason
