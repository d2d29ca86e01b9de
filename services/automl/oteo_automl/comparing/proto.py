"""A comparison in the contract's form."""

from __future__ import annotations

from oteo_automl.comparing.result import Comparison
from oteo_core.packages.proto import metric_to_proto
from oteo_protos.automl.v1 import automl_pb2


def comparison_to_proto(comparison: Comparison) -> automl_pb2.CompareModelsResponse:
    """Give the contract's ``CompareModelsResponse``."""
    response = automl_pb2.CompareModelsResponse(
        metric=comparison.metric,
        paired=comparison.paired,
        reason=comparison.reason,
        image_count=comparison.images,
        group_count=comparison.groups,
        overall_p_value=comparison.overall_p,
        sentences=comparison.sentences,
    )
    for model in comparison.models:
        response.models.add(
            model=model.model,
            display_name=model.display_name,
            candidate=model.candidate,
            metrics=[metric_to_proto(metric) for metric in model.metrics],
        )
    for one in comparison.differences:
        added = response.differences.add(
            first=one.first,
            second=one.second,
            difference=one.difference,
            lower=one.lower,
            upper=one.upper,
            confidence_level=one.level,
            p_value=one.p_value,
            adjusted_p_value=one.adjusted_p,
            shown=one.shown,
            sentence=one.sentence,
        )
        for name, p in one.tests:
            added.tests.add(name=name, p_value=p)
    return response
