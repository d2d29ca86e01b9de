"""Temperature scaling, the calibration error and the operating points."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as sk

from oteo_core.evaluation.calibration import expected_calibration_error, fit_temperature, negative_log_likelihood, reliability, softmax
from oteo_core.evaluation.operating import OperatingRequest, choose_points, rates_at, roc_curve


def overconfident(rng, count, classes, factor):
    """Draw labels from the softmax of logits, and give the logits too large by a factor."""
    logits = rng.normal(size=(count, classes)) * 1.5
    honest = softmax(logits)
    labels = (honest.cumsum(axis=1) < rng.random((count, 1))).sum(axis=1)
    return labels, logits * factor


@pytest.mark.parametrize("factor", [0.4, 1.0, 3.0])
def test_finds_the_factor_that_spoiled_the_logits(factor):
    labels, logits = overconfident(np.random.default_rng(0), 4000, 3, factor)
    found = fit_temperature(logits, labels)
    assert found.temperature == pytest.approx(factor, rel=0.08)
    assert found.log_loss_after <= found.log_loss_before + 1e-9
    assert found.ece_after < 0.04
    assert not found.at_limit


def test_is_the_minimum_of_the_likelihood():
    labels, logits = overconfident(np.random.default_rng(1), 20_000, 4, 2.5)
    found = fit_temperature(logits, labels)
    for other in (0.97, 1.03):
        assert negative_log_likelihood(logits, labels, found.temperature * other) > found.log_loss_after


def test_all_right_does_not_make_it_infallible():
    labels = np.array([0, 1] * 8)
    logits = np.where(labels[:, None] == np.arange(2), 2.0, -2.0)
    found = fit_temperature(logits, labels)
    assert 0.2 < found.temperature < 1.0
    assert softmax(logits, found.temperature).max() < 0.9999


def test_ece_of_honest_probabilities_is_small_and_of_boasting_ones_is_not():
    rng = np.random.default_rng(2)
    labels, logits = overconfident(rng, 5000, 3, 4.0)
    for equal_mass in (False, True):
        assert expected_calibration_error(labels, softmax(logits), equal_mass=equal_mass) > 0.15
        assert expected_calibration_error(labels, softmax(logits / 4.0), equal_mass=equal_mass) < 0.03


def test_calibration_plot_counts_every_case_once():
    labels, logits = overconfident(np.random.default_rng(3), 150, 3, 1.0)
    points = reliability(labels, softmax(logits))
    assert sum(point.count for point in points) == 150
    assert all(point.lower <= point.accuracy <= point.upper for point in points)
    assert [point.confidence for point in points] == sorted(point.confidence for point in points)


def test_curve_agrees_with_scikit_learn():
    rng = np.random.default_rng(4)
    positive, scores = rng.random(80) < 0.4, rng.random(80).round(1)
    curve = roc_curve(positive, scores)
    false_alarms, found, thresholds = sk.roc_curve(positive, scores, drop_intermediate=False)
    np.testing.assert_allclose(1 - curve.specificity, false_alarms, atol=1e-12)
    np.testing.assert_allclose(curve.sensitivity, found)
    np.testing.assert_allclose(curve.thresholds, thresholds)


def test_requested_sensitivity_is_reached_and_no_threshold_above_does():
    rng = np.random.default_rng(5)
    labels = (rng.random(120) < 0.5).astype(int)
    score = np.clip(0.5 + 0.2 * (labels * 2 - 1) + 0.2 * rng.normal(size=120), 0.01, 0.99)
    probabilities = np.stack([1 - score, score], axis=1)
    wanted, specific, youden = choose_points(
        labels, probabilities, ["no", "yes"], [OperatingRequest("yes", sensitivity=0.95), OperatingRequest("yes", specificity=0.9)]
    )
    assert wanted.criterion == "sensitivity>=0.95"
    sensitivity, specificity = rates_at(labels, probabilities, 1, wanted.threshold)
    assert (sensitivity, specificity) == pytest.approx((wanted.sensitivity, wanted.specificity))
    assert sensitivity >= 0.95
    above = score[score > wanted.threshold].min()
    assert rates_at(labels, probabilities, 1, above + 1e-9)[0] < 0.95
    assert specific.specificity >= 0.9
    assert specific.criterion == "specificity>=0.9"
    assert (youden.class_name, youden.criterion) == ("yes", "youden")
    best = max(sum(rates_at(labels, probabilities, 1, t)) for t in np.linspace(0, 1, 2001))
    assert youden.sensitivity + youden.specificity == pytest.approx(best)


def test_every_class_of_several_has_a_point_and_an_absent_one_has_none():
    labels = np.array([0, 0, 1, 1, 0, 1])
    probabilities = np.array([[0.7, 0.2, 0.1], [0.6, 0.3, 0.1], [0.1, 0.8, 0.1], [0.3, 0.5, 0.2], [0.5, 0.2, 0.3], [0.2, 0.7, 0.1]])
    assert [point.class_name for point in choose_points(labels, probabilities, ["a", "b", "c"])] == ["a", "b"]


def test_unknown_class_is_refused():
    with pytest.raises(ValueError, match="maybe"):
        choose_points(np.array([0, 1]), np.eye(2), ["no", "yes"], [OperatingRequest("maybe", sensitivity=0.9)])
