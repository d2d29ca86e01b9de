"""A classification's search: which classifiers and networks, and in what order."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from oteo_automl.candidates.checkpoints import AS_IS
from oteo_automl.candidates.networks import flops
from oteo_automl.candidates.portfolio import find_architecture
from oteo_automl.candidates.registry import CANDIDATES, Candidate
from oteo_automl.candidates.training import Recipe
from oteo_automl.candidates.weights import find_weights
from oteo_automl.search.checkpoint_pieces import judge_given
from oteo_automl.search.choosing import choose_result
from oteo_automl.search.classification_pieces import Problem, fit_classifier, probe_network, train_network
from oteo_automl.search.folded import train_fold
from oteo_automl.search.pieces import PieceResult
from oteo_automl.search.probe import Probe
from oteo_automl.search.result import Plan, SearchResult
from oteo_automl.search.trial import Trial
from oteo_automl.search.work import Entry, Work
from oteo_core.images import InputPolicy
from oteo_core.jobs.executor import Executor, Task

_SAME_COST = 0.013
"""Seconds of one image of one epoch of resnet18 at 128 pixels, on one processor core."""

_GPU_GAIN = 0.02
_TRIES = 40
_LAYER_DECAY = 0.75
_CUT = 0.5
_USUAL_RATE = 1e-3
"""Learning rate from scratch of networks that are not of the portfolio."""


@dataclass(slots=True)
class Settings:
    """What a search is asked for.

    Parameters
    ----------
    candidates
        In the order in which they are tried; the baseline first.
    objective
        One of `oteo_automl.search.scoring.OBJECTIVES`.
    policy
        How images are prepared.
    classes
        Names, in the order of the labels.
    ids, groups
        Of all samples of the data.
    gpu_share
        Part of a GPU that a network's training takes; 0: none.
    blend
        True: a mixture of several models may win.
    max_latency
        Seconds that one image may take at inference.
    """

    candidates: Sequence[Candidate]
    objective: str
    policy: InputPolicy
    classes: tuple[str, ...]
    ids: Sequence[str]
    groups: Sequence[str]
    gpu_share: float = 0.0
    blend: bool = True
    max_latency: float = math.inf


class ClassificationWork(Work[SearchResult]):
    """Classifiers on fixed features, and timm's networks.

    Parameters
    ----------
    problem
        Images, labels, folds, checkpoints.
    settings
        What is asked for.
    """

    strengths = ("light", "strong", "turned", "trivial", "robust")

    def __init__(self, problem: Problem, settings: Settings) -> None:
        self._problem = problem
        self._settings = settings
        self.entries = [Entry(one.name, bool(one.family), one.features, one.architecture) for one in settings.candidates]
        given = problem.given.values()
        # After the baseline, and before what begins from less.
        self.entries[1:1] = [
            *(Entry(f"{one.candidate}{AS_IS}", True, one.candidate) for one in given if one.fits),
            *(Entry(one.candidate, model=one.candidate) for one in given),
        ]
        self.objective = settings.objective
        self.checkpoints = problem.checkpoints
        self.seed = problem.seed
        self.train_count = len(problem.learnt_from)
        self.held_out_count = len(problem.held_out)
        self.gpu_share = settings.gpu_share
        self.other_folds = tuple(range(1, problem.fold_count)) if settings.blend else ()
        self._pretrained = {
            one.architecture: find_weights(problem.pretrained_uri, one.architecture) is not None
            for one in settings.candidates
            if one.architecture and problem.pretrained_uri
        }

    def fit(self, executor: Executor, trial: str, entry: Entry, seconds: float, deadline: float) -> Task[PieceResult]:
        """Search a family of classifiers on one kind of features."""
        given = self._problem.given.get(entry.shares)
        if given is not None:
            return executor.submit(judge_given, self._problem, trial, given, cpus=1.0)
        return executor.submit(fit_classifier, self._problem, trial, CANDIDATES[entry.name], _TRIES, deadline, seconds, cpus=1.0, retries=0)

    def train(
        self, executor: Executor, trial: str, rung: int, entry: Entry, recipe: Recipe, target: int, total: int, deadline: float
    ) -> Task[PieceResult]:
        """Train a network up to an epoch."""
        return executor.submit(
            train_network,
            self._problem,
            trial,
            rung,
            entry.model,
            recipe,
            target,
            total,
            deadline,
            cpus=1.0,
            gpus=self.gpu_share,
            retries=0,
        )

    def train_fold(
        self, executor: Executor, trial: str, fold: int, entry: Entry, recipe: Recipe, epochs: int, deadline: float
    ) -> Task[PieceResult]:
        """Train a network with another fold held out."""
        return executor.submit(
            train_fold, self._problem, trial, fold, entry.model, recipe, epochs, deadline, cpus=1.0, gpus=self.gpu_share, retries=0
        )

    def probe(self, executor: Executor, entry: Entry, recipe: Recipe, deadline: float) -> Task[Probe] | None:
        """Measure a network's training."""
        share = self.gpu_share or 1.0 / max(1.0, executor.cpus)
        return executor.submit(probe_network, self._problem, entry.model, recipe, deadline, share, cpus=1.0, gpus=self.gpu_share, retries=0)

    def pretrained(self, entry: Entry) -> bool:
        """Say whether there are weights for it."""
        return entry.model in self._problem.given or self._pretrained.get(entry.model, False)

    def recipe(self, entry: Entry) -> Recipe:
        """Give the recipe that is tried first."""
        rate = self.base_rate(entry)
        count = self.train_count
        batch = 8 if count < 64 else 16 if count < 128 else 32
        if self.gpu_share and count >= 2000:
            batch, rate = 128, rate * 2
        if self.pretrained(entry):
            # What was learnt from millions of images changes little, and least of all in the first layers.
            return Recipe(rate=rate * 0.3, batch=batch, layer_decay=_LAYER_DECAY, cut=_CUT)
        return Recipe(rate=rate, batch=batch, cut=_CUT)

    def base_rate(self, entry: Entry) -> float:
        """Give the learning rate from scratch."""
        try:
            return find_architecture(self._architecture(entry)).rate
        except KeyError:
            return _USUAL_RATE

    def cost(self, entry: Entry) -> float:
        """Guess the seconds of an epoch."""
        return _epoch_guess(self._architecture(entry), self._settings.policy, self.train_count, gpu=self.gpu_share > 0)

    def _architecture(self, entry: Entry) -> str:
        given = self._problem.given.get(entry.model)
        return given.architecture if given is not None else entry.model

    def result(self, trials: list[Trial], plan: Plan, seconds: float) -> SearchResult:
        """Choose the best, or a blend."""
        return choose_result(trials, self._problem, self._settings, plan, seconds=seconds)


def _epoch_guess(architecture: str, policy: InputPolicy, count: int, *, gpu: bool) -> float:
    return flops(architecture, policy.width) * count * _SAME_COST * (_GPU_GAIN if gpu else 1.0)
