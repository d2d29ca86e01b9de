"""Answers for whole stacks and clips."""

from __future__ import annotations

import numpy as np

from oteo_core.evaluation.sequences import gather_sequences, sequence_metrics, sequence_notes
from oteo_core.packages import MetricValue


def test_a_clip_is_judged_as_a_whole():
    labels = np.array([0, 0, 0, 1, 1, 1])
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6], [0.45, 0.55], [0.1, 0.9], [0.6, 0.4]])
    found = gather_sequences(labels, probabilities, ["a", "a", "a", "b", "b", ""], ["p", "p", "p", "q", "q", "r"])
    assert found is not None
    assert found.labels.tolist() == [0, 1, 1]
    assert found.groups == ["p", "q", "r"]
    # Log-odds of the two frames of b: 0.20 and 2.20; their mean is 1.20.
    np.testing.assert_allclose(found.probabilities[1, 1], 1 / (1 + np.exp(-(np.log(0.55 / 0.45) + np.log(9)) / 2)), atol=1e-6)
    np.testing.assert_allclose(found.probabilities[2], [0.6, 0.4], atol=1e-6)
    assert found.probabilities.argmax(axis=1).tolist() == [0, 1, 0]


def test_labels_of_frames_have_no_whole_and_stills_neither():
    probabilities = np.full((2, 2), 0.5)
    assert gather_sequences(np.array([0, 1]), probabilities, ["a", "a"], ["", ""]) is None
    assert gather_sequences(np.array([0, 1]), probabilities, ["a", "b"], ["", ""]) is None
    assert gather_sequences(np.array([0, 1]), probabilities, ["", ""], ["", ""]) is None


def test_several_labels_stand_alone():
    labels = np.array([[1, 0, 1], [1, 0, 1]])
    found = gather_sequences(labels, np.array([[0.9, 0.1, 0.5], [0.9, 0.3, 0.5]]), ["a", "a"], ["", ""])
    np.testing.assert_allclose(found.probabilities, [[0.9, 0.1791, 0.5]], atol=1e-3)
    assert found.labels.tolist() == [[1, 0, 1]]


def test_both_figures_are_told():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(30) % 2, 5)
    right = np.clip(0.55 + 0.25 * rng.normal(size=150), 0.02, 0.98)
    probabilities = np.stack([np.where(labels == 0, right, 1 - right), np.where(labels == 1, right, 1 - right)], axis=1)
    names = [f"clip{index // 5}" for index in range(150)]
    found = sequence_metrics(labels, probabilities, ["a", "b"], names, names)
    whole = {metric.name: metric for metric in found}
    frames = float((probabilities.argmax(axis=1) == labels).mean())
    assert whole["sequence_accuracy"].value > frames
    assert whole["sequence_accuracy"].sample_count == 30
    assert whole["sequence_accuracy"].lower <= whole["sequence_accuracy"].value <= whole["sequence_accuracy"].upper
    (note,) = sequence_notes([MetricValue("accuracy", frames, split="test"), *found])
    assert f"against {frames:.3f} frame by frame" in note
    assert "(30 of them)" in note
    assert sequence_notes([MetricValue("accuracy", frames, split="test")]) == []
