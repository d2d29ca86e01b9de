"""What only a classifier's page and card say: names for templates."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from oteo_automl.report import charts_classification as drawing
from oteo_automl.report import sections, words
from oteo_automl.report.data import ReportData
from oteo_automl.report.metrics import about
from oteo_automl.report.saying_classification import classification
from oteo_core.evaluation.calibration import expected_calibration_error
from oteo_core.evaluation.classification import OVERALL, PER_CLASS
from oteo_core.evaluation.scores import brier_terms, log_loss_terms

_TILES = ("accuracy", "balanced_accuracy", "auroc", "log_loss", "ece")
_SHARES = ("accuracy", "balanced_accuracy", "f1", "auroc", "auprc")


def context(data: ReportData, *, charts: bool) -> dict[str, Any]:
    """Give the names that the template of classifiers knows beside the common ones."""
    part = classification(data)
    return {
        "tiles": sections.tiles(data, _TILES),
        "metric_rows": sections.metric_rows(data, OVERALL),
        "size_rows": [],
        "class_metric_names": [about(name).title if name != "f1" else "F1" for name in PER_CLASS],
        "class_metric_rows": sections.class_rows(data, PER_CLASS, np.bincount(part.labels, minlength=len(data.package.classes)).tolist()),
        "class_unit": "images",
        "calibration_words": _calibration_words(data),
        "calibration_rows": _calibration_rows(data),
        "coverage_rows": [
            {"name": name, "value": words.percent(value)}
            for name, value in zip(data.package.classes, part.conformal.class_coverage, strict=True)
            if math.isfinite(value)
        ],
        "points": sections.point_rows(part.points),
        "attended": any(case.attention for case in (*part.worst, *part.unsure)),
        "charts": _charts(data) if charts else {},
    }


def _charts(data: ReportData) -> dict[str, str]:
    part = classification(data)
    package, labels, probabilities = data.package, part.labels, part.probabilities
    predicted = probabilities.argmax(axis=1)
    named: dict[tuple[float, float], list[str]] = {}
    for check in part.points:
        if len(package.classes) == 2 and check.point.class_name == package.classes[1] and math.isfinite(check.test_sensitivity):
            named.setdefault((check.test_specificity, check.test_sensitivity), []).append(sections.criterion(check.point.criterion))
    marks = [(*place, ", ".join(names)) for place, names in named.items()]
    errors = expected_calibration_error(labels, part.before), expected_calibration_error(labels, probabilities)
    present = len(np.unique(labels))
    return {
        "metrics": sections.metric_chart(data, _SHARES, 1 / present, "constant answer"),
        "confusion": drawing.confusion_chart(labels, predicted, package.classes),
        "roc": drawing.roc_chart(labels, probabilities, package.classes, marks),
        "pr": drawing.precision_recall_chart(labels, probabilities, package.classes),
        "certainty": drawing.certainty_chart(labels, probabilities),
        "calibration": drawing.calibration_chart(labels, part.before, probabilities, errors),
        "sets": drawing.set_size_chart(part.conformal.size_shares),
    }


def _calibration_words(data: ReportData) -> str:
    temperature = data.package.temperature
    if abs(temperature - 1) < 0.02:
        effect = "which changes next to nothing: it was as sure as it should be"
    elif temperature > 1:
        effect = "which makes it less sure: by itself it boasted"
    else:
        effect = "which makes it surer: by itself it was too shy"
    return (
        f"Its logits are divided by a temperature of {temperature:.3f}, found on {data.calibrated_on}, {effect}. "
        f"This changes no answer, only how sure it is. {_calibration_outcome(data)}"
    )


def _calibration_outcome(data: ReportData) -> str:
    part = classification(data)
    before, after = (expected_calibration_error(part.labels, p, equal_mass=True) for p in (part.before, part.probabilities))
    losses = [float(log_loss_terms(part.labels, p).mean()) for p in (part.before, part.probabilities)]
    if losses[1] < losses[0] - 0.002 or (after < before - 0.005 and losses[1] <= losses[0] + 0.002):
        return "On the test part that made its probabilities better."
    if losses[1] > losses[0] + 0.002:
        return "On the test part that did not help: with so few images to find it on, a temperature is itself uncertain."
    return "On the test part that made no difference to speak of."


def _calibration_rows(data: ReportData) -> list[dict[str, str]]:
    part, rows = classification(data), []
    for name, equal_mass in (("calibration error (ECE), 15 bins of equal width", False), ("calibration error, bins of equal count", True)):
        before, after = (expected_calibration_error(part.labels, p, equal_mass=equal_mass) for p in (part.before, part.probabilities))
        rows.append({"name": name, "before": f"{before:.3f}", "after": f"{after:.3f}"})
    for name, terms in (("log-loss", log_loss_terms), ("Brier score", brier_terms)):
        before, after = (float(terms(part.labels, p).mean()) for p in (part.before, part.probabilities))
        rows.append({"name": name, "before": f"{before:.3f}", "after": f"{after:.3f}"})
    return rows
