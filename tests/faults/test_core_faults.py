"""kill -9 of what a job stands on, with a real Ray: the driver, a worker, the supervisor, the head, the service itself.

Each on one service with SQLite, and on two replicas that share a PostgreSQL.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest
from engines import TESTS, RayHead
from toy_service import Toy, alive, wait_gone
from waiting import patient, wait_for

from oteo_core.jobs import RayJobRunner
from oteo_core.settings import CoreSettings


def finished_once(toy: Toy, steps: int, *, but: int = 1) -> None:
    """Check that no finished step was done again; at most `but` had ended without its checkpoint being written."""
    ends = Counter(line.split()[1] for line in toy.lines("end"))
    assert set(ends) == {str(number) for number in range(steps)}
    assert sum(count - 1 for count in ends.values()) <= but, toy.lines()


def published(toy: Toy, target: str, steps: int) -> None:
    """Check that all is published, and nothing else is there."""
    assert sorted(toy.artifacts.children(target)) == ["dataset.json", "parts"]
    assert toy.artifacts.children("datasets") == [target.split("/")[1]]
    assert toy.artifacts.read_bytes(f"{target}/dataset.json") == f'{{"total": {sum(n * n for n in range(steps))}}}'.encode()


def test_kill_of_the_driver(toy: Toy) -> None:
    name = toy.start("Count", steps=6, seconds=0.6, tasks=True, target="datasets/driver")
    driver = toy.driver()
    toy.wait_line("begin 3")
    os.kill(driver, signal.SIGKILL)
    assert toy.value(name)["total"] == 55
    assert toy.progress(name).attempt == 2
    finished_once(toy, 6)
    published(toy, "datasets/driver", 6)


def test_kill_of_a_worker(toy: Toy) -> None:
    name = toy.start("Count", steps=5, seconds=1.0, tasks=True, target="datasets/worker")
    worker = int(toy.wait_line("begin 2")[2])
    time.sleep(0.3)
    os.kill(worker, signal.SIGKILL)
    assert toy.value(name)["total"] == 30
    # Ray runs the task again; the job does not even notice.
    assert toy.progress(name).attempt == 1
    finished_once(toy, 5)


def test_kill_of_the_supervisor_leaves_no_two_jobs(toy: Toy) -> None:
    """Ray calls the job failed while its driver goes on as an orphan, which must give way to the next attempt."""
    name = toy.start("Count", steps=8, seconds=0.8, tasks=True, target="datasets/supervisor")
    driver = toy.driver()
    toy.wait_line("begin 1")
    supervisor = psutil.Process(driver).parent()
    while supervisor is not None and "supervisor" not in " ".join(supervisor.cmdline()).lower():
        supervisor = supervisor.parent()
    assert supervisor is not None
    supervisor.kill()
    assert toy.value(name)["total"] == 140
    assert not alive(driver)
    assert toy.progress(name).attempt <= 2
    finished_once(toy, 8)
    published(toy, "datasets/supervisor", 8)


@pytest.mark.slow
@pytest.mark.parametrize("away", [0.0, 8.0], ids=["at once", "after a while"])
def test_kill_of_the_head(toy: Toy, mortal_head: RayHead, away: float) -> None:
    name = toy.start("Count", steps=8, seconds=0.7, tasks=True, target="datasets/head")
    driver = toy.driver()
    toy.wait_line("begin 2")
    mortal_head.kill()
    time.sleep(away)
    # Ray's absence is no failure.
    assert not toy.get(name).done
    mortal_head.start()
    assert toy.value(name)["total"] == 140
    wait_gone(driver, 10.0)
    finished_once(toy, 8)
    published(toy, "datasets/head", 8)


def test_an_operation_begun_while_ray_is_away_runs_when_it_is_back(toy: Toy, mortal_head: RayHead) -> None:
    mortal_head.kill()
    begin = time.monotonic()
    name = toy.start("Count", steps=2, seconds=0.1)
    assert time.monotonic() - begin < 5.0
    gone = toy.start("Count", steps=2, seconds=0.1, request_id="other")
    time.sleep(3.0)
    assert not toy.get(name).done
    toy.cancel(gone)
    mortal_head.start()
    assert toy.value(name)["total"] == 1
    assert toy.wait(gone, 15.0).error.code == 1
    assert toy.files(gone) == []


def test_cancelling_while_ray_is_away_stops_the_orphan(toy: Toy, mortal_head: RayHead) -> None:
    name = toy.start("Stubborn")
    driver = toy.driver()
    mortal_head.kill()
    try:
        toy.cancel(name)
        wait_gone(driver, 5.0)
        assert toy.wait(name, 15.0).error.code == 1
        assert toy.files(name) == []
    finally:
        mortal_head.start()


def test_a_dead_job_that_ray_calls_running_is_started_again(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a restart of a head that keeps its records on disk: RUNNING for ever, of a process that is gone."""
    name = toy.start("Count", steps=5, seconds=0.4, tasks=True)
    driver = toy.driver()
    toy.wait_line("begin 2")
    # A frozen process is as silent as a dead one, and Ray cannot tell.
    os.kill(driver, signal.SIGSTOP)
    toy.give_up_after(patient(1.5))
    assert toy.value(name)["total"] == 30
    assert toy.progress(name).attempt == 2
    wait_gone(driver, 15.0)
    finished_once(toy, 5)


