"""Masks in colour with a list of what colours are, and masks of one object a file: in and out."""

from __future__ import annotations

import shutil

import cv2
import numpy as np
import PIL.Image
import pytest
from export_tools import by_pixels, codes, export
from import_sources import write_picture

from oteo_core.artifacts import ArtifactStore
from oteo_core.datasets import MaskEncoding
from oteo_core.errors import InvalidArgument
from oteo_core.images import decode_labels

RED, GREEN, BORDER = (200, 0, 0), (0, 180, 10), (224, 224, 192)
LABELMAP = "# label:color_rgb:parts:actions\nbackground:0,0,0::\nnucleus:200,0,0::\nbody: of it:0,180,10::\nnever:1,2,3::\n"
CLASS_DICT = 'name, r, g, b\nnucleus, 200, 0, 0\n"body: of it",0,180,10\nVoid,0,0,0\nnever,1,2,3\n'


def painted(index, *, border=False, foreign=0):
    picture = np.zeros((48, 64, 3), np.uint8)
    picture[5:30, 5 : 30 + index] = GREEN
    picture[10:20, 10:20] = RED
    if border:
        picture[4, 5:30] = BORDER
    picture[40, :foreign] = (9, 9, 9)
    return picture


def numbers(index, *, border=False):
    labels = np.zeros((48, 64), np.uint8)
    labels[5:30, 5 : 30 + index], labels[10:20, 10:20] = 2, 1
    if border:
        labels[4, 5:30] = 255
    return labels


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), pixels[:, :, ::-1] if pixels.ndim == 3 else pixels)


def mask_of(made, path):
    return decode_labels(made.reader.read_mask(made.samples[path]))


def test_cvats_folders_of_colours_become_numbers(tmp_path, import_source):
    for index in range(6):
        write_picture(tmp_path / "JPEGImages" / f"{index}.png", index)
        save(tmp_path / "SegmentationClass" / f"{index}.png", painted(index, border=index == 1, foreign=7 if index == 2 else 0))
        save(tmp_path / "SegmentationObject" / f"{index}.png", painted(index))
    (tmp_path / "ImageSets" / "Segmentation").mkdir(parents=True)
    for name, members in (("train", "0\n1\n2\n3\n"), ("val", "4\n"), ("test", "5\n")):
        (tmp_path / "ImageSets" / "Segmentation" / f"{name}.txt").write_text(members)
    (tmp_path / "labelmap.txt").write_text(LABELMAP)
    made = import_source(tmp_path)
    assert (made.info.source_format, made.info.task) == ("color_masks", "semantic_segmentation")
    assert made.info.classes == ("nucleus", "body: of it", "never")
    assert made.info.mask == MaskEncoding("class", (1, 2, 3), (255,))
    for index in (0, 1, 3, 4, 5):
        assert (mask_of(made, f"JPEGImages/{index}.png") == numbers(index, border=index == 1)).all()
    assert made.samples["JPEGImages/4.png"].split == "validation"
    assert made.samples["JPEGImages/0.png"].labels == ("nucleus", "body: of it")
    foreign = made.samples["JPEGImages/2.png"]
    assert made.codes("JPEGImages/2.png") == ["UNKNOWN_COLOR"]
    assert "(9, 9, 9) (7 pixels)" in foreign.findings[0].message
    assert int((mask_of(made, "JPEGImages/2.png") == 255).sum()) == 7


def test_camvids_form_and_palettes_are_read(tmp_path, import_source):
    for part, first in (("train", 0), ("val", 10), ("test", 20)):
        for index in range(3):
            write_picture(tmp_path / part / f"{index}.png", first + index)
            picture = PIL.Image.fromarray(painted(first + index)).quantize(8) if index else PIL.Image.fromarray(painted(first + index))
            (tmp_path / f"{part}_labels").mkdir(exist_ok=True)
            picture.save(tmp_path / f"{part}_labels" / f"{index}_L.png")
    (tmp_path / "class_dict.csv").write_text(CLASS_DICT)
    made = import_source(tmp_path)
    assert (made.info.source_format, made.info.classes) == ("color_masks", ("nucleus", "body: of it", "never"))
    assert made.info.sample_count == 9
    for part, first in (("train", 0), ("val", 10), ("test", 20)):
        for index in range(3):
            assert (mask_of(made, f"{part}/{index}.png") == numbers(first + index)).all()
            assert not made.codes(f"{part}/{index}.png")
    assert {s.split for s in made.samples.values()} == {"train", "validation", "test"}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a:1,2,3::\nb:1,2,3::\nnucleus:200,0,0::\n", "two classes"),
        ("nucleus:200,0,0::\n" + "".join(f"c{i}:1,3,{i}::\n" for i in range(254)), "254"),
    ],
)
def test_a_list_that_cannot_be_meant_is_refused(text, why, tmp_path, import_source):
    write_picture(tmp_path / "images" / "0.png", 0)
    save(tmp_path / "masks" / "0.png", painted(0))
    (tmp_path / "labelmap.txt").write_text(text)
    with pytest.raises(InvalidArgument, match=why) as refused:
        import_source(tmp_path)
    assert refused.value.reason == "BAD_ANNOTATION_FILE"


