"""The page and the card: what they say in good and in bad cases, and that they stand alone."""

from __future__ import annotations

import base64
import re
import time
from datetime import UTC, datetime
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest

from oteo_automl.report.cases import choose_cases
from oteo_automl.report.charts import LearningCurve
from oteo_automl.report.data import Case, ClassificationPart, PointCheck, ReportData
from oteo_automl.report.page import write_card, write_html, write_predictions
from oteo_automl.report.verdicts import limits, verdict
from oteo_automl.report.words import listing
from oteo_core.datasets import DatasetInfo
from oteo_core.datasets.info import ClassInfo, FindingCount, SplitCount
from oteo_core.evaluation.classification import evaluate
from oteo_core.evaluation.conformal import check_conformal, fit_conformal
from oteo_core.evaluation.operating import choose_points, rates_at
from oteo_core.images import InputPolicy
from oteo_core.packages import MetricValue, ModelPackage, TrialRecord
from oteo_core.reporting.pictures import thumbnail


def report(sharpness=2.0, classes=("no", "yes"), count=120, seed=0, trials=(), curves=(), duplicates=0, training=None):
    """Draw a classifier's answers and gather a report on them."""
    rng = np.random.default_rng(seed)
    k = len(classes)

    def draw(n):
        labels = np.arange(n) % k
        logits = rng.normal(size=(n, k))
        logits[np.arange(n), labels] += sharpness
        p = np.exp(logits)
        return labels, p / p.sum(axis=1, keepdims=True)

    calibration, (labels, probabilities) = draw(80), draw(count)
    conformal = fit_conformal(*calibration, 0.9)
    points = choose_points(*calibration, classes)
    splits = tuple(SplitCount(name, count, count) for name in ("train", "validation", "test"))
    package = ModelPackage(
        id="m",
        display_name="Model <one>",
        uid="u",
        task="classification",
        classes=list(classes),
        dataset="datasets/d",
        dataset_digest="f" * 64,
        candidate="resnet18",
        input=InputPolicy(width=64, height=64, channels=1, dtype="uint8", resize="stretch", interpolation="area"),
        create_time=datetime(2026, 11, 24, tzinfo=UTC),
        temperature=1.4,
        calibration={},
        conformal=conformal,
        operating_points=points,
        metrics=evaluate(labels, probabilities, classes, seed=seed),
        trials=list(trials),
        operation="operations/automl-x",
        budget=240,
        training_time=100,
    )

    def case(index):
        order = np.argsort(-probabilities[index])
        ranked = tuple((classes[i], float(probabilities[index, i])) for i in order)
        return Case(f"s{index}", f"folder/{index}.png", thumbnail(np.full((8, 8, 1), index, np.uint8)), classes[labels[index]], ranked)

    worst, unsure = choose_cases(labels, probabilities, np.arange(count))
    return ReportData(
        package=package,
        dataset=DatasetInfo(
            id="d",
            display_name="Data & more",
            classes=tuple(classes),
            splits=splits,
            class_info=tuple(ClassInfo(name, count, count, splits) for name in classes),
            findings=(FindingCount("TINY_IMAGE", "warning", 3),),
            exact_duplicate_groups=duplicates,
            near_duplicate_groups=duplicates,
        ),
        part=ClassificationPart(
            labels=labels,
            probabilities=probabilities,
            before=probabilities**1.4 / (probabilities**1.4).sum(axis=1, keepdims=True),
            conformal=check_conformal(labels, probabilities, conformal),
            points=[PointCheck(p, *rates_at(labels, probabilities, classes.index(p.class_name), p.threshold)) for p in points],
            worst=[case(i) for i in worst],
            unsure=[case(i) for i in unsure],
        ),
        count=count,
        group_count=count,
        training_counts=list(training or [100] * k),
        curves=list(curves),
        exporter="written by a test",
    )


