"""Files and folders of DICOM, de-identified into a new folder."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from oteo_core.deidentification.deidentify import Deidentified, deidentify
from oteo_core.deidentification.options import Options
from oteo_core.errors import AlreadyExists, InvalidArgument, NotFound

_NOBODY = "unnamed"


@dataclass
class Report:
    """What became of a folder.

    Parameters
    ----------
    written
        Files that were written.
    method, codes
        How, as it stands in each file.
    refused
        Files that were not: path, reason, message.
    findings
        What somebody should look at, by the path of the new file inside the target: code and message.
    counts
        How many elements had which action, over all files.
    patients
        How many there are.
    """

    written: int = 0
    method: str = ""
    codes: tuple[tuple[str, str], ...] = ()
    refused: list[tuple[str, str, str]] = field(default_factory=list)
    findings: list[tuple[str, str, str]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    patients: int = 0


def deidentify_folder(
    source: Path, target: Path, key: bytes, options: Options, progress: Callable[[int, int], None] = lambda done, total: None
) -> Report:
    """De-identify a file or all files below a folder.

    New files lie at ``PATIENT/SERIES/OBJECT.dcm`` by their new names: names of files and folders often tell the patient, so none is taken over.
    What is no DICOM is not copied, but reported.

    Parameters
    ----------
    source
        A file or a folder; it is only read.
    target
        A folder that does not exist, or is empty.
    key
        Of all hashes.
    options
        What is kept beside the Basic Profile.
    progress
        Takes the files done and all files.

    Raises
    ------
    NotFound
        SOURCE_NOT_FOUND.
    InvalidArgument
        EMPTY_SOURCE; BAD_TARGET: the target lies inside the source.
    AlreadyExists
        TARGET_NOT_EMPTY.
    """
    files = _files(source)
    resolved = target.resolve()
    if source.is_dir() and resolved.is_relative_to(source.resolve()):
        raise InvalidArgument(f"{target} lies inside {source}: name a folder beside it", reason="BAD_TARGET", field="target")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise AlreadyExists(
            f"{target} is there and not empty; nothing is written over: name a new folder", reason="TARGET_NOT_EMPTY", field="target"
        )
    report, patients = Report(), set[str]()
    for done, path in enumerate(files, 1):
        shown = path.name if path == source else path.relative_to(source).as_posix()
        try:
            made = deidentify(path.read_bytes(), key, options)
        except InvalidArgument as exc:
            report.refused.append((shown, exc.reason, exc.message))
        except OSError as exc:
            report.refused.append((shown, "UNREADABLE_FILE", exc.strerror or type(exc).__name__))
        else:
            place = _write(target, made)
            report.written += 1
            report.method, report.codes = made.method, made.codes
            report.counts.update(made.counts)
            report.findings += [(place, one.code, one.message) for one in made.findings]
            patients.add(made.patient)
        progress(done, len(files))
    report.patients = len(patients)
    return report


def _files(source: Path) -> list[Path]:
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise NotFound(f"there is nothing at {source}", reason="SOURCE_NOT_FOUND", field="source")
    files = sorted(_walk(source))
    if not files:
        raise InvalidArgument(f"there is no file in {source}", reason="EMPTY_SOURCE", field="source")
    return files


def _walk(folder: Path) -> Iterator[Path]:
    for base, _, names in os.walk(folder):
        yield from (Path(base) / name for name in names)


def _write(target: Path, made: Deidentified) -> str:
    """Write a new file whole or not at all; give its path inside the target."""
    folder = target / (made.patient or _NOBODY) / (made.series_uid or _NOBODY)
    folder.mkdir(parents=True, exist_ok=True)
    number, path = 1, folder / f"{made.sop_instance_uid}.dcm"
    while path.exists():  # the same object twice in the source, or two of one name
        number += 1
        path = folder / f"{made.sop_instance_uid}-{number}.dcm"
    descriptor, name = tempfile.mkstemp(dir=folder, prefix=".part-")
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(made.data)
    os.replace(name, path)
    return path.relative_to(target).as_posix()
