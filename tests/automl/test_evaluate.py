"""EvaluateModel and CombinePredictions as jobs: any dataset, refusals, a killed run, what is published."""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import pytest
from judged_models import POLICY, dataset, publish, shade, square

from oteo_automl.combine_job import COMBINE
from oteo_automl.evaluate_job import EVALUATE, RESULT, target
from oteo_automl.judging import running
from oteo_automl.judging.result import Evaluation
from oteo_automl.predictions.formats import read_predictions
from oteo_automl.settings import AutoMLSettings
from oteo_core.artifacts import ArtifactStore
from oteo_core.datasets import MaskEncoding, Polygons
from oteo_core.errors import FailedPrecondition, InvalidArgument, NotFound
from oteo_core.images import prepare
from oteo_core.jobs.testing import run_handler
from oteo_core.packages import ReferenceStatistics, image_statistics, statistic_names
from oteo_protos.automl.v1 import automl_pb2
from oteo_protos.type.v1 import task_pb2

LEVELS = {"dark": 0.2, "middle": 0.5, "light": 0.8}


@pytest.fixture
def store(tmp_path):
    return ArtifactStore(f"file://{tmp_path}/store")


def ask(store, tmp_path, *, operation="automl-judge", attempt=1, handler=EVALUATE, **fields):
    if handler is EVALUATE:
        request = automl_pb2.EvaluateModelRequest(**{"name": "models/judged", "dataset": "datasets/other", **fields})
        response = automl_pb2.EvaluateModelResponse()
    else:
        request, response = automl_pb2.CombinePredictionsRequest(**fields), automl_pb2.CombinePredictionsResponse()
    settings = AutoMLSettings(home=tmp_path / "home", artifacts=store.root_uri)
    packed = run_handler(handler, request, settings=settings, artifacts=store, operation_id=operation, attempt=attempt)
    assert packed.Unpack(response)
    return response


def named(metrics):
    return {(metric.name, metric.class_name): metric for metric in metrics}


def shades(classes=("light", "dark"), wrong=(3,)):
    """Pictures of two of the model's three classes, in another order than the model's; one is annotated wrongly."""

    def draw(index):
        name = classes[index % len(classes)]
        truth = classes[(index + 1) % len(classes)] if index in wrong else name
        return shade(index, LEVELS.get(name, 0.5)), {"labels": (truth,)}

    return draw


def test_classes_in_another_order_and_some_only(store, tmp_path):
    publish(store, "classification")
    dataset(store, "other", "classification", ("light", "dark"), shades(), 24, spoilt=(5,))
    found = ask(store, tmp_path, prediction_formats=["PREDICTION_FORMAT_CSV", "PREDICTION_FORMAT_COCO", "PREDICTION_FORMAT_VOC"])
    metrics = named(found.metrics)
    assert found.image_count == 23
    assert found.group_count == 12
    assert found.skipped_count == 1
    assert metrics["accuracy", ""].value == pytest.approx(22 / 23)
    assert metrics["accuracy", ""].lower < metrics["accuracy", ""].value < metrics["accuracy", ""].upper
    assert ("sensitivity", "middle") not in metrics
    spoilt = [finding for finding in found.findings if finding.sample]
    assert [finding.sample for finding in spoilt] == ["datasets/other/samples/s005"]
    parts = {(part.subgroup, part.value): part for part in found.subgroups}
    folder = parts[automl_pb2.SUBGROUP_SOURCE_FOLDER, "set/a"]
    assert folder.image_count == 12
    assert named(folder.metrics)["accuracy", ""].value == 1.0
    rows = list(csv.DictReader(io.StringIO(store.read_bytes(f"{target('automl-judge')}/predictions.csv").decode())))
    assert [row["sample"] for row in rows if row["correct"] == "0"] == ["s003"]
    assert len(found.predictions) == 3
    read = [read_predictions(store.read_bytes, file.uri.removeprefix(store.root_uri).lstrip("/")) for file in found.predictions]
    for one in read[1:]:
        np.testing.assert_allclose(np.stack(one.answers), np.stack(read[0].answers), atol=1e-7)
    page = store.read_bytes(f"{target('automl-judge')}/report.html").decode()
    assert "set/a" in page
    assert "http" not in page.replace("http-equiv", "")
    kept = Evaluation.from_json(store.read_bytes(f"{target('automl-judge')}/{RESULT}"))
    assert kept.confusion == [[10, 0, 0], [0, 0, 0], [1, 0, 12]]


