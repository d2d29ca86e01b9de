"""Stacks, volumes, series and clips: a sample for each frame, one set of parameters for all, nothing of a patient kept."""

from __future__ import annotations

import json
from collections import defaultdict

import cv2
import numpy as np
import pytest
from augment_runs import Kept, files, run
from export_tools import codes, export
from sequence_files import clip, dicom, nifti, slices, tiff, write

from oteo_augment.augmentation import AugmentationPlan
from oteo_augment.augmentation.preview import preview_sheet
from oteo_augment.augmentation.replay import replay
from oteo_augment.importing import Hooks, ImportOptions, Limits, SplitOptions, import_dataset, importer
from oteo_core.augmentation import Policy, Step, default_policy
from oteo_core.datasets import DatasetReader, Sample, sharding
from oteo_core.errors import InvalidArgument
from oteo_core.images import ImageLimits
from oteo_core.jobs.executor import ProcessExecutor

LIMITS = ImageLimits()
FLAT = SplitOptions(train=1, validation=0, test=0)


def frames(reader: DatasetReader, *, excluded: bool = False) -> dict[str, list[Sample]]:
    """Give the samples of each sequence, in order."""
    found: defaultdict[str, list[Sample]] = defaultdict(list)
    for sample in reader.samples(include_excluded=excluded):
        if sample.sequence:
            found[sample.sequence].append(sample)
    return {name: sorted(rows, key=lambda row: row.frame) for name, rows in sorted(found.items())}


def test_each_kind_of_file_becomes_a_sample_for_each_frame(tmp_path, import_source):
    a, b = slices(1), slices(2, dtype="uint16", top=4000)
    write(tmp_path / "in/round/a.tif", tiff(a))
    write(tmp_path / "in/round/b.nii.gz", nifti(b))
    for index, pixels in enumerate(slices(3, dtype="uint16", top=4000)):
        # Their names go the other way round than their places.
        write(tmp_path / f"in/long/series/{9 - index}.dcm", dicom(pixels, 2.5 * index, series="1.2.3"))
    clip(tmp_path / "in/long/c.avi", slices(4))
    clip(tmp_path / "in/long/d.mp4", slices(5), "mp4v")
    write(tmp_path / "in/long/still.tif", tiff(a[0]))
    made = import_source(tmp_path / "in", task="classification")
    found = frames(made.reader)
    kinds = {name.rsplit("-", 1)[0]: rows for name, rows in found.items()}
    assert set(kinds) == {"a", "b", "9", "c", "d"}
    for rows in kinds.values():
        assert [row.frame for row in rows] == list(range(6))
        assert {row.frames for row in rows} == {6}
        assert len({row.id for row in rows}) == 6
        assert len({(row.split, row.group) for row in rows}) == 1  # a stack is never torn between training and test
        assert all(row.group for row in rows)
    assert {name: rows[0].media_kind for name, rows in kinds.items()} == {
        "a": "stack", "b": "stack", "9": "stack", "c": "video", "d": "video",
    }  # fmt: skip
    for name, stack in (("a", a), ("b", b), ("9", slices(3, dtype="uint16", top=4000))):
        for row, pixels in zip(kinds[name], stack, strict=True):
            np.testing.assert_array_equal(made.reader.image(row).pixels[:, :, 0], pixels)
    for row, pixels in zip(kinds["c"], slices(4), strict=True):
        assert np.abs(made.reader.image(row).pixels[:, :, 0].astype(int) - pixels).mean() < 6  # JPEG
    assert kinds["b"][0].spacing == pytest.approx((0.5, 0.5, 2.0))
    assert kinds["9"][0].spacing == pytest.approx((0.5, 0.7, 2.5))
    assert (kinds["9"][0].bit_depth, kinds["a"][0].bit_depth) == (12, 8)
    assert kinds["a"][0].labels == ("round",)
    still = [sample for sample in made.reader.samples() if not sample.sequence]
    assert [(sample.source_path, sample.media_kind, sample.frames) for sample in still] == [("long/still.tif", "image", 1)]
    # Its pixels are those of a slice: the same picture twice is told, slices that look alike are not.
    assert "EXACT_DUPLICATE" in made.codes("long/still.tif")
    ids = {row.id: row.sequence for rows in kinds.values() for row in rows}
    assert not any(ids.get(other) == row.sequence for rows in kinds.values() for row in rows for f in row.findings for other in f.related)
    # The same frames have the same name wherever they lie, so that they are augmented alike.
    write(tmp_path / "again/x/moved/a.tif", tiff(a))
    write(tmp_path / "again/y/z.tif", tiff(slices(9)))
    again = frames(import_source(tmp_path / "again", name="again").reader)
    assert kinds["a"][0].sequence in again


