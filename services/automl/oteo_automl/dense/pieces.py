"""The piece of a dense search as it runs in a worker: epochs of one candidate's training."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from oteo_automl.candidates.bank import normalisation
from oteo_automl.candidates.lesson import Lesson
from oteo_automl.candidates.modules import SavedModule, dump_module, load_with_more
from oteo_automl.candidates.training import Recipe, Trainer, has_bfloat16, runs_on
from oteo_automl.candidates.weights import Weights, find_weights, load_weights
from oteo_automl.dense.base import DenseCandidate, Facts, find_task
from oteo_automl.dense.cache import DenseCache
from oteo_automl.search.checkpoints import Checkpoints
from oteo_automl.search.pieces import PieceResult
from oteo_automl.search.probe import Probe, measure, memory_limit
from oteo_automl.search.training_piece import Begun, train_piece


@dataclass(frozen=True)
class DenseProblem:
    """What all pieces of a dense search share; sent to workers.

    Parameters
    ----------
    task
        Name of the dense task.
    cache
        Images and targets.
    train, held_out
        Rows that are learnt from and compared on; the same where there are too few images to hold any out.
    classes
        K.
    facts
        Of the training rows.
    seed
        Of every draw.
    checkpoints
        Where results and states lie.
    pretrained_uri
        Where weights lie; empty: none.
    """

    task: str
    cache: DenseCache
    train: NDArray[np.int64]
    held_out: NDArray[np.int64]
    classes: int
    facts: Facts
    seed: int
    checkpoints: Checkpoints
    pretrained_uri: str = ""


@dataclass(slots=True)
class StoredNetwork:
    """A trained network with its held-out answers, as it lies among the checkpoints."""

    module: SavedModule
    kept: dict[str, NDArray[Any]]

    def to_bytes(self) -> bytes:
        """Write it."""
        return dump_module(self.module, kept={name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in self.kept.items()})

    @classmethod
    def from_bytes(cls, data: bytes) -> StoredNetwork:
        """Read what `to_bytes` wrote."""
        module, content = load_with_more(data)
        return cls(module, {name: value.numpy() for name, value in content["kept"].items()})


def seed_of(problem: DenseProblem, trial: str) -> int:
    """Give the seed of a trial: networks of the same kind begin apart, so that they err apart and a mixture of them is worth something."""
    return (problem.seed + zlib.crc32(trial.encode())) % 2**31 if trial else problem.seed


def make_network(
    problem: DenseProblem, candidate: DenseCandidate, images: NDArray[Any], weights: Weights | None, seed: int | None = None
) -> SavedModule:
    """Make a candidate's network: with pretrained weights in its encoder and their normalisation, or drawn anew and with that of the rows.

    Weights are drawn by `seed`, the problem's where it is None.

    Raises
    ------
    InvalidArgument
        ``BAD_WEIGHTS``.
    """
    mean, spread = normalisation(images, problem.train, pretrained=weights is not None)
    torch.manual_seed(problem.seed if seed is None else seed)
    network = find_task(problem.task).network(candidate, problem.classes, images.shape[3], mean, spread, problem.facts)
    if weights is not None:
        load_weights(network.get_submodule("encoder"), weights)
    return network


def make_lesson(problem: DenseProblem, candidate: DenseCandidate, images: NDArray[Any], targets: Any, seed: int | None = None) -> Lesson:
    """Make a candidate's lesson; the order of images is drawn by `seed`, the problem's where it is None."""
    chosen = problem.seed if seed is None else seed
    return find_task(problem.task).lesson(
        candidate, images, targets, problem.train, problem.held_out, classes=problem.classes, facts=problem.facts, seed=chosen
    )


def probe_dense(problem: DenseProblem, name: str, recipe: Recipe, deadline: float, share: float) -> Probe:
    """Measure a candidate's training; `share` of the free memory is its own."""
    candidate = find_task(problem.task).find(name)
    images, targets = problem.cache.open()
    return measure(
        lambda: make_network(problem, candidate, images, None),
        make_lesson(problem, candidate, images, targets),
        recipe,
        seed=problem.seed,
        device=runs_on(),
        half=candidate.half and has_bfloat16(),
        deadline=deadline,
        limit=memory_limit(runs_on(), share),
    )


def train_dense(
    problem: DenseProblem, trial: str, rung: int, name: str, recipe: Recipe, target: int, total: int, deadline: float
) -> PieceResult:
    """Train a candidate up to an epoch.

    Raises
    ------
    oteo_automl.candidates.training.Diverged
        The loss is not finite.
    """

    def begin() -> Begun:
        candidate = find_task(problem.task).find(name)
        images, targets = problem.cache.open()
        weights = find_weights(problem.pretrained_uri, candidate.architecture)
        seed = seed_of(problem, trial)
        trainer = Trainer(
            make_network(problem, candidate, images, weights, seed),
            make_lesson(problem, candidate, images, targets, seed),
            recipe,
            seed=seed,
            device=runs_on(),
            half=candidate.half and has_bfloat16(),
        )
        return Begun(
            trainer=trainer,
            initial_weights=weights.source if weights is not None else "scratch",
            image=images[0],
            # Judging runs the network over the held-out images: a tenth of the time at most.
            judge_every=max(1, round(4 * len(problem.held_out) / max(1, len(problem.train)))),
            by_score=True,
            stored=lambda network, judgement: StoredNetwork(network, judgement.kept).to_bytes(),
        )

    return train_piece(problem.checkpoints, trial, rung, begin, recipe, target, total, deadline)