class Outline(HTMLParser):
    """Collects tags that are open at the end, links out of the page, and its text."""

    def __init__(self):
        super().__init__()
        self.open, self.links, self.ids, self.text = [], [], set(), []

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.links += [value for name, value in attributes.items() if name in ("src", "href") and value]
        if "id" in attributes:
            self.ids.add(attributes["id"])
        if tag not in ("meta", "img", "br", "link", "input", "hr"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def parse(page: bytes) -> Outline:
    outline = Outline()
    outline.feed(page.decode())
    outline.close()
    return outline


def test_page_is_whole_and_stands_alone():
    trial = TrialRecord("t1", "resnet18 & co", {"learning_rate": 0.0012345, "parts": ["a", "b"]}, duration=61)
    curve = LearningCurve("resnet18", [1, 2, 3], [1.0, 0.5, 0.2], [1, 3], [0.9, 0.6], best=True)
    data = report(trials=[trial], curves=[curve], duplicates=22)
    start = time.process_time()
    page = write_html(data)
    assert time.process_time() - start < 5
    assert len(page) < 3_000_000
    outline = parse(page)
    assert outline.open == []
    for link in outline.links:
        assert link.startswith(("data:image/", "#")), link
        if link.startswith("#"):
            assert link[1:] in outline.ids
    assert b"default-src 'none'" in page
    assert b"Model &lt;one&gt;" in page
    text = " ".join("".join(outline.text).split())
    for words in (
        "22 groups of exact duplicates",
        "TINY_IMAGE",
        "resnet18 & co",
        "learning rate 0.00123, parts a + b",
        "f" * 64,
        "Data & more",
        "1 min 40 s of 4 min given, 1 trial",
        "Limits of use",
    ):
        assert words in text, words
    # Every drawing is a well-formed picture.
    for encoded in re.findall(rb"data:image/svg\+xml;base64,([A-Za-z0-9+/=]+)", page):
        assert base64.b64decode(encoded).rstrip().endswith(b"</svg>")


def test_the_list_of_trials_says_how_sure_its_order_is():
    told = MetricValue("log_loss", 0.312, 0.214, 0.455, 0.95, "validation", sample_count=57)
    trials = [
        TrialRecord("t1", "resnet18", metrics=[told], objective=0.312),
        TrialRecord("t2", "old", metrics=[MetricValue("log_loss", 0.5)], objective=0.5),
    ]
    data = report(trials=trials)
    data.objective = "log_loss"
    text = " ".join("".join(parse(write_html(data)).text).split())
    assert "0.312(0.214 to 0.455)" in text
    assert "of the best 1 trial each for itself, by resampling whole groups of the 57 images that they are compared on" in text
    card = write_card(data).decode()
    assert "| resnet18 | finished | 0.312 | 0.214 to 0.455 |" in card
    assert "| old | finished | 0.500 | – |" in card
    # Without any interval nothing is said of them.
    bare = write_card(report(trials=trials[1:])).decode()
    assert "| candidate | ended | log-loss | time |" in bare
    assert "each for itself" not in bare


def test_what_was_not_compared_or_measured_is_said_with_the_reason():
    data = report()
    bare = parse(write_html(data))
    assert not {"others", "more"} & set(bare.ids)
    data.not_compared, data.no_data_curve = ["No cheaper model was compared with it."], "It was not measured: too dear."
    page = parse(write_html(data))
    assert {"others", "more"} <= set(page.ids)
    text, card = " ".join("".join(page.text).split()), write_card(data).decode()
    for words in ("No cheaper model was compared with it.", "It was not measured: too dear."):
        assert words in text
        assert words in card


def test_verdict_follows_the_figures():
    assert verdict(report(sharpness=0.0)).headline == "Not shown to be better than guessing"
    assert not verdict(report(sharpness=0.0)).good
    assert "limits" in verdict(report(sharpness=1.0)).headline
    best = verdict(report(sharpness=8.0, count=200))
    assert best.good
    assert "very well" in best.headline
    assert "120 test images" in verdict(report()).sentences[0]


def test_page_says_in_figures_what_the_package_holds():
    data = report()
    text = "".join(parse(write_html(data)).text)
    for name in ("accuracy", "balanced_accuracy", "f1"):
        metric = data.package.metric(name)
        assert f"{100 * metric.value:.1f}\N{NO-BREAK SPACE}%" in text
        assert f"{100 * metric.lower:.1f} to {100 * metric.upper:.1f}\N{NO-BREAK SPACE}%" in text
    assert f"{data.package.metric('auroc').value:.3f}" in text


def test_limits_name_what_is_thin():
    said = " ".join(limits(report(count=24, training=[100, 10])))
    assert "Few test images: “no” (12), “yes” (12)" in said
    assert "no: 100, yes: 10" in said
    assert "No groups" in said
    assert "No groups" not in " ".join(limits(report(duplicates=3)))


@pytest.mark.parametrize(
    "options",
    [
        {"sharpness": 40.0},
        {"classes": tuple(f"class number {i} with a long name" for i in range(12)), "count": 240},
        {"count": 4},
        {"sharpness": -3.0},
    ],
    ids=["no mistakes", "twelve classes", "four test images", "worse than chance"],
)
def test_unusual_models_have_a_page_too(options):
    data = report(**options)
    outline = parse(write_html(data))
    assert outline.open == []
    assert "nan" not in " ".join(outline.text).lower().split()
    assert write_card(data).startswith(b"# Model \\<one\\>")
    if options.get("sharpness") == 40.0:
        assert "It made no mistake" in "".join(outline.text)


def test_card_tables_survive_odd_class_names():
    card = write_card(report(classes=("a|b", "c*d"))).decode()
    rows = [line for line in card.splitlines() if line.startswith("| a")]
    assert rows
    assert all(line.startswith("| a\\|b |") for line in rows)


def test_cases_are_the_surest_mistakes_one_a_group():
    labels = np.array([0, 0, 0, 1, 1, 1])
    first = np.array([0.9, 0.2, 0.1, 0.52, 0.8, 0.4])
    worst, unsure = choose_cases(labels, np.stack([first, 1 - first], axis=1), np.array([0, 1, 1, 2, 3, 4]), unsure=2)
    assert worst == [2, 4, 3]
    assert unsure == [5, 0]


def test_predictions_file_has_a_row_for_each_sample():
    data = write_predictions(
        ["a", "b"], ["x,1.png", "y"], ["", "g"], np.array([0, 1]), np.array([[0.7, 0.3], [0.6, 0.4]]), ["no", "yes"], 0.5
    )
    assert data.decode().splitlines() == [
        "sample,source_path,group,split,true,predicted,correct,prediction_set,p_no,p_yes",
        'a,"x,1.png",,test,no,no,1,no,0.700000,0.300000',
        "b,y,g,test,yes,no,0,no,0.600000,0.400000",
    ]


@pytest.mark.parametrize(
    ("pixels", "shape"),
    [
        (np.full((600, 300, 3), 200, np.uint8), (300, 150)),
        (np.arange(64 * 64, dtype=np.uint16).reshape(64, 64, 1) * 16, (64, 64)),
        (np.random.default_rng(0).random((20, 30, 5), dtype=np.float32), (20, 30)),
        (np.random.default_rng(0).normal(0, 900, (20, 30, 1)).astype(np.float32), (20, 30)),
        (np.zeros((5, 5, 2), np.uint8), (5, 5)),
    ],
)
def test_any_image_becomes_a_small_picture(pixels, shape):
    uri = thumbnail(pixels)
    picture = cv2.imdecode(np.frombuffer(base64.b64decode(uri.split(",")[1]), np.uint8), cv2.IMREAD_UNCHANGED)
    assert picture.shape[:2] == shape
    if pixels.dtype == np.uint16:
        assert picture.min() < 10
        assert picture.max() > 245


def test_lists_read_as_sentences():
    assert listing(["a"]) == "a"
    assert listing(["a", "b", "c"]) == "a, b and c"
    assert listing([str(i) for i in range(20)], 3) == "0, 1, 2 and 17 others"