def test_colour_without_a_list_says_what_is_missing(tmp_path, import_source):
    for index in range(3):
        write_picture(tmp_path / "images" / f"{index}.png", index)
        save(tmp_path / "masks" / f"{index}.png", painted(index) if index else numbers(index))
    made = import_source(tmp_path, task="semantic_segmentation")
    assert made.codes("images/1.png") == ["MASK_NOT_GREY"]
    assert "labelmap.txt" in made.samples["images/1.png"].findings[0].message


def test_masks_in_colour_go_out_and_come_back(tmp_path, import_source, store):
    for part, first in (("train", 0), ("val", 10), ("test", 20)):
        for index in range(first, first + 3):
            write_picture(tmp_path / "in" / "images" / part / f"{index}.png", index)
            labels = numbers(index, border=True)
            labels[labels == 2] = 77
            save(tmp_path / "in" / "masks" / part / f"{index}.png", labels)
    (tmp_path / "in" / "classes.txt").write_text("1 nucleus\n77 body, of it\n200 never\n")
    one = import_source(tmp_path / "in")
    done = export(store, "made", "color_masks", tmp_path / "out")
    assert codes(done) == {"NUMBERS_LOST"}
    two = import_source(tmp_path / "out", name="again")
    assert (two.info.source_format, two.info.classes) == ("color_masks", one.info.classes)
    after = by_pixels(two.samples.values())
    for key, sample in by_pixels(one.samples.values()).items():
        assert after[key].split == sample.split
        index = int(sample.source_path.rpartition("/")[2][:-4])
        assert (decode_labels(two.reader.read_mask(after[key])) == numbers(index, border=True)).all()
    (tmp_path / "out" / "labelmap.txt").unlink()
    three = import_source(tmp_path / "out", name="csv")
    assert (three.info.classes, three.info.mask) == (two.info.classes, two.info.mask)


def bowl(root, name, shapes, picture=True):
    if picture:
        write_picture(root / name / "images" / f"{name}.png", int(name))
    for index, (y, x, size) in enumerate(shapes):
        mask = np.zeros((48, 64), np.uint8)
        mask[y : y + size, x : x + size] = 255
        save(root / name / "masks" / f"h{index}.png", mask)


def test_a_file_for_each_nucleus_becomes_a_label_image(tmp_path, import_source):
    for name in "01234":
        bowl(tmp_path, name, [(2, 3, 6), (20, 30, 9), (30 + int(name), 2, 4)])
    bowl(tmp_path, "5", [(2, 3, 20), (4, 5, 3), (0, 0, 0)])
    bowl(tmp_path, "6", [(2, 3, 4)])
    save(tmp_path / "6" / "masks" / "h1.png", np.zeros((9, 9), np.uint8))
    bowl(tmp_path, "7", [(0, 0, 0)])
    bowl(tmp_path, "8", [])
    bowl(tmp_path, "9", [(1, 1, 1), (3, 3, 3)], picture=False)
    bowl(tmp_path, "10", [(2, 3, 4)])
    (tmp_path / "10" / "masks" / "h0.png").write_bytes((tmp_path / "0" / "masks" / "h0.png").read_bytes()[:60])
    made = import_source(tmp_path)
    assert (made.info.source_format, made.info.task, made.info.classes) == ("instance_masks", "instance_segmentation", ("object",))
    for name in "01234":
        wanted = np.zeros((48, 64), int)
        for number, (y, x, size) in enumerate([(2, 3, 6), (20, 30, 9), (30 + int(name), 2, 4)], 1):
            wanted[y : y + size, x : x + size] = number
        assert (mask_of(made, f"{name}/images/{name}.png") == wanted).all()
        assert not made.codes(f"{name}/images/{name}.png")
    # The smaller of two that share pixels keeps them, and it is said.
    assert made.codes("5/images/5.png") == ["OVERLAP"]
    assert np.unique(mask_of(made, "5/images/5.png"), return_counts=True)[1].tolist() == [48 * 64 - 400, 391, 9]
    assert "9 pixels" in made.samples["5/images/5.png"].findings[0].message
    assert "h2.png" in made.samples["5/images/5.png"].findings[0].message
    assert made.codes("6/images/6.png") == ["MASK_SIZE_MISMATCH"]
    assert not made.codes("7/images/7.png")
    assert not mask_of(made, "7/images/7.png").any()
    assert made.codes("8/images/8.png") == ["MISSING_ANNOTATION"]
    assert made.codes("9#image") == ["MISSING_IMAGE"]
    assert made.codes("10/images/10.png") == ["TRUNCATED_IMAGE"]
    assert "h0.png" in made.samples["10/images/10.png"].findings[0].message
    assert made.info.sample_count == 7
    assert made.info.provenance["files_not_used"] == []


