"""Published models compared: by the same test images where that can be had, honestly where it cannot."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime

import numpy as np
import pytest
import structlog
from live_server import live_server
from sklearn.metrics import roc_auc_score
from typer.testing import CliRunner
from waiting import patient

from oteo.cli import app
from oteo_automl.comparing.comparing import compare_models
from oteo_automl.predictions.formats import write_predictions
from oteo_automl.predictions.records import ImageRecord, PredictionSet
from oteo_automl.report.page import write_predictions as training_predictions
from oteo_automl.service import AutoML
from oteo_automl.settings import AutoMLSettings
from oteo_core.artifacts import open_store
from oteo_core.datasets import Box, DatasetInfo, DatasetWriter, MaskEncoding, Sample
from oteo_core.errors import InvalidArgument
from oteo_core.evaluation.paired import compare_paired, delong, delong_p
from oteo_core.images import InputPolicy, encode_png
from oteo_core.jobs import ProcessJobRunner
from oteo_core.packages import MetricValue, ModelPackage
from oteo_core.packages.answers import ClassMap, Detections
from oteo_core.settings import CoreSettings

SIDE = 32
COUNT = 40
SQUARES = [np.array([[4 + index % 7, 5 + index % 5, 16 + index % 7, 17 + index % 5]], np.float32) for index in range(COUNT)]


@pytest.fixture
def store(tmp_path):
    return open_store(CoreSettings(home=tmp_path))


def truth_map(index):
    labels = np.zeros((SIDE, SIDE), np.uint8)
    left, top, right, bottom = SQUARES[index][0].astype(int)
    labels[top:bottom, left:right] = 1
    return labels


def make_dataset(store, task, name="cells"):
    """Draw a dataset of squares; gives its digest and the samples' ids."""
    mask = MaskEncoding("class", (1,)) if task == "semantic_segmentation" else None
    writer = DatasetWriter(store, f"datasets/{name}", DatasetInfo(id=name, task=task, classes=("square",), mask=mask))
    for index in range(COUNT):
        pixels = np.full((SIDE, SIDE, 3), index * 3, np.uint8)
        fields = {}
        if task == "detection":
            left, top, right, bottom = (float(edge) for edge in SQUARES[index][0])
            fields["boxes"] = (Box("square", left, top, right - left, bottom - top),)
        else:
            fields["mask_path"] = writer.add_media(f"mask{index}.png", encode_png(truth_map(index)[:, :, None]))
        writer.add(
            Sample(
                id=f"s{index}",
                path=writer.add_media(f"{index}.png", encode_png(pixels)),
                width=SIDE,
                height=SIDE,
                channels=3,
                dtype="uint8",
                split="test",
                group=f"g{index // 2}",
                **fields,
            )
        )
    return writer.finish().digest


def publish(store, name, task, classes, answers, *, digest="d" * 64, truths=(), dataset="datasets/cells", ids=None, metrics=(), **more):
    """Publish a package that keeps these answers of its test part."""
    images = [
        ImageRecord(one, f"{one}.png", SIDE, SIDE, group=f"g{index // 2}", split="test")
        for index, one in enumerate(ids or [f"s{index}" for index in range(len(answers))])
    ]
    kept = PredictionSet(task, tuple(classes), images, list(answers), [tuple(one) for one in truths])
    for file, content in write_predictions(kept, "csv").items():
        store.write_bytes(f"models/{name}/{file}", content)
    package = ModelPackage(
        id=name,
        display_name=name.title(),
        uid=name,
        task=task,
        classes=list(classes),
        dataset=dataset,
        dataset_digest=digest,
        candidate=f"made-{name}",
        input=InputPolicy(width=SIDE, height=SIDE, channels=3, dtype="uint8", resize="stretch", interpolation="area"),
        create_time=datetime(2026, 11, 24, tzinfo=UTC),
        metrics=list(metrics),
        **more,
    )
    store.write_bytes(f"models/{name}/package.json", package.to_json())
    return package


def classifier(store, name, sharpness, *, seed=0, count=120, classes=("no", "yes"), **more):
    """Publish a classifier that is right the more often the sharper it is."""
    labels = np.arange(count) % 2
    rng = np.random.default_rng(seed)
    p = 1 / (1 + np.exp(-(sharpness * (2 * labels - 1) + rng.normal(0, 1.5, count))))
    truths = [(("no", "yes")[label],) for label in labels]
    columns = {"no": 1 - p, "yes": p}
    answers = np.stack([columns[one] for one in classes], axis=1)
    package = publish(store, name, "classification", classes, answers, truths=truths, **more)
    # As a training writes them.
    ids, groups = [f"s{index}" for index in range(count)], [f"g{index // 2}" for index in range(count)]
    own = labels if classes[0] == "no" else 1 - labels
    store.write_bytes(f"models/{name}/predictions.csv", training_predictions(ids, ids, groups, own, answers, classes, 0.6))
    return package


