"""The capacity model: Kubernetes' rules on the chart's values, and what comes of a load."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import capacity
import numpy as np
import pytest
from autoscaling import STEP, Autoscaler, Day, Site, replicas_for, simulate
from chart_models.models import TritonScaling
from waiting import patient

ROOT = Path(__file__).resolve().parent.parent.parent
SITE = Site(per_replica=50.0, running=8.0, start_seconds=60.0, places=64, queue=200)


def settings(**changes: object) -> TritonScaling:
    return capacity.scaling_of(None, [f"{name}={value}" for name, value in changes.items()])[0]


def constant(rate: float, minutes: float, **changes: object) -> Day:
    return simulate([rate, rate], minutes * 60.0, settings(**changes), SITE)


def test_a_steady_load_needs_its_rate_over_what_a_replica_may_answer() -> None:
    assert replicas_for(100, 50, 1.0) == 2
    assert replicas_for(101, 50, 1.0) == 3
    assert replicas_for(100, 50, 0.7) == 3
    assert replicas_for(0, 50) == 1


@pytest.mark.parametrize("mode", ["keda", "hpa-cpu", "hpa-queue"])
def test_nobody_is_lost_count_of(mode: str) -> None:
    day = simulate([0, 130, 20], 1800, settings(mode=mode), SITE)
    assert day.answered.sum() + day.refused.sum() + day.inside[-1] == pytest.approx(day.arrived.sum())
    assert day.inside.max() <= SITE.places + SITE.queue


@pytest.mark.parametrize("mode", ["keda", "hpa-cpu"])
def test_replicas_settle_where_the_load_is_carried(mode: str) -> None:
    day = constant(120, 40, mode=mode)
    late = slice(len(day.arrived) // 2, None)
    assert day.wanted[late].min() >= 3
    assert day.wanted[late].max() <= 4
    assert day.refused[late].sum() == 0
    assert np.ptp(day.wanted[late]) <= 1, "it does not swing"


def test_a_light_load_stays_with_the_fewest() -> None:
    assert set(constant(10, 20).wanted.tolist()) == {1}


def test_a_sudden_load_doubles_the_replicas_every_half_minute_and_they_come_when_they_have_started() -> None:
    day = constant(500, 5, maxReplicas=16, scaleUpSeconds=0)
    changes = [(step * STEP, int(day.wanted[step])) for step in np.flatnonzero(np.diff(day.wanted)) + 1]
    assert [day.wanted[0], *(replicas for _, replicas in changes[:2])] == [2, 4, 8]
    assert min(np.diff([0.0, *(at for at, _ in changes[:2])])) >= 30
    first = int(np.argmax(day.ready > 1)) * STEP
    assert first == pytest.approx(SITE.start_seconds, abs=1)
    assert day.refused.sum() > 0, "meanwhile the queue is full, and callers are told to come again"
    assert day.refused[-100:].sum() == 0


def test_a_load_that_falls_is_left_one_by_one_after_the_window() -> None:
    rates = [150] * 10 + [1] * 30
    day = simulate(rates, 2400, settings(), SITE)
    peak = int(day.wanted.max())
    falls = [(step * STEP, int(day.wanted[step] - day.wanted[step - 1])) for step in np.flatnonzero(np.diff(day.wanted) < 0) + 1]
    assert peak >= 3
    assert {change for _, change in falls} == {-1}
    assert min(np.diff([at for at, _ in falls])) >= 60
    assert falls[0][0] >= 600 + 240, "the window has to pass"
    assert day.wanted[-1] == 1


def test_from_zero_the_first_caller_waits_for_a_start_and_at_the_end_none_is_left() -> None:
    rates = [0, 0, 5, 5, 5, 0, 0, 0, 0, 0, 0, 0]
    day = simulate(rates, 3600, settings(minReplicas=0), SITE)
    assert day.wanted[0] == 0
    awake = int(np.argmax(day.wanted > 0))
    assert day.arrived[:awake].sum() > 0
    assert day.ready[awake + int(SITE.start_seconds / STEP) + 2] == 1
    assert day.refused.sum() > 0
    assert day.wanted[-1] == 0


def test_within_a_tenth_of_the_target_nothing_changes() -> None:
    scaler = Autoscaler(settings(mode="hpa-cpu", cpuPercent=70, scaleUpSeconds=0))
    for second in range(0, 600, 15):
        assert scaler.look(float(second), inside=0, waiting=0, needed=0, busy=0.76, queue_seconds=0) == 1
    assert scaler.look(615.0, inside=0, waiting=0, needed=0, busy=0.79, queue_seconds=0) == 2


def test_waiting_alone_would_be_seen_too_late() -> None:
    """Why the chart counts what runs, too: at 90 % busy nothing waits yet, and more replicas are wanted."""
    day = constant(45, 30)
    assert day.wanted[-1] == 2


def test_the_command_tells_what_a_preset_does(tmp_path: Path) -> None:
    picture, trace = tmp_path / "day.png", tmp_path / "day.csv"
    trace.write_text("rate\n" + "\n".join(map(str, [0, 40, 160, 60, 0])))
    preset = ROOT / "deploy/k8s/oteo/ci/production.yaml"
    words = ["--per-replica", "50", "--trace", trace, "--hours", "2", "--values", preset, "--price", "2", "--plot", picture]
    ran = subprocess.run(
        [sys.executable, str(ROOT / "tools/capacity.py"), *map(str, words)], capture_output=True, text=True, check=True, timeout=patient(60)
    )
    assert "keda, 0 to 8" in ran.stdout
    assert "cost of a thousand images" in ran.stdout
    assert picture.read_bytes().startswith(b"\x89PNG")
    wrong = subprocess.run(
        [sys.executable, str(ROOT / "tools/capacity.py"), "--per-replica", "50", "--set", "replicas=3"],
        capture_output=True,
        text=True,
        check=False,
        timeout=patient(20),
    )
    assert wrong.returncode != 0
    assert "triton.autoscaling has no 'replicas'" in wrong.stderr


def test_a_trace_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    for text in ("", "rate\n", "3\nmany\n", "1\n-2\n"):
        path.write_text(text)
        with pytest.raises(SystemExit):
            capacity.read_trace(path)
