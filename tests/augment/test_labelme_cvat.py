"""LabelMe's JSON and CVAT's XML, in and out."""

from __future__ import annotations

import base64
import json

import numpy as np
import pytest
from export_tools import boxes, by_pixels, codes, export
from import_sources import class_folders, write_json, write_picture
from sequence_files import clip, slices

from oteo_augment.exporting.objects import things_of
from oteo_core.datasets.runs import mask_from_runs, runs_from_mask
from oteo_core.images import decode_labels, encode_png

FORMATS = ("labelme", "cvat")


@pytest.fixture
def objects(tmp_path):
    """Give a COCO source with boxes, outlines of two rings, runs, crowds, attributes and an image without objects."""
    root = tmp_path / "objects"
    blob = np.zeros((48, 64), np.uint8)
    blob[10:30, 20:50] = 1
    blob[15:20, 30:40] = 0
    runs = {"size": [48, 64], "counts": list(runs_from_mask(blob))}
    for split, first in (("train", 0), ("val", 20), ("test", 40)):
        images, annotations = [], []
        for index in range(4):
            write_picture(root / "images" / split / f"{split}{index}.png", first + index)
            images.append({"id": index, "file_name": f"{split}{index}.png", "width": 64, "height": 48})
        ring, other = [1.25, 2.0, 20.1, 2.0, 20.1, 18.75], [30.0, 30.0, 40.0, 30.0, 35.5, 44.125]
        for image in range(3):
            common = {"image_id": image, "iscrowd": 0}
            annotations += [
                {
                    **common,
                    "category_id": 2,
                    "bbox": [1.0, 2.0, 40.0, 43.0],
                    "segmentation": [ring, other],
                    "attributes": {"stain": "weak <&"},
                },
                {**common, "category_id": 1, "bbox": [20.0, 10.0, 30.0, 20.0], "segmentation": runs},
                {**common, "category_id": 1, "bbox": [2.0, 2.0, 60.0, 40.0], "segmentation": runs, "iscrowd": 1},
                {**common, "category_id": 2, "bbox": [3.5, 4.25, 10.0, 11.0]},
            ]
        categories = [{"id": 1, "name": "cell"}, {"id": 2, "name": "débris & co"}]
        write_json(root / f"instances_{split}.json", {"images": images, "annotations": annotations, "categories": categories})
    return root


@pytest.mark.parametrize("task", ["detection", "instance_segmentation"])
@pytest.mark.parametrize("name", FORMATS)
def test_objects_come_back_whole(name, task, tmp_path, objects, import_source, store):
    one = import_source(objects, task=task)
    done = export(store, "made", name, tmp_path / "out")
    assert done.losses == ()
    two = import_source(tmp_path / "out", name="again", task=task)
    assert two.info.source_format == name
    assert two.info.classes == one.info.classes
    assert not [code for path in two.samples for code in two.codes(path)]
    before, after = by_pixels(one.samples.values()), by_pixels(two.samples.values())
    assert before.keys() == after.keys()
    for key, sample in before.items():
        other = after[key]
        assert other.split == sample.split
        assert sorted(boxes(other)) == sorted(boxes(sample))
        assert [(p.class_name, p.rings, p.crowd, p.attributes) for p in other.polygons] == [
            (p.class_name, p.rings, p.crowd, p.attributes) for p in sample.polygons
        ]
        assert [(r.class_name, r.counts, r.crowd) for r in other.rle] == [(r.class_name, r.counts, r.crowd) for r in sample.rle]
        # A box and an outline are still one object.
        assert len(things_of(other)) == len(things_of(sample)) in (0, 4)


@pytest.mark.parametrize("name", FORMATS)
def test_classes_of_whole_images_come_back(name, tmp_path, import_source, store):
    for part, first in (("train", 0), ("val", 100), ("test", 200)):
        class_folders(tmp_path / "in" / part, {"yes": 4, "no": 3}, first)
    one = import_source(tmp_path / "in")
    assert export(store, "made", name, tmp_path / "out").losses == ()
    two = import_source(tmp_path / "out", name="again")
    assert (two.info.source_format, two.info.task, two.info.classes) == (name, one.info.task, one.info.classes)
    after = by_pixels(two.samples.values())
    for key, sample in by_pixels(one.samples.values()).items():
        assert (after[key].labels, after[key].split) == (sample.labels, sample.split)


