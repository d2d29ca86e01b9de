"""What only the pages and cards of detectors and segmenters say: names for templates."""

from __future__ import annotations

from typing import Any

import numpy as np

from oteo_automl.report import charts_dense as drawing
from oteo_automl.report import sections, words
from oteo_automl.report.data import DetectionPart, InstancePart, ReportData, ScoreCalibration, SemanticPart
from oteo_core.reporting.overlays import CLASS_COLOURS

_TILES = {
    "detection": ("map50", "map50_95", "f1", "recall", "precision"),
    "semantic_segmentation": ("dice", "iou", "hausdorff95", "surface_dice"),
    "instance_segmentation": ("pq", "f1", "map50", "map50_95", "aji"),
}
_WHOLE = {
    "detection": ("map50_95", "map50", "map75", "f1", "precision", "recall", "iou", "score_threshold"),
    "semantic_segmentation": (
        "dice", "iou", "dice_pooled", "iou_pooled", "precision", "recall", "hausdorff95", "hausdorff95_mm", "surface_dice", "surface_dice_mm",
        "hausdorff95_undefined",
    ),
    "instance_segmentation": ("pq", "sq", "rq", "f1", "precision", "recall", "aji", "map_dsb2018", "map50_95", "map50", "map75"),
}  # fmt: skip
_DRAWN = {
    "detection": ("map50", "map50_95", "map75", "f1", "recall", "precision", "iou"),
    "semantic_segmentation": ("dice", "iou", "dice_pooled", "iou_pooled", "precision", "recall", "surface_dice"),
    "instance_segmentation": ("pq", "sq", "rq", "aji", "map50", "map50_95"),
}
_BY_CLASS = {
    "detection": ("map50_95", "map50", "f1", "precision", "recall"),
    "semantic_segmentation": ("dice", "iou", "precision", "recall", "hausdorff95", "surface_dice"),
    "instance_segmentation": ("pq", "sq", "rq", "map50", "map50_95"),
}
_SIZES = ("small", "medium", "large")
_TABLE_ROWS = 8


def context(data: ReportData, *, charts: bool) -> dict[str, Any]:
    """Give the names that the templates of dense tasks know beside the common ones."""
    package, part, task = data.package, data.part, data.package.task
    if not isinstance(part, DetectionPart | SemanticPart | InstancePart):
        raise TypeError(f"a {type(part).__name__} for {task}")
    known = set(_WHOLE[task])
    sized = [f"{name}_{size}" for name in _WHOLE[task] for size in _SIZES]
    more = [
        metric.name
        for metric in package.metrics
        if metric.split == "test" and not metric.class_name and metric.name not in known and metric.name not in sized
    ]
    counts = part.confusion.sum(axis=1)[1:].tolist() if isinstance(part, SemanticPart) else list(part.object_counts)
    return {
        "tiles": sections.tiles(data, _TILES[task]),
        "metric_rows": sections.metric_rows(data, [*_WHOLE[task], *dict.fromkeys(more)]),
        "size_rows": sections.metric_rows(data, sized),
        "class_metric_names": [sections.class_title(name, task) for name in _BY_CLASS[task]],
        "class_metric_rows": sections.class_rows(data, _BY_CLASS[task], counts),
        "class_unit": "pixels" if isinstance(part, SemanticPart) else "objects",
        "class_colours": [f"rgb({r * 0.75:.0f}, {g * 0.75:.0f}, {b * 0.75:.0f})" for r, g, b in CLASS_COLOURS],
        "calibration_caption": _caption(part.calibration),
        "calibration_words": _calibration_words(data, part.calibration),
        "threshold_rows": _threshold_rows(part) if isinstance(part, DetectionPart) else [],
        "charts": _charts(data, part) if charts else {},
    }


def _caption(calibration: ScoreCalibration | None) -> str:
    if calibration is None:
        return ""
    return (
        f"Each dot: {calibration.what} of about equal score, its area their number. On the dashed line scores are probabilities. Test part."
    )


def _calibration_words(data: ReportData, calibration: ScoreCalibration | None) -> str:
    method = str(data.package.calibration.get("method", ""))
    scaled = f"Its scores were calibrated on {data.calibrated_on} ({method}). " if method and method != "none" else ""
    if calibration is None:
        return f"{scaled}How often it is right at which score was not measured."
    total = int(calibration.counts.sum())
    return (
        f"{scaled}Over {total:,} {calibration.what} of the test part, score and share of right ones differ by {calibration.error:.3f} on average "
        f"(0 is perfect)."
    )


def _threshold_rows(part: DetectionPart) -> list[dict[str, Any]]:
    """Give some rows, spread over the thresholds, the package's own among them."""
    ordered = sorted(part.thresholds, key=lambda row: row.threshold)
    chosen = [row for row in ordered if row.chosen]
    spread = np.linspace(0, len(ordered) - 1, min(_TABLE_ROWS, len(ordered))).astype(int).tolist()
    shown = {id(row): row for row in (*(ordered[place] for place in spread), *chosen)}
    return [
        {
            "chosen": row.chosen,
            "threshold": f"{row.threshold:.2f}",
            "recall": words.percent(row.recall),
            "precision": words.percent(row.precision),
            "f1": words.percent(row.f1),
            "false": f"{row.false_per_image:.2f}",
        }
        for row in sorted(shown.values(), key=lambda row: row.threshold)
    ]


def _charts(data: ReportData, part: DetectionPart | SemanticPart | InstancePart) -> dict[str, str]:
    task, classes = data.package.task, data.package.classes
    found = {
        "metrics": sections.metric_chart(data, _DRAWN[task]),
        "images": drawing.image_chart(part.images, {"f1": "F1", "dice": "Dice", "pq": "PQ"}.get(part.images.name, part.images.name)),
        "calibration": drawing.score_calibration_chart(part.calibration) if part.calibration is not None else "",
    }
    if isinstance(part, DetectionPart):
        found["curves"] = drawing.object_curves(part.precision_recall)
        found["thresholds"] = drawing.threshold_chart(part.thresholds)
        if part.confusion is not None:
            found["confusion"] = drawing.count_matrix(part.confusion, [*classes, "nothing"], [*classes, "missed"], counts=True)
        else:
            found["confusion"] = ""
    elif isinstance(part, SemanticPart):
        names = ["background", *classes]
        found["confusion"] = drawing.count_matrix(part.confusion, names, names, counts=False)
    else:
        found["curves"] = drawing.object_curves(part.precision_recall)
        found["counts"] = drawing.count_chart(part.true_counts, part.found_counts)
    return found
