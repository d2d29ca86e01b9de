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
from collections.abc import Iterator
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.pixels import apply_color_lut, apply_modality_lut, iter_pixels

from oteo_core.deidentification.burned_in import suspect
from oteo_core.deidentification.quiet import silence
from oteo_core.errors import InvalidArgument, OteoError
from oteo_core.images.header import ImageHeader, truncated, unreadable
from oteo_core.images.limits import ImageLimits
from oteo_core.images.sequences import dicom_codecs
from oteo_core.images.sequences.base import Frame, Opened, SequenceHeader

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
        dataset = pydicom.dcmread(io.BytesIO(data), force=True)
        if not any(name in dataset for name in _PIXELS):
            if not any(name in dataset for name in ("Modality", "SOPClassUID", "Rows")):
                raise unreadable("it does not begin like DICOM, and holds no picture")
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
    return Opened(header, _frames(dataset, count, bits))


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


def _frames(dataset: pydicom.Dataset, count: int, bits: int) -> Iterator[Frame]:
    number = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for number, raw in enumerate(iter_pixels(dataset), 1):
                pixels = _meaning(dataset, np.asarray(raw), bits, number - 1)
                yield Frame(np.ascontiguousarray(pixels), bits if pixels.dtype == np.uint16 else 0)
        except (OteoError, MemoryError, GeneratorExit):
            raise
        except NotImplementedError:
            raise dicom_codecs.not_read(f"frame {number + 1} of {count}: its compression or its form of pixels") from None
        except Exception as exc:  # noqa: BLE001 - a hostile frame may break a decoder anywhere
            raise _frame_error(exc, f"frame {number + 1} of {count}") from None
    if number < count:
        raise truncated(f"it declares {count} frames and holds {number}")


def _frame_error(exc: Exception, which: str) -> InvalidArgument:
    """Tell what became of a frame by what the decoder says, without repeating it."""
    words = str(exc).lower()
    if isinstance(exc, ValueError | EOFError):
        if "less than expected" in words or ("length" in words and "expected" in words) or "not enough" in words:
            return truncated(f"{which}: there are fewer bytes than its size asks for")
        if "no available" in words or "missing dependencies" in words or "unable to decompress" in words:
            return dicom_codecs.not_read(f"{which}: its compression")
    return unreadable(f"{which} cannot be decoded ({type(exc).__name__})")


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