@pytest.mark.parametrize("name", FORMATS)
def test_label_images_become_masks_exact_to_the_pixel(name, tmp_path, import_source, store):
    for index in range(6):
        labels = np.zeros((48, 64), np.uint16)
        for number in range(1, 4 + index):
            labels[4 * number : 4 * number + 3, 2 : 20 + number] = number
        write_picture(tmp_path / "in" / "images" / f"{index}.png", index)
        (tmp_path / "in" / "masks").mkdir(exist_ok=True)
        (tmp_path / "in" / "masks" / f"{index}.png").write_bytes(encode_png(labels))
    one = import_source(tmp_path / "in", task="instance_segmentation")
    export(store, "made", name, tmp_path / "middle")
    import_source(tmp_path / "middle", name="middle")
    assert codes(export(store, "middle", "masks", tmp_path / "back")) == set()
    two = import_source(tmp_path / "back", name="again")
    after = by_pixels(two.samples.values())
    for key, sample in by_pixels(one.samples.values()).items():
        got, wanted = (decode_labels(made.reader.read_mask(row)) for made, row in ((two, after[key]), (one, sample)))
        assert (got == wanted).all()


def labelme(root, shapes, name="0", **more):
    write_picture(root / f"{name}.jpg", int(name))
    content = {"version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": f"..\\x\\{name}.jpg", "imageData": None}
    write_json(root / f"{name}.json", content | {"imageWidth": 64, "imageHeight": 48} | more)


def test_labelmes_own_shapes_are_read_and_what_is_wrong_is_said(tmp_path, import_source):
    mask = base64.b64encode(encode_png(np.array([[255, 0, 255], [255, 255, 255]], np.uint8))).decode()
    shapes = [
        {"label": "cell", "points": [[30, 20], [10, 5]], "shape_type": "rectangle", "group_id": None},
        {"label": "cell", "points": [[20, 20], [30, 20]], "shape_type": "circle"},
        {"label": "cell", "points": [[10, 4], [12, 5]], "shape_type": "mask", "mask": mask},
        {"label": "cell", "points": [[1, 1], [9, 1], [9, 9]], "shape_type": "polygon", "group_id": 3},
        {"label": "cell", "points": [[20, 1], [29, 1], [29, 9]], "shape_type": "polygon", "group_id": 3},
        {"label": "tip", "points": [[1, 2]], "shape_type": "point"},
        {"label": "line", "points": [[1, 2], [3, 4]], "shape_type": "line"},
        {"label": "rod", "points": [[10, 10], [30, 10], [30, 20], [10, 20]], "shape_type": "rotation", "direction": 0.0},
        {"label": "cell", "points": [[1, 1], [2, 2]], "shape_type": "polygon"},
        {"label": "cell", "points": [[60, 40], [90, 90]], "shape_type": "mask", "mask": "no picture"},
        {"label": "", "points": [[1, 1], [2, 2], [3, 1]]},
    ]
    labelme(tmp_path, shapes)
    for name in "1234":
        labelme(tmp_path, shapes[:1], name=name)
    write_picture(tmp_path / "7.jpg", 7)
    write_json(tmp_path / "8.json", {"shapes": [], "imagePath": "8.jpg"})
    (tmp_path / "1.json").write_text('{"shapes": [{"label": "x"}], "imagePath"')
    made = import_source(tmp_path)
    sample = made.samples["0.jpg"]
    assert boxes(sample) == [("cell", 10, 5, 20, 15, False)]
    assert [len(p.rings) for p in sample.polygons] == [1, 2, 1]
    assert [(k.class_name, [(p.name, p.x, p.y) for p in k.points]) for k in sample.keypoints] == [("tip", [("tip", 1, 2)])]
    ring = np.array(sample.polygons[0].rings[0]).reshape(-1, 2)
    np.testing.assert_allclose(np.hypot(*(ring - 20).T), 10)
    pixels = mask_from_runs(sample.rle[0].counts, 48, 64)
    assert pixels[4:6, 10:13].tolist() == [[1, 0, 1], [1, 1, 1]]
    assert int(pixels.sum()) == 5
    assert sorted(made.codes("0.jpg")) == ["BAD_ANNOTATION", "BAD_ANNOTATION", "SHAPE_NOT_READ", "UNKNOWN_CLASS"]
    assert made.codes("7.jpg") == ["MISSING_ANNOTATION"]
    assert made.codes("8.jpg") == ["MISSING_IMAGE"]
    assert made.codes("1.jpg") == ["BAD_ANNOTATION_FILE"]
    assert made.samples["1.jpg"].excluded
    assert made.info.sample_count == 4


