"""Networks are measured before they are trained; what fails is begun again with a safer setting, and fails alone."""

from __future__ import annotations

import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from hoarding import MEGABYTE, probe
from kept_checkpoints import Kept
from numpy.typing import NDArray
from waiting import patient

from oteo_automl.candidates.lesson import Judgement
from oteo_automl.candidates.modules import SavedModule, to_planes
from oteo_automl.candidates.training import Diverged, Recipe, Trainer
from oteo_automl.search import agenda
from oteo_automl.search.budget import Budget
from oteo_automl.search.guards import check_folds, kind_of
from oteo_automl.search.pieces import PieceResult, curve_watch, result_name, trained_result
from oteo_automl.search.planner import Speeds, make_plan, predict_end
from oteo_automl.search.probe import Probe, measure
from oteo_automl.search.result import EpochRecord, Plan
from oteo_automl.search.schedule import promoted
from oteo_automl.search.search import Search, Snapshot
from oteo_automl.search.tracker import NoTracker
from oteo_automl.search.trial import Trial
from oteo_automl.search.work import Entry, Work
from oteo_core.errors import Internal, Unavailable
from oteo_core.jobs.executor import Executor, InlineExecutor, Task


class Linear(SavedModule):
    """The smallest network there is."""

    kind = "test-linear"

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(3 * 8 * 8, 2)

    def from_planes(self, planes: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.layer(planes.flatten(1) - 0.5)
        return logits

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.from_planes(to_planes(image))


class BrightLesson:
    """Tell bright from dark; `most` images fit into memory at once; `limit` is the learning rate from which on it blows up."""

    def __init__(self, most: int = 1000, limit: float = 1.0, sleep: float = 0.0, blind: bool = False) -> None:
        rng = np.random.default_rng(0)
        self.labels = np.arange(48) % 2
        self.images = np.clip(rng.normal(90 + 70 * self.labels[:, None, None, None], 20, (48, 8, 8, 3)), 0, 255).astype(np.uint8)
        self.most, self.limit, self.sleep, self.blind = most, limit, sleep, blind
        self.batches: list[int] = []
        self.rates: list[float] = []

    def place(self, device: torch.device) -> None:
        pass

    def order(self, epoch: int) -> NDArray[np.int64]:
        return np.random.default_rng(epoch).permutation(32)

    def batch(self, rows: NDArray[np.int64]) -> Any:
        return to_planes(torch.from_numpy(self.images[rows])), torch.from_numpy(self.labels[rows])

    def loss(self, model: torch.nn.Module, batch: Any, recipe: Recipe, generator: torch.Generator) -> torch.Tensor:
        planes, labels = batch
        if len(planes) > self.most:
            raise RuntimeError(
                "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."
            )
        time.sleep(self.sleep * len(planes))
        self.batches.append(len(planes))
        self.rates.append(recipe.rate)
        loss = torch.nn.functional.cross_entropy(model.from_planes(planes), labels)
        return loss * torch.inf if recipe.rate > self.limit else loss * (0.0 if self.blind else 1.0)

    def clean_rows(self) -> NDArray[np.int64]:
        return np.arange(32)

    def judge(self, model: torch.nn.Module) -> Judgement:
        rows = np.arange(32, 48)
        with torch.no_grad():
            logits = model.from_planes(self.batch(rows)[0]).numpy()
        if self.blind:
            logits[:] = (1.0, 0.0)
        loss = float(torch.nn.functional.cross_entropy(torch.from_numpy(logits), torch.from_numpy(self.labels[rows])))
        right = float((logits.argmax(1) == self.labels[rows]).mean())
        return Judgement(loss, right, {"log_loss": loss, "accuracy": right}, {}, "one class for all" if self.blind else "", self.blind)


class Lessons(Work[list[Trial]]):
    """A search over lessons; pieces run where the executor says."""

    def __init__(self, lessons: dict[str, BrightLesson], rate: float = 0.01, batch: int = 16, kept: Kept | None = None) -> None:
        self.lessons = lessons
        self.entries = [Entry(name, model=name) for name in lessons]
        self.objective, self.seed, self.train_count, self.held_out_count = "log_loss", 0, 32, 16
        self.checkpoints = kept or Kept()
        self.most_epochs = 20
        self._recipe = Recipe(rate=rate, batch=batch)
        self.started: list[tuple[str, int, int, float]] = []

    def train(
        self, executor: Executor, trial: str, rung: int, entry: Entry, recipe: Recipe, target: int, total: int, deadline: float
    ) -> Task[PieceResult]:
        self.started.append((entry.name, rung, recipe.batch, recipe.rate))
        return executor.submit(self._piece, trial, rung, entry, recipe, target, total, deadline)

    def _piece(self, trial: str, rung: int, entry: Entry, recipe: Recipe, target: int, total: int, deadline: float) -> PieceResult:
        trainer = Trainer(Linear(), self.lessons[entry.name], recipe, seed=0)
        began = time.time()
        if (state := self.checkpoints.load(f"{trial}/state")) is not None:
            trainer.restore(state)
        watch = curve_watch(self.checkpoints, trial, total, by_score=False)
        outcome = trainer.run(target, total, deadline, lambda data: self.checkpoints.save(f"{trial}/state", data), on_epoch=watch)
        result = trained_result(outcome, recipe, "scratch", time.time() - began, 0.001)
        self.checkpoints.save(result_name(trial, rung), result.to_json())
        return result

    def probe(self, executor: Executor, entry: Entry, recipe: Recipe, deadline: float) -> Task[Probe] | None:
        return executor.submit(measure, Linear, self.lessons[entry.name], recipe, seed=0, deadline=deadline)

    def pretrained(self, entry: Entry) -> bool:
        return False

    def recipe(self, entry: Entry) -> Recipe:
        return self._recipe

    def base_rate(self, entry: Entry) -> float:
        return 0.01

    def cost(self, entry: Entry) -> float:
        return 0.01

    def result(self, trials: list[Trial], plan: Plan, seconds: float) -> list[Trial]:
        return trials


class Missing(BrightLesson):
    """Finds nothing that is right, unless it learns slowly."""

    def judge(self, model: torch.nn.Module) -> Judgement:
        found = super().judge(model)
        if self.rates[-1] > 0.005:
            found.score = 0.0
        return found


@pytest.fixture(autouse=True)
def few_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    """End a search when its candidates have been tried, long before its time is up."""
    monkeypatch.setattr(agenda, "_MOST_TRIALS", 2)


def search(work: Lessons, **fields: Any) -> list[Trial]:
    """Search with more time than is needed."""
    budget = Budget.resume(work.checkpoints, 60.0, 0.0)
    return Search(work, InlineExecutor(), budget, Plan(), NoTracker(), **fields).run()


def of(trials: list[Trial], name: str) -> list[Trial]:
    return [trial for trial in trials if trial.candidate == name]


def test_a_network_that_diverges_is_begun_again_once_with_a_safer_setting() -> None:
    work = Lessons({"wild": BrightLesson(limit=0.005), "tame": BrightLesson()})
    trials = search(work)
    first, second = of(trials, "wild")[:2]
    assert first.state == "failed"
    assert "diverged" in first.message
    assert second.id in first.message
    assert second.recipe is not None
    assert second.recipe.rate == pytest.approx(0.0025)
    assert second.recipe.half is False
    assert second.recipe.batch == 16
    assert second.results
    assert first.id in second.record("log_loss", 16).message


def test_what_diverges_again_fails_and_the_others_go_on() -> None:
    work = Lessons({"wild": BrightLesson(limit=1e-9), "tame": BrightLesson()})
    trials = search(work)
    wild = of(trials, "wild")
    assert [trial.state for trial in wild] == ["failed", "failed"]
    assert min(trial.loss("log_loss") for trial in of(trials, "tame")) < 0.3


def test_a_collapsed_network_is_begun_again_only_where_others_tell_classes_apart() -> None:
    trials = search(Lessons({"tame": BrightLesson(), "blind": BrightLesson(blind=True)}))
    first, second = of(trials, "blind")[:2]
    assert first.state == "failed"
    assert "collapsed (one class for all)" in first.message
    assert second.restarts == 1
    alone = search(Lessons({"blind": BrightLesson(blind=True)}))
    assert not any(trial.restarts for trial in alone)


def test_a_network_that_finds_nothing_by_the_end_is_begun_again() -> None:
    trials = search(Lessons({"missing": Missing(), "tame": BrightLesson()}))
    first, second = of(trials, "missing")[:2]
    assert "collapsed (it finds nothing that is right)" in first.message
    assert second.results


def test_a_trial_that_needs_too_much_memory_is_tried_again_with_half_its_batch() -> None:
    work = Lessons({"large": BrightLesson(most=5), "small": BrightLesson()})
    # Nothing is measured: the wall is met in training.
    work.probe = lambda *_: None  # type: ignore[method-assign]
    trials = search(work)
    large = of(trials, "large")[0]
    assert [batch for name, _, batch, _ in work.started if name == "large"][:3] == [16, 8, 4]
    assert large.results
    assert "tried again with 8" in large.record("log_loss", 16).message
    assert "tried again with 4" in large.record("log_loss", 16).message


def test_a_trial_whose_process_dies_is_tried_again_as_it_was_and_then_with_half_its_batch() -> None:
    class Dying(BrightLesson):
        def loss(self, model: torch.nn.Module, batch: Any, recipe: Recipe, generator: torch.Generator) -> torch.Tensor:
            if recipe.batch > 8:
                raise Unavailable("the process of a task died", reason="WORKER_LOST")
            return super().loss(model, batch, recipe, generator)

    work = Lessons({"mortal": Dying(), "small": BrightLesson()})
    work.probe = lambda *_: None  # type: ignore[method-assign]
    trials = search(work)
    assert [batch for name, _, batch, _ in work.started if name == "mortal"][:3] == [16, 16, 8]
    message = of(trials, "mortal")[0].record("log_loss", 16).message
    assert message.startswith("its process died; tried again; needed too much memory with a batch of 16; tried again with 8")


def test_a_trial_that_no_batch_helps_fails_alone() -> None:
    work = Lessons({"huge": BrightLesson(most=0), "small": BrightLesson()})
    work.probe = lambda *_: None  # type: ignore[method-assign]
    trials = search(work)
    assert of(trials, "huge")[0].state == "failed"
    assert "memory" in of(trials, "huge")[0].message
    assert of(trials, "small")[0].results


def test_a_search_in_which_everything_fails_says_why() -> None:
    with pytest.raises(Internal, match=r"huge.*memory") as raised:
        search(Lessons({"huge": BrightLesson(most=0)}))
    assert raised.value.reason == "NO_CANDIDATE"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (MemoryError(), "memory"),
        (torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), "memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "memory"),
        (Unavailable("the process of a task died", reason="WORKER_LOST"), "memory"),
        (Diverged("the loss is not finite"), "diverged"),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), "other"),
        (KeyError("x"), "other"),
    ],
)
def test_failures_are_told_apart(error: Exception, kind: str) -> None:
    assert kind_of(error) == kind


