"""``oteo deidentify`` as a person runs it: a folder in, a folder out, nothing written over, one document with ``--json``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pydicom
import pytest
from sequence_files import dicom, slices, write
from waiting import patient


def oteo(home: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "oteo.cli", "deidentify", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "OTEO_HOME": str(home)}, check=False, timeout=patient(40)
    )


@pytest.fixture
def scans(tmp_path) -> Path:
    for index, pixels in enumerate(slices(1, 3, dtype="uint16", top=4000)):
        write(tmp_path / f"scans/DOE/{index}.dcm", dicom(pixels, index, series="1.2.3", PatientSex="F", StudyDate="20200229"))
    written_on = np.zeros((200, 300), np.uint8)
    cv2.putText(written_on, "DOE JANE 1970", (20, 40), cv2.FONT_HERSHEY_SIMPLEX, 0.7, 255, 1)
    write(tmp_path / "scans/DOE/screen.dcm", dicom(written_on, 0, series="1.2.4", Modality="OT"))
    write(tmp_path / "scans/DOE/letter.txt", b"Dear Jane")
    return tmp_path / "scans"


def test_a_folder_goes_in_and_comes_out_without_names(tmp_path, scans):
    done = oteo(tmp_path / "home", scans, tmp_path / "out", "--retain-patient", "--dates", "modified", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["written"], report["patients"]) == (4, 1)
    assert [one["file"] for one in report["refused"]] == ["DOE/letter.txt"]
    assert {one["code"] for one in report["findings"]} == {"BURNED_IN_TEXT_SUSPECTED"}
    assert {code for code, _ in report["codes"]} == {"113100", "113107", "113108"}
    files = [pydicom.dcmread(path) for path in sorted((tmp_path / "out").rglob("*.dcm"))]
    assert {str(file.PatientSex) for file in files if "PatientSex" in file} == {"F"}
    assert {str(file.StudyDate) for file in files if "StudyDate" in file} & {"20200229"} == set()
    assert all(b"DOE" not in path.read_bytes() for path in (tmp_path / "out").rglob("*.dcm"))
    assert not [path for path in (tmp_path / "out").rglob("*") if "DOE" in path.name]
    assert (tmp_path / "home" / "deidentification.key").stat().st_mode & 0o077 == 0
    # The same key gives the same names again, in another folder.
    again = oteo(tmp_path / "home", scans / "DOE" / "0.dcm", tmp_path / "again", "--json")
    assert again.returncode == 0, again.stderr
    (one,) = (tmp_path / "again").rglob("*.dcm")
    assert one.name in {path.name for path in (tmp_path / "out").rglob("*.dcm")}


def test_text_is_painted_over_where_that_is_asked_for(tmp_path, scans):
    done = oteo(tmp_path / "home", scans / "DOE" / "screen.dcm", tmp_path / "out", "--blank-text", "--blank", "0,190,300,10")
    assert done.returncode == 0, done.stderr
    assert "1 files of 1 patients" in done.stdout
    (path,) = (tmp_path / "out").rglob("*.dcm")
    made = pydicom.dcmread(path)
    assert made.pixel_array.max() == 0
    assert made.BurnedInAnnotation == "NO"


@pytest.mark.parametrize(
    ("target", "options", "reason", "code"),
    [
        ("scans", [], "BAD_TARGET", 3),
        ("taken", [], "TARGET_NOT_EMPTY", 5),
        ("out", ["--blank", "1,2"], "DEIDENTIFICATION_FAILED", 3),
        ("out", ["--dates", "some"], "", 2),
    ],
)
def test_what_cannot_be_done_is_refused_and_nothing_is_written(tmp_path, scans, target, options, reason, code):
    write(tmp_path / "taken" / "mine.txt", b"mine")
    before = sorted(path for path in tmp_path.rglob("*"))
    done = oteo(tmp_path / "home", scans, tmp_path / target, *options)
    assert done.returncode == code, done.stderr
    assert reason in done.stderr
    assert [path for path in sorted(tmp_path.rglob("*")) if path not in before and "home" not in str(path)] == []
    assert oteo(tmp_path / "home", tmp_path / "nothing", tmp_path / "out").returncode == 4
    nothing_of_use = oteo(tmp_path / "home", tmp_path / "taken", tmp_path / "out")
    assert nothing_of_use.returncode == 3
    assert "NOTHING_WRITTEN" in nothing_of_use.stderr
