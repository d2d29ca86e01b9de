"""Prediction files: what is written is what is read, and other tools read it too."""

from __future__ import annotations

import contextlib
import io
import json
import zipfile

import numpy as np
import pytest
from pycocotools.coco import COCO

from oteo_automl.predictions.coco import write_coco
from oteo_automl.predictions.formats import FORMATS, NAMES, read_predictions, write_predictions
from oteo_automl.predictions.records import ImageRecord, PredictionSet
from oteo_automl.predictions.voc import read_voc
from oteo_core.errors import InvalidArgument, NotFound
from oteo_core.packages.answers import ClassMap, Detections, Instances

CLASSES = ("red cell", "white & <cell>", "ü")


def _images(count: int) -> list[ImageRecord]:
    return [ImageRecord(f"s{index}", f"a/{index}.png", 40, 30, f"g{index}", "test") for index in range(count)]


def _set(task: str) -> PredictionSet:
    rng = np.random.default_rng(3)
    answers: list[object] = []
    for index in range(4):
        count = 0 if index == 2 else 3
        labels = rng.integers(0, 3, count)
        scores = np.sort(rng.random(count).astype(np.float32))[::-1]
        if task == "detection":
            corner = rng.uniform(0, 15, (count, 2))
            answers.append(Detections(np.concatenate([corner, corner + 7.25], axis=1).astype(np.float32), scores, labels))
        elif task == "semantic_segmentation":
            answers.append(ClassMap(rng.integers(0, 4, (30, 40)).astype(np.uint8) * np.uint8(index != 2)))
        elif task == "instance_segmentation":
            ids = np.zeros((30, 40), np.int32)
            for number in range(count):
                ids[number * 8 : number * 8 + 5, 3 : 9 + number] = number + 1
            answers.append(Instances(ids, labels, scores))
        else:
            values = rng.random(3)
            answers.append(values / values.sum() if task == "classification" else values)
    truths = [("ü",), (), ("red cell",), ("ü",)] if "class" in task else []
    return PredictionSet(task, CLASSES, _images(4), answers, truths)


def _assert_same(one: object, other: object) -> None:
    if isinstance(one, Detections):
        assert isinstance(other, Detections)
        np.testing.assert_allclose(other.boxes, one.boxes, atol=1e-3)
        np.testing.assert_allclose(other.scores, one.scores, rtol=1e-6)
        np.testing.assert_array_equal(other.labels, one.labels)
    elif isinstance(one, ClassMap):
        assert isinstance(other, ClassMap)
        np.testing.assert_array_equal(other.labels, one.labels)
    elif isinstance(one, Instances):
        assert isinstance(other, Instances)
        np.testing.assert_array_equal(other.ids, one.ids)
        np.testing.assert_array_equal(other.labels, one.labels)
        np.testing.assert_allclose(other.scores, one.scores, rtol=1e-6)
    else:
        np.testing.assert_allclose(np.asarray(other), np.asarray(one), atol=1e-7)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    "task", ["classification", "multi_label_classification", "detection", "semantic_segmentation", "instance_segmentation"]
)
def test_round_trip(task: str, form: str) -> None:
    given = _set(task)
    files = write_predictions(given, form)
    read = read_predictions(files.__getitem__, NAMES[form], classes=CLASSES)
    assert read.task == task
    assert read.classes == CLASSES
    assert [image.sample for image in read.images] == [image.sample for image in given.images]
    for one, other in zip(given.answers, read.answers, strict=True):
        _assert_same(one, other)


def test_a_mask_of_many_runs_is_read_again() -> None:
    noise = (np.random.default_rng(0).random((700, 700)) < 0.5).astype(np.uint8)
    given = PredictionSet("semantic_segmentation", ("a",), [ImageRecord("s", "", 700, 700)], [ClassMap(noise)])
    read = read_predictions(write_predictions(given, "csv").__getitem__, NAMES["csv"])
    np.testing.assert_array_equal(read.answers[0].labels, noise)


def test_classes_in_another_order_are_renumbered() -> None:
    given = _set("detection")
    read = read_predictions(write_predictions(given, "csv").__getitem__, NAMES["csv"], classes=CLASSES[::-1])
    np.testing.assert_array_equal(2 - read.answers[0].labels, given.answers[0].labels)
    with pytest.raises(InvalidArgument, match="white"):
        read_predictions(write_predictions(given, "coco").__getitem__, NAMES["coco"], classes=CLASSES[:1])


def test_pycocotools_reads_the_results() -> None:
    given = _set("instance_segmentation")
    results, about = write_coco(given)
    truth = COCO()
    truth.dataset = json.loads(about)
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        loaded = truth.loadRes(json.loads(results))
    first = loaded.loadAnns(loaded.getAnnIds(imgIds=[1]))
    assert len(first) == 3
    assert loaded.annToMask(first[0]).sum() == int((given.answers[0].ids == 1).sum())


def test_voc_of_other_tools_with_pixels_from_one() -> None:
    xml = (
        "<annotation><filename>x.jpg</filename><size><width>50</width><height>40</height></size><object><name>dog</name>"
        "<bndbox><xmin>1</xmin><ymin>11</ymin><xmax>20</xmax><ymax>40</ymax></bndbox></object></annotation>"
    )
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("x.xml", xml)
    read = read_voc(buffer.getvalue())
    np.testing.assert_array_equal(read.answers[0].boxes, [[0, 10, 20, 40]])
    assert read.answers[0].scores[0] == 1.0
    assert read.images[0] == ImageRecord("x", "x.jpg", 50, 40)


@pytest.mark.parametrize(
    "content",
    [
        b"\xff\xfe\x00",
        b"sample,class\ns,a\n",
        b"sample,class,score,left,top,right,bottom\ns,a,high,1,2,3,4\n",
        b"sample,width,height,class,score,mask\ns,4,4,a,1,zz~\n",
        b"PK\x03\x04broken",
        b'[{"image_id": 7, "category_id": 1, "bbox": [1, 2], "score": 1}]',
        b"[{]",
    ],
)
def test_what_cannot_be_read_is_refused_with_a_sentence(content: bytes) -> None:
    files = {"it.json": content, "it-images.json": b'{"images": [{"id": 1}], "categories": []}'}
    with pytest.raises(InvalidArgument) as refused:
        read_predictions(files.__getitem__, "it.json")
    assert refused.value.reason == "UNREADABLE_PREDICTIONS"


def test_coco_results_alone_say_what_is_missing() -> None:
    def read(path: str) -> bytes:
        if path == "it.json":
            return b"[]"
        raise NotFound("no", reason="ARTIFACT_NOT_FOUND")

    with pytest.raises(InvalidArgument, match=r"it-images\.json"):
        read_predictions(read, "it.json")
