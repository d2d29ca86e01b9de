"""A whole training whose time for one image is limited: what is chosen keeps it where anything does, and the front is shown."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from training_runs import Home, inline_home, stripes

from oteo_automl.search.ensemble import front


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """Give a home of its own; pieces run in this process."""
    return inline_home(tmp_path, monkeypatch)


def _hard(kind: int, rng: np.random.Generator) -> np.ndarray:
    # One in four is drawn as the other kind: nothing can be right always.
    return stripes(kind if rng.random() > 0.25 else 1 - kind, rng)


@pytest.mark.slow
def test_a_limit_that_no_model_keeps_is_answered_with_the_quickest(home: Home) -> None:
    dataset = home.dataset("hard", {"lying": (20, 10, 4), "standing": (20, 10, 4)}, picture=_hard)
    response = home.train(dataset, 40, candidates=["classical-logistic", "classical-trees", "blend"], max_latency={"nanos": 1000})
    trials = home.package(response).trials
    assert "No model keeps the 0.001 ms that were asked for" in response.plan.summary
    judged = [trial for trial in trials if trial.objective is not None]
    assert all(trial.latency > 0 for trial in judged)
    assert response.model.candidate == min(judged, key=lambda trial: trial.latency).candidate
    # A mixture takes the time of its parts: none was made.
    assert "blend" not in {trial.candidate for trial in trials}
    points = [(float(trial.objective or 0.0), trial.latency) for trial in judged]
    assert [trial.on_front for trial in judged] == front(points)
    listed = trials[0].to_proto("hard")
    assert listed.latency.ToTimedelta().total_seconds() == pytest.approx(trials[0].latency, abs=1e-5)
