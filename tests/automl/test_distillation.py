"""Learning from images without labels: pseudo-labels only where they are right, a student kept only where it is better."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from label_sets import draw_labels
from training_runs import inline_home, stripes
from waiting import patient

from oteo_automl.candidates.classification import ClassificationLesson, TrainingRows
from oteo_automl.candidates.networks import NetworkClassifier
from oteo_automl.candidates.registry import CANDIDATES
from oteo_automl.candidates.training import Recipe
from oteo_automl.search.checkpoints import StoredCheckpoints
from oteo_automl.search.classification_pieces import Problem, StoredModel, fit_classifier
from oteo_automl.search.classification_work import Settings
from oteo_automl.search.data import ArrayCache
from oteo_automl.search.distillation import Taught, _Answers, choose_threshold, teach, without_held_out
from oteo_automl.search.pieces import model_name
from oteo_automl.search.result import FittedCandidate, Plan, Predictions, SearchResult
from oteo_automl.train_unlabelled import _add
from oteo_core.datasets import DatasetInfo, DatasetWriter, Sample
from oteo_core.images import InputPolicy, encode_png, pixel_digest
from oteo_core.packages import TrialRecord


def answers(sure: np.ndarray, said: np.ndarray, agreed: np.ndarray) -> _Answers:
    return _Answers(np.stack([1 - sure, sure], axis=1), sure, agreed, said)


def test_the_threshold_halves_the_mistakes():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 400)
    sure = rng.uniform(0.5, 1.0, 400)
    wrong = rng.random(400) < 1.0 - sure
    known = answers(sure, np.where(wrong, 1 - labels, labels), np.ones(400, dtype=bool))
    threshold, right = choose_threshold(known, labels)
    chosen = sure >= threshold
    assert 0.5 < threshold < 1.0
    assert right == pytest.approx(1 - wrong[chosen].mean())
    assert wrong[chosen].mean() <= 0.5 * wrong.mean()
    # A teacher whose confidence says nothing of its worth is not to be listened to.
    deaf = answers(np.where(wrong, 0.95, 0.6), np.where(wrong, 1 - labels, labels), np.ones(400, dtype=bool))
    assert choose_threshold(deaf, labels)[0] is None
    assert choose_threshold(answers(sure, labels, np.zeros(400, dtype=bool)), labels)[0] is None


def test_transforms_must_agree():
    logits = np.array([[[3.0, 0.0], [0.2, 0.0]], [[2.0, 0.0], [-0.2, 0.0]]], dtype=np.float32)
    found = _Answers.of(logits, 1.0, several=False)
    assert found.agreed.tolist() == [True, False]
    assert found.said[0] == 0
    assert 0.88 < found.confidence[0] < 0.96
    several = _Answers.of(logits, 1.0, several=True)
    # The second label's odds are even under both: no label is sure.
    assert several.confidence.tolist() == [0.5, 0.5]


def test_soft_targets_are_what_is_learnt_and_people_are_heard():
    images = np.zeros((100, 32, 32, 1), np.uint8)
    soft = np.tile(np.array([[0.7, 0.3]], np.float32), (100, 1))
    rows = TrainingRows(images, np.zeros(100, np.int64), np.arange(100), np.arange(10), 2, soft=soft, trusted=10)
    lesson = ClassificationLesson(rows, 0)
    lesson.place(torch.device("cpu"))
    drawn = np.concatenate([lesson.order(epoch) for epoch in range(10)])
    assert 0.4 < (drawn < 10).mean() < 0.6
    assert lesson.batch(drawn[:4])[1].tolist() == soft[:4].tolist()


def write_unlabelled(store, name, count, picture, seen=()):
    rng = np.random.default_rng(99)
    with DatasetWriter(store, f"datasets/{name}", DatasetInfo(id=name, task="classification", classes=("any",))) as writer:
        for number in range(count + len(seen)):
            pixels = picture(number % 2, rng) if number < count else seen[number - count]
            path = writer.add_media(f"u{number}.png", encode_png(pixels))
            height, width, channels = pixels.shape
            digest = pixel_digest(pixels)
            writer.add(
                Sample(
                    id=f"u{number}",
                    path=path,
                    width=width,
                    height=height,
                    channels=channels,
                    dtype="uint8",
                    split="train",
                    pixel_digest=digest,
                )
            )
        writer.finish()


@pytest.mark.slow
def test_a_training_says_what_unlabelled_images_brought(tmp_path, monkeypatch):
    torch.set_num_threads(1)
    home = inline_home(tmp_path, monkeypatch)
    dataset = home.dataset("stripes", {"lying": (14, 10, 10), "standing": (14, 10, 10)}, picture=lambda kind, rng: faint(kind, rng))
    write_unlabelled(home.store, "more", 60, faint)
    # Long enough for a student: of 10 s only 3 would be its own, and the images would not be used.
    response = home.train(dataset, 30, candidates=["haralick-logistic"], unlabelled_dataset="datasets/more")
    package = home.package(response)
    (student,) = [trial for trial in package.trials if trial.candidate.startswith("student-")]
    assert student.parameters["unlabelled_images"] >= 10
    # Trial, plan and report say the same of it.
    assert "resamples" in student.message
    assert student.message in package.details["plan"]
    assert student.message.partition(";")[0] in home.report(response)
    kept = "and was kept" in student.message
    assert kept != ("and was not kept" in student.message)
    assert kept == (student.candidate in package.candidate) == (package.details["winner_trial"] == student.id)


@pytest.mark.parametrize("family", ["boosting", "neighbours", "svm"])
def test_a_classifier_is_fitted_anew_with_the_settings_that_its_trial_tells(tmp_path, family):
    rng = np.random.default_rng(1)
    labels = np.arange(48) % 2
    images = np.stack([faint(kind, rng) for kind in labels])
    checkpoints = StoredCheckpoints(f"file://{tmp_path}/checkpoints", "search")
    problem = Problem(ArrayCache(images), labels, np.arange(48), np.arange(48) // 2 % 2, 2, 2, 0, checkpoints)
    fit_classifier(problem, "t000", CANDIDATES[f"haralick-{family}"], 1, time.time() + patient(20))
    model = StoredModel.from_bytes(checkpoints.load(model_name("t000")))
    blind = without_held_out(problem, model.module, ["t000"])
    with torch.inference_mode():
        answers = blind(torch.from_numpy(images)).numpy()
    held = problem.held_out
    np.testing.assert_allclose(answers[held], model.logits[np.searchsorted(model.rows, held)], atol=1e-3)


def test_a_student_learns_from_what_the_winner_is_sure_of(tmp_path):
    torch.set_num_threads(1)
    rng = np.random.default_rng(1)
    labels = np.arange(60) % 2
    images = np.stack([faint(kind, rng) for kind in labels])
    others = np.stack([faint(kind, rng) for kind in range(80)])
    checkpoints = StoredCheckpoints(f"file://{tmp_path}/checkpoints", "search")
    problem = Problem(ArrayCache(images), labels, np.arange(60), np.arange(60) // 2 % 3, 3, 2, 0, checkpoints, objective="log_loss")
    fit_classifier(problem, "t000", CANDIDATES["hog-logistic"], 4, time.time() + patient(20))
    model = StoredModel.from_bytes(checkpoints.load(model_name("t000")))
    # What teaches has not seen the labels that the student is judged on.
    blind = without_held_out(problem, model.module, ["t000"])
    with torch.inference_mode():
        answers = blind(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(answers[problem.held_out], model.logits[np.searchsorted(model.rows, problem.held_out)], atol=1e-3)

    def teach_once():
        return teach(
            problem,
            model.module,
            ["t000"],
            (model.rows, model.logits),
            np.arange(60),
            ArrayCache(others),
            "t001-student",
            "resnet10t",
            Recipe(batch=16),
            6,
            time.time() + patient(40),
        )

    taught = teach_once()
    assert taught.images == 80
    assert taught.used >= 10
    assert taught.agreement_accuracy > 0.8
    assert str(taught.used) in taught.sentence
    assert taught.kept == (taught.gain > 0 and taught.sureness >= 0.9)
    student = StoredModel.from_bytes(checkpoints.load(model_name("t001-student")))
    assert student.rows.tolist() == problem.held_out.tolist()
    # A killed attempt that comes back does not teach twice.
    assert teach_once() == taught


def faint(kind: int, rng: np.random.Generator) -> np.ndarray:
    return np.clip(128 + 0.4 * (stripes(kind, rng).astype(float) - 128) + rng.normal(0, 25, (32, 32, 3)), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_a_student_that_is_kept_takes_the_winners_place(tmp_path, share):
    images, labels = draw_labels(40)
    labels = labels[:, 0]
    rows, folds = np.arange(40), np.arange(40) % 2
    checkpoints = StoredCheckpoints(f"file://{tmp_path}/checkpoints", "search")
    problem = Problem(ArrayCache(images), labels, rows, folds, 2, 2, 0, checkpoints)
    policy = InputPolicy(width=32, height=32, channels=1, dtype="uint8")
    settings = Settings([], "log_loss", policy, ("none", "bar"), [f"s{row}" for row in rows], [""] * 40)
    modules = [NetworkClassifier("resnet10t", 2, 1, [0.5], [0.2]).eval() for _ in range(2)]
    with torch.inference_mode():
        winner, student = (module(torch.from_numpy(images)).numpy() for module in modules)
    held = problem.held_out
    checkpoints.save(model_name("t001-student"), StoredModel(modules[1], held, student[held], "the validation part").to_bytes())
    best = FittedCandidate("t000", "a", modules[0], policy, {}, "scratch", Predictions(tuple(settings.ids), labels, winner))
    result = SearchResult(("none", "bar"), "log_loss", best, None, best, [TrialRecord("t000", "a")], {}, Plan(), 1.0)
    taught = Taught(True, "It helped.", "t001-student", "student-resnet10t", share, 50, 20, 0.9, scores={"log_loss": 0.5})
    _add(taught, problem, settings, result)
    assert result.runner_up is best
    assert result.trials[0].message == "It helped."
    assert result.best.candidate == ("student-resnet10t" if share == 1.0 else "a with student-resnet10t")
    with torch.inference_mode():
        logits = result.best.module(torch.from_numpy(images[held])).numpy()
    # What was held out is what the module that is handed over answers.
    spread = lambda values: values[:, 1] - values[:, 0]  # noqa: E731
    np.testing.assert_allclose(spread(result.best.validation.logits), spread(logits), atol=1e-3)
    assert result.best.validation.labels.tolist() == labels[held].tolist()