def test_a_probe_finds_the_batch_that_fits_and_says_what_did_not() -> None:
    found = measure(Linear, BrightLesson(most=5), Recipe(batch=16), seed=0)
    assert found.batch == 4
    assert found.step_seconds > 0
    assert "a batch of 16 does not fit" in found.message
    assert "a batch of 8 does not fit" in found.message
    assert found.epoch_seconds(32) == pytest.approx(8 * found.step_seconds, rel=0.3)
    assert Probe.from_json(found.to_json()) == found
    with pytest.raises(MemoryError, match="not even one image"):
        measure(Linear, BrightLesson(most=0), Recipe(batch=4), seed=0)


def test_a_probe_tells_from_a_part_of_a_batch_that_the_whole_would_not_fit() -> None:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        batch, largest, peak = pool.submit(probe, 200 * MEGABYTE).result(timeout=patient(40))
    assert batch == 8
    # The batch that would not fit was never run.
    assert largest == 8
    assert 100 * MEGABYTE < peak < 200 * MEGABYTE


def test_a_measured_batch_is_what_is_trained_with() -> None:
    work = Lessons({"large": BrightLesson(most=5), "small": BrightLesson()})
    search(work)
    assert {batch for name, _, batch, _ in work.started if name == "large"} == {4}


def test_a_plan_has_measured_numbers_and_says_what_is_guessed() -> None:
    work = Lessons({"slow": BrightLesson(sleep=0.002), "quick": BrightLesson()})
    budget = Budget.resume(work.checkpoints, 60.0, 10.0)
    probes = {"slow": measure(Linear, work.lessons["slow"], Recipe(batch=16), seed=0)}
    reasons = {"slow": "asked for", "quick": "asked for", "other": "too slow without a GPU"}
    plan = make_plan(
        work,
        Speeds(work, probes, {}),
        reasons,
        budget,
        fingerprint={},
        device="cpu",
        folds=3,
        input_size=8,
        steps={},
        notes=["Mind the gap."],
    )
    slow, quick, other = plan.candidates
    assert slow.measured
    # Sixteen rows of two milliseconds at least; a crowded machine takes longer.
    assert 0.03 < slow.step_seconds < 3.2
    assert slow.epoch_seconds == pytest.approx(2 * 1.2 * slow.step_seconds)
    assert slow.peak_memory >= 0
    assert not quick.measured
    assert "guess" in quick.reason
    assert other.reason == "left out: too slow without a GPU"
    assert "slow (20 epochs of" in plan.summary
    assert plan.summary.endswith("Mind the gap.")


