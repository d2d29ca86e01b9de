"""Whether the classes come in other shares: by labels where both sides have them, else by what a model answers.

Without labels the shares are estimated from the model's answers and its confusions at home (black box shift estimation; Lipton, Wang and Smola, ICML
2018), which is right as long as images of a class look as they did. Whether they do is what `oteo_translate.shift.kinds` tests next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

from oteo_translate.shift.sides import PERMUTATIONS, Floats, Ints, Sides, deal, permutation_p, restricted

LEAST_LABELLED = 8
"""Images with labels on either side below which shares are not compared by labels."""
_WHOLE = 1000.0


@dataclass(frozen=True, slots=True)
class ClassEvidence:
    """What is known of the images' classes.

    Parameters
    ----------
    classes
        K names.
    home, shifted
        ``(N, K)`` and ``(M, K)``: 1 where an image has the class, 0 where not; rows of NaN where nobody knows.
    home_answers, shifted_answers
        The same shapes: the model's probabilities; None without a model, or where it gives none.
    exclusive
        Whether an image has exactly one class.
    """

    classes: tuple[str, ...]
    home: Floats
    shifted: Floats
    home_answers: Floats | None = None
    shifted_answers: Floats | None = None
    exclusive: bool = True


@dataclass(frozen=True, slots=True)
class Prevalence:
    """Shares of the classes on either side.

    Parameters
    ----------
    source
        "labels" or "answers": what was compared.
    classes, home, shifted
        K names and shares; of the shifted domain estimated where `source` is "answers".
    distance
        Total variation of the compared shares where an image has one class, else the largest difference of a share; 0 to 1.
    detectable
        A `distance` that so many images would have shown, in about four cases of five.
    p_value
        Of no difference, not corrected.
    """

    source: str
    classes: tuple[str, ...]
    home: tuple[float, ...]
    shifted: tuple[float, ...]
    statistic: float
    distance: float
    detectable: float
    p_value: float


def compare_shares(
    evidence: ClassEvidence, sides: Sides, rng: np.random.Generator, *, count: int = PERMUTATIONS, alpha: float = 0.05
) -> Prevalence | None:
    """Compare class shares; None where neither labels nor answers allow it, or where all images have the same classes."""
    if len(evidence.classes) < 2 and evidence.exclusive:
        return None
    labelled = known_rows(evidence)
    by_labels = all(len(rows) >= LEAST_LABELLED for rows in labelled)
    if by_labels:
        values = np.concatenate([evidence.home[labelled[0]], evidence.shifted[labelled[1]]])
        rows = np.concatenate([labelled[0], labelled[1] + len(evidence.home)])
    elif evidence.home_answers is not None and evidence.shifted_answers is not None:
        values = np.concatenate([evidence.home_answers, evidence.shifted_answers])
        rows = np.arange(len(values))
    else:
        return None
    part = restricted(sides, rows)
    if min(part.counts) < 2:
        return None
    dealt = deal(part, rng, count)
    groups = part.average(values)
    spread = np.maximum(groups.std(axis=0), 1e-9)
    if float(spread.max()) <= 1e-9:
        # Every image has the same classes: there are no shares.
        return None

    def differences(sides_dealt: np.ndarray) -> Floats:
        right = sides_dealt.astype(np.float64)
        return np.asarray((right @ groups) / right.sum(axis=1)[:, None] - ((1 - right) @ groups) / (1 - right).sum(axis=1)[:, None])

    def sizes(apart: Floats) -> Floats:
        return np.asarray(0.5 * np.abs(apart).sum(axis=1) if evidence.exclusive else np.abs(apart).max(axis=1))

    observed, null = differences(part.shifted[None]), differences(dealt)
    statistic = float(((observed / spread) ** 2).sum())
    p_value = permutation_p(statistic, ((null / spread) ** 2).sum(axis=1))
    distances = sizes(null)
    home = groups[~part.shifted].mean(axis=0)
    shifted = groups[part.shifted].mean(axis=0)
    if not by_labels and evidence.exclusive and len(labelled[0]) >= LEAST_LABELLED:
        home, shifted = _estimated(evidence, labelled[0])
    # What is found for sure: the deals' tail, and as much again for what the estimate may fall short.
    spread_of = float(distances.std())
    return Prevalence(
        "labels" if by_labels else "answers",
        evidence.classes,
        tuple(float(one) for one in home),
        tuple(float(one) for one in shifted),
        statistic,
        float(sizes(observed)[0]),
        float(min(1.0, np.quantile(distances, 1 - min(alpha, 0.5)) + 1.5 * spread_of)),
        p_value,
    )


def known_rows(evidence: ClassEvidence) -> tuple[Ints, Ints]:
    """Give the rows of either side whose classes are known."""
    return (
        np.flatnonzero(np.isfinite(evidence.home).all(axis=1)).astype(np.int64),
        np.flatnonzero(np.isfinite(evidence.shifted).all(axis=1)).astype(np.int64),
    )


def _estimated(evidence: ClassEvidence, rows: Ints) -> tuple[Floats, Floats]:
    if evidence.home_answers is None or evidence.shifted_answers is None:
        raise ValueError("no answers to estimate shares from")
    home = evidence.home[rows].mean(axis=0)
    shares = estimate_shares(evidence.home[rows].argmax(axis=1), evidence.home_answers[rows], evidence.shifted_answers)
    return home, shares


def estimate_shares(labels: Ints, home_answers: Floats, shifted_answers: Floats) -> Floats:
    """Estimate class shares from answers (black box shift estimation, with probabilities in the place of hard answers).

    Solves ``C s = a`` for ``s >= 0`` that sum to 1, with column k of C the mean answer on home's images of class k and a the mean answer on the
    shifted images. Equation 2 of the paper; probabilities instead of counts: Alexandari, Kundaje and Shrikumar, ICML 2020.

    Parameters
    ----------
    labels
        ``(N,)`` true class at home.
    home_answers, shifted_answers
        ``(N, K)`` and ``(M, K)`` probabilities.

    Returns
    -------
    ndarray
        ``(K,)``; 0 for classes that home has no image of.
    """
    width = home_answers.shape[1]
    there = np.unique(labels)
    confusions = np.stack([home_answers[labels == one].mean(axis=0) for one in there], axis=1)
    system = np.concatenate([confusions, np.full((1, len(there)), _WHOLE)])
    wanted = np.concatenate([shifted_answers.mean(axis=0), [_WHOLE]])
    solved, _ = nnls(system, wanted)
    shares = np.zeros(width)
    shares[there] = solved / max(1e-12, float(solved.sum()))
    return shares


def resampled_rows(labels: Ints, shares: Floats, rng: np.random.Generator) -> Ints:
    """Draw rows without repetition so that classes come in given shares, as many as there are for.

    Parameters
    ----------
    labels
        ``(N,)`` class numbers.
    shares
        ``(K,)``.
    rng
        The generator.
    """
    counts = np.bincount(labels, minlength=len(shares))
    wanted = np.where(shares > 0.01, shares, 0.0)
    wanted = np.where(counts > 0, wanted, 0.0)
    if wanted.sum() <= 0:
        return np.zeros(0, dtype=np.int64)
    wanted = wanted / wanted.sum()
    used = wanted > 0
    # A rare class with few images at home would leave next to nothing of the others: half the images at least are kept.
    most = max(float((counts[used] / wanted[used]).min()), 0.5 * float(np.median(counts[used] / wanted[used])))
    drawn: list[Sequence[int]] = []
    for one in np.flatnonzero(used):
        take = min(int(counts[one]), int(np.floor(most * wanted[one] + rng.random())))
        drawn.append(rng.permutation(np.flatnonzero(labels == one))[:take].tolist())
    return np.sort(np.array([row for part in drawn for row in part], dtype=np.int64))