def test_the_better_classifier_is_found_and_its_rival_of_equal_worth_is_not(store):
    packages = [classifier(store, "weak", 0.2), classifier(store, "strong", 2.0, seed=1), classifier(store, "twin", 2.0, seed=2)]
    found = compare_models(store, packages, metric="auroc")
    assert found.paired
    assert (found.images, found.groups) == (120, 60)
    assert found.models[-1].model == "models/weak"
    by_pair = {frozenset((one.first, one.second)): one for one in found.differences}
    clear, level = by_pair[frozenset(("models/strong", "models/weak"))], by_pair[frozenset(("models/strong", "models/twin"))]
    assert clear.shown
    assert clear.first == "models/strong"
    assert "models/strong is better than models/weak: AUROC 0." in clear.sentence
    assert dict(clear.tests)["DeLong (AUROC)"] < 0.001
    assert not level.shown
    assert "are not shown to differ" in level.sentence
    assert level.lower < 0 < level.upper


def test_friedmans_test_is_made_over_groups_of_three_models(store):
    packages = [classifier(store, "weak", 0.2), classifier(store, "strong", 2.0, seed=1), classifier(store, "twin", 2.0, seed=2)]
    found = compare_models(store, packages)
    assert found.metric == "log_loss"
    assert found.overall_p < 0.05
    assert "Friedman" in " ".join(found.sentences)
    assert found.models[0].metrics[0].value < found.models[-1].metrics[0].value


def test_the_order_of_classes_does_not_matter(store):
    packages = [classifier(store, "a", 1.0), classifier(store, "b", 1.0, classes=("yes", "no"))]
    found = compare_models(store, packages, metric="accuracy")
    assert found.models[0].metrics[0].value == found.models[1].metrics[0].value > 0.6
    assert not found.differences[0].shown


