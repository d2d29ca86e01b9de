"""Several labels an image: read, cut into folds, searched, calibrated label by label."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from training_tools import working_time
from waiting import patient

from oteo_automl.candidates.classification import ClassificationLesson, TrainingRows, asymmetric_loss
from oteo_automl.candidates.networks import NetworkClassifier
from oteo_automl.candidates.registry import CANDIDATES
from oteo_automl.candidates.training import Recipe, Trainer
from oteo_automl.predictions.table import read_csv
from oteo_automl.search.budget import Budget
from oteo_automl.search.checkpoints import StoredCheckpoints
from oteo_automl.search.classification_pieces import Problem, measure_growth
from oteo_automl.search.classification_work import ClassificationWork, Settings
from oteo_automl.search.data import ArrayCache, read_table
from oteo_automl.search.fingerprint import take_fingerprint
from oteo_automl.search.folds import make_folds, stratify_labels
from oteo_automl.search.result import Plan
from oteo_automl.search.scoring import score
from oteo_automl.search.search import Search
from oteo_automl.search.tracker import NoTracker
from oteo_core.artifacts import ArtifactStore
from oteo_core.datasets import DatasetInfo, DatasetReader, DatasetWriter, Sample
from oteo_core.errors import InvalidArgument
from oteo_core.evaluation.label_calibration import (
    check_label_sets,
    choose_thresholds,
    fit_label_sets,
    fit_labels,
    label_calibration_error,
    sigmoid,
)
from oteo_core.graphs.export import run_onnx
from oteo_core.images import InputPolicy, encode_png
from oteo_core.jobs.executor import InlineExecutor
from tests.label_sets import LABELS, draw_labels, write_labels
from tests.training_runs import inline_home


@pytest.fixture
def dataset(tmp_path):
    store = ArtifactStore(f"file://{tmp_path}/store")
    labels = write_labels(store, "marks", 60)
    return DatasetReader(store, "marks"), labels


def test_images_without_any_label_are_samples_and_unlearnable_classes_are_named(dataset):
    reader, labels = dataset
    data, samples = read_table(reader)
    assert data.classes == LABELS[:3]
    assert len(samples) == 60
    assert data.labels.shape == (60, 3)
    assert (data.labels == labels).all()
    assert (data.labels.sum(axis=1) == 0).any()
    assert data.left_out == {"with a class without training images, which is not looked for": 1}
    fingerprint = take_fingerprint(data)
    chosen = data.part("train", "validation")
    assert list(fingerprint.class_counts.values()) == data.labels[chosen].sum(axis=0).tolist()


def test_labels_that_every_image_has_are_nothing_to_learn(tmp_path):
    store = ArtifactStore(f"file://{tmp_path}/store")
    with DatasetWriter(store, "datasets/same", DatasetInfo(id="same", task="multi_label_classification", classes=("a",))) as writer:
        for index in range(4):
            path = writer.add_media(f"{index}.png", encode_png(np.zeros((8, 8, 1), np.uint8)))
            writer.add(Sample(id=f"s{index}", path=path, width=8, height=8, channels=1, dtype="uint8", split="train", labels=("a",)))
        writer.finish()
    with pytest.raises(InvalidArgument) as refused:
        read_table(DatasetReader(store, "same"))
    assert refused.value.reason == "SINGLE_CLASS"


def test_folds_share_out_every_label_and_keep_groups_together():
    rng = np.random.default_rng(3)
    labels = (rng.random((400, 6)) < [0.5, 0.3, 0.1, 0.05, 0.03, 0.02]).astype(np.int64)
    groups = rng.integers(0, 150, 400)
    folds = stratify_labels(labels, groups, 5, seed=1)
    assert all(len(set(folds[groups == one])) == 1 for one in set(groups.tolist()))
    shares = np.array([labels[folds == fold].sum(axis=0) for fold in range(5)])
    # As even as whole numbers, and groups, allow: within two of a fifth for rare labels, a fifth of it for frequent ones.
    assert (np.abs(shares - labels.sum(axis=0) / 5) <= np.maximum(2.0, 0.2 * labels.sum(axis=0) / 5)).all()
    random = rng.integers(0, 150, 150)[groups] % 5
    uneven = np.array([labels[random == fold].sum(axis=0) for fold in range(5)])
    assert shares.std(axis=0).mean() < 0.5 * uneven.std(axis=0).mean()
    assert (stratify_labels(labels, groups, 5, seed=1) == folds).all()


def test_labels_are_calibrated_one_by_one():
    rng = np.random.default_rng(0)
    truth = rng.normal(-1, 2, (3000, 2))
    labels = (rng.random(truth.shape) < sigmoid(truth)).astype(np.int64)
    boasting = truth * [4.0, 0.5] + [1.5, -1.0]
    found = fit_labels(boasting[:1500], labels[:1500])
    np.testing.assert_allclose(found.scale * [4.0, 0.5], 1.0, atol=0.2)
    after = sigmoid(found.apply(boasting[1500:]))
    assert label_calibration_error(labels[1500:], after) < 0.03 < 0.1 < label_calibration_error(labels[1500:], sigmoid(boasting[1500:]))
    thresholds = choose_thresholds(labels[:1500], sigmoid(found.apply(boasting[:1500])))
    said = after >= thresholds
    plain = after >= 0.5

    def f1(called):
        return 2 * (called & (labels[1500:] == 1)).sum(0) / (called.sum(0) + labels[1500:].sum(0))

    assert (f1(said) > f1(plain)).all()
    sets = fit_label_sets(labels[:1500], sigmoid(found.apply(boasting[:1500])), 0.9)
    check = check_label_sets(labels[1500:], after, sets)
    assert all(0.86 < share < 0.94 for share in check.label_coverage)
    # Told apart perfectly, or never there: still finite.
    perfect = fit_labels(np.array([[-9.0, 1.0], [9.0, -1.0]]), np.array([[0, 0], [1, 0]]))
    assert np.isfinite(perfect.scale).all()
    assert np.isfinite(perfect.bias).all()
    assert fit_label_sets(np.array([[1], [0]]), np.array([[0.9], [0.2]]), 0.9).tolist() == [0.0]


def search(path, images, labels, names, budget=20.0, seed=0):
    """Run a search in this process, as the service's job does."""
    rows = np.arange(len(images))
    training = rows % 4 != 3
    folds, count = make_folds(labels, training, [str(row) for row in rows], seed=seed)
    problem = Problem(
        cache=ArrayCache(images),
        labels=labels,
        rows=rows,
        folds=folds,
        fold_count=count,
        classes=labels.shape[1] if labels.ndim == 2 else int(labels.max()) + 1,
        seed=seed,
        checkpoints=StoredCheckpoints(f"file://{path}/checkpoints", "search"),
        scratch=str(path),
    )
    settings = Settings(
        candidates=[CANDIDATES[name] for name in names],
        objective="mean_average_precision",
        policy=InputPolicy(width=32, height=32, channels=images.shape[3], dtype="uint8"),
        classes=LABELS[:3],
        ids=[f"s{row}" for row in rows],
        groups=[""] * len(rows),
    )
    with working_time():
        limit = Budget.resume(problem.checkpoints, budget, 1.0)
        done = Search(ClassificationWork(problem, settings), InlineExecutor(), limit, Plan(), NoTracker())
        result = done.run()
    result.trials = done.records()
    return result


