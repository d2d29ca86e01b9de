"""Values: dummies, what is a valid value of its representation (PS3.5 6.2), dates that are moved, descriptions that are cleaned."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from datetime import date, timedelta
from typing import Any

from pydicom.sr import codes

_OLDEST = 90
_FORMS = {
    "AS": r"\d{3}[DWMY]",
    "CS": r"[A-Z0-9 _]{0,16}",
    "DA": r"(\d{4}(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01]))?",
    "DS": r" *([+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?)? *",
    "DT": r"(\d{4}((0[1-9]|1[0-2])((0[1-9]|[12]\d|3[01])([01]\d|2[0-3])?([0-5]\d)?([0-5]\d|60)?(\.\d{1,6})?)?)?([+-]\d{4})?)? *",
    "IS": r" *([+-]?\d{1,12})? *",
    "TM": r"(([01]\d|2[0-3])([0-5]\d([0-5]\d|60)?(\.\d{1,6})?)?)? *",
    "UI": r"(?=.{0,65}$)(\d+(\.\d+)*)?\0?",
}
_VALID = {kind: re.compile(form) for kind, form in _FORMS.items()}
_OFFSET = re.compile(r"[+-]\d{4}")
_DUMMIES: dict[str, Any] = {
    "AE": "NONE", "AS": "000Y", "AT": 0x00000000, "CS": "NONE", "DA": "19000101", "DS": "0", "DT": "19000101000000", "FD": 0.0, "FL": 0.0,
    "IS": "0", "LO": "REMOVED", "LT": "REMOVED", "OB": b"\0\0", "OD": b"\0" * 8, "OF": b"\0" * 4, "OL": b"\0" * 4, "OV": b"\0" * 8,
    "OW": b"\0\0", "PN": "REMOVED", "SH": "REMOVED", "SL": 0, "SS": 0, "ST": "REMOVED", "SV": 0, "TM": "000000", "UC": "REMOVED", "UL": 0,
    "UN": b"\0\0", "UR": "urn:removed", "US": 0, "UT": "REMOVED", "UV": 0,
}  # fmt: skip
TEXT = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT", "UR", "AE"})
"""Representations in which anything may be written."""
_WORD = re.compile(r"[^\W\d_]+|\d+", re.UNICODE)
_PROTOCOL_WORDS = (
    "ax axial sag sagittal cor coronal oblique obl tra transverse t1 t2 t1w t2w pd pdw flair stir dwi adc swi gre se fse tse tof mra mip mpr fs fat sat pre post "
    "contrast gd native scout localizer localiser survey head neck chest thorax abdomen pelvis spine knee shoulder wrist hand foot hip ankle elbow "
    "ap pa lat lateral left right with without phase arterial venous portal delayed soft tissue bone lung kernel recon series study mm sec ct mr mri us xr pet nm"
)


def dummy(kind: str) -> Any:
    """Give a value of a representation that says nothing; None for sequences."""
    return _DUMMIES.get(kind)


def is_valid(kind: str, value: Any) -> bool:
    """Tell whether a value, or each of several, is what its representation allows; of text and bytes nothing is asked."""
    form = _VALID.get(kind)
    if form is None or value is None:
        return True
    return all(form.fullmatch(part) is not None for part in texts(value))


def texts(value: Any) -> list[str]:
    """Give a value, or each of several, as text; numbers as they stand in the file."""
    parts = value if isinstance(value, Iterable) and not isinstance(value, str | bytes) else [value]
    return [_text(part) for part in parts]


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("latin-1")
    return str(getattr(value, "original_string", None) or value)


def moved(kind: str, value: str, days: int) -> str:
    """Move a DA or DT value by whole days; times of day, and dates that name no day, stay what they are ("" for what is no date)."""
    if kind == "TM" or not value.strip():
        return value
    if len(value) < 8 or not value[:8].isdigit():
        # A year or a month alone cannot be moved by days without saying more than it did.
        return ""
    try:
        day = date(int(value[:4]), int(value[4:6]), int(value[6:8])) + timedelta(days)
    except (ValueError, OverflowError):
        return ""
    return f"{day.year:04}{day.month:02}{day.day:02}{value[8:]}"


def is_offset(value: str) -> bool:
    """Tell whether a text is an offset from UTC, as (0008,0201) has it."""
    return _OFFSET.fullmatch(value.strip()) is not None


def capped_age(value: str) -> str:
    """Give an age as it is, 90 years for all that are older: so few people are that they can be told apart."""
    return f"{_OLDEST:03}Y" if value.endswith("Y") and value[:3].isdigit() and int(value[:3]) > _OLDEST else value


@functools.cache
def vocabulary() -> frozenset[str]:
    """Give the words, in lower case, of the meanings of all codes of the standard's context groups, and usual words of protocols."""
    found = set(_PROTOCOL_WORDS.split())
    for scheme in ("DCM", "SCT"):
        for code in getattr(codes, scheme).concepts.values():
            found.update(word.lower() for word in re.findall(r"[A-Za-z]{2,}", code.meaning))
    return frozenset(found)


def words(text: str) -> set[str]:
    """Give the words of a text, in lower case."""
    return {word.lower() for word in _WORD.findall(text)}


def cleaned(text: str, forbidden: set[str]) -> str:
    """Keep of a description the words of the vocabulary that are not forbidden, and numbers below 100, in their order."""
    kept = []
    for token in re.split(r"[\s^_,;:/\\()\[\]]+", text):
        plain = token.lower().strip(".-+*")
        known = plain in vocabulary() or (plain.isdigit() and len(plain) <= 2)
        if known and plain not in forbidden:
            kept.append(token)
    return " ".join(kept)
