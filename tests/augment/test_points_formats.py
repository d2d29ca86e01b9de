"""Key points and turned boxes in and out of COCO and YOLO: what survives is equal, what cannot is said."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from export_tools import boxes, by_pixels, codes, export
from import_sources import write_json, write_picture

from oteo_core.datasets import DatasetWriter, Sample, Skeleton, mirror_pairs
from oteo_core.datasets.proto import dataset_to_proto
from oteo_core.errors import InvalidArgument

NAMES = ["nose", "left_eye", "right_eye", "tail"]
NOBODY = [0, 0, 0]


def marks(sample: Sample) -> list[tuple[str, list[tuple[str, float, float, bool]]]]:
    """Give key points without what depends on the file that they came from; places to a ten-thousandth of a pixel."""
    return [(k.class_name, [(p.name, round(p.x, 4), round(p.y, 4), p.visible) for p in k.points]) for k in sample.keypoints]


def animals(root: Path, **category: Any) -> Path:
    """Give a COCO source of key points: all seen, some hidden or not marked, none at all, and another class without points."""
    images, annotations = [], []
    for index in range(6):
        name = f"p{index}.png"
        write_picture(root / "images" / "train" / name, index)
        images.append({"id": index + 1, "file_name": name, "width": 64, "height": 48})

        def add(number: int, points: list[float] | None, image: int = index + 1, kind: int = 1) -> None:
            entry = {"id": len(annotations) + 1, "image_id": image, "category_id": kind, "iscrowd": 0, "area": 500}
            entry["bbox"] = [10.0 + number, 8.5, 25.0, 20.0]
            if points is not None:
                entry |= {"keypoints": points, "num_keypoints": sum(v > 0 for v in points[2::3])}
            annotations.append(entry)

        add(0, [12 + index, 10, 2, 14, 12.25, 2, 30, 13, 1, *NOBODY])
        add(5, [*NOBODY, *NOBODY, *NOBODY, 63, 47, 2])
        add(9, [*NOBODY] * 1 + [*NOBODY, *NOBODY, *NOBODY])
        add(2, None, kind=2)
    skeleton = {"keypoints": NAMES, "skeleton": [[1, 2], [1, 3], [1, 4]], **category}
    categories = [{"id": 1, "name": "cat", **{k: v for k, v in skeleton.items() if v is not None}}, {"id": 2, "name": "bowl"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    write_json(root / "annotations" / "person_keypoints_train.json", content)
    return root


def test_coco_key_points_are_read(tmp_path, import_source):
    made = import_source(animals(tmp_path / "in"))
    assert made.info.task == "detection"
    assert made.info.skeletons == (Skeleton("cat", tuple(NAMES), ((0, 1), (0, 2), (0, 3))),)
    sample = next(s for s in made.samples.values() if s.source_path.endswith("p1.png"))
    assert len(sample.boxes) == 4
    # COCO counts points by pixels: the middle of pixel 13 is 13.5 pixels from the image's edge.
    assert marks(sample) == [
        ("cat", [("nose", 13.5, 10.5, True), ("left_eye", 14.5, 12.75, True), ("right_eye", 30.5, 13.5, False)]),
        ("cat", [("tail", 63.5, 47.5, True)]),
    ]
    assert [k.instance for k in sample.keypoints] == [b.instance for b in sample.boxes[:2]]
    assert import_source(tmp_path / "in", name="points", task="keypoints").info.task == "keypoints"


def test_coco_key_points_come_out_as_they_went_in(tmp_path, import_source, store):
    source = animals(tmp_path / "in")
    one = import_source(source)
    done = export(store, "made", "coco", tmp_path / "out")
    assert codes(done) == set()
    given = json.loads((source / "annotations" / "person_keypoints_train.json").read_text())
    parts = [json.loads(path.read_text()) for path in (tmp_path / "out" / "annotations").iterdir()]
    written = [entry["keypoints"] for part in parts for entry in part["annotations"] if entry["num_keypoints"]]
    assert sorted(written) == sorted(e["keypoints"] for e in given["annotations"] if e.get("num_keypoints"))
    for part in parts:
        assert [(c["name"], c.get("keypoints"), c.get("skeleton")) for c in part["categories"]] == [
            ("cat", NAMES, [[1, 2], [1, 3], [1, 4]]), ("bowl", [], []),
        ]  # fmt: skip
    two = import_source(tmp_path / "out", name="again")
    assert two.info.skeletons == one.info.skeletons
    first, second = by_pixels(one.samples.values()), by_pixels(two.samples.values())
    assert {key: (marks(s), boxes(s)) for key, s in first.items()} == {key: (marks(s), boxes(s)) for key, s in second.items()}


def test_points_beside_an_instances_file_join_its_objects(tmp_path, import_source):
    root = animals(tmp_path / "in")
    content = json.loads((root / "annotations" / "person_keypoints_train.json").read_text())
    plain = [{k: v for k, v in entry.items() if not k.endswith("keypoints")} for entry in content["annotations"]]
    categories = [{"id": c["id"], "name": c["name"]} for c in content["categories"]]
    ring = [10, 10, 20, 10, 20, 20]
    both = [{**entry, "segmentation": [ring]} for entry in plain]
    write_json(root / "annotations" / "instances_train.json", {**content, "annotations": both, "categories": categories})
    made = import_source(root)
    assert made.info.task == "instance_segmentation"
    for sample in made.samples.values():
        assert (len(sample.boxes), len(sample.polygons), len(sample.keypoints)) == (4, 4, 2)
        assert [k.instance for k in sample.keypoints] == [b.instance for b in sample.polygons[:2]]


@pytest.mark.parametrize(
    ("points", "code"),
    [
        ([1, 2], "BAD_ANNOTATION"),
        ([1, 2, 2] * 5, "BAD_ANNOTATION"),
        ([5, 5, 3, *NOBODY, *NOBODY, *NOBODY], "BAD_ANNOTATION"),
        ([float("nan"), 5, 2, *NOBODY, *NOBODY, *NOBODY], "BAD_ANNOTATION"),
        ([90, 5, 2, *NOBODY, *NOBODY, *NOBODY], "POINT_OUT_OF_IMAGE"),
        (["5", 5, 2, *NOBODY, *NOBODY, *NOBODY], "BAD_ANNOTATION"),
        ("nose", "BAD_ANNOTATION"),
    ],
)
def test_wrong_points_are_left_out_and_said(points, code, tmp_path, import_source):
    root = animals(tmp_path / "in")
    path = root / "annotations" / "person_keypoints_train.json"
    content = json.loads(path.read_text())
    content["annotations"][0]["keypoints"] = points
    write_json(path, content)
    sample = next(s for s in import_source(root).samples.values() if s.source_path.endswith("p0.png"))
    assert [f.code for f in sample.findings] == [code]
    assert len(sample.keypoints) == 1
    assert len(sample.boxes) == 4


def test_points_without_names_get_numbers(tmp_path, import_source, store):
    made = import_source(animals(tmp_path / "in", keypoints=None, skeleton=None))
    assert made.info.skeletons == (Skeleton("cat", ("point_0", "point_1", "point_2", "point_3")),)
    assert {p.name for s in made.samples.values() for k in s.keypoints for p in k.points} == set(made.info.skeletons[0].points)


def test_formats_without_points_say_so(tmp_path, import_source, store):
    import_source(animals(tmp_path / "in"))
    done = export(store, "made", "pascal_voc", tmp_path / "voc")
    (lost,) = (loss for loss in done.losses if loss.code == "KEYPOINTS_LOST")
    assert lost.message.startswith("12 in 6 samples")
    one, two = import_source(tmp_path / "in", name="one"), import_source(tmp_path / "voc", name="two")
    first, second = by_pixels(one.samples.values()), by_pixels(two.samples.values())
    assert {key: boxes(s) for key, s in first.items()} == {key: boxes(s) for key, s in second.items()}


def test_left_and_right_are_found_in_names():
    assert mirror_pairs(["nose", "left_eye", "right_eye", "L-hip", "R-hip", "leftover", "rightover", "left ear"]) == {
        "left_eye": "right_eye", "L-hip": "R-hip",
    }  # fmt: skip


def test_coco_to_yolo_pose_and_back(tmp_path, import_source, store):
    one = import_source(animals(tmp_path / "in"))
    done = export(store, "made", "yolo", tmp_path / "pose")
    assert codes(done) == {"SKELETON_LOST"}
    told = yaml.safe_load((tmp_path / "pose" / "data.yaml").read_text())
    assert (told["kpt_shape"], told["flip_idx"], told["kpt_names"], told["task"]) == ([4, 3], [0, 2, 1, 3], {0: NAMES}, "pose")
    lines = next((tmp_path / "pose" / "labels").rglob("p1.txt")).read_text().splitlines()
    assert [len(line.split()) for line in lines] == [17] * 4
    # Class, box by its middle, then the points: 13.5 of 64 pixels, 10.5 of 48, seen.
    assert [float(v) for v in lines[0].split()] == pytest.approx(
        [0, 22.5 / 64, 18.5 / 48, 25 / 64, 20 / 48, 13.5 / 64, 10.5 / 48, 2, 14.5 / 64, 12.75 / 48, 2, 30.5 / 64, 13.5 / 48, 1, 0, 0, 0]
    )
    two = import_source(tmp_path / "pose", name="pose")
    assert two.info.source_format == "yolo"
    assert two.info.skeletons == (Skeleton("cat", tuple(NAMES)),)
    assert codes(export(store, "pose", "coco", tmp_path / "out")) == set()
    three = import_source(tmp_path / "out", name="again")
    first, last = by_pixels(one.samples.values()), by_pixels(three.samples.values())
    assert {key: marks(s) for key, s in first.items()} == {key: marks(s) for key, s in last.items()}
    for key, sample in first.items():
        for box, other in zip(boxes(sample), boxes(last[key]), strict=True):
            assert other[0] == box[0]
            assert other[1:5] == pytest.approx(box[1:5], abs=1e-8)


@pytest.mark.parametrize("numbers", [2, 3])
def test_yolo_pose_without_names(numbers, tmp_path, import_source):
    write_picture(tmp_path / "in" / "images" / "a.png", 1)
    places = ["0.25 0.5", "0 0", "0.75 0.25"]
    seen = ["2", "0", "1"] if numbers == 3 else [""] * 3
    line = "0 0.5 0.5 0.5 0.5 " + " ".join(f"{place} {v}".strip() for place, v in zip(places, seen, strict=True))
    label = tmp_path / "in" / "labels" / "a.txt"
    label.parent.mkdir()
    label.write_text(f"{line}\n0 0.5 0.5 0.25 0.25\n0 0.5 0.5 0.25 0.25 0.1\n")
    (tmp_path / "in" / "data.yaml").write_text(f"names: [cell]\nkpt_shape: [3, {numbers}]\n")
    write_picture(tmp_path / "in" / "images" / "b.png", 2)
    (label.parent / "b.txt").write_text("0 0.5 0.5 0.25 0.25\n")
    made = import_source(tmp_path / "in", task="keypoints")
    sample, _ = made.samples.values()
    assert marks(sample) == [("cell", [("point_0", 16.0, 24.0, True), ("point_2", 48.0, 12.0, numbers == 2)])]
    assert len(sample.boxes) == 2
    assert [f.code for f in sample.findings] == ["BAD_ANNOTATION"]
    (tmp_path / "in" / "data.yaml").write_text("names: [cell]\nkpt_shape: [3, 4]\n")
    with pytest.raises(InvalidArgument) as caught:
        import_source(tmp_path / "in", name="wrong", format="yolo")
    assert caught.value.reason == "BAD_ANNOTATION_FILE"


def corners(sample: Sample) -> list[tuple[str, np.ndarray]]:
    return [(box.class_name, np.array(box.corners())) for box in sample.oriented_boxes]


def ships(root: Path, *lines: str) -> Path:
    """Give a YOLO source of turned boxes as shares of 64 x 48 pixels, and the given lines besides."""
    rng = np.random.default_rng(5)
    for index in range(5):
        write_picture(root / "images" / "train" / f"s{index}.png", index)
        written = []
        for number in range(3):
            middle, angle, size = rng.uniform((25, 20), (35, 28)), rng.uniform(-3, 3), rng.uniform(4, 16, 2)
            along, down = np.array([math.cos(angle), math.sin(angle)]), np.array([-math.sin(angle), math.cos(angle)])
            square = [middle + a * along * size[0] / 2 + d * down * size[1] / 2 for a, d in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
            written.append(f"{number % 2} " + " ".join(f"{x / 64!r} {y / 48!r}" for x, y in np.array(square).tolist()))
        path = root / "labels" / "train" / f"s{index}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join([*written, *(lines if index == 0 else ())]) + "\n")
    (root / "data.yaml").write_text("names: [ship, plane]\n")
    return root


def test_turned_boxes_come_out_as_they_went_in(tmp_path, import_source, store):
    root = ships(tmp_path / "in")
    one = import_source(root)
    assert one.info.task == "detection"
    assert {len(s.oriented_boxes) for s in one.samples.values()} == {3}
    assert not any(s.findings or s.boxes or s.polygons for s in one.samples.values())
    assert codes(export(store, "made", "yolo", tmp_path / "out")) == set()
    for path in (root / "labels" / "train").iterdir():
        (there,) = (tmp_path / "out" / "labels").rglob(path.name)
        given, written = np.loadtxt(path), np.loadtxt(there)
        np.testing.assert_allclose(written, given, atol=1e-10)
    two = import_source(tmp_path / "out", name="again")
    first, second = by_pixels(one.samples.values()), by_pixels(two.samples.values())
    for key, sample in first.items():
        for (name, place), (other, there) in zip(corners(sample), corners(second[key]), strict=True):
            assert name == other
            np.testing.assert_allclose(there, place, atol=1e-8)


def test_four_corners_are_outlines_where_outlines_are_asked_for_or_told(tmp_path, import_source, store):
    root = ships(tmp_path / "in")
    asked = import_source(root, task="instance_segmentation")
    (root / "data.yaml").write_text("names: [ship, plane]\ntask: segment\n")
    told = import_source(root, name="told")
    for made in (asked, told):
        assert made.info.task == "instance_segmentation"
        assert {(len(s.polygons), len(s.oriented_boxes)) for s in made.samples.values()} == {(3, 0)}
    # What we write of outlines is read as outlines, even where all have four corners.
    export(store, "told", "yolo", tmp_path / "out")
    assert import_source(tmp_path / "out", name="again").info.task == "instance_segmentation"


def test_wrong_turned_boxes_are_said(tmp_path, import_source):
    far = "0 1.5 1.5 1.75 1.5 1.75 1.75 1.5 1.75"
    flat = "0 0.5 0.5 0.6 0.6 0.7 0.7 0.8 0.8"
    out = "0 0.75 0.25 1.25 0.25 1.25 0.5 0.75 0.5"
    loose = "0 0.1 0.1 0.9 0.1 0.5 0.5 0.1 0.9"
    made = import_source(ships(tmp_path / "in", far, flat, out, loose, "1 nan 0 0 0 0 0 0 0"))
    sample = next(s for s in made.samples.values() if s.source_path.endswith("s0.png"))
    assert sorted(f.code for f in sample.findings) == [
        "BAD_ANNOTATION", "BOX_OUT_OF_IMAGE", "BOX_OUT_OF_IMAGE", "NOT_A_RECTANGLE", "ZERO_AREA_BOX",
    ]  # fmt: skip
    assert len(sample.oriented_boxes) == 5


def test_what_turned_boxes_lose(tmp_path, import_source, store):
    import_source(ships(tmp_path / "in", "0 0.75 0.25 1.25 0.25 1.25 0.5 0.75 0.5"))
    yolo = export(store, "made", "yolo", tmp_path / "yolo")
    assert codes(yolo) == {"BOX_CUT"}
    assert all(0 <= v <= 1 for path in (tmp_path / "yolo" / "labels").rglob("*.txt") for v in np.loadtxt(path)[:, 1:].ravel())
    assert codes(export(store, "made", "coco", tmp_path / "coco")) == {"ORIENTATION_LOST"}
    assert codes(export(store, "made", "pascal_voc", tmp_path / "voc")) == {"ORIENTATION_LOST"}
    upright = import_source(tmp_path / "voc", name="voc")
    outlined = import_source(tmp_path / "coco", name="coco")
    for key, sample in by_pixels(upright.samples.values()).items():
        given = next(s for s in by_pixels(outlined.samples.values()).values() if s.pixel_digest == key)
        assert [len(p.rings[0]) for p in given.polygons] == [8] * len(sample.boxes)
        for box, outline in zip(sample.boxes, given.polygons, strict=True):
            xs = np.clip(outline.rings[0][0::2], 0, 64)
            assert (box.x, box.width) == (pytest.approx(xs.min()), pytest.approx(np.ptp(xs)))


def test_oteos_own_form_keeps_turned_boxes_points_and_skeletons(tmp_path, import_source, store):
    one = import_source(animals(tmp_path / "in"))
    assert codes(export(store, "made", "oteo", tmp_path / "out")) == set()
    two = import_source(tmp_path / "out", name="again")
    assert (two.info.digest, two.info.skeletons) == (one.info.digest, one.info.skeletons)
    assert [s.keypoints for s in two.samples.values()] == [s.keypoints for s in one.samples.values()]


def test_datumaro_reads_the_points_that_are_written(tmp_path, import_source, store):
    datumaro = pytest.importorskip("datumaro", reason="datumaro is not installed here")
    made = import_source(animals(tmp_path / "in"))
    export(store, "made", "coco", tmp_path / "out")
    for path in list((tmp_path / "out" / "annotations").iterdir()):
        # Datumaro takes the kind of annotations from the file's name.
        path.rename(path.with_name(path.name.replace("instances", "person_keypoints")))
    read = datumaro.Dataset.import_from(str(tmp_path / "out"), "coco_person_keypoints")
    categories = read.categories()[datumaro.AnnotationType.points]
    assert [list(c.labels) for c in categories.items.values() if c.labels] == [NAMES]
    samples = {Path(path).stem: sample for path, sample in made.samples.items()}
    seen = 0
    for item in read:
        marked_ones = (a for a in item.annotations if a.type == datumaro.AnnotationType.points and any(v.value for v in a.visibility))
        got = sorted(marked_ones, key=lambda a: a.id)
        wanted = samples[item.id.rpartition("/")[2]].keypoints
        assert len(got) == len(wanted) == 2
        for points, marked in zip(got, wanted, strict=True):
            places = {
                name: (x + 0.5, y + 0.5, mark.value == 2)
                for name, x, y, mark in zip(NAMES, points.points[0::2], points.points[1::2], points.visibility, strict=True)
                if mark.value
            }
            assert places == {p.name: (pytest.approx(p.x, abs=0.01), pytest.approx(p.y, abs=0.01), p.visible) for p in marked.points}
        seen += 1
    assert seen == 6


def test_the_contract_says_which_points_there_are(tmp_path, import_source):
    message = dataset_to_proto(import_source(animals(tmp_path / "in")).info)
    (skeleton,) = message.skeletons
    assert (skeleton.class_name, list(skeleton.points)) == ("cat", NAMES)
    assert [(edge.first, edge.second) for edge in skeleton.edges] == [(0, 1), (0, 2), (0, 3)]


def test_cvat_keeps_turned_boxes(tmp_path, import_source, store):
    one = import_source(ships(tmp_path / "in"))
    assert codes(export(store, "made", "cvat", tmp_path / "out")) == set()
    two = import_source(tmp_path / "out", name="again")
    assert two.info.source_format == "cvat"
    first, second = by_pixels(one.samples.values()), by_pixels(two.samples.values())
    for key, sample in first.items():
        assert not second[key].boxes
        for (name, place), (other, there) in zip(corners(sample), corners(second[key]), strict=True):
            assert name == other
            np.testing.assert_allclose(there, place, atol=1e-8)


def test_cvat_keeps_points_as_skeletons(tmp_path, import_source, store):
    one = import_source(animals(tmp_path / "in"))
    assert codes(export(store, "made", "cvat", tmp_path / "out")) == {"SKELETON_LOST"}
    two = import_source(tmp_path / "out", name="again", task="keypoints")
    assert two.info.classes == one.info.classes
    assert two.info.skeletons == (Skeleton("cat", tuple(NAMES)),)
    first, second = by_pixels(one.samples.values()), by_pixels(two.samples.values())
    assert {key: (marks(s), boxes(s)) for key, s in first.items()} == {key: (marks(s), boxes(s)) for key, s in second.items()}
    for sample in second.values():
        # Points and box of one object have one number.
        assert {k.instance for k in sample.keypoints} <= {b.instance for b in sample.boxes}


def test_labelme_writes_turned_boxes_as_outlines(tmp_path, import_source, store):
    one = import_source(ships(tmp_path / "in"))
    assert "ORIENTATION_LOST" in codes(export(store, "made", "labelme", tmp_path / "out"))
    two = import_source(tmp_path / "out", name="again")
    first, second = by_pixels(one.samples.values()), by_pixels(two.samples.values())
    for key, sample in first.items():
        for (name, place), outline in zip(corners(sample), second[key].polygons, strict=True):
            assert outline.class_name == name
            np.testing.assert_allclose(np.reshape(outline.rings[0], (4, 2)), place, atol=1e-8)


def test_a_name_that_an_object_has_twice_is_counted(tmp_path, import_source, store):
    one = import_source(animals(tmp_path / "in"))
    with DatasetWriter(store, "datasets/twice", replace(one.info, id="twice")) as writer:
        for number, sample in enumerate(one.samples.values()):
            first, *rest = sample.keypoints
            doubled = replace(first, points=(*first.points, first.points[0])) if number == 0 else first
            writer.note_media(sample.path, 1)
            store.write_bytes(f"datasets/twice/{sample.path}", one.reader.read_media(sample))
            writer.add(replace(sample, keypoints=(doubled, *rest)))
        writer.finish()
    for name in ("coco", "yolo", "cvat"):
        (lost,) = (loss for loss in export(store, "twice", name, tmp_path / name).losses if loss.code == "POINT_LOST")
        assert lost.message.startswith("1 in 1 sample")
