"""CombinePredictions' job: what several detectors found, made one, published below ``predictions/{operation}``."""

from __future__ import annotations

import json
from dataclasses import asdict

from oteo_automl.judging.combined import judge_sets
from oteo_automl.predictions.formats import NAMES, read_predictions, write_predictions
from oteo_automl.predictions.voting import combine_sets
from oteo_automl.requests import forms_of, path_of
from oteo_core.datasets import DatasetReader
from oteo_core.errors import NotFound
from oteo_core.jobs import JobContext, JobHandler
from oteo_core.packages.proto import metric_to_proto
from oteo_protos.automl.v1 import automl_pb2

Context = JobContext[automl_pb2.CombinePredictionsRequest, automl_pb2.CombinePredictionsMetadata]

RESULT = "combination.json"
_FOLDER = "combination"


def run(context: Context) -> automl_pb2.CombinePredictionsResponse:
    """Read, combine, judge, publish."""
    request, store = context.request, context.artifacts
    folder = f"predictions/{context.operation_id}"
    context.progress(0.0, "reading the predictions")
    paths = [path_of(store, entry.uri) for entry in request.inputs]
    sets = []
    for path in paths:
        context.check()
        sets.append(read_predictions(store.read_bytes, path))
    context.progress(0.2, "combining")
    method = automl_pb2.CombinationMethod.Name(request.method).removeprefix("COMBINATION_METHOD_").lower()
    weights = [entry.weight or 1.0 for entry in request.inputs]
    combined = combine_sets(sets, method, iou=request.iou, weights=weights, score_threshold=request.score_threshold)
    response = automl_pb2.CombinePredictionsResponse(
        image_count=len(combined.images), object_count=sum(len(one.scores) for one in combined.answers)
    )
    figures: dict[str, object] = {}
    if request.dataset:
        context.check()
        context.progress(0.5, "judging")
        try:
            reader = DatasetReader(store, request.dataset.removeprefix("datasets/"))
        except NotFound as error:
            raise NotFound(f"there is no {request.dataset}", reason="DATASET_NOT_FOUND", field="dataset") from error
        own, *others = judge_sets([combined, *sets], reader)
        response.metrics.extend(metric_to_proto(metric) for metric in own)
        for entry, metrics in zip(request.inputs, others, strict=True):
            response.inputs.add(uri=entry.uri, metrics=[metric_to_proto(metric) for metric in metrics])
        figures = {
            "metrics": [asdict(metric) for metric in own],
            "inputs": [
                {"uri": entry.uri, "metrics": [asdict(metric) for metric in metrics]}
                for entry, metrics in zip(request.inputs, others, strict=True)
            ],
        }
    context.progress(0.9, "writing")
    store.delete(f"{context.staging}/{_FOLDER}")
    for form in forms_of(request.prediction_formats):
        for name, content in write_predictions(combined, form).items():
            store.write_bytes(f"{context.staging}/{_FOLDER}/{name}", content)
        response.predictions.add(format=f"PREDICTION_FORMAT_{form.upper()}", uri=store.uri(f"{folder}/{NAMES[form]}"))
    about = {
        "format": 1,
        "method": method,
        "iou": request.iou,
        "score_threshold": request.score_threshold,
        "inputs_combined": [{"uri": entry.uri, "weight": entry.weight or 1.0} for entry in request.inputs],
        "dataset": request.dataset,
        "operation": f"operations/{context.operation_id}",
        **figures,
    }
    store.write_bytes(f"{context.staging}/{_FOLDER}/{RESULT}", json.dumps(about, indent=1, ensure_ascii=False).encode())
    context.publish(folder, RESULT, subdir=_FOLDER)
    response.result_uri = store.uri(f"{folder}/{RESULT}")
    context.progress(1.0, "done", f"{response.object_count} objects in {response.image_count} images")
    return response


COMBINE = JobHandler(automl_pb2.CombinePredictionsRequest, automl_pb2.CombinePredictionsMetadata, run)
