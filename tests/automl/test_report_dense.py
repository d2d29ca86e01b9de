"""The pages of detectors, segmenters and multi-label classifiers, and what is drawn over their pictures."""

from __future__ import annotations

import base64
import dataclasses
from datetime import UTC, datetime
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest

from oteo_automl.report.charts import LearningCurve
from oteo_automl.report.data import FrontPoint, ReportData, Subgroup
from oteo_automl.report.gather import PixelCalibration, compare_candidates, gather_dense, gather_labels
from oteo_automl.report.page import write_card, write_html
from oteo_automl.report.verdicts import limits, verdict
from oteo_core.datasets import DatasetInfo
from oteo_core.datasets.info import ClassInfo, FindingCount, SplitCount
from oteo_core.evaluation.data_curve import DataCurve
from oteo_core.evaluation.detection import evaluate_detection
from oteo_core.evaluation.instances import evaluate_instances
from oteo_core.evaluation.multilabel import evaluate_multilabel
from oteo_core.evaluation.semantic import evaluate_semantic
from oteo_core.evaluation.shifts import ShiftReport, ShiftResult
from oteo_core.evaluation.statistics import ScoreTable
from oteo_core.images import InputPolicy
from oteo_core.packages import MetricValue, ModelPackage, TrialRecord
from oteo_core.packages.answers import ClassMap, Detections, Instances, TrueBoxes
from oteo_core.reporting import overlays

COUNT = 8
SIDE = 48
CLASSES = ("red & round", "blue")


def squares(index):
    """Two squares an image: places, and their class numbers."""
    rng = np.random.default_rng(index)
    x, y = rng.integers(2, 10, 2)
    return np.array([[x, y, x + 12, y + 12], [x + 18, y + 20, x + 30, y + 32]], dtype=np.float32), np.array([0, 1])


def picture(index):
    image = np.full((SIDE, SIDE, 3), 90, np.uint8)
    for (left, top, right, bottom), label in zip(squares(index)[0].astype(int), squares(index)[1], strict=True):
        image[top:bottom, left:right] = (200, 60, 60) if label == 0 else (60, 60, 200)
    return image


def detection():
    truths, found = [], []
    for index in range(COUNT):
        boxes, labels = squares(index)
        truths.append(TrueBoxes(boxes, labels, np.zeros(2, dtype=bool)))
        kept = slice(0, 1) if index == 0 else slice(0, 2)  # The first image misses its second square.
        answer, named = boxes[kept], labels[kept]
        scores = np.array([0.9, 0.8][: len(named)], np.float32)
        if index == 1:  # The second has a false alarm.
            answer, named = np.concatenate([answer, [[40, 2, 46, 8]]]).astype(np.float32), np.append(named, 1)
            scores = np.append(scores, np.float32(0.6))
        found.append(Detections(answer, scores, named))
    return truths, found, evaluate_detection(truths, found, CLASSES, threshold=0.5), {"threshold": 0.5}, "map50_95"


def class_maps(index):
    labels = np.zeros((SIDE, SIDE), np.uint8)
    for (left, top, right, bottom), label in zip(squares(index)[0].astype(int), squares(index)[1], strict=True):
        labels[top:bottom, left:right] = label + 1
    return labels


def semantic():
    truths = [ClassMap(class_maps(index)) for index in range(COUNT)]
    found = [ClassMap(np.roll(class_maps(index), 2 if index else 0, axis=1)) for index in range(COUNT)]
    found[3] = ClassMap(np.where(class_maps(3) == 2, 0, class_maps(3)).astype(np.uint8))
    counted = PixelCalibration()
    for truth, answer in zip(truths, found, strict=True):
        probabilities = np.full((3, SIDE, SIDE), 0.1, np.float32)
        np.put_along_axis(probabilities, answer.labels[None].astype(np.int64), np.float32(0.8), axis=0)
        counted.add(probabilities, truth.labels)
    options = {"calibration": counted.result(), "certainty": np.array(counted.certainty)}
    return truths, found, evaluate_semantic(truths, found, CLASSES), options, "dice"


