"""Pipelines: each call made once however often the pipeline runs, steps told one by one, cancelling passed on."""

from __future__ import annotations

import os
import signal
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from gateway_support import TOKEN, Backend, Loop, details_of, publish_model, running_gateway, settings_for
from google.longrunning import operations_pb2, operations_pb2_grpc
from google.protobuf import empty_pb2
from waiting import patient, wait_for

from oteo_core.artifacts import open_store
from oteo_core.errors import AlreadyExists, FailedPrecondition, InvalidArgument
from oteo_core.jobs.watch import JobStopped, StopCause
from oteo_gateway.pipeline.api import step_request_id
from oteo_gateway.pipeline.evaluation import Judged, metrics, wilson
from oteo_gateway.pipeline.run import Pipeline
from oteo_protos.augment.v1 import augment_pb2, dataset_pb2
from oteo_protos.automl.v1 import automl_pb2
from oteo_protos.gateway.v1 import deployment_pb2, inference_pb2, pipeline_pb2, pipeline_pb2_grpc
from oteo_protos.type.v1 import annotation_pb2, report_pb2, task_pb2

METADATA = {
    "ImportDataset": dataset_pb2.ImportDatasetMetadata,
    "AuditDataset": dataset_pb2.AuditDatasetMetadata,
    "AugmentDataset": augment_pb2.AugmentDatasetMetadata,
    "TrainModel": automl_pb2.TrainModelMetadata,
    "EvaluateModel": automl_pb2.EvaluateModelMetadata,
    "CreateDeployment": deployment_pb2.DeploymentMetadata,
    "UpdateDeployment": deployment_pb2.DeploymentMetadata,
}


def result_of(method: str, request: Any) -> Any:
    """What the services would answer."""
    if method == "ImportDataset":
        return dataset_pb2.ImportDatasetResponse(dataset=dataset_pb2.Dataset(name=f"datasets/{request.dataset_id or 'cells'}"))
    if method == "AuditDataset":
        return dataset_pb2.AuditDatasetResponse(dataset=request.name, fixed_dataset=f"{request.name}-fixed" if request.fix else "")
    if method == "AugmentDataset":
        return augment_pb2.AugmentDatasetResponse(dataset=dataset_pb2.Dataset(name=f"{request.dataset}-augmented"))
    if method == "TrainModel":
        model = automl_pb2.Model(name=f"models/{request.model_id or 'cells'}", dataset=request.dataset, task=request.task)
        return automl_pb2.TrainModelResponse(model=model)
    if method == "EvaluateModel":
        return automl_pb2.EvaluateModelResponse(model=request.name, metrics=[report_pb2.Metric(name="map50", value=0.9)])
    name = f"deployments/{request.deployment_id}" if method == "CreateDeployment" else request.deployment.name
    return deployment_pb2.Deployment(name=name, models=request.deployment.models)


@dataclass
class FakeApi:
    """The public API in memory: a call takes three looks to be done."""

    fail: dict[str, Exception] = field(default_factory=dict)
    calls: dict[str, tuple[str, Any]] = field(default_factory=dict)
    looks: dict[str, int] = field(default_factory=dict)
    cancelled: list[str] = field(default_factory=list)
    order: list[str] = field(default_factory=list)

    def start(self, method: str, request: Any) -> operations_pb2.Operation:
        self.order.append(method)
        if method in self.fail:
            raise self.fail[method]
        assert uuid.UUID(request.request_id).version == 5
        name = f"operations/some-{request.request_id}"
        self.calls.setdefault(name, (method, request))
        return self.operation(name)

    def operation(self, name: str) -> operations_pb2.Operation:
        method, request = self.calls[name]
        look = self.looks[name] = self.looks.get(name, 0) + 1
        metadata = METADATA[method]()
        metadata.progress.fraction = min(1.0, look / 3)
        metadata.progress.state = report_pb2.Progress.STATE_SUCCEEDED if look >= 3 else report_pb2.Progress.STATE_RUNNING
        metadata.progress.create_time.GetCurrentTime()
        operation = operations_pb2.Operation(name=name, done=look >= 3)
        operation.metadata.Pack(metadata)
        if operation.done:
            operation.response.Pack(result_of(method, request))
        return operation

    def cancel(self, name: str) -> None:
        self.cancelled.append(name)

    def dataset(self, name: str) -> dataset_pb2.Dataset:
        return dataset_pb2.Dataset(name=name, splits=[dataset_pb2.SplitCount(split=task_pb2.SPLIT_TEST, sample_count=20)])

    def samples(self, dataset: str, split: int) -> Iterator[dataset_pb2.Sample]:
        for number in range(20):
            yield dataset_pb2.Sample(
                name=f"{dataset}/samples/{number}", annotations=[annotation_pb2.Annotation(class_name="yes" if number % 2 else "no")]
            )

    def predict(self, deployment: str, sample: str) -> inference_pb2.PredictResponse:
        number = int(sample.rpartition("/")[2])
        right = "yes" if number % 2 else "no"
        name = right if number >= 2 else "no"
        result = inference_pb2.ClassificationResult(
            scores=[inference_pb2.ClassificationResult.Score(class_name=name)], prediction_set=["no", "yes"]
        )
        return inference_pb2.PredictResponse(classification=result)


