"""A dense task's search: its candidates under the common loop, and what it hands over."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from oteo_automl.candidates.registry import BLEND
from oteo_automl.candidates.training import Recipe
from oteo_automl.candidates.weights import find_weights
from oteo_automl.dense.base import DenseCandidate, DenseData, DenseTask
from oteo_automl.dense.blending import Asked, blend_trials
from oteo_automl.dense.pieces import DenseProblem, StoredNetwork, probe_dense, train_dense
from oteo_automl.dense.result import DenseResult, FittedNetwork
from oteo_automl.search.folds import hold_out_share
from oteo_automl.search.front import mark_front, pick, why_chosen
from oteo_automl.search.pieces import PieceResult, model_name
from oteo_automl.search.probe import Probe
from oteo_automl.search.result import Plan
from oteo_automl.search.trial import Trial
from oteo_automl.search.work import Entry, Work
from oteo_core.errors import Internal, InvalidArgument, NotFound
from oteo_core.images import InputPolicy
from oteo_core.jobs.executor import Executor, Task
from oteo_core.packages.answers import IGNORED, ClassMap

_SAME_COST = 0.015
"""Seconds of one image of one epoch of ``unet-resnet18`` at 128 x 128 pixels, on one processor core."""

_GPU_GAIN = 0.02
_HELD_OUT_SHARE = 0.2
_LEAST_HELD_OUT = 4
_LOOKED_AT = 3000

_LEAST_SEARCH = 180.0
_MIXING_SHARE, _MIXING_MOST = 0.04, 60.0


class DenseWork(Work[DenseResult]):
    """Networks of one dense task.

    Parameters
    ----------
    problem
        Images, targets, rows, checkpoints.
    task
        The task.
    candidates
        In the order in which they are tried.
    objective
        One of the task's objectives.
    policy
        How images are prepared.
    gpu_share
        Part of a GPU that a training takes; 0: none.
    max_latency
        Seconds that a network may take for one image.
    groups
        Of all samples of the data; empty: every image alone.
    mixing_seconds
        That choosing a mixture of several networks may take at the end; 0: none is looked for.
    """

    images_wanted = 24_000
    most_epochs = 300
    strengths = ("light", "strong", "robust")
    searched = ("rate", "decay", "strength")
    # Places are learnt slowly from scratch: one long training is worth more than two short ones.
    whole_share = 0.85

    def __init__(
        self,
        problem: DenseProblem,
        task: DenseTask,
        candidates: Sequence[DenseCandidate],
        objective: str,
        policy: InputPolicy,
        gpu_share: float = 0.0,
        max_latency: float = math.inf,
        groups: Sequence[str] = (),
        mixing_seconds: float = 0.0,
    ) -> None:
        self._problem = problem
        self._asked = Asked(objective, groups, max_latency, mixing_seconds)
        self.partners = 1 if mixing_seconds > 0 else 0
        self._task = task
        self._policy = policy
        self.entries = [Entry(one.name, model=one.name) for one in candidates]
        self.objective = objective
        self.checkpoints = problem.checkpoints
        self.seed = problem.seed
        self.train_count = len(problem.train)
        self.held_out_count = len(problem.held_out)
        self.gpu_share = gpu_share
        self._max_latency = max_latency
        self._pretrained = {
            one.name: bool(problem.pretrained_uri) and find_weights(problem.pretrained_uri, one.architecture) is not None
            for one in candidates
        }

    def train(
        self, executor: Executor, trial: str, rung: int, entry: Entry, recipe: Recipe, target: int, total: int, deadline: float
    ) -> Task[PieceResult]:
        """Train a network up to an epoch."""
        return executor.submit(
            train_dense, self._problem, trial, rung, entry.name, recipe, target, total, deadline, cpus=1.0, gpus=self.gpu_share, retries=0
        )

    def probe(self, executor: Executor, entry: Entry, recipe: Recipe, deadline: float) -> Task[Probe] | None:
        """Measure a network's training."""
        share = self.gpu_share or 1.0 / max(1.0, executor.cpus)
        return executor.submit(probe_dense, self._problem, entry.name, recipe, deadline, share, cpus=1.0, gpus=self.gpu_share, retries=0)

    def pretrained(self, entry: Entry) -> bool:
        """Say whether there are weights for its encoder."""
        return self._pretrained[entry.name]

    def recipe(self, entry: Entry) -> Recipe:
        """Give the task's first recipe."""
        return self._task.recipe(
            self._task.find(entry.name), train_count=self.train_count, pretrained=self.pretrained(entry), gpu=self.gpu_share > 0
        )

    def base_rate(self, entry: Entry) -> float:
        """Give the learning rate from scratch."""
        return self._task.find(entry.name).rate

    def cost(self, entry: Entry) -> float:
        """Guess the seconds of an epoch."""
        pixels = self._policy.width * self._policy.height / 128**2
        return self._task.find(entry.name).cost * self.train_count * _SAME_COST * pixels * (_GPU_GAIN if self.gpu_share else 1.0)

    def result(self, trials: list[Trial], plan: Plan, seconds: float) -> DenseResult:
        """Choose the best trial at its time for one image or a mixture of several, the best of another candidate, and the baseline.

        Raises
        ------
        Internal
            ``NO_CANDIDATE``: no trial left a network.
        """
        ranked_trials = sorted((one for one in trials if one.results), key=lambda one: one.loss(self.objective))
        first = pick(ranked_trials, self.objective, self._max_latency)
        if first is not None:
            ranked_trials.remove(first)
            ranked_trials.insert(0, first)
        blend = blend_trials(self._task, self._problem, ranked_trials, trials, self._asked) if self._asked.seconds > 0 else None
        mark_front(trials, self.objective)
        found: dict[str, FittedNetwork] = {}
        for trial in ranked_trials:
            if trial.candidate in found or (len(found) >= 2 and trial.candidate != self.entries[0].name):
                continue
            data = self.checkpoints.load(model_name(trial.id))
            if data is not None:
                found[trial.candidate] = self._fitted(trial, StoredNetwork.from_bytes(data))
        if not found:
            raise Internal("no trial left a network behind", reason="NO_CANDIDATE")
        alone = list(found.values())
        ranked = alone if blend is None else [blend, *alone]
        latency = next(one.results[-1].latency for one in trials if one.id == ranked[0].trial_id)
        plan.notes.append(why_chosen(ranked[0].candidate.name, latency, self._max_latency))
        plan.summary = f"{plan.summary} {plan.notes[-1]}".strip()
        return DenseResult(
            objective=self.objective,
            best=ranked[0],
            runner_up=ranked[1] if len(ranked) > 1 else None,
            baseline=found.get(self.entries[0].name, alone[0]),
            curves={trial.id: trial.curve for trial in trials if trial.curve},
            plan=plan,
            seconds=seconds,
        )

    def _fitted(self, trial: Trial, stored: StoredNetwork) -> FittedNetwork:
        last = trial.results[-1]
        return FittedNetwork(
            trial_id=trial.id,
            candidate=self._task.find(trial.candidate),
            module=stored.module,
            parameters=dict(last.parameters),
            initial_weights=last.initial_weights,
            curve=list(trial.curve),
            duration=trial.seconds,
            objective=last.scores.get(self.objective, float("nan")),
        )


