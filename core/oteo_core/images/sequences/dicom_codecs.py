"""imagecodecs as a decoder of pydicom's: JPEG of 8 and 12 bits and lossless, JPEG-LS, JPEG 2000 and HTJ2K.

pydicom's own plugins need libraries of other licences or read fewer varieties; RLE and deflated files it reads itself.

JPEG goes to libjpeg-turbo alone (`jpeg8_decode`): `jpeg_decode` gives what that refuses to liblj92, which reads beyond its memory where a
Huffman table is damaged. HTJ2K goes to OpenJPEG: OpenJPH (0.26) is quicker, and divides by zero or counts for half a minute over damaged
headers.
"""

from __future__ import annotations

import threading

import imagecodecs
import numpy as np
from pydicom import uid
from pydicom.pixels.common import PhotometricInterpretation
from pydicom.pixels.decoders import base
from pydicom.pixels.decoders.base import DecodeRunner

from oteo_core.errors import InvalidArgument
from oteo_core.images.sequences.apart import decode_jpegls
from oteo_core.images.sequences.codestreams import declared

LABEL = "imagecodecs"
"""What pydicom calls the decoder."""
_JPEG = (uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.JPEGLossless, uid.JPEGLosslessSV1)
_JPEG_LS = (uid.JPEGLSLossless, uid.JPEGLSNearLossless)
_JPEG_2000 = (uid.JPEG2000Lossless, uid.JPEG2000)
_HTJ2K = (uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL, uid.HTJ2K)

DECODER_DEPENDENCIES = dict.fromkeys((*_JPEG, *_JPEG_LS, *_JPEG_2000, *_HTJ2K), ("imagecodecs",))
"""What pydicom asks a plugin for."""

_registering = threading.Lock()
_done = False


def is_available(syntax: str) -> bool:
    """Tell pydicom whether a transfer syntax can be decoded."""
    return syntax in DECODER_DEPENDENCIES


def register() -> None:
    """Make the decoder known to pydicom, in the place of its own; once is enough."""
    global _done
    with _registering:
        if not _done:
            for syntax in DECODER_DEPENDENCIES:
                decoder = base.get_decoder(syntax)
                decoder.add_plugin(LABEL, (__name__, "decode_frame"))
                # The only one: another that is asked where this one refuses would decode what was refused.
                decoder._available = {LABEL: decoder._available[LABEL]}
            _done = True


def decode_frame(src: bytes, runner: DecodeRunner) -> bytearray:
    """Decode a frame for pydicom; no colour is changed that it will change itself."""
    syntax = runner.transfer_syntax
    _check_size(src, runner)
    if syntax in _JPEG:
        pixels = _jpeg(src, runner)
    elif syntax in _JPEG_LS:
        pixels = decode_jpegls(src, runner.rows * runner.columns * runner.samples_per_pixel)
    else:
        pixels = imagecodecs.jpeg2k_decode(src)
    if runner.photometric_interpretation in (PhotometricInterpretation.YBR_ICT, PhotometricInterpretation.YBR_RCT):
        # The codestream says itself that its components are mixed, and the decoder unmixes them.
        runner.set_option("photometric_interpretation", PhotometricInterpretation.RGB)
    runner.set_option("planar_configuration", 0)
    expected = runner.rows * runner.columns * runner.samples_per_pixel
    if pixels.size != expected:
        raise ValueError(f"the compressed frame has {pixels.shape} values, the header says {runner.rows} x {runner.columns}")
    runner.set_option("bits_allocated", 8 * pixels.dtype.itemsize)
    # A sign that the codestream lacks, or has and should not, is mended by pydicom, which knows both.
    # pydicom mends signs in place.
    return bytearray(np.ascontiguousarray(pixels).astype(pixels.dtype.newbyteorder("<"), copy=False).tobytes())


def _check_size(src: bytes, runner: DecodeRunner) -> None:
    """Refuse a codestream that declares another size than the header: decoders allocate by it."""
    found = declared(src)
    if found is None:
        raise ValueError("the compressed frame does not begin like its transfer syntax")
    size = (found.height, found.width, found.components)
    expected = (runner.rows, runner.columns, runner.samples_per_pixel)
    if size != expected:
        raise ValueError(f"the compressed frame declares {size} rows, columns and components, the header {expected}")


def _jpeg(src: bytes, runner: DecodeRunner) -> np.ndarray:
    if runner.samples_per_pixel == 1:
        return np.asarray(imagecodecs.jpeg8_decode(src))
    lossless = runner.transfer_syntax in (uid.JPEGLossless, uid.JPEGLosslessSV1)
    if lossless:
        return np.asarray(imagecodecs.jpeg8_decode(src))
    # libjpeg is told that what it finds is what is wanted, so that the header's colour space still holds for the result.
    space = "YCBCR" if runner.photometric_interpretation != PhotometricInterpretation.RGB else "RGB"
    return np.asarray(imagecodecs.jpeg8_decode(src, colorspace=space, outcolorspace=space))


def not_read(what: str) -> InvalidArgument:
    """Make the error for a DICOM object that is not read."""
    return InvalidArgument(f"{what} is not read", reason="UNSUPPORTED_FORMAT")
