"""Formats are found, read as their peers read them, and what is wrong in them is said sample by sample."""

from __future__ import annotations

import json

import cv2
import numpy as np
import PIL.Image
import pytest
from import_sources import class_folders, picture, write_json, write_picture

from oteo_core.datasets import Severity

VOC = """<annotation><folder>x</folder><filename>{name}</filename><size><width>64</width><height>48</height><depth>3</depth></size>{objects}</annotation>"""
VOC_OBJECT = "<object><name>{name}</name><difficult>0</difficult><bndbox><xmin>{0}</xmin><ymin>{1}</ymin><xmax>{2}</xmax><ymax>{3}</ymax></bndbox></object>"


def voc_source(root, boxes):
    for index, objects in enumerate(boxes):
        write_picture(root / "JPEGImages" / f"{index}.jpg", index)
        text = "".join(VOC_OBJECT.format(*box[1:], name=box[0]) for box in objects)
        (root / "Annotations").mkdir(exist_ok=True)
        (root / "Annotations" / f"{index}.xml").write_text(VOC.format(name=f"{index}.jpg", objects=text))
    return root


def coco_source(root, annotations, images=4, name="instances_train", extra_images=(), categories=("cell", "debris")):
    for index in range(images):
        write_picture(root / "images" / f"{index}.png", index)
    entries = [{"id": i, "file_name": f"{i}.png", "width": 64, "height": 48} for i in range(images)] + list(extra_images)
    write_json(
        root / "annotations" / f"{name}.json",
        {
            "images": entries,
            "categories": [{"id": i + 1, "name": c} for i, c in enumerate(categories)],
            "annotations": [{"id": i, "iscrowd": 0, **a} for i, a in enumerate(annotations)],
        },
    )
    return root


def test_class_folders_with_parts(tmp_path, import_source):
    for part, first in (("train", 0), ("val", 100), ("test", 200)):
        class_folders(tmp_path / "data" / part, {"yes": 4, "no": 3}, first)
    write_picture(tmp_path / "data" / "train" / "stray.png", 999)
    (tmp_path / "data" / "train" / "yes" / "notes.txt").write_text("not a picture")
    (tmp_path / "data" / "README.md").write_text("about")
    made = import_source(tmp_path / "data")
    assert made.info.source_format == "class_folders"
    assert "'no'" in made.reason
    assert made.info.classes == ("no", "yes")
    assert [(s.split, s.sample_count) for s in made.info.splits] == [("train", 7), ("validation", 7), ("test", 7)]
    assert made.samples["val/yes/000.png"].labels == ("yes",)
    assert made.codes("train/stray.png") == ["MISSING_ANNOTATION"]
    assert made.codes("train/yes/notes.txt") == ["UNREADABLE_IMAGE"]
    assert made.info.excluded_count == 2
    assert made.info.provenance["files_not_used"] == ["README.md"]
    for sample in made.samples.values():
        assert bool(sample.path) is not sample.excluded


def test_media_are_copied_byte_for_byte_and_depth_is_kept(tmp_path, import_source):
    class_folders(tmp_path / "data", {"a": 3, "b": 3})
    deep = (picture(77).astype(np.uint16) * 257)[:, :, :1]
    cv2.imwrite(str(tmp_path / "data" / "a" / "deep.png"), deep)
    made = import_source(tmp_path / "data")
    sample = made.samples["a/deep.png"]
    assert (sample.dtype, sample.channels) == ("uint16", 1)
    assert made.reader.read_media(sample) == (tmp_path / "data" / "a" / "deep.png").read_bytes()
    np.testing.assert_array_equal(made.reader.image(sample).pixels, deep)


def test_folders_above_and_below_the_class_are_no_classes(tmp_path, import_source):
    class_folders(tmp_path / "archive of data" / "cells", {"a/patient 1": 2, "a/patient 2": 2, "b/patient 3": 2})
    made = import_source(tmp_path)
    assert made.info.classes == ("a", "b")