def test_the_predicted_finish_is_never_after_the_budgets_end_and_comes_nearer_where_little_is_left_to_do() -> None:
    now = time.time()
    budget = Budget(100.0, 10.0, 20.0, now)
    assert predict_end(budget, now, None) == pytest.approx(now + 80, abs=0.01)
    assert predict_end(budget, now, 500.0) == pytest.approx(now + 80, abs=0.01)
    assert predict_end(budget, now, 5.0) == pytest.approx(now + 15, abs=0.01)
    seen: list[Snapshot] = []
    work = Lessons({"tame": BrightLesson()})
    budget = Budget.resume(work.checkpoints, 60.0, 0.0)
    Search(work, InlineExecutor(), budget, Plan(), NoTracker(), report=seen.append).run()
    assert seen
    assert all(one.predicted_end <= budget.end for one in seen)


def test_a_hopeless_training_is_stopped_in_the_middle_of_a_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    from oteo_automl.search import pieces
    from oteo_automl.search.pieces import save_rivals
    from oteo_automl.search.result import EpochRecord

    monkeypatch.setattr(pieces, "_LOOK_SECONDS", 0.0)
    kept = Kept()
    save_rivals(kept, {"t000": [EpochRecord(place + 1, 0.0, 0.6 / (place + 1), 0.9, 1e-3, 1.0) for place in range(40)]})
    trainer = Trainer(Linear(), BrightLesson(blind=True), Recipe(), seed=0)
    outcome = trainer.run(60, 60, time.time() + patient(60), on_epoch=curve_watch(kept, "t001", 60, by_score=False))
    assert 4 <= outcome.epochs < 40
    assert "chance to end better" in outcome.hopeless
    # Its own curve is no rival.
    again = Trainer(Linear(), BrightLesson(blind=True), Recipe(), seed=0)
    assert again.run(20, 20, time.time() + patient(60), on_epoch=curve_watch(kept, "t000", 20, by_score=False)).hopeless == ""


