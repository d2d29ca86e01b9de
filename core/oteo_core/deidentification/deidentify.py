"""A DICOM object in, the same object without what identifies its patient out: PS3.15 Annex E, Basic Profile and options."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field

import pydicom
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.tag import Tag
from pydicom.uid import UID_dictionary

from oteo_core.deidentification.burned_in import BURNED_IN_TEXT, Suspicion, suspect, told_places
from oteo_core.deidentification.keys import hashed_uid
from oteo_core.deidentification.options import Options, Rectangle, codes_of
from oteo_core.deidentification.pixels import cut_padding, has_picture, paint_over, stored_frames
from oteo_core.deidentification.quiet import silence
from oteo_core.deidentification.text_in_pictures import find_text_in_frames
from oteo_core.deidentification.walking import Walk
from oteo_core.errors import InvalidArgument
from oteo_core.images.sequences.dicom import assume_syntax

_IMPLEMENTATION = "2.25.211284766893417350912187745011393860841"
"""Oteo's own implementation class UID; a UUID drawn once."""
_VERSION = "OTEO"
_METHOD = "PS3.15 E Basic Profile (table 2026c); UIDs HMAC-SHA256"
_DATES = {"remove": "REMOVED", "full": "UNMODIFIED", "modified": "MODIFIED"}


@dataclass(frozen=True, slots=True)
class Deidentified:
    """What de-identification made.

    Parameters
    ----------
    data
        The new file.
    patient, series_uid, sop_instance_uid
        The pseudonym, the series and the name of the new object.
    method
        As it stands in the file, (0012,0063).
    codes
        Code values and meanings of PS3.16 CID 7050, as in (0012,0064).
    findings
        What is left for a person to look at.
    counts
        How many elements were kept "K", cleaned "C", removed "X", emptied "Z", given a dummy "D" or a new UID "U".
    """

    data: bytes
    patient: str
    series_uid: str
    sop_instance_uid: str
    method: str
    codes: tuple[tuple[str, str], ...]
    findings: tuple[Suspicion, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)


def deidentify(data: bytes, key: bytes, options: Options | None = None) -> Deidentified:
    """De-identify a DICOM file.

    Parameters
    ----------
    data
        The whole file; without preamble and file meta information too.
    key
        Of all hashes, 32 bytes or more: the same key gives the same UIDs, pseudonyms and shifts.
    options
        What is kept beside the Basic Profile; None: nothing.

    Raises
    ------
    InvalidArgument
        UNREADABLE_IMAGE: it is no DICOM, or cannot be read, painted over or written again. No message cites the header.
    """
    silence()
    options = options or Options()
    try:
        dataset = pydicom.dcmread(io.BytesIO(data), force=True)
        return _deidentified(dataset, key, options)
    except (InvalidArgument, MemoryError):
        raise
    except Exception as exc:  # noqa: BLE001 - a hostile header may break the parser anywhere, and its words may cite the header
        raise InvalidArgument(f"it cannot be read as DICOM ({type(exc).__name__})", reason="UNREADABLE_IMAGE") from None