def test_labelmes_flags_are_classes_where_nothing_else_is_marked(tmp_path, import_source):
    for index in range(6):
        labelme(tmp_path / "flags", [], str(index), flags={"sick": index % 2 == 0, "blurred": index < 2, "never": False})
    made = import_source(tmp_path / "flags", task="multi_label_classification")
    assert made.info.classes == ("sick", "blurred", "never")
    assert made.samples["0.jpg"].labels == ("sick", "blurred")
    box = {"label": "cell", "points": [[30, 20], [10, 5]], "shape_type": "rectangle"}
    for index in range(6):
        labelme(tmp_path / "boxes", [box], str(index), flags={"checked": True})
    made = import_source(tmp_path / "boxes", name="boxes")
    assert (made.info.task, made.info.classes) == ("detection", ("cell",))
    assert made.codes("0.jpg") == ["FLAG_NOT_READ"]


@pytest.mark.parametrize("name", FORMATS)
def test_masks_of_classes_become_a_mask_for_each_class(name, tmp_path, import_source, store):
    for index in range(6):
        labels = np.zeros((48, 64), np.uint8)
        labels[5:30, 5:30], labels[10:20, 20 : 40 + index] = 3, 7
        write_picture(tmp_path / "in" / "images" / f"{index}.png", index)
        (tmp_path / "in" / "masks").mkdir(exist_ok=True)
        (tmp_path / "in" / "masks" / f"{index}.png").write_bytes(encode_png(labels))
    import_source(tmp_path / "in", classes=("body", "core"))
    assert codes(export(store, "made", name, tmp_path / "out")) == set()
    made = import_source(tmp_path / "out", name="again")
    assert (made.info.task, made.info.classes) == ("instance_segmentation", ("body", "core"))
    sample = next(s for s in made.samples.values() if s.source_path.endswith("2.png"))
    assert {r.class_name: sum(r.counts[1::2]) for r in sample.rle} == {"body": 25 * 25 - 100, "core": 10 * 22}


CVAT = """<?xml version="1.0"?>
<annotations><version>1.1</version><meta><task><labels><label><name>cell</name></label><label><name>never</name></label></labels></task></meta>
{images}</annotations>"""


def marked_and_turned(root):
    """Give a COCO source of objects with points, one of them hidden, with and without a box."""
    for split, first in (("train", 0), ("val", 20), ("test", 40)):
        images, annotations = [], []
        for index in range(3):
            write_picture(root / "images" / split / f"{split}{index}.png", first + index)
            images.append({"id": index, "file_name": f"{split}{index}.png", "width": 64, "height": 48})
            for number in range(2):
                points = [3 + number, 4, 2, 20, 11 + index, 1, 0, 0, 0]
                entry = {
                    "id": 10 * index + number,
                    "image_id": index,
                    "category_id": 1,
                    "iscrowd": 0,
                    "keypoints": points,
                    "num_keypoints": 2,
                }
                annotations.append({**entry, "bbox": [1, 2, 30 + number, 20]})
        categories = [{"id": 1, "name": "worm", "keypoints": ["head", "middle", "tail"], "skeleton": []}]
        write_json(root / f"person_keypoints_{split}.json", {"images": images, "annotations": annotations, "categories": categories})


