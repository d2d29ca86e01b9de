"""Intervals of what trials were compared by: from the answers that they keep, by group, for every task, and never about another figure."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from kept_checkpoints import Kept
from training_tools import write_discs

from oteo_automl.candidates.modules import SavedModule, saved
from oteo_automl.dense.base import find_task
from oteo_automl.dense.held_out import held_out_answers as dense_answers
from oteo_automl.dense.held_out import kept_answers
from oteo_automl.dense.pieces import StoredNetwork
from oteo_automl.search.classification_pieces import Problem, StoredModel
from oteo_automl.search.classification_work import Settings
from oteo_automl.search.data import ArrayCache
from oteo_automl.search.held_out import held_out_answers
from oteo_automl.search.intervals import MOST_TRIALS, HeldOut, add_intervals
from oteo_automl.search.pieces import PieceResult, model_name
from oteo_automl.search.result import FittedCandidate, Predictions
from oteo_automl.search.scoring import score
from oteo_automl.search.trial import FINISHED, Trial
from oteo_core.artifacts import ArtifactStore
from oteo_core.datasets import DatasetReader
from oteo_core.evaluation.classification import OVERALL, Scorer, evaluate
from oteo_core.evaluation.scored import score_answers
from oteo_core.images import InputPolicy, prepare
from oteo_core.packages import ClassMap, Detections, Instances, MetricValue, TrialRecord, TrueBoxes

POLICY = InputPolicy(8, 8, 1)


@saved
class Nothing(SavedModule):
    """Stands where a network would."""

    kind = "test-nothing"

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image.float().mean(dim=(1, 2, 3))[:, None]


def square(rng: np.random.Generator, found: bool) -> tuple[np.ndarray, np.ndarray]:
    """Give a truth with one square, and an answer that is moved by up to three pixels or empty."""
    truth = np.zeros((24, 24), np.uint8)
    truth[6:14, 6:14] = 1
    return truth, np.roll(truth, int(rng.integers(0, 4)), axis=1) if found else np.zeros_like(truth)


def answered(task: str, count: int = 40, seed: int = 0) -> tuple[list, list]:
    """Give truths and imperfect answers of a task."""
    rng = np.random.default_rng(seed)
    right = rng.random(count) < 0.75
    if task in ("binary", "classification"):
        k = 2 if task == "binary" else 4
        labels = np.arange(count) % k
        logits = rng.normal(size=(count, k))
        logits[np.arange(count), np.where(right, labels, (labels + 1) % k)] += 2.0
        chances = np.exp(logits)
        return labels.tolist(), list(chances / chances.sum(axis=1, keepdims=True))
    if task == "multi_label_classification":
        labels = rng.random((count, 3)) < 0.4
        return list(labels), list(np.clip(0.5 + 0.3 * (labels - 0.5) + rng.normal(0, 0.2, labels.shape), 0.01, 0.99))
    truths, answers = [], []
    for hit in right:
        truth, answer = square(rng, bool(hit))
        if task == "semantic_segmentation":
            truths.append(ClassMap(truth))
            answers.append(ClassMap(answer))
            continue
        there = bool(answer.any())
        if task == "instance_segmentation":
            one = np.ones(1, np.float32)
            truths.append(Instances(truth.astype(np.int32), np.zeros(1, np.int64), one))
            answers.append(Instances(answer.astype(np.int32), np.zeros(int(there), np.int64), one[: int(there)]))
        else:
            truths.append(TrueBoxes(np.array([[6, 6, 14, 14]], np.float32), np.zeros(1, np.int64), np.zeros(1, np.bool_)))
            left = int(np.flatnonzero(answer.any(axis=0))[0]) if there else 0
            box = np.array([[left, 6, left + 8, 14]], np.float32)[: int(there)]
            answers.append(Detections(box, np.full(len(box), rng.uniform(0.3, 0.9), np.float32), np.zeros(len(box), np.int64)))
    return truths, answers


TASKS = [
    ("binary", "auroc", 2),
    ("binary", "log_loss", 2),
    ("classification", "balanced_accuracy", 4),
    ("multi_label_classification", "mean_average_precision", 3),
    ("detection", "map50_95", 1),
    ("semantic_segmentation", "dice", 1),
    ("instance_segmentation", "pq", 1),
]


def listed(task: str, name: str, classes: int, copies: int = 1, grouped: bool = True) -> MetricValue:
    """Give the figure of one trial with its interval, on images that may be there several times."""
    kind = "classification" if task == "binary" else task
    truths, answers = (part * copies for part in answered(task))
    own = len(truths) // copies
    groups = [f"g{place % own}" if grouped else "" for place in range(len(truths))]
    value = float(score_answers(kind, classes, truths, answers).one(name)(np.ones((1, len(truths))))[0])
    record = TrialRecord("t0", "made", metrics=[MetricValue(name, value, split="validation", sample_count=999)], objective=value)
    add_intervals([record], lambda _: HeldOut(truths, answers, groups), task=kind, classes=classes, objective=name)
    return record.metrics[0]


@pytest.mark.parametrize(("task", "name", "classes"), TASKS)
def test_the_objective_of_every_task_has_an_interval_by_group(task, name, classes):
    alone = listed(task, name, classes)
    assert alone.lower < alone.value < alone.upper
    assert (alone.confidence_level, alone.sample_count) == (0.95, 40)
    # Six copies of each image are no more than one where they are known as copies, and look like much more where they are not.
    copied, taken = listed(task, name, classes, 6), listed(task, name, classes, 6, grouped=False)
    width = alone.upper - alone.lower
    assert copied.upper - copied.lower == pytest.approx(width, rel=0.25)
    assert taken.upper - taken.lower < 0.6 * width
    assert taken.sample_count == 240


def test_the_interval_is_that_of_the_evaluation():
    labels, chances = answered("binary", 120)
    record = TrialRecord("t0", "made", metrics=[MetricValue("accuracy", 0.0)], objective=0.0)
    whole = {one.name: one for one in evaluate(np.array(labels), np.stack(chances), ("no", "yes")) if not one.class_name}
    record.metrics = [replace(whole["accuracy"], lower=None, upper=None)]
    record.objective = record.metrics[0].value
    add_intervals([record], lambda _: HeldOut(labels, chances, [""] * 120), task="classification", classes=2, objective="accuracy")
    assert record.metrics[0].lower == pytest.approx(whole["accuracy"].lower, abs=0.02)
    assert record.metrics[0].upper == pytest.approx(whole["accuracy"].upper, abs=0.02)


def test_one_figure_alone_is_the_same_as_among_all():
    labels, chances = answered("classification", 50)
    scorer = Scorer(np.array(labels), np.stack(chances))
    weights = np.random.default_rng(0).integers(0, 3, (5, 50)).astype(float)
    everything = scorer.score(weights)
    for place, name in enumerate(OVERALL):
        np.testing.assert_allclose(scorer.figure(name, weights), everything[:, place])


def test_no_mistake_at_all_is_not_certainty():
    labels = [0, 1] * 10
    chances = [np.array([0.9, 0.1]) if label == 0 else np.array([0.1, 0.9]) for label in labels]
    record = TrialRecord("t0", "made", metrics=[MetricValue("accuracy", 1.0)], objective=1.0)
    add_intervals([record], lambda _: HeldOut(labels, chances, [""] * 20), task="classification", classes=2, objective="accuracy")
    assert record.metrics[0].upper == 1.0
    assert 0.75 < record.metrics[0].lower < 0.9


def test_only_the_best_are_looked_at_the_winner_first_and_not_for_long():
    labels, chances = answered("binary")
    value = float(score_answers("classification", 2, labels, chances).one("auroc")(np.ones((1, 40)))[0])

    def records() -> list[TrialRecord]:
        return [TrialRecord(f"t{number}", "made", metrics=[MetricValue("auroc", value)], objective=value) for number in range(20)]

    def told(made: list[TrialRecord]) -> list[str]:
        return [one.id for one in made if one.metrics[0].lower is not None]

    asked = {"task": "classification", "classes": 2, "objective": "auroc"}
    many = records()
    add_intervals(many, lambda _: HeldOut(labels, chances, [""] * 40), first="t19", **asked)
    assert told(many) == [*(f"t{number}" for number in range(MOST_TRIALS - 1)), "t19"]
    late = records()
    ticks = iter([0.0, 0.5, 5.0])
    add_intervals(late, lambda _: HeldOut(labels, chances, [""] * 40), first="t19", clock=lambda: next(ticks), **asked)
    assert told(late) == ["t19"]
    # What cannot be read, is gone, or belongs to another figure, has none; the others have.
    odd = records()[:4]
    odd[1].metrics[0] = MetricValue("auroc", value - 0.2)

    def partly(record: TrialRecord) -> HeldOut | None:
        if record.id == "t0":
            raise ValueError("a broken file")
        return None if record.id == "t2" else HeldOut(labels, chances, [""] * 40)

    add_intervals(odd, partly, **asked)
    assert told(odd) == ["t3"]


@pytest.mark.parametrize("several", [False, True], ids=["classes", "labels"])
def test_a_classifier_s_answers_are_found_where_its_trial_left_them(several):
    rng = np.random.default_rng(0)
    labels = (rng.random((100, 3)) < 0.4).astype(np.int64) if several else rng.integers(0, 3, 100)
    held = np.arange(100) % 5 == 0
    folds, rows, kept = np.arange(100) % 5, np.arange(100), Kept()
    hot = labels if several else np.eye(3)[labels]
    problem = Problem(ArrayCache(np.zeros((100, 8, 8, 1), np.uint8)), labels, rows, folds, 5, 3, 0, kept)
    objective = "mean_average_precision" if several else "log_loss"
    names = [f"s{row}" for row in rows]
    settings = Settings([], objective, POLICY, ("a", "b", "c"), names, [f"g{row // 10}" for row in rows])
    records, fitted = [], []
    for number, noise in enumerate((1.0, 2.0)):
        logits = (3.0 * hot + rng.normal(0, noise, (100, 3))).astype(np.float32)
        trial = Trial(f"t{number}", "made", state=FINISHED, results=[PieceResult(score(logits[held], labels[held]), 1.0)])
        records.append(trial.record(objective, int(held.sum())))
        if number:
            # A mixture lies nowhere but in what was chosen.
            validation = Predictions(tuple(names), labels, logits)
            fitted.append(FittedCandidate("t1", "blend", Nothing(), POLICY, {}, "scratch", validation))
        else:
            kept.save(model_name("t0"), StoredModel(Nothing(), rows, logits, "drawn").to_bytes())
    asked = {"task": "multi_label_classification" if several else "classification", "classes": 3, "objective": objective}
    add_intervals(records, held_out_answers(replace(problem, fold_count=0), settings, fitted), **asked)
    assert all(metric.lower is None for one in records for metric in one.metrics)
    add_intervals(records, held_out_answers(problem, settings, fitted), **asked)
    for one in records:
        metric = next(metric for metric in one.metrics if metric.name == objective)
        assert metric.lower < metric.value < metric.upper
        assert metric.sample_count == 20
        told = one.to_proto("m").metrics
        assert [round(m.lower, 6) for m in told if m.HasField("lower")] == [round(metric.lower, 6)]


@pytest.mark.parametrize("task", ["detection", "semantic_segmentation", "instance_segmentation"])
def test_what_a_dense_trial_keeps_gives_its_figures_again(task, tmp_path):
    store = ArtifactStore(f"file://{tmp_path}/store")
    write_discs(store, task, count=20, side=32)
    made, reader = find_task(task), DatasetReader(store, "discs")
    data, policy = made.read(reader), InputPolicy(32, 32, 1)
    (tmp_path / "targets").mkdir()
    made.build_targets(data, policy, tmp_path / "targets", lambda: None)
    targets = made.open_targets(tmp_path / "targets")
    images = np.stack([prepare(reader.image(sample).pixels, policy) for sample in data.rows])
    train, held_out = data.part("train"), data.part("validation")
    classes = len(data.classes)
    facts = made.facts(targets, train, policy, classes)
    torch.manual_seed(0)
    network = made.network(made.candidates[0], classes, 1, [0.4], [0.2], facts).eval()
    judgement = made.lesson(made.candidates[0], images, targets, train, held_out, classes=classes, facts=facts, seed=0).judge(network)
    found = dense_answers(task, targets, data.groups, kept_answers(StoredNetwork(network, judgement.kept).to_bytes()))
    assert found is not None
    assert list(found.groups) == [data.groups[row] for row in held_out]
    again = made.scores(found.truths, found.answers, classes)
    for name in made.objectives:
        assert again[name] == pytest.approx(judgement.scores[name], abs=1e-6), name
    assert dense_answers(task, targets, data.groups, {}) is None