@pytest.mark.parametrize("kind", ["zip", "remote"])
def test_folders_of_masks_are_read_from_archives_and_from_elsewhere(kind, tmp_path, import_source):
    for name in "012345":
        bowl(tmp_path / "in" / "stage1_train", name, [(2, 3, 6), (20, 30, 9), (30 + int(name), 2, 4)])
    source = f"memory://{tmp_path.name}/set"
    if kind == "zip":
        source = shutil.make_archive(str(tmp_path / "set"), "zip", tmp_path / "in")
    else:
        place = ArtifactStore(f"memory://{tmp_path.name}")
        for path in (tmp_path / "in").rglob("*.png"):
            place.write_bytes(f"set/{path.relative_to(tmp_path / 'in')}", path.read_bytes())
    made = import_source(source)
    assert (made.info.source_format, made.info.sample_count) == ("instance_masks", 6)
    assert {tuple(np.unique(mask_of(made, path))) for path in made.samples} == {(0, 1, 2, 3)}
    assert not [code for path in made.samples for code in made.codes(path) if "DUPLICATE" not in code]


def test_objects_go_out_as_a_file_each_and_come_back(tmp_path, import_source, store):
    for index in range(8):
        labels = np.zeros((48, 64), np.uint16)
        for number in range(1, index + 1):
            labels[4 * number : 4 * number + 3, 2 : 20 + number] = number * 300
        write_picture(tmp_path / "in" / "images" / ("train" if index < 6 else "val" if index < 7 else "test") / f"{index}.png", index)
        save(tmp_path / "in" / "masks" / ("train" if index < 6 else "val" if index < 7 else "test") / f"{index}.png", labels)
    (tmp_path / "in" / "classes.txt").write_text("* nucleus\n")
    one = import_source(tmp_path / "in")
    done = export(store, "made", "instance_masks", tmp_path / "out")
    assert done.losses == ()
    assert len(list((tmp_path / "out").rglob("masks/*.png"))) == 1 + sum(range(8))
    two = import_source(tmp_path / "out", name="again")
    assert (two.info.source_format, two.info.classes) == ("instance_masks", ("nucleus",))
    after = by_pixels(two.samples.values())
    for key, sample in by_pixels(one.samples.values()).items():
        assert after[key].split == sample.split
        wanted = decode_labels(one.reader.read_mask(sample)) // 300
        assert (decode_labels(two.reader.read_mask(after[key])) == wanted).all()


def test_real_nuclei_go_out_as_a_file_each_and_come_back(tmp_path, real_data, import_source, store):
    first = import_source(real_data / "dsb2018_nuclei_compact" / "color_HE", name="a", task="instance_segmentation")
    assert codes(export(store, "a", "instance_masks", tmp_path / "out")) <= {"GROUP_LOST"}
    last = import_source(tmp_path / "out", name="b")
    assert last.info.source_format == "instance_masks"
    before, after = by_pixels(first.samples.values()), by_pixels(last.samples.values())
    assert before.keys() == after.keys()
    objects = 0
    for key, sample in before.items():
        truth = decode_labels(first.reader.read_mask(sample)).astype(np.int64)
        known = np.unique(truth[truth != 0])
        expected = np.where(truth == 0, 0, np.searchsorted(known, truth) + 1)
        assert (decode_labels(last.reader.read_mask(after[key])) == expected).all()
        objects += len(known)
    assert objects > 1000


def test_real_cells_go_out_in_colour_and_come_back(tmp_path, real_data, import_source, store):
    first = import_source(real_data / "wbc_zheng" / "domain1", name="a", classes=("cytoplasm", "nucleus"))
    assert codes(export(store, "a", "color_masks", tmp_path / "out")) <= {"GROUP_LOST", "NUMBERS_LOST"}
    last = import_source(tmp_path / "out", name="b")
    assert (last.info.source_format, last.info.classes) == ("color_masks", ("cytoplasm", "nucleus"))
    before = {s.source_path.rpartition("/")[2]: s for s in first.samples.values() if not s.excluded}
    after = {s.source_path.rpartition("/")[2]: s for s in last.samples.values()}
    assert len(after) == len(before) > 200
    renumber = np.zeros(256, np.uint8)
    renumber[[*first.info.mask.values]] = (1, 2)
    for value in first.info.mask.ignore:
        renumber[value] = 255
    for name, sample in before.items():
        assert (decode_labels(last.reader.read_mask(after[name])) == renumber[decode_labels(first.reader.read_mask(sample))]).all()
