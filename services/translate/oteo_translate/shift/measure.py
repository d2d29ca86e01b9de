"""The whole measurement on plain arrays: every test, one corrected verdict, the kind, what was too small to see, and the images to look at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from oteo_core.errors import InvalidArgument
from oteo_core.evaluation.bootstrap import generator
from oteo_core.evaluation.statistics import holm
from oteo_core.shift import power
from oteo_translate.shift import mmd
from oteo_translate.shift.c2st import Told, tell_apart
from oteo_translate.shift.extremes import Extreme, find_extremes
from oteo_translate.shift.features import INTENSITY, Feature
from oteo_translate.shift.kinds import Remainder, decide, what_is_left
from oteo_translate.shift.ks import marginal_tests
from oteo_translate.shift.prevalence import ClassEvidence, Prevalence, compare_shares
from oteo_translate.shift.scaling import components
from oteo_translate.shift.sides import PERMUTATIONS, Floats, Sides, deal, permutation_p

MMD, KS, C2ST, SHARES = "mmd", "ks", "c2st", "prevalence"
ALPHA = 0.05
LEAST_IMAGES = 8
LEAST_GROUPS = 4
_MOST_PERMUTATIONS = 4999


@dataclass(frozen=True, slots=True)
class ShiftTest:
    """One test.

    Parameters
    ----------
    test, feature
        `MMD`, `KS`, `C2ST` or `SHARES`, and what it looked at.
    statistic
        Squared discrepancy; largest distance of distribution functions; AUROC; sum of squared standardised differences of shares.
    raw_p, p_value
        Of this test alone, and corrected by Holm's method for all tests.
    effect
        Discrepancy; distance; AUROC; total variation of shares.
    detectable
        The effect that so many images show in four cases of five.
    accuracy
        Balanced, of a classifier test; NaN of others.
    where
        The feature's column with the least p-value, of `KS`.
    """

    test: str
    feature: str
    statistic: float
    raw_p: float
    p_value: float
    effect: float
    detectable: float
    accuracy: float = float("nan")
    where: str = ""


@dataclass(frozen=True, slots=True)
class MovedStatistic:
    """One statistic of the images on both sides.

    Parameters
    ----------
    name
        As in `statistic_names`.
    home, shifted
        Means.
    spread
        Pooled standard deviation.
    effect
        Cohen's d: shifted less home, in standard deviations.
    p_value
        Kolmogorov-Smirnov's, corrected for the number of statistics.
    """

    name: str
    home: float
    shifted: float
    spread: float
    effect: float
    p_value: float


@dataclass(frozen=True, slots=True)
class Shift:
    """What was found.

    Parameters
    ----------
    kind
        `kinds.NONE`, `COVARIATE`, `PREVALENCE` or `BOTH`.
    alpha
        Chance of a false alarm that was accepted.
    tests
        All of them.
    statistics
        Of the images, largest effect first.
    prevalence, remainder
        Class shares, and what they leave; None where nothing is known of classes, or nothing was found to explain.
    extremes, typical
        Shifted images farthest from home; rows of home's most typical.
    images, groups
        On either side.
    detectable_difference
        Difference of one statistic's means, in standard deviations, that so many images show in four cases of five.
    notes
        What whoever reads the figures should know.
    """

    kind: str
    alpha: float
    tests: tuple[ShiftTest, ...]
    statistics: tuple[MovedStatistic, ...]
    prevalence: Prevalence | None
    remainder: Remainder | None
    extremes: tuple[Extreme, ...]
    typical: tuple[int, ...]
    images: tuple[int, int]
    groups: tuple[int, int]
    detectable_difference: float
    notes: tuple[str, ...] = field(default=())

    @property
    def p_value(self) -> float:
        """The least corrected p-value: that of the verdict."""
        return min(test.p_value for test in self.tests)


def measure_shift(
    features: Sequence[Feature],
    home_groups: Sequence[str],
    shifted_groups: Sequence[str],
    *,
    classes: ClassEvidence | None = None,
    alpha: float = ALPHA,
    seed: int = 0,
    permutations: int = 0,
    check: Callable[[], None] = lambda: None,
    progress: Callable[[float, str], None] = lambda share, word: None,
) -> Shift:
    """Test whether two sets of images come from one domain.

    Parameters
    ----------
    features
        What is looked at, with N rows of home and M of the shifted images each; one at least.
    home_groups, shifted_groups
        N and M names of groups; empty: a group of its own.
    classes
        What is known of the images' classes; None: nothing, so that any shift is called covariate.
    alpha
        Chance of a false alarm, over all tests together.
    seed
        Of every draw.
    permutations
        Deals behind each p-value; 0: `PERMUTATIONS`, and more where `alpha` is so small that they could not come below it.
    check, progress
        Asked and told now and then.

    Raises
    ------
    InvalidArgument
        ``TOO_FEW_IMAGES``: fewer than `LEAST_IMAGES` images or `LEAST_GROUPS` groups on a side.
    """
    sides = Sides.of(home_groups, shifted_groups)
    images = (len(home_groups), len(shifted_groups))
    for side, count, groups in zip(("home", "the shifted set"), images, sides.counts, strict=True):
        if count < LEAST_IMAGES or groups < LEAST_GROUPS:
            raise InvalidArgument(
                f"{side} has {count} images in {groups} groups; {LEAST_IMAGES} images in {LEAST_GROUPS} groups are the least that can show anything",
                reason="TOO_FEW_IMAGES",
            )
    together = {one.name: np.concatenate([one.home, one.shifted]) for one in features}
    count = 3 * len(features) + (classes is not None)
    level = alpha / count
    permutations = permutations or int(np.clip(np.ceil(2.0 / level), PERMUTATIONS, _MOST_PERMUTATIONS))
    found: list[ShiftTest] = []
    told: dict[str, Told] = {}
    moved: tuple[MovedStatistic, ...] = ()
    for place, feature in enumerate(features):
        values = together[feature.name]
        check()
        progress(place / len(features), f"testing {feature.name}")
        dealt = deal(sides, generator(seed, "shift", feature.name, "deal"), permutations)
        found.append(_mmd(feature.name, values, sides, dealt, level))
        check()
        test, statistics = _ks(feature, values, sides, generator(seed, "shift", feature.name, "ks"), level)
        found.append(test)
        moved = statistics or moved
        check()
        told[feature.name] = tell_apart(values, sides, dealt, generator(seed, "shift", feature.name, "folds"))
        found.append(_c2st(feature.name, told[feature.name], sides, level))
    prevalence = None
    if classes is not None:
        prevalence = compare_shares(classes, sides, generator(seed, "shift", "classes", "deal"), count=permutations, alpha=level)
        if prevalence is not None:
            found.append(
                ShiftTest(
                    SHARES, prevalence.source, prevalence.statistic, prevalence.p_value, 0.0, prevalence.distance, prevalence.detectable
                )
            )
    tests = _corrected(found)
    shifted = min(test.p_value for test in tests) <= alpha
    remainder = None
    if shifted and classes is not None and prevalence is not None:
        progress(0.95, "telling looks from shares")
        check()
        remainder = what_is_left(
            list(together.values()), classes, prevalence, sides, generator(seed, "shift", "classes", "left"), count=permutations
        )
    extremes, typical = find_extremes(list(together.values()), sides, _best_decisions(tests, told, alpha))
    return Shift(
        decide(shifted, prevalence, remainder, alpha),
        alpha,
        tests,
        moved,
        prevalence,
        remainder,
        tuple(extremes),
        tuple(typical),
        images,
        sides.counts,
        power.detectable_difference(*sides.counts, level, max(1, len(moved))),
        _notes(sides, images, permutations, len(tests), alpha),
    )


def _mmd(name: str, values: Floats, sides: Sides, dealt: np.ndarray, level: float) -> ShiftTest:
    groups = mmd.group_kernel(values, sides)
    squares = mmd.discrepancies(groups, np.concatenate([sides.shifted[None], dealt]))
    observed, null = float(squares[0]), squares[1:]
    raw = permutation_p(observed, null)
    detectable = power.detectable_discrepancy(null, groups, *sides.counts, level)
    return ShiftTest(MMD, name, observed, raw, raw, float(np.sqrt(max(0.0, observed))), detectable)


def _ks(
    feature: Feature, values: Floats, sides: Sides, rng: np.random.Generator, level: float
) -> tuple[ShiftTest, tuple[MovedStatistic, ...]]:
    """Test marginals; long features by their principal components, image statistics as they are."""
    named = len(feature.columns) == values.shape[1] and feature.name == INTENSITY
    looked = values if named else components(values)
    names = (
        feature.columns if named or looked.shape[1] == len(feature.columns) else tuple(f"component {i + 1}" for i in range(looked.shape[1]))
    )
    result = marginal_tests(looked, sides, rng)
    best = result.strongest
    detectable = power.detectable_distance(*sides.counts, level / looked.shape[1])
    test = ShiftTest(
        KS,
        feature.name,
        float(result.distances[best]),
        float(result.p_values[best]),
        1.0,
        float(result.distances[best]),
        detectable,
        where=names[best],
    )
    return test, _moved(feature, result.p_values) if named else ()


def _moved(feature: Feature, p_values: Floats) -> tuple[MovedStatistic, ...]:
    rows = []
    for column, name in enumerate(feature.columns):
        home, shifted = feature.home[:, column], feature.shifted[:, column]
        spread = float(np.sqrt(0.5 * (home.var() + shifted.var())))
        apart = float(shifted.mean() - home.mean())
        # Where neither side varies a difference has no measure; ten standard deviations stand for "wholly".
        effect = apart / spread if spread > 1e-9 else (0.0 if abs(apart) < 1e-9 else float(np.copysign(10.0, apart)))
        rows.append(MovedStatistic(name, float(home.mean()), float(shifted.mean()), spread, effect, float(p_values[column])))
    return tuple(sorted(rows, key=lambda row: -abs(row.effect)))


def _c2st(name: str, told: Told, sides: Sides, level: float) -> ShiftTest:
    raw = permutation_p(told.auroc, told.null)
    detectable = power.detectable_auroc(told.null, *sides.counts, level)
    return ShiftTest(C2ST, name, told.auroc, raw, raw, told.auroc, detectable, told.accuracy)


def _corrected(found: Sequence[ShiftTest]) -> tuple[ShiftTest, ...]:
    corrected = holm([test.raw_p for test in found])
    return tuple(
        ShiftTest(t.test, t.feature, t.statistic, t.raw_p, p, t.effect, t.detectable, t.accuracy, t.where)
        for t, p in zip(found, corrected, strict=True)
    )


def _best_decisions(tests: Sequence[ShiftTest], told: dict[str, Told], alpha: float) -> Floats | None:
    """Give the decisions of the classifier that tells the sides apart best, if any does."""
    best = [test for test in tests if test.test == C2ST and test.p_value <= alpha]
    return told[max(best, key=lambda test: test.statistic).feature].decisions if best else None


def _notes(sides: Sides, images: tuple[int, int], permutations: int, tests: int, alpha: float) -> tuple[str, ...]:
    notes = []
    if sum(sides.counts) < sum(images):
        notes.append(
            f"{images[0]} and {images[1]} images are in {sides.counts[0]} and {sides.counts[1]} groups that belong together; a group counts as one."
        )
    ways = np.exp(_log_choose(sum(sides.counts), sides.counts[1]))
    # Sides that have changed places are as far apart.
    least = max(1.0 / (permutations + 1), 2.0 / ways)
    if least * tests > alpha:
        notes.append(
            "There are so few groups that hardly any shift could be shown; more patients or slides are needed, not more images of the same."
        )
    return tuple(notes)


def _log_choose(total: int, part: int) -> float:
    from scipy.special import gammaln

    return float(gammaln(total + 1) - gammaln(part + 1) - gammaln(total - part + 1))