def _deidentified(dataset: Dataset, key: bytes, options: Options) -> Deidentified:
    if "DirectoryRecordSequence" in dataset:
        raise InvalidArgument(
            "it is a DICOMDIR, which lists files and patients: leave it out, and make a new one", reason="UNSUPPORTED_FORMAT"
        )
    if "SOPClassUID" not in dataset and "Rows" not in dataset and "MediaStorageSOPClassUID" not in getattr(dataset, "file_meta", {}):
        raise InvalidArgument("it is no DICOM object", reason="UNREADABLE_IMAGE")
    assume_syntax(dataset)
    _take_up_meta(dataset)
    if not dataset.get("SOPClassUID"):
        raise InvalidArgument("it does not say what kind of object it is (SOP Class UID)", reason="UNREADABLE_IMAGE")
    findings, rectangles = _look(dataset, options)
    paint_over(dataset, rectangles)
    cut_padding(dataset)
    walk = Walk(dataset, key, options)
    walk.run()
    if rectangles:
        left, _ = _look(dataset, Options())
        findings = tuple(one for one in left if one.rectangles or one.code != BURNED_IN_TEXT)
        if not any(one.code == BURNED_IN_TEXT for one in findings):
            dataset.BurnedInAnnotation = "NO"
    codes = codes_of(options, bool(rectangles))
    _record(dataset, options, codes)
    dataset.file_meta = _meta(dataset)
    dataset.preamble = b"\0" * 128
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, dataset, enforce_file_format=True)
    patient, series, instance = (str(dataset.get(name) or "") for name in ("PatientID", "SeriesInstanceUID", "SOPInstanceUID"))
    return Deidentified(stream.getvalue(), patient, series, instance, _METHOD, codes, findings, dict(walk.counts))


def _take_up_meta(dataset: Dataset) -> None:
    """Let the object say itself what its file meta information alone says, where it lacks it."""
    for name, from_meta in (("SOPClassUID", "MediaStorageSOPClassUID"), ("SOPInstanceUID", "MediaStorageSOPInstanceUID")):
        if not dataset.get(name) and dataset.file_meta.get(from_meta):
            setattr(dataset, name, dataset.file_meta.get(from_meta))


def _look(dataset: Dataset, options: Options) -> tuple[tuple[Suspicion, ...], tuple[Rectangle, ...]]:
    """Judge header and pixels; give the findings and what is to be painted over."""
    findings = list(suspect(dataset))
    found: tuple[Rectangle, ...] = ()
    if has_picture(dataset):
        try:
            found = find_text_in_frames(stored_frames(dataset))
        except InvalidArgument:
            if options.blank_suspects:
                raise
            findings.append(Suspicion(BURNED_IN_TEXT, "its pixels cannot be decoded, so that nobody has looked for text in them"))
    if found:
        findings.append(Suspicion(BURNED_IN_TEXT, told_places(found), found))
    return tuple(findings), (*options.blank, *(_wide(place) for place in found if options.blank_suspects))


def _wide(place: Rectangle) -> Rectangle:
    """Give more than was found: the first and last characters of a row are the ones that are missed."""
    aside, above = 3 * place.height, place.height // 2
    x, y = max(0, place.x - aside), max(0, place.y - above)
    return Rectangle(x, y, place.x + place.width + aside - x, place.y + place.height + above - y)


def _record(dataset: Dataset, options: Options, codes: tuple[tuple[str, str], ...]) -> None:
    """Write into the object what was done to it (PS3.3 C.7.1.1, C.12.1; PS3.15 E.1.1)."""
    dataset.PatientIdentityRemoved = "YES"
    dataset.DeidentificationMethod = _METHOD
    items = []
    for value, meaning in codes:
        item = Dataset()
        item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "DCM", meaning
        items.append(item)
    dataset[Tag("DeidentificationMethodCodeSequence")] = DataElement(Tag("DeidentificationMethodCodeSequence"), "SQ", Items(items))
    dataset.LongitudinalTemporalInformationModified = _DATES[options.dates]


def _meta(dataset: Dataset) -> FileMetaDataset:
    """Make file meta information anew: the old one names the application and the device that sent the object."""
    made = FileMetaDataset()
    made.MediaStorageSOPClassUID = dataset.get("SOPClassUID", "")
    if not dataset.get("SOPInstanceUID"):
        dataset.SOPInstanceUID = hashed_uid(b"none", "none")
    made.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    syntax = str(dataset.file_meta.TransferSyntaxUID)
    if syntax not in UID_dictionary:
        raise InvalidArgument("its transfer syntax is none of the standard's", reason="UNREADABLE_IMAGE")
    made.TransferSyntaxUID = syntax
    made.ImplementationClassUID, made.ImplementationVersionName = _IMPLEMENTATION, _VERSION
    return made
