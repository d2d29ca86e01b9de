"""DICOM files in which everything that can hold a name holds a mark of its own, and the search for those marks in all that a system leaves."""

from __future__ import annotations

import base64
import binascii
import gzip
import hashlib
import io
import tarfile
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pydicom
from pydicom.datadict import DicomDictionary
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

MARK = "ZQXJ"
"""What every mark begins with; no word of ours, of the standard or of base64 of pixels is likely to have it."""
UID_MARK = "1.2.826.77099177"
_DATE = "19570203"
_NUMBER = "77777777777776"
_LONG = {"AE": 16, "CS": 16, "SH": 16, "LO": 60, "PN": 60, "ST": 60, "LT": 60, "UT": 60, "UC": 60, "UR": 60}
_STRUCTURE = frozenset(
    Tag(name)
    for name in (
        "SpecificCharacterSet", "SOPClassUID", "Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "BitsStored", "HighBit",
        "PixelRepresentation", "PixelData", "NumberOfFrames", "PlanarConfiguration",
    )
)  # fmt: skip
"""Elements without which there is no picture."""


@dataclass
class Canaries:
    """Marked files, and what must not be found of them."""

    files: dict[str, bytes]
    identities: tuple[str, ...]


def marked(number: int, size: int = 48) -> Dataset:
    """Give an object whose every textual element of the dictionary, private ones and a nested item bear marks."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = MRImageStorage, f"{UID_MARK}.{number}.1"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.SourceApplicationEntityTitle, meta.ImplementationVersionName = f"{MARK}AET{number}", f"{MARK}IV{number}"
    meta.ImplementationClassUID = f"{UID_MARK}.9.9"
    made = FileDataset("", {}, file_meta=meta, preamble=(f"{MARK}PREAMBLE{number}".encode() * 8)[:128].ljust(128, b"\0"))
    with pydicom.config.disable_value_validation():
        _mark(made, number)
        inner = Dataset()
        _mark(inner, number)
        made[Tag("RequestAttributesSequence")] = DataElement(Tag("RequestAttributesSequence"), "SQ", Items([inner]))
        for block in (0x0009, 0x0029):
            private = made.private_block(block, f"{MARK}CREATOR{number}", create=True)
            private.add_new(1, "LO", f"{MARK}PRIVATE{number}")
            private.add_new(2, "OB", f"{MARK}BYTES{number} ".encode().ljust(32))
    made.SOPClassUID, made.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    made.SpecificCharacterSet = "ISO_IR 192"
    made.Modality = "MR"
    made.PatientBirthDate = _DATE
    for name in ("PatientID", "PatientName"):
        setattr(made, name, f"{MARK}{name}{number // 2}")
    noise = np.random.default_rng(number).integers(0, 4000, (size, size), dtype=np.uint16)
    made.Rows, made.Columns, made.SamplesPerPixel, made.PhotometricInterpretation = size, size, 1, "MONOCHROME2"
    made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 16, 12, 11, 0
    made.PixelData = noise.tobytes()
    for name in ("ImageOrientationPatient", "ImagePositionPatient", "PixelSpacing", "RescaleSlope", "RescaleIntercept", "PatientAge"):
        if name in made:
            delattr(made, name)
    return made


def _mark(dataset: Dataset, number: int) -> None:
    for count, (tag, (kind, _, _, retired, keyword)) in enumerate(sorted(DicomDictionary.items())):
        if retired or Tag(tag) in _STRUCTURE or tag >> 16 in (0x0000, 0x0002, 0xFFFE) or not keyword:
            continue
        if kind in _LONG:
            value = f"{MARK}{count:05}N{number}"[: _LONG[kind]]
        elif kind == "UI":
            value = f"{UID_MARK}.{number}.{count}"
        elif kind == "DA":
            value = _DATE
        else:
            continue
        dataset[tag] = DataElement(tag, kind, value)


def written(dataset: Dataset) -> bytes:
    """Give an object as a file."""
    stream = io.BytesIO()
    with pydicom.config.disable_value_validation():
        dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def broken(number: int) -> Iterator[tuple[str, bytes]]:
    """Give marked files that cannot be read, each for another reason; marks stand where a parser would cite them."""
    whole = written(marked(number))
    pixels = whole.index(np.random.default_rng(number).integers(0, 4000, (48, 48), dtype=np.uint16).tobytes()[:64])
    yield "cut-header", whole[: pixels // 2]
    yield "cut-pixels", whole[: pixels + 100]
    for name, tag, kind in (
        ("rows", "Rows", "LO"), ("frames", "NumberOfFrames", "IS"), ("bits", "BitsAllocated", "LO"), ("colours", "PhotometricInterpretation", "CS"),
        ("slope", "RescaleSlope", "DS"), ("spacing", "PixelSpacing", "DS"), ("charset", "SpecificCharacterSet", "CS"), ("samples", "SamplesPerPixel", "LO"),
        ("lookup", "ModalityLUTSequence", "LO"),
    ):  # fmt: skip
        made = marked(number)
        with pydicom.config.disable_value_validation():
            # No library writes a number that is none: the mark is put into the file itself.
            made[Tag(tag)] = DataElement(Tag(tag), kind, _NUMBER if kind in ("DS", "IS") else f"{MARK}BAD{number}")
            if name == "slope":
                made.RescaleIntercept = "0"
        data = written(made).replace(_NUMBER.encode(), f"{MARK}BAD{number}".encode().ljust(len(_NUMBER)))
        assert MARK.encode() + b"BAD" in data
        yield f"bad-{name}", data
    syntax = f"{UID_MARK}.5".encode()
    yield "bad-syntax", written(marked(number)).replace(b"1.2.840.10008.1.2.1\0", syntax[:20].ljust(20, b"\0"), 1)
    made = marked(number)
    del made.PixelData
    made.SOPClassUID, made.Modality = f"{UID_MARK}.6", f"{MARK}MOD"
    yield "no-picture", written(made)


def canaries(count: int = 12) -> Canaries:
    """Give a set in class folders: files of marked names in marked folders, whole ones and broken ones, and a note beside them."""
    files: dict[str, bytes] = {}
    identities: list[str] = []
    for number in range(count):
        made = marked(number)
        files[f"{'ab'[number // 2 % 2]}/{MARK}FOLDER{number // 2}^JANE/{MARK}FILE {number}.dcm"] = written(made)
        identities += [str(made.PatientID), str(made.PatientName), str(made.SeriesInstanceUID), str(made.StudyInstanceUID)]
    for number, (name, data) in enumerate(broken(90)):
        files[f"{'ab'[number % 2]}/{MARK}BROKEN{number}_{name}.dcm"] = data
    files[f"b/{MARK}REPORT.pdf"] = f"{MARK}".encode()
    return Canaries(files, tuple(dict.fromkeys(identities)))


def write_files(folder: Path, files: dict[str, bytes]) -> Path:
    """Write a set below a folder."""
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def forms(identities: Iterable[str] = ()) -> dict[str, bytes]:
    """Give what to look for: the mark in the codes in which text travels, and unkeyed hashes of what identifies."""
    found = {}
    for word in (MARK, UID_MARK, _DATE):
        found[word] = word.encode()
        found[f"{word} as UTF-16"] = word.encode("utf-16-le")
        found[f"{word} in hexadecimal"] = binascii.hexlify(word.encode())
        for shift in range(3):
            # Where it stands among its neighbours decides how base64 writes it: the part that is its own whatever stands beside it.
            coded = base64.b64encode(b"\0" * shift + word.encode())
            start = (shift * 8 + 5) // 6
            found[f"{word} in base64 ({shift})"] = coded[start : (shift + len(word)) * 8 // 6]
    found |= {f"{MARK} in lower case": MARK.lower().encode()}
    for value in identities:
        for name in ("md5", "sha1", "sha256"):
            digest = hashlib.new(name, value.encode(), usedforsecurity=False)
            found[f"{name} of {value}"] = digest.hexdigest()[:24].encode()
            found[f"{name} of {value} in base64"] = base64.b64encode(digest.digest())[:24]
    return {name: form for name, form in found.items() if len(form) >= 4}


def found_in(data: bytes, wanted: dict[str, bytes]) -> list[str]:
    """Name what is found in bytes."""
    return [name for name, form in wanted.items() if form in data]


def search(roots: Sequence[Path], wanted: dict[str, bytes]) -> dict[str, list[str]]:
    """Look through all files below folders, into tables and archives, and at their names; give what was found where."""
    found: dict[str, list[str]] = {}
    looked = 0
    for root in roots:
        for path in sorted(root.rglob("*")):
            # The name below the root: the root's own is the test's.
            name = path.relative_to(root).as_posix()
            for place, data in [(f"name {name}", name.encode()), *(_layers(name, path.read_bytes()) if path.is_file() else ())]:
                looked += 1
                if hits := found_in(data, wanted):
                    found[f"{root.name}: {place}"] = hits
    assert looked, "nothing was looked at"
    return found


def _layers(name: str, data: bytes) -> Iterator[tuple[str, bytes]]:
    """Give a file's bytes as they are, and what they are packed from."""
    yield name, data
    if data[:4] == b"PAR1":
        table = pq.read_table(io.BytesIO(data))
        yield f"{name} (table)", repr(table.to_pylist()).encode() + repr(table.schema.metadata).encode()
    elif data[:4] == b"\xff\xff\xff\xff":
        table = pa.ipc.open_stream(data).read_all()
        yield f"{name} (table)", repr(table.to_pylist()).encode()
    elif data[:2] == b"PK":
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for member in archive.namelist():
                yield f"{name} (name)", member.encode()
                yield from _layers(f"{name}/{member}", archive.read(member))
    elif data[:2] == b"\x1f\x8b":
        yield from _layers(f"{name} (gzip)", gzip.decompress(data))
    elif data[257:262] == b"ustar":
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            for member in archive.getmembers():
                yield f"{name} (name)", member.name.encode()
                stream: Any = archive.extractfile(member)
                if stream is not None:
                    yield from _layers(f"{name}/{member.name}", stream.read())
