"""Detection and segmentation on data that is wrong in one way each, and on too small a budget: an answer, or a clear refusal."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dense_sets import DENSE, Drawn, parts, write_dense
from training_runs import Home, inline_home
from training_tools import KINDS
from waiting import patient

from oteo_automl.candidates.training import LEAST_STEPS, NothingLearnt, Recipe, Trainer
from oteo_automl.dense import find_task
from oteo_automl.dense.detect.lesson import DetectionLesson
from oteo_automl.dense.detect.targets import BoxTable
from oteo_automl.dense.segment.lessons import SemanticLesson
from oteo_automl.dense.segment.objects import WatershedLesson
from oteo_automl.dense.segment.targets import InstanceTargets
from oteo_automl.search import budget
from oteo_automl.search.budget import MOST_LATE, Budget
from oteo_core.errors import FailedPrecondition, InvalidArgument
from oteo_core.images import InputPolicy
from oteo_protos.automl.v1 import automl_pb2

MANY = 1_000_000
SHOWN = {"detection": "map50", "semantic_segmentation": "dice", "instance_segmentation": "pq"}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """Give a home of its own; pieces run in this process."""
    torch.set_num_threads(1)
    return inline_home(tmp_path, monkeypatch)


def side(task: str) -> int:
    """Give the smallest input of a task, pixels."""
    return 64 if task == "detection" else 32


def begun_before(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Have trainings look as if their process had taken so many seconds to come to life."""
    resume = Budget.resume.__func__  # type: ignore[attr-defined]

    def later(cls: type[Budget], checkpoints: Any, total: float, reserve: float, started: float | None = None) -> Budget:
        found: Budget = resume(cls, checkpoints, total, reserve, (started or time.time()) - seconds)
        return found

    monkeypatch.setattr(Budget, "resume", classmethod(later))


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the least training be as late as it is on a busy machine: what it makes of the data is asked, not when."""
    monkeypatch.setattr(budget, "MOST_LATE", 600.0)


def train(home: Home, task: str, images: list[Drawn], **fields: Any) -> automl_pb2.TrainModelResponse:
    """Train the quickest candidate for as short as can be."""
    dataset = write_dense(home.store, task, images, side=side(task), **fields)
    return home.train(dataset, 10, candidates=[find_task(task).candidates[0].name])


def figures(response: automl_pb2.TrainModelResponse) -> dict[str, float]:
    return {metric.name: metric.value for metric in response.model.metrics if not metric.class_name}


def steps(home: Home, response: automl_pb2.TrainModelResponse) -> int:
    return int(home.package(response).details["parameters"]["steps"])


# Time.


@pytest.mark.slow
@pytest.mark.parametrize("task", DENSE)
def test_ten_seconds_are_answered_by_a_network_that_has_learnt_and_says_how_late(
    task: str, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun_before(monkeypatch, 4.0)
    response = train(home, task, parts(24, 8, 8))
    told = response.plan.summary, home.report(response)
    for text in told:
        assert "10 s are not enough for the least training" in text
        assert "s later" in text
    if steps(home, response) >= LEAST_STEPS:
        assert figures(response)[SHOWN[task]] > 0.2
    else:
        # The machine became slower than it was when it was measured: then that is said.
        assert all(f"was taught for {steps(home, response)} step" in text for text in told)
    assert home.package(response).budget == 10


def test_ten_seconds_by_the_clock_on_the_wall(home: Home) -> None:
    dataset = write_dense(home.store, "detection", parts(12, 4, 4), side=64)
    began, refused = time.monotonic(), None
    try:
        response = home.train(dataset, 10, wall=True, candidates=["centre-resnet18"])
    except InvalidArgument as error:
        refused = error
    took = time.monotonic() - began
    if refused is None:
        assert took < patient(10 + MOST_LATE)
        assert steps(home, response) >= 1
        assert figures(response)["map50"] > 0.0
    else:
        # A machine that is too slow says so at once.
        assert refused.reason == "BUDGET_TOO_SMALL"
        assert took < patient(12)


@pytest.mark.parametrize("task", DENSE)
def test_what_cannot_fit_is_refused_before_anything_is_trained(task: str, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    begun_before(monkeypatch, 60.0)
    with pytest.raises(InvalidArgument, match=r"a budget of 10 s is too small .* give at least \d+ s") as caught:
        train(home, task, parts(6, 2, 2))
    assert (caught.value.reason, caught.value.field) == ("BUDGET_TOO_SMALL", "budget")
    assert 75 <= int(caught.value.metadata["least_seconds"]) < 200
    assert not list(Path(home.settings.home).rglob("leaderboard.json"))
    with pytest.raises(InvalidArgument, match="give at least"):
        home.train("datasets/drawn", 10, validate_only=True)


def test_room_is_made_out_of_what_can_be_spared_first() -> None:
    def begun(total: float, reserve: float, spent: float) -> Budget:
        return Budget(total, reserve, 0.0, time.time() - spent)

    roomy = begun(120, 30, 10)
    assert roomy.make_room(20, 15) == 0
    assert roomy.reserve == 30
    tight = begun(50, 30, 10)
    assert tight.make_room(20, 15) == 0
    assert tight.total == 50
    assert tight.left == pytest.approx(20, abs=0.5)
    late = begun(20, 12, 8)
    assert late.make_room(12, 15) == pytest.approx(15, abs=0.5)
    assert late.left == pytest.approx(12, abs=0.5)
    assert late.end - late.started == pytest.approx(35, abs=0.5)
    with pytest.raises(InvalidArgument, match="give at least 55 s"):
        begun(20, 12, 8).make_room(30, 15)


def test_a_network_that_had_no_time_for_a_step_is_no_answer() -> None:
    trainer = Trainer(*_semantic(np.ones((4, 32, 32), np.uint8)), Recipe(batch=32), seed=0)
    with pytest.raises(NothingLearnt, match="before the first step"):
        trainer.run(3, 3, time.time() - 1)
    outcome = trainer.run(1, 1, math.inf)
    assert outcome.steps > 1
    # What has learnt before is an answer also where there is no time to go on.
    assert trainer.run(2, 2, time.time() - 1).steps == outcome.steps


# What is refused.


@pytest.mark.parametrize("task", DENSE)
def test_three_images_without_a_test_part_are_refused(task: str, home: Home) -> None:
    with pytest.raises(FailedPrecondition, match="no test part") as caught:
        train(home, task, parts(2, 1, 0))
    assert caught.value.reason == "NO_TEST_PART"


@pytest.mark.parametrize("task", DENSE)
def test_images_on_which_nothing_is_marked_are_refused(task: str, home: Home) -> None:
    images = [*parts(8, 2, 0, kinds=()), *parts(0, 0, 2)]
    with pytest.raises(InvalidArgument) as caught:
        train(home, task, images)
    assert caught.value.reason == "NO_OBJECTS"
    assert "'drawn'" in caught.value.message


@pytest.mark.parametrize("task", DENSE)
def test_boxes_and_masks_without_their_images_are_refused_or_left_out(task: str, home: Home) -> None:
    dataset = write_dense(home.store, task, parts(8, 2, 2), side=side(task))
    lost = [f"s{number}" for number in range(7)]
    home.store.delete(home.media("drawn", lost[0]))
    plan = home.train(dataset, 300, validate_only=True, candidates=[find_task(task).candidates[0].name]).plan
    assert "1 image could not be read any more and is left out: s0" in plan.summary
    assert plan.fingerprint["train_count"] == 7
    for sample in lost[1:]:
        home.store.delete(home.media("drawn", sample))
    with pytest.raises(FailedPrecondition, match="7 of 12 images cannot be read any more, the first is s0") as caught:
        home.train(dataset, 60, validate_only=True)
    assert caught.value.reason == "UNREADABLE_IMAGES"


# What is answered.


@pytest.mark.slow
@pytest.mark.usefixtures("unhurried")
@pytest.mark.parametrize("task", DENSE)
def test_black_images_are_answered_with_what_can_be_known(task: str, home: Home) -> None:
    response = train(home, task, parts(12, 4, 4), change=np.zeros_like)
    assert all(0 <= value <= 1 for name, value in figures(response).items() if name == SHOWN[task])
    report = home.report(response)
    if home.package(response).trials[0].objective < 0.01:
        assert "finds next to nothing that is right" in response.plan.summary
        assert "finds next to nothing that is right" in report


@pytest.mark.slow
@pytest.mark.usefixtures("unhurried")
@pytest.mark.parametrize("task", DENSE)
def test_a_constant_channel_does_no_harm(task: str, home: Home) -> None:
    def change(pixels: np.ndarray) -> np.ndarray:
        changed = pixels.copy()
        changed[..., 1] = 77
        return changed

    response = train(home, task, parts(24, 8, 8), channels=3, change=change)
    assert figures(response)[SHOWN[task]] > 0.2


@pytest.mark.slow
@pytest.mark.usefixtures("unhurried")
@pytest.mark.parametrize("task", DENSE)
def test_three_images_in_all_are_answered_and_it_is_said_what_was_compared_on(task: str, home: Home) -> None:
    response = train(home, task, parts(2, 0, 1))
    assert response.model.name == "models/drawn"
    assert "the training images themselves (there are too few to hold any out)" in response.plan.summary
    assert "the training images themselves" in home.report(response)


@pytest.mark.slow
@pytest.mark.usefixtures("unhurried")
@pytest.mark.parametrize("task", DENSE)
def test_a_group_that_holds_all_of_one_class_is_answered(task: str, home: Home) -> None:
    # Without a validation part: what is held out has to be cut out of the groups.
    images = [Drawn("train", (number % 2,), group="ward" if number % 2 else f"patient-{number}") for number in range(24)]
    response = train(home, task, [*images, *parts(0, 0, 4)])
    assert list(response.model.classes) == (["disc"] if task == "instance_segmentation" else list(KINDS))
    assert "a fifth of the training part, by group" in response.plan.summary


@pytest.mark.slow
@pytest.mark.usefixtures("unhurried")
@pytest.mark.parametrize("task", DENSE[:2])
def test_one_object_of_a_class_and_a_class_only_in_the_test_part(task: str, home: Home) -> None:
    dark = [replace(one, kinds=(0, 0)) for one in parts(20, 4, 3)]
    late = train(home, task, [*dark, Drawn("test", (0, 1))], name="late")
    assert list(late.model.classes) == ["dark"]
    assert any("light" in why or "without training objects" in why for why in late.plan.fingerprint["left_out"])
    single = train(home, task, [*dark, Drawn("train", (0, 1)), Drawn("test", (0, 1))], name="single")
    assert list(single.model.classes) == ["dark", "light"]
    by_class = {metric.class_name for metric in single.model.metrics if metric.class_name}
    assert by_class >= {"dark", "light"}


@pytest.mark.slow
@pytest.mark.usefixtures("unhurried")
@pytest.mark.parametrize("task", DENSE[1:])
def test_masks_with_an_unknown_number_are_learnt_from_without_those_pixels(task: str, home: Home) -> None:
    response = train(home, task, parts(24, 8, 8, unknown=True))
    assert figures(response)[SHOWN[task]] > 0.2
    assert list(response.model.classes) == (["disc"] if task == "instance_segmentation" else list(KINDS))


# A million to one, without a million images: rows of one broadcast image, and pixels of one large mask.


def test_a_million_images_with_one_object_of_a_class() -> None:
    starts = np.arange(MANY + 1, dtype=np.int64)
    labels = np.zeros(MANY, np.int64)
    labels[123] = 1
    boxes = np.broadcast_to(np.array([4, 4, 12, 12], np.float32), (MANY, 4))
    table = BoxTable(boxes, labels, np.zeros(MANY, np.bool_), starts)
    images = np.broadcast_to(np.zeros((1, 64, 64, 1), np.uint8), (MANY, 64, 64, 1))
    rows = np.arange(MANY)
    lesson = DetectionLesson(images, table, rows, rows[:2], classes=2, limit=100, seed=0)
    order = lesson.order(0)
    # An epoch is not longer for it, and the one image is there as often as any may be.
    assert MANY <= len(order) < MANY + 10
    assert (order == 123).sum() == 4
    facts = find_task("detection").facts(table, rows[:1000], InputPolicy(width=64, height=64, channels=1), 2)
    assert facts["by_class"] == [999, 1]


def _semantic(maps: np.ndarray, classes: int = 1) -> tuple[Any, SemanticLesson]:
    task = find_task("semantic_segmentation")
    images = np.random.default_rng(0).integers(0, 255, (*maps.shape, 1), dtype=np.uint8)
    rows = np.arange(len(maps))
    facts = task.facts(maps, rows, InputPolicy(width=maps.shape[2], height=maps.shape[1], channels=1), classes)
    torch.manual_seed(0)
    network = task.network(task.candidates[0], classes, 1, [0.5], [0.2], facts)
    return network, SemanticLesson(images, maps, rows, rows, classes=classes, seed=0)


def test_one_pixel_of_a_class_among_a_million() -> None:
    torch.set_num_threads(1)
    maps = np.zeros((1, 1024, 1024), np.uint8)
    maps[0, 700, 300] = 1
    network, lesson = _semantic(maps)
    lesson.place(torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    centres = lesson._points.centres(np.zeros(300, np.int64), generator)
    found = torch.isclose(centres, torch.tensor([700.5 / 1024, 300.5 / 1024])).all(dim=1)
    # A third of the patches lie around it.
    assert 0.2 < float(found.float().mean()) < 0.47
    loss = lesson.loss(network, lesson.batch(np.array([0, 0])), Recipe(), generator)
    loss.backward()
    assert 0 < loss.item() < 20
    assert all(torch.isfinite(one.grad).all() for one in network.parameters() if one.grad is not None)


def test_one_pixel_of_an_object_among_a_million() -> None:
    torch.set_num_threads(1)
    ids = np.zeros((1, 1024, 1024), np.int32)
    ids[0, 700, 300] = 1
    targets = InstanceTargets(ids, np.where(ids > 0, 255, 0).astype(np.uint8), np.zeros(1, np.int64), np.array([0, 1]))
    task = find_task("instance_segmentation")
    rows = np.arange(1)
    facts = task.facts(targets, rows, InputPolicy(width=1024, height=1024, channels=1), 1)
    assert facts["counts"] == [1]
    assert facts["shares"][1] == pytest.approx(2**-20)
    torch.manual_seed(0)
    network = task.network(task.candidates[0], 1, 1, [0.5], [0.2], facts)
    lesson = task.lesson(task.candidates[0], np.zeros((1, 1024, 1024, 1), np.uint8), targets, rows, rows, classes=1, facts=facts, seed=0)
    assert isinstance(lesson, WatershedLesson)
    lesson.place(torch.device("cpu"))
    loss = lesson.loss(network, lesson.batch(np.array([0, 0])), Recipe(), torch.Generator().manual_seed(0))
    loss.backward()
    assert 0 < loss.item() < 20
    assert all(torch.isfinite(one.grad).all() for one in network.parameters() if one.grad is not None)