def request_of(**values: Any) -> pipeline_pb2.RunPipelineRequest:
    request = pipeline_pb2.RunPipelineRequest(**{"dataset": "datasets/cells", **values})
    request.budget.FromSeconds(60)
    return request


def pipeline_of(request: pipeline_pb2.RunPipelineRequest, api: FakeApi, fractions: list[float] | None = None, **values: Any) -> Pipeline:
    told = fractions if fractions is not None else []
    return Pipeline(
        **{
            "request": request,
            "operation_id": "gateway-x",
            "api": api,
            "metadata": pipeline_pb2.RunPipelineMetadata(),
            "report": lambda fraction, step, message: told.append(fraction),
            "check": lambda: None,
            "withdrawn": lambda: False,
            "pause": lambda seconds: None,
            **values,
        }
    )


def test_every_step_is_taken_in_order_and_feeds_the_next() -> None:
    api = FakeApi()
    request = request_of(
        pipeline_id="trial", evaluate=True, audit=dataset_pb2.AuditDatasetRequest(fix=True), augment=augment_pb2.AugmentDatasetRequest()
    )
    getattr(request, "import").CopyFrom(dataset_pb2.ImportDatasetRequest(source_uri="/images", dataset_id="blood"))
    fractions: list[float] = []
    pipeline = pipeline_of(request, api, fractions)
    response = pipeline.run()
    assert api.order == ["ImportDataset", "AuditDataset", "AugmentDataset", "TrainModel", "CreateDeployment"]
    requests = dict(api.calls.values())
    assert requests["TrainModel"].dataset == "datasets/blood-fixed-augmented"
    assert requests["TrainModel"].budget.seconds == 60
    assert requests["TrainModel"].model_id == "trial"
    assert requests["CreateDeployment"].deployment_id == "trial"
    assert (response.dataset.name, response.model.name, response.deployment.name) == ("datasets/blood", "models/trial", "deployments/trial")
    assert fractions == sorted(fractions)
    assert fractions[-1] == pytest.approx(1)
    steps = pipeline.metadata.steps
    assert [step.step for step in steps] == ["import", "audit", "augment", "train", "deploy", "evaluate"]
    assert all(step.progress.state == report_pb2.Progress.STATE_SUCCEEDED and step.HasField("end_time") for step in steps)
    assert [step.resource for step in steps][:2] == ["datasets/blood", "datasets/blood-fixed"]
    accuracy = response.metrics[0]
    assert (accuracy.name, accuracy.value, accuracy.sample_count) == ("accuracy", 0.95, 20)
    assert accuracy.lower < 0.95 < accuracy.upper


def test_detection_is_judged_by_the_automl_service() -> None:
    api = FakeApi()
    train = automl_pb2.TrainModelRequest(task=task_pb2.TASK_DETECTION)
    pipeline = pipeline_of(request_of(evaluate=True, train=train), api)
    response = pipeline.run()
    assert api.order == ["TrainModel", "CreateDeployment", "EvaluateModel"]
    assert dict(api.calls.values())["EvaluateModel"].name == "models/cells"
    assert [metric.name for metric in response.metrics] == ["map50"]
    assert pipeline.metadata.steps[-1].progress.state == report_pb2.Progress.STATE_SUCCEEDED


def test_run_again_it_makes_the_same_calls() -> None:
    api = FakeApi()
    pipeline_of(request_of(), api).run()
    before = dict(api.calls)
    pipeline_of(request_of(), api).run()
    assert api.calls == before
    other = FakeApi()
    pipeline_of(request_of(), other, operation_id="gateway-y").run()
    assert not set(other.calls) & set(before)
    assert step_request_id("gateway-x", "train") != step_request_id("gateway-x", "deploy")


