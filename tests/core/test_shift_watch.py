"""The watch's own mathematics: distances against SciPy, what correlated images are worth, false alarms, delay, the kind, and the alarm's memory."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from oteo_core.packages import ReferenceStatistics, image_statistics, statistic_names
from oteo_core.packages.answers import ClassMap, Detections, Instances
from oteo_core.packages.presence import classes_there
from oteo_core.packages.reference_sample import ReferenceSample
from oteo_core.shift.alarm import CALM_LOOKS, Alarm, level_of
from oteo_core.shift.home import GRAIN, Home, distribution, in_steps
from oteo_core.shift.independence import effective_number
from oteo_core.shift.looking import BOTH, LOOKED_AT, LOOKS, NONE, SHARES, WINDOWS, Look, distance_p, distances, look, share_p

COLUMNS = [f"figure {number}" for number in range(6)]


def home_of(rng: np.random.Generator, count: int = 400, classes: bool = False) -> Home:
    truths = rng.random((count, 1)) < 0.3 if classes else None
    values = rng.normal(size=(count, 6))
    if truths is not None:
        values[:, 0] += 3.0 * truths[:, 0]
        both = np.concatenate([truths, ~truths], axis=1)
        return Home.of_sample(COLUMNS, values, classes=("ill", "well"), truths=both, answers=both)
    return Home.of_sample(COLUMNS, values)


def test_distances_are_those_of_scipy_ties_included() -> None:
    rng = np.random.default_rng(0)
    ours, theirs = rng.integers(0, 9, (70, 3)).astype(float), rng.integers(1, 11, (40, 3)).astype(float)
    # Whole numbers of steps, so that nothing is rounded.
    found = distances(distribution(in_steps(ours * GRAIN)), distribution(in_steps(theirs * GRAIN)))
    assert found == pytest.approx([stats.ks_2samp(ours[:, k], theirs[:, k]).statistic for k in range(3)])
    weighted = distribution(in_steps(ours * GRAIN), np.r_[np.full(35, 2 / 70), np.zeros(35)])
    half = distances(weighted, distribution(in_steps(theirs * GRAIN)))
    assert half == pytest.approx([stats.ks_2samp(ours[:35, k], theirs[:, k]).statistic for k in range(3)])


def test_p_values_are_near_scipys_and_never_much_below() -> None:
    apart = np.array([0.1, 0.2, 0.4])
    exact = [stats.ks_2samp(np.arange(300) / 300, np.arange(60) / 60 + shift, method="exact").pvalue for shift in apart]
    ours = distance_p(apart, 300, 60)
    assert (ours >= 0.9 * np.array(exact)).all()
    assert (ours <= 3 * np.array(exact) + 0.01).all()


def test_shares_are_tested_as_fisher_did() -> None:
    found = share_p(np.array([0.3, 0.5, 0.0]), 100, np.array([0.6, 0.5, 1.0]), 50)
    of = stats.hypergeom(150, 60, 50)
    assert found[0] == pytest.approx(2 * of.sf(29))
    assert found[0] == pytest.approx(stats.fisher_exact([[30, 70], [30, 20]]).pvalue, rel=1.0)
    assert found[1] > 0.9
    assert found[2] < 1e-30


def test_independent_images_are_worth_their_number_and_runs_of_one_patient_less() -> None:
    rng = np.random.default_rng(1)
    alone = [effective_number(rng.normal(size=(256, 6))) for _ in range(20)]
    assert np.mean(alone) > 190
    runs = [effective_number(np.repeat(rng.normal(size=(32, 6)), 8, axis=0) + 0.1 * rng.normal(size=(256, 6))) for _ in range(20)]
    assert 15 < np.mean(runs) < 60
    assert effective_number(np.zeros((100, 6))) == 100


def test_a_group_counts_as_one_however_many_images_it_has() -> None:
    values = np.array([[0.0], [0.0], [0.0], [6.0]])
    home = Home.of_sample(["figure"], values, ["a", "a", "a", "b"])
    assert home.size == 2
    assert home.centre == pytest.approx([3.0])
    assert Home.of_sample(["figure"], values, ["", "", "", ""]).size == 4


def watched(home: Home, rows: np.ndarray, answers: np.ndarray | None = None, every: int = 16) -> tuple[int, Look | None]:
    """Give the image at which the alarm went on (-1: never) and the look that did it."""
    alarm = Alarm()
    for end in range(every, len(rows) + 1, every):
        begin = max(0, end - LOOKED_AT)
        level = level_of(every, 0.01)
        found = look(home, rows[begin:end], None if answers is None else answers[begin:end], level)
        if found is not None and (alarm := alarm.after(found, level, 0.15, end)).on:
            return end, found
    return -1, None


def test_a_day_without_shift_raises_no_alarm() -> None:
    rang = 0
    for seed in range(12):
        rng = np.random.default_rng([seed, 2])
        rang += watched(home_of(rng), rng.normal(size=(1600, 6)))[0] >= 0
    # 12 streams of 1600 images at 1 % for 10,000: 0.019 false alarms are expected.
    assert rang == 0


def test_a_shift_is_found_the_sooner_the_greater_it_is() -> None:
    rng = np.random.default_rng(3)
    home = home_of(rng)
    before = rng.normal(size=(320, 6))
    ends = []
    for size in (3.0, 1.0, 0.7):
        shifted = rng.normal(size=(800, 6)) + np.array([size, 0, 0, 0, 0, 0])
        end, found = watched(home, np.concatenate([before, shifted]))
        assert found is not None
        assert found.kind == LOOKS
        assert found.where == "figure 0"
        assert found.moved > 0
        ends.append(end - 320)
    assert 0 < ends[0] <= 48
    assert ends[0] <= ends[1] <= ends[2] <= 600


def test_nothing_is_said_of_fewer_images_than_the_shortest_window() -> None:
    rng = np.random.default_rng(4)
    assert look(home_of(rng), rng.normal(size=(WINDOWS[0] - 1, 6)), None, 0.05) is None


def test_other_shares_are_told_from_other_looks() -> None:
    rng = np.random.default_rng(5)
    home = home_of(rng, classes=True)

    def stream(ill: float, moved: float) -> tuple[np.ndarray, np.ndarray]:
        sick = rng.random((512, 1)) < ill
        rows = rng.normal(size=(512, 6)) + moved
        rows[:, 0] += 3.0 * sick[:, 0]
        return rows, np.concatenate([sick, ~sick], axis=1)

    level = 1e-5
    rows, answers = stream(0.8, 0.0)
    found = look(home, rows, answers, level)
    assert found is not None
    assert found.p_value < level
    assert found.kind == SHARES
    rows, answers = stream(0.3, 1.0)
    found = look(home, rows, answers, level)
    assert found is not None
    assert (found.kind, found.of_class) == (LOOKS, False)
    rows, answers = stream(0.3, 0.0)
    found = look(home, rows, answers, level)
    assert found is not None
    assert found.kind == NONE
    # Without the training images' classes the two cannot be told apart.
    blind = Home.of_sample(COLUMNS, home.values, classes=("ill", "well"), answers=home.answers)
    rows, answers = stream(0.9, 0.0)
    found = look(blind, rows, answers, level)
    assert found is not None
    assert found.kind == BOTH


def test_what_never_varied_may_move_by_nothing_that_matters() -> None:
    rng = np.random.default_rng(6)
    values = rng.normal(size=(300, 2))
    values[:, 1] = 0.0
    home = Home.of_sample(["figure", "black pixels"], values)
    rows = rng.normal(size=(512, 2))
    rows[:, 1] = 1.0 / 65536
    found = look(home, rows, None, 1e-5)
    assert found is not None
    assert found.kind == NONE
    rows[:, 1] = 0.05
    found = look(home, rows, None, 1e-5)
    assert found is not None
    assert (found.kind, found.where) == (LOOKS, "black pixels")


def test_packages_without_a_sample_are_watched_by_distance() -> None:
    rng = np.random.default_rng(7)
    images = rng.integers(60, 180, (80, 24, 24, 3), dtype=np.uint8)
    rows = np.stack([image_statistics(image) for image in images])
    home = Home.of_summary(ReferenceStatistics.fit(rows[:40], statistic_names(3)))
    usual = look(home, rows[40:], None, 1e-4)
    assert usual is not None
    assert usual.kind == NONE
    dark = np.stack([image_statistics(image // 2) for image in images[:40]])
    found = look(home, dark, None, 1e-4)
    assert found is not None
    assert (found.kind, found.where) == (LOOKS, "distance")


def quiet(p_value: float, effect: float = 0.5) -> Look:
    return Look(128, 120.0, p_value, effect, 0.3, NONE, "figure 0", 0.0)


def test_an_alarm_goes_on_at_once_and_off_after_some_calm() -> None:
    level = level_of(16, 0.01)
    assert level == pytest.approx(1.6e-5)
    assert level_of(10**9, 0.01) < 0.001
    alarm = Alarm().after(quiet(1e-4), level, 0.15, 10.0)
    assert not alarm.on
    assert not Alarm().after(quiet(1e-9, effect=0.1), level, 0.15, 10.0).on
    alarm = alarm.after(quiet(1e-9), level, 0.15, 20.0)
    assert (alarm.on, alarm.since) == (True, 20.0)
    for number in range(CALM_LOOKS):
        assert alarm.on
        alarm = alarm.after(quiet(0.5), level, 0.15, 30.0 + number)
        if number == 0:
            # What is not sure and not calm either begins the count anew, and rings on.
            alarm = alarm.after(quiet(0.01), level, 0.15, 31.0).after(quiet(0.5), level, 0.15, 32.0)
    assert not alarm.on
    assert alarm.since == 0


def test_a_sample_comes_back_from_its_file_without_names_of_groups() -> None:
    rng = np.random.default_rng(8)
    statistics, truths = rng.normal(size=(5, 13)), np.eye(5, 3, dtype=bool)
    sample = ReferenceSample.of(
        statistic_names(3), statistics, ["Doe^Jane", "Doe^Jane", "", "x", ""], truths, truths[:4], ["a", "a", "", ""]
    )
    data = sample.to_npz()
    assert b"Doe" not in data
    found = ReferenceSample.from_npz(data)
    assert found.names == tuple(statistic_names(3))
    assert found.statistics == pytest.approx(statistics, abs=1e-6)
    assert found.groups.tolist() == [0, 0, 1, 2, 3]
    assert found.truths is not None
    assert (found.truths == truths).all()
    assert found.answer_groups is not None
    assert found.answer_groups.tolist() == [0, 0, 1, 2]
    with pytest.raises(ValueError, match="cannot be read"):
        ReferenceSample.from_npz(data[:40])


def test_classes_of_an_answer_are_told_by_task() -> None:
    boxes = np.zeros((2, 4), dtype=np.float32)
    found = Detections(boxes, np.array([0.9, 0.2], np.float32), np.array([2, 0]))
    assert classes_there(found, 3, {"score_threshold": 0.5}).tolist() == [False, False, True]
    assert classes_there(found, 3, {"score_threshold": [0.1, 0.5, 0.95]}).tolist() == [True, False, False]
    plane = np.array([[0, 2], [255, 2]], dtype=np.uint8)
    assert classes_there(ClassMap(plane), 2, {}).tolist() == [False, True]
    objects = Instances(np.ones((2, 2), np.int32), np.array([1]), np.ones(1, np.float32))
    assert classes_there(objects, 2, {}).tolist() == [False, True]