def test_masks_go_with_their_frames(tmp_path, import_source):
    a, b = slices(1), slices(2)
    write(tmp_path / "in/images/a.tif", tiff(a))
    write(tmp_path / "in/masks/a.tif", tiff((a > 150).astype(np.uint8) * 3))
    clip(tmp_path / "in/images/b.avi", b)
    write(tmp_path / "in/masks/b.png", cv2.imencode(".png", (b[0] > 150).astype(np.uint8) * 3)[1].tobytes())
    write(tmp_path / "in/images/short.tif", tiff(slices(3)))
    write(tmp_path / "in/masks/short.tif", tiff(np.ones((4, 48, 48), np.uint8)))
    made = import_source(tmp_path / "in")
    found = {name.rsplit("-", 1)[0]: rows for name, rows in frames(made.reader).items()}
    assert set(found) == {"a", "b"}
    for row, pixels in zip(found["a"], a, strict=True):
        np.testing.assert_array_equal(made.reader.mask(row, LIMITS), (pixels > 150) * 3)
    for row in found["b"]:  # one mask for the whole clip
        np.testing.assert_array_equal(made.reader.mask(row, LIMITS), (b[0] > 150) * 3)
    left_out = [sample for sample in made.reader.samples(include_excluded=True) if sample.excluded]
    assert {sample.source_path for sample in left_out} == {"images/short.tif"}
    assert {f.code for sample in left_out for f in sample.findings} == {"MASK_FRAMES_MISMATCH"}


def test_volumes_of_the_decathlon_and_nnunet(tmp_path, import_source):
    for number in range(3):
        volume = slices(number, dtype="int16", top=900) - np.int16(300)
        write(tmp_path / f"in/imagesTr/case_{number}_0000.nii.gz", nifti(volume))
        write(tmp_path / f"in/labelsTr/case_{number}.nii.gz", nifti((volume > 300).astype(np.uint8)))
    made = import_source(tmp_path / "in")
    assert made.info.task == "semantic_segmentation"
    found = frames(made.reader)
    assert len(found) == 3
    for rows in found.values():
        assert {row.dtype for row in rows} == {"float32"}  # Hounsfield units are negative
        for row in rows:
            pixels = made.reader.image(row).pixels[:, :, 0]
            np.testing.assert_array_equal(made.reader.mask(row, LIMITS), pixels > 300)


def test_nothing_of_a_dicom_header_is_kept(tmp_path, import_source, store):
    secret = ("DOE", "JANE", "ID-", "19700131", "1.2.840.99")
    for person in range(3):
        for index, pixels in enumerate(slices(person, 4, dtype="int16", top=1500)):
            data = dicom(
                pixels, 3.0 * index, series=f"1.2.840.99.{person}", patient=f"DOE^JANE{person // 2}", Modality="CT",
                RescaleSlope=1, RescaleIntercept=-1024,
            )  # fmt: skip
            write(tmp_path / f"in/{'ab'[person % 2]}/p{person}/{index}.dcm", data)
    apart = SplitOptions(near_duplicate_distance=0)
    made = import_source(tmp_path / "in", split=apart)
    for entry in store.iter("datasets/made"):
        content = store.read_bytes(entry.path)
        assert not any(word.encode() in content for word in secret), entry.path
    rows = list(made.reader.samples())
    # Two people, under numbers; slices in Hounsfield units.
    assert {row.group for row in rows} == {"patient-0001", "patient-0002"}
    assert {row.source_path.split("/")[1]: row.group for row in rows}["p0"] == {row.source_path.split("/")[1]: row.group for row in rows}[
        "p1"
    ]
    assert {row.dtype for row in rows} == {"float32"}
    np.testing.assert_array_equal(
        made.reader.image(next(r for r in rows if r.source_path == "a/p0/2.dcm")).pixels[:, :, 0],
        slices(0, 4, dtype="int16", top=1500)[2].astype(np.float32) - 1024,
    )
    # A second import says the same, though its key is another.
    assert import_source(tmp_path / "in", split=apart, name="twice").info.digest == made.info.digest


