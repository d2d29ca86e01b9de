"""An evaluation as one HTML page that loads nothing from anywhere."""

from __future__ import annotations

from typing import Any

import jinja2

from oteo_automl.judging.result import Evaluation, PartFigures
from oteo_automl.report.metrics import about
from oteo_core.packages import MetricValue

HEADLINES: dict[str, tuple[str, ...]] = {
    "classification": ("accuracy", "balanced_accuracy", "auroc", "log_loss", "ece"),
    "multi_label_classification": ("mean_average_precision", "auroc", "f1", "subset_accuracy", "ece"),
    "detection": ("map50_95", "map50", "f1", "precision", "recall"),
    "semantic_segmentation": ("dice", "iou", "hausdorff95", "surface_dice"),
    "instance_segmentation": ("pq", "map50_95", "map50", "f1", "aji"),
}
"""Figures that are looked at first, by task; the first is the task's own."""

PER_CLASS: dict[str, tuple[str, ...]] = {
    "classification": ("sensitivity", "specificity", "precision", "f1", "auroc", "auprc"),
    "multi_label_classification": ("average_precision", "auroc", "sensitivity", "specificity", "precision", "f1"),
    "detection": ("map50_95", "map50", "f1", "precision", "recall", "iou"),
    "semantic_segmentation": ("dice", "iou", "hausdorff95", "surface_dice", "precision", "recall"),
    "instance_segmentation": ("pq", "sq", "rq", "map50_95", "map50", "aji"),
}
"""Columns of the table of classes."""


def _number(value: float) -> str:
    if value == int(value) and abs(value) >= 2:
        return f"{int(value)}"
    return f"{value:.1f}" if abs(value) >= 100 else f"{value:.2f}" if abs(value) >= 10 else f"{value:.3f}"


def _span(metric: MetricValue) -> str:
    return "" if metric.lower is None or metric.upper is None else f"{_number(metric.lower)} to {_number(metric.upper)}"


def _cell(metric: MetricValue | None) -> dict[str, str]:
    return {"value": _number(metric.value), "span": _span(metric)} if metric else {"value": "\N{EN DASH}", "span": ""}


def _find(metrics: list[MetricValue], name: str, class_name: str = "") -> MetricValue | None:
    return next((one for one in metrics if one.name == name and one.class_name == class_name), None)


def write_page(evaluation: Evaluation) -> bytes:
    """Write the page, UTF-8."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("oteo_automl.judging", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("evaluation.html.j2").render(**_context(evaluation)).encode()


def _context(evaluation: Evaluation) -> dict[str, Any]:
    task = evaluation.task
    whole = [one for one in evaluation.metrics if not one.class_name]
    columns = PER_CLASS[task]
    named = {one.class_name for one in evaluation.metrics}
    heads = HEADLINES[task]
    return {
        "e": evaluation,
        "task": task.replace("_", " "),
        "splits": " and ".join(evaluation.splits),
        "tiles": [{"name": about(one.name, task).title, **_cell(one)} for name in heads if (one := _find(whole, name)) is not None],
        "figures": [{"name": about(one.name, task).title, "meaning": about(one.name, task).meaning, **_cell(one)} for one in whole],
        "columns": [about(name, task).title for name in columns],
        "classes": [
            {
                "name": name,
                "count": _count(evaluation, name),
                "cells": [_cell(_find(evaluation.metrics, column, name)) for column in columns],
            }
            for name in evaluation.classes
            if name in named
        ],
        "absent": [name for name in evaluation.classes if name not in named],
        "kinds": _kinds(evaluation, heads),
        "heads": [about(name, task).title for name in heads],
        "confusion": _confusion(evaluation),
    }


def _count(evaluation: Evaluation, name: str) -> int:
    return max((one.sample_count for one in evaluation.metrics if one.class_name == name), default=0)


def _kinds(evaluation: Evaluation, heads: tuple[str, ...]) -> list[dict[str, Any]]:
    by_kind: dict[str, list[PartFigures]] = {}
    for part in evaluation.parts:
        by_kind.setdefault(part.kind, []).append(part)
    whole = _find(evaluation.metrics, heads[0])
    return [
        {
            "name": "images with the class" if kind == "class" else kind.replace("_", " "),
            "rows": [
                {
                    "value": part.value,
                    "images": part.images,
                    "cells": [_cell(_find(part.metrics, name)) for name in heads],
                    "low": _below(_find(part.metrics, heads[0]), whole),
                }
                for part in parts
            ],
        }
        for kind, parts in by_kind.items()
    ]


def _below(part: MetricValue | None, whole: MetricValue | None) -> bool:
    """Whether a part is surely worse than the whole: its interval ends below it."""
    return part is not None and whole is not None and part.upper is not None and part.upper < whole.value


def _confusion(evaluation: Evaluation) -> list[dict[str, Any]]:
    rows = []
    for name, counts in zip(evaluation.classes, evaluation.confusion, strict=bool(evaluation.confusion)):
        total = max(1, sum(counts))
        rows.append({"name": name, "cells": [{"count": count, "shade": round(count / total, 2)} for count in counts]})
    return rows
