"""Evaluations as they lie in the artifact store, ``evaluations/{operation}/``, and as the contract gives them."""

from __future__ import annotations

from datetime import datetime

from google.protobuf import timestamp_pb2

from oteo_automl.judging.result import RESULT, Evaluation, PartFigures, Remark
from oteo_core.artifacts import ArtifactStore
from oteo_core.errors import NotFound
from oteo_core.packages.proto import metric_to_proto
from oteo_protos.automl.v1 import automl_pb2
from oteo_protos.type.v1 import report_pb2

FOLDER = "evaluations"
PAGE = "report.html"


def target(operation: str) -> str:
    """Give the folder of an evaluation's files, by the operation's name or id."""
    return f"{FOLDER}/{operation.removeprefix('operations/')}"


def list_evaluations(artifacts: ArtifactStore, *, model: str = "", dataset: str = "") -> list[Evaluation]:
    """Read the evaluations of a model or on a dataset, both by full name, or all; in no order. A folder without a result is none."""
    found: list[Evaluation] = []
    for child in artifacts.children(FOLDER):
        try:
            one = Evaluation.from_json(artifacts.read_bytes(f"{FOLDER}/{child}/{RESULT}"))
        except NotFound:
            continue
        if (not model or one.model == model) and (not dataset or one.dataset == dataset):
            found.append(one)
    return found


def evaluation_to_proto(artifacts: ArtifactStore, evaluation: Evaluation) -> automl_pb2.EvaluateModelResponse:
    """Give the contract's answer."""
    folder = target(evaluation.operation)

    def uri(name: str) -> str:
        return artifacts.uri(f"{folder}/{name}")

    create_time = timestamp_pb2.Timestamp()
    create_time.FromDatetime(datetime.fromisoformat(evaluation.create_time))
    return automl_pb2.EvaluateModelResponse(
        model=evaluation.model,
        dataset=evaluation.dataset,
        metrics=[metric_to_proto(metric) for metric in evaluation.metrics],
        report_uri=uri(PAGE),
        predictions_uri=uri(next(iter(evaluation.predictions.values()))),
        subgroups=[_part(part) for part in evaluation.parts],
        predictions=[
            automl_pb2.PredictionFile(format=f"PREDICTION_FORMAT_{form.upper()}", uri=uri(name))
            for form, name in evaluation.predictions.items()
        ],
        image_count=evaluation.images,
        group_count=evaluation.groups,
        skipped_count=evaluation.skipped,
        findings=[_finding(remark, evaluation.dataset) for remark in evaluation.remarks],
        result_uri=uri(RESULT),
        operation=evaluation.operation,
        create_time=create_time,
    )


def _part(part: PartFigures) -> automl_pb2.SubgroupMetrics:
    return automl_pb2.SubgroupMetrics(
        subgroup=f"SUBGROUP_{part.kind.upper()}",
        value=part.value,
        image_count=part.images,
        group_count=part.groups,
        metrics=[metric_to_proto(metric) for metric in part.metrics],
    )


def _finding(remark: Remark, dataset: str) -> report_pb2.Finding:
    return report_pb2.Finding(
        severity=f"SEVERITY_{remark.severity.upper()}",
        code=remark.code,
        message=remark.message,
        sample=f"{dataset}/samples/{remark.sample}" if remark.sample else "",
        path=remark.path,
    )
