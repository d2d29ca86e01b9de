"""Whether the differences between candidates are real: statistical tests on a table of scores, candidates by folds.

FrImCla (García-Domínguez et al., IEEE Access 2021) chose between parametric and rank tests by Shapiro-Wilk's and Levene's tests, as below.
Folds of a cross-validation are not independent, though: their training sets overlap, so that the variance of a difference over folds
is far too small and plain tests find differences that are not there (Dietterich 1998). Where that is so, differences are judged by the
corrected resampled t-test (Nadeau and Bengio, Machine Learning 52, 2003), whose false alarms stay near what is promised.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]

ALPHA = 0.05
"""Differences with an adjusted p-value below this are called shown; assumptions with one below it are called broken."""

LEAST_COLUMNS = 3
"""Held-out sets below which nothing is tested."""

ENOUGH_COLUMNS = 6
"""Held-out sets below which a warning is given: with five, a rank test of two candidates cannot come below p = .0625 whatever the scores."""

_QUADE_LIMIT = 5
_EFFECT_LIMIT = 99.0


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
    unit
        What a column is, in the plural: "folds", "groups of test images", "seeds".
    """

    names: tuple[str, ...]
    scores: NDArray[np.float64]
    metric: str
    larger_is_better: bool = True
    shared: bool = True
    test_share: float = 0.0
    unit: str = "folds"

    def __post_init__(self) -> None:
        """Refuse a table that is none."""
        if self.scores.ndim != 2 or self.scores.shape[0] != len(self.names) or len(set(self.names)) != len(self.names):
            raise ValueError(f"{len(self.names)} names for scores of shape {self.scores.shape}; names must differ")
        if not np.isfinite(self.scores).all():
            raise ValueError("scores that are not finite; leave out the candidate or the fold")


@dataclass(frozen=True, slots=True)
class AssumptionCheck:
    """A check of what a test takes for granted: its name, its least p-value over candidates, and whether the assumption may stand."""

    name: str
    p_value: float
    holds: bool


@dataclass(frozen=True, slots=True)
class Omnibus:
    """A test of "all candidates are alike".

    ``effect_name`` is "eta squared" (share of the variation that candidates explain; of what blocks leave, where columns are shared), "Kendall's W"
    or "epsilon squared"; ``effect`` its value, 0 to 1. ``trusted`` is False where training sets overlap: it is shown because FrImCla shows it, and not used.
    """

    test: str
    statistic: float
    p_value: float
    effect_name: str
    effect: float
    trusted: bool = True


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


def fold_table(
    scores: Mapping[str, Mapping[int, float]],
    metric: str,
    *,
    larger_is_better: bool = True,
    test_share: float | None = None,
    unit: str = "folds",
) -> ScoreTable | None:
    """Make a table of what is known by candidate and fold.

    Parameters
    ----------
    scores
        By candidate, then by fold. Where not all have the same folds, those of the candidate with the most are taken, and candidates that lack
        one of them are left out.
    metric, larger_is_better, unit
        As in `ScoreTable`.
    test_share
        As there; None: 1/(k - 1), as in a cross-validation over the k folds that are used.

    Returns
    -------
    ScoreTable or None
        None where fewer than two candidates share two folds.
    """
    finite: dict[str, dict[int, float]] = {
        name: {fold: float(value) for fold, value in folds.items() if math.isfinite(value)} for name, folds in scores.items()
    }
    if not finite:
        return None
    most: dict[int, float] = max(finite.values(), key=_length)
    columns = sorted(most)
    names = tuple(name for name, folds in finite.items() if set(columns) <= set(folds))
    if len(columns) < 2 or len(names) < 2:
        return None
    values = np.array([[finite[name][column] for column in columns] for name in names], dtype=np.float64)
    share = 1.0 / (len(columns) - 1) if test_share is None else test_share
    return ScoreTable(names, values, metric, larger_is_better, shared=True, test_share=share, unit=unit)


def _length(folds: Mapping[int, float]) -> int:
    return len(folds)


