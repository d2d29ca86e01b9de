"""The implementations that the conformance suites run on."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from engine_fixtures import postgres, ray_head
from engines import RayHead
from moto.server import ThreadedMotoServer
from toy_service import Toy

from oteo_core.artifacts import ArtifactStore
from oteo_core.jobs import JobRunner, ProcessJobRunner, RayJobRunner
from oteo_core.operations import OperationStore
from oteo_core.settings import CoreSettings

__all__ = ["postgres", "ray_head"]


@pytest.fixture(scope="session")
def s3_options() -> Iterator[dict[str, Any]]:
    """Give fsspec's options for an S3 server with the bucket ``oteo``."""
    import boto3

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    boto3.client("s3", endpoint_url=url, aws_access_key_id="test", aws_secret_access_key="test", region_name="us-east-1").create_bucket(
        Bucket="oteo"
    )
    try:
        yield {"key": "test", "secret": "test", "endpoint_url": url, "client_kwargs": {"region_name": "us-east-1"}}
    finally:
        server.stop()


@pytest.fixture(params=["file", "memory", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ArtifactStore:
    """Give an empty artifact store of each kind."""
    if request.param == "file":
        return ArtifactStore(f"file://{tmp_path}/artifacts")
    if request.param == "memory":
        return ArtifactStore(f"memory://{uuid.uuid4().hex}")
    return ArtifactStore(f"s3://oteo/{uuid.uuid4().hex}", **request.getfixturevalue("s3_options"))


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Give the URL of an empty database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/oteo.db"
    return str(request.getfixturevalue("postgres").new_url())


@pytest.fixture
def operation_store(database_url: str) -> Iterator[OperationStore]:
    """Give an empty table of operations of each kind."""
    found = OperationStore(database_url)
    yield found
    found.close()


@pytest.fixture(params=["process", "ray"])
def runner(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[JobRunner]:
    """Give a job runner of each kind."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parent.parent))
    if request.param == "process":
        processes = ProcessJobRunner(tmp_path / "logs")
        yield processes
        processes.close()
    else:
        head: RayHead = request.getfixturevalue("ray_head")
        yield RayJobRunner(head.address, head.token_path)


@pytest.fixture
def toy(tmp_path: Path, runner: JobRunner) -> Iterator[Toy]:
    """Give the operations of the toy service on each runner."""
    settings = CoreSettings(home=tmp_path / "home", job_python=sys.executable, reconcile_seconds=0.25)
    found = Toy(settings, runner)
    yield found
    found.close()