def test_a_search_learns_several_labels(tmp_path):
    torch.set_num_threads(1)
    images, labels = draw_labels(160)
    names = ["haralick-logistic", "classical-svm", "hog-neighbours"]
    result = search(tmp_path, images, labels, names, budget=6.0)
    fresh, truth = draw_labels(120, seed=9)
    with torch.inference_mode():
        logits = result.best.module(torch.from_numpy(fresh)).numpy()
    figures = score(logits, truth)
    # By chance a third, and .5; how much better depends on how many candidates the time allowed.
    assert figures["mean_average_precision"] > 0.7
    assert figures["auroc"] > 0.8
    assert result.best.validation.logits.shape == result.best.validation.labels.shape
    assert {trial.candidate for trial in result.trials} <= set(names) | {"blend"}
    assert {metric.name for metric in result.trials[0].metrics} >= {"mean_average_precision", "auroc", "f1", "log_loss"}


def test_what_more_images_with_several_labels_would_bring_is_measured_or_refused(tmp_path):
    torch.set_num_threads(1)
    images, labels = draw_labels(200)
    folds = np.where(np.arange(200) % 5 == 4, 0, 1)
    problem = Problem(ArrayCache(images), labels, np.arange(200), folds, 2, 3, 0, StoredCheckpoints(f"file://{tmp_path}", "search"))
    candidate, groups = CANDIDATES["haralick-logistic"], [""] * 200
    curve = measure_growth(problem, candidate, {"C": 1.0}, groups, seconds=patient(60))
    assert curve.metric == "mean_average_precision"
    assert max(curve.counts) == 160
    assert len(set(curve.counts)) == 4
    assert min(curve.counts) < 60
    # Better than the share of images that have a label, which is what guessing gives, and not worse with all images than with few.
    assert np.mean([value for count, value in zip(curve.counts, curve.scores, strict=True) if count == 160]) > 0.6
    assert curve.sentence
    assert "mean average precision" in curve.sentence or curve.refusal
    few = replace(problem, rows=np.arange(50), folds=folds[:50])
    refused = measure_growth(few, candidate, {"C": 1.0}, groups, seconds=patient(60))
    assert refused.counts == ()
    assert refused.sentence == (
        "What more images would bring about cannot be said: it takes 40 images to learn from and 30 held out, and there are 40 and 10."
    )
    nobody = measure_growth(replace(problem, labels=np.ones_like(labels)), candidate, {"C": 1.0}, groups, seconds=patient(60))
    assert "no label tells the held-out images apart" in nobody.sentence


