"""In, out and in again, for each format and task: what survives is equal, and what cannot is said."""

from __future__ import annotations

import json
from dataclasses import replace

import cv2
import numpy as np
import PIL.Image
import pytest
import yaml
from export_tools import boxes, by_pixels, codes, export
from import_sources import class_folders, picture, write_json, write_picture

from oteo_augment.exporting import WRITERS, check_export, export_dataset
from oteo_augment.exporting.objects import fill, largest_contour
from oteo_core.datasets import DatasetInfo, DatasetReader, DatasetWriter, Sample, SplitCount, Task
from oteo_core.errors import FailedPrecondition, InvalidArgument
from oteo_core.exports import FolderSink
from oteo_core.images import decode_labels, encode_png

HOLE = (0.0, 0.0, 20.0, 0.0, 20.0, 20.0, 0.0, 20.0)


@pytest.fixture
def objects(tmp_path):
    """Give a COCO source of everything that COCO holds: boxes, several rings, runs, crowds, fractions, images without objects."""
    root = tmp_path / "objects"
    annotations = []
    for split, first in (("train", 0), ("val", 20), ("test", 40)):
        images, annotations = [], []
        for index in range(6):
            name = f"{split}_{index} a.png"
            write_picture(root / "images" / split / name, first + index)
            images.append({"id": index + 1, "file_name": name, "width": 64, "height": 48})

        def add(image, category, annotations=annotations, **rest):
            annotations.append({"id": len(annotations) + 1, "image_id": image, "category_id": category, "iscrowd": 0, **rest})

        rng = np.random.default_rng(first)
        for image in range(1, 5):
            x, y, width, height = rng.random(4) * (20, 15, 18, 12) + (1, 1, 6, 6)
            ring = [x, y, x + width, y, x + width, y + height, x + 0.1, y + height / 3]
            add(image, 7, bbox=[x, y, width, height], segmentation=[ring], attributes={"stain": "weak"})
            other = [40.0, 30.0, 50.5, 30.0, 50.5, 40.25]
            add(image, 3, bbox=[30.0, 20.0, 20.5, 20.25], segmentation=[[30.0, 20.0, 38.0, 20.0, 38.0, 28.0, 30.0, 28.0], other])
        mask = np.zeros((48, 64), np.uint8)
        mask[3:9, 5:12] = 1
        mask[5:7, 7:9] = 0
        flat = mask.T.ravel()
        edges = np.flatnonzero(np.diff(flat)) + 1
        counts = np.diff([0, *edges, flat.size]).tolist()
        add(5, 7, bbox=[5.0, 3.0, 7.0, 6.0], segmentation={"size": [48, 64], "counts": counts})
        add(5, 3, bbox=[20.0, 20.0, 30.0, 20.0], segmentation={"size": [48, 64], "counts": counts}, iscrowd=1)
        categories = [{"id": 7, "name": "cell, round"}, {"id": 3, "name": "débris"}, {"id": 9, "name": "never"}]
        write_json(
            root / "annotations" / f"instances_{split}.json", {"images": images, "annotations": annotations, "categories": categories}
        )
    return root


def test_class_folders_keep_files_classes_and_parts(tmp_path, import_source, store):
    for part, first in (("train", 0), ("val", 100), ("test", 200)):
        class_folders(tmp_path / "in" / part, {"yes": 4, "no": 3}, first)
    one = import_source(tmp_path / "in")
    done = export(store, "made", "class_folders", tmp_path / "out")
    assert (done.sample_count, done.losses) == (21, ())
    written = {path.relative_to(tmp_path / "out").as_posix(): path.read_bytes() for path in (tmp_path / "out").rglob("*.png")}
    assert written == {path.relative_to(tmp_path / "in").as_posix(): path.read_bytes() for path in (tmp_path / "in").rglob("*.png")}
    two = import_source(tmp_path / "out", name="again")
    assert two.info.digest == one.info.digest


