"""Operations whose work is a job, on plain processes and on Ray."""

from __future__ import annotations

import os
import signal
import sys
import time
import uuid
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from toy_service import Toy, alive, wait_gone
from waiting import patient, wait_for

from oteo_core.errors import AlreadyExists, Cancelled, DeadlineExceeded, FailedPrecondition, InvalidArgument, NotFound
from oteo_core.jobs import ProcessJobRunner
from oteo_core.jobs.scratch import scratch_root
from oteo_core.settings import CoreSettings
from oteo_protos.type.v1 import report_pb2


def test_work_is_done_reported_and_published(toy: Toy) -> None:
    name = toy.start("Count", steps=4, seconds=1.0, target="datasets/x", tasks=True)
    toy.wait_line("begin 2")
    progress = wait_for(lambda: found if (found := toy.progress(name)).fraction >= 0.4 else None)
    assert progress.state == report_pb2.Progress.STATE_RUNNING
    assert progress.fraction < 1
    assert progress.stage == "counting"
    assert not toy.artifacts.exists("datasets/x")
    assert toy.value(name) == {"total": 14}
    progress = toy.progress(name)
    assert (progress.state, progress.fraction, progress.attempt) == (report_pb2.Progress.STATE_SUCCEEDED, 1.0, 1)
    assert progress.create_time.ToNanoseconds() <= progress.start_time.ToNanoseconds() <= progress.end_time.ToNanoseconds()
    assert [entry.path for entry in toy.artifacts.iter("datasets")] == [
        "datasets/x/dataset.json",
        *(f"datasets/x/parts/{number}" for number in range(5)),
    ]
    assert not any("staging" in path or "attempt.json" in path for path in toy.files(name))
    assert "the job begins" in toy.logs(name)


def test_a_killed_job_goes_on_from_its_checkpoints(toy: Toy) -> None:
    name = toy.start("Count", steps=5, seconds=0.5, target="datasets/k", tasks=True)
    driver = toy.driver()
    toy.wait_line("begin 2")
    os.kill(driver, signal.SIGKILL)
    assert toy.value(name) == {"total": 30}
    assert toy.progress(name).attempt == 2
    ends = [line.split()[1] for line in toy.lines("end")]
    # What was finished and saved is not done again; only the step under way may be.
    assert ends.count("0") == ends.count("1") == 1
    assert toy.artifacts.is_file("datasets/k/dataset.json")


def test_a_job_that_died_after_publishing_ends_as_if_it_had_not(toy: Toy) -> None:
    name = toy.start("Count", steps=1, seconds=0.0, target="datasets/d", die_after_publish=True)
    assert toy.value(name) == {"total": 0}
    assert toy.progress(name).attempt == 2
    assert len(list(toy.artifacts.iter("datasets/d"))) == 6


def test_a_cancelled_job_is_gone_within_five_seconds_and_leaves_nothing(toy: Toy) -> None:
    toy.artifacts.write_bytes("uploads/u1/archive.zip", b"x")
    name = toy.start("Stubborn", on_cleanup=("uploads/u1",))
    driver = toy.driver()
    time.sleep(0.5)
    begin = time.monotonic()
    toy.manager.cancel(name)
    toy.manager.cancel(name)
    wait_gone(driver, 5.0)
    error = toy.error(name, timeout=5.0)
    assert time.monotonic() - begin < 5.0
    assert isinstance(error, Cancelled)
    assert toy.progress(name).state == report_pb2.Progress.STATE_CANCELLED
    assert list(toy.artifacts.iter()) == []
    identity = name.removeprefix("operations/")
    assert not [folder for folder in (scratch_root().iterdir() if scratch_root().exists() else []) if folder.name.startswith(identity)]
    # Again, when it has ended: nothing happens.
    toy.manager.cancel(name)


def test_a_job_is_cancelled_before_it_begins(toy: Toy) -> None:
    name = toy.start("Count", steps=50, seconds=0.2)
    toy.manager.cancel(name)
    assert isinstance(toy.error(name, timeout=8.0), Cancelled)
    assert toy.files(name) == []


def test_a_deadline_that_passes_stops_the_work(toy: Toy) -> None:
    name = toy.start("Count", steps=1000, seconds=0.2, deadline=timedelta(seconds=15))
    driver = toy.driver()
    begin = time.monotonic()
    error = toy.error(name, timeout=25.0)
    assert isinstance(error, DeadlineExceeded)
    assert error.reason == "OPERATION_DEADLINE"
    wait_gone(driver, 5.0)
    assert time.monotonic() - begin < patient(15.0)


