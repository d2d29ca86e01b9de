"""DICOM objects (PS3.3 image modules, PS3.5 encodings) through pydicom, compressed pixels through imagecodecs.

Nothing of a header leaves this module but what `SequenceHeader` names; pixels are the stored values, brought to what they mean:

- a rescale (Modality LUT) that is no identity is applied, and gives float32: Hounsfield units for CT;
- whole numbers from 0 stay uint8 or uint16; negative ones become float32;
- MONOCHROME1 is inverted, so that larger is brighter; a palette is expanded, YBR becomes RGB; no window is applied.

No error cites the header or what pydicom says of it: its words repeat values, and a value may be a name.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels import apply_color_lut, apply_modality_lut, get_decoder, iter_pixels
from pydicom.pixels.utils import as_pixel_options

from oteo_core.deidentification.burned_in import suspect
from oteo_core.deidentification.quiet import silence
from oteo_core.errors import InvalidArgument, OteoError
from oteo_core.images.header import ImageHeader, truncated, unreadable
from oteo_core.images.limits import ImageLimits
from oteo_core.images.sequences import dicom_codecs, dicom_structure
from oteo_core.images.sequences.base import Frame, FrameDecoder, Opened, SequenceHeader
from oteo_core.images.sequences.codestreams import unboxed

_MOVING = frozenset({"US", "XA", "RF", "ES", "IVUS", "XC", "GM", "EPS"})
"""Modalities whose several frames are one scene in time."""
_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")


def open_dicom(data: bytes, limits: ImageLimits) -> Opened:
    """Open a DICOM object.

    Raises
    ------
    InvalidArgument
        UNREADABLE_IMAGE for what is no DICOM or is broken, UNSUPPORTED_FORMAT for an object without a picture or of a compression that is not
        read, TRUNCATED_IMAGE, IMAGE_TOO_LARGE.
    """
    dicom_codecs.register()
    silence()
    try:
        return _opened(data, limits)
    except (OteoError, MemoryError):
        raise
    except Exception as exc:  # noqa: BLE001 - a hostile header may break the parser anywhere
        raise unreadable(f"its header cannot be read ({type(exc).__name__})") from None


def _opened(data: bytes, limits: ImageLimits) -> Opened:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # odd values are common and harmless; what matters is checked below
        # Without a preamble it may be DICOM all the same, as old archives store it; what is none has no rows either.
        dataset = pydicom.dcmread(io.BytesIO(dicom_structure.sound(data, limits)), force=True)
        if not any(name in dataset for name in _PIXELS):
            if not any(name in dataset for name in ("Modality", "SOPClassUID", "Rows")):
                known = dicom_structure.begins_like_dicom(data[:132])
                raise unreadable("the DICOM object holds no picture" if known else "it does not begin like DICOM, and holds no picture")
            # Only what the standard itself has a name for: whatever else stands there may be anything.
            kind = pydicom.uid.UID_dictionary.get(str(dataset.get("SOPClassUID", "")), ("of an unknown kind",))[0]
            raise dicom_codecs.not_read(f"a DICOM object without a picture ({kind})")
        assume_syntax(dataset)
        rows, columns = int(dataset.get("Rows") or 0), int(dataset.get("Columns") or 0)
        if rows < 1 or columns < 1:
            raise unreadable(f"its header declares {columns} x {rows} pixels")
        count = max(1, int(dataset.get("NumberOfFrames") or 1))
        channels = 3 if int(dataset.get("SamplesPerPixel") or 1) > 1 or dataset.get("PhotometricInterpretation") == "PALETTE COLOR" else 1
        bits = int(dataset.get("BitsStored") or dataset.get("BitsAllocated") or 16)
        limits.check(ImageHeader("dicom", columns, rows, channels, "uint8" if bits <= 8 else "float32" if bits > 16 else "uint16", count))
        header = SequenceHeader(
            "dicom",
            _kind(dataset, count),
            count,
            _spacing(dataset),
            _series(dataset),
            str(dataset.get("PatientID") or dataset.get("PatientName") or ""),
            _position(dataset),
            _notes(dataset),
        )
    return Opened(header, lambda start: _decoders(dataset, count, bits, start))


def assume_syntax(dataset: pydicom.Dataset) -> None:
    """Let an object without file meta information say how it was found to be encoded."""
    if "TransferSyntaxUID" in getattr(dataset, "file_meta", {}):
        return
    if not hasattr(dataset, "file_meta"):
        dataset.file_meta = pydicom.dataset.FileMetaDataset()
    implicit, little = dataset.original_encoding
    dataset.file_meta.TransferSyntaxUID = (
        pydicom.uid.ImplicitVRLittleEndian
        if implicit
        else pydicom.uid.ExplicitVRLittleEndian
        if little is not False
        else pydicom.uid.ExplicitVRBigEndian
    )


def _decoders(dataset: pydicom.Dataset, count: int, bits: int, start: int) -> Iterator[FrameDecoder]:
    number = start
    with _refusing(lambda: number, count):
        raw = _raw_frames(dataset, count, start)
        for number in range(start, count):
            decode = next(raw, None)
            if decode is None:
                raise truncated(f"it declares {count} frames and holds {number}")
            yield partial(_frame, dataset, decode, count, bits, number)


def _frame(dataset: pydicom.Dataset, decode: Callable[[], NDArray[Any]], count: int, bits: int, number: int) -> Frame:
    with _refusing(lambda: number, count), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pixels = _meaning(dataset, np.asarray(decode()), bits, number)
        return Frame(np.ascontiguousarray(pixels), bits if pixels.dtype == np.uint16 else 0)


def _raw_frames(dataset: pydicom.Dataset, count: int, start: int) -> Iterator[Callable[[], NDArray[Any]]]:
    """Give what decodes each frame's stored values; of compressed ones each frame stands alone, so that one that is damaged harms no other."""
    syntax = dataset.file_meta.TransferSyntaxUID
    decoder = get_decoder(syntax)
    if not decoder.is_encapsulated:
        for number in range(start, count):
            yield lambda number=number: next(iter_pixels(dataset, indices=[number]))  # type: ignore[misc]
        return
    options = as_pixel_options(dataset, pixel_keyword="PixelData")
    offsets = options.pop("extended_offsets", None)
    options["number_of_frames"] = 1
    frames = generate_frames(dataset.PixelData, number_of_frames=count, extended_offsets=offsets)
    for encoded in islice(frames, start, count):
        yield lambda encoded=encoded: next(decoder.iter_array(encapsulate([unboxed(encoded)]), **options))[0]  # type: ignore[misc]


