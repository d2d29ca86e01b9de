"""What de-identification keeps beside the Basic Profile, and the codes (PS3.16 CID 7050) by which a file says so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Dates = Literal["remove", "full", "modified"]
"""What becomes of dates and times: removed; kept; moved by a shift that is one for all dates of a patient."""


@dataclass(frozen=True, slots=True)
class Rectangle:
    """A part of a picture: column and row of its upper left corner, width and height, pixels."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Options:
    """Options of PS3.15 Annex E that are taken beside the Basic Profile; none: the profile alone.

    Parameters
    ----------
    retain_uids
        Keep UIDs as they are.
    dates
        "remove", "full" or "modified".
    retain_device
        Keep what names the device.
    retain_institution
        Keep what names the institution.
    retain_patient
        Keep sex, age (90 and more become 90), size, weight and the like.
    clean_descriptors
        Keep of descriptions the words that the standard's own vocabulary has and that nothing identifying in the file contains.
    blank
        Parts of the picture to be painted over, in every frame.
    blank_suspects
        Paint over what the detector takes for text.
    """

    retain_uids: bool = False
    dates: Dates = "remove"
    retain_device: bool = False
    retain_institution: bool = False
    retain_patient: bool = False
    clean_descriptors: bool = False
    blank: tuple[Rectangle, ...] = ()
    blank_suspects: bool = False

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the table that hold before the Basic Profile's."""
        chosen = {
            "uids": self.retain_uids,
            "device": self.retain_device,
            "institution": self.retain_institution,
            "patient": self.retain_patient,
            "full_dates": self.dates == "full",
            "modified_dates": self.dates == "modified",
            "descriptors": self.clean_descriptors,
        }
        return tuple(name for name, taken in chosen.items() if taken)


BASIC = ("113100", "Basic Application Confidentiality Profile")
CLEAN_PIXELS = ("113101", "Clean Pixel Data Option")
_CODES = {
    "descriptors": ("113105", "Clean Descriptors Option"),
    "full_dates": ("113106", "Retain Longitudinal Temporal Information Full Dates Option"),
    "modified_dates": ("113107", "Retain Longitudinal Temporal Information Modified Dates Option"),
    "patient": ("113108", "Retain Patient Characteristics Option"),
    "device": ("113109", "Retain Device Identity Option"),
    "uids": ("113110", "Retain UIDs Option"),
    "institution": ("113112", "Retain Institution Identity Option"),
}


def codes_of(options: Options, pixels_cleaned: bool) -> tuple[tuple[str, str], ...]:
    """Give code value and meaning, of the scheme DCM, of the profile and every option that was carried out."""
    found = [BASIC, *([CLEAN_PIXELS] if pixels_cleaned else []), *(_CODES[name] for name in options.columns)]
    return tuple(sorted(found))
