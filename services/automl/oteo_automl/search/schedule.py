"""How far a network is trained before it is compared, and how far in all."""

from __future__ import annotations

import numpy as np


def plan_rungs(
    train_count: int, *, budget: float, pretrained: bool, epoch_seconds: float, images: int = 12_000, most: int = 80
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

    Returns
    -------
    list of int
        Two rungs in short budgets, three in long ones: the first a fifth of the plan, or a ninth and a third (Li et al., "A system
        for massively parallel hyperparameter tuning", MLSys 2020).
    """
    wanted = images / max(1, train_count) * (0.5 if pretrained else 1.0)
    # One network trained to its end may take half of the budget: what is longer than that is never finished.
    affordable = 0.5 * budget / max(epoch_seconds, 1e-3)
    whole = int(np.clip(min(wanted, affordable), 5, most))
    rungs = [whole // 9, whole // 3, whole] if budget > 1200 and whole >= 27 else [whole // 5, whole]
    return sorted({max(2, rung) for rung in rungs})