def test_names_that_meet_in_one_folder_stay_apart_and_readable(tmp_path, import_source, store):
    for index, name in enumerate(("p1/Cell 1.png", "p2/cell 1.png", "p2/x/cell_1.png", "p3/.png.png", "p4/a:b?.png")):
        write_picture(tmp_path / "in" / "a" / name, index)
        write_picture(tmp_path / "in" / "b" / name, index + 10)
    import_source(tmp_path / "in")
    export(store, "made", "csv", tmp_path / "out")
    names = sorted(path.name for path in (tmp_path / "out" / "images").iterdir())
    assert len(names) == len({name.lower() for name in names}) == 8
    assert {"Cell_1.png", "p2_cell_1.png", "a_b_.png"} <= set(names)


def test_class_folders_hold_one_label_a_sample(tmp_path, objects, import_source, store):
    made = import_source(objects, task="multi_label_classification")
    done = export(store, "made", "class_folders", tmp_path / "out")
    lost = {loss.code: loss for loss in done.losses}
    several = [sample for sample in made.samples.values() if len(sample.labels) > 1]
    assert several
    assert lost["LABELS_LOST"].related == tuple(sample.id for sample in several)
    assert lost["LABELS_LOST"].message.startswith(f"{len(several)} in {len(several)} samples")
    assert "CLASS_LIST_LOST" in lost
    assert (tmp_path / "out" / "train" / "cell,_round").is_dir()
    assert "'cell, round' is 'cell,_round'" in lost["CLASS_RENAMED"].message


def test_coco_keeps_everything(tmp_path, objects, import_source, store):
    one = import_source(objects)
    assert one.info.task == "instance_segmentation"
    done = export(store, "made", "coco", tmp_path / "out")
    assert codes(done) <= {"GROUP_LOST"}
    two = import_source(tmp_path / "out", name="again")
    assert two.info.classes == one.info.classes == ("débris", "cell, round", "never")
    assert two.info.task == one.info.task
    before, after = by_pixels(one.samples.values()), by_pixels(two.samples.values())
    assert before.keys() == after.keys()
    crowds = rings = runs = 0
    for key, sample in before.items():
        other = after[key]
        assert other.split == sample.split
        assert boxes(other) == boxes(sample)
        assert [(p.class_name, p.rings, p.crowd, p.attributes) for p in other.polygons] == [
            (p.class_name, p.rings, p.crowd, p.attributes) for p in sample.polygons
        ]
        assert [(r.class_name, r.counts, r.crowd) for r in other.rle] == [(r.class_name, r.counts, r.crowd) for r in sample.rle]
        crowds += sum(r.crowd for r in other.rle)
        rings += sum(len(p.rings) for p in other.polygons)
        runs += len(other.rle)
    assert (crowds, rings, runs) == (3, 36, 6)
    content = json.loads((tmp_path / "out" / "annotations" / "instances_val.json").read_text())
    assert content["info"]["version"] == one.info.digest
    assert [c["id"] for c in content["categories"]] == [1, 2, 3]
    assert {"area", "bbox", "iscrowd", "segmentation"} <= content["annotations"][0].keys()


def test_voc_keeps_boxes_to_the_last_digit_and_says_what_it_lacks(tmp_path, objects, import_source, store):
    one = import_source(objects)
    done = export(store, "made", "pascal_voc", tmp_path / "out")
    lost = {loss.code: loss for loss in done.losses}
    assert {"OUTLINE_LOST", "CROWD_LOST", "ATTRIBUTE_LOST"} <= lost.keys()
    assert lost["OUTLINE_LOST"].message.startswith("30 in 15 samples")
    two = import_source(tmp_path / "out", name="again")
    assert two.info.classes == one.info.classes
    assert two.info.task == "detection"
    after = by_pixels(two.samples.values())
    for key, sample in by_pixels(one.samples.values()).items():
        assert [b[0] for b in boxes(after[key])] == [b[0] for b in boxes(sample)]
        for got, wanted in zip(boxes(after[key]), boxes(sample), strict=True):
            np.testing.assert_allclose(got[1:5], wanted[1:5], atol=1e-9)
        assert after[key].split == sample.split
        assert [dict(b.attributes).get("difficult") == "1" for b in after[key].boxes] == [b.crowd for b in sample.boxes]