@pytest.mark.parametrize("name", FORMATS)
def test_points_of_objects_come_back(name, tmp_path, import_source, store):
    marked_and_turned(tmp_path / "in")
    one = import_source(tmp_path / "in", task="keypoints")
    assert codes(export(store, "made", name, tmp_path / "out")) <= {"CLASS_LIST_LOST"}
    two = import_source(tmp_path / "out", name="again", task="keypoints")
    assert (two.info.task, two.info.classes) == ("keypoints", ("worm",))
    if name == "cvat":  # LabelMe has no list of points: "tail" is marked nowhere
        assert [s.points for s in two.info.skeletons] == [("head", "middle", "tail")]
    after = by_pixels(two.samples.values())
    for key, sample in by_pixels(one.samples.values()).items():
        assert [k.points for k in after[key].keypoints] == [k.points for k in sample.keypoints]
        assert len(things_of(after[key])) == len(things_of(sample)) == 2
        assert boxes(after[key]) == boxes(sample)
        assert not two.codes(after[key].source_path)


@pytest.mark.parametrize("name", FORMATS)
def test_turned_boxes_come_back_or_become_outlines(name, tmp_path, import_source, store):
    for index in range(6):
        write_picture(tmp_path / "in" / f"{index}.png", index)
    box = '<box label="rod" xtl="20" ytl="12" xbr="40" ybr="21.5" rotation="{}"/>'
    image = '<image id="{0}" name="{0}.png" width="64" height="48">' + box.format("33.25") + box.format("270.00") + "</image>"
    (tmp_path / "in" / "annotations.xml").write_text(CVAT.format(images="".join(image.format(index) for index in range(6))))
    one = import_source(tmp_path / "in", task="detection")
    lost = codes(export(store, "made", name, tmp_path / "out"))
    two = import_source(tmp_path / "out", name="again")
    after = by_pixels(two.samples.values())
    for key, sample in by_pixels(one.samples.values()).items():
        assert len(sample.oriented_boxes) == 2
        if name == "cvat":
            assert lost == set()
            for got, wanted in zip(after[key].oriented_boxes, sample.oriented_boxes, strict=True):
                np.testing.assert_allclose(got.corners(), wanted.corners(), atol=1e-9)
        else:
            assert lost == {"ORIENTATION_LOST", "CLASS_LIST_LOST"}
            for outline, wanted in zip(after[key].polygons, sample.oriented_boxes, strict=True):
                np.testing.assert_allclose(np.reshape(outline.rings[0], (4, 2)), wanted.corners(), atol=1e-9)


