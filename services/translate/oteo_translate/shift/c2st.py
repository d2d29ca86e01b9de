"""Classifier two-sample test (Lopez-Paz and Oquab, "Revisiting classifier two-sample tests", ICLR 2017).

A logistic regression learns on some groups to tell home from shifted and is asked about others. Folds of a cross-validation are not independent,
so that a binomial p-value would be too small; the sides are dealt anew instead and all is learned again.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from oteo_translate.shift.logistic import fit_all
from oteo_translate.shift.scaling import components
from oteo_translate.shift.sides import Flags, Floats, Sides

FOLDS = 5
_CHUNK = 64


@dataclass(frozen=True, slots=True)
class Told:
    """How well the sides are told apart.

    Parameters
    ----------
    auroc
        Of held-out groups, 0 to 1; 0.5: by guessing.
    accuracy
        Mean of the shares of either side that were told rightly.
    null
        ``(B,)`` AUROC of the deals.
    decisions
        ``(N,)`` of held-out images, logits: above 0 looks shifted.
    """

    auroc: float
    accuracy: float
    null: Floats
    decisions: Floats


def tell_apart(values: Floats, sides: Sides, dealt: Flags, rng: np.random.Generator) -> Told:
    """Learn to tell the sides apart by cross-validation over groups, for the true sides and for each deal.

    Parameters
    ----------
    values
        ``(N, D)`` features; long ones are brought down to their principal components.
    sides, dealt
        The groups, and ``(B, G)`` deals of them.
    rng
        Draws the folds, without looking at the sides.
    """
    reduced = components(values)
    count = len(sides.shifted)
    fold = np.empty(count, dtype=np.int64)
    fold[rng.permutation(count)] = np.arange(count) % min(FOLDS, count)
    everything = np.concatenate([sides.shifted[None], dealt])
    parts = [_held_out(reduced, sides, everything[start : start + _CHUNK], fold) for start in range(0, len(everything), _CHUNK)]
    decisions = np.concatenate(parts)
    groups = sides.average(decisions.T).T
    areas = aurocs(groups, everything)
    said = groups[0] > 0
    accuracy = 0.5 * (float(said[sides.shifted].mean()) + float((~said[~sides.shifted]).mean()))
    return Told(float(areas[0]), accuracy, areas[1:], decisions[0])


def _held_out(values: Floats, sides: Sides, dealt: Flags, fold: np.ndarray) -> Floats:
    """Give decisions ``(B, N)`` on images of groups that took no part in learning."""
    targets = dealt[:, sides.groups].astype(np.float64)
    share = sides.weights()
    decisions = np.zeros(targets.shape)
    for number in range(int(fold.max()) + 1):
        inside = fold[sides.groups] == number
        learned, wanted = values[~inside], targets[:, ~inside]
        weights = share[~inside][None, :] * np.ones_like(wanted)
        # Both sides weigh the same, so that the larger one is not the answer to everything; all together weigh their number.
        total = weights.sum(axis=1, keepdims=True)
        ours = np.maximum((weights * wanted).sum(axis=1, keepdims=True), 1e-9)
        theirs = np.maximum(total - ours, 1e-9)
        weights = weights * np.where(wanted > 0, total / (2.0 * ours), total / (2.0 * theirs))
        found = fit_all(learned, wanted, weights)
        decisions[:, inside] = found[:, :-1] @ values[inside].T + found[:, -1:]
    return decisions


def aurocs(scores: Floats, positive: Flags) -> Floats:
    """Give the area under the ROC curve of each row of scores ``(B, G)``, ties half (Mann and Whitney)."""
    ranks = rankdata(scores, axis=1)
    many, few = positive.sum(axis=1), (~positive).sum(axis=1)
    return np.asarray(((ranks * positive).sum(axis=1) - many * (many + 1) / 2.0) / (many * few))
