"""Networks trained on all folds: their networks answer together, their held-out answers join the cross-validation, and no bad fold is averaged in."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from kept_checkpoints import Kept
from numpy.typing import NDArray

from oteo_automl.candidates.modules import Blend, SavedModule, saved
from oteo_automl.candidates.training import Diverged, Recipe
from oteo_automl.search import agenda
from oteo_automl.search.budget import Budget
from oteo_automl.search.choosing import choose_result
from oteo_automl.search.classification_pieces import Problem, StoredModel, judging_interval, refit, train_network
from oteo_automl.search.classification_work import Settings
from oteo_automl.search.data import ArrayCache
from oteo_automl.search.distillation import without_held_out
from oteo_automl.search.folded import gather_folds, rotated, train_fold
from oteo_automl.search.folds_queue import Folds
from oteo_automl.search.pieces import FOLDS_OF, PieceResult, fold_name, model_name, result_name
from oteo_automl.search.result import EpochRecord, Plan
from oteo_automl.search.schedule import plan_rungs
from oteo_automl.search.scoring import score
from oteo_automl.search.search import Search
from oteo_automl.search.tracker import NoTracker
from oteo_automl.search.trial import FINISHED, Trial
from oteo_automl.search.work import Entry, Work
from oteo_core.images import InputPolicy
from oteo_core.jobs.executor import Executor, InlineExecutor, Task

COUNT, FOLDS = 200, 5
LABELS = np.random.default_rng(0).integers(0, 2, COUNT)
PLACES = np.arange(COUNT) % FOLDS


@saved
class Fixed(SavedModule):
    """Answers each image alike."""

    kind = "test-fixed"

    def __init__(self, value: float) -> None:
        super().__init__(value=value)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        value = torch.full((len(image),), float(self.settings["value"]))
        return torch.stack([-value, value], dim=1)


class World:
    """A problem with drawn answers: classifiers on features on all rows, a network on the first fold and perhaps on others."""

    def __init__(self) -> None:
        images = np.random.default_rng(1).integers(0, 256, (COUNT, 16, 16, 1), dtype=np.uint8)
        self.kept = Kept()
        self.problem = Problem(ArrayCache(images), LABELS, np.arange(COUNT), PLACES, FOLDS, 2, 0, self.kept)
        names = [str(number) for number in range(COUNT)]
        self.settings = Settings([], "log_loss", InputPolicy(16, 16, 1), ("no", "yes"), names, names)
        self.trials: list[Trial] = []

    def answers(self, skill: float, seed: int) -> NDArray[np.float32]:
        logits = np.random.default_rng(seed).normal(0, 1, (COUNT, 2))
        logits[np.arange(COUNT), LABELS] += skill
        return logits.astype(np.float32)

    def save(self, name: str, rows: NDArray[np.int64], logits: NDArray[np.float32], value: float = 0.0) -> PieceResult:
        self.kept.save(model_name(name), StoredModel(Fixed(value), rows, logits, "drawn").to_bytes())
        result = PieceResult(score(logits, LABELS[rows]), 1.0, latency=0.001, parameters={"epochs": 3})
        self.kept.save(result_name(name, 0), result.to_json())
        return result

    def classifier(self, name: str, skill: float, seed: int) -> None:
        identity = f"t{len(self.trials):03d}-{name}"
        logits = self.answers(skill, seed)
        self.save(identity, np.arange(COUNT), logits)
        held = PLACES == 0
        self.trials.append(Trial(identity, name, state=FINISHED, results=[PieceResult(score(logits[held], LABELS[held]), 1.0)]))

    def network(self, skills: dict[int, float], seed: int = 50) -> Trial:
        """Add a network whose fold `k` has this skill; fold 0 is its trial's own."""
        identity = f"t{len(self.trials):03d}-timm-resnet18"
        for fold, skill in skills.items():
            rows = np.flatnonzero(fold == PLACES)
            result = self.save(identity if fold == 0 else fold_name(identity, fold), rows, self.answers(skill, seed)[rows], 0.5 + fold)
            if fold == 0:
                trial = Trial(identity, "timm-resnet18", recipe=Recipe(), rungs=[3], state=FINISHED, results=[result])
        self.trials.append(trial)
        return trial

    def choose(self, **fields: object) -> tuple[Any, Plan]:
        plan = Plan()
        return choose_result(self.trials, self.problem, replace(self.settings, **fields), plan, seconds=600.0), plan  # type: ignore[arg-type]