def test_cvats_own_shapes_are_read_and_what_is_wrong_is_said(tmp_path, import_source):
    for index in range(5):
        write_picture(tmp_path / "pictures" / f"{index}.png", index)
    shapes = """
      <box label="cell" occluded="1" xtl="1.50" ytl="2.00" xbr="20.25" ybr="30.00" z_order="0"><attribute name="age">3</attribute></box>
      <polygon label="cell" points="1.00,1.00;9.00,1.00;9.00,9.00" group_id="4"/>
      <polygon label="cell" points="20.00,1.00;29.00,1.00;29.00,9.00" group_id="4"/>
      <mask label="cell" rle="1, 2, 1, 2" left="5" top="6" width="3" height="2"/>
      <mask label="cell" rle="1, 2" left="5" top="6" width="3" height="2"/>
      <box label="cell" xtl="1" ytl="2" xbr="20" ybr="30" rotation="30.0"/>
      <polyline label="cell" points="1,1;2,2"/><polygon label="cell" points="1,1;2"/><box xtl="1" ytl="1" xbr="2" ybr="2"/>"""
    entries = f'<image id="0" name="0.png" width="64" height="48" subset="Train">{shapes}</image>'
    for index in (1, 2, 9):
        entries += f'<image id="{index}" name="{index}.png" width="64" height="48"><box label="cell" xtl="1" ytl="2" xbr="3{index}" ybr="30"/></image>'
    (tmp_path / "annotations.xml").write_text(CVAT.format(images=entries))
    made = import_source(tmp_path)
    assert (made.info.source_format, made.info.classes) == ("cvat", ("cell", "never"))
    sample = made.samples["pictures/0.png"]
    assert boxes(sample) == [("cell", 1.5, 2, 18.75, 28, False)]
    assert dict(sample.boxes[0].attributes) == {"age": "3", "occluded": "1"}
    assert [len(p.rings) for p in sample.polygons] == [2]
    assert mask_from_runs(sample.rle[0].counts, 48, 64)[6:8, 5:8].tolist() == [[0, 1, 1], [0, 1, 1]]
    (turned,) = sample.oriented_boxes
    assert (turned.center_x, turned.center_y, turned.width, turned.height) == (10.5, 16, 19, 28)
    assert turned.angle == pytest.approx(np.pi / 6)
    # What of the turned box is outside is told.
    wanted = ["BAD_ANNOTATION", "BAD_ANNOTATION", "BOX_OUT_OF_IMAGE", "SHAPE_NOT_READ", "UNKNOWN_CLASS"]
    assert sorted(made.codes("pictures/0.png")) == wanted
    assert made.codes("9.png") == ["MISSING_IMAGE"]
    assert made.codes("pictures/4.png") == ["MISSING_ANNOTATION"]
    assert made.info.sample_count == 3
    whole = (tmp_path / "annotations.xml").read_text()
    (tmp_path / "annotations.xml").write_text(whole[: whole.index('<image id="2"') + 20])
    made = import_source(tmp_path)
    assert "BAD_ANNOTATION_FILE" in made.codes("annotations.xml#broken")
    assert made.info.sample_count == 2


@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_datumaro_reads_the_xml_that_is_written(part, tmp_path, objects, import_source, store):
    """Datumaro reads one part of CVAT's file at a time; its LabelMe is another, older format of XML."""
    datumaro = pytest.importorskip("datumaro", reason="datumaro is not installed here")
    one = import_source(objects, task="detection")
    export(store, "made", "cvat", tmp_path / "out")
    read = datumaro.Dataset.import_from(str(tmp_path / "out"), "cvat", subset=part)
    labels = read.categories()[datumaro.AnnotationType.label]
    names = {sample.source_path.rpartition("/")[2].removesuffix(".png"): sample for sample in one.samples.values()}
    seen = 0
    for item in read:
        sample = names[item.id.rpartition("/")[2]]
        got = sorted((labels[a.label].name, *a.get_bbox()) for a in item.annotations if a.type == datumaro.AnnotationType.bbox)
        wanted = sorted(box[:5] for box in boxes(sample))
        assert [g[0] for g in got] == [w[0] for w in wanted]
        np.testing.assert_allclose([g[1:] for g in got], [w[1:] for w in wanted], atol=0.02)
        assert {"validation": "val"}.get(sample.split, sample.split) == part
        seen += 1
    assert seen == 4


def test_json_as_such_is_neither(tmp_path, import_source):
    class_folders(tmp_path, {"a": 3, "b": 3})
    (tmp_path / "x.json").write_text(json.dumps({"shapes": []}))
    (tmp_path / "x.xml").write_text("<annotations><note/></annotations>")
    assert import_source(tmp_path).info.source_format == "class_folders"


JOINTS = """<image id="{n}" name="{n}.png" width="64" height="48">
  <skeleton label="cell" group_id="1"><points label="pole" outside="0" occluded="0" points="10.50,11.25"/>
    <points label="tail" outside="0" occluded="1" points="30.00,{y}"/><points label="ear" outside="1" points="1.00,1.00"/></skeleton>
  <box label="cell" xtl="22" ytl="18" xbr="40" ybr="26" rotation="{turn}"/><points label="never" points="5.00,6.00;7.00,8.00"/></image>"""


