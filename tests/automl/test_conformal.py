"""Prediction sets: the finite-sample guarantee, and small cases by hand."""

from __future__ import annotations

import numpy as np
import pytest

from oteo_core.evaluation.conformal import check_conformal, fit_conformal, prediction_sets
from oteo_core.packages import Conformal


def draw(rng, count, classes=4, bias=0.0):
    labels = rng.integers(0, classes, count)
    logits = rng.normal(size=(count, classes)) * 2
    logits[np.arange(count), labels] += 1.5
    logits[:, 0] += bias
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return labels, probabilities


def test_quantile_worked_out_by_hand():
    # Nine cases, coverage 0.9: rank ceil(10 * 0.9) = 9, the largest misfit; eight cases would need a tenth.
    true = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1])
    probabilities = np.stack([true, 1 - true], axis=1)
    assert fit_conformal(np.zeros(9, dtype=int), probabilities, 0.9).quantile == pytest.approx(0.9)
    assert fit_conformal(np.zeros(9, dtype=int), probabilities, 0.5).quantile == pytest.approx(0.5)
    assert fit_conformal(np.zeros(8, dtype=int), probabilities[:8], 0.9).quantile == 1.0


@pytest.mark.parametrize("bias", [0.0, 3.0])
@pytest.mark.parametrize("coverage", [0.8, 0.9])
def test_covers_what_it_promises_whatever_the_model(coverage, bias):
    rng = np.random.default_rng(0)
    rates = []
    for _ in range(120):
        labels, probabilities = draw(rng, 60, bias=bias)
        conformal = fit_conformal(labels, probabilities, coverage)
        labels, probabilities = draw(rng, 200, bias=bias)
        sets = prediction_sets(probabilities, conformal.quantile)
        rates.append(sets[np.arange(200), labels].mean())
    # At least the coverage, and by the theory at most 1 / 61 above it (the never-empty sets may add a little).
    assert coverage - 0.015 <= np.mean(rates) <= coverage + 0.045


def test_no_set_is_empty_and_the_first_class_is_in_it():
    probabilities = np.array([[0.5, 0.3, 0.2], [0.98, 0.01, 0.01]])
    sets = prediction_sets(probabilities, 0.1)
    assert sets.tolist() == [[True, False, False], [True, False, False]]
    assert Conformal(0.1, 0.9, 50).prediction_set({"a": 0.5, "b": 0.3, "c": 0.2}) == ["a"]
    assert Conformal(0.75, 0.9, 50).prediction_set({"c": 0.2, "b": 0.3, "a": 0.5}) == ["a", "b"]


def test_check_reports_coverage_sizes_and_an_interval():
    rng = np.random.default_rng(3)
    labels, probabilities = draw(rng, 500)
    conformal = fit_conformal(labels[:250], probabilities[:250], 0.9)
    found = check_conformal(labels[250:], probabilities[250:], conformal, groups=[f"g{i // 2}" for i in range(250)])
    assert found.interval.lower <= found.coverage <= found.interval.upper
    assert found.interval.lower <= 0.9 <= found.interval.upper
    assert sum(found.size_shares) == pytest.approx(1)
    assert found.mean_size == pytest.approx(sum((size + 1) * share for size, share in enumerate(found.size_shares)))


def test_refuses_a_coverage_that_means_nothing():
    with pytest.raises(ValueError, match="coverage"):
        fit_conformal(np.array([0]), np.array([[1.0, 0.0]]), 1.0)