@pytest.fixture
def world() -> World:
    return World()


def test_the_folds_networks_are_one_graph_and_their_answers_those_of_all_rows(world: World) -> None:
    parent = world.network(dict.fromkeys(range(FOLDS), 1.5))
    [(one, folded)] = gather_folds(world.trials, world.problem)
    assert one is parent
    assert world.trials[-1] is folded
    stored = StoredModel.from_bytes(world.kept.data[model_name(folded.id)])
    np.testing.assert_array_equal(stored.rows, np.arange(COUNT))
    np.testing.assert_array_equal(stored.logits, world.answers(1.5, 50))
    assert "cross-validated (5 folds by group)" in stored.source
    # The mean of the five networks' log-probabilities.
    values = np.array([0.5 + fold for fold in range(FOLDS)])
    wanted = np.log(1.0 / (1.0 + np.exp(2.0 * np.stack([values, -values])))).mean(axis=1)
    found = stored.module(torch.zeros((2, 16, 16, 1), dtype=torch.uint8))
    np.testing.assert_allclose(found[0].detach().numpy(), wanted, rtol=1e-5)
    assert folded.results[-1].fold_scores.keys() == {"0", "1", "2", "3", "4"}
    assert "the mean of 5 networks" in folded.message
    # The figures that trials are compared by stay those of the first fold.
    assert folded.loss("log_loss") == pytest.approx(parent.loss("log_loss"))


def test_a_fold_far_below_its_siblings_is_not_averaged_in_and_is_named(world: World) -> None:
    world.network({0: 2.0, 1: 2.0, 2: 2.0, 3: -4.0, 4: 2.0})
    [(_, folded)] = gather_folds(world.trials, world.problem)
    stored = StoredModel.from_bytes(world.kept.data[model_name(folded.id)])
    assert set(PLACES[stored.rows].tolist()) == {0, 1, 2, 4}
    assert isinstance(stored.module, Blend)
    assert len(stored.module.parts) == 4
    assert "fold 4 is far below its siblings" in folded.message
    assert "not in the mean" in folded.message
    assert folded.results[-1].parameters["left_out_folds"] == [3]


def test_a_fold_begun_again_stands_for_the_one_that_failed(world: World) -> None:
    parent = world.network({0: 2.0, 1: 2.0, 2: 2.0, 3: -4.0, 4: 2.0})
    rows = np.flatnonzero(PLACES == 3)
    world.save(fold_name(parent.id, 3, again=True), rows, world.answers(2.0, 50)[rows], 9.0)
    [(_, folded)] = gather_folds(world.trials, world.problem)
    assert folded.results[-1].parameters["folds"] == 5
    assert folded.results[-1].parameters["left_out_folds"] == []


def test_networks_of_all_folds_are_mixed_with_classifiers_on_all_rows(world: World) -> None:
    for number, name in enumerate(("classical-logistic", "classical-svm")):
        world.classifier(name, 1.0, 10 + number)
    parent = world.network(dict.fromkeys(range(FOLDS), 1.2))
    result, plan = world.choose()
    assert result.best.candidate == "blend"
    folded = next(trial for trial in world.trials if trial.results and FOLDS_OF in trial.results[-1].parameters)
    assert folded.id in result.best.parameters["parts"]
    assert parent.id not in result.best.parameters["parts"]
    assert len(result.best.validation.labels) == COUNT
    assert "timm-resnet18 is the mean of 5 networks" in plan.summary
    assert len(result.fold_scores["timm-resnet18"]) == FOLDS
    # A teacher must not know the held-out labels: of the network, the one that has not seen them.
    teacher = without_held_out(world.problem, result.best.module, result.best.parameters["parts"])
    assert isinstance(teacher, Blend)
    assert [part.kind for part in teacher.parts].count("test-fixed") == len(teacher.parts)


