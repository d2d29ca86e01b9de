"""How many independent images a run of correlated ones is worth."""

from __future__ import annotations

import numpy as np

from oteo_core.evaluation.bootstrap import Floats

_LEAST = 4


def effective_number(rows: Floats) -> float:
    """Give the number of independent images that would tell as much of a mean as these, in their order of arrival.

    Images of one patient or one session come one after the other and look alike, and no caller says which those are. The variance of their mean
    is ``(1 + 2 sum of autocorrelations)`` times that of independent ones; the autocorrelations, of all columns together, are summed in pairs
    until a pair is negative (the initial positive sequence of Geyer, Statistical Science 7, 1992, section 3.3).

    Parameters
    ----------
    rows
        ``(N, D)``, brought to one scale, in order.

    Returns
    -------
    float
        From 1 to N; N where rows are too few to tell or do not vary.
    """
    count = len(rows)
    if count < _LEAST:
        return float(count)
    centred = rows - rows.mean(axis=0)
    variance = float((centred**2).sum())
    if variance <= 1e-12 * count:
        return float(count)
    total = 0.0
    for lag in range(1, count // 2, 2):
        pair = sum(float((centred[:-step] * centred[step:]).sum()) / variance for step in (lag, lag + 1))
        if pair <= 0:
            break
        total += pair
    return float(np.clip(count / (1.0 + 2.0 * total), 1.0, count))