def objects(index, drop=False):
    ids = class_maps(index).astype(np.int32)
    if drop:
        ids[ids == 2] = 0
        return Instances(ids, np.array([0]), np.array([0.9], np.float32))
    return Instances(ids, np.array([0, 1]), np.array([0.9, 0.7], np.float32))


def instances():
    truths, found = [objects(index) for index in range(COUNT)], [objects(index, drop=index == 0) for index in range(COUNT)]
    return truths, found, evaluate_instances(truths, found, CLASSES), {}, "pq"


def report(task, **more):
    names = [f"s{index}" for index in range(COUNT)]
    where = {"ids": names, "sources": [f"folder/{name}.png" for name in names], "groups": None, "pixels": picture}
    if task == "multi_label_classification":
        rng = np.random.default_rng(0)
        labels = rng.random((COUNT, 2)) < 0.5
        labels[:2] = [[True, False], [False, True]]
        probabilities = np.clip(labels * 0.6 + 0.2 + rng.normal(0, 0.15, labels.shape), 0.01, 0.99)
        part = gather_labels(labels, probabilities, probabilities**2, np.array([0.5, 0.6]), CLASSES, **where)
        metrics, objective = evaluate_multilabel(labels, probabilities, CLASSES), "mean_average_precision"
    else:
        truths, found, metrics, options, objective = {
            "detection": detection,
            "semantic_segmentation": semantic,
            "instance_segmentation": instances,
        }[task]()
        part = gather_dense(task, truths, found, CLASSES, **where, **options)
    splits = tuple(SplitCount(name, COUNT, COUNT) for name in ("train", "validation", "test"))
    trials = [
        TrialRecord("t1", "first", {"rate": 0.001}, metrics=[MetricValue(objective, 0.61, 0.5, 0.7, split="validation")], duration=60),
        TrialRecord("t2", "second", {}, "failed", message="diverged twice"),
    ]
    package = ModelPackage(
        id="m",
        display_name="Model <one>",
        uid="u",
        task=task,
        classes=list(CLASSES),
        dataset="datasets/d",
        dataset_digest="f" * 64,
        candidate="first",
        input=InputPolicy(width=64, height=64, channels=3, dtype="uint8", resize="letterbox", interpolation="area"),
        create_time=datetime(2026, 11, 24, tzinfo=UTC),
        metrics=metrics,
        trials=trials,
        operation="operations/automl-x",
        budget=240,
        training_time=100,
        details={"winner_trial": "t1", "initial_weights": "scratch"},
    )
    return ReportData(
        package=package,
        dataset=DatasetInfo(
            id="d",
            display_name="Data & more",
            classes=CLASSES,
            splits=splits,
            class_info=tuple(ClassInfo(name, 24, 31, splits) for name in CLASSES),
            findings=(FindingCount("LEAK_GROUP", "warning", 3),),
        ),
        part=part,
        count=COUNT,
        group_count=COUNT,
        training_counts=[40, 40],
        objective=objective,
        exporter="written by a test",
        **more,
    )


TASKS = ("detection", "semantic_segmentation", "instance_segmentation", "multi_label_classification")


class Outline(HTMLParser):
    """Collects open tags, links, anchors and text."""

    def __init__(self):
        super().__init__()
        self.open, self.links, self.ids, self.text = [], [], set(), []

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.links += [value for name, value in attributes.items() if name in ("src", "href")]
        if "id" in attributes:
            self.ids.add(attributes["id"])
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def parse(page):
    outline = Outline()
    outline.feed(page.decode())
    outline.close()
    return outline, " ".join("".join(outline.text).split())