def test_a_deadline_stops_work_that_never_looks(toy: Toy) -> None:
    name = toy.start("Stubborn", deadline=timedelta(seconds=15))
    driver = toy.driver()
    assert isinstance(toy.error(name, timeout=25.0), DeadlineExceeded)
    wait_gone(driver, 5.0)


def test_an_error_of_the_work_is_final(toy: Toy) -> None:
    name = toy.start("Fail", kind="final")
    error = toy.error(name)
    assert isinstance(error, InvalidArgument)
    assert (error.reason, error.field) == ("TOY", "toy")
    assert len(toy.lines("attempt")) == 1
    assert not any("staging" in path for path in toy.files(name))


def test_a_fault_at_the_same_place_twice_is_given_up(toy: Toy) -> None:
    error = toy.error(toy.start("Fail", kind="bug"))
    assert error.reason == "JOB_CRASHED"
    assert "a fault in the toy" in error.message
    assert len(toy.lines("attempt")) == 2


def test_death_without_a_word_is_tried_again(toy: Toy) -> None:
    assert toy.value(toy.start("Fail", kind="killed", attempts=2)) == {"attempt": 2}


def test_an_orphan_that_lost_its_lease_ends_at_once(toy: Toy) -> None:
    """As when Ray lost its record of a job whose process goes on: the next attempt takes over."""
    name = toy.start("Stubborn")
    driver = toy.driver()
    row = toy.store.get(name.removeprefix("operations/"))
    toy.store.change(row.id, attempt=2, submitted=False)
    wait_gone(driver, 5.0)
    assert toy.driver(2) != driver
    toy.manager.cancel(name)
    toy.wait(name, 8.0)


def test_replays_and_resources(toy: Toy) -> None:
    name = toy.start("Count", request_id="same", resource="models/m", steps=10, seconds=0.3)
    assert toy.start("Count", request_id="same", resource="models/m", steps=10, seconds=0.3) == name
    with pytest.raises(AlreadyExists) as caught:
        toy.start("Count", request_id="same", resource="models/m", steps=11, seconds=0.3)
    assert caught.value.reason == "REQUEST_ID_REUSED"
    with pytest.raises(AlreadyExists) as caught:
        toy.start("Count", request_id="other", resource="models/m", steps=10, seconds=0.3)
    assert caught.value.reason == "OPERATION_IN_PROGRESS"
    assert [row.id for row in toy.manager.live("models/m")] == [name.removeprefix("operations/")]
    with pytest.raises(FailedPrecondition):
        toy.manager.delete(name)
    toy.wait_line("attempt")
    assert len(toy.lines("attempt")) == 1
    toy.manager.cancel(name)
    toy.wait(name, 8.0)
    assert toy.start("Count", request_id="same", resource="models/m", steps=10, seconds=0.3) == name
    toy.manager.delete(name)
    with pytest.raises(NotFound):
        toy.get(name)


def test_a_job_runs_on_while_its_service_is_away(toy: Toy) -> None:
    name = toy.start("Count", steps=4, seconds=0.5)
    driver = toy.driver()
    toy.manager.stop_reconciler()
    wait_gone(driver, 30.0)
    assert not toy.get(name).done
    toy.manager.start_reconciler()
    assert toy.value(name, timeout=10.0) == {"total": 14}
    assert not alive(driver)
    assert len(toy.lines("attempt")) == 1


def test_a_job_finds_its_files_on_s3(tmp_path: Path, s3_options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parent.parent))
    settings = CoreSettings(
        home=tmp_path / "home",
        job_python=sys.executable,
        reconcile_seconds=0.25,
        artifacts=f"s3://oteo/{uuid.uuid4().hex}",
        artifact_options=s3_options,
    )
    (tmp_path / "home").mkdir()
    runner = ProcessJobRunner(tmp_path / "logs")
    toy = Toy(settings, runner)
    try:
        name = toy.start("Count", steps=5, seconds=0.3, target="datasets/s3")
        driver = toy.driver()
        toy.wait_line("begin 2")
        os.kill(driver, signal.SIGKILL)
        assert toy.value(name) == {"total": 30}
        assert toy.artifacts.children("datasets/s3") == ["dataset.json", "parts"]
        other = toy.start("Stubborn")
        toy.wait_line("attempt 1")
        toy.manager.cancel(other)
        assert toy.wait(other, 8.0).error.code == 1
        assert toy.files(other) == []
    finally:
        toy.close()
        runner.close()
