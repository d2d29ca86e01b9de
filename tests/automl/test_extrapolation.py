"""Learning curves are continued with honest uncertainty, and only what has no chance is stopped."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from oteo_automl.search.extrapolation import forecast, hopeless
from oteo_automl.search.result import EpochRecord


def _power(epochs: NDArray[np.float64], level: float, size: float, power: float) -> NDArray[np.float64]:
    return level + size * epochs**-power


def _records(values: NDArray[np.float64] | list[float]) -> list[EpochRecord]:
    return [EpochRecord(place + 1, 1.0, float(value), 1.0 - float(value), 1e-3, 1.0) for place, value in enumerate(values)]


def _drawn(seed: int, count: int = 60) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    epochs = np.arange(1, count + 1, dtype=np.float64)
    level, size = rng.uniform(0.05, 0.6), rng.uniform(0.3, 1.5)
    clean = (
        _power(epochs, level, size, rng.uniform(0.3, 1.5)) if seed % 2 else level + size * np.exp(-rng.uniform(0.03, 0.3) * (epochs - 1))
    )
    return np.asarray(clean + rng.normal(0, 0.01 * size, count))


def test_the_end_lies_in_the_interval_as_often_as_it_should() -> None:
    inside = 0
    for seed in range(100):
        curve = _drawn(seed)
        found = forecast(range(1, 16), curve[:15].tolist(), 60)
        assert found is not None
        inside += found.quantile(0.05) <= curve[-1] <= found.quantile(0.95)
    assert 80 <= inside <= 100


def test_the_more_is_seen_the_closer_is_the_forecast() -> None:
    errors = {seen: [] for seen in (5, 15, 40)}
    for seed in range(40):
        curve = _drawn(seed)
        for seen, found in errors.items():
            predicted = forecast(range(1, seen + 1), curve[:seen].tolist(), 60)
            assert predicted is not None
            found.append(abs(predicted.mean - curve[-1]))
    means = [float(np.mean(found)) for found in errors.values()]
    assert means[0] > means[1] > means[2]


def test_a_hopeless_trial_is_stopped_with_a_reason_and_a_good_one_is_not() -> None:
    epochs = np.arange(1, 61, dtype=np.float64)
    best = _records(_power(epochs, 0.1, 0.9, 0.8))
    stuck = _records(_power(epochs[:20], 0.65, 0.35, 1.0))
    reason = hopeless(stuck, 60, [best], by_score=False)
    assert reason.startswith("stopped after 20 of 60 epochs")
    assert "%" in reason
    better = _records(_power(epochs[:20], 0.05, 0.95, 0.8))
    assert hopeless(better, 60, [best], by_score=False) == ""
    # What ends just as well is no reason to stop either.
    assert hopeless(best[:20], 60, [best], by_score=False) == ""


def test_few_trials_that_would_win_are_stopped() -> None:
    wrong = stopped = 0
    for seed in range(0, 80, 2):
        first, second = _drawn(seed), _drawn(seed + 1)
        reason = hopeless(_records(second[:12]), 60, [_records(first)], by_score=False)
        stopped += bool(reason)
        wrong += bool(reason) and second[-1] < first[-1]
    assert stopped >= 5
    assert wrong <= 1


def test_the_only_network_is_never_stopped() -> None:
    flat = _records([0.7] * 20)
    assert hopeless(flat, 60, [], by_score=False) == ""
    # Nor by one that has not come as far.
    assert hopeless(flat, 60, [_records([0.7, 0.3, 0.1, 0.05])], by_score=False) == ""


def test_too_few_or_missing_figures_say_nothing() -> None:
    best = _records([0.1] * 30)
    assert hopeless(_records([0.9, 0.9, 0.9]), 60, [best], by_score=False) == ""
    assert hopeless(_records([math.nan] * 20), 60, [best], by_score=False) == ""
    assert forecast([1, 2, 3], [1.0, 0.9, 0.8], 10) is None


def test_a_score_and_a_loss_must_both_be_hopeless_where_a_score_is_asked_for() -> None:
    best = [EpochRecord(place + 1, 1.0, 0.2, 0.9, 1e-3, 1.0) for place in range(40)]
    # Overconfident, and right: a poor loss, a good accuracy.
    sure = [EpochRecord(place + 1, 1.0, 0.8, min(0.95, 0.5 + 0.03 * place), 1e-3, 1.0) for place in range(14)]
    assert hopeless(sure, 60, [best], by_score=False)
    assert hopeless(sure, 60, [best], by_score=True) == ""


@pytest.mark.parametrize(
    "values", [[0.5] * 10, [1e-9] * 10, [1e6 - place for place in range(10)], [0.2 + 0.05 * place for place in range(10)]]
)
def test_strange_curves_have_finite_forecasts(values: list[float]) -> None:
    found = forecast(range(1, 11), values, 100)
    assert found is not None
    assert math.isfinite(found.mean)
    assert 0.0 <= found.below(values[-1]) <= 1.0