@pytest.mark.parametrize("task", ["detection", "instance_segmentation"])
def test_yolo_keeps_what_its_lines_can(task, tmp_path, objects, import_source, store):
    one = import_source(objects, task=task)
    done = export(store, "made", "yolo", tmp_path / "out")
    outlines = task == "instance_segmentation"
    assert codes(done) - {"GROUP_LOST"} == {"CROWD_LOST", "ATTRIBUTE_LOST"} | (
        {"RINGS_LOST", "MASK_OUTLINED"} if outlines else {"OUTLINE_LOST"}
    )
    two = import_source(tmp_path / "out", name="again")
    assert two.info.task == task
    assert two.info.classes == one.info.classes
    after = by_pixels(two.samples.values())
    for key, sample in by_pixels(one.samples.values()).items():
        other = after[key]
        assert other.split == sample.split
        if outlines:
            for got, wanted in zip(other.polygons, sample.polygons, strict=False):
                ring = max(wanted.rings, key=len) if wanted.class_name == "cell, round" else wanted.rings[0]
                np.testing.assert_allclose(got.rings[0], ring, atol=1e-6)
        else:
            plain = [box for box in boxes(sample) if not box[5]]
            assert [b[0] for b in boxes(other)] == [b[0] for b in plain]
            for got, wanted in zip(boxes(other), plain, strict=True):
                np.testing.assert_allclose(got[1:5], wanted[1:5], atol=1e-6)
    names = yaml.safe_load((tmp_path / "out" / "data.yaml").read_text())
    assert names["names"] == {0: "débris", 1: "cell, round", 2: "never"}
    assert names["val"] == "images/val"


def masks_source(root, kind):
    """Write images with masks: classes 128 and 255, or numbered objects, some in 16 bits."""
    truth = {}
    for index in range(9):
        part = ("train", "val", "test")[index % 3]
        write_picture(root / "images" / part / f"{index}.jpg", index)
        labels = np.zeros((48, 64), np.uint16 if kind == "instance" and index % 2 else np.uint8)
        if kind == "class":
            labels[5:30, 5:40], labels[10:20, 10:20] = 128, 255
        else:
            for number in range(3 + index):
                labels[2 + 4 * number : 5 + 4 * number, 3 + index : 20 + number] = number + 1
        place = root / "masks" / part / f"{index}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(encode_png(labels))
        truth[f"images/{part}/{index}.jpg"] = labels
    return truth


@pytest.mark.parametrize("kind", ["class", "instance"])
def test_masks_keep_every_number_and_its_meaning(kind, tmp_path, import_source, store):
    truth = masks_source(tmp_path / "in", kind)
    given = {"classes": ("cytoplasm", "nucleus")} if kind == "class" else {"classes": ("nucleus",), "task": "instance_segmentation"}
    one = import_source(tmp_path / "in", **given)
    done = export(store, "made", "masks", tmp_path / "out")
    assert codes(done) <= {"GROUP_LOST"}
    for path, labels in truth.items():
        written = tmp_path / "out" / path.replace("images", "masks").replace(".jpg", ".png")
        assert (decode_labels(written.read_bytes()) == labels).all()
        assert (PIL.Image.open(written).mode == "P") is (kind == "class")
        assert (tmp_path / "out" / path).read_bytes() == (tmp_path / "in" / path).read_bytes()
    # Nothing is given this time: the file of classes says it.
    two = import_source(tmp_path / "out", name="again")
    assert (two.info.task, two.info.classes, two.info.mask) == (one.info.task, one.info.classes, one.info.mask)
    assert two.splits() == one.splits()


