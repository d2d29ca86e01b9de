"""Model packages in the contract's messages."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING

from oteo_protos.automl.v1 import automl_pb2
from oteo_protos.type.v1 import report_pb2, task_pb2

if TYPE_CHECKING:
    from oteo_core.packages.manifest import MetricValue, ModelPackage, TrialRecord

_VARIANTS = {"fp16": automl_pb2.MODEL_VARIANT_FP16, "int8": automl_pb2.MODEL_VARIANT_INT8, "bf16": automl_pb2.MODEL_VARIANT_BF16}
_PIXEL_TYPES = {"uint8": task_pb2.PIXEL_TYPE_UINT8, "float32": task_pb2.PIXEL_TYPE_FLOAT32}


def variant_name(value: automl_pb2.ModelVariant) -> str:
    """Name a variant: ``"fp16"``, ``"int8"``, ``"bf16"``; empty where none is asked for."""
    return automl_pb2.ModelVariant.Name(value).removeprefix("MODEL_VARIANT_").lower() if value else ""


def variant_value(kind: str) -> automl_pb2.ModelVariant:
    """Give a variant's number in the contract; unspecified for a name that is none."""
    return _VARIANTS.get(kind, automl_pb2.MODEL_VARIANT_UNSPECIFIED)


def metric_to_proto(metric: MetricValue) -> report_pb2.Metric:
    """Give the contract's ``Metric``; ``lower`` and ``upper`` stay unset where there is no interval."""
    return report_pb2.Metric(
        name=metric.name,
        value=metric.value,
        lower=metric.lower,
        upper=metric.upper,
        confidence_level=metric.confidence_level,
        split=metric.split,
        class_name=metric.class_name,
        sample_count=metric.sample_count,
    )


def trial_to_proto(trial: TrialRecord, model_id: str) -> automl_pb2.Trial:
    """Give the contract's ``Trial``."""
    message = automl_pb2.Trial(
        name=f"models/{model_id}/trials/{trial.id}",
        candidate=trial.candidate,
        state=f"STATE_{trial.state.upper()}",
        metrics=[metric_to_proto(metric) for metric in trial.metrics],
        objective=trial.objective,
        run_id=trial.run_id,
        message=trial.message,
    )
    message.parameters.update(trial.parameters)
    message.duration.FromMilliseconds(round(trial.duration * 1000))
    if trial.latency:
        message.latency.FromMicroseconds(round(trial.latency * 1e6))
    message.on_front = trial.on_front
    return message


def package_to_proto(package: ModelPackage) -> automl_pb2.Model:
    """Give the contract's ``Model``."""
    message = automl_pb2.Model(
        name=package.name,
        display_name=package.display_name,
        uid=package.uid,
        task=f"TASK_{package.task.upper()}",
        classes=package.classes,
        dataset=package.dataset,
        dataset_digest=package.dataset_digest,
        candidate=package.candidate,
        input=automl_pb2.InputSpec(
            width=package.input.width,
            height=package.input.height,
            channels=package.input.channels,
            pixel_type=_PIXEL_TYPES[package.input.dtype],
            resize=package.input.resize,
            bit_depth=package.input.bit_depth,
        ),
        metrics=[metric_to_proto(metric) for metric in package.metrics],
        temperature=package.temperature,
        operating_points=[
            automl_pb2.OperatingPoint(
                class_name=point.class_name,
                threshold=point.threshold,
                sensitivity=point.sensitivity,
                specificity=point.specificity,
                criterion=point.criterion,
            )
            for point in package.operating_points
        ],
        digest=package.digest,
        run_id=package.run_id,
        trial_count=len(package.trials),
        labels=package.labels,
        parity_error=package.parity_error,
        triton_model=package.triton_model,
        operation=package.operation,
    )
    if package.conformal is not None:
        message.conformal_quantile = package.conformal.quantile
        message.conformal_coverage = package.conformal.coverage
    if package.package_uri:
        root = package.package_uri.rstrip("/")
        message.package_uri = root
        message.report_uri = f"{root}/report.html"
        message.card_uri = f"{root}/README.md"
    for one in package.details.get("variants", []):
        entry = message.variants.add(
            variant=variant_value(one["kind"]),
            kept=one["kept"],
            reason=one["reason"],
            size_bytes=one["size"],
            figure=one["figure"],
            loss=one["loss"],
            figure_name=one["figure_name"],
            image_count=one["images"],
        )
        entry.latency.FromMicroseconds(round(one["latency"] * 1e6))
    message.create_time.FromDatetime(package.create_time.astimezone(UTC))
    message.training_time.FromMilliseconds(round(package.training_time * 1000))
    message.budget.FromMilliseconds(round(package.budget * 1000))
    return message
