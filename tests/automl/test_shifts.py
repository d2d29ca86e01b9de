"""Figures under simulated shifts, and what more images would bring about."""

from __future__ import annotations

import time
from types import SimpleNamespace

import numpy as np
import pytest

from oteo_automl.completing import _compare_shifts
from oteo_core.augmentation import refusal
from oteo_core.evaluation.data_curve import draw_share, fit_data_curve, measure_data_curve
from oteo_core.evaluation.shifts import SHIFTS, ShiftReport, ShiftResult, apply_shift, measure_shifts, shift_metrics
from oteo_core.packages import TrialRecord


def images(channels=3, dtype=np.uint8, count=24, side=24):
    values = np.random.default_rng(3).random((count, side, side, channels)).astype(np.float32) * 0.6 + 0.2
    return values if dtype == np.float32 else (values * 255).astype(np.uint8)


@pytest.mark.parametrize(("channels", "dtype"), [(1, np.uint8), (3, np.uint8), (5, np.float32), (3, np.float32)])
def test_every_shift_changes_values_and_nothing_else(channels, dtype):
    image = images(channels, dtype, 1)[0]
    before = image.copy()
    skipped = 0
    for shift in SHIFTS:
        if refusal(shift.policy(1).steps[0], image):
            skipped += 1
            continue
        mild, strong, again = (apply_shift(image, shift, strength, place=4) for strength in (1, 2, 2))
        assert mild.shape == strong.shape == image.shape
        assert mild.dtype == image.dtype
        assert np.array_equal(strong, again)
        far, farther = (float(np.abs(one.astype(np.float64) - image).mean()) for one in (mild, strong))
        assert 0 < far < farther, shift.name
    assert np.array_equal(image, before)
    assert skipped <= (0 if channels == 3 and dtype == np.uint8 else 4)


def test_a_shift_stays_in_place():
    image = np.full((40, 40, 1), 60, np.uint8)
    image[10:20, 25:35] = 200
    for shift in SHIFTS:
        if shift.transform in ("ColorShift", "StainJitter", "raise_saturation"):
            continue
        shifted = apply_shift(image, shift, 2)[:, :, 0].astype(np.float64)
        assert shifted[12:18, 27:33].mean() > shifted[25:, :20].mean() + 30, shift.name


def brightness(batch, _places):
    return [float(one.mean()) > 110 for one in batch]


def test_figures_fall_where_the_model_is_brittle_and_nowhere_else():
    report = measure_shifts(images(), brightness, lambda answers, places: float(np.mean(answers)), metric="accuracy")
    assert report.clean == 1.0
    values = {(result.name, result.strength): result.value for result in report.results}
    assert values["darker", 2] == 0.0
    assert values["brighter", 2] == values["JPEG", 1] == 1.0
    assert report.worst.value == 0.0
    assert 0.5 < report.mean < 1.0
    assert [metric.name for metric in shift_metrics(report)] == ["accuracy_under_shift", "accuracy_under_worst_shift"]
    grey = measure_shifts(images(1), brightness, lambda answers, places: float(np.mean(answers)), metric="accuracy")
    assert any(reason.startswith("stain") for reason in grey.left_out)


def test_answers_belong_to_their_places_and_subsets_are_fixed():
    seen = []
    stack = images(count=60)

    def predict(batch, places):
        return [int(place) for place in places]

    def score(answers, places):
        seen.append(tuple(answers))
        assert list(answers) == places.tolist()
        return 1.0

    assert measure_shifts(stack, predict, score, metric="accuracy", most=20, seed=5).sample_count == 20
    assert len(set(seen[1:])) == 1
    first = seen[-1]
    measure_shifts(stack, predict, score, metric="accuracy", most=20, seed=5)
    assert seen[-1] == first


def test_the_time_given_is_kept():
    now = [0.0]

    def predict(batch, places):
        now[0] += 0.1 * len(batch)
        return [0.0] * len(batch)

    report = measure_shifts(images(count=100), predict, lambda answers, places: 0.5, metric="accuracy", seconds=60.0, clock=lambda: now[0])
    assert now[0] <= 60.0
    assert report.results
    assert 12 <= report.sample_count < 40
    now[0] = 0.0
    none = measure_shifts(images(count=100), predict, lambda answers, places: 0.5, metric="accuracy", seconds=4.0, clock=lambda: now[0])
    assert none is None


