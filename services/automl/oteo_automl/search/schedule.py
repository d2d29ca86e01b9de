"""How far a network is trained before it is compared, how far in all, and who goes on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

KEPT = 2
"""One in so many goes on from a rung to the next."""


FOLDS_SHARE = 0.4
"""Part of a search that a network's plan leaves for training it with the other folds held out."""

SPARE = 1.15
"""Times the seconds of the epochs: data, judging, a slower machine."""

_FOLDED_IMAGES = 1_600
"""Images that a network has to see in each fold: below that one network for longer is worth more than several."""


def plan_rungs(
    train_count: int,
    *,
    budget: float,
    pretrained: bool,
    epoch_seconds: float,
    images: int = 12_000,
    most: int = 80,
    share: float = 0.5,
    waves: int = 0,
) -> list[int]:
    """Give the epochs at which trials are compared; the last is the whole plan.

    Parameters
    ----------
    train_count
        Training images.
    budget
        Seconds for the whole search.
    pretrained
        True: fewer epochs are needed.
    epoch_seconds
        Of one epoch of this network, measured or guessed.
    images
        That a network from scratch sees before more of the same hardly helps, on sets of a few hundred to a few thousand.
    most
        Epochs at most.
    share
        Part of the budget that one network trained to its end may take: what is longer is never finished.
    waves
        Trainings one after the other that its other folds take. Where each of them can be worth something, the plan is so short that there is time for
        all: the mean of networks of all folds is better than one that learns for as long, and answers on all samples, not on one fold of them.

    Returns
    -------
    list of int
        Two rungs in short budgets, three in long ones: the first a fifth of the plan, or a ninth and a third (Li et al., "A system
        for massively parallel hyperparameter tuning", MLSys 2020).
    """
    wanted = images / max(1, train_count) * (0.5 if pretrained else 1.0)
    affordable = share * budget / max(epoch_seconds, 1e-3)
    each = folded_epochs(train_count, budget=budget, pretrained=pretrained, epoch_seconds=epoch_seconds, waves=waves)
    if each:
        affordable = min(affordable, each)
    whole = int(np.clip(min(wanted, affordable), 5, most))
    rungs = [whole // 9, whole // 3, whole] if budget > 1200 and whole >= 27 else [whole // 5, whole]
    return sorted({max(2, rung) for rung in rungs})


def folded_epochs(train_count: int, *, budget: float, pretrained: bool, epoch_seconds: float, waves: int) -> float:
    """Give the epochs of a network's plan that leave time for training it with each of the other folds held out; 0 where a fold would learn too little, or there are none.

    Parameters
    ----------
    train_count, budget, pretrained, epoch_seconds, waves
        See `plan_rungs`.
    """
    if not waves:
        return 0.0
    each = FOLDS_SHARE * budget / (waves * SPARE * max(epoch_seconds, 1e-3))
    return each if each * train_count >= _FOLDED_IMAGES * (0.5 if pretrained else 1.0) else 0.0


def promoted(losses: Sequence[Sequence[float]], waiting: Sequence[int], *, growing: bool) -> int | None:
    """Say which paused trial goes on: asynchronous successive halving.

    Nobody waits for a rung to fill: whoever is among the better half of those that have come to its rung so far goes on (Li et al., MLSys
    2020, algorithm 2), the furthest first.

    Parameters
    ----------
    losses
        Of each trial, after each rung that it has finished; smaller is better.
    waiting
        Places of the trials that are paused and can go on.
    growing
        True while there are networks that have not begun: then the best of a single one is not enough. False: the leader of a rung goes on
        however few there are.

    Returns
    -------
    int or None
        A place; None where none goes on yet.
    """
    highest = max((len(losses[place]) for place in waiting), default=0)
    for rung in range(highest - 1, -1, -1):
        peers = sorted((place for place in range(len(losses)) if len(losses[place]) > rung), key=lambda place: losses[place][rung])
        kept = len(peers) // KEPT
        for place in peers[: kept if growing else max(1, kept)]:
            if place in waiting and len(losses[place]) == rung + 1:
                return place
    return None
