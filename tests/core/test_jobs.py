"""Jobs beside their engine: settings that travel, scratch folders, publishing, errors, a handler run in a test."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import any_pb2, struct_pb2
from waiting import patient

from oteo_core.artifacts import ArtifactStore
from oteo_core.errors import AlreadyExists, DeadlineExceeded, InvalidArgument, NotFound
from oteo_core.jobs import JobContext, JobHandler, JobStopped, files
from oteo_core.jobs.entry import execute
from oteo_core.jobs.environment import job_environment
from oteo_core.jobs.scratch import open_scratch, sweep_scratch
from oteo_core.jobs.testing import run_handler
from oteo_core.operations import new_operation_id
from oteo_core.settings import CoreSettings
from oteo_protos.augment.v1 import dataset_pb2

Context = JobContext[struct_pb2.Struct, dataset_pb2.ImportDatasetMetadata]


@pytest.fixture
def settings(tmp_path: Path) -> CoreSettings:
    return CoreSettings(home=tmp_path / "home")


@pytest.fixture
def artifacts(settings: CoreSettings) -> ArtifactStore:
    return ArtifactStore(settings.artifacts)


def handler(run: Any) -> JobHandler[Any, Any]:
    return JobHandler(struct_pb2.Struct, dataset_pb2.ImportDatasetMetadata, run)


def run(function: Any, settings: CoreSettings, artifacts: ArtifactStore, **options: Any) -> any_pb2.Any:
    return run_handler(handler(function), struct_pb2.Struct(), settings=settings, artifacts=artifacts, **options)


def test_a_job_reads_the_settings_of_its_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEO_TOKEN", "secret")
    monkeypatch.setenv("OTEO_DATABASE_URL", "postgresql://user:secret@host/db")
    given = CoreSettings(
        home=tmp_path,
        triton_urls=["a:1", "b:2"],
        artifact_options={"endpoint_url": "http://x", "client_kwargs": {"region_name": "r"}},
        allow_anonymous=True,
        max_image_pixels=5,
        token_file=tmp_path / "token",
        artifacts="s3://bucket/x",
    )
    variables = job_environment(given)
    assert "secret" not in json.dumps(variables)
    for name in [name for name in os.environ if name.startswith("OTEO_")]:
        monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    found = CoreSettings()
    for name in ("home", "triton_urls", "artifact_options", "allow_anonymous", "max_image_pixels", "token_file", "artifacts", "mlflow_uri"):
        assert getattr(found, name) == getattr(given, name), name


def test_scratch_of_the_dead_is_swept_and_of_the_living_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    mine = open_scratch("toy-a", 1)
    (mine / "file").write_bytes(b"x")
    dead = mine.parent / "toy-dead-1-x"
    dead.mkdir()
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    (dead / ".owner").write_text(json.dumps({"host": socket.gethostname(), "pid": process.pid, "started": time.time()}))
    elsewhere = mine.parent / "toy-elsewhere-1-x"
    elsewhere.mkdir()
    (elsewhere / ".owner").write_text(json.dumps({"host": "another-machine", "pid": process.pid, "started": 0.0}))
    sweep_scratch()
    assert mine.is_dir()
    assert (mine / "file").is_file()
    assert not dead.exists()
    assert elsewhere.is_dir()


def test_publishing_twice_and_over_another(settings: CoreSettings, artifacts: ArtifactStore) -> None:
    operation = new_operation_id("toy")

    def work(context: Context) -> struct_pb2.Struct:
        # Each attempt writes another manifest, as one with times in it would be.
        context.artifacts.write_bytes(f"{context.staging}/a/m.json", str(context.attempt).encode())
        context.artifacts.write_bytes(f"{context.staging}/a/x", b"x")
        context.publish("datasets/one", "m.json", subdir="a")
        return struct_pb2.Struct()

    run(work, settings, artifacts, operation_id=operation)
    artifacts.delete(f"operations/{operation}/{files.RESULT}")
    run(work, settings, artifacts, operation_id=operation, attempt=2)
    # A rerun after the commit leaves what is published as it is.
    assert artifacts.read_bytes("datasets/one/m.json") == b"1"
    assert not artifacts.exists(f"operations/{operation}/staging")
    with pytest.raises(AlreadyExists) as caught:
        run(work, settings, artifacts)
    assert caught.value.reason == "TARGET_EXISTS"
    assert artifacts.read_bytes("datasets/one/m.json") == b"1"


def test_publishing_needs_the_manifest_and_the_lease(settings: CoreSettings, artifacts: ArtifactStore) -> None:
    def without(context: Context) -> struct_pb2.Struct:
        context.artifacts.write_bytes(f"{context.staging}/x", b"x")
        context.publish("datasets/two", "m.json")
        return struct_pb2.Struct()

    with pytest.raises(NotFound):
        run(without, settings, artifacts)

    def overtaken(context: Context) -> struct_pb2.Struct:
        context.artifacts.write_bytes(f"{context.staging}/m.json", b"x")
        record = files.Attempt(context.attempt + 1, 5, "test", "Test", "", time.time())
        context.artifacts.write_bytes(f"{files.folder(context.operation_id)}/{files.ATTEMPT}", record.to_json())
        with pytest.raises(JobStopped):
            context.publish("datasets/two", "m.json")
        raise InvalidArgument("seen", reason="SEEN")

    with pytest.raises(InvalidArgument):
        run(overtaken, settings, artifacts)
    assert not artifacts.exists("datasets/two")


def test_progress_never_falls_and_is_written(settings: CoreSettings, artifacts: ArtifactStore) -> None:
    operation = new_operation_id("toy")
    folders = []

    def work(context: Context) -> struct_pb2.Struct:
        folders.append(context.scratch)
        (context.scratch / "x").write_bytes(b"x")
        context.progress(0.5, stage="one")
        context.progress(0.3, message="two")
        return struct_pb2.Struct()

    run(work, settings, artifacts, operation_id=operation)
    metadata = dataset_pb2.ImportDatasetMetadata()
    any_pb2.Any.FromString(artifacts.read_bytes(f"operations/{operation}/{files.PROGRESS}")).Unpack(metadata)
    assert (metadata.progress.fraction, metadata.progress.stage, metadata.progress.message) == (0.5, "one", "two")
    assert metadata.progress.HasField("update_time")
    assert not folders[0].exists()


def test_checkpoints_survive_the_attempt(settings: CoreSettings, artifacts: ArtifactStore) -> None:
    operation = new_operation_id("toy")

    def first(context: Context) -> struct_pb2.Struct:
        assert context.load("a/1") is None
        context.save("a/1", b"one")
        context.save("b", b"two")
        raise RuntimeError("dies")

    def second(context: Context) -> struct_pb2.Struct:
        assert context.saved() == ["a/1", "b"]
        assert context.saved("a/") == ["a/1"]
        assert context.load("a/1") == b"one"
        context.discard("a/1")
        assert context.saved() == ["b"]
        return struct_pb2.Struct()

    with pytest.raises(RuntimeError, match="status 1"):
        run(first, settings, artifacts, operation_id=operation)
    crash = files.Crash.from_json(artifacts.read_bytes(files.crash_path(operation, 1)))
    assert "dies" in crash.message
    assert not crash.transient
    run(second, settings, artifacts, operation_id=operation, attempt=2)


def test_a_deadline_is_an_error_of_the_work(settings: CoreSettings, artifacts: ArtifactStore) -> None:
    def work(context: Context) -> struct_pb2.Struct:
        while True:
            context.check()
            time.sleep(0.01)

    begin = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        run(work, settings, artifacts, deadline=time.time() + 0.5)
    assert time.monotonic() - begin < patient(3)


def test_a_job_that_is_out_of_date_does_nothing(settings: CoreSettings, artifacts: ArtifactStore) -> None:
    operation = new_operation_id("toy")

    def never(context: Context) -> struct_pb2.Struct:
        raise AssertionError("ran")

    folder = files.folder(operation)
    assert execute(operation, 1, settings, artifacts, {"Test": handler(never)}, signals=False) == 143
    artifacts.write_bytes(f"{folder}/{files.ATTEMPT}", files.Attempt(2, 5, "toy", "Test", "", 0.0).to_json())
    assert execute(operation, 1, settings, artifacts, {"Test": handler(never)}, signals=False) == 143
    artifacts.write_bytes(f"{folder}/{files.CANCEL}", b"")
    assert execute(operation, 2, settings, artifacts, {"Test": handler(never)}, signals=False) == 143