def test_images_unlike_the_training_images_are_said(store, tmp_path):
    seen = np.stack([image_statistics(prepare(shade(1000 + index, 0.5), POLICY)) for index in range(300)])
    publish(store, "classification", reference=ReferenceStatistics.fit(seen, statistic_names(3)))
    dataset(store, "other", "classification", ("dark", "middle"), shades(("dark", "middle"), wrong=()), 12)
    (finding,) = ask(store, tmp_path).findings
    assert finding.code == "UNUSUAL_IMAGES"
    assert "6 of 12 images" in finding.message


def test_unknown_classes_are_named_or_left_out(store, tmp_path):
    publish(store, "classification")
    dataset(store, "other", "classification", ("dark", "purple", "light"), shades(("dark", "purple", "light"), wrong=()), 18)
    with pytest.raises(InvalidArgument, match="purple") as refused:
        ask(store, tmp_path)
    assert refused.value.reason == "UNKNOWN_CLASS"
    found = ask(store, tmp_path, operation="automl-again", leave_out_unknown_classes=True)
    assert (found.image_count, found.skipped_count) == (12, 6)
    assert any("does not know" in finding.message for finding in found.findings)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"splits": [task_pb2.SPLIT_TRAIN]}, "EMPTY_PART"),
        ({"dataset": "datasets/nowhere"}, "DATASET_NOT_FOUND"),
        ({"name": "models/nobody"}, "MODEL_NOT_FOUND"),
        ({"dataset": "datasets/boxes"}, "WRONG_TASK"),
    ],
)
def test_refusals(store, tmp_path, change, reason):
    publish(store, "classification")
    dataset(store, "other", "classification", ("dark", "light"), shades(), 4)
    dataset(store, "boxes", "detection", ("dark",), lambda index: (shade(index, 0.2), {}), 2)
    with pytest.raises((InvalidArgument, FailedPrecondition, NotFound)) as refused:
        ask(store, tmp_path, **change)
    assert refused.value.reason == reason


def test_nothing_can_be_read(store, tmp_path):
    publish(store, "classification")
    dataset(store, "other", "classification", ("dark", "light"), shades(), 4, spoilt=range(4))
    with pytest.raises(FailedPrecondition, match="none of the 4 images"):
        ask(store, tmp_path)


def test_a_killed_run_goes_on_and_ends_as_one_run_would(store, tmp_path, monkeypatch):
    publish(store, "classification")
    dataset(store, "other", "classification", ("light", "dark"), shades(), 40, spoilt=(5,))
    monkeypatch.setattr(running, "CHUNK", 10)
    whole = ask(store, tmp_path, operation="automl-whole")
    answered = []
    real = running._answer_chunk

    def dying(*given):
        answered.append(given[4][0].id)
        if len(answered) == 3:
            raise MemoryError("the machine is full")
        return real(*given)

    monkeypatch.setattr(running, "_answer_chunk", dying)
    with pytest.raises(Exception):  # noqa: B017 (whatever a crash is reported as)
        ask(store, tmp_path, operation="automl-killed")
    assert not store.exists(target("automl-killed"))
    again = ask(store, tmp_path, operation="automl-killed", attempt=2)
    assert answered == ["s000", "s010", "s020", "s020", "s030"]
    assert [m.value for m in again.metrics] == [m.value for m in whole.metrics]
    assert [m.lower for m in again.metrics] == [m.lower for m in whole.metrics]
    # A run after the commit gives the answer that is there.
    assert ask(store, tmp_path, operation="automl-killed", attempt=3) == again
    assert len(answered) == 5