def judge(table: ScoreTable, *, baseline: str = "", words: str = "") -> Significance:
    """Test whether differences between candidates are real.

    Parameters
    ----------
    table
        The scores.
    baseline
        Name of the cheap baseline; the winner is compared with it in a sentence.
    words
        The metric's name for people; empty: as in the table.

    Notes
    -----
    Training sets that overlap: corrected resampled t-tests of all pairs. Otherwise, where Shapiro-Wilk finds no candidate's scores (two: their
    differences) far from normal and Levene (Brown and Forsythe's form) no unequal spread: analysis of variance, with repeated measures and
    Greenhouse-Geisser's correction where columns are shared, then t-tests of the pairs; else Friedman (five candidates and more) or Quade with
    their rank tests of the pairs; for two candidates paired t or Wilcoxon. Columns that are not shared: one-way analysis of variance or
    Kruskal-Wallis and Dunn; Welch's t or Mann-Whitney for two. p-values of pairs are corrected by Holm over all pairs, as the winner is
    known from the same scores. Demsar, J. Mach. Learn. Res. 7, 2006; Nadeau and Bengio 2003; Bouckaert and Frank 2004.
    """
    order = np.argsort(-table.scores.mean(axis=1) if table.larger_is_better else table.scores.mean(axis=1), kind="stable")
    names = tuple(table.names[i] for i in order)
    scores = table.scores[order]
    count, columns = scores.shape
    words = words or table.metric
    means = tuple(float(mean) for mean in scores.mean(axis=1))
    warning = _warning(columns, table.unit)
    if count < 2 or columns < LEAST_COLUMNS:
        return Significance(table.metric, names, means, columns, warning=warning, reason="No test was made.")
    checks = _checks(scores, shared=table.shared)
    normal = all(check.holds for check in checks)
    omnibus = _omnibus(scores, normal=normal, shared=table.shared, trusted=table.test_share == 0) if count > 2 else None
    pairs = _pairs(names, scores, table, normal=normal)
    result = Significance(
        table.metric, names, means, columns, checks, omnibus, pairs, _reason(table, checks, normal=normal, count=count), (), warning
    )
    return _with_sentences(result, table, baseline, words)


def corrected_t(differences: Floats, test_share: float) -> tuple[float, float, float]:
    """Give t, the two-sided p-value and the standard error of the corrected resampled t-test.

    Parameters
    ----------
    differences
        ``(F,)``, one for each fold or resample.
    test_share
        Held-out samples over training samples, in each. 0 gives the plain paired t-test.
    """
    count = len(differences)
    error = math.sqrt((1.0 / count + test_share) * float(np.var(differences, ddof=1)))
    mean = float(np.mean(differences))
    if error <= 1e-12 * max(1.0, abs(mean)):
        return (0.0, 1.0, 0.0) if abs(mean) <= 1e-12 else (math.copysign(math.inf, mean), 0.0, 0.0)
    t = mean / error
    return t, float(2 * stats.t.sf(abs(t), count - 1)), error


def quade(scores: Floats) -> tuple[float, float]:
    """Give Quade's F and its p-value (J. Am. Stat. Assoc. 74, 1979; Conover, Practical Nonparametric Statistics, 1999, section 5.8).

    Parameters
    ----------
    scores
        ``(C, F)``: F blocks.
    """
    blocks = scores.T
    count, treatments = blocks.shape
    weights = stats.rankdata(np.ptp(blocks, axis=1))
    centred = weights[:, None] * (stats.rankdata(blocks, axis=1) - (treatments + 1) / 2)
    total, between = float((centred**2).sum()), float((centred.sum(axis=0) ** 2).sum()) / count
    if total - between <= 1e-12:
        # All blocks agree in every rank: the F-value has no bound, and the exact probability is this.
        return (math.inf, float(math.factorial(treatments)) ** (1 - count)) if total > 0 else (0.0, 1.0)
    statistic = (count - 1) * between / (total - between)
    return statistic, float(stats.f.sf(statistic, treatments - 1, (count - 1) * (treatments - 1)))