@pytest.mark.parametrize("task", TASKS)
def test_every_task_has_a_page_and_a_card_that_stand_alone(task):
    data = report(task)
    outline, text = parse(write_html(data))
    assert outline.open == []
    assert all(link.startswith("data:image/") or link[1:] in outline.ids for link in outline.links), outline.links
    assert "nan" not in text.lower().split()
    assert "StrictUndefined" not in text
    for metric in data.package.metrics[:2]:
        assert f"{metric.value:.3f}" in text, metric
    for words in (
        "Model <one>",
        "red & round",
        "LEAK_GROUP",
        "figures are too good",
        "trained from scratch",
        "Limits of use",
        "diverged twice",
    ):
        assert words in text, words
    card = write_card(data).decode()
    assert card.startswith("# Model \\<one\\>")
    for heading in ("Model details", "Intended use", "Training and evaluation data", "Metrics", "Caveats"):
        assert f"\n## {heading}" in card
    assert "| red & round |" in card
    assert "\n\n\n\n" not in card


def test_everything_optional_is_shown_when_it_is_there():
    table = ScoreTable(
        ("first", "second"), np.array([[0.6, 0.61, 0.62, 0.6, 0.63, 0.6], [0.5, 0.52, 0.51, 0.5, 0.52, 0.49]]), "map50_95", test_share=0.2
    )
    data = report(
        "detection",
        significance=compare_candidates(table, "detection", baseline="second"),
        shifts=ShiftReport(
            "map50_95", 0.6, (ShiftResult("blur", 1, "a", 0.55), ShiftResult("blur", 2, "b", 0.2)), COUNT, ("stain: grey images",)
        ),
        subgroups=[Subgroup("scanner", "B", 20, 0.3, 0.2, 0.4, "map50_95")],
        data_curve=DataCurve(
            "map50_95", "first", (10, 20, 40), (0.3, 0.4, 0.5), 0.2, 2.0, 0.5, 0.55, 0.5, 0.6, sentence="Twice the images."
        ),
        front=[FrontPoint("first", 20, 0.6, chosen=True), FrontPoint("tiny", 3, 0.4), FrontPoint("beaten", 30, 0.3)],
        curves=[LearningCurve("first", [1, 2], [1.0, 0.5], [], [], True, [1, 2], [0.2, 0.4], "map50_95")],
        notes=["A note."],
    )
    outline, text = parse(write_html(data))
    assert outline.open == []
    for words in (
        "first is better than the runner-up, which is the cheap baseline, second: mean mAP (IoU .50 to .95) 0.610",
        "Simulated shifts harm it: mAP (IoU .50 to .95) 0.375 on average instead of 0.600; worst under blur, 0.200.",
        "stain: grey images",
        "It is clearly worse on some: scanner B (0.300 on 20 images).",
        "Twice the images.",
        "Accuracy against time",
        "A note.",
    ):
        assert words in text, words
    assert {"others", "change", "more"} <= outline.ids
    assert "Simulated shifts harm it" in write_card(data).decode()


def test_the_worst_images_come_first_with_what_went_wrong():
    worst = report("detection").part.worst
    assert (worst[0].sample, worst[0].words) == ("s0", "finds 1 of 2, no false alarm")
    assert (worst[1].sample, worst[1].words) == ("s1", "finds 2 of 2, 1 false alarm")
    assert len(worst) == 2
    worst = report("semantic_segmentation").part.worst
    assert (worst[0].sample, worst[0].words) == ("s3", "misses blue altogether")
    worst = report("instance_segmentation").part.worst
    assert (worst[0].sample, worst[0].words) == ("s0", "finds 1 of 2, no false alarm")


def test_curves_and_thresholds_count_what_is_there():
    part = report("detection").part
    assert list(part.object_counts) == [COUNT, COUNT]
    blue = part.precision_recall[1]
    assert blue.recall[-1] == (COUNT - 1) / COUNT
    assert blue.precision[-1] == (COUNT - 1) / COUNT  # Seven found, one false alarm below them.
    chosen = next(row for row in part.thresholds if row.chosen)
    assert (chosen.threshold, chosen.recall, chosen.false_per_image) == (0.5, 15 / 16, 1 / COUNT)
    assert part.confusion.tolist() == [[8, 0, 0], [0, 7, 1], [0, 1, 0]]
    counted = report("instance_segmentation").part
    assert counted.true_counts.tolist() == [2] * COUNT
    assert counted.found_counts.tolist() == [1] + [2] * (COUNT - 1)
    assert report("semantic_segmentation").part.confusion.sum() == COUNT * SIDE * SIDE


