"""Which trained networks of a dense search answer together: greedy selection in bags of held-out images, as for classification.

A mixture takes the time of its parts, so it has to be worth it: `WORTH` of the objective for each doubling of the time, on all held-out images
that were looked at and on those that its weights were not found on. That is what mirroring at the same price has to bring, too.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oteo_automl.candidates.modules import SavedModule
from oteo_automl.dense.base import DenseCandidate, DenseTask, Facts, Mixing
from oteo_automl.search.ensemble import UNFELT, Choice, OutOfTime, select_shares
from oteo_automl.search.trial import Trial
from oteo_core.evaluation.scored import score_answers

WORTH = 0.004
"""Of the objective (Dice, panoptic quality, mean average precision), which a mixture must gain for each doubling of the time at inference."""

_BAGS = 12
_PICKS = 5

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Contender:
    """A trained network.

    Parameters
    ----------
    trial, candidate
        What it comes from.
    module
        In evaluation mode, on the processor.
    latency
        Seconds for one image on this machine.
    """

    trial: Trial
    candidate: DenseCandidate
    module: SavedModule
    latency: float


@dataclass(slots=True)
class Mixture:
    """A mixture that is worth its time.

    Parameters
    ----------
    contenders, weights
        Its parts, and their shares.
    module
        All in one.
    gain
        Of the objective over the best of its parts, on images that its weights were not found on.
    images
        Held-out images that were looked at.
    """

    contenders: list[Contender]
    weights: tuple[float, ...]
    module: SavedModule
    gain: float
    images: int


def find_mixture(
    task: DenseTask,
    contenders: Sequence[Contender],
    images: NDArray[Any],
    targets: Any,
    held_out: NDArray[np.int64],
    groups: Sequence[str],
    *,
    objective: str,
    classes: int,
    facts: Facts,
    seed: int,
    limit: float,
    seconds: float,
) -> Mixture | None:
    """Look for a mixture of some of these networks that is worth its time.

    Parameters
    ----------
    task
        The task.
    contenders
        The one that is chosen alone first; only those that can be mixed with each other are, so give those.
    images, targets, held_out
        Prepared images and targets of all samples, and the rows that choices are made on.
    groups
        Of all samples; images of a group are drawn together.
    objective
        A figure of `oteo_core.evaluation.scored.score_answers`, larger is better.
    classes, facts, seed
        As of the search.
    limit
        Seconds for one image that the mixture may take.
    seconds
        That looking may take; what is not known by then is not found.

    Returns
    -------
    Mixture or None
        None where none is worth it, or the time was too short to tell.
    """
    deadline = time.time() + seconds

    def check() -> None:
        if time.time() > deadline:
            raise OutOfTime

    try:
        mixing, rows = task.mixing([one.module for one in contenders], images, targets, held_out, classes=classes, facts=facts, check=check)
        loss = _Loss(task, mixing, objective, classes, check)
        chosen = select_shares(
            loss,
            [one.latency for one in contenders],
            len(rows),
            np.unique([groups[row] for row in rows.tolist()], return_inverse=True)[1],
            seed=seed,
            limit=limit,
            deadline=deadline,
            bags=_BAGS,
            picks=_PICKS,
        )
        if chosen is None:
            return None
        alone = loss(np.eye(len(contenders))[0], np.arange(len(rows)))
    except OutOfTime:
        return None
    if not worth(chosen, alone, contenders[0].latency):
        return None
    parts = [contenders[part] for part in chosen.parts]
    return Mixture(parts, chosen.weights, mixing.module(chosen.parts, chosen.weights), _gain(chosen), len(rows))


def worth(mixture: Choice, alone: float, latency: float) -> bool:
    """Say whether a mixture is worth its time.

    Parameters
    ----------
    mixture
        With its loss (the objective turned round) and its gain.
    alone, latency
        Loss and seconds for one image of what is chosen without it.
    """
    doublings = math.log2(max(mixture.latency, UNFELT) / max(latency, UNFELT))
    needed = WORTH * max(1.0, doublings)
    return alone - mixture.loss >= needed and _gain(mixture) >= needed


def _gain(mixture: Choice) -> float:
    # `select_shares` gives a share of the objective: about that of the mixture.
    return mixture.gain * abs(mixture.loss)


class _Loss:
    """The objective of mixtures turned round; answers of a mixture are read and matched once, whatever images are then asked for."""

    def __init__(self, task: DenseTask, mixing: Mixing, objective: str, classes: int, check: Callable[[], None]) -> None:
        self._task, self._mixing, self._objective, self._classes, self._check = task, mixing, objective, classes, check
        self._known: dict[tuple[float, ...], Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {}

    def __call__(self, shares: NDArray[np.float64], rows: NDArray[np.int64]) -> float:
        """Give it for the shares ``(M,)`` of the networks and some images."""
        self._check()
        key = tuple(np.round(shares, 4).tolist())
        if key not in self._known:
            parts = np.flatnonzero(shares).tolist()
            answers = self._mixing.answers(parts, shares[parts].tolist())
            self._known[key] = score_answers(self._task.name, self._classes, self._mixing.truths, answers).one(self._objective)
        weights = np.zeros((1, len(self._mixing.truths)))
        weights[0, rows] = 1.0
        return -float(np.nan_to_num(self._known[key](weights)[0]))