def test_luck_on_the_first_fold_does_not_hide_what_all_folds_are_together(world: World) -> None:
    for number, name in enumerate(("classical-logistic", "classical-svm")):
        world.classifier(name, 1.0, 10 + number)
    world.network(dict.fromkeys(range(FOLDS), 1.2))
    lucky = world.network({0: 1.3})
    lucky.candidate = "timm-resnet10t"
    assert lucky.loss("log_loss") < min(trial.loss("log_loss") for trial in world.trials[:-1])
    result, _ = world.choose()
    assert "timm-resnet18" in result.best.parameters["candidates"]
    assert lucky.id not in result.best.parameters["parts"]
    assert len(result.best.validation.labels) == COUNT


def test_a_network_of_all_folds_is_looked_at_however_many_classifiers_are_ahead_of_it(world: World) -> None:
    for number in range(12):
        world.classifier(f"classical-{number}", 1.3, 10)
    world.network(dict.fromkeys(range(FOLDS), 1.2))
    assert "timm-resnet18" in world.choose()[0].best.parameters["candidates"]


def test_alone_it_takes_the_place_of_the_first_folds_network_within_the_time_for_an_image(world: World) -> None:
    parent = world.network(dict.fromkeys(range(FOLDS), 1.2))
    result, _ = world.choose()
    assert result.best.parameters[FOLDS_OF] == parent.id
    assert len(result.best.validation.labels) == COUNT
    teacher = refit(world.problem, result.best.module, result.best.trial_id)
    assert teacher.settings == {"value": 0.5}
    assert without_held_out(world.problem, result.best.module, [result.best.trial_id]).settings == {"value": 0.5}
    world = World()
    parent = world.network(dict.fromkeys(range(FOLDS), 1.2))
    assert world.choose(max_latency=1e-9)[0].best.trial_id == parent.id
    world = World()
    parent = world.network({0: 1.2})
    assert world.choose()[0].best.trial_id == parent.id