@contextmanager
def _refusing(number: Callable[[], int], count: int) -> Iterator[None]:
    """Say in one of our errors what became of a frame, counted from 0; of what pydicom says only whose fault it is, since its words cite values."""
    try:
        yield
    except (OteoError, MemoryError, GeneratorExit):
        raise
    except Exception as exc:  # noqa: BLE001 - a hostile frame may break a decoder anywhere
        raise _frame_error(exc, f"frame {number() + 1} of {count}") from None


def _frame_error(exc: Exception, where: str) -> InvalidArgument:
    """Tell what became of a frame: in the words of our own decoder, which sees pixels alone, else in general ones."""
    words = " ".join(str(exc).split())
    _, ours, said = words.rpartition(f"plugins: {dicom_codecs.LABEL}: ")
    lower = words.lower()
    if isinstance(exc, NotImplementedError):
        return dicom_codecs.not_read(f"{where}: its compression or its form of pixels")
    if "less than expected" in lower or ("length" in lower and "expected" in lower) or "not enough" in lower:
        return truncated(f"{where}: {said if ours else 'there are fewer bytes than its size asks for'}")
    if "no available" in lower or "missing dependencies" in lower or ("unable to decompress" in lower and not ours):
        return dicom_codecs.not_read(f"{where}: its compression")
    return unreadable(f"{where}: {said if ours else f'it cannot be decoded ({type(exc).__name__})'}")


def _meaning(dataset: pydicom.Dataset, raw: NDArray[Any], bits: int, number: int) -> NDArray[Any]:
    """Bring stored values (H, W) or (H, W, 3) to (H, W, C) of uint8, uint16 or float32."""
    interpretation = str(dataset.get("PhotometricInterpretation", ""))
    if raw.ndim == 3:
        return _whole(raw)
    if interpretation == "PALETTE COLOR":
        coloured = apply_color_lut(raw, dataset)
        # A table of 16 bits holds 8-bit colours in its upper byte.
        return np.asarray(coloured >> 8 if coloured.dtype == np.uint16 else coloured, np.uint8)
    scaled = _rescaled(dataset, raw, number)
    if scaled is not None:
        return scaled[:, :, None]
    if bits == 1:
        return (raw.astype(np.uint8) * 255)[:, :, None]
    pixels = _whole(raw)
    if interpretation == "MONOCHROME1":
        if pixels.dtype == np.float32:
            pixels = -pixels
        else:
            top = (1 << min(bits, 16)) - 1
            pixels = (top - np.minimum(pixels, top)).astype(pixels.dtype)
    return pixels[:, :, None]