def test_label_image_to_coco_and_back_is_the_same_to_the_pixel(tmp_path, import_source, store):
    truth = masks_source(tmp_path / "in", "instance")
    import_source(tmp_path / "in", task="instance_segmentation", classes=("nucleus",))
    export(store, "made", "coco", tmp_path / "coco")
    middle = import_source(tmp_path / "coco", name="middle")
    assert middle.info.classes == ("nucleus",)
    done = export(store, "middle", "masks", tmp_path / "back")
    assert codes(done) <= {"GROUP_LOST"}
    for path, labels in truth.items():
        assert (decode_labels((tmp_path / "back" / path.replace("images", "masks").replace(".jpg", ".png")).read_bytes()) == labels).all()


def test_drawn_label_images_say_what_they_lose(tmp_path, objects, import_source, store):
    import_source(objects)
    done = export(store, "made", "masks", tmp_path / "out")
    assert {"CLASS_LOST", "CROWD_LOST", "ATTRIBUTE_LOST"} <= codes(done)
    labels = decode_labels((tmp_path / "out" / "masks" / "train" / "train_4_a.png").read_bytes())
    assert sorted(np.unique(labels)) == [0, 1]
    assert int((labels == 1).sum()) == 6 * 7 - 4


def test_csv_keeps_labels_parts_and_groups(tmp_path, import_source, store):
    class_folders(tmp_path / "in", {"one, two": 8, 'say "x"': 8})
    one = import_source(tmp_path / "in", split=replace(_split(), group_pattern=r"/(00\d)"))
    done = export(store, "made", "csv", tmp_path / "out")
    assert done.losses == ()
    two = import_source(tmp_path / "out", name="again")
    assert two.info.source_format == "csv"
    before, after = by_pixels(one.samples.values()), by_pixels(two.samples.values())
    for key, sample in before.items():
        assert (after[key].labels, after[key].split, after[key].group) == (sample.labels, sample.split, sample.group)
        assert sample.group


def _split():
    from oteo_augment.importing import SplitOptions

    return SplitOptions()


@pytest.mark.parametrize("rename", [{}, {"débris": "a|b"}])
def test_csv_keeps_several_labels(rename, tmp_path, objects, import_source, store):
    for file in (objects / "annotations").iterdir():
        content = json.loads(file.read_text())
        content["categories"] = [{**c, "name": rename.get(c["name"], c["name"].replace(", ", " "))} for c in content["categories"]]
        file.write_text(json.dumps(content))
    one = import_source(objects, task="multi_label_classification")
    export(store, "made", "csv", tmp_path / "out")
    two = import_source(tmp_path / "out", name="again")
    assert two.info.task == "multi_label_classification"
    after = by_pixels(two.samples.values())
    for key, sample in by_pixels(one.samples.values()).items():
        assert (set(after[key].labels), after[key].split) == (set(sample.labels), sample.split)
    assert any(len(sample.labels) == 2 for sample in two.samples.values())


def test_oteos_own_form_is_the_dataset_itself(tmp_path, objects, import_source, store):
    write_picture(objects / "images" / "train" / "left_out.png", 99)
    one = import_source(objects)
    done = export(store, "made", "oteo", tmp_path / "out")
    assert (done.sample_count, done.losses) == (18, ())
    from oteo_core.artifacts import ArtifactStore

    reader = DatasetReader(ArtifactStore(str(tmp_path)), "out", prefix="out")
    assert reader.info == one.info
    assert list(reader.samples(include_excluded=True)) == list(one.reader.samples(include_excluded=True))
    for sample in reader.samples():
        assert reader.read_media(sample) == one.reader.read_media(sample)


