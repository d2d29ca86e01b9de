"""De-identification by PS3.15 Annex E: what goes, what stays, what stands in its place, and that the result is still DICOM."""

from __future__ import annotations

import io
import shutil
import stat
import subprocess

import numpy as np
import pydicom
import pytest
from canaries import MARK, UID_MARK, broken, forms, found_in, marked, written
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.tag import Tag
from pydicom.uid import JPEG2000Lossless, MRImageStorage, SecondaryCaptureImageStorage
from sequence_files import dicom, slices

from oteo_core.deidentification.burned_in import BURNED_IN_TEXT, RECOGNISABLE, suspect_header
from oteo_core.deidentification.deidentify import Deidentified, deidentify
from oteo_core.deidentification.folders import deidentify_folder
from oteo_core.deidentification.keys import hashed_uid, load_key
from oteo_core.deidentification.options import Options, Rectangle
from oteo_core.deidentification.table import table
from oteo_core.errors import AlreadyExists, FailedPrecondition, InvalidArgument

KEY = b"a key of tests, 32 characters!!!"
PICTURE = slices(1, 1, dtype="uint16", top=4000)[0]


def read(made: Deidentified) -> Dataset:
    return pydicom.dcmread(io.BytesIO(made.data))


def plain(**tags: object) -> bytes:
    return dicom(PICTURE, 1.0, series="1.2.3.4", **tags)


def test_every_attribute_of_the_table_loses_its_mark_at_every_depth():
    data = written(marked(3))
    made = read(deidentify(data, KEY))
    nested = made.RequestAttributesSequence if "RequestAttributesSequence" in made else []
    for tag, rule in table().rules.items():
        for place in (made, *nested):
            if tag in place and rule.basic != "K":
                text = str(place[tag].value)
                assert MARK not in text, tag
                assert UID_MARK not in text, tag
    assert "19570203" not in str(made)
    assert made.preamble == b"\0" * 128
    assert MARK not in str(made.file_meta)
    assert UID_MARK not in str(made.file_meta)
    assert not [element for element in made if element.tag.is_private]


def test_what_is_written_says_how_it_was_made_and_is_read_by_others(tmp_path):
    made = deidentify(plain(BurnedInAnnotation="NO"), KEY)
    result = read(made)
    assert result.PatientIdentityRemoved == "YES"
    assert result.DeidentificationMethod == made.method
    assert "HMAC" in made.method
    assert [(c.CodeValue, c.CodingSchemeDesignator) for c in result.DeidentificationMethodCodeSequence] == [("113100", "DCM")]
    assert result.LongitudinalTemporalInformationModified == "REMOVED"
    assert result.file_meta.MediaStorageSOPInstanceUID == result.SOPInstanceUID == made.sop_instance_uid
    assert result.SOPInstanceUID.startswith("2.25.")
    np.testing.assert_array_equal(result.pixel_array, PICTURE)
    if shutil.which("dcmdump") is None:
        pytest.skip("dcmtk is not installed: dcmdump reads what was written where it is")
    path = tmp_path / "made.dcm"
    path.write_bytes(made.data)
    assert subprocess.run(["dcmdump", "-q", str(path)], capture_output=True, check=False).returncode == 0


def test_one_key_ties_files_together_and_another_does_not():
    first, second = plain(), plain(InstanceNumber=2)
    one, two = read(deidentify(first, KEY)), read(deidentify(second, KEY))
    assert (one.PatientID, one.PatientName, one.SeriesInstanceUID) == (two.PatientID, two.PatientName, two.SeriesInstanceUID)
    assert one.SOPInstanceUID != two.SOPInstanceUID
    other = read(deidentify(first, b"another key of tests, 32 letters"))
    assert (other.PatientID, other.SeriesInstanceUID) != (one.PatientID, one.SeriesInstanceUID)
    assert read(deidentify(plain(patient="ROE^RICHARD"), KEY)).PatientID != one.PatientID
    assert hashed_uid(KEY, MRImageStorage) == MRImageStorage  # the standard's own names say nothing of anybody


def test_references_point_to_the_new_names():
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = MRImageStorage, "1.2.9.9"
    holder = Dataset()
    holder.ReferencedSeriesSequence = Items([item])
    data = plain(SOPInstanceUID="1.2.9.9", ReferencedSeriesSequence=Items([item]))
    made = read(deidentify(data, KEY))
    assert made.ReferencedSeriesSequence[0].ReferencedSOPInstanceUID == made.SOPInstanceUID
    assert made.ReferencedSeriesSequence[0].ReferencedSOPClassUID == MRImageStorage


