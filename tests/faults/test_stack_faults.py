"""kill -9 of each part of a running stack while a training runs: it ends as it should, and what was deployed is served again."""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import psutil
import pytest
from gateway_calls import Calls
from google.longrunning import operations_pb2
from toy_service import alive
from waiting import patient, wait_done, wait_for

from oteo_core.artifacts import ArtifactStore
from oteo_core.images import encode_png
from oteo_core.operations.model import unpack
from oteo_core.sampledata import GROUP_PATTERN, draw_cell, draw_cells
from oteo_protos.augment.v1 import dataset_pb2
from oteo_protos.automl.v1 import automl_pb2
from oteo_protos.gateway.v1 import inference_pb2, pipeline_pb2
from oteo_protos.type.v1 import image_pb2, report_pb2

if TYPE_CHECKING:
    from oteo_local.stack import Stack

pytestmark = pytest.mark.stack

BUDGET_SECONDS = int(os.environ.get("OTEO_TEST_BUDGET", "90"))
"""Of each training; a busy machine may raise it."""


@pytest.fixture(scope="module")
def calls(stack: Stack) -> Iterator[Calls]:
    """Calls to the stack's gateway."""
    found = Calls(stack.endpoints["gateway"], stack.token)
    yield found
    found.close()


@pytest.fixture(scope="module")
def served(calls: Calls, tmp_path_factory: pytest.TempPathFactory) -> pipeline_pb2.RunPipelineResponse:
    """A small dataset and a model of it that is deployed."""
    drawn = draw_cells(tmp_path_factory.mktemp("cells"), count=72, size=64)
    identity = f"faults-{uuid.uuid4().hex[:8]}"
    request = pipeline_pb2.RunPipelineRequest(pipeline_id=identity, budget={"seconds": BUDGET_SECONDS}, request_id=str(uuid.uuid4()))
    request.train.candidates.append("classical-logistic")
    source = dataset_pb2.ImportDatasetRequest(source_uri=str(drawn.folder), dataset_id=identity, split={"group_pattern": GROUP_PATTERN})
    getattr(request, "import").CopyFrom(source)
    response = calls.result(calls.pipelines.RunPipeline(request), seconds=BUDGET_SECONDS)
    assert isinstance(response, pipeline_pb2.RunPipelineResponse)
    return response


class Training:
    """A training under way, and what must hold when it has ended."""

    def __init__(self, stack: Stack, calls: Calls, dataset: str) -> None:
        self.stack = stack
        self.calls = calls
        self.store = ArtifactStore(f"file://{stack.home}/artifacts")
        self.request = automl_pb2.TrainModelRequest(
            dataset=dataset, model_id=f"faults-{uuid.uuid4().hex[:8]}", budget={"seconds": BUDGET_SECONDS}, request_id=str(uuid.uuid4())
        )
        self.name = calls.automl.TrainModel(self.request).name
        self.finished: dict[str, bytes] = {}

    def get(self) -> operations_pb2.Operation:
        """Give the operation; asked again while the gateway is away."""
        return patiently(
            lambda: self.calls.operations.GetOperation(operations_pb2.GetOperationRequest(name=self.name), timeout=patient(10))
        )

    def progress(self) -> report_pb2.Progress:
        """Give the operation's progress."""
        metadata: Any = unpack(self.get().metadata)
        return metadata.progress

    def results(self) -> dict[str, bytes]:
        """Give the results of all pieces of trials that have finished."""
        top = f"{self.name}/checkpoints/trials"
        return {entry.path: self.store.read_bytes(entry.path) for entry in self.store.iter(top) if "/result-" in entry.path}

    def wait_trials(self, count: int = 1) -> None:
        """Wait until so many pieces have finished since the last call, and remember all of them."""
        wanted = len(self.finished) + count

        def enough() -> bool:
            if len(self.results()) >= wanted:
                return True
            operation = self.get()
            assert not operation.done, f"it ended too early: {operation}"
            return False

        wait_for(enough, 50, said=lambda: f"{len(self.results())} of {wanted} pieces of trials: {self.progress()}", pause=0.2)
        self.finished = self.results()

    def driver(self) -> psutil.Process:
        """Give the process of the job's newest attempt."""
        identity = self.name.removeprefix("operations/")
        return self._process(lambda line: "oteo_automl.job" in line and identity in line)

    def worker(self) -> psutil.Process:
        """Give a Ray worker that works on a trial."""
        others = ("IDLE", "Agent", "Supervisor")
        return self._process(lambda line: line[:1] and line[0].startswith("ray::") and not any(word in " ".join(line) for word in others))

    def _process(self, wanted: Callable[[list[str]], Any]) -> psutil.Process:
        """Wait for a process of Ray's by its command line."""

        def find() -> psutil.Process | None:
            for process in self.stack.processes("ray"):
                with contextlib.suppress(psutil.Error):
                    if wanted(process.cmdline()):
                        return process
            return None

        return wait_for(find, 60)

    def ends_well(self) -> int:
        """Wait for the end and check it; give the number of attempts."""
        operation = wait_done(self.get, BUDGET_SECONDS, said=self.progress, pause=0.5)
        assert not operation.HasField("error"), operation.error
        # The request's replay finds this operation, whatever was killed meanwhile.
        assert patiently(lambda: self.calls.automl.TrainModel(self.request, timeout=patient(10))).name == self.name
        results = self.results()
        assert {path: results[path] for path in self.finished} == self.finished, "a finished piece was trained again"
        model = f"models/{self.request.model_id}"
        assert self.store.is_file(f"{model}/package.json")
        assert not self.store.exists(f"{self.name}/staging")
        assert self.calls.automl.GetModel(automl_pb2.GetModelRequest(name=model), timeout=patient(10)).name == model
        return int(self.progress().attempt)