@pytest.mark.parametrize("name", sorted(WRITERS))
def test_only_the_parts_that_are_asked_for(name, tmp_path, objects, import_source, store):
    task = "multi_label_classification" if name in ("class_folders", "csv", "numpy", "webdataset") else "instance_segmentation"
    if name == "color_masks":
        # Numbers of objects taken for classes: all that is needed here is masks of classes.
        import_source(objects, name="objects", task=task)
        export(store, "objects", "masks", tmp_path / "numbered")
        objects, task = tmp_path / "numbered", "semantic_segmentation"
    one = import_source(objects, task=task)
    done = export(store, "made", name, tmp_path / "out", splits=("validation", "test"))
    wanted = [sample for sample in one.samples.values() if sample.split in ("validation", "test") and not sample.excluded]
    assert done.sample_count == len(wanted) > 0
    if name not in ("numpy", "hdf5", "webdataset"):  # these hold images in archives
        assert len([path for path in (tmp_path / "out").rglob("*.png") if "masks" not in path.parts]) == len(wanted)
    assert not [path for path in (tmp_path / "out").rglob("*") if "train" in path.name and "Main" not in path.parts]


@pytest.mark.parametrize("name", ["coco", "voc", "yolo"])
def test_datumaro_reads_what_is_written(name, tmp_path, objects, import_source, store):
    datumaro = pytest.importorskip("datumaro", reason="datumaro is not installed here")
    one = import_source(objects, task="detection")
    export(store, "made", {"voc": "pascal_voc"}.get(name, name), tmp_path / "out")
    read = datumaro.Dataset.import_from(str(tmp_path / "out"), "coco_instances" if name == "coco" else name)
    names = {sample.source_path.rpartition("/")[2].removesuffix(".png").replace(" ", "_"): sample for sample in one.samples.values()}
    seen = 0
    for item in read:
        sample = names[item.id.rpartition("/")[2]]
        assert {"validation": "val"}.get(sample.split, sample.split) == item.subset
        kinds = datumaro.AnnotationType
        got = [a for a in item.annotations if a.type in (kinds.bbox, kinds.polygon, kinds.mask)]
        labels = read.categories()[kinds.label]
        wanted = [box for box in boxes(sample) if not (box[5] and name == "yolo")]
        if name == "coco":
            # An outline of two rings is two polygons of one group there, and a box beside an outline is not read.
            assert {labels[a.label].name for a in got} == {box[0] for box in wanted}
            assert len({a.group for a in got}) == len(wanted)
        else:
            assert [labels[a.label].name for a in got] == [box[0] for box in wanted]
            for a, box in zip(got, wanted, strict=True):
                np.testing.assert_allclose(a.get_bbox(), box[1:5], atol=0.02)
        seen += 1
    assert seen == 18


@pytest.mark.parametrize(
    ("name", "task", "reason"),
    [
        ("class_folders", Task.DETECTION, "FORMAT_CANNOT_HOLD_TASK"),
        ("csv", Task.SEMANTIC, "FORMAT_CANNOT_HOLD_TASK"),
        ("coco", Task.CLASSIFICATION, "FORMAT_CANNOT_HOLD_TASK"),
        ("pascal_voc", Task.SEMANTIC, "FORMAT_CANNOT_HOLD_TASK"),
        ("yolo", Task.MULTI_LABEL, "FORMAT_CANNOT_HOLD_TASK"),
        ("masks", Task.DETECTION, "FORMAT_CANNOT_HOLD_TASK"),
        ("hdf5", Task.DETECTION, "FORMAT_CANNOT_HOLD_TASK"),
        ("dicom", Task.CLASSIFICATION, "UNSUPPORTED_FORMAT"),
    ],
)
def test_a_format_that_cannot_hold_the_task_is_refused(name, task, reason):
    info = DatasetInfo("x", task=task, splits=(SplitCount("train", 3),))
    with pytest.raises((FailedPrecondition, InvalidArgument)) as refused:
        check_export(info, name)
    assert (refused.value.reason, refused.value.field) == (reason, "format")
    for other, writer in WRITERS.items():
        if task in writer.tasks:
            assert other in refused.value.message or reason == "UNSUPPORTED_FORMAT"


