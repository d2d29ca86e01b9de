"""`AutoMLService`: decode, check, start jobs, read packages, encode."""

from __future__ import annotations

import hashlib
import json

import grpc
from google.longrunning import operations_pb2
from google.protobuf import empty_pb2

from oteo_automl.candidates.registry import check_names
from oteo_automl.evaluations import evaluation_to_proto, list_evaluations
from oteo_automl.exporting.catalogue import check_form
from oteo_automl.judging.rows import check_pairing
from oteo_automl.objectives import OBJECTIVES, choose_objective
from oteo_automl.requests import parts_of, path_of
from oteo_automl.settings import AutoMLSettings
from oteo_core.artifacts import ArtifactStore
from oteo_core.datasets import DatasetInfo, DatasetReader, new_id
from oteo_core.datasets.proto import TASKS, name_of
from oteo_core.errors import AlreadyExists, Cancelled, FailedPrecondition, InvalidArgument, NotFound, Unimplemented
from oteo_core.exports import EXPORTS, parse_destination
from oteo_core.operations import OperationManager
from oteo_core.operations.replays import once
from oteo_core.packages import MANIFEST, ModelPackage, TrialRecord, delete_model, list_models, model_prefix, read_model
from oteo_core.packages.proto import variant_name
from oteo_core.pagination import falling, page_size, paginate
from oteo_protos.automl.v1 import automl_pb2, automl_pb2_grpc

_TRAIN, _EXPORT, _EVALUATE, _COMBINE = "TrainModel", "ExportModel", "EvaluateModel", "CombinePredictions"
LEADERBOARD = "leaderboard.json"
"""Checkpoint in which a running training keeps its trials, best first: a JSON list of `TrialRecord.to_dict`."""
_CLASSIFICATION = "classification"
_HUB = "hub:"
_DISTILLED = (_CLASSIFICATION, "multi_label_classification")
_DECIDED = _DISTILLED
"""Tasks in which an image as a whole has classes: with operating points and conformal sets."""
_TRAINED = tuple(OBJECTIVES)


