"""The pipeline's steps, one after another, each a call of the public API that is made once however often the pipeline is run."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, TypeVar

from google.protobuf.message import Message

from oteo_core.errors import AlreadyExists, DeadlineExceeded, FailedPrecondition, Internal, OteoError, from_status
from oteo_core.jobs.watch import JobStopped, StopCause
from oteo_core.operations.model import unpack
from oteo_gateway.pipeline.api import PipelineApi, progress_of, step_request_id
from oteo_gateway.pipeline.evaluation import Judged, metrics
from oteo_protos.augment.v1 import augment_pb2, dataset_pb2
from oteo_protos.automl.v1 import automl_pb2
from oteo_protos.gateway.v1 import deployment_pb2, pipeline_pb2
from oteo_protos.type.v1 import report_pb2, task_pb2

R = TypeVar("R", bound=Message)

_POLL_SECONDS = 0.5
_EVALUATED_AT_A_TIME = 4
_DONE = {report_pb2.Progress.STATE_SUCCEEDED, report_pb2.Progress.STATE_FAILED, report_pb2.Progress.STATE_CANCELLED}

# Expected seconds of each step but the training, whose budget is known; they only weigh the overall fraction.
_JUDGED_HERE = (task_pb2.TASK_UNSPECIFIED, task_pb2.TASK_CLASSIFICATION)

EXPECTED_SECONDS = {"import": 15.0, "audit": 20.0, "augment": 30.0, "deploy": 8.0, "evaluate": 10.0}


def planned_steps(request: pipeline_pb2.RunPipelineRequest) -> list[str]:
    """Give the names of the steps that a request asks for, in order."""
    chosen = [
        ("import", request.HasField("import")),
        ("audit", request.HasField("audit")),
        ("augment", request.HasField("augment")),
        ("train", True),
        ("deploy", not request.skip_deployment),
        ("evaluate", request.evaluate and not request.skip_deployment),
    ]
    return [name for name, wanted in chosen if wanted]


@dataclass
class Pipeline:
    """One run of a pipeline.

    Parameters
    ----------
    request
        What was asked for.
    operation_id
        The pipeline's own operation, from which its calls' request ids are made.
    api
        The public API.
    metadata
        The operation's metadata; its steps are kept up to date.
    report
        Called with the overall fraction (0 to 1), the running step and what it says of itself, after the metadata changed.
    check
        Raises when the pipeline is to stop.
    withdrawn
        Tells, when the process is told to end, whether a caller cancelled the pipeline: a signal alone does not say.
    pause
        Waits some seconds.
    """

    request: pipeline_pb2.RunPipelineRequest
    operation_id: str
    api: PipelineApi
    metadata: pipeline_pb2.RunPipelineMetadata
    report: Callable[[float, str, str], None]
    check: Callable[[], None]
    withdrawn: Callable[[], bool]
    pause: Callable[[float], None] = time.sleep
    _weights: dict[str, float] = field(default_factory=dict)

    def run(self) -> pipeline_pb2.RunPipelineResponse:
        """Run all steps.

        Raises
        ------
        OteoError
            What a step failed with.
        """
        names = planned_steps(self.request)
        del self.metadata.steps[:]
        self.metadata.steps.extend(pipeline_pb2.PipelineStep(step=name) for name in names)
        self._weights = {name: EXPECTED_SECONDS.get(name, 0.0) for name in names}
        self._weights["train"] = max(1.0, float(self.request.budget.ToTimedelta().total_seconds()))
        response = pipeline_pb2.RunPipelineResponse()
        response.dataset.CopyFrom(self._import() if "import" in names else self.api.dataset(self.request.dataset))
        dataset = response.dataset.name
        if "audit" in names:
            dataset = self._audit(dataset)
        if "augment" in names:
            response.augmented_dataset.CopyFrom(self._augment(dataset))
            dataset = response.augmented_dataset.name
        response.model.CopyFrom(self._train(dataset))
        if "deploy" in names:
            response.deployment.CopyFrom(self._deploy(response.model))
        if "evaluate" in names:
            judged = self._evaluate if response.model.task in _JUDGED_HERE else self._have_judged
            response.metrics.extend(judged(response, dataset))
        return response

    def _import(self) -> dataset_pb2.Dataset:
        request = dataset_pb2.ImportDatasetRequest()
        request.CopyFrom(getattr(self.request, "import"))
        request.validate_only = False
        result = self._long("import", "ImportDataset", request, dataset_pb2.ImportDatasetResponse)
        self._made("import", result.dataset.name)
        return result.dataset

    def _audit(self, dataset: str) -> str:
        request = dataset_pb2.AuditDatasetRequest()
        request.CopyFrom(self.request.audit)
        request.name = dataset
        result = self._long("audit", "AuditDataset", request, dataset_pb2.AuditDatasetResponse)
        self._made("audit", result.fixed_dataset or dataset)
        return result.fixed_dataset or dataset

    def _augment(self, dataset: str) -> dataset_pb2.Dataset:
        request = augment_pb2.AugmentDatasetRequest()
        request.CopyFrom(self.request.augment)
        request.dataset = dataset
        result = self._long("augment", "AugmentDataset", request, augment_pb2.AugmentDatasetResponse)
        self._made("augment", result.dataset.name)
        return result.dataset

    def _train(self, dataset: str) -> automl_pb2.Model:
        request = automl_pb2.TrainModelRequest()
        request.CopyFrom(self.request.train)
        request.dataset = dataset
        request.budget.CopyFrom(self.request.budget)
        request.validate_only = False
        request.model_id = request.model_id or self.request.pipeline_id
        result = self._long("train", "TrainModel", request, automl_pb2.TrainModelResponse)
        self._made("train", result.model.name)
        return result.model

    def _deploy(self, model: automl_pb2.Model) -> deployment_pb2.Deployment:
        model_id = model.name.removeprefix("models/")
        deployment_id = self.request.pipeline_id or model_id
        wanted = deployment_pb2.Deployment(display_name=model.display_name, models=[deployment_pb2.DeployedModel(model=model.name)])
        create = deployment_pb2.CreateDeploymentRequest(deployment_id=deployment_id, deployment=wanted)
        try:
            result = self._long("deploy", "CreateDeployment", create, deployment_pb2.Deployment)
        except AlreadyExists as error:
            if error.reason != "DEPLOYMENT_EXISTS":
                raise
            # An earlier pipeline of this name: the new model takes the old one's place.
            wanted.name = f"deployments/{deployment_id}"
            update = deployment_pb2.UpdateDeploymentRequest(deployment=wanted)
            update.update_mask.paths.extend(["models", "display_name"])
            result = self._long("deploy", "UpdateDeployment", update, deployment_pb2.Deployment)
        self._made("deploy", result.name)
        return result

    def _have_judged(self, response: pipeline_pb2.RunPipelineResponse, dataset: str) -> list[report_pb2.Metric]:
        """Have the automl service judge the model where an answer is more than a class."""
        request = automl_pb2.EvaluateModelRequest(name=response.model.name, dataset=dataset)
        result = self._long("evaluate", "EvaluateModel", request, automl_pb2.EvaluateModelResponse)
        self._made("evaluate", response.model.name)
        return list(result.metrics)

    def _evaluate(self, response: pipeline_pb2.RunPipelineResponse, dataset: str) -> list[report_pb2.Metric]:
        """Judge the deployment on the test part of the dataset that the model was trained on."""
        deployment = response.deployment.name
        step = self._step("evaluate")
        step.start_time.GetCurrentTime()
        step.progress.state = report_pb2.Progress.STATE_RUNNING
        total = next((s.sample_count for s in self.api.dataset(dataset).splits if s.split == task_pb2.SPLIT_TEST), 0)
        samples = iter(self.api.samples(dataset, task_pb2.SPLIT_TEST))
        judged: list[Judged] = []
        with ThreadPoolExecutor(_EVALUATED_AT_A_TIME) as pool:
            while batch := list(islice(samples, 4 * _EVALUATED_AT_A_TIME)):
                self.check()
                judged += [case for case in pool.map(lambda sample: self._judge(deployment, sample), batch) if case is not None]
                step.progress.fraction = min(1.0, len(judged) / max(1, total))
                step.progress.message = f"{len(judged)} of {total} test samples"
                self._tell("evaluate")
        if not judged:
            raise FailedPrecondition(f"{dataset} has no test samples with a class to evaluate on.", reason="NO_TEST_SAMPLES")
        self._made("evaluate", deployment)
        return metrics(judged)

    def _judge(self, deployment: str, sample: dataset_pb2.Sample) -> Judged | None:
        classes = [a.class_name for a in sample.annotations if a.WhichOneof("geometry") is None and a.class_name]
        if len(classes) != 1 or sample.excluded:
            return None
        result = self.api.predict(deployment, sample.name).classification
        return Judged(classes[0], result.scores[0].class_name, tuple(result.prediction_set))

    def _long(self, name: str, method: str, request: Any, response_type: type[R]) -> R:
        """Make a step's call, wait for its operation and give the response.

        Raises
        ------
        OteoError
            What the call or its operation failed with.
        """
        step = self._step(name)
        request.request_id = step_request_id(self.operation_id, f"{name}/{method}")
        self.check()
        self._tell(name)
        operation = self.api.start(method, request)
        step.operation = operation.name
        while True:
            progress = progress_of(operation)
            step.progress.CopyFrom(progress)
            for target, source in (("start_time", "create_time"), ("end_time", "end_time")):
                if progress.HasField(source):
                    getattr(step, target).CopyFrom(getattr(progress, source))
            self._tell(name)
            if operation.done:
                break
            try:
                self.check()
                self.pause(_POLL_SECONDS)
            except (JobStopped, DeadlineExceeded) as stop:
                # Who stops the pipeline means the step too; a job that only lost its lease does not: another attempt goes on with it.
                if isinstance(stop, DeadlineExceeded) or stop.cause is StopCause.CANCELLED or self.withdrawn():
                    self.api.cancel(operation.name)
                raise
            operation = self.api.operation(operation.name)
        if operation.HasField("error"):
            raise _at_step(name, from_status(operation.error))
        message = unpack(operation.response)
        if not isinstance(message, response_type):
            raise Internal(f"{method} ended with {operation.response.type_url!r} instead of {response_type.DESCRIPTOR.full_name}.")
        return message

    def _step(self, name: str) -> pipeline_pb2.PipelineStep:
        return next(step for step in self.metadata.steps if step.step == name)

    def _made(self, name: str, resource: str) -> None:
        step = self._step(name)
        step.resource = resource
        step.progress.fraction = 1.0
        step.progress.state = report_pb2.Progress.STATE_SUCCEEDED
        if not step.HasField("end_time"):
            step.end_time.GetCurrentTime()
        self._tell(name)

    def _tell(self, name: str) -> None:
        total = sum(self._weights.values())
        done = sum(
            self._weights[step.step] * (1.0 if step.progress.state in _DONE else min(1.0, step.progress.fraction))
            for step in self.metadata.steps
        )
        progress = self._step(name).progress
        self.report(done / total, name, progress.message or progress.stage)


def _at_step(name: str, error: OteoError) -> OteoError:
    """Say in which step an error happened, and keep all else."""
    return type(error)(
        f"The step {name!r} failed: {error.message}",
        reason=error.reason,
        metadata={**error.metadata, "step": name},
        retry_after=error.retry_after,
    )