def start_service(settings: CoreSettings, head: RayHead, log: Path) -> subprocess.Popen[bytes]:
    """Start the toy service as a process."""
    environment = {
        **os.environ,
        "OTEO_HOME": str(settings.home),
        "OTEO_DATABASE_URL": settings.database_url,
        "OTEO_JOB_PYTHON": sys.executable,
        "OTEO_RECONCILE_SECONDS": "0.25",
        "PYTHONPATH": str(TESTS),
    }
    command = [sys.executable, "-m", "toy_server", head.address, str(head.token_path), "the-request", "8", "0.6"]
    with log.open("ab") as file:
        return subprocess.Popen(command, env=environment, stdout=file, stderr=subprocess.STDOUT)


def test_kill_of_the_service_at_any_time(toy_settings: CoreSettings, mortal_head: RayHead, tmp_path: Path) -> None:
    """Killed again and again, from its first moments on: one operation, one job at a time, one result."""
    watcher = Toy(toy_settings, RayJobRunner(mortal_head.address, mortal_head.token_path), reconcile=False)
    log = tmp_path / "service.log"
    service = start_service(toy_settings, mortal_head, log)
    try:
        for delay in (0.0, 0.02, 0.5, 1.5):
            wait_for(lambda: watcher.store.page("toy", size=10), 30, said=log.read_text, pause=0.01)
            time.sleep(delay)
            service.kill()
            service.wait()
            service = start_service(toy_settings, mortal_head, log)
        rows = watcher.store.page("toy", size=10)
        assert len(rows) == 1
        assert watcher.value(f"operations/{rows[0].id}")["total"] == 140
        assert watcher.progress(f"operations/{rows[0].id}").attempt == 1
        finished_once(watcher, 8, but=0)
        published(watcher, "datasets/served", 8)
    finally:
        service.kill()
        service.wait()
        watcher.close()


def test_two_replicas_share_the_work(toy_settings: CoreSettings, mortal_head: RayHead) -> None:
    one = Toy(toy_settings, RayJobRunner(mortal_head.address, mortal_head.token_path))
    two = Toy(toy_settings, RayJobRunner(mortal_head.address, mortal_head.token_path))
    try:
        names = [one.start("Count", steps=2, seconds=0.3, request_id=f"r{number}") for number in range(3)]
        assert [two.start("Count", steps=2, seconds=0.3, request_id=f"r{number}") for number in range(3)] == names
        one.wait_line("attempt")
        # The first one falls silent without letting go of its leases.
        one.manager.reconciler.once = lambda: None  # type: ignore[method-assign]
        for name in names:
            assert two.value(name)["total"] == 1
            assert two.progress(name).attempt == 1
        # Either may be asked to cancel what the other began.
        other = two.start("Stubborn")
        two.wait_line("attempt 1")
        one.manager.cancel(other)
        assert two.wait(other, 6.0).error.code == 1
    finally:
        one.close()
        two.close()
