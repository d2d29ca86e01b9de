"""Searches on a real Ray, killed with SIGKILL at random moments, and two at once: what was done stands, and the time is kept."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import psutil
import pytest
from engines import RayHead
from google.longrunning import operations_pb2, operations_pb2_grpc
from live_server import live_server
from training_runs import Home
from waiting import patient, wait_done, wait_for

from oteo_automl.service import AutoML
from oteo_automl.settings import AutoMLSettings
from oteo_core.artifacts import ArtifactStore
from oteo_core.jobs import RayJobRunner
from oteo_core.operations.model import unpack
from oteo_core.packages import ModelPackage, read_model
from oteo_core.server.channels import sync_channel
from oteo_local import triton
from oteo_local.triton_env import TritonEnvironment, default_prefix
from oteo_protos.automl.v1 import automl_pb2, automl_pb2_grpc

pytestmark = pytest.mark.slow

BUDGET = int(os.environ.get("OTEO_TEST_BUDGET", "75"))
"""Seconds of each training; a busy machine may raise it: processes that import PyTorch take their time out of it."""

COUNTS = {"lying": (60, 20, 10), "standing": (60, 20, 10), "slanting": (60, 20, 10)}


@dataclass
class World:
    """A running automl with Ray and Triton, and a small dataset."""

    store: ArtifactStore
    automl: automl_pb2_grpc.AutoMLServiceStub
    operations: operations_pb2_grpc.OperationsStub
    dataset: str
    head: RayHead
    names: dict[str, str] = field(default_factory=dict)

    def train(self, model: str, seconds: int, **fields: Any) -> str:
        """Begin a training; give its operation."""
        request = automl_pb2.TrainModelRequest(dataset=self.dataset, model_id=model, budget={"seconds": seconds}, **fields)
        return str(self.automl.TrainModel(request).name)

    def metadata(self, name: str) -> automl_pb2.TrainModelMetadata:
        """Give what an operation says of itself."""
        found = unpack(self.operations.GetOperation(operations_pb2.GetOperationRequest(name=name)).metadata)
        assert isinstance(found, automl_pb2.TrainModelMetadata)
        return found

    def end(self, name: str, model: str) -> ModelPackage:
        """Wait for a training's end; give what it published."""
        request = operations_pb2.GetOperationRequest(name=name)
        operation = wait_done(
            lambda: self.operations.GetOperation(request), BUDGET, said=lambda: f"{name}: {self.metadata(name)}", pause=0.3
        )
        assert not operation.HasField("error"), operation.error
        return read_model(self.store, f"models/{model}")

    def results(self, name: str) -> dict[str, bytes]:
        """Give the results of all pieces that have finished."""
        entries = self.store.iter(f"{name}/checkpoints/trials")
        return {entry.path: self.store.read_bytes(entry.path) for entry in entries if "/result-" in entry.path}

    def spent(self, name: str) -> float:
        """Give what the search's clock says."""
        path = f"{name}/checkpoints/clock.json"
        return float(json.loads(self.store.read_bytes(path))["spent"]) if self.store.is_file(path) else 0.0

    def driver(self, name: str, attempt: int) -> psutil.Process | None:
        """Give the process of an attempt, if it runs."""
        marks = ["oteo_automl.job", name.removeprefix("operations/"), str(attempt)]
        for process in psutil.process_iter(["cmdline"]):
            if (process.info["cmdline"] or [])[-3:] == marks:
                return process
        return None

    def workers(self, word: str) -> list[psutil.Process]:
        """Give the workers of this Ray whose task has a name."""
        found = []
        for process in self.head.processes():
            try:
                if process.cmdline()[0].startswith(f"ray::{word}"):
                    found.append(process)
            except (psutil.Error, IndexError):
                continue
        return found


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    head = RayHead(tmp_path_factory.mktemp("ray"), cpus=2)
    folder = tmp_path_factory.mktemp("automl")
    environment = TritonEnvironment(default_prefix())
    environment.build()
    with triton.start(environment=environment, timeout=patient(30)) as running:
        settings = AutoMLSettings(
            home=folder,
            artifacts=f"file://{folder}/artifacts",
            allow_anonymous=True,
            job_python=sys.executable,
            reconcile_seconds=0.25,
            job_attempts=8,
            triton_urls=[running.address],
            mlflow_uri="http://127.0.0.1:9",
            mlflow_timeout=1,
        )
        home = Home(folder)
        dataset = home.dataset("cells", COUNTS, group=lambda label, number: f"{label}-{number // 2}")
        try:
            head.start()
            automl = AutoML(settings, RayJobRunner(head.address, head.token_path))
            with live_server(settings, automl.register) as server:
                server.run(automl.start()).result(patient(30))
                channel = sync_channel(server.address, settings)
                yield World(
                    home.store,
                    automl_pb2_grpc.AutoMLServiceStub(channel),
                    operations_pb2_grpc.OperationsStub(channel),
                    dataset,
                    head,
                )
                channel.close()
                server.run(automl.stop()).result(patient(30))
        finally:
            head.stop()


def test_the_driver_is_killed_at_five_random_moments(world: World) -> None:
    seconds = BUDGET + 15
    name = world.train("killed", seconds)
    rng = random.Random(5)
    finished: dict[str, bytes] = {}
    spent = 0.0
    for attempt in range(1, 6):
        driver = wait_for(lambda attempt=attempt: world.driver(name, attempt), 60)
        if attempt == 1:
            wait_for(lambda: world.results(name), 60)
        time.sleep(rng.uniform(0.5, 9.0))
        finished |= world.results(name)
        now = world.spent(name)
        os.kill(driver.pid, signal.SIGKILL)
        assert now >= spent, "the clock was set back"
        spent = now
    package = world.end(name, "killed")
    results = world.results(name)
    assert {path: results[path] for path in finished} == finished, "a finished piece was trained again"
    assert world.metadata(name).progress.attempt == 6
    assert package.training_time <= 1.05 * seconds, "what earlier attempts spent was not counted"
    assert len(package.trials) >= len({path.split("/")[-2] for path in finished})


def test_two_searches_at_once_keep_their_deadlines(world: World) -> None:
    seconds = BUDGET
    names = {model: world.train(model, seconds) for model in ("first", "second")}
    packages = {model: world.end(name, model) for model, name in names.items()}
    for model, package in packages.items():
        assert package.training_time <= 1.10 * seconds, f"{model} took {package.training_time:.1f} s"
        # Neither kept the other from its turn.
        assert len(package.trials) >= 3, package.trials


def test_a_trial_whose_worker_is_killed_for_its_memory_is_tried_again_with_half_its_batch(world: World) -> None:
    seconds = BUDGET
    name = world.train("hungry", seconds, candidates=["classical-logistic", "timm-resnet10t"])
    # The kernel's killer ends it, and once more where it is tried again.
    for _ in range(2):
        worker = wait_for(lambda: world.workers("train_network"), 60)[0]
        worker.kill()
        worker.wait(patient(10))
    package = world.end(name, "hungry")
    trial = next(one for one in package.trials if one.candidate == "timm-resnet10t")
    assert "needed too much memory with a batch of 32; tried again with 16" in trial.message
    assert package.training_time <= 1.10 * seconds