def test_failing_step_is_named_and_nothing_follows() -> None:
    api = FakeApi(fail={"TrainModel": InvalidArgument("one class only", reason="SINGLE_CLASS", field="dataset")})
    with pytest.raises(InvalidArgument) as caught:
        pipeline_of(request_of(), api).run()
    assert caught.value.reason == "SINGLE_CLASS"
    assert api.order == ["TrainModel"]


def test_deployment_of_an_earlier_pipeline_gets_the_new_model() -> None:
    api = FakeApi(fail={"CreateDeployment": AlreadyExists("there is one", reason="DEPLOYMENT_EXISTS")})
    response = pipeline_of(request_of(pipeline_id="again"), api).run()
    assert api.order[-2:] == ["CreateDeployment", "UpdateDeployment"]
    assert response.deployment.models[0].model == "models/again"


@pytest.mark.parametrize(("cause", "passed_on"), [(StopCause.CANCELLED, True), (StopCause.OVERTAKEN, False), (StopCause.TERMINATED, False)])
def test_cancelling_stops_the_running_step_and_losing_the_lease_does_not(cause: StopCause, passed_on: bool) -> None:
    api = FakeApi()

    def check() -> None:
        if api.looks:
            raise JobStopped(cause)

    with pytest.raises(JobStopped):
        pipeline_of(request_of(), api, check=check).run()
    assert bool(api.cancelled) is passed_on


def test_test_part_without_classes_cannot_be_evaluated() -> None:
    api = FakeApi()
    api.samples = lambda dataset, split: iter(())  # type: ignore[method-assign]
    with pytest.raises(FailedPrecondition) as caught:
        pipeline_of(request_of(evaluate=True), api).run()
    assert caught.value.reason == "NO_TEST_SAMPLES"


def test_wilson_s_interval_has_its_published_values() -> None:
    # Newcombe (1998), table I, method 3: 81 of 263 and 0 of 20.
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    with pytest.raises(ValueError):
        wilson(1, 0)


def test_metrics_speak_of_each_class_and_of_the_sets() -> None:
    judged = [Judged("a", "a", ("a",)), Judged("a", "b", ("a", "b")), Judged("b", "b", ("a",)), Judged("b", "b", ("b",))]
    found = {(metric.name, metric.class_name): metric.value for metric in metrics(judged)}
    assert found == {
        ("accuracy", ""): 0.75,
        ("recall", "a"): 0.5,
        ("recall", "b"): 1.0,
        ("set_coverage", ""): 0.75,
        ("referral_rate", ""): 0.25,
    }
    assert metrics([]) == []


# The job as a process of its own, over gRPC, with services that keep their operations in memory.


@dataclass
class Service:
    """A service behind the gateway: its operations end when the test says so."""

    backend: Backend
    prefix: str
    started: dict[str, tuple[str, Any]] = field(default_factory=dict)
    finished: threading.Event = field(default_factory=threading.Event)
    cancelled: threading.Event = field(default_factory=threading.Event)

    def offer(self, service: str, method: str, request_type: Any) -> None:
        async def begin(request: Any, context: Any) -> operations_pb2.Operation:
            name = f"operations/{self.prefix}-{uuid.UUID(request.request_id).hex[:20]}"
            self.started.setdefault(name, (method, request))
            return self._operation(name)

        self.backend.methods[f"/{service}/{method}"] = grpc.unary_unary_rpc_method_handler(
            begin, request_type.FromString, operations_pb2.Operation.SerializeToString
        )

        async def get(request: operations_pb2.GetOperationRequest, context: Any) -> operations_pb2.Operation:
            return self._operation(request.name)

        async def cancel(request: operations_pb2.CancelOperationRequest, context: Any) -> empty_pb2.Empty:
            self.cancelled.set()
            return empty_pb2.Empty()

        operations = "/google.longrunning.Operations"
        self.backend.methods[f"{operations}/GetOperation"] = grpc.unary_unary_rpc_method_handler(
            get, operations_pb2.GetOperationRequest.FromString, operations_pb2.Operation.SerializeToString
        )
        self.backend.methods[f"{operations}/CancelOperation"] = grpc.unary_unary_rpc_method_handler(
            cancel, operations_pb2.CancelOperationRequest.FromString, empty_pb2.Empty.SerializeToString
        )

    def _operation(self, name: str) -> operations_pb2.Operation:
        method, request = self.started[name]
        metadata = METADATA[method]()
        metadata.progress.fraction = 0.5
        operation = operations_pb2.Operation(name=name, done=self.finished.is_set() or method == "ImportDataset")
        operation.metadata.Pack(metadata)
        if operation.done:
            operation.response.Pack(result_of(method, request))
        return operation