def repeated_anova(scores: Floats) -> tuple[float, float, float]:
    """Give F, p (with Greenhouse and Geisser's correction, Psychometrika 24, 1959) and partial eta squared of a repeated-measures analysis of variance.

    Parameters
    ----------
    scores
        ``(C, F)``: each column is measured under all C.
    """
    treatments, count = scores.shape
    grand = scores.mean()
    between = count * float(((scores.mean(axis=1) - grand) ** 2).sum())
    rest = float(((scores - scores.mean(axis=1, keepdims=True) - scores.mean(axis=0, keepdims=True) + grand) ** 2).sum())
    if rest <= 1e-20 * max(1.0, grand**2):
        return (math.inf, 0.0, 1.0) if between > 1e-20 * max(1.0, grand**2) else (0.0, 1.0, 0.0)
    f = (between / (treatments - 1)) / (rest / ((treatments - 1) * (count - 1)))
    centring = np.eye(treatments) - 1.0 / treatments
    covariance = centring @ np.cov(scores) @ centring
    epsilon = float(np.trace(covariance) ** 2 / ((treatments - 1) * (covariance**2).sum()))
    epsilon = min(1.0, max(epsilon, 1.0 / (treatments - 1)))
    p = float(stats.f.sf(f, epsilon * (treatments - 1), epsilon * (treatments - 1) * (count - 1)))
    return f, p, between / (between + rest)


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for their number (Holm, Scand. J. Stat. 6, 1979); statsmodels' does the same and collects garbage at every call."""
    order = np.argsort(p_values, kind="stable")
    corrected = [0.0] * len(p_values)
    reached = 0.0
    for place, index in enumerate(order.tolist()):
        reached = max(reached, min(1.0, (len(p_values) - place) * float(p_values[index])))
        corrected[index] = reached
    return corrected


def effect_words(d: float) -> str:
    """Give the word for a size of Cohen's d (Cohen 1988)."""
    size = abs(d)
    return "negligible" if size < 0.2 else "small" if size < 0.5 else "medium" if size < 0.8 else "large"


def _checks(scores: Floats, *, shared: bool) -> tuple[AssumptionCheck, ...]:
    looked_at = scores if len(scores) > 2 or not shared else (scores[0] - scores[1])[None]
    found = [1.0]
    for row in looked_at:
        if np.ptp(row) > 1e-12:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found.append(float(stats.shapiro(row).pvalue))
    # Each candidate is looked at, so that the least of their p-values is corrected for their number.
    least = min(1.0, min(found) * len(looked_at))
    checks = [AssumptionCheck("Shapiro-Wilk", least, least >= ALPHA)]
    if len(scores) > 2 or not shared:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            spread = float(stats.levene(*scores, center="median").pvalue)
        spread = spread if math.isfinite(spread) else 1.0
        checks.append(AssumptionCheck("Levene", spread, spread >= ALPHA))
    return tuple(checks)


def _omnibus(scores: Floats, *, normal: bool, shared: bool, trusted: bool) -> Omnibus:
    count, columns = scores.shape
    if not shared:
        if normal:
            f, p = stats.f_oneway(*scores)
            grand = scores.mean()
            total = float(((scores - grand) ** 2).sum())
            share = columns * float(((scores.mean(axis=1) - grand) ** 2).sum()) / total if total > 0 else 0.0
            return Omnibus("one-way analysis of variance", _finite(f), _probability(p), "eta squared", share, trusted)
        if np.ptp(scores) <= 0:
            return Omnibus("Kruskal-Wallis", 0.0, 1.0, "epsilon squared", 0.0, trusted)
        h, p = stats.kruskal(*scores)
        return Omnibus("Kruskal-Wallis", _finite(h), _probability(p), "epsilon squared", _finite(h) / (count * columns - 1), trusted)
    if normal:
        f, p, share = repeated_anova(scores)
        return Omnibus("repeated-measures analysis of variance", _finite(f), p, "eta squared", share, trusted)
    constant = bool((np.ptp(scores, axis=0) <= 0).all())
    chi = 0.0 if constant else _finite(stats.friedmanchisquare(*scores).statistic)
    agreement = chi / (columns * (count - 1))
    if count >= _QUADE_LIMIT:
        p = 1.0 if constant else _probability(stats.friedmanchisquare(*scores).pvalue)
        return Omnibus("Friedman", chi, p, "Kendall's W", agreement, trusted)
    f, p = quade(scores)
    return Omnibus("Quade", _finite(f), p, "Kendall's W", agreement, trusted)


