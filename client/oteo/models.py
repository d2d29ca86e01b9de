"""Models: trained, judged, listed, exported."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import grpc
from google.protobuf import empty_pb2

from oteo.connection import call, pages
from oteo.names import enum_name, resource, source_uri
from oteo.operations import OperationHandle
from oteo_protos.automl.v1 import automl_pb2, automl_pb2_grpc
from oteo_protos.type.v1 import task_pb2


class Models:
    """Models of the automl service."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel
        self._stub = automl_pb2_grpc.AutoMLServiceStub(channel)

    def train(
        self,
        dataset: str,
        *,
        budget: float,
        name: str = "",
        model_id: str = "",
        task: str | None = None,
        objective: str = "",
        candidates: Iterable[str] = (),
        pretrained_uri: str = "",
        checkpoints: Iterable[automl_pb2.Checkpoint | Mapping[str, Any]] = (),
        max_latency: float | None = None,
        conformal_coverage: float = 0.0,
        operating_points: Iterable[automl_pb2.OperatingPointRequest | Mapping[str, Any]] = (),
        unlabelled_dataset: str = "",
        variants: Iterable[str] = (),
        max_variant_loss: float = 0.0,
        labels: Mapping[str, str] | None = None,
        seed: int = 0,
        validate_only: bool = False,
        request_id: str | None = None,
    ) -> OperationHandle[automl_pb2.TrainModelResponse]:
        """Train the best model that the budget allows.

        Parameters
        ----------
        dataset
            Short or full name.
        budget
            Wall-clock seconds for everything up to the published package.
        name, model_id
            For people; the model's id, empty: made from the dataset's.
        task, objective
            What is asked of an image, None: as annotated; the metric to choose by, empty: the task's usual one.
        candidates
            To try, by name or by what their names begin with; none: all that fit.
        pretrained_uri
            Where pretrained weights lie, for the service to read.
        checkpoints
            Networks that were trained elsewhere: ``{"uri": …, "architecture": "resnet18", "name": …, "classes": […]}``.
        max_latency
            Longest seconds for one image at inference; None: no limit.
        conformal_coverage
            Share of cases whose true class the prediction set must hold; 0: 0.9.
        operating_points
            ``{"class_name": "tumour", "sensitivity": 0.95}`` or with ``"specificity"``.
        unlabelled_dataset
            Images without annotations to learn from too.
        variants, max_variant_loss
            ``"fp16"``, ``"int8"``: smaller or faster forms to make beside the model, and what they may lose; 0: 0.01.
        labels
            Free words.
        seed
            Of every draw.
        validate_only
            True: plan, train nothing.
        request_id
            A UUID; the same twice gives the first operation.
        """
        request = automl_pb2.TrainModelRequest(
            dataset=resource("datasets", dataset),
            model_id=model_id,
            display_name=name,
            task=enum_name(task_pb2.Task, "TASK_", task, "task"),
            objective=objective,
            candidates=list(candidates),
            pretrained_uri=pretrained_uri,
            checkpoints=[_checkpoint(one) for one in checkpoints],
            conformal_coverage=conformal_coverage,
            operating_points=[
                one if isinstance(one, automl_pb2.OperatingPointRequest) else automl_pb2.OperatingPointRequest(**one)
                for one in operating_points
            ],
            unlabelled_dataset=resource("datasets", unlabelled_dataset) if unlabelled_dataset else "",
            variants=[enum_name(automl_pb2.ModelVariant, "MODEL_VARIANT_", one, "variants") for one in variants],
            max_variant_loss=max_variant_loss,
            labels=labels,
            seed=seed,
            validate_only=validate_only,
            request_id=request_id or str(uuid.uuid4()),
        )
        request.budget.FromNanoseconds(int(budget * 1e9))
        if max_latency is not None:
            request.max_latency.FromNanoseconds(round(max_latency * 1e9))
        operation = call(self._stub.TrainModel, request, timeout=120)
        return OperationHandle(self._channel, operation, automl_pb2.TrainModelResponse)

    def get(self, name: str) -> automl_pb2.Model:
        """Give one model."""
        return call(self._stub.GetModel, automl_pb2.GetModelRequest(name=resource("models", name)), timeout=30)

    def list(self, limit: int | None = None) -> Iterator[automl_pb2.Model]:
        """Give models, newest first."""
        return pages(self._stub.ListModels, automl_pb2.ListModelsRequest(), "models", limit)

    def trials(self, parent: str, limit: int | None = None) -> Iterator[automl_pb2.Trial]:
        """Give what was tried for a model, or by a running training's operation, best first."""
        parent = parent if parent.startswith("operations/") else resource("models", parent)
        return pages(self._stub.ListTrials, automl_pb2.ListTrialsRequest(parent=parent), "trials", limit)

    def evaluations(self, name: str = "", *, dataset: str = "", limit: int | None = None) -> Iterator[automl_pb2.EvaluateModelResponse]:
        """Give evaluations of a model, on a dataset, or all; newest first."""
        request = automl_pb2.ListEvaluationsRequest(
            model=resource("models", name) if name else "", dataset=resource("datasets", dataset) if dataset else ""
        )
        return pages(self._stub.ListEvaluations, request, "evaluations", limit)

    def delete(self, name: str, *, allow_missing: bool = False) -> empty_pb2.Empty:
        """Delete a model and its package."""
        request = automl_pb2.DeleteModelRequest(name=resource("models", name), allow_missing=allow_missing, request_id=str(uuid.uuid4()))
        return call(self._stub.DeleteModel, request, timeout=120)

    def evaluate(
        self,
        name: str,
        dataset: str,
        *,
        splits: Iterable[str] = (),
        subgroups: Iterable[str] = (),
        formats: Iterable[str] = (),
        leave_out_unknown_classes: bool = False,
        seed: int = 0,
        request_id: str | None = None,
    ) -> OperationHandle[automl_pb2.EvaluateModelResponse]:
        """Judge a model on a dataset.

        Parameters
        ----------
        name, dataset
            The model and the dataset.
        splits
            Its parts; none: the test part.
        subgroups
            What to tell apart: ``"source-folder"``, ``"group"``, ``"image-size"``, …; none: all that the data tells apart.
        formats
            Forms of the predictions: ``"csv"``, ``"coco"``, ``"voc"``; none: CSV.
        leave_out_unknown_classes
            Whether to judge without what is of classes that the model does not know, instead of being refused.
        seed
            Seed of the intervals.
        request_id
            A UUID; the same twice gives the first answer.
        """
        request = automl_pb2.EvaluateModelRequest(
            name=resource("models", name),
            dataset=resource("datasets", dataset),
            splits=[enum_name(task_pb2.Split, "SPLIT_", split, "splits") for split in splits],
            subgroups=[enum_name(automl_pb2.Subgroup, "SUBGROUP_", one, "subgroups") for one in subgroups],
            prediction_formats=_formats(formats),
            leave_out_unknown_classes=leave_out_unknown_classes,
            seed=seed,
            request_id=request_id or str(uuid.uuid4()),
        )
        return OperationHandle(self._channel, call(self._stub.EvaluateModel, request, timeout=60), automl_pb2.EvaluateModelResponse)

    def combine(
        self,
        predictions: Iterable[str],
        method: str,
        *,
        weights: Iterable[float] = (),
        iou: float = 0.0,
        score_threshold: float = 0.0,
        dataset: str = "",
        formats: Iterable[str] = (),
        request_id: str | None = None,
    ) -> OperationHandle[automl_pb2.CombinePredictionsResponse]:
        """Make one set of objects of what several detectors found.

        Parameters
        ----------
        predictions
            URIs of prediction files in the artifact store, of any form.
        method
            ``"affirmative"``, ``"consensus"``, ``"unanimous"`` or ``"weighted-box-fusion"``.
        weights
            How much each counts in weighted box fusion; none: all alike.
        iou
            Overlap from which two boxes are of one object; 0: the method's usual one.
        score_threshold
            Objects below it take no part.
        dataset
            Judges result and inputs, where given.
        formats
            Forms of the result; none: CSV.
        request_id
            A UUID; the same twice gives the first answer.
        """
        uris, given = list(predictions), list(weights)
        request = automl_pb2.CombinePredictionsRequest(
            inputs=[
                automl_pb2.CombinePredictionsRequest.Input(uri=uri, weight=given[place] if place < len(given) else 0.0)
                for place, uri in enumerate(uris)
            ],
            method=enum_name(automl_pb2.CombinationMethod, "COMBINATION_METHOD_", method, "method"),
            iou=iou,
            score_threshold=score_threshold,
            dataset=resource("datasets", dataset) if dataset else "",
            prediction_formats=_formats(formats),
            request_id=request_id or str(uuid.uuid4()),
        )
        operation = call(self._stub.CombinePredictions, request, timeout=60)
        return OperationHandle(self._channel, operation, automl_pb2.CombinePredictionsResponse)

    def export(
        self,
        name: str,
        *,
        format: str,
        destination: str = "",
        variant: str = "",
        tensorrt: bool = False,
        request_id: str | None = None,
    ) -> OperationHandle[automl_pb2.ExportModelResponse]:
        """Write a model in another form.

        Parameters
        ----------
        name
            Short or full name.
        format
            ``"onnx"``, ``"torchscript"``, ``"pytorch"``, ``"triton"`` or ``"mlflow"``.
        destination
            A folder, an archive (.zip, .tar) or a URI that the service can write; empty: in the artifact store.
        variant
            ``"fp16"`` or ``"int8"`` in the place of the model, where its training has kept one.
        tensorrt
            True: a Triton repository whose GPUs use TensorRT.
        request_id
            A UUID; the same twice gives the first operation.
        """
        request = automl_pb2.ExportModelRequest(
            name=resource("models", name),
            format=enum_name(automl_pb2.ModelFormat, "MODEL_FORMAT_", format, "format"),
            destination_uri=source_uri(destination) if destination else "",
            variant=enum_name(automl_pb2.ModelVariant, "MODEL_VARIANT_", variant, "variant"),
            tensorrt=tensorrt,
            request_id=request_id or str(uuid.uuid4()),
        )
        return OperationHandle(self._channel, call(self._stub.ExportModel, request, timeout=60), automl_pb2.ExportModelResponse)

    def compare(self, names: Iterable[str], *, metric: str = "", seed: int = 0) -> automl_pb2.CompareModelsResponse:
        """Say which of several models is better, on the test images that all of them answered, and whether the difference is more than chance."""
        request = automl_pb2.CompareModelsRequest(names=[resource("models", name) for name in names], metric=metric, seed=seed)
        return call(self._stub.CompareModels, request, timeout=300)


def _formats(names: Iterable[str]) -> list[str]:
    return [enum_name(automl_pb2.PredictionFormat, "PREDICTION_FORMAT_", name, "prediction_formats") for name in names]


def _checkpoint(given: automl_pb2.Checkpoint | Mapping[str, Any]) -> automl_pb2.Checkpoint:
    made = automl_pb2.Checkpoint()
    if isinstance(given, automl_pb2.Checkpoint):
        made.CopyFrom(given)
    else:
        made.MergeFrom(automl_pb2.Checkpoint(**given))
    made.uri = source_uri(made.uri)
    return made