def test_a_power_law_is_found_again_and_drawn_out():
    counts = [100, 200, 300, 400]
    curve = fit_data_curve(counts, [1 - (0.1 + 1.5 * n**-0.5) for n in counts], metric="auroc", candidate="forest", words="AUROC")
    assert curve.predicted == pytest.approx(1 - (0.1 + 1.5 * 800**-0.5), abs=0.003)
    assert curve.lower <= curve.predicted <= curve.upper
    assert "800 instead of 400" in curve.sentence
    losses = fit_data_curve(counts, [0.1 + 1.5 * n**-0.5 for n in counts], metric="log_loss", candidate="x", larger_is_better=False)
    assert losses.predicted == pytest.approx(0.1 + 1.5 * 800**-0.5, abs=0.003)


def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(2)
    counts = [50, 100, 150, 200] * 3
    held = said = 0
    for seed in range(60):
        truth = 0.05 + 1.2 * np.array([*counts, 400.0]) ** -0.4
        curve = fit_data_curve(counts, 1 - truth[:-1] + rng.normal(0, 0.008, len(counts)), metric="auroc", candidate="x", seed=seed)
        if curve.predicted is not None:
            said += 1
            held += curve.lower <= 1 - truth[-1] <= curve.upper
    assert said > 50
    assert held / said > 0.75


@pytest.mark.parametrize(
    ("counts", "scores", "said"),
    [
        ([100, 200], [0.5, 0.6], "too few"),
        ([100, 120, 140], [0.5, 0.55, 0.6], "too close"),
        ([50, 100, 150, 200], [0.6, 0.9, 0.62, 0.7], "scatter too much"),
        ([50, 100, 150, 200], [0.8, 0.79, 0.81, 0.8], "next to nothing"),
    ],
)
def test_nothing_is_promised_where_no_curve_is(counts, scores, said):
    curve = fit_data_curve(counts, scores, metric="auroc", candidate="x")
    assert curve.predicted is None
    assert curve.refusal
    assert said in curve.sentence


def test_shares_keep_groups_whole_and_classes_in_their_mix():
    labels = np.array([0] * 60 + [1] * 20)
    groups = [f"g{index // 4}" for index in range(80)]
    half, quarter = (draw_share(share, labels, groups, seed=1) for share in (0.5, 0.25))
    assert set(quarter) <= set(half)
    for rows in (half, quarter):
        for group in {groups[row] for row in rows}:
            assert sum(groups[row] == group for row in rows) == 4
    assert 28 <= len(half) <= 44
    assert 0.15 <= labels[half].mean() <= 0.35
    assert set(labels[draw_share(0.01, labels, groups)]) == {0, 1}


def test_refitting_stops_when_the_time_is_up():
    now, fits = [0.0], []

    def fit(rows):
        now[0] += 10.0
        fits.append(len(rows))
        return 1 - len(rows) ** -0.5

    curve = measure_data_curve(fit, np.zeros(200), None, metric="auroc", candidate="x", seconds=35.0, clock=lambda: now[0])
    assert fits == [200, 150, 100, 50]
    assert curve.predicted == pytest.approx(1 - 400**-0.5, abs=0.01)


def test_rivals_are_compared_under_the_same_shifts_of_the_same_images_alone():
    def report(value, *, names=("darker", "JPEG"), count=24):
        results = tuple(ShiftResult(name, strength, "", value) for name in names for strength in (1, 2))
        return ShiftReport("accuracy", 0.9, results, count)

    def figures(measured):
        trials = [TrialRecord(id=name, candidate=name) for name in ("best", "second", "baseline", "other")]
        package = SimpleNamespace(trials=trials, details={"winner_trial": "best"})
        asked = []

        def measuring(found):
            def measure(seconds):
                asked.append(seconds)
                return found

            return measure

        draft = SimpleNamespace(package=package, rival_shifts={name: measuring(found) for name, found in measured.items()})
        _compare_shifts(draft, report(0.8), time.time() + 100.0)
        assert len(asked) == len(measured)
        assert all(0 < seconds < 100.0 for seconds in asked)
        return {trial.id: {metric.name: metric.value for metric in trial.metrics} for trial in trials}

    found = figures({"second": report(0.7), "baseline": report(0.6)})
    assert {name: one.get("accuracy_under_shift") for name, one in found.items()} == {
        "best": pytest.approx(0.8), "second": pytest.approx(0.7), "baseline": pytest.approx(0.6), "other": None,
    }  # fmt: skip
    # Without time for all of it, with fewer images or other shifts there is nothing to set beside the winner's figure.
    found = figures({"second": None, "baseline": report(0.6, names=("darker",)), "other": report(0.6, count=12)})
    assert not any(found.values())
