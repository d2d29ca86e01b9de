"""The tests of shift against brute force, SciPy and scikit-learn; their level, their power, and what kind they call a shift."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats
from shift_sets import textured
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from oteo_core.errors import InvalidArgument
from oteo_core.shift import power
from oteo_translate.shift import mmd
from oteo_translate.shift.c2st import aurocs, tell_apart
from oteo_translate.shift.extremes import find_extremes
from oteo_translate.shift.features import Feature, pooled_outputs
from oteo_translate.shift.kinds import BOTH, COVARIATE, NONE, PREVALENCE
from oteo_translate.shift.ks import marginal_tests
from oteo_translate.shift.logistic import fit_all
from oteo_translate.shift.loss import expect_loss, threshold_for
from oteo_translate.shift.measure import measure_shift
from oteo_translate.shift.prevalence import ClassEvidence, estimate_shares, resampled_rows
from oteo_translate.shift.scaling import components, standardised
from oteo_translate.shift.sides import Sides, deal, permutation_p, restricted
from oteo_translate.shift.simulated import Simulated, simulate
from oteo_translate.tasks.believing import believed


def sides_of(home: int, shifted: int) -> Sides:
    return Sides.of([""] * home, [""] * shifted)


def measured(home, shifted, *, groups=None, classes=None, seed=0, alpha=0.05):
    names = groups or ([""] * len(home), [""] * len(shifted))
    columns = tuple(f"column {number}" for number in range(home.shape[1]))
    return measure_shift([Feature("intensity", home, shifted, columns)], *names, classes=classes, seed=seed, permutations=199, alpha=alpha)


def test_the_discrepancy_is_the_one_that_loops_over_pairs_give():
    rng = np.random.default_rng(0)
    values, sides = rng.normal(size=(11, 3)), sides_of(5, 6)
    scaled = standardised(values)
    distances = [np.linalg.norm(a - b) for a, b in itertools.combinations(scaled, 2)]
    width = np.sqrt(np.median(np.square(distances)))

    def near(a, b):
        return np.mean([np.exp(-np.sum((a - b) ** 2) / (2 * (share * width) ** 2)) for share in mmd.WIDTHS])

    ours, theirs = scaled[:5], scaled[5:]
    within = np.mean([near(a, b) for a, b in itertools.permutations(ours, 2)])
    within += np.mean([near(a, b) for a, b in itertools.permutations(theirs, 2)])
    expected = within - 2 * np.mean([near(a, b) for a, b in itertools.product(ours, theirs)])
    assert mmd.discrepancies(mmd.group_kernel(values, sides), sides.shifted[None])[0] == pytest.approx(expected)


def test_the_permutation_p_value_nears_that_of_all_permutations():
    rng = np.random.default_rng(1)
    values = np.concatenate([rng.normal(size=(6, 2)), rng.normal(1.2, 1, size=(6, 2))])
    sides = sides_of(6, 6)
    groups = mmd.group_kernel(values, sides)
    observed = mmd.discrepancies(groups, sides.shifted[None])[0]
    everything = np.zeros((924, 12), dtype=bool)
    for row, chosen in enumerate(itertools.combinations(range(12), 6)):
        everything[row, chosen] = True
    exact = float((mmd.discrepancies(groups, everything) >= observed - 1e-12).mean())
    dealt = deal(sides, rng, 20_000)
    assert (dealt.sum(axis=1) == 6).all()
    assert permutation_p(observed, mmd.discrepancies(groups, dealt)) == pytest.approx(exact, abs=0.01)


def test_groups_are_dealt_whole_and_count_as_one():
    sides = Sides.of(["a", "a", "a", "", "b"], ["a", "c", "c", ""])
    assert sides.counts == (3, 3)
    assert sides.average(np.array([0.0, 3.0, 6.0, 1.0, 2.0, 5.0, 4.0, 8.0, 7.0])).tolist() == [3, 1, 2, 5, 6, 7]
    strata = np.array([0, 0, 1, 0, 1, 1])
    dealt = deal(sides, np.random.default_rng(0), 200, strata)
    for stratum in (0, 1):
        assert set(dealt[:, strata == stratum].sum(axis=1)) == {sides.shifted[strata == stratum].sum()}
    rows = sides.one_each(np.random.default_rng(0))
    assert sorted(sides.groups[rows]) == list(range(6))
    part = restricted(sides, np.array([0, 1, 6, 7]))
    assert (part.groups.tolist(), part.shifted.tolist()) == ([0, 0, 1, 1], [False, True])


def test_marginals_are_scipys_with_holms_correction():
    rng = np.random.default_rng(2)
    values = rng.normal(size=(50, 4))
    values[25:, 2] += 1.5
    found = marginal_tests(values, sides_of(25, 25), rng)
    plain = [stats.ks_2samp(values[:25, column], values[25:, column]) for column in range(4)]
    np.testing.assert_allclose(found.distances, [one.statistic for one in plain])
    assert found.strongest == 2
    assert found.p_values[2] == pytest.approx(4 * plain[2].pvalue)
    assert (found.p_values >= [one.pvalue for one in plain]).all()


@pytest.mark.parametrize("gap", [0.3, 8.0])
def test_many_regressions_at_once_are_scikit_learns_one_by_one(gap):
    rng = np.random.default_rng(3)
    values = rng.normal(size=(40, 5))
    targets = np.stack([rng.permutation(np.arange(40) < 15), np.arange(40) < 20]).astype(float)
    values[:20, 0] += gap
    weights = rng.uniform(0.5, 2.0, size=(2, 40))
    found = fit_all(values, targets, weights)
    for row in range(2):
        peer = LogisticRegression(C=1.0, tol=1e-10, max_iter=5000).fit(values, targets[row], sample_weight=weights[row])
        np.testing.assert_allclose(found[row], [*peer.coef_[0], peer.intercept_[0]], atol=1e-4)


def test_the_area_under_the_curve_is_scikit_learns():
    rng = np.random.default_rng(4)
    scores, positive = np.round(rng.normal(size=(3, 30)), 1), rng.random((3, 30)) < 0.4
    np.testing.assert_allclose(aurocs(scores, positive), [roc_auc_score(y, s) for y, s in zip(positive, scores, strict=True)])


def test_a_classifier_tells_apart_what_differs_and_nothing_else():
    rng = np.random.default_rng(5)
    sides = sides_of(40, 20)
    values = rng.normal(size=(60, 8))
    dealt = deal(sides, rng, 99)
    alike = tell_apart(values, sides, dealt, rng)
    assert permutation_p(alike.auroc, alike.null) > 0.05
    values[40:, 3] += 4
    apart = tell_apart(values, sides, dealt, rng)
    assert apart.auroc > 0.97
    assert apart.accuracy > 0.9
    assert (apart.decisions[40:] > 0).mean() > 0.9
    # A patient who is told from the others by what nobody else has must not count: that the sides differ is asked of patients not seen.
    names = ([f"h{i // 10}" for i in range(40)], [f"s{i // 5}" for i in range(20)])
    grouped = Sides.of(*names)
    private = np.eye(8)[grouped.groups] * 5 + rng.normal(0, 0.1, size=(60, 8))
    told = tell_apart(private, grouped, deal(grouped, rng, 99), rng)
    assert permutation_p(told.auroc, told.null) > 0.05


def test_without_shift_it_rarely_rings_and_groups_do_not_make_it():
    rng = np.random.default_rng(6)
    alone = sum(measured(rng.normal(size=(20, 5)), rng.normal(size=(24, 5)), seed=seed).kind != NONE for seed in range(40))
    assert alone <= 5
    rings = 0
    for seed in range(25):
        # Ten patients of eight nearly equal images: as single images they would differ almost surely.
        home, shifted = (np.repeat(rng.normal(size=(10, 5)), 8, axis=0) + rng.normal(0, 0.05, size=(80, 5)) for _ in range(2))
        names = [[f"{side}{i // 8}" for i in range(80)] for side in "hs"]
        rings += measured(home, shifted, groups=names, seed=seed).kind != NONE
    assert rings <= 4


def test_a_shift_of_detectable_size_is_found_four_times_in_five():
    rng = np.random.default_rng(7)
    home, shifted = rng.normal(size=(32, 3)), rng.normal(size=(32, 3))
    size = measured(home, shifted).detectable_difference
    assert 1.0 < size < 1.3
    hits = 0
    for seed in range(30):
        home, shifted = rng.normal(size=(32, 3)), rng.normal(size=(32, 3))
        shifted[:, 0] += size
        hits += measured(home, shifted, seed=seed).kind != NONE
    assert hits >= 23


def test_detectable_effects_of_tests_fall_with_more_images_and_hold():
    assert power.detectable_distance(10, 10, 0.05) > power.detectable_distance(100, 100, 0.05) > 0.15
    assert power.detectable_distance(3, 3, 0.001) == 1.0
    rng = np.random.default_rng(8)
    distance = power.detectable_distance(50, 50, 0.05)
    # Normal distributions whose functions are so far apart.
    gap = 2 * stats.norm.ppf((1 + distance) / 2)
    found = np.mean([stats.ks_2samp(rng.normal(size=50), rng.normal(gap, 1, size=50)).pvalue <= 0.05 for _ in range(200)])
    assert found > 0.75
    area = power.detectable_auroc(rng.normal(0.5, 0.06, size=499), 40, 40, 0.05)
    gap = np.sqrt(2) * stats.norm.ppf(area)
    critical = 0.5 + stats.norm.isf(0.05) * 0.06
    hits = [roc_auc_score(np.arange(80) >= 40, np.r_[rng.normal(size=40), rng.normal(gap, 1, size=40)]) >= critical for _ in range(200)]
    assert np.mean(hits) == pytest.approx(0.8, abs=0.1)


def test_the_kernel_tests_detectable_discrepancy_is_found():
    rng = np.random.default_rng(9)
    sides = sides_of(30, 30)

    def squares(gap, count):
        values = rng.normal(size=(60, 2))
        values[30:, 0] += gap
        groups = mmd.group_kernel(values, sides)
        return mmd.discrepancies(groups, np.concatenate([sides.shifted[None], deal(sides, rng, count)])), groups

    all_squares, groups = squares(0.0, 199)
    detectable = power.detectable_discrepancy(all_squares[1:], groups, 30, 30, 0.05)
    # The gap at which the mean discrepancy is that, found by trying.
    gaps = np.linspace(0.3, 1.6, 14)
    means = [np.mean([squares(gap, 1)[0][0] for _ in range(20)]) for gap in gaps]
    gap = float(np.interp(detectable**2, means, gaps))
    hits = [permutation_p(found[0], found[1:]) <= 0.05 for found in (squares(gap, 99)[0] for _ in range(60))]
    assert np.mean(hits) > 0.7


CLASSES = ("a", "b", "c")
CENTRES = np.array([[0.0, 0.0, 0.0, 0.0], [3.0, 0.0, 0.0, 0.0], [0.0, 3.0, 0.0, 0.0]])


def drawn(rng, count, shares, shift=0.0):
    labels = rng.choice(3, count, p=shares)
    return CENTRES[labels] + rng.normal(size=(count, 4)) + np.array([0.0, 0.0, shift, 0.0]), labels


def answers_for(values, sharpness=1.5):
    logits = -sharpness * ((values[:, None, :2] - CENTRES[None, :, :2]) ** 2).sum(axis=2) / 2
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return odds / odds.sum(axis=1, keepdims=True)


EVEN, SKEWED = (0.4, 0.3, 0.3), (0.1, 0.2, 0.7)


@pytest.mark.parametrize(
    ("shares", "shift", "kinds"),
    [(EVEN, 0.0, {NONE}), (SKEWED, 0.0, {PREVALENCE}), (EVEN, 1.2, {COVARIATE}), (SKEWED, 1.2, {BOTH})],
)
@pytest.mark.parametrize("known", ["labels", "answers"])
def test_the_kind_is_told_with_labels_and_with_answers_alone(shares, shift, kinds, known):
    if known == "answers":
        # Once images look different the model's answers prove nothing about shares.
        kinds = {COVARIATE} if kinds == {BOTH} else kinds
    called = []
    for seed in range(6):
        rng = np.random.default_rng([seed, 10])
        home, ours = drawn(rng, 120, EVEN)
        shifted, theirs = drawn(rng, 80, shares, shift)
        hidden = np.full((80, 3), np.nan)
        evidence = ClassEvidence(
            CLASSES,
            np.eye(3)[ours],
            np.eye(3)[theirs] if known == "labels" else hidden,
            answers_for(home) if known == "answers" else None,
            answers_for(shifted) if known == "answers" else None,
        )
        called.append(measured(home, shifted, classes=evidence, seed=seed).kind)
    assert sum(kind in kinds for kind in called) >= 5, called


def test_without_classes_a_shift_is_called_covariate():
    rng = np.random.default_rng(11)
    assert measured(drawn(rng, 60, EVEN)[0], drawn(rng, 60, SKEWED)[0]).kind == COVARIATE


def test_shares_are_estimated_through_the_models_confusions():
    rng = np.random.default_rng(12)
    home, labels = drawn(rng, 2000, EVEN)
    shifted, _ = drawn(rng, 2000, SKEWED)
    blurred = estimate_shares(labels, answers_for(home, 0.3), answers_for(shifted, 0.3))
    assert np.abs(answers_for(shifted, 0.3).mean(axis=0) - SKEWED).max() > 0.1
    np.testing.assert_allclose(blurred, SKEWED, atol=0.04)
    assert estimate_shares(labels[labels < 2], answers_for(home)[labels < 2], answers_for(shifted))[2] == 0
    rows = resampled_rows(labels, np.array([0.5, 0.5, 0.0]), rng)
    counts = np.bincount(labels[rows], minlength=3)
    assert counts[2] == 0
    assert abs(counts[0] - counts[1]) <= 2
    assert len(set(rows.tolist())) == len(rows)


def test_the_threshold_leaves_as_many_above_it_as_are_right():
    confidence = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95])
    right = np.array([0, 0, 0, 1, 1, 1, 1, 1, 1, 1.0])
    threshold = threshold_for(confidence, right, np.ones(10))
    assert (confidence >= threshold).mean() == pytest.approx(0.7)
    assert (confidence >= threshold_for(confidence, np.full(10, 0.55), np.ones(10))).mean() == pytest.approx(0.5, abs=0.1)
    assert (confidence >= threshold_for(confidence, np.ones(10), np.ones(10))).all()
    assert not (confidence >= threshold_for(confidence, np.zeros(10), np.ones(10))).any()


def test_the_expected_loss_is_what_a_model_loses_that_knows_what_it_knows():
    rng = np.random.default_rng(13)
    ours, theirs = rng.beta(8, 1.5, 1500), rng.beta(4, 2.5, 1500)
    sides, hidden = sides_of(1500, 1500), np.full(1500, np.nan)

    def expected(right, *, there=None, simulated=None):
        truth = hidden if there is None else there
        return expect_loss("accuracy", ours, right(ours), theirs, truth, sides, rng, simulated=simulated, resamples=200)

    # Right wherever the confidence is above a bar: what thresholding takes for granted.
    sharp = expected(lambda sure: (sure > 0.7).astype(float), there=(theirs > 0.7).astype(float))
    assert sharp.expected.method == "average thresholded confidence"
    assert sharp.expected.value == pytest.approx(sharp.measured, abs=0.01)
    assert sharp.expected.lower < sharp.expected.value < sharp.expected.upper
    # Graded scores that the confidence foretells: what differences take for granted.
    graded = expected(lambda sure: sure)
    assert (graded.expected.method, graded.others) == ("difference of confidences", ())
    assert graded.expected.value == pytest.approx(ours.mean() - theirs.mean())
    assert graded.measured is None
    assert expect_loss("accuracy", ours, hidden, theirs, hidden, sides, rng) is None
    # A point of confidence has cost two to four of the score wherever images were changed on purpose.
    falls = np.array([0.02, 0.05, 0.1, 0.001])
    weighed = expected(lambda sure: sure, simulated=Simulated(falls, falls * [4, 2, 3, 50])).expected
    assert weighed.value / graded.expected.value == pytest.approx((falls**2 * [4, 2, 3, 50]).sum() / (falls**2).sum(), rel=1e-3)
    assert weighed.lower < 2.2 * graded.expected.value < 3.8 * graded.expected.value < weighed.upper


def test_two_networks_that_agree_less_tell_a_loss_that_confidence_does_not():
    rng = np.random.default_rng(14)
    sides, sure = sides_of(60, 80), np.full(60, 0.9)
    right, agreed = rng.uniform(0.8, 0.95, 60), rng.uniform(0.85, 0.95, 60)
    hidden, apart = np.full(80, np.nan), rng.uniform(0.3, 0.5, 80)
    agreed[3] = apart[5] = np.nan  # nothing to agree on
    found = expect_loss("iou", sure, right, np.full(80, 0.89), hidden, sides, rng, seconded=(agreed, apart), resamples=200)
    assert found.expected.method == "agreement with a second network"
    assert found.expected.value == pytest.approx(np.nanmean(agreed) - np.nanmean(apart))
    assert 0.4 < found.expected.lower < found.expected.value < found.expected.upper < 0.6
    assert [one.method for one in found.others] == ["difference of confidences"]
    assert found.others[0].value == pytest.approx(0.01)
    # Too few that both said anything of: what was there before.
    without = expect_loss("iou", sure, right, np.full(80, 0.89), hidden, sides, rng, seconded=(agreed, hidden), resamples=200)
    assert without.expected.method == "difference of confidences"


def test_an_answer_that_fills_the_image_or_finds_nothing_is_believed_as_far_as_home_has_such():
    home_shares, home_counts = np.array([0.1, 0.3, 0.0, 0.2]), np.array([1, 2, 0, 1])
    shares, counts = np.array([0.2, 1.0, 0.0, 0.0, 0.64]), np.array([3, 1, 0, 0, 1])
    assert believed(home_shares, home_counts, shares, counts) == pytest.approx([1.0, 0.0, 0.625, 0.625, 1.0])
    assert believed(home_shares, home_counts, shares[:3], np.array([3, 1, 1])) == pytest.approx([1.0, 0.0, 1.0])
    # No rarer than at home: nothing is odd about them.
    assert believed(home_shares, home_counts, home_shares, home_counts) == pytest.approx(np.ones(4))


def test_what_a_point_of_confidence_costs_is_learned_on_home_images():
    images = np.stack([textured(index) for index in range(12)])

    def judge(batch):
        sure = 1 - np.abs(batch.mean(axis=(1, 2, 3)) / 255 - 0.5)
        return list(sure), sure

    def scores(truths, answers):
        return np.array([0.4 + 2 * (answer - 0.8) for answer in answers])

    found = simulate(images, [1] * 12, judge, scores, seed=0)
    assert found.slope == pytest.approx(2.0)
    assert found.ratios()[0] == pytest.approx(2.0)
    assert len(found.score) > 10
    assert simulate(images, [None] * 8 + [1] * 4, judge, scores, seed=0) is None


def test_outliers_come_first_and_the_middle_is_typical():
    rng = np.random.default_rng(14)
    values = rng.normal(size=(60, 4))
    values[45] += 9
    values[3] = 0.0
    values[7] += 6
    extremes, typical = find_extremes([values], sides_of(40, 20), None)
    assert extremes[0].row == 5
    assert extremes[0].p_value == pytest.approx(1 / 41)
    assert typical[0] == 3
    assert 7 not in typical
    assert len(extremes) == len(typical) == 10


@pytest.mark.parametrize("value", [0.0, 0.5])
def test_constant_features_are_no_shift_and_no_error(value):
    found = measured(np.full((10, 4), value), np.full((12, 4), value))
    assert found.kind == NONE
    assert found.p_value == 1.0
    other = measured(np.full((10, 4), value), np.full((12, 4), value + 0.2))
    assert other.kind == COVARIATE


def test_too_little_is_refused_and_few_groups_are_said():
    rng = np.random.default_rng(15)
    with pytest.raises(InvalidArgument) as caught:
        measured(rng.normal(size=(7, 3)), rng.normal(size=(20, 3)))
    assert caught.value.reason == "TOO_FEW_IMAGES"
    with pytest.raises(InvalidArgument, match="20 images in 2 groups"):
        measured(rng.normal(size=(20, 3)), rng.normal(size=(20, 3)), groups=([""] * 20, ["a", "b"] * 10))
    few = measured(rng.normal(size=(20, 3)), rng.normal(9, 1, size=(20, 3)), groups=(["a", "b", "c", "d"] * 5, ["e", "f", "g", "h"] * 5))
    assert few.kind == NONE
    assert any("so few groups" in note for note in few.notes)


def test_a_small_alpha_can_still_ring():
    rng = np.random.default_rng(18)
    home, shifted = rng.normal(size=(24, 2)), rng.normal(3, 1, size=(24, 2))
    found = measure_shift([Feature("output", home, shifted)], [""] * 24, [""] * 24, alpha=0.005)
    assert {test.test for test in found.tests if test.p_value <= 0.005} == {"mmd", "ks", "c2st"}


def test_the_same_seed_gives_the_same_figures_and_long_features_are_shortened():
    rng = np.random.default_rng(16)
    home, shifted = rng.normal(size=(30, 200)), rng.normal(size=(30, 200))
    assert measured(home, shifted, seed=4) == measured(home, shifted, seed=4)
    assert components(np.concatenate([home, shifted])).shape == (60, 16)
    gaps = standardised(np.array([[1.0, np.nan], [2.0, 3.0], [3.0, np.inf]]))
    assert np.isfinite(gaps).all()


def test_outputs_of_every_task_become_rows():
    rng = np.random.default_rng(17)
    maps = rng.dirichlet(np.ones(3), size=(5, 8, 8)).transpose(0, 3, 1, 2).astype(np.float32)
    rows, names = pooled_outputs("semantic_segmentation", {"label_map": maps.argmax(1).astype(np.uint8), "probabilities": maps}, ("x", "y"))
    assert rows.shape == (5, len(names))
    np.testing.assert_allclose(rows[:, names.index("mean of background")], maps[:, 0].mean(axis=(1, 2)), rtol=1e-5)
    scores = np.sort(rng.random((5, 20)).astype(np.float32))[:, ::-1]
    kinds = rng.integers(0, 2, (5, 20))
    rows, names = pooled_outputs("detection", {"boxes": np.zeros((5, 20, 4)), "scores": scores, "classes": kinds}, ("x", "y"))
    np.testing.assert_allclose(rows[:, names.index("expected number of y")], (scores * kinds).sum(axis=1), rtol=1e-5)
    rows, names = pooled_outputs("classification", {"probabilities": np.eye(3)}, ("x", "y", "z"))
    assert rows[:, names.index("largest probability")].tolist() == [1, 1, 1]