def test_voc(tmp_path, import_source):
    root = voc_source(
        tmp_path,
        [
            [("cell", 1, 2, 11, 22), ("cell", 5, 5, 5, 9)],
            [("cell", 60, 40, 80, 60), ("debris", 100, 100, 120, 120)],
            [],
            [("cell", 0, 0, 64, 48), ("dust", 1, 1, 9, 9)],
        ],
    )
    write_picture(root / "JPEGImages" / "unknown.jpg", 50)
    (root / "Annotations" / "gone.xml").write_text(VOC.format(name="gone.jpg", objects=""))
    (root / "Annotations" / "3b.xml").write_text("<annotation><object>")
    (root / "ImageSets" / "Main").mkdir(parents=True)
    (root / "ImageSets" / "Main" / "train.txt").write_text("0\n1\n")
    (root / "ImageSets" / "Main" / "val.txt").write_text("2\n")
    (root / "ImageSets" / "Main" / "test.txt").write_text("3\n")
    made = import_source(root, classes=("cell", "debris"))
    assert made.info.source_format == "pascal_voc"
    assert made.info.task == "detection"
    first = made.samples["JPEGImages/0.jpg"]
    assert [(b.class_name, b.x, b.y, b.width, b.height) for b in first.boxes] == [("cell", 1, 2, 10, 20)]
    (zero,) = first.findings
    assert (zero.code, zero.severity, zero.path) == ("ZERO_AREA_BOX", Severity.ERROR, "JPEGImages/0.jpg")
    assert "object 2 (cell)" in zero.message
    second = made.samples["JPEGImages/1.jpg"]
    assert [(b.x, b.y, b.width, b.height) for b in second.boxes] == [(60, 40, 4, 8)]
    assert sorted(f.severity for f in second.findings) == ["error", "warning"]
    assert {f.code for f in second.findings} == {"BOX_OUT_OF_IMAGE"}
    assert not made.samples["JPEGImages/2.jpg"].excluded
    assert made.codes("JPEGImages/3.jpg") == ["UNKNOWN_CLASS"]
    assert made.codes("JPEGImages/unknown.jpg") == ["MISSING_ANNOTATION"]
    assert made.codes("gone.jpg") == ["MISSING_IMAGE"]
    assert "BAD_ANNOTATION_FILE" in {code for path in made.samples for code in made.codes(path)}
    assert made.splits() == {f"JPEGImages/{i}.jpg": s for i, s in enumerate(("train", "train", "validation", "test"))}


def test_coco(tmp_path, import_source):
    root = coco_source(
        tmp_path,
        [
            {"image_id": 0, "category_id": 1, "bbox": [1, 2, 10, 20], "segmentation": [[1, 2, 11, 2, 11, 22, 1, 22]]},
            {"image_id": 0, "category_id": 1, "bbox": [1, 2, 0, 5], "segmentation": []},
            {"image_id": 1, "category_id": 9, "bbox": [1, 2, 3, 4]},
            {"image_id": 77, "category_id": 1, "bbox": [1, 2, 3, 4]},
            {
                "image_id": 1,
                "category_id": 2,
                "bbox": [5, 5, 9, 9],
                "segmentation": {"size": [48, 64], "counts": [48, 48, 2976]},
                "iscrowd": 1,
            },
            {"image_id": 2, "category_id": 1, "bbox": "wide"},
            {"image_id": 2, "category_id": 1, "bbox": [50, 40, 30, 30], "segmentation": [[1, 2, 3]]},
        ],
        extra_images=[{"id": 5, "file_name": "lost.png", "width": 1, "height": 1}],
    )
    write_picture(root / "images" / "extra.png", 40)
    made = import_source(root)
    assert made.info.source_format == "coco"
    assert made.info.classes == ("cell", "debris")
    one = made.samples["images/0.png"]
    assert one.boxes[0].instance == one.polygons[0].instance
    assert one.polygons[0].rings == ((1, 2, 11, 2, 11, 22, 1, 22),)
    assert made.codes("images/0.png") == ["ZERO_AREA_BOX"]
    assert made.codes("images/1.png") == ["UNKNOWN_CLASS"]
    (rle,) = made.samples["images/1.png"].rle
    assert (rle.crowd, rle.counts, rle.class_name) == (True, (48, 48, 2976), "debris")
    assert sorted(made.codes("images/2.png")) == ["BAD_ANNOTATION", "BAD_ANNOTATION", "BOX_OUT_OF_IMAGE"]
    assert made.codes("images/3.png") == []
    assert made.codes("images/extra.png") == ["MISSING_ANNOTATION"]
    assert made.codes("lost.png") == ["MISSING_IMAGE"]
    assert [f.code for s in made.samples.values() if "image_id=77" in s.source_path for f in s.findings] == ["MISSING_IMAGE"]


