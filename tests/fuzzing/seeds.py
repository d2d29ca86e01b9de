"""Small files of every kind that is read, drawn here; and, where there are real ones, small real DICOM files."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import PIL.Image
import pydicom
import tifffile
from pydicom import uid
from sequence_files import dicom, nifti, packed, slices, tiff

from oteo_core.images import encode_jpeg, encode_png

_PIXELS = (b"\xe0\x7f\x10\x00", b"\x7f\xe0\x00\x10")
MOST_BYTES = 80_000
"""Larger real files are left out: what is slow to decode is fuzzed less often."""


@dataclass(frozen=True)
class Seed:
    """A file: what it is, its bytes, and the name that it is opened under."""

    kind: str
    data: bytes
    name: str = ""


def drawn() -> list[Seed]:
    """Draw one file of each kind."""
    grey, deep = slices(1, 2, size=24), slices(2, 2, size=24, dtype="uint16", top=4095)
    rgb = np.stack([grey[0], grey[1], grey[0][::-1]], axis=2)
    rgba = np.concatenate([rgb, grey[0][:, :, None]], axis=2)
    found = {
        "png": [
            encode_png(grey[0]),
            encode_png(deep[0]),
            encode_png(rgb),
            encode_png(rgba),
            _pillow(PIL.Image.fromarray(rgb).quantize(8), "PNG"),
        ],
        "jpeg": [encode_jpeg(rgb), encode_jpeg(grey[0]), bytes(imagecodecs.jpeg_encode(deep[0], bitspersample=12))],
        "bmp": [_pillow(PIL.Image.fromarray(rgb), "BMP"), _pillow(PIL.Image.fromarray(rgb).quantize(8), "BMP")],
        "pnm": [_pillow(PIL.Image.fromarray(rgb), "PPM"), b"P2 3 2 255\n1 2 3 4 5 6\n"],
        "webp": [_pillow(PIL.Image.fromarray(rgb), "WEBP"), _animated("WEBP", grey)],
        "gif": [_animated("GIF", grey)],
        "apng": [_animated("PNG", grey)],
        "nifti": [nifti(deep.astype("int16"), packed=False), nifti(grey.astype("float32"), packed=False)],
        "nifti-gz": [nifti(grey)],
        "tiff": _tiffs(grey, deep, rgb),
        "dicom": _dicoms(grey, deep, rgb),
        "dicom-deflated": [_written(deep, uid.DeflatedExplicitVRLittleEndian)],
    }
    return [Seed(kind, data) for kind, files in found.items() for data in files]


def real(folder: Path) -> list[Seed]:
    """Read the small real DICOM files below a folder of real data."""
    files = [path for name in ("dicom_pydicom", "dicom_dicom2nifti") for path in sorted((folder / name).rglob("*")) if path.is_file()]
    datas = [path.read_bytes() for path in files if 200 < path.stat().st_size <= MOST_BYTES]
    return [Seed("dicom", data) for data in datas if data[128:132] == b"DICM" and any(mark in data for mark in _PIXELS)]


def _pillow(image: PIL.Image.Image, form: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def _animated(form: str, frames: np.ndarray) -> bytes:
    first, *rest = (PIL.Image.fromarray(frame) for frame in frames)
    return _pillow(first, form, save_all=True, append_images=rest, duration=100)


def _tiffs(grey: np.ndarray, deep: np.ndarray, rgb: np.ndarray) -> list[bytes]:
    def made(pixels: np.ndarray, **options: Any) -> bytes:
        stream = io.BytesIO()
        tifffile.imwrite(stream, pixels, **options)
        return stream.getvalue()

    compressed = [made(deep[0], compression=name) for name in ("lzw", "zlib", "packbits", "lzma", "zstd")]
    return [
        *compressed,
        tiff(grey),
        tiff(deep, bigtiff=True),
        made(rgb, photometric="rgb", compression="jpeg"),
        made(rgb, photometric="rgb", tile=(16, 16), compression="zlib", predictor=True),
        made(np.moveaxis(rgb, 2, 0), photometric="rgb", planarconfig="separate"),
        made(deep.astype("float32"), photometric="minisblack", imagej=True),
        made(deep, photometric="minisblack", byteorder=">", ome=False),
        _pillow(PIL.Image.fromarray(rgb).quantize(8), "TIFF"),
        _pillow(PIL.Image.fromarray(grey[0]).convert("1"), "TIFF", compression="group4"),
    ]


def _dicoms(grey: np.ndarray, deep: np.ndarray, rgb: np.ndarray) -> list[bytes]:
    colour = {"SamplesPerPixel": 3, "PlanarConfiguration": 0}
    encoders: list[tuple[str, np.ndarray, Callable[[np.ndarray], bytes]]] = [
        (uid.JPEGBaseline8Bit, grey, imagecodecs.jpeg_encode),
        (uid.JPEGExtended12Bit, deep, lambda pixels: imagecodecs.jpeg_encode(pixels, bitspersample=12)),
        (uid.JPEGLosslessSV1, deep, lambda pixels: imagecodecs.jpeg_encode(pixels, lossless=True, bitspersample=12)),
        (uid.JPEGLSLossless, deep, imagecodecs.jpegls_encode),
        (uid.JPEG2000Lossless, deep, lambda pixels: imagecodecs.jpeg2k_encode(pixels, level=0, codecformat="j2k", reversible=True)),
        (uid.HTJ2KLossless, deep, lambda pixels: imagecodecs.htj2k_encode(pixels, reversible=True)),
    ]
    made = [packed(pixels, syntax, encode) for syntax, pixels, encode in encoders]
    made.append(packed(rgb[None], uid.JPEGBaseline8Bit, imagecodecs.jpeg_encode, PhotometricInterpretation="YBR_FULL", **colour))
    made.append(dicom(grey[0], 0, series="1", PixelData=rgb.tobytes(), PhotometricInterpretation="RGB", **colour))
    made.append(dicom(deep, 0, series="1", Modality="CT", RescaleSlope=2, RescaleIntercept=-1024))
    made.append(dicom(deep[0], 0, series="1", PhotometricInterpretation="MONOCHROME1"))
    made.append(_palette(grey[0]))
    run_lengths = pydicom.dcmread(io.BytesIO(dicom(deep, 0, series="1")))
    run_lengths.compress(uid.RLELossless)
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, run_lengths)
    return [*made, stream.getvalue(), _written(deep, uid.ImplicitVRLittleEndian), *(one[132:] for one in made[-2:])]


def _palette(grey: np.ndarray) -> bytes:
    entries = np.arange(256, dtype="<u2") * 257
    tables = {f"{name}PaletteColorLookupTableData": entries.tobytes() for name in ("Red", "Green", "Blue")}
    shapes = {f"{name}PaletteColorLookupTableDescriptor": [256, 0, 16] for name in ("Red", "Green", "Blue")}
    return dicom(grey, 0, series="1", PhotometricInterpretation="PALETTE COLOR", **tables, **shapes)


def _written(stack: np.ndarray, syntax: str) -> bytes:
    made = pydicom.dcmread(io.BytesIO(dicom(stack, 0, series="1.2")))
    made.file_meta.TransferSyntaxUID = syntax
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, made, implicit_vr=syntax == uid.ImplicitVRLittleEndian, little_endian=True, force_encoding=True)
    return stream.getvalue()


def nested_sequences(depth: int) -> bytes:
    """Give a DICOM file with sequences of undefined length within each other."""
    head = dicom(slices(1, 1, size=8)[0], 0, series="1")
    begin = struct.pack("<HH2sHI", 0x0009, 0x1001, b"SQ", 0, 0xFFFFFFFF) + struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    end = struct.pack("<HHI", 0xFFFE, 0xE00D, 0) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    at = head.index(struct.pack("<HH2s", 0x0010, 0x0010, b"PN"))
    return head[:at] + begin * depth + end * depth + head[at:]
