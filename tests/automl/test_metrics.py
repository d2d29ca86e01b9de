"""Figures of a classifier against scikit-learn and against cases worked out by hand."""

from __future__ import annotations

import math
import time
import warnings

import numpy as np
import pytest
from sklearn import metrics as sk

from oteo_core.evaluation.bootstrap import encode_groups, generator, percentile_interval, resample_weights, wilson_interval
from oteo_core.evaluation.classification import OVERALL, PER_CLASS, evaluate
from oteo_core.evaluation.comparison import compare


def draw(rng, count, classes, sharpness=1.5, decimals=None):
    labels = rng.integers(0, classes, count)
    logits = rng.normal(size=(count, classes))
    logits[np.arange(count), labels] += sharpness
    if decimals is not None:
        logits = logits.round(decimals)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return labels, probabilities


def values(metrics):
    return {(metric.name, metric.class_name): metric.value for metric in metrics}


@pytest.mark.parametrize(("classes", "decimals"), [(2, None), (2, 0), (3, None), (5, 0)])
def test_agrees_with_scikit_learn(classes, decimals):
    rng = np.random.default_rng(classes)
    labels, probabilities = draw(rng, 240, classes, decimals=decimals)
    predicted = probabilities.argmax(axis=1)
    names = [f"c{k}" for k in range(classes)]
    got = values(evaluate(labels, probabilities, names, resamples=0))
    onehot = np.eye(classes)[labels]
    expected = {
        "accuracy": sk.accuracy_score(labels, predicted),
        "balanced_accuracy": sk.balanced_accuracy_score(labels, predicted),
        "f1": sk.f1_score(labels, predicted, average="macro"),
        "auroc": np.mean([sk.roc_auc_score(onehot[:, k], probabilities[:, k]) for k in range(classes)]),
        "auprc": np.mean([sk.average_precision_score(onehot[:, k], probabilities[:, k]) for k in range(classes)]),
        "log_loss": sk.log_loss(labels, probabilities),
        "brier": ((probabilities - onehot) ** 2).sum(axis=1).mean(),
        "mcc": sk.matthews_corrcoef(labels, predicted),
        "kappa": sk.cohen_kappa_score(labels, predicted),
    }
    for name, value in expected.items():
        assert got[name, ""] == pytest.approx(value, abs=1e-9), name
    for k, name in enumerate(names):
        truth, called = labels == k, predicted == k
        assert got["sensitivity", name] == pytest.approx(sk.recall_score(truth, called))
        assert got["specificity", name] == pytest.approx(sk.recall_score(~truth, ~called))
        assert got["precision", name] == pytest.approx(sk.precision_score(truth, called))
        assert got["f1", name] == pytest.approx(sk.f1_score(truth, called))
        assert got["auroc", name] == pytest.approx(sk.roc_auc_score(truth, probabilities[:, k]))
        assert got["auprc", name] == pytest.approx(sk.average_precision_score(truth, probabilities[:, k]))
    assert {name for name, _ in got} == {*OVERALL, *PER_CLASS}


def test_case_worked_out_by_hand():
    labels = np.array([0, 0, 1, 1])
    probabilities = np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.3, 0.7]])
    got = values(evaluate(labels, probabilities, ["no", "yes"], resamples=0))
    assert got["accuracy", ""] == 0.75
    assert got["sensitivity", "yes"] == 1.0
    assert got["specificity", "yes"] == 0.5
    assert got["auroc", ""] == 1.0
    assert got["log_loss", ""] == pytest.approx(-np.log([0.9, 0.4, 0.8, 0.7]).mean())
    # Each confidence lies in a bin of its own: the error is the mean of |right - confidence|.
    assert got["ece", ""] == pytest.approx(np.mean([0.1, 0.6, 0.2, 0.3]))


def test_what_is_not_defined_is_left_out():
    metrics = evaluate(np.zeros(12, dtype=int), np.tile([0.7, 0.2, 0.1], (12, 1)), ["a", "b", "c"], resamples=200)
    got = values(metrics)
    assert ("auroc", "") not in got
    assert ("sensitivity", "b") not in got
    assert got["accuracy", ""] == 1.0
    assert all(math.isfinite(metric.value) for metric in metrics)


def test_no_mistake_still_has_an_interval():
    labels = np.array([0, 1] * 10)
    probabilities = np.where(labels[:, None] == np.arange(2), 0.9, 0.1)
    accuracy = next(m for m in evaluate(labels, probabilities, ["a", "b"]) if m.name == "accuracy")
    assert accuracy.upper == 1.0
    assert accuracy.lower == pytest.approx(wilson_interval(1.0, 20).lower)
    assert 0.8 < accuracy.lower < 0.9


def test_wilson_against_a_published_value():
    # Newcombe, Statistics in Medicine 17 (1998), table I: 81 of 263, score method.
    interval = wilson_interval(81 / 263, 263)
    assert interval.lower == pytest.approx(0.2553, abs=1e-4)
    assert interval.upper == pytest.approx(0.3662, abs=1e-4)