def _rescaled(dataset: pydicom.Dataset, raw: NDArray[Any], number: int) -> NDArray[np.float32] | None:
    """Apply the modality's rescale or table; None where there is none, or it changes nothing."""
    if "ModalityLUTSequence" in dataset:
        return np.asarray(apply_modality_lut(raw, dataset), np.float32)
    holder: Any = dataset
    if "RescaleSlope" not in dataset:
        holder = _functional_group(dataset, number, "PixelValueTransformationSequence")
    slope, intercept = holder.get("RescaleSlope"), holder.get("RescaleIntercept")
    if slope is None or intercept is None:
        return None
    if (float(slope), float(intercept)) == (1.0, 0.0) and dataset.get("Modality") != "CT":
        return None
    return np.asarray(raw.astype(np.float64) * float(slope) + float(intercept), np.float32)


def _functional_group(dataset: pydicom.Dataset, number: int, name: str) -> Any:
    """Give a frame's functional group of an enhanced object, its own before the shared one; an empty data set where there is none."""
    own = dataset.get("PerFrameFunctionalGroupsSequence") or []
    shared = dataset.get("SharedFunctionalGroupsSequence") or []
    for group in ([own[number]] if number < len(own) else []) + list(shared):
        if group.get(name):
            return group[name].value[0]
    return pydicom.Dataset()


def _whole(raw: NDArray[Any]) -> NDArray[Any]:
    if raw.dtype in (np.uint8, np.uint16):
        return raw
    if raw.dtype.kind in "ui" and int(raw.min(initial=0)) >= 0 and int(raw.max(initial=0)) < 1 << 16:
        return raw.astype(np.uint16 if raw.dtype.itemsize > 1 else np.uint8)
    return raw.astype(np.float32)


def _kind(dataset: pydicom.Dataset, count: int) -> str:
    if count == 1:
        return "image"
    moving = str(dataset.get("Modality", "")) in _MOVING or any(name in dataset for name in ("FrameTime", "CineRate", "FrameTimeVector"))
    return "video" if moving else "stack"


def _numbers(value: Any) -> list[float]:
    try:
        return [float(part) for part in value] if value is not None else []
    except (TypeError, ValueError):
        return []


def _spacing(dataset: pydicom.Dataset) -> tuple[float, ...]:
    measures = _functional_group(dataset, 0, "PixelMeasuresSequence")
    found = _numbers(dataset.get("PixelSpacing") or measures.get("PixelSpacing") or dataset.get("ImagerPixelSpacing"))
    if len(found) != 2 or not all(math.isfinite(value) and value > 0 for value in found):
        return ()
    apart = dataset.get("SpacingBetweenSlices") or measures.get("SpacingBetweenSlices")
    # DICOM names the distance of rows first.
    return (found[1], found[0], abs(float(apart))) if apart and int(dataset.get("NumberOfFrames") or 1) > 1 else (found[1], found[0])


def _series(dataset: pydicom.Dataset) -> str:
    """Name what slices belong together: one series, of one size and direction, as a localiser among them is no slice of theirs."""
    series = str(dataset.get("SeriesInstanceUID") or "")
    if not series:
        return ""
    direction = [round(value, 2) for value in _numbers(dataset.get("ImageOrientationPatient"))]
    return f"{series}/{dataset.get('Rows')}x{dataset.get('Columns')}/{direction}"


def _position(dataset: pydicom.Dataset) -> float | None:
    direction, place = _numbers(dataset.get("ImageOrientationPatient")), _numbers(dataset.get("ImagePositionPatient"))
    if len(direction) == 6 and len(place) == 3:
        return float(np.dot(np.cross(direction[:3], direction[3:]), place))
    try:
        return float(dataset.InstanceNumber)
    except (AttributeError, TypeError, ValueError):
        return None


def _notes(dataset: pydicom.Dataset) -> tuple[tuple[str, str], ...]:
    return tuple((one.code, one.message) for one in suspect(dataset))