def test_packed_coco_runs(tmp_path, import_source):
    """Packed by pycocotools' own rule: the same mask as plain runs."""
    mask_utils = pytest.importorskip("pycocotools.mask", reason="pycocotools is not installed here")
    mask = np.zeros((48, 64), np.uint8)
    mask[7:40, 9:50] = 1
    mask[20:30, 20:30] = 0
    packed = mask_utils.encode(np.asfortranarray(mask))["counts"].decode()
    root = coco_source(
        tmp_path, [{"image_id": 0, "category_id": 1, "bbox": [9, 7, 41, 33], "segmentation": {"size": [48, 64], "counts": packed}}]
    )
    (rle,) = import_source(root).samples["images/0.png"].rle
    drawn = np.repeat(np.arange(len(rle.counts)) % 2, rle.counts).reshape(64, 48).T
    np.testing.assert_array_equal(drawn, mask)


def test_yolo(tmp_path, import_source):
    for part, seeds in (("train", range(3)), ("val", range(10, 12)), ("test", range(20, 22))):
        for seed in seeds:
            write_picture(tmp_path / "images" / part / f"{seed}.png", seed)
    labels = tmp_path / "labels" / "train"
    labels.mkdir(parents=True)
    (labels / "0.txt").write_text("0 0.5 0.5 0.25 0.5\n1 0.5 0.5 0 0.1\n")
    (labels / "1.txt").write_text("7 0.5 0.5 0.1 0.1\nhello\n1 0.95 0.5 0.5 0.1\n")
    (labels / "ghost.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    (tmp_path / "data.yaml").write_text("names:\n  0: cell\n  1: debris\n")
    made = import_source(tmp_path)
    assert made.info.source_format == "yolo"
    assert made.info.classes == ("cell", "debris")
    (box,) = made.samples["images/train/0.png"].boxes
    assert (box.x, box.y, box.width, box.height) == (24, 12, 16, 24)
    assert made.codes("images/train/0.png") == ["ZERO_AREA_BOX"]
    assert sorted(made.codes("images/train/1.png")) == ["BAD_ANNOTATION", "BOX_OUT_OF_IMAGE", "UNKNOWN_CLASS"]
    assert made.codes("images/train/2.png") == ["MISSING_ANNOTATION"]
    assert not made.samples["images/train/2.png"].excluded
    assert [s.excluded for s in made.samples.values() if "ghost" in s.source_path] == [True]
    assert made.splits()["images/val/10.png"] == "validation"
    assert made.splits()["images/test/20.png"] == "test"


def mask_source(root, masks, name="masks"):
    for index, mask in enumerate(masks):
        write_picture(root / "images" / f"{index}.png", index)
        (root / name).mkdir(exist_ok=True)
        cv2.imwrite(str(root / name / f"{index}.png"), mask)
    return root


def test_masks_of_classes(tmp_path, import_source):
    masks = []
    for index in range(6):
        mask = np.zeros((48, 64), np.uint8)
        mask[10:30, 10:40] = 128
        mask[15:25, 15:25] = 255
        if index == 2:
            mask[0, :3] = 7
        masks.append(mask)
    masks.append(np.zeros((40, 64), np.uint8))
    root = mask_source(tmp_path, masks)
    write_picture(root / "images" / "bare.png", 80)
    cv2.imwrite(str(root / "masks" / "lonely.png"), masks[0])
    made = import_source(root, classes=("cytoplasm", "nucleus"))
    assert made.info.task == "semantic_segmentation"
    assert made.info.classes == ("cytoplasm", "nucleus")
    assert made.info.mask is not None
    assert (made.info.mask.kind, made.info.mask.values, made.info.mask.ignore) == ("class", (128, 255), (7,))
    assert made.codes("images/2.png")[0] == "STRAY_MASK_VALUE"
    assert "7 (3 pixels)" in made.samples["images/2.png"].findings[0].message
    assert made.codes("images/6.png") == ["MASK_SIZE_MISMATCH"]
    assert made.codes("images/bare.png") == ["MISSING_ANNOTATION"]
    assert [s.findings[0].code for s in made.samples.values() if "lonely" in s.source_path] == ["MISSING_IMAGE"]
    assert made.reader.read_mask(made.samples["images/0.png"]) == (root / "masks" / "0.png").read_bytes()


def test_masks_of_instances(tmp_path, import_source):
    masks = []
    for index in range(6):
        mask = np.zeros((48, 64), np.uint16)
        for number in range(7 + index):
            mask[number * 3 : number * 3 + 2, 5:20] = number + 1
        masks.append(mask)
    made = import_source(mask_source(tmp_path, masks, "labels"))
    assert made.info.task == "instance_segmentation"
    assert made.info.mask is not None
    assert made.info.mask.kind == "instance"


def test_palette_masks_are_read_as_numbers(tmp_path, import_source):
    masks = [np.zeros((48, 64), np.uint8) for _ in range(4)]
    root = mask_source(tmp_path, masks)
    for index in range(4):
        numbers = np.zeros((48, 64), np.uint8)
        numbers[4:20, 4:20], numbers[30:40, 30:40] = 1, 2
        image = PIL.Image.fromarray(numbers, "P")
        image.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
        image.save(root / "masks" / f"{index}.png")
    made = import_source(root)
    assert made.info.mask is not None
    assert made.info.mask.values == (1, 2)


def test_size_that_annotations_were_made_for_is_compared(tmp_path, import_source):
    root = voc_source(tmp_path, [[("cell", 1, 2, 11, 22)]] * 3)
    write_picture(root / "JPEGImages" / "0.jpg", 0, size=(24, 32))
    made = import_source(root)
    assert "SIZE_MISMATCH" in made.codes("JPEGImages/0.jpg")


@pytest.mark.parametrize("name", ["coco", "voc", "yolo_ultralytics"])
def test_what_datumaro_writes_is_read_as_it_was_meant(name, tmp_path, import_source):
    """Datumaro as an independent writer: its exports, read by us, hold the boxes that went in."""
    datumaro = pytest.importorskip("datumaro", reason="datumaro is not installed here")
    rng = np.random.default_rng(4)
    items, truth = [], {}
    for index in range(9):
        part = ("train", "val", "test")[index % 3]
        boxes = [[int(v) for v in (rng.integers(0, 30), rng.integers(0, 20), rng.integers(5, 30), rng.integers(5, 20))] for _ in range(3)]
        truth[str(index)] = sorted((("cell", "debris")[k % 2], *map(float, box)) for k, box in enumerate(boxes))
        annotations = [datumaro.Bbox(*box, label=k % 2, id=k + 1, group=k + 1) for k, box in enumerate(boxes)]
        media = datumaro.components.media.Image.from_numpy(picture(index)[:, :, ::-1])
        items.append(datumaro.DatasetItem(id=str(index), subset=part, media=media, annotations=annotations))
    datumaro.Dataset.from_iterable(items, categories=["cell", "debris"]).export(str(tmp_path / "out"), name, save_media=True)
    made = import_source(tmp_path / "out")
    kept = [sample for sample in made.samples.values() if not sample.excluded]
    assert len(kept) == 9
    for sample in kept:
        own = sample.source_path.rpartition("/")[2].partition(".")[0]
        got = sorted((b.class_name, b.x, b.y, b.width, b.height) for b in sample.boxes)
        assert [g[0] for g in got] == [t[0] for t in truth[own]]
        np.testing.assert_allclose([g[1:] for g in got], [t[1:] for t in truth[own]], atol=0.02)
        assert sample.split == ("train", "validation", "test")[int(own) % 3]


def test_wrong_json_is_no_coco(tmp_path, import_source):
    class_folders(tmp_path, {"a": 2, "b": 2})
    (tmp_path / "settings.json").write_text(json.dumps({"images": 3}))
    assert import_source(tmp_path).info.source_format == "class_folders"