def test_groups_are_drawn_whole_and_widen_the_interval():
    rng = np.random.default_rng(3)
    labels, probabilities = draw(rng, 60, 2, 0.8)
    labels, probabilities = np.repeat(labels, 5), np.repeat(probabilities, 5, axis=0)
    groups = [f"patient{index // 5}" for index in range(len(labels))]
    for weights in resample_weights(encode_groups(groups, len(labels)), generator(0, "t"), 50):
        assert (weights.reshape(len(weights), -1, 5) == weights[:, ::5, None]).all()
    alone = next(m for m in evaluate(labels, probabilities, ["a", "b"]) if m.name == "accuracy")
    grouped = next(m for m in evaluate(labels, probabilities, ["a", "b"], groups=groups) if m.name == "accuracy")
    assert alone.value == grouped.value
    # Five copies of each image say nothing new: the width must be sqrt(5) times that of 300 independent images.
    assert (grouped.upper - grouped.lower) / (alone.upper - alone.lower) == pytest.approx(math.sqrt(5), rel=0.15)


def test_empty_group_keys_are_groups_of_their_own():
    assert encode_groups(["", "", "p", "p", None], 5).tolist() == [0, 1, 2, 2, 3]


def test_weights_equal_repeating_the_samples():
    rng = np.random.default_rng(5)
    labels, probabilities = draw(rng, 50, 3, decimals=0)
    from oteo_core.evaluation.classification import Scorer

    weights = rng.integers(0, 4, (3, 50)).astype(float)
    weighted = Scorer(labels, probabilities).score(weights)
    for row, weight in enumerate(weights.astype(int)):
        index = np.repeat(np.arange(50), weight)
        plain = Scorer(labels[index], probabilities[index]).score(np.ones((1, len(index))))[0]
        keep = [column for column, (name, _) in enumerate(Scorer(labels, probabilities).names) if name != "ece_equal_mass"]
        np.testing.assert_allclose(weighted[row][keep], plain[keep], equal_nan=True)


def test_intervals_cover_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(11)
    truth, hits, runs = 0.0, 0, 150
    big_labels, big = draw(rng, 200_000, 2, 1.0)
    truth = float((big.argmax(axis=1) == big_labels).mean())
    for run in range(runs):
        labels, probabilities = draw(rng, 120, 2, 1.0)
        accuracy = next(m for m in evaluate(labels, probabilities, ["a", "b"], seed=run, resamples=400) if m.name == "accuracy")
        hits += accuracy.lower <= truth <= accuracy.upper
    assert 0.88 <= hits / runs <= 0.99


def test_same_seed_same_interval():
    labels, probabilities = draw(np.random.default_rng(1), 80, 3)
    first = evaluate(labels, probabilities, ["a", "b", "c"], seed=4)
    assert first == evaluate(labels, probabilities, ["a", "b", "c"], seed=4)
    assert first != evaluate(labels, probabilities, ["a", "b", "c"], seed=5)


def test_undefined_resamples_give_no_interval():
    assert percentile_interval(np.array([1.0] * 80 + [np.nan] * 20)) is None


def test_refuses_what_is_no_probability():
    with pytest.raises(ValueError, match="probabilities"):
        evaluate(np.array([0, 1]), np.array([[0.9, 0.4], [0.5, 0.5]]), ["a", "b"])
    with pytest.raises(ValueError, match="labels"):
        evaluate(np.array([0, 2]), np.array([[0.5, 0.5], [0.5, 0.5]]), ["a", "b"])


def test_better_model_is_called_better_and_the_same_is_not():
    rng = np.random.default_rng(7)
    labels, good = draw(rng, 300, 3, 3.0)
    poor = np.full_like(good, 1 / 3)
    verdict = compare(labels, good, poor, ("net", "guess"))
    assert verdict.difference < 0
    assert "net is better than guess" in verdict.sentence
    same = compare(labels, good, good.copy(), ("net", "twin"))
    assert "do not differ" in same.sentence
    assert same.mcnemar_p == 1.0


def test_mcnemar_worked_out_by_hand():
    labels = np.zeros(20, dtype=int)
    right, wrong = [0.9, 0.1], [0.1, 0.9]
    first = np.array([right] * 18 + [wrong] * 2)
    second = np.array([wrong] * 8 + [right] * 10 + [right] * 2)
    verdict = compare(labels, first, second, ("a", "b"), metric="accuracy")
    assert (verdict.only_first, verdict.only_second) == (8, 2)
    assert verdict.mcnemar_p == pytest.approx(2 * sum(math.comb(10, k) for k in range(3)) / 2**10)


def test_quick_enough():
    labels, probabilities = draw(np.random.default_rng(2), 400, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        start = time.process_time()
        evaluate(labels, probabilities, list("abcd"), groups=[f"g{i // 3}" for i in range(400)])
        assert time.process_time() - start < 3.0