def _pairs(names: Sequence[str], scores: Floats, table: ScoreTable, *, normal: bool) -> tuple[Pair, ...]:
    """Test every pair; the winner's come first, since the names are ordered."""
    test, values = _pair_tests(scores, table, normal=normal)
    places = list(itertools.combinations(range(len(names)), 2))
    p_values = [values[place] for place in places]
    columns = scores.shape[1]
    found = []
    for (a, b), p, adjusted in zip(places, p_values, holm(p_values), strict=True):
        differences = scores[a] - scores[b]
        lower = upper = None
        mean = float(differences.mean())
        if table.shared and (normal or table.test_share > 0):
            error = corrected_t(differences, table.test_share)[2]
            half = float(stats.t.ppf(0.975, columns - 1)) * error
            lower, upper = mean - half, mean + half
        spread = float(np.std(differences, ddof=1)) if table.shared else _pooled(scores[a], scores[b])
        effect = mean / spread if spread > 1e-12 else (0.0 if abs(mean) <= 1e-12 else math.copysign(_EFFECT_LIMIT, mean))
        effect = float(np.clip(effect, -_EFFECT_LIMIT, _EFFECT_LIMIT))
        found.append(Pair(names[a], names[b], mean, lower, upper, test, p, adjusted, effect))
    return tuple(found)


def _pair_tests(scores: Floats, table: ScoreTable, *, normal: bool) -> tuple[str, dict[tuple[int, int], float]]:
    """Give the name of the test of pairs, and the uncorrected p-value of each."""
    count = len(scores)
    places = list(itertools.combinations(range(count), 2))
    if table.test_share > 0:
        return "corrected resampled t-test", {(a, b): corrected_t(scores[a] - scores[b], table.test_share)[1] for a, b in places}
    if not table.shared:
        return _unpaired_tests(scores, places, normal=normal)
    if normal:
        return "paired t-test", {(a, b): corrected_t(scores[a] - scores[b], 0.0)[1] for a, b in places}
    if count == 2:
        differences = scores[0] - scores[1]
        p = 1.0 if not differences.any() else _probability(stats.wilcoxon(differences).pvalue)
        return "Wilcoxon's signed-rank test", {(0, 1): p}
    frame = scores.T
    if (np.ptp(frame, axis=1) <= 0).all():
        return "rank test", dict.fromkeys(places, 1.0)
    import scikit_posthocs

    if count >= _QUADE_LIMIT:
        matrix = scikit_posthocs.posthoc_siegel_friedman(frame).to_numpy()
        return "Siegel and Castellan's test after Friedman", {(a, b): _probability(matrix[a, b]) for a, b in places}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        matrix = scikit_posthocs.posthoc_quade(frame, dist="t").to_numpy()
    return "Quade's test of pairs", {(a, b): _probability(matrix[a, b]) for a, b in places}


def _unpaired_tests(scores: Floats, places: list[tuple[int, int]], *, normal: bool) -> tuple[str, dict[tuple[int, int], float]]:
    if normal or len(scores) == 2:
        test = "Welch's t-test" if normal else "Mann-Whitney test"
        found = {}
        for a, b in places:
            if np.ptp(np.concatenate([scores[a], scores[b]])) <= 0:
                found[a, b] = 1.0
            elif normal:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    found[a, b] = _probability(stats.ttest_ind(scores[a], scores[b], equal_var=False).pvalue)
            else:
                found[a, b] = _probability(stats.mannwhitneyu(scores[a], scores[b]).pvalue)
        return test, found
    import scikit_posthocs

    matrix = scikit_posthocs.posthoc_dunn(list(scores)).to_numpy()
    return "Dunn's test", {(a, b): _probability(matrix[a, b]) for a, b in places}


