"""EvaluateModel's job: a published model judged on a dataset, published below ``evaluations/{operation}``."""

from __future__ import annotations

from oteo_automl.evaluations import PAGE, evaluation_to_proto, target
from oteo_automl.judging.judging import Question, judge_model
from oteo_automl.judging.page import write_page
from oteo_automl.judging.result import RESULT, Evaluation
from oteo_automl.requests import forms_of, parts_of
from oteo_core.datasets import DatasetReader
from oteo_core.errors import NotFound
from oteo_core.images import ImageLimits
from oteo_core.jobs import JobContext, JobHandler
from oteo_core.packages import read_model
from oteo_protos.automl.v1 import automl_pb2

Context = JobContext[automl_pb2.EvaluateModelRequest, automl_pb2.EvaluateModelMetadata]

_FOLDER = "evaluation"


def run(context: Context) -> automl_pb2.EvaluateModelResponse:
    """Judge and publish; killed and run again, it goes on after the last images that were kept."""
    request = context.request
    context.metadata.model, context.metadata.dataset = request.name, request.dataset
    folder = target(context.operation_id)
    try:
        return evaluation_to_proto(context.artifacts, Evaluation.from_json(context.artifacts.read_bytes(f"{folder}/{RESULT}")))
    except NotFound:
        context.artifacts.delete(f"{context.staging}/{_FOLDER}")
    package = read_model(context.artifacts, request.name)
    context.progress(0.0, "reading the dataset")
    try:
        reader = DatasetReader(context.artifacts, request.dataset.removeprefix("datasets/"))
    except NotFound as error:
        raise NotFound(f"there is no {request.dataset}", reason="DATASET_NOT_FOUND", field="dataset") from error
    kinds = (automl_pb2.Subgroup.Name(value).removeprefix("SUBGROUP_").lower() for value in request.subgroups)

    def write(name: str, content: bytes) -> None:
        context.artifacts.write_bytes(f"{context.staging}/{_FOLDER}/{name}", content)

    evaluation = judge_model(
        context,
        context.artifacts,
        package,
        reader,
        Question(
            parts=parts_of(request),
            subgroups=tuple(dict.fromkeys(kinds)),
            forms=forms_of(request.prediction_formats),
            leave_out_unknown=request.leave_out_unknown_classes,
            seed=request.seed,
        ),
        operation=f"operations/{context.operation_id}",
        limits=ImageLimits(max_bytes=context.settings.max_image_bytes, max_pixels=context.settings.max_image_pixels),
        progress=context.progress,
        write=write,
    )
    write(PAGE, write_page(evaluation))
    write(RESULT, evaluation.to_json())
    context.publish(folder, RESULT, subdir=_FOLDER)
    for name in context.saved("answers/"):
        context.discard(name)
    context.progress(1.0, "done", f"{evaluation.images} images judged")
    return evaluation_to_proto(context.artifacts, evaluation)


EVALUATE = JobHandler(automl_pb2.EvaluateModelRequest, automl_pb2.EvaluateModelMetadata, run)