def test_parts_without_a_sample_are_refused():
    with pytest.raises(FailedPrecondition) as refused:
        check_export(DatasetInfo("x", task="detection", splits=(SplitCount("train", 3),)), "coco", ["test"])
    assert (refused.value.reason, refused.value.field) == ("NOTHING_TO_EXPORT", "splits")


def test_a_file_that_is_gone_is_said_and_the_rest_is_written(tmp_path, objects, import_source, store):
    one = import_source(objects)
    victim = one.samples["images/train/train_1 a.png"]
    store.delete(f"datasets/made/{victim.path}")
    done = export(store, "made", "coco", tmp_path / "out")
    assert done.sample_count == 17
    lost = done.losses[0]
    assert (lost.code, lost.severity, lost.related) == ("MEDIA_LOST", "error", (victim.id,))
    again = import_source(tmp_path / "out", name="again")
    assert again.info.sample_count == 17
    assert not [code for path in again.samples for code in again.codes(path) if code.startswith("MISSING")]


def test_what_no_format_holds_is_counted(tmp_path, store):
    with DatasetWriter(store, "datasets/made", DatasetInfo("made", task="detection", classes=("cell",))) as writer:
        for index in range(150):
            path = writer.add_media("a.png", encode_png(picture(index)))
            writer.add(
                Sample(
                    f"s{index:03}",
                    path,
                    f"{index}.png",
                    width=64,
                    height=48,
                    split="train",
                    spacing=(0.5, 0.5),
                    derived_from="x",
                    group="g",
                )
            )
        writer.finish()
    done = export(store, "made", "yolo", tmp_path / "out")
    assert codes(done) == {"SPACING_LOST", "ORIGIN_LOST", "GROUP_LOST"}
    assert done.losses[0].message.startswith("150 in 150 samples")
    assert len(done.losses[0].related) == 100


def test_outlines_are_filled_by_pixel_centres_and_found_again():
    square = fill([HOLE], 30, 30)
    assert int(square.sum()) == 400
    rng = np.random.default_rng(5)
    for _ in range(20):
        blob = cv2.GaussianBlur(rng.random((60, 70)), (0, 0), 4)
        mask = (blob > np.quantile(blob, 0.7)).astype(np.uint8)
        count, parts, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
        largest = (parts == 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))).astype(np.uint8)
        contours, _ = cv2.findContours(largest, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        whole = cv2.drawContours(np.zeros_like(largest), contours, -1, 1, cv2.FILLED)
        ring, pieces = largest_contour(largest)
        assert pieces == 1
        assert (fill([ring], 60, 70) == whole).all()
        assert largest_contour(mask)[1] == count - 1


def test_an_export_is_the_same_in_every_run(tmp_path, objects, import_source, store):
    import_source(objects)
    for name in ("one", "two"):
        export(store, "made", "coco", tmp_path / name)
    files = {path.relative_to(tmp_path / "one"): path.read_bytes() for path in (tmp_path / "one").rglob("*") if path.is_file()}
    assert files == {path.relative_to(tmp_path / "two"): path.read_bytes() for path in (tmp_path / "two").rglob("*") if path.is_file()}


def test_stopping_is_heard_within_the_work(tmp_path, objects, import_source, store):
    import_source(objects)
    asked = []

    def check():
        asked.append(1)
        if len(asked) == 5:
            raise KeyboardInterrupt

    (tmp_path / "scratch").mkdir()
    with pytest.raises(KeyboardInterrupt):
        export_dataset(store, "made", "yolo", FolderSink(tmp_path / "out"), tmp_path / "scratch", check=check)
    assert len(list((tmp_path / "out" / "images").rglob("*.png"))) == 4
