"""What only the page and card of a multi-label classifier say: names for templates."""

from __future__ import annotations

from typing import Any

import numpy as np

from oteo_automl.report import charts_dense as drawing
from oteo_automl.report import sections, words
from oteo_automl.report.data import MultiLabelPart, ReportData, ScoreCalibration
from oteo_core.evaluation import scores
from oteo_core.evaluation.bootstrap import Floats
from oteo_core.evaluation.multilabel import OVERALL, PER_CLASS
from oteo_core.evaluation.operating import roc_curve
from oteo_core.reporting.drawing import PALETTE, short

_TILES = ("mean_average_precision", "auroc", "f1", "subset_accuracy", "ece")
_SHARES = ("mean_average_precision", "auroc", "f1", "f1_micro", "subset_accuracy")
_BINS = 10


def context(data: ReportData, *, charts: bool) -> dict[str, Any]:
    """Give the names that the template of multi-label classifiers knows beside the common ones."""
    part = data.part
    if not isinstance(part, MultiLabelPart):
        raise TypeError(f"a {type(part).__name__} for a multi-label classifier")
    said = part.probabilities >= part.thresholds
    label_rows = []
    for index, name in enumerate(data.package.classes):
        true, named = part.labels[:, index], said[:, index]
        hits = int((true & named).sum())
        label_rows.append(
            {
                "name": name,
                "threshold": f"{part.thresholds[index]:.3f}" if part.thresholds[index] <= 1 else "never",
                "count": int(true.sum()),
                "found": words.percent(hits / true.sum()) if true.any() else "–",
                "right": words.percent(hits / named.sum()) if named.any() else "–",
            }
        )
    before, after = _reliability(part.labels, part.before), _reliability(part.labels, part.probabilities)
    return {
        "tiles": sections.tiles(data, _TILES),
        "metric_rows": sections.metric_rows(data, OVERALL),
        "size_rows": [],
        "class_metric_names": [sections.class_title(name, data.package.task) for name in PER_CLASS],
        "class_metric_rows": sections.class_rows(data, PER_CLASS, part.labels.sum(axis=0).tolist()),
        "class_unit": "images",
        "label_rows": label_rows,
        "calibration_caption": "After calibration. Dots: bins of equally many answers, image and label each; their area is their number.",
        "calibration_words": (
            f"Each label's probability was calibrated on {data.calibrated_on}. On the test part the mean gap between how sure and how often right "
            f"is {after.error:.3f} instead of {before.error:.3f} (all labels together)."
        ),
        "points": sections.point_rows(part.points),
        "attended": any(case.attention for case in (*part.worst, *part.unsure)),
        "charts": _charts(data, part, before, after) if charts else {},
    }


def _charts(data: ReportData, part: MultiLabelPart, before: ScoreCalibration, after: ScoreCalibration) -> dict[str, str]:
    roc, precision = [], []
    for index, name in enumerate(data.package.classes[: len(PALETTE)]):
        positive, probabilities = part.labels[:, index], part.probabilities[:, index]
        if not positive.any() or positive.all():
            continue
        curve = roc_curve(positive, probabilities)
        weights = np.ones((1, len(positive)))
        area, mean = scores.auroc(weights, positive, probabilities)[0], scores.average_precision(weights, positive, probabilities)[0]
        roc.append((f"{short(name)}: {area:.3f}", (1 - curve.specificity).tolist(), curve.sensitivity.tolist()))
        precision.append((f"{short(name)}: {mean:.3f}", curve.sensitivity.tolist(), curve.precision.tolist()))
    return {
        "metrics": sections.metric_chart(data, _SHARES),
        "roc": drawing.label_chart(roc, "false alarms (1 − specificity)", "found (sensitivity)", diagonal="up"),
        "pr": drawing.label_chart(precision, "found (recall)", "of what it names, right (precision)"),
        "calibration_before": drawing.score_calibration_chart(before),
        "calibration": drawing.score_calibration_chart(after),
    }


def _reliability(labels: Any, probabilities: Floats) -> ScoreCalibration:
    """Compare how sure with how often right, all images and labels together, in bins of equal count."""
    true, said = labels.ravel(), probabilities.ravel()
    order = np.argsort(said, kind="stable")
    pieces = np.array_split(order, min(_BINS, len(order)))
    confidence = np.array([said[piece].mean() for piece in pieces])
    accuracy = np.array([true[piece].mean() for piece in pieces])
    counts = np.array([len(piece) for piece in pieces], dtype=np.float64)
    error = float((np.abs(confidence - accuracy) * counts).sum() / counts.sum())
    return ScoreCalibration(confidence, accuracy, counts, error, "answers")