def test_cvats_turned_boxes_and_skeletons_come_back(tmp_path, import_source, store):
    for index in range(3):
        write_picture(tmp_path / "in" / f"{index}.png", index)
    entries = "".join(JOINTS.format(n=n, y=20 + n, turn=(0.0, 30.0, 355.5)[n] or 90.0) for n in range(3))
    (tmp_path / "in" / "annotations.xml").write_text(CVAT.format(images=entries))
    made = import_source(tmp_path / "in")
    sample = made.samples["1.png"]
    joints, places = sample.keypoints
    assert [(p.name, p.x, p.y, p.visible) for p in joints.points] == [("pole", 10.5, 11.25, True), ("tail", 30, 21, False)]
    assert [(p.name, p.x, p.y) for p in places.points] == [("1", 5, 6), ("2", 7, 8)]
    assert made.samples["2.png"].oriented_boxes[0].angle == pytest.approx(np.radians(-4.5))
    assert codes(export(store, "made", "cvat", tmp_path / "out")) == set()
    again = by_pixels(import_source(tmp_path / "out", name="again").samples.values())
    for digest, one in by_pixels(made.samples.values()).items():
        other = again[digest]
        assert [[(p.name, p.x, p.y, p.visible) for p in k.points] for k in other.keypoints] == [
            [(p.name, p.x, p.y, p.visible) for p in k.points] for k in one.keypoints
        ]
        for a, b in zip(one.oriented_boxes, other.oriented_boxes, strict=True):
            assert (b.center_x, b.center_y, b.width, b.height, b.angle) == pytest.approx(
                (a.center_x, a.center_y, a.width, a.height, a.angle)
            )


TRACKS = """<?xml version="1.0"?><annotations><version>1.1</version><meta><task><labels><label><name>tip</name></label></labels></task>
<source>scope.avi</source></meta>
<track id="0" label="tip" source="manual">
  <box frame="0" outside="0" occluded="0" keyframe="1" xtl="1" ytl="2" xbr="21" ybr="12"/>
  <box frame="1" outside="0" occluded="1" keyframe="0" xtl="3" ytl="2" xbr="23" ybr="12"/>
  <box frame="2" outside="1" occluded="0" keyframe="1" xtl="3" ytl="2" xbr="23" ybr="12"/></track>
<track id="1" label="tip" source="manual">
  <polygon frame="1" outside="0" occluded="0" keyframe="1" points="30,30;40,30;40,40"/>
  <box frame="{last}" outside="0" occluded="0" keyframe="1" xtl="3" ytl="2" xbr="23" ybr="12"/></track></annotations>"""


def test_the_tracks_of_a_clip_are_on_its_frames(tmp_path, import_source):
    clip(tmp_path / "in" / "scope.avi", slices(1, 5))
    (tmp_path / "in" / "annotations.xml").write_text(TRACKS.format(last=3))
    made = import_source(tmp_path / "in", task="detection")
    rows = sorted((s for s in made.reader.samples() if s.sequence), key=lambda s: s.frame)
    assert [[(b.x, b.width) for b in row.boxes] for row in rows] == [[(1, 20)], [(3, 20)], [], [(3, 20)]]
    assert [len(row.polygons) for row in rows] == [0, 1, 0, 0]
    assert {row.frames for row in rows} == {4}
    assert "FRAMES_NOT_ANNOTATED" in [f.code for row in rows for f in row.findings]
    # A frame that the clip does not have, and tracks over single pictures in their order.
    (tmp_path / "in" / "annotations.xml").write_text(TRACKS.format(last=9))
    left = [s for s in import_source(tmp_path / "in", name="far").reader.samples(include_excluded=True) if s.excluded]
    assert [f.code for s in left for f in s.findings] == ["MISSING_IMAGE"]
    for index in range(4):
        write_picture(tmp_path / "frames" / f"f{index + 7}.png", index)
    (tmp_path / "frames" / "annotations.xml").write_text(TRACKS.format(last=3))
    made = import_source(tmp_path / "frames", name="single", task="detection")
    assert {path: len(s.boxes) for path, s in made.samples.items()} == {"f7.png": 1, "f8.png": 1, "f10.png": 1, "f9.png": 0}
    assert not made.samples["f9.png"].excluded