@pytest.fixture
def training(stack: Stack, calls: Calls, served: pipeline_pb2.RunPipelineResponse) -> Iterator[Training]:
    """Start a training; it does not outlive its test."""
    found = Training(stack, calls, served.dataset.name)
    yield found
    patiently(lambda: calls.operations.CancelOperation(operations_pb2.CancelOperationRequest(name=found.name), timeout=patient(10)))


def patiently(call: Callable[[], Any]) -> Any:
    """Make a call, again while the server is away."""
    refusals: list[str] = []

    def answer() -> tuple[Any] | None:
        try:
            return (call(),)
        except grpc.RpcError as error:
            if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                raise
            refusals.append(f"{error.code()}: {error.details()}")
            return None

    return wait_for(answer, 60, said=lambda: refusals[-1], pause=0.3)[0]


def answers(calls: Calls, deployment: str) -> inference_pb2.PredictResponse:
    """Predict through a deployment, waiting until it is served again; nothing but predictions is called."""
    pixels, _, _ = draw_cell(3, seed=99)
    request = inference_pb2.PredictRequest(deployment=deployment, image=image_pb2.ImageSource(content=encode_png(pixels)))
    found = patiently(lambda: calls.inference.Predict(request, timeout=patient(10)))
    assert isinstance(found, inference_pb2.PredictResponse)
    return found


def scores(calls: Calls, deployment: str) -> dict[str, float]:
    """Predict through a deployment; give the classes' probabilities."""
    return {score.class_name: score.probability for score in answers(calls, deployment).classification.scores}


def kill(stack: Stack, part: str) -> None:
    """kill -9 a part, and wait until supervisord has started it again and it is healthy."""
    pid = stack.pid(part)
    assert pid
    psutil.Process(pid).kill()
    wait_for(lambda: stack.pid(part) not in (0, pid), 60, said=lambda: f"{part} is not started again", pause=0.1)
    stack.wait_healthy(timeout=patient(40))


@pytest.mark.slow
def test_every_server_is_killed_in_turn_while_a_training_runs(
    stack: Stack, calls: Calls, training: Training, served: pipeline_pb2.RunPipelineResponse
) -> None:
    deployment = served.deployment.name
    before = scores(calls, deployment)
    training.wait_trials()
    for part in ("automl", "gateway", "triton", "mlflow", "augment", "translate"):
        kill(stack, part)
        assert scores(calls, deployment) == pytest.approx(before), part
        training.finished |= training.results()
    # None of them is what the work stands on: the job never noticed.
    assert training.ends_well() == 1


