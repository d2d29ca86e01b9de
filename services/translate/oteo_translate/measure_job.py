"""MeasureShift's job: two sets of images compared, published below ``shifts/{operation}``."""

from __future__ import annotations

from typing import Any

from oteo_core.artifacts import ArtifactStore
from oteo_core.errors import NotFound
from oteo_core.images import ImageLimits
from oteo_core.jobs import JobContext, JobHandler
from oteo_protos.translate.v1 import translate_pb2
from oteo_protos.type.v1 import report_pb2
from oteo_translate.measure_requests import find_model, open_dataset, open_home
from oteo_translate.shift.page import write_page
from oteo_translate.shift.result import PAGE, RESULT, from_json, target, to_json
from oteo_translate.shift.study import study

Context = JobContext[translate_pb2.MeasureShiftRequest, translate_pb2.MeasureShiftMetadata]

_FOLDER = "shift"


def run(context: Context) -> translate_pb2.MeasureShiftResponse:
    """Measure and publish; killed and run again, it begins anew, as it takes a minute, and ends with the same figures."""
    request, artifacts = context.request, context.artifacts
    context.metadata.dataset = request.dataset
    folder = target(context.operation_id)
    try:
        return respond(artifacts, folder, from_json(artifacts.read_bytes(f"{folder}/{RESULT}")))
    except NotFound:
        artifacts.delete(f"{context.staging}/{_FOLDER}")
    context.progress(0.0, "reading the datasets")
    package = find_model(artifacts, request.model) if request.model else None
    home, shifted = open_home(artifacts, request, package), open_dataset(artifacts, request.dataset, "dataset")
    judge = second = None
    if package is not None:
        # PyTorch and ONNX Runtime take seconds to load; a measurement without a model does without.
        from oteo_translate.tasks.model import open_second, open_task_model

        judge, second = open_task_model(artifacts, package), open_second(artifacts, package)
    found = study(
        home,
        shifted,
        context.scratch,
        model=judge,
        second_network=second,
        alpha=request.alpha,
        seed=request.seed,
        limits=ImageLimits(max_bytes=context.settings.max_image_bytes, max_pixels=context.settings.max_image_pixels),
        check=context.check,
        progress=context.progress,
    )
    context.progress(0.96, "writing the report")
    operation = f"operations/{context.operation_id}"
    when = context.create_time.strftime("%Y-%m-%d %H:%M UTC")
    manifest = to_json(found, operation=operation)
    artifacts.write_bytes(f"{context.staging}/{_FOLDER}/{PAGE}", write_page(found, operation=operation, when=when))
    artifacts.write_bytes(f"{context.staging}/{_FOLDER}/{RESULT}", manifest)
    context.publish(folder, RESULT, subdir=_FOLDER)
    values = from_json(manifest)
    context.progress(1.0, "done", values["verdict"])
    return respond(artifacts, folder, values)


def respond(artifacts: ArtifactStore, folder: str, values: dict[str, Any]) -> translate_pb2.MeasureShiftResponse:
    """Give the contract's answer from a manifest."""
    response = translate_pb2.MeasureShiftResponse(
        kind=f"SHIFT_KIND_{values['kind'].upper()}",
        tests=[
            translate_pb2.ShiftTest(
                test=test["test"],
                feature=test["feature"],
                statistic=test["statistic"],
                p_value=test["p_value"],
                effect_size=test["effect"],
                detectable_effect=test["detectable"],
            )
            for test in values["tests"]
        ],
        extreme_samples=[one["sample"] for one in values["extremes"]],
        report_uri=artifacts.uri(f"{folder}/{PAGE}"),
    )
    loss = values["loss"]
    if loss is not None:
        response.expected_loss.CopyFrom(
            report_pb2.Metric(
                name=f"{loss['metric']}_loss",
                value=loss["expected"]["value"],
                lower=loss["expected"]["lower"],
                upper=loss["expected"]["upper"],
                confidence_level=loss["level"],
                sample_count=loss["images"][1],
            )
        )
    return response


MEASURE = JobHandler(translate_pb2.MeasureShiftRequest, translate_pb2.MeasureShiftMetadata, run)
