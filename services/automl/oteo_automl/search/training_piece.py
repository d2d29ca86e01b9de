"""A network's epochs as a piece of a search, whatever the task: taken up where it was, its state kept on the way, network and result left behind."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from oteo_automl.candidates.lesson import Judgement
from oteo_automl.candidates.modules import SavedModule
from oteo_automl.candidates.training import Recipe, Trainer
from oteo_automl.search.checkpoints import Checkpoints
from oteo_automl.search.ensemble import measure_latency
from oteo_automl.search.pieces import PieceResult, curve_watch, model_name, result_name, state_name, trained_result
from oteo_automl.search.probe import free_memory


@dataclass(slots=True)
class Begun:
    """A training from its beginning.

    Parameters
    ----------
    trainer
        With network and lesson.
    initial_weights
        ``"pretrained:NAME@DIGEST"`` or ``"scratch"``.
    image
        A prepared image ``(H, W, C)``, to measure the time of an answer.
    judge_every
        See `Trainer.run`.
    by_score
        See `curve_watch`.
    stored
        From the averaged network and its judgement to what lies among the checkpoints.
    """

    trainer: Trainer
    initial_weights: str
    image: NDArray[np.generic]
    judge_every: int
    by_score: bool
    stored: Callable[[SavedModule, Judgement], bytes]


def train_piece(
    checkpoints: Checkpoints,
    trial: str,
    rung: int,
    begin: Callable[[], Begun],
    recipe: Recipe,
    target: int,
    total: int,
    deadline: float,
    *,
    watched: bool = True,
) -> PieceResult:
    """Train up to epoch `target` of `total`; a result that is there is given at once.

    Where it is not `watched`, it goes on whatever others have come to.

    Raises
    ------
    oteo_automl.candidates.training.Diverged
        The loss is not finite.
    """
    earlier = checkpoints.load(result_name(trial, rung))
    if earlier is not None:
        return PieceResult.from_json(earlier)
    began = time.time()
    free_memory()
    begun = begin()
    state = checkpoints.load(state_name(trial))
    if state is not None:
        begun.trainer.restore(state)

    def keep(data: bytes) -> None:
        checkpoints.save(state_name(trial), data)

    watch = curve_watch(checkpoints, trial, total, by_score=begun.by_score) if watched else None
    outcome = begun.trainer.run(target, total, deadline, keep, judge_every=begun.judge_every, on_epoch=watch)
    network = begun.trainer.result()
    checkpoints.save(model_name(trial), begun.stored(network, outcome.judgement))
    latency = measure_latency(network, begun.image)
    result = trained_result(outcome, recipe, begun.initial_weights, time.time() - began, latency)
    checkpoints.save(result_name(trial, rung), result.to_json())
    return result