@pytest.mark.slow
def test_kill_of_the_driver_and_then_of_rays_head(
    stack: Stack, calls: Calls, training: Training, served: pipeline_pb2.RunPipelineResponse
) -> None:
    training.wait_trials()
    driver = training.driver()
    driver.kill()
    driver.wait(patient(10))
    training.wait_trials()
    kill(stack, "ray")
    assert training.ends_well() == 3
    assert answers(calls, served.deployment.name).model == served.model.name


@pytest.mark.slow
@pytest.mark.parametrize("part", ["automl", "gateway", "triton", "mlflow", "augment", "translate", "ray"])
def test_kill_of_one_part(stack: Stack, calls: Calls, training: Training, served: pipeline_pb2.RunPipelineResponse, part: str) -> None:
    training.wait_trials(2)
    kill(stack, part)
    assert training.ends_well() == (2 if part == "ray" else 1)
    assert answers(calls, served.deployment.name).model == served.model.name


@pytest.mark.slow
def test_kill_of_a_worker_under_a_trial(training: Training) -> None:
    training.wait_trials()
    training.worker().kill()
    assert training.ends_well() == 1


@pytest.mark.slow
def test_kill_of_the_pipelines_job_and_of_the_gateway(stack: Stack, calls: Calls, tmp_path: Path) -> None:
    """A pipeline killed in each of its steps finds its earlier calls and goes on; nothing is done twice."""
    drawn = draw_cells(tmp_path / "cells", count=72, size=64)
    identity = f"faults-{uuid.uuid4().hex[:8]}"
    request = pipeline_pb2.RunPipelineRequest(pipeline_id=identity, budget={"seconds": BUDGET_SECONDS}, request_id=str(uuid.uuid4()))
    source = dataset_pb2.ImportDatasetRequest(source_uri=str(drawn.folder), dataset_id=identity, split={"group_pattern": GROUP_PATTERN})
    getattr(request, "import").CopyFrom(source)
    name = calls.pipelines.RunPipeline(request).name
    seen: set[str] = set()

    def ended() -> operations_pb2.Operation | None:
        operation = patiently(lambda: calls.operations.GetOperation(operations_pb2.GetOperationRequest(name=name), timeout=patient(10)))
        if operation.done:
            return operation
        metadata: Any = unpack(operation.metadata)
        stage = metadata.progress.stage
        if stage and stage not in seen:
            seen.add(stage)
            for process in stack.processes("ray"):
                with contextlib.suppress(psutil.NoSuchProcess):
                    if "oteo_gateway.job" in process.cmdline():
                        process.kill()
            if "train" in stage:
                kill(stack, "gateway")
        return None

    response: Any = calls.result(wait_for(ended, BUDGET_SECONDS, said=lambda: seen, pause=0.2))
    assert response.model.name == f"models/{identity}"
    assert answers(calls, response.deployment.name).model == response.model.name
    models = patiently(lambda: calls.automl.ListModels(automl_pb2.ListModelsRequest(page_size=1000), timeout=patient(10))).models
    assert sum(model.dataset == response.dataset.name for model in models) == 1


def test_a_cancelled_training_is_gone_within_five_seconds_and_leaves_nothing(
    stack: Stack, calls: Calls, training: Training, served: pipeline_pb2.RunPipelineResponse
) -> None:
    training.wait_trials()
    driver = training.driver()
    begin = time.monotonic()
    calls.operations.CancelOperation(operations_pb2.CancelOperationRequest(name=training.name), timeout=patient(10))
    while not training.get().done:
        assert time.monotonic() - begin < 5.0
        time.sleep(0.05)
    assert time.monotonic() - begin < 5.0
    assert not alive(driver.pid)
    assert training.progress().state == report_pb2.Progress.STATE_CANCELLED
    assert not training.store.exists(training.name)
    assert not training.store.exists(f"models/{training.request.model_id}")
    listed = calls.automl.ListModels(automl_pb2.ListModelsRequest(page_size=1000), timeout=patient(10)).models
    assert not [model for model in listed if model.name.endswith(training.request.model_id)]