def test_several_labels(store, tmp_path):
    publish(store, "multi_label_classification")

    def draw(index):
        pixels = np.zeros((32, 32, 3), np.uint8)
        above, below = index % 2 == 0, index % 3 == 0
        pixels[4:8] = 230 * above
        pixels[24:28] = 230 * below
        return pixels, {"labels": tuple(name for name, there in (("below", below), ("above", above)) if there)}

    dataset(store, "other", "multi_label_classification", ("below", "above"), draw, 24)
    metrics = named(ask(store, tmp_path).metrics)
    assert metrics["mean_average_precision", ""].value == 1.0
    assert metrics["subset_accuracy", ""].value == 1.0
    assert metrics["average_precision", "below"].sample_count == 8


def test_boxes_on_a_dataset_with_classes_in_another_order(store, tmp_path):
    publish(store, "detection", decoding={"score_threshold": 0.5})

    def draw(index):
        pixels, box = square(index)
        return pixels, {"boxes": () if index == 7 else (box,)}

    dataset(store, "other", "detection", ("green", "red"), draw, 20)
    found = ask(
        store,
        tmp_path,
        prediction_formats=["PREDICTION_FORMAT_COCO", "PREDICTION_FORMAT_VOC"],
        subgroups=["SUBGROUP_CLASS", "SUBGROUP_SEQUENCE"],
    )
    metrics = named(found.metrics)
    assert metrics["recall", ""].value == 1.0
    assert metrics["precision", "green"].value == pytest.approx(9 / 10)
    assert metrics["precision", "red"].value == 1.0
    assert metrics["iou", "red"].value > 0.99
    assert {(part.subgroup, part.value) for part in found.subgroups} == {
        (automl_pb2.SUBGROUP_CLASS, "red"),
        (automl_pb2.SUBGROUP_CLASS, "green"),
    }
    assert any("sequence" in finding.message for finding in found.findings)
    results = json.loads(store.read_bytes(f"{target('automl-judge')}/predictions.json"))
    assert len(results) == 20


def test_objects_of_one_class_in_masks_and_boxes_around_them(store, tmp_path):
    publish(store, "instance_segmentation", decoding={"smallest": 0})
    publish(store, "detection", "boxes", decoding={"score_threshold": [0.5, 0.5]})

    def draw(index):
        pixels, box = square(2 * index + 1)
        numbers = np.zeros(pixels.shape[:2], np.uint16)
        numbers[int(box.y) : int(box.y + box.height), int(box.x) : int(box.x + box.width)] = 700
        return pixels, {"mask": numbers, "labels": ("green",)}

    # The dataset's only class is the model's second.
    dataset(store, "other", "instance_segmentation", ("green",), draw, 10, mask=MaskEncoding("instance"))
    found = ask(store, tmp_path, prediction_formats=["PREDICTION_FORMAT_COCO"])
    metrics = named(found.metrics)
    assert metrics["rq", "green"].value == 1.0
    assert metrics["pq", ""].value == metrics["pq", "green"].value > 0.85
    assert ("pq", "red") not in metrics
    boxes = named(ask(store, tmp_path, operation="automl-boxes", name="models/boxes").metrics)
    assert boxes["recall", "green"].value == 1.0