def test_a_fold_is_trained_on_what_the_others_hold_out() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 2
    images = np.clip(rng.normal(90 + 70 * labels[:, None, None, None], 20, (60, 32, 32, 3)), 0, 255).astype(np.uint8)
    kept = Kept()
    folds = np.where(np.arange(60) < 6, -1, np.arange(60) // 2 % 3)
    problem = Problem(ArrayCache(images), labels, np.arange(60), folds, 3, 2, 0, kept)
    assert set(rotated(problem, 2).held_out.tolist()) == set(np.flatnonzero(folds == 2).tolist())
    # Rows without a fold are always learnt from.
    assert set(range(6)) <= set(rotated(problem, 2).learnt_from.tolist())
    recipe, until = Recipe(batch=16, rate=3e-3), time.time() + 600.0
    first = train_network(problem, "t000-timm-resnet10t", 0, "resnet10t", recipe, 2, 2, until)
    trial = Trial("t000-timm-resnet10t", "timm-resnet10t", recipe=recipe, rungs=[2], state=FINISHED, results=[first])
    name = fold_name(trial.id, 2)
    once = train_fold(problem, name, 2, "resnet10t", recipe, 2, until)
    # A piece that is done gives its result at once.
    assert train_fold(problem, name, 2, "resnet10t", recipe, 2, until).to_json() == once.to_json()
    [(_, folded)] = gather_folds([trial], problem)
    stored = StoredModel.from_bytes(kept.data[model_name(folded.id)])
    assert set(folds[stored.rows].tolist()) == {0, 2}
    assert isinstance(stored.module, Blend)
    with torch.inference_mode():
        own = stored.module.parts[1](torch.from_numpy(images[folds == 2])).numpy()
    np.testing.assert_allclose(stored.logits[folds[stored.rows] == 2], own, atol=1e-4)


class Foldable(Work[list[Trial]]):
    """A search over one network; `bad` folds answer badly, `wild` ones diverge, until they are begun again."""

    def __init__(self, *, bad: int = 0, wild: int = 0, kept: Kept | None = None, folds: int = 5) -> None:
        self.entries = [Entry("net", model="net")]
        self.objective, self.seed, self.train_count, self.held_out_count = "log_loss", 0, 32, 16
        self.checkpoints = kept or Kept()
        self.most_epochs = 10
        self.other_folds = tuple(range(1, folds))
        self.bad, self.wild = bad, wild
        self.begun: list[str] = []
        self.stop_after = 10_000

    def _result(self, name: str, epochs: int, loss: float) -> PieceResult:
        curve = [EpochRecord(epoch, loss, loss, 0.9, 0.01, 0.01) for epoch in range(1, epochs + 1)]
        return PieceResult({"log_loss": loss, "accuracy": 0.9}, 0.01, epochs, curve=curve, latency=0.001)

    def train(
        self, executor: Executor, trial: str, rung: int, entry: Entry, recipe: Recipe, target: int, total: int, deadline: float
    ) -> Task[PieceResult]:
        self.begun.append(f"{trial}@{rung}")
        return executor.submit(self._result, trial, target, 0.3)

    def train_fold(
        self, executor: Executor, trial: str, fold: int, entry: Entry, recipe: Recipe, epochs: int, deadline: float
    ) -> Task[PieceResult]:
        if len(self.begun) >= self.stop_after:
            raise KeyboardInterrupt
        self.begun.append(trial)

        def piece() -> PieceResult:
            if fold == self.wild and "again" not in trial:
                raise Diverged("the loss is not finite")
            return self._result(trial, epochs, 3.0 if fold == self.bad and "again" not in trial else 0.3)

        return executor.submit(piece)

    def pretrained(self, entry: Entry) -> bool:
        return False

    def recipe(self, entry: Entry) -> Recipe:
        return Recipe()

    def base_rate(self, entry: Entry) -> float:
        return 0.01

    def cost(self, entry: Entry) -> float:
        return 0.01

    def result(self, trials: list[Trial], plan: Plan, seconds: float) -> list[Trial]:
        return trials


def run(work: Foldable, monkeypatch: pytest.MonkeyPatch) -> Search[list[Trial]]:
    monkeypatch.setattr(agenda, "_MOST_TRIALS", 1)
    found = Search(work, InlineExecutor(), Budget.resume(work.checkpoints, 60.0, 0.0), Plan(), NoTracker())
    found.run()
    return found


def test_the_leading_network_is_trained_on_every_other_fold_once(monkeypatch: pytest.MonkeyPatch) -> None:
    work = Foldable()
    found = run(work, monkeypatch)
    assert [name for name in work.begun if "fold" in name] == [f"t000-net/fold{fold}" for fold in range(1, 5)]
    assert [one.state for one in found._folds.trials] == ["finished"] * 4
    # They stand in no list of trials.
    assert [record.id for record in found.records()] == ["t000-net"]
    assert "with each of the other 4 folds held out as well" in found._plan.summary


def test_a_killed_search_goes_on_with_the_folds_that_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    work = Foldable()
    work.stop_after = 4
    with pytest.raises(KeyboardInterrupt):
        run(work, monkeypatch)
    again = Foldable(kept=work.checkpoints)  # type: ignore[arg-type]
    run(again, monkeypatch)
    done = [name for name in (*work.begun, *again.begun) if "fold" in name]
    assert set(done) == {f"t000-net/fold{fold}" for fold in range(1, 5)}
    assert "t000-net/fold1" not in again.begun


def test_a_fold_that_diverges_or_is_far_below_its_siblings_is_begun_again_once(monkeypatch: pytest.MonkeyPatch) -> None:
    work = Foldable(bad=4, wild=2)
    found = run(work, monkeypatch)
    assert work.begun.count("t000-net/fold2-again") == 1
    assert work.begun.count("t000-net/fold4-again") == 1
    again = [one for one in found._folds.trials if one.restarts]
    assert {one.fold for one in again} == {2, 4}
    assert all(one.recipe is not None and one.recipe.rate == pytest.approx(0.25e-3) for one in again)
    assert all("begun after" in one.notes[0] for one in again)


def test_without_time_for_half_of_the_folds_none_is_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    work = Foldable()
    monkeypatch.setattr(agenda.Speeds, "epoch", lambda *_: 4.0)
    run(work, monkeypatch)
    assert not [name for name in work.begun if "fold" in name]


def test_a_plan_is_as_long_as_leaves_time_for_the_other_folds() -> None:
    alone = plan_rungs(200, budget=600.0, pretrained=False, epoch_seconds=1.5)
    folded = plan_rungs(200, budget=600.0, pretrained=False, epoch_seconds=1.5, waves=4)
    assert alone[-1] == 60
    # The network itself and its four folds, and something left for others.
    assert 0.4 * 600.0 < 5 * folded[-1] * 1.5 < 0.6 * 600.0
    # Side by side they take half of the time.
    assert plan_rungs(200, budget=600.0, pretrained=False, epoch_seconds=1.5, waves=2)[-1] == 60


def test_where_a_fold_would_learn_too_little_one_network_gets_the_time() -> None:
    assert plan_rungs(200, budget=30.0, pretrained=False, epoch_seconds=1.5, waves=4) == plan_rungs(
        200, budget=30.0, pretrained=False, epoch_seconds=1.5
    )


def test_half_of_the_folds_are_begun_where_there_is_no_time_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    work = Foldable()
    folds = Folds(work)
    parent = Trial("t000-net", "net", recipe=Recipe(), rungs=[10], rung=0, state="finished", results=[work._result("", 10, 0.3)])
    needed = 10 * 1.15
    assert folds.next([parent], lambda _: 1.0, 1.9 * needed, 1) is None
    begun = folds.next([parent], lambda _: 1.0, 2.1 * needed, 1)
    assert begun is not None
    assert begun.fold == 1
    # The second still fits, the third does not.
    assert folds.next([parent], lambda _: 1.0, 1.1 * needed, 1) is not None
    assert folds.next([parent], lambda _: 1.0, 0.1 * needed, 1) is None


def test_judging_takes_an_eighth_of_the_time_of_learning() -> None:
    # 250 images at a third of the price of one that is learnt from.
    assert judging_interval(200, 50) == 3
    assert judging_interval(50_000, 1_000) == 1
    assert judging_interval(200, 5_000) == 69


def test_time_for_the_folds_of_the_best_network_is_not_for_others() -> None:
    folds = Folds(Foldable())
    paused = Trial("t000-net", "net", recipe=Recipe(), rungs=[2, 10], rung=0, state="paused", results=[Foldable()._result("", 2, 0.3)])
    # Eight epochs to its end, and four folds of ten with something to spare.
    assert folds.spoken_for([paused], lambda _: 1.0, 4, lambda _: True) == pytest.approx(8.0 + 4 * 1.15 * 10)
    assert folds.spoken_for([paused], lambda _: 1.0, 4, lambda _: False) == 0.0
    assert folds.spoken_for([], lambda _: 1.0, 4, lambda _: True) == 0.0


class Ranked(Foldable):
    """Networks of which the first is too slow for its folds; each has its own cost."""

    def __init__(self, costs: dict[str, float]) -> None:
        super().__init__()
        self.entries = [Entry(name, model=name) for name in costs]
        self.costs, self.train_count = costs, 200

    def cost(self, entry: Entry) -> float:
        return self.costs[entry.name]


def ranked(slow: float) -> tuple[Ranked, Search[list[Trial]]]:
    work = Ranked({"slow": slow, "quick": 0.5})
    return work, Search(work, InlineExecutor(), Budget.resume(work.checkpoints, 60.0, 0.0), Plan(), NoTracker())


@pytest.mark.parametrize(("slow", "first"), [(2.0, "quick"), (0.6, "slow")])
def test_networks_that_can_be_trained_on_all_folds_come_first(slow: float, first: str) -> None:
    _, found = ranked(slow)
    assert next(one.name for one in found.agenda.unstarted([])) == first


def test_another_network_is_not_begun_in_the_time_for_the_folds_of_the_best() -> None:
    work, found = ranked(2.0)
    begun = Trial("t000-quick", "quick", recipe=Recipe(), rungs=[2, 10], rung=0, state="paused", results=[work._result("", 2, 0.3)])
    found._trials.append(begun)
    assert [one.name for one in found.agenda.unstarted([begun])] == ["slow"]
    # Of 30 seconds the quick one needs 27; the slow one's first look would take 4.
    found._budget.spent_before = 30.0
    assert found.agenda.unstarted([begun]) == []