class AutoMLService(automl_pb2_grpc.AutoMLServiceServicer):
    """Training and models over gRPC. Handlers block; the server runs them in threads.

    Parameters
    ----------
    settings
        The service's.
    operations
        The service's operations.
    artifacts
        Where datasets and models lie.
    """

    def __init__(self, settings: AutoMLSettings, operations: OperationManager, artifacts: ArtifactStore) -> None:
        self._settings = settings
        self._operations = operations
        self._artifacts = artifacts

    def TrainModel(self, request: automl_pb2.TrainModelRequest, context: grpc.ServicerContext) -> operations_pb2.Operation:
        """Check what can be checked at once, then start the training; ``validate_only`` starts a job that plans and trains nothing."""
        if request.request_id and self._operations.find_request(_TRAIN, request.request_id) is not None:
            return self._start(request, "")
        info = self._dataset(request.dataset)
        self._check_task(request, info)
        if info.task == _CLASSIFICATION:
            check_names(request.candidates)
        if request.checkpoints and info.task != _CLASSIFICATION:
            raise InvalidArgument(
                f"checkpoints are taken for {_CLASSIFICATION}, and {request.dataset} is annotated for {info.task}",
                reason="CHECKPOINTS_NOT_FOR_TASK",
                field="checkpoints",
            )
        if request.pretrained_uri.partition("#")[0] == _HUB and not self._settings.allow_hub:
            raise FailedPrecondition(
                "this service may not ask the hub for weights (its setting allow_hub is off): give a folder or a URI of weights",
                reason="HUB_NOT_ALLOWED",
                field="pretrained_uri",
            )
        self._check_unlabelled(request, info)
        self._check_decisions(request, info)
        return self._start(request, self._target(request, info))

    def EvaluateModel(self, request: automl_pb2.EvaluateModelRequest, context: grpc.ServicerContext) -> operations_pb2.Operation:
        """Refuse what cannot be judged, then start judging."""
        if not (request.request_id and self._operations.find_request(_EVALUATE, request.request_id) is not None):
            package = read_model(self._artifacts, request.name)
            check_pairing(package, self._dataset(request.dataset), parts_of(request), leave_out_unknown=request.leave_out_unknown_classes)
        return self._operations.start(
            _EVALUATE,
            request,
            metadata=automl_pb2.EvaluateModelMetadata(model=request.name, dataset=request.dataset),
            request_id=request.request_id,
        )

    def ListEvaluations(
        self, request: automl_pb2.ListEvaluationsRequest, context: grpc.ServicerContext
    ) -> automl_pb2.ListEvaluationsResponse:
        """Give a page of evaluations, newest first."""
        found = list_evaluations(self._artifacts, model=request.model, dataset=request.dataset)
        page, token = paginate(
            request,
            found,
            lambda one: falling(f"{one.create_time} {one.operation}"),
            token=request.page_token,
            size=page_size(request.page_size),
        )
        answers = [evaluation_to_proto(self._artifacts, one) for one in page]
        return automl_pb2.ListEvaluationsResponse(evaluations=answers, next_page_token=token)

    def CombinePredictions(self, request: automl_pb2.CombinePredictionsRequest, context: grpc.ServicerContext) -> operations_pb2.Operation:
        """Refuse files that are not there, then start combining."""
        if not (request.request_id and self._operations.find_request(_COMBINE, request.request_id) is not None):
            for entry in request.inputs:
                path_of(self._artifacts, entry.uri)
            if request.dataset:
                self._dataset(request.dataset)
        return self._operations.start(_COMBINE, request, metadata=automl_pb2.CombinePredictionsMetadata(), request_id=request.request_id)

    def ExportModel(self, request: automl_pb2.ExportModelRequest, context: grpc.ServicerContext) -> operations_pb2.Operation:
        """Refuse what cannot be written, then start the export."""
        resource = ""
        if not (request.request_id and self._operations.find_request(_EXPORT, request.request_id) is not None):
            form = automl_pb2.ModelFormat.Name(request.format).removeprefix("MODEL_FORMAT_").lower()
            check_form(read_model(self._artifacts, request.name), form, variant_name(request.variant), tensorrt=request.tensorrt)
            if request.destination_uri:
                destination = parse_destination(request.destination_uri, self._artifacts)
                destination.refuse_if_taken()
                # Two exports to one place at a time: the second is told so at once.
                resource = f"{EXPORTS}/{hashlib.sha256(destination.uri.encode()).hexdigest()[:32]}"
        return self._operations.start(
            _EXPORT,
            request,
            metadata=automl_pb2.ExportModelMetadata(model=request.name),
            request_id=request.request_id,
            resource=resource,
        )

    def CompareModels(self, request: automl_pb2.CompareModelsRequest, context: grpc.ServicerContext) -> automl_pb2.CompareModelsResponse:
        """Compare models, on the test images that all of them answered where there are any."""
        # Measuring stands on libraries that nothing else here needs.
        from oteo_automl.comparing.comparing import compare_models
        from oteo_automl.comparing.proto import comparison_to_proto

        def check() -> None:
            if not context.is_active():
                raise Cancelled("nobody waits for the comparison any more", reason="CALLER_GONE")

        packages = [read_model(self._artifacts, name) for name in request.names]
        return comparison_to_proto(compare_models(self._artifacts, packages, metric=request.metric, seed=request.seed, check=check))

    def ListTrials(self, request: automl_pb2.ListTrialsRequest, context: grpc.ServicerContext) -> automl_pb2.ListTrialsResponse:
        """Give a page of trials, best first: of a model from its package, of a training from what its job has written down."""
        if request.parent.startswith("models/"):
            try:
                package = read_model(self._artifacts, request.parent)
            except NotFound as error:
                raise NotFound(error.message, reason=error.reason, field="parent") from error
            model, trials = package.id, package.trials
        else:
            row = self._operations.row(request.parent)
            metadata = automl_pb2.TrainModelMetadata()
            if row.method != _TRAIN or not self._operations.fresh(row).metadata.Unpack(metadata):
                raise NotFound(f"{request.parent} is not a training", reason="OPERATION_NOT_FOUND", field="parent")
            model = metadata.model.removeprefix("models/")
            trials = self._leaderboard(row.id, model)
        numbered = list(enumerate(trials))
        page, token = paginate(
            request, numbered, lambda pair: f"{pair[0]:08d}", token=request.page_token, size=page_size(request.page_size, default=100)
        )
        return automl_pb2.ListTrialsResponse(trials=[trial.to_proto(model) for _, trial in page], next_page_token=token)

    def GetModel(self, request: automl_pb2.GetModelRequest, context: grpc.ServicerContext) -> automl_pb2.Model:
        """Give one model."""
        return read_model(self._artifacts, request.name).to_proto()

    def ListModels(self, request: automl_pb2.ListModelsRequest, context: grpc.ServicerContext) -> automl_pb2.ListModelsResponse:
        """Give a page of models, newest first."""
        task = name_of(TASKS, request.task) if request.task else ""
        found = [
            package
            for package in list_models(self._artifacts)
            if (not task or package.task == task) and (not request.dataset or package.dataset == request.dataset)
        ]

        def key(package: ModelPackage) -> str:
            return falling(f"{package.create_time.isoformat()} {package.id}")

        page, token = paginate(request, found, key, token=request.page_token, size=page_size(request.page_size))
        return automl_pb2.ListModelsResponse(models=[package.to_proto() for package in page], next_page_token=token)

    def DeleteModel(self, request: automl_pb2.DeleteModelRequest, context: grpc.ServicerContext) -> empty_pb2.Empty:
        """Delete a model that is not being made."""
        with once(self._artifacts, "DeleteModel", request.request_id, request.name) as due:
            if due:
                self._operations.refuse_being_made(request.name, "MODEL_IN_USE")
                delete_model(self._artifacts, request.name, allow_missing=request.allow_missing)
        return empty_pb2.Empty()

    # What the handlers stand on.

    def _dataset(self, name: str) -> DatasetInfo:
        try:
            return DatasetReader(self._artifacts, name.removeprefix("datasets/")).info
        except NotFound:
            raise NotFound(
                f"there is no dataset {name}: import one, or look at the list of datasets", reason="DATASET_NOT_FOUND", field="dataset"
            ) from None

    def _check_unlabelled(self, request: automl_pb2.TrainModelRequest, info: DatasetInfo) -> None:
        if not request.unlabelled_dataset:
            return
        if info.task not in _DISTILLED:
            raise InvalidArgument(
                f"unlabelled images help with {' and '.join(_DISTILLED)} only; leave unlabelled_dataset out for {info.task}",
                reason="WRONG_TASK",
                field="unlabelled_dataset",
            )
        try:
            DatasetReader(self._artifacts, request.unlabelled_dataset.removeprefix("datasets/"))
        except NotFound:
            raise NotFound(
                f"there is no dataset {request.unlabelled_dataset} of unlabelled images: import one",
                reason="DATASET_NOT_FOUND",
                field="unlabelled_dataset",
            ) from None

    @staticmethod
    def _check_decisions(request: automl_pb2.TrainModelRequest, info: DatasetInfo) -> None:
        """Refuse wishes for how classes of whole images are decided that cannot be kept."""
        if info.task not in _DECIDED:
            words = f"and {request.dataset} is annotated for {info.task}, which has no class for the whole image"
            if request.operating_points:
                raise InvalidArgument(
                    f"operating points are thresholds on the probability of an image's class, for {' and '.join(_DECIDED)}; {words}: leave "
                    "operating_points out",
                    reason="OPERATING_POINTS_NOT_FOR_TASK",
                    field="operating_points",
                )
            if request.conformal_coverage:
                raise InvalidArgument(
                    f"a conformal coverage is for sets of an image's possible classes, for {' and '.join(_DECIDED)}; {words}: leave "
                    "conformal_coverage out",
                    reason="COVERAGE_NOT_FOR_TASK",
                    field="conformal_coverage",
                )
        if request.conformal_coverage and request.conformal_coverage < 0.5:
            raise InvalidArgument(
                "a coverage below one half says nothing; give 0.5 to 0.999", reason="BAD_COVERAGE", field="conformal_coverage"
            )
        for index, point in enumerate(request.operating_points):
            if point.class_name not in info.classes:
                raise InvalidArgument(
                    f"{request.dataset} has no class {point.class_name!r}",
                    reason="UNKNOWN_CLASS",
                    field=f"operating_points[{index}].class_name",
                )

    @staticmethod
    def _check_task(request: automl_pb2.TrainModelRequest, info: DatasetInfo) -> None:
        asked = name_of(TASKS, request.task) if request.task else info.task
        if asked != info.task:
            raise InvalidArgument(
                f"{request.dataset} is annotated for {info.task}, which cannot train a model for {asked}", reason="WRONG_TASK", field="task"
            )
        if asked not in _TRAINED:
            raise Unimplemented(
                f"training for {asked} comes with a later release; this one trains for {', '.join(_TRAINED)}",
                reason="NOT_IN_THIS_RELEASE",
                field="task",
            )
        choose_objective(asked, request.objective)
        present = [entry.name for entry in info.class_info if entry.sample_count]
        if asked == _CLASSIFICATION and len(present) < 2:
            raise InvalidArgument(
                f"{request.dataset} has images of one class only ({', '.join(present) or 'none'}); a classifier needs two",
                reason="SINGLE_CLASS",
                field="dataset",
            )

    def _target(self, request: automl_pb2.TrainModelRequest, info: DatasetInfo) -> str:
        """Give the new model's id."""

        def taken(model: str) -> bool:
            return self._artifacts.is_file(f"{model_prefix(model)}/{MANIFEST}")

        if request.model_id:
            if taken(request.model_id):
                raise AlreadyExists(
                    f"there is a model models/{request.model_id} already: choose another model_id or delete it",
                    reason="MODEL_EXISTS",
                    field="model_id",
                )
            return request.model_id
        name = request.display_name or info.id
        return new_id(name, lambda model: taken(model) or bool(self._operations.live(model_prefix(model))))

    def _start(self, request: automl_pb2.TrainModelRequest, target: str) -> operations_pb2.Operation:
        model = model_prefix(target) if target else ""
        return self._operations.start(
            _TRAIN,
            request,
            metadata=automl_pb2.TrainModelMetadata(dataset=request.dataset, model=model, tracking_uri=self._settings.mlflow_uri),
            request_id=request.request_id,
            resource="" if request.validate_only else model,
        )

    def _leaderboard(self, operation: str, model: str) -> list[TrialRecord]:
        try:
            stored = self._artifacts.read_bytes(f"operations/{operation}/checkpoints/{LEADERBOARD}")
        except NotFound:
            # Nothing tried yet, or done: a finished training's trials are in its package.
            try:
                package = read_model(self._artifacts, model)
            except NotFound:
                return []
            return package.trials if package.operation == operation else []
        return [TrialRecord.from_dict(entry) for entry in json.loads(stored)]
