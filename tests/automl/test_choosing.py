"""From trials to what is handed over: one model, or a mixture that is clearly better and within the time asked for."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from kept_checkpoints import Kept
from numpy.typing import NDArray

from oteo_automl.candidates.modules import SavedModule, saved
from oteo_automl.search.choosing import choose_result
from oteo_automl.search.classification_pieces import Problem, StoredModel
from oteo_automl.search.classification_work import Settings
from oteo_automl.search.data import ArrayCache
from oteo_automl.search.pieces import PieceResult, model_name
from oteo_automl.search.result import Plan, SearchResult
from oteo_automl.search.scoring import score
from oteo_automl.search.trial import FINISHED, Trial
from oteo_core.images import InputPolicy

COUNT = 200
LABELS = np.random.default_rng(0).integers(0, 2, COUNT)
FOLDS = np.arange(COUNT) % 5
POLICY = InputPolicy(width=16, height=16, channels=1, dtype="uint8")


@saved
class Steady(SavedModule):
    """Gives each image's mean as a logit; `rounds` is the work that it takes."""

    kind = "test-steady"

    def __init__(self, rounds: int = 1) -> None:
        super().__init__(rounds=rounds)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        mean = image.float().mean(dim=(1, 2, 3)) / 255
        for _ in range(int(self.settings["rounds"])):
            mean = torch.cos(torch.sin(mean.expand(200_000, -1))).mean(dim=0)
        return torch.stack([-mean, mean], dim=1)


class World:
    """A problem, and trials whose answers are drawn."""

    def __init__(self) -> None:
        images = np.random.default_rng(1).integers(0, 256, (COUNT, 16, 16, 1), dtype=np.uint8)
        self.kept = Kept()
        self.problem = Problem(ArrayCache(images), LABELS, np.arange(COUNT), FOLDS, 5, 2, 0, self.kept)
        names = [str(number) for number in range(COUNT)]
        self.settings = Settings([], "log_loss", POLICY, ("no", "yes"), names, names)
        self.trials: list[Trial] = []

    def trial(self, candidate: str, skill: float, *, seed: int, wide: bool = True, rounds: int = 1) -> None:
        """Add a trial that errs in its own way; not `wide`: it has held out the first fold alone."""
        rows = np.arange(COUNT) if wide else np.flatnonzero(FOLDS == 0)
        logits = self._drawn(skill, seed)[rows]
        identity = f"t{len(self.trials):03d}"
        self.kept.save(model_name(identity), StoredModel(Steady(rounds), rows, logits, "drawn").to_bytes())
        held = np.isin(rows, self.problem.held_out)
        result = PieceResult(score(logits[held], LABELS[rows[held]]), 1.0, latency=0.001)
        self.trials.append(Trial(identity, candidate, state=FINISHED, results=[result]))

    @staticmethod
    def _drawn(skill: float, seed: int) -> NDArray[np.float32]:
        logits = np.random.default_rng(seed).normal(0, 1, (COUNT, 2))
        logits[np.arange(COUNT), LABELS] += skill
        return logits.astype(np.float32)

    def choose(self, **fields: object) -> SearchResult:
        """Choose among the trials."""
        return choose_result(self.trials, self.problem, replace(self.settings, **fields), Plan(), seconds=600.0)  # type: ignore[arg-type]


@pytest.fixture
def world() -> World:
    found = World()
    for number, name in enumerate(("classical-logistic", "classical-svm", "patches-svm")):
        found.trial(name, 1.0, seed=number + 10)
    return found


def test_models_that_err_apart_become_one_that_is_better(world: World) -> None:
    alone = min(trial.loss("log_loss") for trial in world.trials)
    result = world.choose()
    assert result.best.candidate == "blend"
    blend = world.trials[-1]
    assert blend.loss("log_loss") < alone
    assert "on held-out samples that its weights were not found on" in blend.message
    assert blend.results[-1].latency > 0
    assert len(result.best.validation.labels) == COUNT
    assert result.best.module(torch.zeros(3, 16, 16, 1, dtype=torch.uint8)).shape == (3, 2)
    assert result.runner_up is not None
    assert result.runner_up.candidate in result.best.parameters["candidates"]
    assert any(trial.on_front for trial in world.trials)
    assert "Chosen: blend" in result.plan.summary


def test_a_network_that_has_held_out_little_does_not_hide_what_the_others_are_together(world: World) -> None:
    world.trial("timm-resnet18", 0.1, seed=20, wide=False)
    result = world.choose()
    assert result.best.candidate == "blend"
    assert "timm-resnet18" not in result.best.parameters["candidates"]
    assert len(result.best.validation.labels) == COUNT


def test_a_network_and_classifiers_on_features_answer_together_half_and_half(world: World) -> None:
    # It has held out far fewer images than they, too few to find weights by, and errs apart from them.
    world.trial("timm-resnet18", 1.4, seed=22, wide=False)
    best = world.choose().best
    shares = dict(zip(best.parameters["candidates"], best.parameters["weights"], strict=True))
    assert shares.pop("timm-resnet18") == pytest.approx(0.5)
    assert sum(shares.values()) == pytest.approx(0.5)
    blend = world.trials[-1]
    assert "half and half" in blend.message
    assert blend.loss("log_loss") < min(trial.loss("log_loss") for trial in world.trials[:-1])
    # What the figures are of: images that all parts have held out.
    assert len(best.validation.labels) == COUNT // 5


def test_no_network_joins_that_would_take_too_long_for_an_image(world: World) -> None:
    world.trial("timm-resnet18", 1.0, seed=21, wide=False, rounds=400)
    slow = world.choose(max_latency=0.02).best
    assert "timm-resnet18" not in slow.parameters.get("candidates", [slow.candidate])


def test_no_mixture_where_it_was_not_asked_for_or_takes_too_long(world: World) -> None:
    assert world.choose(blend=False).best.candidate != "blend"
    result = world.choose(max_latency=1e-7)
    assert result.best.candidate != "blend"
    assert "No model keeps" in result.plan.summary


def test_a_model_that_is_far_slower_and_hardly_better_is_not_chosen() -> None:
    world = World()
    world.trial("classical-logistic", 2.00, seed=3)
    world.trial("timm-resnet18", 2.01, seed=3, rounds=20)
    assert world.trials[1].loss("log_loss") < world.trials[0].loss("log_loss")
    result = world.choose()
    assert result.best.candidate == "classical-logistic"
    assert [trial.on_front for trial in world.trials] == [True, True]
    assert math.isfinite(result.best.objective)
