"""Every job runner behaves alike: plain processes and Ray."""

from __future__ import annotations

import sys
import time
import uuid
from pathlib import Path

import pytest
from toy_service import alive, wait_gone
from waiting import patient, wait_for

from oteo_core.errors import Unavailable
from oteo_core.jobs import AUTO, JobRunner, JobState, RayJobRunner, Resources, Wanted
from oteo_core.jobs.resources import place
from oteo_local.ports import free_port


def ended(runner: JobRunner, operation: str, attempt: int = 1, seconds: float = 40.0) -> JobState:
    def state() -> JobState | None:
        found = runner.status(operation, attempt)
        return found if found.ended else None

    return wait_for(state, seconds, said=lambda: runner.logs(operation, attempt), pause=0.1)


def name() -> str:
    return f"toy-{uuid.uuid4().hex[:20]}"


def test_a_job_runs_with_its_environment_and_its_words_are_kept(runner: JobRunner) -> None:
    operation = name()
    code = "import os; print('hello', os.environ['TOY'])"
    runner.submit(operation, 1, [sys.executable, "-c", code], {"TOY": 'it\'s "me"'})
    assert ended(runner, operation) is JobState.SUCCEEDED
    assert 'hello it\'s "me"' in runner.logs(operation, 1)


def test_a_failure_is_a_failure(runner: JobRunner) -> None:
    operation = name()
    runner.submit(operation, 1, [sys.executable, "-c", "raise SystemExit(3)"], {})
    assert ended(runner, operation) is JobState.FAILED


def test_what_never_was_is_unknown(runner: JobRunner) -> None:
    operation = name()
    assert runner.status(operation, 1) is JobState.UNKNOWN
    assert runner.logs(operation, 1) == ""
    runner.stop(operation, 1)


def test_a_second_submission_starts_nothing(runner: JobRunner, tmp_path: Path) -> None:
    operation = name()
    command = [sys.executable, "-c", f"open({str(tmp_path / 'log')!r}, 'a').write('x')"]
    for _ in range(3):
        runner.submit(operation, 1, command, {})
    ended(runner, operation)
    runner.submit(operation, 1, command, {})
    time.sleep(1.0)
    assert (tmp_path / "log").read_text() == "x"
    # Another attempt is another job.
    runner.submit(operation, 2, command, {})
    assert ended(runner, operation, 2) is JobState.SUCCEEDED
    assert (tmp_path / "log").read_text() == "xx"


def test_stop_ends_the_process_and_its_children(runner: JobRunner, tmp_path: Path) -> None:
    operation, pids = name(), tmp_path / "pids"
    # Deaf to SIGTERM, with a child that is deaf too.
    child = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    code = (
        "import os, signal, subprocess, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        f"child = subprocess.Popen([sys.executable, '-c', {child!r}]); "
        f"open({str(pids)!r}, 'w').write(f'{{os.getpid()}} {{child.pid}}'); time.sleep(600)"
    )
    runner.submit(operation, 1, [sys.executable, "-c", code], {})
    wait_for(lambda: pids.exists() and len(pids.read_text().split()) == 2, 30)
    processes = [int(pid) for pid in pids.read_text().split()]
    assert all(alive(pid) for pid in processes)
    begin = time.monotonic()
    runner.stop(operation, 1)
    assert ended(runner, operation) is JobState.STOPPED
    for pid in processes:
        wait_gone(pid, 8.0)
    assert time.monotonic() - begin < patient(10.0)
    runner.stop(operation, 1)


def test_a_process_that_takes_a_cpu_runs_beside_tasks_of_its_own(runner: JobRunner) -> None:
    """On a machine of two cores: one for the process, one for what it starts."""
    assert max(node.cpus for node in runner.nodes()) >= 1
    placing = place(Wanted(cpus=1.0), runner.nodes())
    assert placing.resources == Resources(1.0)
    operation = name()
    code = (
        "import os; from oteo_core.jobs import JobContext; "
        "executor = JobContext.executor(None); print('answer', executor.submit(pow, 7, 2).result(60), os.environ['OMP_NUM_THREADS'])"
    )
    runner.submit(operation, 1, [sys.executable, "-c", f"if __name__ == '__main__': {code}"], placing.environment(), placing.resources)
    assert ended(runner, operation) is JobState.SUCCEEDED, runner.logs(operation, 1)
    assert "answer 49 1" in runner.logs(operation, 1)


def test_a_job_that_no_node_could_ever_hold_as_asked_runs_with_what_there_is(runner: JobRunner) -> None:
    most = max(node.gpus for node in runner.nodes())
    placing = place(Wanted(cpus=1.0, gpus=most + 7), runner.nodes())
    assert placing.note
    operation = name()
    runner.submit(operation, 1, [sys.executable, "-c", "print('here')"], placing.environment(), placing.resources)
    assert ended(runner, operation) is JobState.SUCCEEDED
    assert place(Wanted(cpus=1.0, gpus=AUTO), runner.nodes()).resources.gpus <= most


def test_a_runner_that_is_away_is_unavailable(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("x")
    away = RayJobRunner(f"http://127.0.0.1:{free_port()}", token)
    begin = time.monotonic()
    for call in (lambda: away.status("toy-a", 1), lambda: away.submit("toy-a", 1, ["true"], {}), lambda: away.stop("toy-a", 1), away.nodes):
        with pytest.raises(Unavailable) as caught:
            call()
        assert caught.value.reason == "JOB_RUNNER_UNAVAILABLE"
    assert time.monotonic() - begin < patient(5)


def test_ray_without_the_token_is_refused(ray_head: object, tmp_path: Path) -> None:
    wrong = tmp_path / "token"
    wrong.write_text("wrong" * 10)
    with pytest.raises(Unavailable):
        RayJobRunner(ray_head.address, wrong).status("toy-a", 1)  # type: ignore[attr-defined]