def mixing_time(seconds: float, asked: Sequence[str]) -> float:
    """Give the seconds of a search that are kept for choosing a mixture; 0 where it is too short for two networks, or mixtures were not asked for."""
    if seconds < _LEAST_SEARCH or (asked and BLEND not in asked):
        return 0.0
    return min(_MIXING_SHARE * seconds, _MIXING_MOST)


def choose_candidates(
    task: DenseTask, asked: Sequence[str], *, gpu: bool, pretrained: Mapping[str, bool]
) -> tuple[list[DenseCandidate], dict[str, str]]:
    """Choose what is tried, in order, and say for every candidate why it is in or out.

    Parameters
    ----------
    task
        The task.
    asked
        Names; one without its last part (``"unet"``) stands for all that begin with it; empty, but for `BLEND`: all that fit.
    gpu
        True where networks train on a GPU.
    pretrained
        For every candidate, whether there are weights.

    Raises
    ------
    InvalidArgument
        ``UNKNOWN_CANDIDATE``.
    """
    for name in asked:
        if name != BLEND and not any(_matches(name, one.name) for one in task.candidates):
            raise InvalidArgument(
                f"{name!r} is not a candidate for {task.name}; there are: {', '.join((*(one.name for one in task.candidates), BLEND))}",
                reason="UNKNOWN_CANDIDATE",
                field="candidates",
            )
    asked = [name for name in asked if name != BLEND]
    chosen: list[DenseCandidate] = []
    reasons: dict[str, str] = {}
    for one in task.candidates:
        if asked:
            reason = "" if any(_matches(name, one.name) for name in asked) else "not asked for"
        elif one.large and not gpu:
            reason = "too slow without a GPU"
        elif not one.scratch and not pretrained.get(one.name, False):
            reason = "learns badly from scratch on few images, and no pretrained weights were given"
        else:
            reason = ""
        if reason:
            reasons[one.name] = reason
        else:
            chosen.append(one)
            reasons[one.name] = "asked for" if asked else "in the portfolio for this machine"
    return chosen, reasons


def _matches(asked: str, name: str) -> bool:
    return name == asked or name.startswith(f"{asked}-")


def contents(data: DenseData, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Say what each of these samples has, ``(N, K + 3)`` of 0 and 1: each class, and nothing, little or much of anything.

    Of many samples only the first `_LOOKED_AT` are looked at, since masks have to be read; of the others nothing is known.
    """
    classes = len(data.classes)
    found = np.zeros((len(rows), classes + 3), dtype=np.int64)
    amounts = np.full(len(rows), -1.0)
    for place, row in enumerate(rows[:_LOOKED_AT].tolist()):
        try:
            truth = data.truths(row)
        except (InvalidArgument, NotFound):
            # Left out of the training elsewhere, with its reason.
            continue
        if isinstance(truth, ClassMap):
            present = np.unique(truth.labels)
            present = present[(present > 0) & (present != IGNORED)].astype(np.int64) - 1
            amounts[place] = float(np.isin(truth.labels, present + 1).mean())
        else:
            present = np.unique(truth.labels)
            amounts[place] = float(len(truth.labels))
        found[place, present[present < classes]] = 1
    some = amounts[amounts > 0]
    middle = float(np.median(some)) if len(some) else 0.0
    found[:, classes] = amounts == 0
    found[:, classes + 1] = (amounts > 0) & (amounts <= middle)
    found[:, classes + 2] = amounts > middle
    return found


def hold_out(data: DenseData, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64], str]:
    """Give the rows that are learnt from and compared on, and in words what the latter are.

    The validation part is held out; where there is none, a fifth of the training part, by group; where there are too few groups for that,
    the training images themselves.
    """
    train, validation = data.part("train"), data.part("validation")
    if len(validation):
        return train, validation, "the validation part"
    groups = [data.groups[row] for row in train]
    if len(set(groups)) >= 2 * _LEAST_HELD_OUT:
        held = hold_out_share(contents(data, train), groups, share=_HELD_OUT_SHARE, seed=seed)
        return train[~held], train[held], "a fifth of the training part, by group, with its share of every class"
    return train, train, "the training images themselves (there are too few to hold any out)"
