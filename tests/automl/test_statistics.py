"""Tests between candidates: published values, false alarms where nothing differs, and what the sentences promise."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.anova import AnovaRM
from statsmodels.stats.multitest import multipletests

from oteo_core.evaluation.statistics import ScoreTable, corrected_t, fold_table, holm, judge, quade, repeated_anova


def table(scores, **options):
    return ScoreTable(tuple("abcdefgh"[: len(scores)]), np.asarray(scores, dtype=np.float64), "auroc", **options)


def test_quade_gives_the_textbook_value():
    # Conover 1999, p. 375: sales of five brands of hand lotion in seven stores; R's quade.test gives the same.
    sales = np.array(
        [
            [5, 4, 7, 10, 12],
            [1, 3, 1, 0, 2],
            [16, 12, 22, 22, 35],
            [5, 4, 3, 5, 4],
            [10, 9, 7, 13, 10],
            [19, 18, 28, 37, 58],
            [10, 7, 6, 8, 7],
        ],
        dtype=np.float64,
    )
    statistic, p = quade(sales.T)
    assert statistic == pytest.approx(3.8293, abs=1e-4)
    assert p == pytest.approx(0.01519, abs=1e-5)


def test_repeated_measures_agree_with_statsmodels_and_sphericity_only_makes_them_more_careful():
    scores = np.random.default_rng(3).normal(size=(4, 9)) + np.arange(4)[:, None] * 0.5
    rows = [(c, f, scores[c, f]) for c in range(4) for f in range(9)]
    expected = AnovaRM(pd.DataFrame(rows, columns=["candidate", "fold", "score"]), "score", "fold", within=["candidate"]).fit().anova_table
    statistic, p, share = repeated_anova(scores)
    assert statistic == pytest.approx(float(expected["F Value"].iloc[0]))
    assert p >= float(expected["Pr > F"].iloc[0])
    assert 0 < share < 1
    # Of two candidates it is the paired t-test.
    t = stats.ttest_rel(scores[0], scores[1])
    assert repeated_anova(scores[:2])[:2] == pytest.approx((t.statistic**2, t.pvalue))


def test_corrected_t_by_hand():
    # Differences 1, 2, 3, 2, 2: mean 2, variance .5; (1/5 + 1/4) * .5 = .225, t = 2 / .4743 = 4.2164 with 4 degrees of freedom.
    t, p, error = corrected_t(np.array([1.0, 2.0, 3.0, 2.0, 2.0]), 0.25)
    assert t == pytest.approx(4.2164, abs=1e-4)
    assert error == pytest.approx(np.sqrt(0.225))
    assert p == pytest.approx(float(2 * stats.t.sf(4.21637, 4)), rel=1e-4)
    assert corrected_t(np.array([1.0, 2.0, 4.0]), 0.0)[:2] == pytest.approx(tuple(stats.ttest_1samp([1, 2, 4], 0)))
    assert corrected_t(np.zeros(5), 0.25)[1] == 1.0


def test_holm_is_statsmodels_holm():
    p_values = [0.04, 0.001, 0.5, 0.012, 0.04]
    assert holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1].tolist())


def test_only_the_corrected_test_keeps_its_promise_on_overlapping_training_sets():
    """Two learners that are equally good on average: nearest mean on one feature or on another, ten random splits of 60 images."""
    rng = np.random.default_rng(5)
    runs, images, resamples, held_out = 250, 60, 10, 12
    alarms = {0.0: 0, held_out / (images - held_out): 0}
    for _ in range(runs):
        labels = np.arange(images) % 2
        features = rng.normal(size=(images, 2)) + 0.8 * labels[:, None]
        differences = np.empty(resamples)
        for resample in range(resamples):
            order = rng.permutation(images)
            test, train = order[:held_out], order[held_out:]
            cuts = (features[train][labels[train] == 1].mean(axis=0) + features[train][labels[train] == 0].mean(axis=0)) / 2
            right = ((features[test] > cuts) == labels[test][:, None]).mean(axis=0)
            differences[resample] = right[0] - right[1]
        for share in alarms:
            alarms[share] += corrected_t(differences, share)[1] < 0.05
    plain, corrected = (count / runs for count in alarms.values())
    assert plain > 0.15
    assert corrected < 0.09


@pytest.mark.parametrize("draw", ["normal", "standard_cauchy"])
def test_few_false_alarms_in_a_family_of_candidates_that_are_alike(draw):
    rng = np.random.default_rng(11)
    runs = 150
    alarms = sum(min(p.adjusted_p for p in judge(table(getattr(rng, draw)(size=(3, 12)))).pairs) < 0.05 for _ in range(runs))
    assert alarms / runs < 0.1


def test_the_data_decide_between_parametric_and_rank_tests():
    rng = np.random.default_rng(1)
    normal = judge(table(rng.normal(size=(3, 20))))
    assert normal.omnibus.test == "repeated-measures analysis of variance"
    assert normal.pairs[0].test == "paired t-test"
    skewed = np.exp(rng.normal(size=(3, 20)) * 3)
    assert judge(table(skewed)).omnibus.test == "Quade"
    assert judge(table(np.exp(rng.normal(size=(6, 20)) * 3))).omnibus.test == "Friedman"
    assert "Wilcoxon" in judge(table([skewed[0], np.zeros(20)])).pairs[0].test
    assert judge(table(skewed, shared=False)).omnibus.test == "Kruskal-Wallis"
    overlapping = judge(table(rng.normal(size=(3, 20)), test_share=0.25))
    assert overlapping.pairs[0].test == "corrected resampled t-test"
    assert not overlapping.omnibus.trusted
    assert "Nadeau and Bengio" in overlapping.reason


def test_sentences_say_what_was_shown_and_what_was_not():
    folds = np.random.default_rng(2).normal(0, 0.01, size=10)
    jitter = np.random.default_rng(4).normal(0, 0.004, size=(3, 10))
    scores = np.array([[0.9], [0.899], [0.7]]) + folds + jitter
    said = judge(ScoreTable(("forest", "network", "logistic"), scores, "auroc", test_share=1 / 9), baseline="logistic", words="AUROC")
    assert said.names[2] == "logistic"
    assert "is not shown to be better than the runner-up" in said.sentences[0]
    assert "is better than the cheap baseline, logistic" in said.sentences[1]
    assert "mean AUROC 0.899 and 0.698 over 10 folds" in said.sentences[1]
    assert "p < .001" in said.sentences[1]
    assert "(large)" in said.sentences[1]
    assert not said.warning
    losses = judge(ScoreTable(("x", "y"), np.array([[0.5] * 8, [0.1] * 8]) + folds[:8], "log_loss", larger_is_better=False), baseline="y")
    assert losses.names == ("y", "x")
    assert any("The cheap baseline, y, is the best of them by this figure" in sentence for sentence in losses.sentences)


def test_few_folds_are_said_to_be_few():
    assert judge(table([[1, 2], [3, 4]])).pairs == ()
    assert "too few" in judge(table([[1, 2], [3, 4]])).warning
    assert "Only 5 folds" in judge(table(np.random.default_rng(0).normal(size=(2, 5)))).warning


@pytest.mark.parametrize("scores", [np.zeros((3, 5)), np.eye(6, 8), np.repeat([[1.0], [0.0]], 6, axis=1)])
def test_scores_without_spread_are_judged_too(scores):
    for options in ({}, {"shared": False}, {"test_share": 0.2}):
        said = judge(table(scores, **options))
        assert all(0 <= pair.p_value <= pair.adjusted_p <= 1 and np.isfinite(pair.effect) for pair in said.pairs)
        assert "nan" not in " ".join(said.sentences)


def test_a_table_takes_the_folds_that_all_have():
    made = fold_table({"a": {0: 0.5, 1: 0.6, 2: 0.7}, "b": {0: 0.4, 1: 0.5, 2: 0.6}, "late": {0: 0.9}}, "auroc")
    assert made.names == ("a", "b")
    assert made.test_share == 0.5
    assert fold_table({"a": {0: 0.5}, "b": {0: 0.4}}, "auroc") is None
    with pytest.raises(ValueError, match="names must differ"):
        ScoreTable(("a", "a"), np.zeros((2, 3)), "auroc")