@pytest.mark.parametrize("form", ["mask", "polygons"])
def test_pixels_by_mask_or_outline(store, tmp_path, form):
    publish(store, "semantic_segmentation")

    def draw(index):
        pixels, box = square(index)
        edges = box.x, box.y, box.x + box.width, box.y + box.height
        if form == "polygons":
            ring = (edges[0], edges[1], edges[2], edges[1], edges[2], edges[3], edges[0], edges[3])
            return pixels, {"polygons": (Polygons(box.class_name, (ring,)),), "spacing": (0.5, 0.25)}
        numbers = np.zeros(pixels.shape[:2], np.uint8)
        numbers[int(edges[1]) : int(edges[3]), int(edges[0]) : int(edges[2])] = {"green": 40, "red": 90}[box.class_name]
        return pixels, {"mask": numbers, "labels": (box.class_name,), "spacing": (0.5, 0.25)}

    encoding = MaskEncoding("class", (40, 90)) if form == "mask" else None
    dataset(store, "other", "semantic_segmentation", ("green", "red"), draw, 8, mask=encoding)
    found = ask(store, tmp_path, prediction_formats=["PREDICTION_FORMAT_VOC"])
    metrics = named(found.metrics)
    assert metrics["dice", "red"].value > 0.93
    assert metrics["dice", "green"].value > 0.93
    assert metrics["hausdorff95_mm", ""].value <= 0.5
    assert metrics["surface_dice", ""].value == 1.0


def test_a_mask_that_cannot_be_read_is_left_out(store, tmp_path):
    publish(store, "semantic_segmentation")

    def draw(index):
        pixels, box = square(index)
        numbers = np.zeros(pixels.shape[:2] if index else (9, 9), np.uint8)
        numbers[int(box.y) : int(box.y + box.height), int(box.x) : int(box.x + box.width)] = 1 + index % 2
        return pixels, {"mask": numbers, "labels": (box.class_name,)}

    dataset(store, "other", "semantic_segmentation", ("red", "green"), draw, 6, mask=MaskEncoding("class", (1, 2)))
    found = ask(store, tmp_path)
    assert (found.image_count, found.skipped_count) == (5, 1)
    assert [finding.code for finding in found.findings if finding.sample] == ["MASK_SIZE_MISMATCH"]


def test_combining_what_evaluations_wrote(store, tmp_path):
    publish(store, "detection")

    def draw(index):
        pixels, box = square(index)
        return pixels, {"boxes": (box,)}

    dataset(store, "other", "detection", ("green", "red"), draw, 12)
    first = ask(store, tmp_path, operation="automl-one", prediction_formats=["PREDICTION_FORMAT_CSV"])
    second = ask(store, tmp_path, operation="automl-two", prediction_formats=["PREDICTION_FORMAT_COCO"])
    # The second detector missed some: the last four images of its list have no objects.
    path = f"{target('automl-two')}/predictions.json"
    store.write_bytes(path, json.dumps([entry for entry in json.loads(store.read_bytes(path)) if entry["image_id"] <= 8]).encode())
    inputs = [{"uri": first.predictions_uri}, {"uri": second.predictions_uri}]
    recalls = {}
    for method in ("AFFIRMATIVE", "UNANIMOUS"):
        found = ask(
            store,
            tmp_path,
            operation=f"automl-{method.lower()}",
            handler=COMBINE,
            inputs=inputs,
            method=f"COMBINATION_METHOD_{method}",
            dataset="datasets/other",
            prediction_formats=["PREDICTION_FORMAT_VOC"],
        )
        recalls[method] = named(found.metrics)["recall", ""].value
        assert found.image_count == 12
        assert [named(entry.metrics)["recall", ""].value for entry in found.inputs] == [1.0, pytest.approx(2 / 3)]
        assert store.is_file(found.predictions[0].uri.removeprefix(store.root_uri).lstrip("/"))
    assert recalls == {"AFFIRMATIVE": 1.0, "UNANIMOUS": pytest.approx(2 / 3)}


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("file:///etc/passwd", "FOREIGN_URI"),
        ("../x.csv", "FOREIGN_URI"),
        ("no.csv", "PREDICTIONS_NOT_FOUND"),
        ("bad.csv", "UNREADABLE_PREDICTIONS"),
    ],
)
def test_files_that_cannot_be_combined(store, tmp_path, uri, reason):
    store.write_bytes("bad.csv", b"what,is,this\n")
    with pytest.raises((InvalidArgument, NotFound)) as refused:
        ask(store, tmp_path, handler=COMBINE, inputs=[{"uri": uri}, {"uri": uri}], method="COMBINATION_METHOD_CONSENSUS")
    assert refused.value.reason == reason