def test_what_is_odd_about_a_series_is_told(tmp_path, import_source):
    stack = slices(1, 6, dtype="uint16", top=4000)
    places = [0, 2, 4, 4, 8, 10]
    for index, (pixels, place) in enumerate(zip(stack, places, strict=True)):
        write(tmp_path / f"in/a/{index}.dcm", dicom(pixels, place, series="1.5", BurnedInAnnotation="YES" if index == 5 else "NO"))
    bright = dicom(stack[0], 0, series="1.6", PhotometricInterpretation="MONOCHROME1")
    write(tmp_path / "in/b/inverse.dcm", bright)
    write(tmp_path / "in/b/cut.dcm", bright[: len(bright) // 2])
    write(tmp_path / "in/b/report.dcm", dicom(stack[0], 0, series="1.7", Modality="SR")[:0] + _without_pixels(bright))
    # A file without a name's ending is known by how it begins, where nothing else is there.
    made = import_source(tmp_path / "in")
    assert made.codes("a/3.dcm") == ["DUPLICATE_SLICE"]
    assert made.codes("a/4.dcm") == ["SLICE_GAP"]
    assert "BURNED_IN_TEXT_SUSPECTED" in made.codes("a/5.dcm")
    assert made.codes("b/cut.dcm") == ["TRUNCATED_IMAGE"]
    assert made.codes("b/report.dcm") == ["UNSUPPORTED_FORMAT"]
    np.testing.assert_array_equal(made.reader.image(made.samples["b/inverse.dcm"]).pixels[:, :, 0], 4095 - stack[0])


def _without_pixels(data: bytes) -> bytes:
    import io

    import pydicom

    made = pydicom.dcmread(io.BytesIO(data))
    del made.PixelData
    stream = io.BytesIO()
    made.save_as(stream)
    return stream.getvalue()


def test_dicom_files_without_an_ending_are_found(tmp_path, import_source):
    for index, pixels in enumerate(slices(1, 4, dtype="uint16", top=4000)):
        write(tmp_path / f"in/{'ab'[index % 2]}/IM{index:05}", dicom(pixels, index, series=f"1.{index}"))
    write(tmp_path / "in/README", b"x" * 200)
    assert made_count(import_source(tmp_path / "in")) == 4


def made_count(made) -> int:
    return made.info.sample_count


def test_a_clip_with_a_broken_frame_keeps_those_before_it(tmp_path, import_source):
    clip(tmp_path / "in/a/whole.avi", slices(1, 10))
    broken = bytearray(clip(tmp_path / "in/a/broken.avi", slices(2, 10)).read_bytes())
    starts = [i for i in range(len(broken) - 4) if broken[i : i + 3] == b"\xff\xd8\xff"]
    broken[starts[6] : starts[7] - 8] = bytes(starts[7] - 8 - starts[6])
    write(tmp_path / "in/a/broken.avi", bytes(broken))
    pages = tiff(slices(3, 5), metadata=None)
    write(tmp_path / "in/b/cut.tif", pages)
    write(tmp_path / "in/b/empty.mp4", b"\0\0\0\x18ftypisom" + b"\0" * 200)
    made = import_source(tmp_path / "in")
    found = {name.rsplit("-", 1)[0]: rows for name, rows in frames(made.reader).items()}
    assert len(found["whole"]) == 10
    assert 6 <= len(found["broken"]) < 10
    assert "BROKEN_FRAME" in [f.code for f in found["broken"][0].findings]
    assert made.samples["b/empty.mp4"].excluded


def test_files_of_one_stack_by_their_paths(tmp_path, import_source):
    for number, folder in ((7, "a"), (8, "b")):
        for index, pixels in enumerate(slices(number, 12)):
            write(tmp_path / f"in/{folder}/scan{number}_z{index}.png", cv2.imencode(".png", pixels)[1].tobytes())
    made = import_source(tmp_path / "in", split=SplitOptions(sequence_pattern=r"(scan\d+)_z"))
    found = frames(made.reader)
    assert len(found) == 2
    for rows in found.values():
        assert [row.source_path.rpartition("_z")[2] for row in rows] == [f"{number}.png" for number in range(12)]  # 10 after 9
        assert {row.media_kind for row in rows} == {"stack"}


@pytest.fixture
def stacks(tmp_path, import_source):
    for number in range(3):
        write(tmp_path / f"in/images/s{number}.tif", tiff(slices(number)))
        write(tmp_path / f"in/masks/s{number}.tif", tiff((slices(number) > 150).astype(np.uint8)))
    return import_source(tmp_path / "in", split=FLAT)


def test_all_frames_of_a_stack_are_moved_alike(stacks, store, monkeypatch):
    plan = AugmentationPlan(default_policy("semantic_segmentation"), copies=3, seed=5)
    _, new = run(store, plan, "more", source="made")
    made = {name: rows for name, rows in frames(new).items() if rows[0].derived_from}
    assert len(made) == 3 * 3
    drawn = set()
    for rows in made.values():
        assert [row.frame for row in rows] == list(range(6))
        words = [json.loads(row.provenance) for row in rows]
        # The same steps with the same numbers, whatever a frame shows.
        assert len({json.dumps(word["steps"], sort_keys=True) for word in words}) == 1
        drawn.add(json.dumps(words[0]["steps"]))
        assert len({row.group for row in rows}) == 1
        assert all(replay(store, "more", row.id, LIMITS).same for row in rows)
    assert len(drawn) == 9  # each copy of each stack is a draw of its own
    # However the frames are shared out.
    whole = files(store, "more")
    monkeypatch.setattr(sharding, "SHARD_WORK", 2)
    with ProcessExecutor(2) as executor:
        run(store, plan, "parts", source="made", executor=executor, kept=Kept())
    assert files(store, "parts") == whole
    sheet = preview_sheet(stacks.reader, plan.policy, samples=2, copies=2, seed=0, limits=LIMITS)
    assert sheet.shape[0] > 2 * 256


def test_a_blank_frame_is_drawn_as_its_neighbours_are(tmp_path, import_source, store):
    stack = slices(1)
    stack[2] = 0  # nothing that a mirror would change
    write(tmp_path / "in/a/s.tif", tiff(stack))
    write(tmp_path / "in/b/t.tif", tiff(slices(2)))
    import_source(tmp_path / "in", split=FLAT)
    _, new = run(
        store,
        AugmentationPlan(Policy((Step("HorizontalFlip", probability=0.3), Step("Affine", probability=0.3))), copies=6),
        "more",
        source="made",
    )
    for rows in frames(new).values():
        assert len({json.dumps(json.loads(row.provenance)["steps"]) for row in rows if row.provenance}) <= 1


def test_stacks_go_out_as_numbered_files_and_come_back(stacks, store, tmp_path, import_source):
    exported = export(store, "made", "masks", tmp_path / "out")
    assert "SEQUENCE_LOST" in codes(exported)
    assert sorted(path.name for path in (tmp_path / "out/images/train").iterdir())[:7] == [*(f"s0-{n}.png" for n in range(6)), "s1-0.png"]
    back = import_source(tmp_path / "out", name="back", split=SplitOptions(1, 0, 0, sequence_pattern=r"images/train/(s\d)-"))
    # Names of sequences come from what they show.
    assert {name.rpartition("-")[2] for name in frames(back.reader)} == {name.rpartition("-")[2] for name in frames(stacks.reader)}
    export(store, "made", "oteo", tmp_path / "own")
    own = import_source(tmp_path / "own", name="own")
    assert own.info.digest == stacks.info.digest
    assert frames(own.reader).keys() == frames(stacks.reader).keys()


def test_real_series(real_data, import_source):
    made = import_source(real_data / "dicom_dicom2nifti")
    assert (made.info.sample_count, made.info.excluded_count) == (98, 0)
    told = {code for path in made.samples for code in made.codes(path)}
    assert {"SLICE_GAP", "DUPLICATE_SLICE"} <= told
    assert {path.split("/")[1] for path in made.samples if "SLICE_GAP" in made.codes(path)} == {"sliceincrement"}
    assert {path.split("/")[1] for path in made.samples if "DUPLICATE_SLICE" in made.codes(path)} == {"notavolume"}
    (told,) = [f for f in made.samples["generic/compressed/001/IM-0001-0003-0001.dcm"].findings if f.code == "EXACT_DUPLICATE"]
    assert told.message.startswith("shows the same pixels as")  # its file is another
    # The same slices, compressed in five ways without loss, are the same pixels.
    compressed = [path for path in made.samples if path.startswith("generic/compressed") and path.endswith("0001-0001.dcm")]
    assert len({made.samples[path].pixel_digest for path in compressed}) == 1
    assert len(compressed) == 5


def test_odd_dicom_files_fail_one_by_one(real_data, import_source):
    made = import_source(real_data / "dicom_pydicom")
    assert made.info.sample_count > 100
    for path, sample in made.samples.items():
        if sample.excluded:
            assert made.codes(path)[0] in {"UNREADABLE_IMAGE", "UNSUPPORTED_FORMAT", "TRUNCATED_IMAGE"}, path
    assert made.codes("test_files/MR_truncated.dcm") == ["TRUNCATED_IMAGE"]
    assert made.codes("test_files/rtplan.dcm") == ["UNSUPPORTED_FORMAT"]
    assert made.samples["test_files/JPGExtended.dcm"].bit_depth == 12


def test_a_real_stack_of_slices(real_data, import_source, store):
    made = import_source(real_data / "isbi2012_em", split=SplitOptions(1, 0, 0, sequence_pattern="^(train)/image/"))
    ((_, rows),) = frames(made.reader).items()
    assert len(rows) == 30
    _, new = run(store, AugmentationPlan(default_policy("semantic_segmentation"), copies=1), "more", source="made")
    copies = [json.dumps(json.loads(row.provenance)["steps"]) for row in new.samples() if row.provenance]
    assert len(copies) == 30
    assert len(set(copies)) == 1


def test_labels_and_boxes_of_single_frames(tmp_path, import_source):
    clip(tmp_path / "csv/scope.avi", slices(1, 8))
    clip(tmp_path / "csv/other.avi", slices(2, 8))
    rows = [
        "file,frame,label",
        *(f"scope.avi,{n},{'polyp' if n < 3 else 'clear'}" for n in range(6)),
        "other.avi,,clear",
        "scope.avi,99,clear",
    ]
    write(tmp_path / "csv/labels.csv", "\n".join(rows).encode())
    made = import_source(tmp_path / "csv")
    found = {name.rsplit("-", 1)[0]: rows for name, rows in frames(made.reader).items()}
    assert [row.labels for row in found["scope"]] == [("polyp",)] * 3 + [("clear",)] * 3
    assert [row.labels for row in found["other"]] == [("clear",)] * 8  # of a whole clip
    assert "FRAMES_NOT_ANNOTATED" in [f.code for row in found["scope"] for f in row.findings]
    assert [f.code for s in made.reader.samples(include_excluded=True) if s.excluded for f in s.findings] == ["MISSING_IMAGE"]

    clip(tmp_path / "coco/scope.avi", slices(1, 4))
    images = [{"id": n, "file_name": "scope.avi", "frame_index": n, "width": 48, "height": 48} for n in range(4)]
    boxes = [{"id": n, "image_id": n, "category_id": 1, "bbox": [n, 2 * n, 20, 10]} for n in range(3)]
    write(tmp_path / "coco/a.json", json.dumps({"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "tip"}]}).encode())
    ((_, rows),) = frames(import_source(tmp_path / "coco", name="boxes").reader).items()
    assert [[(box.x, box.y) for box in row.boxes] for row in rows] == [[(n, 2 * n)] if n < 3 else [] for n in range(4)]


def test_stacks_go_out_as_stacks(stacks, store, tmp_path, import_source):
    exported = export(store, "made", "masks", tmp_path / "out", stacks=True)
    assert exported.sample_count == 18
    assert "SEQUENCE_LOST" not in codes(exported)
    assert sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.tif")) == [
        f"{kind}/train/s{number}.tif" for kind in ("images", "masks") for number in range(3)
    ]
    back = import_source(tmp_path / "out", name="back", split=FLAT)
    before, after = frames(stacks.reader), frames(back.reader)
    assert before.keys() == after.keys()
    for name, rows in before.items():
        for one, other in zip(rows, after[name], strict=True):
            assert one.pixel_digest == other.pixel_digest
            np.testing.assert_array_equal(stacks.reader.mask(one, LIMITS), back.reader.mask(other, LIMITS))
    # Twice the same bytes.
    export(store, "made", "masks", tmp_path / "twice", stacks=True)
    assert (tmp_path / "twice/images/train/s0.tif").read_bytes() == (tmp_path / "out/images/train/s0.tif").read_bytes()
    with pytest.raises(InvalidArgument) as refused:
        export(store, "made", "coco", tmp_path / "coco", stacks=True)
    assert (refused.value.reason, refused.value.field) == ("FORMAT_CANNOT_HOLD_STACKS", "stacks")


def test_clips_of_classes_go_out_as_stacks_and_still_images_as_they_are(tmp_path, import_source, store):
    clip(tmp_path / "in/polyp/a.avi", np.repeat(slices(1)[..., None], 3, axis=3))
    clip(tmp_path / "in/clear/b.avi", np.repeat(slices(2)[..., None], 3, axis=3))
    write(tmp_path / "in/clear/still.png", cv2.imencode(".png", slices(3)[0])[1].tobytes())
    rows = frames(import_source(tmp_path / "in", split=FLAT).reader)
    exported = export(store, "made", "class_folders", tmp_path / "out", stacks=True)
    assert exported.sample_count == 13
    assert sorted(path.name for path in (tmp_path / "out").rglob("*.*")) == ["a.tif", "b.tif", "still.png"]
    assert frames(import_source(tmp_path / "out", name="back", split=FLAT).reader).keys() == rows.keys()


def test_an_import_of_series_that_was_stopped_goes_on_with_the_same_groups(tmp_path, import_source, monkeypatch, store):
    for person in range(4):
        for index, pixels in enumerate(slices(person, 3, dtype="uint16", top=4000)):
            name = f"in/{'ab'[person % 2]}/p{person}/{index}.dcm"
            write(tmp_path / name, dicom(pixels, index, series=f"1.{person}", patient=f"P{person // 2}"))
    apart = SplitOptions(near_duplicate_distance=0)
    whole = import_source(tmp_path / "in", split=apart, name="whole")
    monkeypatch.setattr(importer, "SHARD", 5)
    kept: dict[str, bytes] = {}
    key = b"k" * 32

    def save(name: str, data: bytes) -> None:
        if sum(key.startswith("scan") for key in kept) == 1:
            raise KeyboardInterrupt
        kept[name] = data

    with pytest.raises(KeyboardInterrupt):
        import_source(tmp_path / "in", split=apart, name="parts", hooks=Hooks(save=save, key=lambda: key))
    # What was scanned before and what is scanned now is hashed under one key.
    options = ImportOptions("parts", str(tmp_path / "in"), split=apart, keep_names=True)
    import_dataset(
        options, store, "datasets/parts", limits=Limits(), hooks=Hooks(load=kept.get, save=lambda name, data: None, key=lambda: key)
    )
    parts = DatasetReader(store, "parts")
    assert {row.id: row.group for row in parts.samples()} == {row.id: row.group for row in whole.reader.samples()}
    assert parts.info.digest == whole.info.digest
    assert len({row.group for row in parts.samples()}) == 2


def test_copies_by_class_never_tear_a_clip(tmp_path, import_source, store):
    clip(tmp_path / "in/scope.avi", slices(1, 8))
    clip(tmp_path / "in/other.avi", slices(2, 8))
    rows = ["file,frame,label", *(f"scope.avi,{n},{'polyp' if n < 3 else 'clear'}" for n in range(8)), "other.avi,,clear"]
    write(tmp_path / "in/labels.csv", "\n".join(rows).encode())
    import_source(tmp_path / "in", split=FLAT)
    plan = AugmentationPlan(default_policy(), copies=1, copies_by_class={"polyp": 3, "clear": 0})
    _, new = run(store, plan, "more", source="made")
    made = {name: rows for name, rows in frames(new).items() if rows[0].derived_from}
    assert len(made) == 3
    assert all([row.frame for row in rows] == list(range(8)) and rows[0].source_path == "scope.avi" for rows in made.values())
    copy = next(iter(made.values()))[5]
    assert replay(store, "more", copy.id, LIMITS).same
