"""Several labels an image: read, cut into folds, searched, calibrated label by label."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from oteo_automl.candidates.classification import ClassificationLesson, TrainingRows, asymmetric_loss
from oteo_automl.candidates.registry import CANDIDATES
from oteo_automl.evaluation.label_calibration import (
    check_label_sets,
    choose_thresholds,
    fit_label_sets,
    fit_labels,
    label_calibration_error,
    sigmoid,
)
from oteo_automl.search.budget import Budget
from oteo_automl.search.checkpoints import StoredCheckpoints
from oteo_automl.search.classification_pieces import Problem
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
from oteo_core.images import InputPolicy, encode_png
from oteo_core.jobs.executor import InlineExecutor

CLASSES = ("bar", "bright", "grain", "never")


def draw(count: int, seed: int = 0, size: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """Grey pictures that may have a white bar, be bright and be grainy; nothing is never there."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((count, 3), dtype=np.int64)
    labels[:, 0] = rng.random(count) < 0.4
    labels[:, 1] = rng.random(count) < 0.5
    labels[:, 2] = rng.random(count) < 0.2
    images = np.empty((count, size, size, 1), dtype=np.uint8)
    for index, (bar, bright, grain) in enumerate(labels):
        pixels = np.full((size, size), 80.0 + 40 * bright + rng.normal(0, 12))
        pixels += rng.normal(0, 26 if grain else 8, (size, size))
        if bar:
            at = int(rng.integers(4, size - 8))
            pixels[at : at + 4] += 60
        images[index, :, :, 0] = np.clip(pixels, 0, 255)
    return images, labels


@pytest.fixture
def dataset(tmp_path):
    store = ArtifactStore(f"file://{tmp_path}/store")
    images, labels = draw(60)
    info = DatasetInfo(id="marks", display_name="Marks", task="multi_label_classification", classes=CLASSES)
    with DatasetWriter(store, "datasets/marks", info) as writer:
        for index in range(60):
            names = tuple(name for name, has in zip(CLASSES, labels[index], strict=False) if has)
            split = ("train", "train", "validation", "test")[index % 4]
            if split == "test" and index == 59:
                names = ("bar", "never")
            writer.add(
                Sample(
                    id=f"s{index}",
                    path=writer.add_media(f"{index}.png", encode_png(images[index])),
                    width=32,
                    height=32,
                    channels=1,
                    dtype="uint8",
                    split=split,
                    labels=names,
                )
            )
        writer.finish()
    return DatasetReader(store, "marks"), labels


def test_images_without_any_label_are_samples_and_unlearnable_classes_are_named(dataset):
    reader, labels = dataset
    data, samples = read_table(reader)
    assert data.classes == CLASSES[:3]
    assert len(samples) == 60
    assert data.labels.shape == (60, 3)
    assert (data.labels[:59] == labels[:59]).all()
    assert (data.labels.sum(axis=1) == 0).any()
    assert data.labels[59].tolist() == [1, 0, 0]
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
        classes=CLASSES[:3],
        ids=[f"s{row}" for row in rows],
        groups=[""] * len(rows),
    )
    limit = Budget.resume(problem.checkpoints, budget, 1.0)
    done = Search(ClassificationWork(problem, settings), InlineExecutor(), limit, Plan(), NoTracker())
    result = done.run()
    result.trials = done.records()
    return result


def test_a_search_learns_several_labels(tmp_path):
    torch.set_num_threads(1)
    images, labels = draw(160)
    names = ["haralick-logistic", "classical-svm", "hog-neighbours"]
    result = search(tmp_path, images, labels, names, budget=13.0)
    fresh, truth = draw(120, seed=9)
    with torch.inference_mode():
        logits = result.best.module(torch.from_numpy(fresh)).numpy()
    figures = score(logits, truth)
    assert figures["mean_average_precision"] > 0.9
    assert figures["auroc"] > 0.93
    assert result.best.validation.logits.shape == result.best.validation.labels.shape
    assert {trial.candidate for trial in result.trials} >= set(names)
    assert {metric.name for metric in result.trials[0].metrics} >= {"mean_average_precision", "auroc", "f1", "log_loss"}


def test_networks_learn_several_labels(tmp_path):
    torch.set_num_threads(1)
    images, labels = draw(160)
    rows = np.arange(160)
    lesson = ClassificationLesson(TrainingRows(images, labels, rows[:120], rows[120:], 3), 0)
    lesson.place(torch.device("cpu"))
    planes, target = lesson.batch(rows[:8])
    assert planes.shape == (8, 1, 32, 32)
    assert target.tolist() == labels[:8].tolist()
    result = search(tmp_path, images, labels, ["haralick-logistic", "timm-resnet10t"], budget=12.0)
    fresh, truth = draw(120, seed=9)
    with torch.inference_mode():
        logits = result.best.module(torch.from_numpy(fresh)).numpy()
    # "bright" is the easiest to learn in so few epochs.
    assert score(logits[:, 1:2], truth[:, 1:2])["auroc"] > 0.8


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