def _reason(table: ScoreTable, checks: Sequence[AssumptionCheck], *, normal: bool, count: int) -> str:
    listed = ", ".join(f"{check.name} p {_p(check.p_value)}" for check in checks)
    if table.test_share > 0:
        return (
            f"The {table.unit} share most of their training images, so that plain tests, which take them as independent, would find differences that are "
            f"not there: differences are judged by the corrected resampled t-test (Nadeau and Bengio 2003), held-out to training images "
            f"1 to {1 / table.test_share:.3g}, with Holm's correction. The test over all is the one that the assumptions would choose ({listed}); it is not used."
        )
    kind = "shared by all candidates" if table.shared else "each candidate's own"
    chosen = "tests that assume normal scores of equal spread" if normal else "rank tests"
    if count == 2:
        chosen = "a t-test" if normal else "a rank test"
    return f"The {table.unit} are independent and {kind}; {listed}: {'nothing speaks against' if normal else 'hence'} {chosen}. Pairs are corrected by Holm."


def _warning(columns: int, unit: str) -> str:
    if columns < LEAST_COLUMNS:
        return f"{columns} {unit}: too few to tell differences from chance."
    if columns < ENOUGH_COLUMNS:
        return f"Only {columns} {unit}: just large differences could have been shown; “not shown” does not mean “equal”."
    return ""


def _with_sentences(result: Significance, table: ScoreTable, baseline: str, words: str) -> Significance:
    sentences = []
    first = result.names[0]
    by_rival = {pair.second: pair for pair in result.pairs if pair.first == first}
    runner_up = result.names[1]
    asked = [(runner_up, "the runner-up, which is the cheap baseline," if runner_up == baseline else "the runner-up,")]
    if baseline in by_rival and baseline != runner_up:
        asked.append((baseline, "the cheap baseline,"))
    for rival, role in asked:
        sentences.append(_sentence(by_rival[rival], role, result, table, words))
    if baseline == first:
        sentences.append(f"The cheap baseline, {first}, is the best of them by this figure: nothing dearer was better.")
    if len(result.names) > 2:
        level = [rival for rival, pair in by_rival.items() if pair.adjusted_p >= ALPHA]
        if len(level) == len(by_rival):
            sentences.append(f"None of the {len(by_rival)} others is shown to be worse than {first}.")
        elif level:
            sentences.append(
                f"Of {len(by_rival)} others, {len(by_rival) - len(level)} are shown to be worse than {first}; {len(level)} are not."
            )
        else:
            sentences.append(f"All {len(by_rival)} others are shown to be worse than {first}.")
    return replace(result, sentences=tuple(sentences))


def _sentence(pair: Pair, role: str, result: Significance, table: ScoreTable, words: str) -> str:
    values = dict(zip(result.names, result.means, strict=True))
    span = f", 95 % interval {_signed(pair.lower)} to {_signed(pair.upper)}" if pair.lower is not None and pair.upper is not None else ""
    number = len(result.pairs)
    corrected = f" after Holm's correction for {number} pairs" if number > 1 else ""
    figures = (
        f"mean {words} {values[pair.first]:.3f} and {values[pair.second]:.3f} over {result.columns} {table.unit}, difference {_signed(pair.difference)}{span}; "
        f"{pair.test}, p {_p(pair.adjusted_p)}{corrected}; Cohen's d {_minus(f'{pair.effect:.2f}')}"
    )
    if pair.adjusted_p < ALPHA:
        return f"{pair.first} is better than {role} {pair.second}: {figures} ({effect_words(pair.effect)})."
    return f"{pair.first} is not shown to be better than {role} {pair.second}: {figures}. Such a difference can be chance."


def _signed(value: float | None) -> str:
    return "" if value is None else _minus(f"{value:+.3f}")


def _minus(text: str) -> str:
    return text.replace("-", "\N{MINUS SIGN}")


def _p(value: float) -> str:
    return "< .001" if value < 0.001 else "= " + (f"{value:.3f}".lstrip("0") if value < 0.9995 else "1")


def _pooled(first: Floats, second: Floats) -> float:
    return math.sqrt((float(np.var(first, ddof=1)) + float(np.var(second, ddof=1))) / 2)


def _finite(value: float) -> float:
    return float(value) if math.isfinite(value) else 1e9 if value > 0 else 0.0


def _probability(value: float) -> float:
    return float(value) if math.isfinite(value) else 1.0
