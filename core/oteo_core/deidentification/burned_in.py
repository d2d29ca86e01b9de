"""Whether a header gives reason to look for text, or for a face, in the picture itself."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from oteo_core.deidentification.options import Rectangle
from oteo_core.deidentification.quiet import silence
from oteo_core.deidentification.text_in_pictures import find_text

BURNED_IN_TEXT = "BURNED_IN_TEXT_SUSPECTED"
RECOGNISABLE = "RECOGNISABLE_FEATURES_SUSPECTED"
_MODALITIES = {
    "US": "ultrasound", "IVUS": "ultrasound within vessels", "SC": "secondary capture", "XC": "photography", "ES": "endoscopy", "OT": "other",
    "GM": "microscopy", "DOC": "document", "XA": "angiography", "RF": "fluoroscopy",
}  # fmt: skip
"""Modalities whose devices write into pictures, or whose pictures are of screens and paper."""
_MOST_TOLD = 3
_CAPTURED = "1.2.840.10008.5.1.4.1.1.7"
_SCREENS = ("SCREEN", "CAPTURE", "REPORT", "DOSE", "SNAPSHOT")
_CONVERSIONS = frozenset({"DV", "DI", "DF", "WSD", "SD", "SI", "DRW"})
_HEADER_TAGS = (
    "SOPClassUID", "Modality", "ImageType", "BurnedInAnnotation", "RecognizableVisualFeatures", "ConversionType", "SpecificCharacterSet",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Suspicion:
    """What somebody should look at in a picture before it is given away.

    Parameters
    ----------
    code
        `BURNED_IN_TEXT` or `RECOGNISABLE`.
    message
        Why; nothing of the header's free text is in it.
    rectangles
        Where the detector found text; empty where the header alone is the reason.
    """

    code: str
    message: str
    rectangles: tuple[Rectangle, ...] = ()


def suspect_header(data: bytes) -> tuple[Suspicion, ...]:
    """Judge a DICOM file by its header alone; () where it gives no reason, or is no DICOM. Pixels are not read."""
    silence()
    try:
        dataset = pydicom.dcmread(io.BytesIO(data), force=True, stop_before_pixels=True, specific_tags=list(_HEADER_TAGS))
    except Exception:  # noqa: BLE001 - a broken file is told of by whoever decodes it
        return ()
    return suspect(dataset)


def suspect(dataset: Dataset) -> tuple[Suspicion, ...]:
    """Judge an object by its header: what it says itself, then what pictures of its kind usually have."""
    found = []
    if _value(dataset, "RecognizableVisualFeatures") == "YES":
        found.append(Suspicion(RECOGNISABLE, "its header says that the person can be recognised by the picture"))
    burned = _value(dataset, "BurnedInAnnotation")
    if burned == "YES":
        found.append(Suspicion(BURNED_IN_TEXT, "its header says that text is burned into the picture: look whether it names the patient"))
    elif burned != "NO" and (reason := _kind(dataset)):
        found.append(
            Suspicion(BURNED_IN_TEXT, f"{reason}, and its header does not say that no text is burned in: look whether it names the patient")
        )
    return tuple(found)


def found_text(pixels: NDArray[Any]) -> str:
    """Say where in a picture (H, W) or (H, W, C) there seems to be text; "" where there is none."""
    places = tuple(row.place for row in find_text(pixels))
    return told_places(places) if places else ""


def told_places(places: Sequence[Rectangle]) -> str:
    """Say where text was found, the first three places in full."""
    shown = "; ".join(f"column {one.x}, row {one.y}, {one.width} x {one.height} pixels" for one in places[:_MOST_TOLD])
    more = f" and {len(places) - _MOST_TOLD} more places" if len(places) > _MOST_TOLD else ""
    return f"there seems to be text in the picture, at {shown}{more}: look whether it names the patient"


def _kind(dataset: Dataset) -> str:
    if _value(dataset, "SOPClassUID").startswith(_CAPTURED):
        return "it is a secondary capture"
    if name := _MODALITIES.get(_value(dataset, "Modality")):
        return f"pictures of its modality ({name}) often have text in them"
    if any(word in _value(dataset, "ImageType") for word in _SCREENS):
        return "its image type is that of a captured screen"
    if _value(dataset, "ConversionType") in _CONVERSIONS:
        return "it was made from a screen, a film or paper"
    return ""


def _value(dataset: Dataset, name: str) -> str:
    try:
        value: Any = dataset.get(name)
    except Exception:  # noqa: BLE001 - a hostile element may break the parser anywhere
        return ""
    return str(value or "").upper().strip("\0 ")
