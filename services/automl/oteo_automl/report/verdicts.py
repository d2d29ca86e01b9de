"""The verdict and the limits of a model of any task."""

from __future__ import annotations

from oteo_automl.report import saying_classification
from oteo_automl.report.data import DetectionPart, InstancePart, MultiLabelPart, ReportData, SemanticPart
from oteo_automl.report.saying import Verdict, found_limits, general_limits
from oteo_automl.report.saying_dense import dense_limits, detection_verdict, instance_verdict, label_verdict, semantic_verdict


def verdict(data: ReportData) -> Verdict:
    """Say what the model is worth, in a headline and a few sentences."""
    part = data.part
    if isinstance(part, DetectionPart):
        return detection_verdict(data, part)
    if isinstance(part, SemanticPart):
        return semantic_verdict(data, part)
    if isinstance(part, InstancePart):
        return instance_verdict(data, part)
    if isinstance(part, MultiLabelPart):
        return label_verdict(data, part)
    return saying_classification.verdict(data)


def limits(data: ReportData) -> list[str]:
    """Say where the model must not be trusted, from the figures at hand."""
    of_task = (
        dense_limits(data)
        if isinstance(data.part, DetectionPart | SemanticPart | InstancePart | MultiLabelPart)
        else saying_classification.limits(data)
    )
    return [*general_limits(data), *of_task, *found_limits(data)]
