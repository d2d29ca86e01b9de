"""What kind of shift it is: whether images of a class still look as they did.

A shift of class shares alone (label shift) changes every figure of the images as well, so that the tests of features ring. What tells the two apart is
what is left once home has the shifted domain's shares: nothing after a change of shares, and the whole of it after a change of looks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from oteo_core.evaluation.statistics import holm
from oteo_translate.shift import mmd
from oteo_translate.shift.prevalence import LEAST_LABELLED, ClassEvidence, Prevalence, known_rows, resampled_rows
from oteo_translate.shift.sides import PERMUTATIONS, Flags, Floats, Ints, Sides, deal, permutation_p, restricted

NONE, COVARIATE, PREVALENCE, BOTH = "none", "covariate", "prevalence", "both"
_DRAWS = 5


@dataclass(frozen=True, slots=True)
class Remainder:
    """What is left after the shares are made equal.

    Parameters
    ----------
    p_value
        Of "nothing is left", corrected for the number of features.
    how
        "labels": sides dealt within classes, home reweighted; "answers": home drawn anew with the estimated shares.
    images
        Images that took part, of both sides.
    """

    p_value: float
    how: str
    images: int


def what_is_left(
    features: Sequence[Floats],
    evidence: ClassEvidence,
    prevalence: Prevalence,
    sides: Sides,
    rng: np.random.Generator,
    *,
    count: int = PERMUTATIONS,
) -> Remainder | None:
    """Test whether images of a class look alike on both sides; None where too few images are left to tell.

    Parameters
    ----------
    features
        ``(N + M, D)`` each, home first.
    evidence, prevalence
        Classes, and what their shares were compared by.
    sides
        Of all images.
    rng
        The generator.
    count
        Permutations of each test.
    """
    if prevalence.source == "labels":
        return _by_labels(features, evidence, sides, rng, count)
    return _by_answers(features, evidence, prevalence, sides, rng, count)


def _by_labels(features: Sequence[Floats], evidence: ClassEvidence, sides: Sides, rng: np.random.Generator, count: int) -> Remainder | None:
    first, second = known_rows(evidence)
    rows = np.concatenate([first, second + len(evidence.home)])
    profiles = np.concatenate([evidence.home[first], evidence.shifted[second]])
    part = restricted(sides, rows)
    # A group whose images have several classes goes with its commonest mixture: classes of its mean, rounded.
    _, strata = np.unique(np.rint(part.average(profiles)), axis=0, return_inverse=True)
    strata = strata.reshape(-1)
    there = np.array([(part.shifted[strata == one]).any() and (~part.shifted[strata == one]).any() for one in range(int(strata.max()) + 1)])
    kept = np.flatnonzero(there[strata])
    inside = np.flatnonzero(np.isin(part.groups, kept))
    if not len(inside):
        return None
    part, rows = restricted(part, inside), rows[inside]
    _, strata = np.unique(strata[kept], return_inverse=True)
    if min(part.counts) < LEAST_LABELLED // 2:
        return None
    dealt = deal(part, rng, count, strata)
    found = []
    for values in features:
        groups = mmd.group_kernel(values[rows], part)
        all_dealt = np.concatenate([part.shifted[None], dealt])
        squares = mmd.reweighted_discrepancies(groups, all_dealt, strata)
        found.append(permutation_p(float(squares[0]), squares[1:]))
    return Remainder(min(holm(found)), "labels", len(rows))


def _by_answers(
    features: Sequence[Floats], evidence: ClassEvidence, prevalence: Prevalence, sides: Sides, rng: np.random.Generator, count: int
) -> Remainder | None:
    labelled, _ = known_rows(evidence)
    if len(labelled) < LEAST_LABELLED or not evidence.exclusive:
        return None
    labels: Ints = evidence.home[labelled].argmax(axis=1).astype(np.int64)
    theirs = np.arange(len(evidence.home), len(evidence.home) + len(evidence.shifted))
    found: list[float] = []
    images = 0
    for _ in range(_DRAWS):
        chosen = labelled[resampled_rows(labels, np.array(prevalence.shifted), rng)]
        rows = np.concatenate([chosen, theirs])
        part = restricted(sides, rows)
        if min(part.counts) < LEAST_LABELLED // 2:
            return None
        dealt = deal(part, rng, count)
        found.append(min(holm([_plain(values[rows], part, dealt) for values in features])))
        images = len(rows)
    # Twice the median of p-values of several draws is a p-value again (Ruger's rule).
    return Remainder(min(1.0, 2.0 * float(np.median(found))), "answers", images)


def _plain(values: Floats, part: Sides, dealt: Flags) -> float:
    groups = mmd.group_kernel(values, part)
    squares = mmd.discrepancies(groups, np.concatenate([part.shifted[None], dealt]))
    return permutation_p(float(squares[0]), squares[1:])


def decide(shifted: bool, prevalence: Prevalence | None, remainder: Remainder | None, alpha: float) -> str:
    """Name the kind.

    Parameters
    ----------
    shifted
        Whether any test, corrected for all of them, rejects.
    prevalence, remainder
        What is known of the shares and of what they leave.
    alpha
        Level of the two questions that follow the verdict.

    Notes
    -----
    By answers alone "both" is never said: once images of a class look different, the model's answers tell nothing of shares.
    """
    if not shifted:
        return NONE
    if prevalence is None or remainder is None:
        return COVARIATE
    looks, shares = remainder.p_value <= alpha, prevalence.p_value <= alpha
    if looks and shares and prevalence.source == "labels":
        return BOTH
    if looks:
        return COVARIATE
    if shares:
        return PREVALENCE
    return COVARIATE if remainder.p_value <= prevalence.p_value else PREVALENCE