@pytest.mark.parametrize(
    ("options", "kept", "code"),
    [
        (Options(retain_uids=True), {"SeriesInstanceUID": "1.2.3.4", "FrameOfReferenceUID": "1.2.5"}, "113110"),
        (Options(dates="full"), {"StudyDate": "20200229", "StudyTime": "101112"}, "113106"),
        (Options(retain_device=True), {"DeviceSerialNumber": "SN-12", "StationName": "CT1"}, "113109"),
        (Options(retain_institution=True), {"InstitutionName": "St Elsewhere"}, "113112"),
        (Options(retain_patient=True), {"PatientSex": "F", "PatientAge": "090Y"}, "113108"),
        (Options(clean_descriptors=True), {"StudyDescription": "CT chest with contrast"}, "113105"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_option_keeps_its_own_and_nothing_else(options, kept, code):
    data = plain(
        FrameOfReferenceUID="1.2.5", StudyDate="20200229", StudyTime="101112", DeviceSerialNumber="SN-12", StationName="CT1",
        InstitutionName="St Elsewhere", PatientSex="F", PatientAge="097Y", StudyDescription="CT chest Jane Doe 4711 with contrast Zebulon",
    )  # fmt: skip
    bare, made = read(deidentify(data, KEY)), read(deidentify(data, KEY, options))
    assert all(str(made[name].value) == value for name, value in kept.items())
    assert all(str(bare.get(name, "")) != value for name, value in kept.items())
    assert code in {item.CodeValue for item in made.DeidentificationMethodCodeSequence}
    assert "Doe" not in str(made.get("StudyDescription", ""))
    others = {"StudyDate", "InstitutionName", "DeviceSerialNumber", "SeriesInstanceUID", "PatientAge"} - kept.keys()
    assert all(str(made.get(name, "")) == str(bare.get(name, "")) for name in others)


def test_dates_move_by_one_number_of_days_for_a_patient():
    def dates(day: str, patient: str = "DOE^JANE") -> tuple[str, str]:
        made = read(
            deidentify(plain(patient=patient, StudyDate=day, AcquisitionDateTime=f"{day}101112.5+0100"), KEY, Options(dates="modified"))
        )
        assert made.LongitudinalTemporalInformationModified == "MODIFIED"
        return str(made.StudyDate), str(made.AcquisitionDateTime)

    days = [np.datetime64(f"{date[:4]}-{date[4:6]}-{date[6:]}") for date in (dates("20200229")[0], dates("20200310")[0])]
    assert days[1] - days[0] == np.timedelta64(10, "D")
    assert dates("20200229")[0] != "20200229"
    assert dates("20200229")[1] == f"{dates('20200229')[0]}101112.5+0100"
    assert dates("20200229", "ROE^RICHARD") != dates("20200229")


def test_values_that_are_not_of_their_kind_do_not_pass():
    data = marked(5)
    with pydicom.config.disable_value_validation():
        data[Tag("Rows")] = DataElement(Tag("Rows"), "LO", f"{MARK}ROWS")
        data[Tag("PatientSex")] = DataElement(Tag("PatientSex"), "LO", f"{MARK} jane")
        data[Tag("PatientAge")] = DataElement(Tag("PatientAge"), "LO", f"{MARK} age")
        data[Tag("StudyInstanceUID")] = DataElement(Tag("StudyInstanceUID"), "LO", f"{MARK}UID")
        data[Tag("EchoTime")] = DataElement(Tag("EchoTime"), "LO", f"{MARK}ECHO")
        # Not in the standard's dictionary, and not private.
        data[Tag(0x0018FF00)] = DataElement(Tag(0x0018FF00), "LO", f"{MARK}UNKNOWN")
    made = read(deidentify(written(data), KEY, Options(retain_patient=True, retain_uids=True, dates="full", retain_device=True)))
    for name in ("Rows", "PatientSex", "PatientAge", "StudyInstanceUID", "EchoTime"):
        assert MARK not in str(made.get(name, "")), name
    assert 0x0018FF00 not in made


def test_reports_overlays_and_curves():
    content = Dataset()
    content.ValueType, content.TextValue = "TEXT", "Jane Doe was seen"
    drawn = pydicom.dcmread(io.BytesIO(plain(ContentSequence=Items([content]), IconImageSequence=Items([content]))))
    for element, kind, value in ((0x10, "US", 48), (0x11, "US", 48), (0x22, "LO", "Jane"), (0x3000, "OB", b"\1" * 288)):
        drawn.add_new((0x6000, element), kind, value)
    data = written(drawn)
    assert b"Jane" in data
    made = deidentify(data, KEY)
    assert b"Jane" not in made.data
    assert read(made).ContentSequence[0].TextValue == "REMOVED"
    assert not [element.tag for element in read(made) if 0x5000 <= element.tag.group <= 0x60FF]
    assert "IconImageSequence" not in read(made)


def test_a_part_of_every_frame_is_painted_over_and_the_file_says_so():
    stack = slices(2, 3, dtype="uint16", top=4000)
    made = deidentify(dicom(stack, 0, series="1.2", BurnedInAnnotation="YES"), KEY, Options(blank=(Rectangle(4, 6, 20, 10),)))
    result = read(made)
    expected = stack.copy()
    expected[:, 6:16, 4:24] = stack.min()
    np.testing.assert_array_equal(result.pixel_array, expected)
    assert "113101" in {item.CodeValue for item in result.DeidentificationMethodCodeSequence}
    packed = pydicom.dcmread(io.BytesIO(plain()))
    from oteo_core.images.sequences import dicom_codecs

    dicom_codecs.register()
    import imagecodecs

    packed.PixelData = pydicom.encaps.encapsulate([imagecodecs.jpeg2k_encode(PICTURE, reversible=True, codecformat="J2K")])
    packed["PixelData"].VR = "OB"
    packed.file_meta.TransferSyntaxUID = JPEG2000Lossless
    stream = io.BytesIO()
    packed.save_as(stream)
    opened = read(deidentify(stream.getvalue(), KEY, Options(blank=(Rectangle(0, 0, 48, 4),))))
    assert opened.pixel_array[:4].max() == PICTURE.min()
    np.testing.assert_array_equal(opened.pixel_array[4:], PICTURE[4:])


def test_bytes_behind_the_last_pixel_are_cut_off():
    hidden = pydicom.dcmread(io.BytesIO(plain()))
    hidden.PixelData = hidden.PixelData + b"Jane Doe"
    stream = io.BytesIO()
    hidden.save_as(stream)
    assert b"Jane Doe" in stream.getvalue()
    assert b"Jane Doe" not in deidentify(stream.getvalue(), KEY).data


@pytest.mark.parametrize(
    ("tags", "codes"),
    [
        ({"BurnedInAnnotation": "YES"}, [BURNED_IN_TEXT]),
        ({"Modality": "US"}, [BURNED_IN_TEXT]),
        ({"Modality": "US", "BurnedInAnnotation": "NO"}, []),
        ({"SOPClassUID": SecondaryCaptureImageStorage}, [BURNED_IN_TEXT]),
        ({"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}, [BURNED_IN_TEXT]),
        ({"RecognizableVisualFeatures": "YES"}, [RECOGNISABLE]),
        ({}, []),
    ],
)
def test_headers_give_reason_to_look(tags, codes):
    assert [one.code for one in suspect_header(plain(**tags))] == codes
    assert suspect_header(b"no dicom at all") == ()


def test_broken_files_are_refused_without_a_word_of_theirs():
    wanted = forms()
    refused = 0
    for name, data in broken(7):
        try:
            made = deidentify(data, KEY)
        except InvalidArgument as exc:
            refused += 1
            chain = f"{exc.message} {exc.__cause__} {exc.metadata}"
            assert found_in(chain.encode(), wanted) == [], name
        else:
            assert not [one for one in made.findings if found_in(one.message.encode(), wanted)], name
    assert refused >= 1
    for data in (b"", b"x" * 200, b"\x89PNG\r\n\x1a\n" + b"\0" * 200):
        with pytest.raises(InvalidArgument) as caught:
            deidentify(data, KEY)
        assert caught.value.reason == "UNREADABLE_IMAGE"


def test_the_key_is_made_once_for_its_owner_alone(tmp_path):
    path = tmp_path / "home" / "deidentification.key"
    key = load_key(path)
    assert load_key(path) == key
    assert len(key) >= 32
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.write_text("short")
    with pytest.raises(FailedPrecondition) as caught:
        load_key(path)
    assert caught.value.reason == "BAD_DEIDENTIFICATION_KEY"
    assert "short" not in caught.value.message


def test_a_folder_is_written_under_new_names_and_nothing_is_written_over(tmp_path):
    source = tmp_path / "DOE^JANE"
    source.mkdir()
    for index in range(3):
        (source / f"JANE {index}.dcm").write_bytes(plain(InstanceNumber=index))
    (source / "letter.txt").write_text("Dear Jane")
    report = deidentify_folder(source, tmp_path / "out", KEY, Options())
    files = [path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert (report.written, report.patients, len(files)) == (3, 1, 3)
    assert [(file, reason) for file, reason, _ in report.refused] == [("letter.txt", "UNREADABLE_IMAGE")]
    assert not [name for name in files if "JANE" in name or not name.startswith("OTEO-")]
    with pytest.raises(AlreadyExists):
        deidentify_folder(source, tmp_path / "out", KEY, Options())
    with pytest.raises(InvalidArgument) as caught:
        deidentify_folder(source, source / "out", KEY, Options())
    assert caught.value.reason == "BAD_TARGET"


def test_real_files_come_out_as_they_went_in_but_for_names(real_data):
    files = [path for path in sorted((real_data / "dicom_dicom2nifti").rglob("*")) if path.is_file()][::6]
    compared = 0
    for path in files:
        try:
            before = pydicom.dcmread(path)
            made = deidentify(path.read_bytes(), KEY)
        except (InvalidArgument, pydicom.errors.InvalidDicomError):
            continue
        after = read(made)
        assert after.PixelData == before.PixelData
        assert str(after.SOPInstanceUID) != str(before.SOPInstanceUID)
        compared += 1
    assert compared > 5
