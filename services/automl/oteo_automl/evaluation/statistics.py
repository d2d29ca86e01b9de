"""Whether the differences between candidates are real: statistical tests on a table of scores, candidates by folds.

FrImCla (García-Domínguez et al., IEEE Access 2021) chose between parametric and rank tests by Shapiro-Wilk's and Levene's tests, as below.
Folds of a cross-validation are not independent, though: their training sets overlap, so that the variance of a difference over folds
is far too small and plain tests find differences that are not there (Dietterich 1998). Where that is so, differences are judged by the
corrected resampled t-test (Nadeau and Bengio, Machine Learning 52, 2003), whose false alarms stay near what is promised.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class ScoreTable:
    """Scores of candidates on shared held-out sets.

    Parameters
    ----------
    names
        C candidates, no name twice.
    scores
        ``(C, F)`` float64: column ``f`` holds the scores of all candidates on held-out set ``f``. Finite.
    metric
        Name of the score.
    larger_is_better
        False for losses.
    shared
        True where a column is one held-out set for all (blocks: repeated measures); False where candidates were measured on draws of their own.
    test_share
        Share of the samples that is held out, over the share that is learned from, where training sets overlap: 1/(k-1) for k folds, the ratio
        of sizes for repeated random splits. 0 where training sets are independent (or are the same, and columns are test sets).
    """

    names: tuple[str, ...]
    scores: NDArray[np.float64]
    metric: str
    larger_is_better: bool = True
    shared: bool = True
    test_share: float = 0.0


@dataclass(frozen=True, slots=True)
class AssumptionCheck:
    """A check of what a test takes for granted: its name, its least p-value over candidates, and whether the assumption may stand."""

    name: str
    p_value: float
    holds: bool


@dataclass(frozen=True, slots=True)
class Omnibus:
    """A test of "all candidates are alike".

    ``effect`` is ``"eta squared"`` or ``"Kendall's W"`` with its value, 0 to 1.
    """

    test: str
    statistic: float
    p_value: float
    effect_name: str
    effect: float


@dataclass(frozen=True, slots=True)
class Pair:
    """Two candidates compared.

    Parameters
    ----------
    first, second
        Their names.
    difference
        Mean score of the first minus that of the second.
    lower, upper
        Its 95 % interval; None where the test gives none.
    test
        Name of the test.
    p_value, adjusted_p
        Two-sided; and after the correction for the number of pairs tested.
    effect
        Cohen's d of the paired differences (independent: of the pooled spread).
    """

    first: str
    second: str
    difference: float
    lower: float | None
    upper: float | None
    test: str
    p_value: float
    adjusted_p: float
    effect: float


@dataclass(frozen=True, slots=True)
class Significance:
    """What the tests say.

    Parameters
    ----------
    metric
        Name of the score.
    names, means
        Candidates, best first, and their mean scores.
    columns
        Number of held-out sets, F.
    checks
        Of normality and of equal spread.
    omnibus
        Test over all; None for two candidates, or too few columns.
    pairs
        Every pair that was tested, the winner's first.
    reason
        Which tests were used, and why, in a sentence.
    sentences
        Winner against runner-up, winner against the baseline, all against all.
    warning
        Why little can be said; empty where enough was measured.
    """

    metric: str
    names: tuple[str, ...]
    means: tuple[float, ...]
    columns: int
    checks: tuple[AssumptionCheck, ...] = ()
    omnibus: Omnibus | None = None
    pairs: tuple[Pair, ...] = ()
    reason: str = ""
    sentences: tuple[str, ...] = field(default=())
    warning: str = ""