@pytest.fixture
def world(loop: Loop, tmp_path: Path) -> Iterator[tuple[Any, Service, Service]]:
    augment, automl = Service(Backend(), "augment"), Service(Backend(), "automl")
    for service in (augment, automl):
        loop.run(service.backend.start())
    augment.offer("oteo.augment.v1.DatasetService", "ImportDataset", dataset_pb2.ImportDatasetRequest)
    automl.offer("oteo.automl.v1.AutoMLService", "TrainModel", automl_pb2.TrainModelRequest)
    token = tmp_path / "token"
    token.write_text(TOKEN)
    settings = settings_for(
        tmp_path / "home",
        token=None,
        token_file=token,
        augment_address=f"127.0.0.1:{augment.backend.port}",
        automl_address=f"127.0.0.1:{automl.backend.port}",
        job_python=os.sys.executable,
    )
    with running_gateway(loop, settings, log_dir=tmp_path / "logs") as running:
        yield running, augment, automl
    for service in (augment, automl):
        loop.run(service.backend.stop())


def _begin(channel: grpc.Channel) -> operations_pb2.Operation:
    request = pipeline_pb2.RunPipelineRequest(pipeline_id="whole", skip_deployment=True)
    getattr(request, "import").CopyFrom(dataset_pb2.ImportDatasetRequest(source_uri="/images"))
    request.budget.FromSeconds(60)
    return pipeline_pb2_grpc.PipelineServiceStub(channel).RunPipeline(request, metadata=(("x-oteo-caller", "oidc:someone"),), timeout=60)


def _job() -> psutil.Process | None:
    for process in psutil.Process().children(recursive=True):
        try:
            if "oteo_gateway.job" in process.cmdline():
                return process
        except psutil.Error:
            continue
    return None


def test_killed_pipeline_goes_on_and_trains_once(world: tuple[Any, Service, Service]) -> None:
    running, augment, automl = world
    operation = _begin(running.channel)
    operations = operations_pb2_grpc.OperationsStub(running.channel)
    wait_for(lambda: automl.started, 40)
    # Its steps are the operations of who asked for it.
    assert automl.backend.metadata["x-oteo-caller"] == augment.backend.metadata["x-oteo-caller"] == "oidc:someone"
    job = _job()
    assert job is not None
    job.send_signal(signal.SIGKILL)
    wait_for(lambda: (again := _job()) is not None and again.pid != job.pid, 40)

    def metadata() -> pipeline_pb2.RunPipelineMetadata:
        found = pipeline_pb2.RunPipelineMetadata()
        operations.GetOperation(operations_pb2.GetOperationRequest(name=operation.name), timeout=60).metadata.Unpack(found)
        return found

    wait_for(lambda: metadata().progress.attempt == 2 and metadata().progress.stage == "train", 40)
    assert metadata().steps[1].operation.startswith("operations/automl-")
    automl.finished.set()
    done = wait_for(
        lambda: (found := operations.GetOperation(operations_pb2.GetOperationRequest(name=operation.name), timeout=60)).done and found, 40
    )
    response = pipeline_pb2.RunPipelineResponse()
    assert done.response.Unpack(response)
    assert (response.model.name, len(augment.started), len(automl.started)) == ("models/whole", 1, 1)


def test_cancelled_pipeline_cancels_its_step(world: tuple[Any, Service, Service]) -> None:
    running, _, automl = world
    operation = _begin(running.channel)
    operations = operations_pb2_grpc.OperationsStub(running.channel)
    wait_for(lambda: automl.started, 40)
    operations.CancelOperation(operations_pb2.CancelOperationRequest(name=operation.name), timeout=60)
    assert automl.cancelled.wait(patient(5))
    done = wait_for(
        lambda: (found := operations.GetOperation(operations_pb2.GetOperationRequest(name=operation.name), timeout=60)).done and found, 10
    )
    assert done.error.code == grpc.StatusCode.CANCELLED.value[0]
    wait_for(lambda: _job() is None, 10)


def test_name_that_is_taken_is_refused_before_anything_runs(world: tuple[Any, Service, Service]) -> None:
    running, augment, _ = world
    publish_model(open_store(running.settings), "whole")
    with pytest.raises(grpc.RpcError) as caught:
        _begin(running.channel)
    assert details_of(caught.value)[0] == "MODEL_EXISTS"
    assert not augment.started
