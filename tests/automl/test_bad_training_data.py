"""Trainings on data that is wrong in one way each: an answer, or a clear refusal. Through the job's own handler, from dataset to package."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from training_runs import Home, inline_home, stripes
from training_tools import write_discs

from oteo_automl.candidates.classification import ClassificationLesson, TrainingRows
from oteo_automl.search.data import TrainingData
from oteo_automl.search.fingerprint import take_fingerprint
from oteo_automl.search.folds import make_folds
from oteo_core.errors import FailedPrecondition, InvalidArgument
from oteo_core.images import encode_png

USUAL = {"lying": (16, 4, 4), "standing": (16, 4, 4)}
BASELINE = ["classical-logistic"]
MANY = 1_000_000


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """Give a home of its own; pieces run in this process."""
    return inline_home(tmp_path, monkeypatch)


def test_images_that_cannot_be_decoded_any_more_are_left_out_and_named(home: Home) -> None:
    dataset = home.dataset("cells", USUAL, damage=["lying-0003", "standing-0021"])
    response = home.train(dataset, candidates=BASELINE)
    package = home.package(response)
    assert "2 images could not be read any more and are left out: lying-0003 (TRUNCATED_IMAGE), standing-0021" in response.plan.summary
    left_out = package.details["fingerprint"]["left_out_samples"]
    assert [(one["sample"], one["part"]) for one in left_out] == [("lying-0003", "train"), ("standing-0021", "test")]
    assert package.details["fingerprint"]["train_count"] == 31
    assert "lying-0003" in home.report(response)
    listed = home.store.read_bytes(f"{response.model.name}/predictions.csv").decode()
    assert "standing-0020" in listed
    assert "standing-0021" not in listed


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ([f"lying-{number:04d}" for number in range(16)], "no training image of lying"),
        ([f"{label}-{number:04d}" for label in USUAL for number in range(20, 24)], "has no test part"),
        ([f"{label}-{number:04d}" for label in USUAL for number in range(14)], "28 of 48 images cannot be read any more"),
    ],
)
def test_too_many_images_that_cannot_be_decoded_are_a_refusal(home: Home, damage: list[str], words: str) -> None:
    with pytest.raises(FailedPrecondition, match=words):
        home.train(home.dataset("cells", USUAL, damage=damage), candidates=BASELINE)


def test_ten_seconds_are_answered_with_the_baseline(home: Home) -> None:
    response = home.train(home.dataset("cells", USUAL), 10)
    # On a quick machine one of the other classifiers may have had its turn; no network had.
    assert response.model.candidate.startswith("classical-")
    assert response.model.trial_count >= 1


def test_images_of_one_colour_are_answered_with_what_can_be_known(home: Home) -> None:
    dataset = home.dataset("black", USUAL, picture=lambda _kind, _rng: np.zeros((32, 32, 3), np.uint8))
    response = home.train(dataset, candidates=BASELINE)
    shares = {metric.name: metric.value for metric in response.model.metrics if not metric.class_name}
    assert shares["accuracy"] == pytest.approx(0.5)
    assert 0.6 < shares["log_loss"] < 0.8


def test_a_constant_channel_and_a_class_only_in_the_test_part_do_no_harm(home: Home) -> None:
    def picture(kind: int, rng: np.random.Generator) -> np.ndarray:
        pixels = stripes(kind, rng)
        pixels[..., 1] = 77
        return pixels

    response = home.train(home.dataset("late", {**USUAL, "slanting": (0, 0, 4)}, picture=picture), candidates=BASELINE)
    assert next(metric.value for metric in response.model.metrics if metric.name == "accuracy") > 0.9
    assert list(response.model.classes) == ["lying", "standing"]
    assert response.plan.fingerprint["left_out"] == {"of a class without training images": 4}


@pytest.mark.slow
def test_a_heavy_imbalance_is_answered(home: Home) -> None:
    response = home.train(home.dataset("rare", {"usual": (230, 20, 20), "rare": (1, 1, 1)}), candidates=BASELINE)
    assert list(response.model.classes) == ["usual", "rare"]
    assert response.plan.fingerprint["imbalance"] > 100


def test_a_million_to_one_is_drawn_more_often_and_the_loss_is_told() -> None:
    # A million rows of one image in memory.
    labels = np.zeros(MANY, np.int64)
    labels[123] = 1
    images = np.broadcast_to(np.zeros((1, 1, 1, 1), np.uint8), (MANY, 1, 1, 1))
    rows = np.arange(MANY)
    lesson = ClassificationLesson(TrainingRows(images, labels, rows, rows[:2], 2), 0)
    order = lesson.order(0)
    assert len(order) == MANY
    # By the square root of the classes' counts: about a thousand times as often as it is there.
    assert 800 < (order == 123).sum() < 1200
    # What is drawn so much more often must not be believed to be so frequent: the loss of a network that knows the true shares alone is least.
    offset = lesson._offset.numpy()
    shares = np.array([1 - 1 / MANY, 1 / MANY])
    drawn = np.exp(np.log(shares) + offset)
    assert drawn[1] / drawn.sum() == pytest.approx((order == 123).mean(), rel=0.2)
    several = np.stack([1 - labels, labels], axis=1)
    lesson = ClassificationLesson(TrainingRows(images, several, rows, rows[:2], 2), 0)
    assert 100 < (lesson.order(0) == 123).sum() < 2000
    assert np.isfinite(lesson._offset.numpy()).all()


def test_a_million_to_one_in_the_table_is_cut_into_parts_with_both_classes_and_named() -> None:
    data = TrainingData(
        samples=["s"] * MANY,
        classes=("usual", "rare"),
        labels=(np.arange(MANY) == 123).astype(np.int64),
        parts=np.full(MANY, "train", dtype="U10"),
        groups=[str(number) for number in range(MANY)],
        sizes=np.full((MANY, 2), 32, dtype=np.int64),
    )
    assert take_fingerprint(data).imbalance == MANY - 1
    _, count = make_folds(data.labels, np.ones(MANY, np.bool_), data.groups, seed=0)
    # One sample cannot be on both sides: nothing is held out, and the plan says so (see the test of one sample of a class).
    assert count == 0


@pytest.mark.slow
def test_one_sample_of_a_class(home: Home) -> None:
    response = home.train(home.dataset("one", {"many": (12, 3, 3), "single": (1, 0, 1)}), candidates=BASELINE)
    assert list(response.model.classes) == ["many", "single"]
    assert "too few images to hold any out" in response.plan.summary


def test_three_images_in_all(home: Home) -> None:
    response = home.train(home.dataset("three", {"lying": (1, 0, 1), "standing": (1, 0, 0)}), candidates=BASELINE)
    assert response.model.name == "models/three"
    with pytest.raises(FailedPrecondition, match="no test part"):
        home.train(home.dataset("without", {"lying": (2, 0, 0), "standing": (1, 0, 0)}), candidates=BASELINE)
    with pytest.raises(InvalidArgument, match="1 class"):
        home.train(home.dataset("alone", {"lying": (2, 0, 1)}), candidates=BASELINE)


@pytest.mark.slow
def test_a_group_that_holds_all_of_one_class(home: Home) -> None:
    # Without a validation part: what is held out for choosing has to be cut out of one ward.
    counts = {"lying": (16, 0, 4), "standing": (16, 0, 4)}
    dataset = home.dataset("grouped", counts, group=lambda label, number: "ward" if label == "lying" else f"patient-{number}")
    response = home.train(dataset, candidates=BASELINE)
    assert set(response.model.classes) == set(USUAL)
    assert response.plan.folds == 2


def test_objects_whose_image_or_mask_is_gone_are_left_out_and_named(home: Home) -> None:
    write_discs(home.store, "detection", count=30)
    home.store.write_bytes(home.media("discs", "s1"), b"")
    plan = home.train("datasets/discs", seconds=300, validate_only=True).plan
    assert "1 image could not be read any more and is left out: s1" in plan.summary
    assert plan.fingerprint["train_count"] == 17


def test_a_mask_that_is_broken_is_left_out_and_one_with_an_unknown_number_is_used_without_those_pixels(home: Home) -> None:
    write_discs(home.store, "semantic_segmentation", count=30)
    mask = np.zeros((64, 64, 1), np.uint8)
    mask[10:30, 10:30] = 77
    home.store.write_bytes(home.media("discs", "s2", mask=True), encode_png(mask))
    home.store.write_bytes(home.media("discs", "s6", mask=True), encode_png(mask)[:60])
    plan = home.train("datasets/discs", seconds=300, validate_only=True).plan
    assert "1 image could not be read any more and is left out: s6" in plan.summary
    assert "s2" not in plan.summary
    assert plan.fingerprint["train_count"] == 17