def test_promotions_wait_for_nobody() -> None:
    # Two have come to the first rung: the better goes on, although a third has not begun.
    assert promoted([[0.5], [0.4]], [0, 1], growing=True) == 1
    assert promoted([[0.5]], [0], growing=True) is None
    assert promoted([[0.5]], [0], growing=False) == 0
    # The furthest first.
    assert promoted([[0.5], [0.4, 0.3], [0.45, 0.35], [0.3]], [0, 1, 3], growing=True) == 1
    # Who is not among the better half stays.
    assert promoted([[0.5], [0.4, 0.1], [0.3, 0.2], [0.6]], [0, 3], growing=True) is None


def test_a_fold_that_failed_is_left_out_and_one_far_below_its_siblings_is_named() -> None:
    fine = check_folds([0.30, 0.32, 0.29, 0.35, 0.31])
    assert (fine.broken, fine.outlying, fine.message) == ((), (), "")
    low = check_folds([0.30, 0.32, 1.90, 0.35, 0.31])
    assert (low.broken, low.outlying) == ((), (2,))
    assert "fold 3 is far below its siblings" in low.message
    lost = check_folds([0.30, float("inf"), 0.29, 0.35, 0.31])
    assert lost.broken == (1,)
    assert "fold 2 failed" in lost.message
    collapsed = check_folds([0.30, 0.32, 0.95, 0.35, 0.31], [False, False, True, False, False])
    assert collapsed.broken == (2,)
    # Where every fold collapses it is the candidate that is no good, not a fold.
    assert check_folds([0.69, 0.69, 0.69, 0.7], [True] * 4).broken == ()
    # Two folds say nothing of each other.
    assert check_folds([0.1, 2.0]).message == ""