def test_networks_learn_several_labels():
    torch.set_num_threads(1)
    images, labels = draw_labels(240)
    rows = np.arange(240)
    lesson = ClassificationLesson(TrainingRows(images, labels, rows[:160], rows[160:], 3), 0)
    lesson.place(torch.device("cpu"))
    planes, target = lesson.batch(rows[:8])
    assert planes.shape == (8, 1, 32, 32)
    assert target.tolist() == labels[:8].tolist()
    torch.manual_seed(0)
    network = NetworkClassifier("resnet10t", 3, 1, [0.4], [0.15])
    outcome = Trainer(network, lesson, Recipe(batch=16, strength="none"), seed=0).run(6, 6, time.time() + patient(120), judge_every=6)
    assert outcome.judgement.kept["logits"].shape == (80, 3)
    # Better than the shares of the labels (.4, .5 and .2, about .37 on average) by far.
    assert outcome.judgement.scores["mean_average_precision"] > 0.55


def test_the_asymmetric_loss_leaves_easy_negatives_alone():
    target = torch.zeros(1, 4)
    target[0, 0] = 1
    logits = torch.tensor([[0.0, 0.0, -4.0, -4.0]], requires_grad=True)
    asymmetric_loss(logits, target).backward()
    plain = torch.tensor([[0.0, 0.0, -4.0, -4.0]], requires_grad=True)
    asymmetric_loss(plain, target, 0.0).backward()
    torch.testing.assert_close(plain.grad, (torch.sigmoid(plain.detach()) - target) / 4)
    ratio = lambda grad: float(grad[0, 2] / grad[0, 1])  # noqa: E731
    assert ratio(logits.grad) < 0.02 < ratio(plain.grad)
    assert float(logits.grad[0, 0]) < 0


def test_a_training_publishes_a_model_of_several_labels(tmp_path, monkeypatch):
    torch.set_num_threads(1)
    home = inline_home(tmp_path, monkeypatch)
    labels = write_labels(home.store, "marks", 200)
    request = {"candidates": ["patches-logistic", "classical-logistic"], "operating_points": [{"class_name": "grain", "sensitivity": 0.9}]}
    response = home.train("datasets/marks", 12, **request)
    package = home.package(response)
    assert (package.task, package.classes) == ("multi_label_classification", list(LABELS[:3]))
    figures = {(metric.name, metric.class_name): metric.value for metric in package.metrics}
    assert figures["mean_average_precision", ""] > 0.8
    assert figures["label_set_coverage", ""] > 0.75
    assert {name for _, name in figures} == {"", *LABELS[:3]}
    assert package.calibration["method"] == "platt"
    assert len(package.decoding["score_threshold"]) == len(package.decoding["set_threshold"]) == 3
    points = {point.criterion: point for point in package.operating_points if point.class_name == "grain"}
    assert points["sensitivity>=0.9"].sensitivity >= 0.9
    # The graph that was published: each label stands alone, and the table holds its answers.
    graph = home.store.read_bytes(f"models/marks/{package.triton_path}/1/model.onnx")
    images, _ = draw_labels(200)
    test = np.arange(3, 200, 4)
    probabilities = run_onnx(graph, images[test])[0]
    assert (np.abs(probabilities.sum(axis=1) - 1) > 0.1).any()
    table = read_csv(home.store.read_bytes("models/marks/predictions.csv"))
    assert table.task == "multi_label_classification"
    np.testing.assert_allclose(np.stack(table.answers), probabilities, atol=1e-5)
    named = [tuple(name for name, has in zip(LABELS, row, strict=False) if has) for row in labels[test]]
    assert table.truths == named
    report = home.report(response)
    assert "grain" in report
    assert "bar" in report