def test_verdicts_follow_the_figures():
    good = report("semantic_segmentation")
    good.count = 100
    assert verdict(good).good
    bad = report("semantic_segmentation")
    bad.package.metrics = [dataclasses.replace(one, value=0.1, lower=0.05, upper=0.2) for one in bad.package.metrics if one.name == "dice"]
    assert verdict(bad).headline == "Not shown to be of use"
    assert "Few test objects: red & round" not in " ".join(limits(report("detection")))
    assert "“blue” (8)" in " ".join(limits(report("detection")))


def decode(uri):
    data = np.frombuffer(base64.b64decode(uri.split(",")[1]), np.uint8)
    return cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def near(picture, colour):
    return np.abs(picture.astype(int) - colour).sum(axis=2) < 40


def test_boxes_are_drawn_where_they_are_and_missed_ones_dashed():
    image = np.full((200, 300, 3), 128, np.uint8)
    truth = np.array([[20, 20, 80, 80], [180, 100, 260, 180]])
    drawn = decode(overlays.detections_picture(image, truth, [True, False], truth[:1] + 1, [True]))
    right, missed, false = (near(drawn, colour) for colour in (overlays.RIGHT, overlays.MISSED, overlays.FALSE))
    assert right[15:90, 15:90].sum() == right.sum() > 300
    assert missed[95:185, 175:265].sum() == missed.sum() > 100
    assert not false.any()
    assert missed.sum() / (2 * (80 + 80)) < right.sum() / (4 * 60)


def test_differences_and_outlines_have_their_colours():
    image = np.zeros((100, 100, 1), np.uint16)
    truth, answer = np.zeros((100, 100), np.uint8), np.zeros((100, 100), np.uint8)
    truth[20:60, 20:60] = 1
    answer[40:80, 20:60] = 1
    truth[90:] = 255
    answer[90:] = 1
    drawn = decode(overlays.difference_picture(image, answer, truth, strength=1.0))
    scale = drawn.shape[0] // 100
    assert near(drawn, overlays.MISSED)[30 * scale, 40 * scale]
    assert near(drawn, overlays.FALSE)[70 * scale, 40 * scale]
    assert drawn[50 * scale, 40 * scale, 2] > drawn[50 * scale, 40 * scale, 0]
    assert not drawn[95 * scale, 40 * scale].any()
    outlines = decode(
        overlays.instances_picture(image, answer.astype(np.int32) * (truth < 2), [False], truth.astype(np.int32) * (truth < 2), [False])
    )
    assert near(outlines, overlays.FALSE).sum() > 50
    assert near(outlines, overlays.MISSED).sum() > 20


def test_heat_of_a_letterboxed_image_lies_on_the_image():
    image = np.full((100, 200, 3), 128, np.uint8)
    policy = InputPolicy(width=64, height=64, channels=3, dtype="uint8", resize="letterbox", interpolation="area")
    heat = np.zeros((64, 64))
    heat[16:24, :] = 1.0  # The original fills rows 16 to 48: its upper quarter is hot.
    drawn = decode(overlays.heat_picture(image, heat, policy)).astype(int).sum(axis=2)
    assert drawn.shape == (100, 200)
    assert drawn[5:20].mean() > drawn[60:].mean() + 100


def test_drawing_leaves_the_image_as_it_is() -> None:
    image = np.full((128, 128, 3), 90, np.uint8)
    labels = np.zeros((128, 128), np.uint8)
    labels[30:90, 30:90] = 1
    drawn = overlays.draw_class_map(image, labels)
    assert (image == 90).all()
    assert not (drawn == 90).all()