def test_detectors_are_compared_by_the_real_figure(store):
    digest = make_dataset(store, "detection")
    exact = [Detections(box, np.array([0.9], np.float32), np.array([0])) for box in SQUARES]
    rough = [
        Detections(box + (3 if index % 2 else 0), one.scores, one.labels)
        for index, (box, one) in enumerate(zip(SQUARES, exact, strict=True))
    ]
    packages = [
        publish(store, "rough", "detection", ("square",), rough, digest=digest, decoding={"score_threshold": 0.5}),
        publish(store, "exact", "detection", ("square",), exact, digest=digest, decoding={"score_threshold": 0.5}),
    ]
    found = compare_models(store, packages)
    assert found.metric == "map50_95"
    assert found.models[0].model == "models/exact"
    assert found.models[0].metrics[0].value == pytest.approx(1.0)
    assert found.differences[0].shown
    assert (found.images, found.groups) == (COUNT, COUNT // 2)


def test_segmenters_are_compared_on_the_images_that_both_answered(store):
    digest = make_dataset(store, "semantic_segmentation")
    good = [ClassMap(truth_map(index)) for index in range(COUNT)]
    shifted = [ClassMap(np.roll(one.labels, 2, axis=1)) for one in good[:30]]
    packages = [
        publish(store, "good", "semantic_segmentation", ("square",), good, digest=digest),
        publish(store, "shifted", "semantic_segmentation", ("square",), shifted, digest=digest),
    ]
    found = compare_models(store, packages)
    assert found.images == 30
    assert found.differences[0].first == "models/good"
    assert found.differences[0].shown
    assert "Dice" in found.differences[0].sentence
    # Truths that are gone leave the packages' own figures.
    store.delete("datasets/cells")
    again = compare_models(store, packages)
    assert not again.paired
    assert "truths cannot be read any more" in again.reason


def test_models_of_different_data_get_no_verdict(store):
    figure = MetricValue("accuracy", 0.9, 0.86, 0.94, 0.95, sample_count=100)
    near, far = MetricValue("accuracy", 0.88, 0.8, 0.93, 0.95), MetricValue("accuracy", 0.5, 0.4, 0.6, 0.95)
    packages = [
        classifier(store, "a", 1.0, metrics=[figure]),
        classifier(store, "b", 1.0, digest="e" * 64, metrics=[near]),
        classifier(store, "c", 1.0, digest="f" * 64, metrics=[far]),
    ]
    found = compare_models(store, packages, metric="accuracy")
    assert not found.paired
    assert [one.model for one in found.models] == ["models/a", "models/b", "models/c"]
    assert not any(one.shown or one.p_value is not None for one in found.differences)
    text = " ".join(found.sentences)
    assert "Nothing can be said of models/a and models/b" in text
    assert "intervals that do not meet" in text
    assert "tested on different data" in text


def test_models_of_other_questions_are_refused(store):
    one = classifier(store, "a", 1.0)
    other = publish(store, "b", "detection", ("no", "yes"), [])
    third = publish(store, "c", "classification", ("no", "maybe"), [np.array([0.5, 0.5])], truths=[("no",)])
    for packages, metric, reason in (
        ([one, other], "", "DIFFERENT_TASKS"),
        ([one, third], "", "DIFFERENT_CLASSES"),
        ([one, one], "dice", "UNKNOWN_METRIC"),
    ):
        with pytest.raises(InvalidArgument) as caught:
            compare_models(store, packages, metric=metric)
        assert caught.value.reason == reason


def test_delong_is_the_formula_written_out():
    rng = np.random.default_rng(7)
    positive = rng.random(120) < 0.4
    scores = np.stack([positive + rng.normal(0, 1, 120), positive * 0.5 + rng.normal(0, 1, 120), rng.normal(0, 1, 120).round()])
    areas, covariance = delong(positive, scores, np.arange(120))
    assert areas == pytest.approx([roc_auc_score(positive, one) for one in scores])
    # Psi of each pair: 1 where the positive is above the negative, a half where they are equal.
    here, there = scores[:, positive], scores[:, ~positive]
    psi = (here[:, :, None] > there[:, None]) + 0.5 * (here[:, :, None] == there[:, None])
    expected = np.cov(psi.mean(axis=2)) / here.shape[1] + np.cov(psi.mean(axis=1)) / there.shape[1]
    assert covariance == pytest.approx(expected)
    assert delong_p(areas, covariance, 0, 2) < 0.001
    assert delong_p(areas, covariance, 1, 1) == 1.0
    # Every image twice, in groups of two, says no more than once.
    twice, doubled = delong(np.tile(positive, 2), np.tile(scores, 2), np.tile(np.arange(120), 2))
    assert twice == pytest.approx(areas)
    assert doubled == pytest.approx(covariance)


def test_false_alarms_of_the_paired_comparison_are_few():
    rng = np.random.default_rng(1)
    alarms = 0
    for seed in range(80):
        values = rng.normal(size=(2, 60))
        scores = [lambda weights, row=row: weights @ row / weights.sum(axis=1) for row in values]
        alarms += compare_paired(scores, np.arange(60), seed=seed, resamples=200).differences[0].p_value < 0.05
    assert alarms / 80 < 0.15


def test_the_service_and_the_command_tell_it(tmp_path, monkeypatch):
    # The server's log is in this process: it must stay off the command's output.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    settings = AutoMLSettings(home=tmp_path, allow_anonymous=True)
    runner = ProcessJobRunner(tmp_path / "jobs", executor="inline")
    service = AutoML(settings, runner)
    classifier(service.operations.artifacts, "weak", 0.1)
    classifier(service.operations.artifacts, "strong", 2.5, seed=1)
    with live_server(settings, service.register) as server:
        server.run(service.start()).result(patient(30))
        monkeypatch.setenv("OTEO_ADDRESS", server.address)
        monkeypatch.setenv("OTEO_HOME", str(tmp_path))
        told = CliRunner().invoke(app, ["models", "compare", "weak", "strong"])
        as_json = CliRunner().invoke(app, ["models", "compare", "weak", "strong", "--metric", "accuracy", "--json"])
        refused = CliRunner().invoke(app, ["models", "compare", "weak", "gone"])
        server.run(service.stop()).result(patient(30))
    runner.close()
    structlog.reset_defaults()
    assert told.exit_code == 0, told.output
    assert "models/strong is better than models/weak" in told.output
    assert "made-strong" in told.output
    document = json.loads(as_json.stdout)
    assert document["metric"] == "accuracy"
    assert document["differences"][0]["shown"]
    assert refused.exit_code == 4
