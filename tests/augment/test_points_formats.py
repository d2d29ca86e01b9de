"""Key points and turned boxes in and out of COCO and YOLO: what survives is equal, what cannot is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from export_tools import boxes, by_pixels, codes, export
from import_sources import write_json, write_picture

from oteo_core.datasets import Sample, Skeleton, mirror_pairs

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
    written = [entry["keypoints"] for part in parts for entry in part["annotations"] if "keypoints" in entry]
    assert sorted(written) == sorted(e["keypoints"] for e in given["annotations"] if e.get("num_keypoints"))
    for part in parts:
        assert [(c["name"], c.get("keypoints"), c.get("skeleton")) for c in part["categories"]] == [
            ("cat", NAMES, [[1, 2], [1, 3], [1, 4]]), ("bowl", None, None),
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