class Wandering(BrightLesson):
    """Pulled another way every other step, so that where an epoch ends is no place to average."""

    def loss(self, model: torch.nn.Module, batch: Any, recipe: Recipe, generator: torch.Generator) -> torch.Tensor:
        planes, labels = batch
        self.turn = getattr(self, "turn", 0) + 1
        pull = 40.0 if (self.turn // 2) % 2 else -40.0
        logits = model.from_planes(planes)
        return torch.nn.functional.cross_entropy(logits, labels) + pull * (logits[:, 0] - logits[:, 1]).mean()


@pytest.mark.parametrize("lesson", [BrightLesson, Wandering])
def test_the_better_of_two_means_of_weights_is_kept(lesson: type[BrightLesson]) -> None:
    trainer = Trainer(Linear(), lesson(), Recipe(rate=0.02, batch=16), seed=0)
    moving: list[float] = []
    outcome = trainer.run(20, 20, time.time() + patient(60), on_epoch=lambda curve: moving.append(curve[-1].validation_loss) or "")
    final = outcome.curve[-1].validation_loss
    assert outcome.judgement.loss <= final
    assert ("plain mean" in outcome.message) == (lesson is BrightLesson)
    # What is handed over is what was judged.
    again = lesson().judge(trainer.result())
    assert again.loss == pytest.approx(outcome.judgement.loss, abs=1e-6)


def test_a_training_that_is_taken_up_again_keeps_the_same_mean_of_weights() -> None:
    whole = Trainer(Linear(), BrightLesson(), Recipe(rate=0.02, batch=16), seed=0)
    expected = whole.run(20, 20, time.time() + patient(60)).judgement.loss
    states: list[bytes] = []
    first = Trainer(Linear(), BrightLesson(), Recipe(rate=0.02, batch=16), seed=0)
    first.run(18, 20, time.time() + patient(60), states.append)
    second = Trainer(Linear(), BrightLesson(), Recipe(rate=0.02, batch=16), seed=0)
    second.restore(states[-1])
    assert second.run(20, 20, time.time() + patient(60)).judgement.loss == pytest.approx(expected, abs=1e-6)


def test_a_search_that_was_killed_goes_on_where_it_was_and_its_time_counts() -> None:
    class Killed(BaseException):
        pass

    kept = Kept()
    work = Lessons({"first": BrightLesson(), "second": BrightLesson()}, kept=kept)

    def die() -> None:
        if len(work.started) >= 2:
            raise Killed

    with pytest.raises(Killed):
        search(work, check=die)
    kept.save("clock.json", b'{"spent": 20.0}')
    done = {name: data for name, data in kept.data.items() if "result-" in name}
    assert done
    again = Lessons({"first": BrightLesson(), "second": BrightLesson()}, kept=kept)
    measured: list[str] = []
    again.probe = lambda _executor, entry, *_: measured.append(entry.name)  # type: ignore[method-assign, func-returns-value, assignment]
    budget = Budget.resume(kept, 60.0, 0.0)
    assert budget.left <= 40.0
    trials = Search(again, InlineExecutor(), budget, Plan(), NoTracker()).run()
    assert not measured
    # What had finished is there and was not trained again.
    assert {name: kept.data[name] for name in done} == done
    finished = {(name.split("/")[1], int(name[-6])) for name in done}
    assert not finished & {(trial.id, rung) for trial in trials for started, rung, _, _ in again.started if trial.candidate == started}
    assert all(trial.results for trial in trials)


def test_a_second_network_is_trained_to_its_end_before_new_settings_where_the_two_may_answer_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(agenda, "_MOST_TRIALS", 3)
    order = {}
    for partners in (0, 1):
        work = Lessons({"first": BrightLesson(), "second": BrightLesson()})
        work.partners = partners
        trials = search(work)
        assert [trial.state for trial in trials[:2]] == ["finished", "finished"]
        # The third trial is the only one that begins after both have.
        begun = [(name, rung) for name, rung, _, _ in work.started]
        second = begun.index(("second", 1)) if ("second", 1) in begun else begun.index(("first", 1))
        zeros = [place for place, (_, rung) in enumerate(begun) if rung == 0]
        ones = [place for place, (_, rung) in enumerate(begun) if rung == 1]
        assert second >= 0
        order[partners] = zeros[2] > ones[1]
    assert order == {0: False, 1: True}


def test_a_network_that_cannot_be_the_best_may_still_be_the_second() -> None:
    def curve(values: list[float]) -> list[EpochRecord]:
        return [EpochRecord(epoch, value, value, 1.0 - value, 0.001, 0.1) for epoch, value in enumerate(values, start=1)]

    work = Lessons({"a": BrightLesson(), "b": BrightLesson()})
    found = {}
    for partners in (0, 1):
        work.partners = partners
        one = Search(work, InlineExecutor(), Budget.resume(work.checkpoints, 60.0, 0.0), Plan(), NoTracker())
        best = Trial("t000-a", "a", results=[PieceResult({"log_loss": 0.05}, 1.0, 20, curve=curve(list(np.geomspace(0.6, 0.05, 20))))])
        flat = Trial("t001-b", "b", rungs=[8, 20])
        flat.results = [PieceResult({"log_loss": 0.5}, 1.0, 8, curve=curve([0.6, 0.55, 0.53, 0.52, 0.515, 0.51, 0.505, 0.5]))]
        one._trials = [best, flat]
        found[partners] = bool(one._cannot_win(flat))
    assert found == {0: True, 1: False}
