"""One piece of a search, as it runs in a worker: a baseline, or a rung of a network's training."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch

from oteo_automl.candidates.base import Fitted
from oteo_automl.candidates.descriptors import Descriptors
from oteo_automl.candidates.features import fit_on_features
from oteo_automl.candidates.network import ImageNetwork, build_trunk
from oteo_automl.candidates.training import Recipe, _moments, train_network
from oteo_automl.candidates.weights import find_weights, load_weights
from oteo_automl.search.data import TrainingData
from oteo_automl.search.vault import Vault


@dataclass(frozen=True)
class TrialTask:
    """What a worker is told.

    Attributes
    ----------
    trial, candidate
        The trial's id and the candidate's name.
    rung
        From 0; baselines have only that one.
    recipe
        Settings of a network's training; None for baselines.
    seed
        Seed of every draw.
    stop_at
        ``time.time()`` at which it must hand back what it has.
    vault
        Where data, state and result lie.
    pretrained_uri
        Where pretrained weights lie; empty: from scratch.
    """

    trial: str
    candidate: str
    rung: int
    recipe: Recipe | None
    seed: int
    stop_at: float
    vault: Vault
    pretrained_uri: str = ""

    def result_name(self, rung: int | None = None) -> str:
        """Give the name of a rung's result in the vault."""
        return f"trials/{self.trial}/rung{self.rung if rung is None else rung}.pt"

    @property
    def state_name(self) -> str:
        """Name of the running state in the vault."""
        return f"trials/{self.trial}/state.pt"


@dataclass(frozen=True)
class TaskSummary:
    """What comes back of a task; the network itself is in the vault."""

    trial: str
    rung: int
    scores: dict[str, float]
    seconds: float
    stopped: bool
    message: str
    parameters: dict[str, Any]


def _nothing() -> None:
    """Stand for a check: a worker is stopped by its executor."""


def _frozen(data: TrainingData, task: TrialTask) -> tuple[torch.nn.Module, str]:
    """Give a fixed trunk without its last layer: pretrained where weights can be had, else random with statistics of the data."""
    name = task.candidate.removeprefix("frozen_")
    torch.manual_seed(task.seed)
    trunk = build_trunk(name, data.policy.channels, 0, size=data.policy.width)
    weights = find_weights(task.pretrained_uri, name)
    network = ImageNetwork(trunk, data.policy.dtype == "uint8", *_moments(data, data.part("train")))
    if weights is not None:
        load_weights(trunk, weights)
        return network.eval(), weights.source
    # Random filters need sensible statistics to say anything: one pass over training images sets them.
    places = data.part("train")[:256]
    network.train()
    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.momentum = None
        for start in range(0, max(len(places) - 1, 1), 64):
            images = torch.from_numpy(data.images[places[start : start + 64]])
            if len(images) > 1:
                network(images)
    return network.eval(), "scratch (random filters)"


def run_trial(task: TrialTask) -> TaskSummary:
    """Do the work and leave the result in the vault; a result that is there already is taken as it is."""
    stored = task.vault.load(task.result_name())
    if stored is not None:
        return _summary(task, Fitted.from_bytes(stored))
    data = task.vault.open_data()
    if task.recipe is None:
        if task.candidate == "classical":
            extractor: torch.nn.Module = Descriptors(data.policy.channels, data.policy.dtype == "uint8")
            origin = "none"
        else:
            extractor, origin = _frozen(data, task)
        fitted = fit_on_features(extractor, data, seed=task.seed, stop_at=task.stop_at, check=_nothing, initial_weights=origin)
    else:
        state = task.vault.load(task.state_name)
        if state is None and task.rung > 0:
            earlier = task.vault.load(task.result_name(task.rung - 1))
            state = Fitted.from_bytes(earlier).state if earlier else None
        fitted = train_network(
            data,
            task.recipe,
            rung=task.rung,
            stop_at=task.stop_at,
            check=_nothing,
            save=lambda content: task.vault.save(task.state_name, content),
            state=state,
            weights=find_weights(task.pretrained_uri, task.recipe.network),
        )
    task.vault.save(task.result_name(), fitted.to_bytes())
    task.vault.delete(task.state_name)
    return _summary(task, fitted)


def _summary(task: TrialTask, fitted: Fitted) -> TaskSummary:
    return TaskSummary(task.trial, task.rung, fitted.scores, fitted.seconds, fitted.stopped, fitted.message, fitted.parameters)


def seconds_now() -> float:
    """Give the wall clock that ``stop_at`` speaks of."""
    return time.time()
