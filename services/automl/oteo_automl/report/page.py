"""From the report's data to the HTML page and the Markdown card."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from typing import Any

import jinja2
import numpy as np

from oteo_automl.evaluation.bootstrap import Floats, Ints
from oteo_automl.evaluation.calibration import expected_calibration_error
from oteo_automl.evaluation.classification import OVERALL, PER_CLASS
from oteo_automl.evaluation.conformal import prediction_sets
from oteo_automl.evaluation.scores import brier_terms, log_loss_terms
from oteo_automl.report import charts, words
from oteo_automl.report.data import ReportData
from oteo_core.packages.manifest import MetricValue, TrialRecord

_TILES = ("accuracy", "balanced_accuracy", "auroc", "log_loss", "ece")
_SHARES = ("accuracy", "balanced_accuracy", "f1", "auroc", "auprc")
_TRIAL_METRICS = ("log_loss", "accuracy", "auroc")
_CLASS_NAMES = {
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "precision": "precision",
    "f1": "F1",
    "auroc": "AUROC",
    "auprc": "AUPRC",
}
_FINDING_WEIGHTS = {"info": "good to know", "warning": "kept; somebody should look", "error": "left out"}
_LISTED_TRIALS = 40


def environment() -> jinja2.Environment:
    """Make the template environment: HTML is escaped, an unknown name is an error."""
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("oteo_automl.report", "."),
        autoescape=jinja2.select_autoescape(["html", "html.j2"], default=False),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters["percent"] = words.percent
    made.filters["duration"] = words.duration
    made.filters["listing"] = words.listing
    made.filters["md"] = _markdown
    return made


def _markdown(text: object) -> str:
    """Escape what would end a table's cell or begin HTML or a link."""
    out = str(text).replace("\n", " ")
    for character in "\\|<>*_[]`":
        out = out.replace(character, f"\\{character}")
    return out


def write_html(data: ReportData) -> bytes:
    """Write the page: one file, UTF-8, that loads nothing from anywhere."""
    context = _context(data)
    return environment().get_template("report.html.j2").render(**context, charts=_charts(data)).encode()


def write_card(data: ReportData) -> bytes:
    """Write the model card, Markdown, UTF-8."""
    return environment().get_template("card.md.j2").render(**_context(data)).encode()


def write_predictions(
    ids: Sequence[str],
    sources: Sequence[str],
    groups: Sequence[str],
    labels: Ints,
    probabilities: Floats,
    classes: Sequence[str],
    quantile: float | None,
    split: str = "test",
) -> bytes:
    """Write every prediction as CSV: a row for each sample, a column for each class's probability.

    Parameters
    ----------
    ids, sources, groups
        Of the samples, N each.
    labels, probabilities
        ``(N,)`` and ``(N, K)``, calibrated.
    classes
        K names.
    quantile
        Conformal quantile; None: no sets.
    split
        Name of the part.
    """
    sets = prediction_sets(probabilities, quantile) if quantile is not None else None
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(
        ["sample", "source_path", "group", "split", "true", "predicted", "correct", "prediction_set", *(f"p_{name}" for name in classes)]
    )
    for row, (sample, source, group) in enumerate(zip(ids, sources, groups, strict=True)):
        best = int(probabilities[row].argmax())
        held = "|".join(classes[int(k)] for k in np.flatnonzero(sets[row])) if sets is not None else ""
        figures = (f"{value:.6f}" for value in probabilities[row])
        writer.writerow([sample, source, group, split, classes[int(labels[row])], classes[best], int(best == labels[row]), held, *figures])
    return buffer.getvalue().encode()


def _charts(data: ReportData) -> dict[str, str]:
    part = words.classification(data)
    package, labels, probabilities = data.package, part.labels, part.probabilities
    predicted = probabilities.argmax(axis=1)
    named: dict[tuple[float, float], list[str]] = {}
    for check in part.points:
        if len(package.classes) == 2 and check.point.class_name == package.classes[1] and math.isfinite(check.test_sensitivity):
            named.setdefault((check.test_specificity, check.test_sensitivity), []).append(_criterion(check.point.criterion))
    marks = [(*place, ", ".join(names)) for place, names in named.items()]
    rows = []
    for name in _SHARES:
        metric = package.metric(name)
        if metric is not None and metric.lower is not None and metric.upper is not None:
            rows.append((words.METRICS[name][0], metric.value, metric.lower, metric.upper))
    errors = expected_calibration_error(labels, part.before), expected_calibration_error(labels, probabilities)
    present = len(np.unique(labels))
    return {
        "metrics": charts.metric_chart(rows, 1 / present, "constant answer"),
        "confusion": charts.confusion_chart(labels, predicted, package.classes),
        "roc": charts.roc_chart(labels, probabilities, package.classes, marks),
        "pr": charts.precision_recall_chart(labels, probabilities, package.classes),
        "certainty": charts.certainty_chart(labels, probabilities),
        "calibration": charts.calibration_chart(labels, part.before, probabilities, errors),
        "sets": charts.set_size_chart(part.conformal.size_shares),
        "learning": charts.learning_chart(data.curves) if data.curves else "",
    }


def _cell(metric: MetricValue | None) -> dict[str, str]:
    return {"value": words.figure(metric), "span": words.span(metric)} if metric else {"value": "–", "span": ""}


def _context(data: ReportData) -> dict[str, Any]:
    package, dataset, part = data.package, data.dataset, words.classification(data)
    overall = [metric for name in OVERALL if (metric := package.metric(name))]
    splits = [split for split in dataset.splits if split.split]
    return {
        "d": data,
        "p": package,
        "n": data.count,
        "curve_limit": len(charts.PALETTE),
        "verdict": words.verdict(data),
        "limits": words.limits(data),
        "objective_name": words.column(data.objective),
        "tiles": [
            {"name": words.METRICS[metric.name][0], "value": words.figure(metric), "span": words.span(metric)}
            for metric in overall
            if metric.name in _TILES
        ],
        "split_names": [split.split for split in splits],
        "split_totals": [split.sample_count for split in splits],
        "split_groups": [split.group_count for split in splits],
        "class_rows": _class_rows(data, [split.split for split in splits]),
        "duplicates": _duplicates(data),
        "sizes": _sizes(data),
        "findings": [
            {"code": finding.code, "weight": _FINDING_WEIGHTS.get(str(finding.severity), str(finding.severity)), "count": finding.count}
            for finding in dataset.findings
        ],
        "metric_rows": [
            {**_cell(metric), "name": words.METRICS[metric.name][0], "meaning": words.METRICS[metric.name][1]} for metric in overall
        ],
        "class_metric_names": [_CLASS_NAMES[name] for name in PER_CLASS],
        "class_metric_rows": [
            {
                "name": name,
                "count": int((part.labels == index).sum()),
                "cells": [_cell(package.metric(metric, class_name=name)) for metric in PER_CLASS],
            }
            for index, name in enumerate(package.classes)
        ],
        "calibration_words": _calibration_words(data),
        "calibration_rows": _calibration_rows(data),
        "coverage_rows": [
            {"name": name, "value": words.percent(value)}
            for name, value in zip(package.classes, part.conformal.class_coverage, strict=True)
            if math.isfinite(value)
        ],
        "points": [
            {
                "class_name": check.point.class_name,
                "criterion": _criterion(check.point.criterion),
                "threshold": "never" if check.point.threshold > 1 else f"{check.point.threshold:.3f}",
                "sensitivity": words.percent(check.point.sensitivity),
                "specificity": words.percent(check.point.specificity),
                "test_sensitivity": words.percent(check.test_sensitivity) if math.isfinite(check.test_sensitivity) else "–",
                "test_specificity": words.percent(check.test_specificity) if math.isfinite(check.test_specificity) else "–",
            }
            for check in part.points
        ],
        "trial_metric_names": [words.column(name) for name in _trial_metrics(data)],
        "trial_rows": _trial_rows(data),
        "made": _made(data),
        "steps": [(name, words.duration(seconds)) for name, seconds in data.steps.items()],
    }


def _criterion(criterion: str) -> str:
    return "Youden" if criterion == "youden" else criterion.replace(">=", " ≥ ")


def _class_rows(data: ReportData, splits: Sequence[str]) -> list[dict[str, Any]]:
    rows = []
    for info in data.dataset.class_info:
        counts = {count.split: count.sample_count for count in info.splits}
        listed = [counts.get(split, 0) for split in splits]
        rows.append({"name": info.name, "counts": listed, "total": sum(listed)})
    return rows


def _duplicates(data: ReportData) -> str:
    exact, near = data.dataset.exact_duplicate_groups, data.dataset.near_duplicate_groups
    left_out = f" {words.plural(data.dataset.excluded_count, 'file')} left out." if data.dataset.excluded_count else ""
    if not exact and not near:
        return f"No duplicates were found.{left_out}"
    return (
        f"{words.plural(exact, 'group')} of exact duplicates and {words.plural(near, 'group')} of images that look alike (exact ones included) "
        f"were found; each was kept on one side of the split, so that no test image is known from training.{left_out}"
    )


def _sizes(data: ReportData) -> str:
    size, policy = data.dataset.sizes, data.package.input
    colour = {1: "grey", 3: "colour"}.get(policy.channels, f"{policy.channels} channels")
    shown = f"The model sees each at {policy.width} × {policy.height} pixels, {colour}."
    if not size.max_width:
        return shown
    width = f"{size.min_width}" if size.min_width == size.max_width else f"{size.min_width} to {size.max_width}"
    height = f"{size.min_height}" if size.min_height == size.max_height else f"{size.min_height} to {size.max_height}"
    return f"Images are {width} pixels wide and {height} high. {shown}"


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
    part = words.classification(data)
    before, after = (expected_calibration_error(part.labels, p, equal_mass=True) for p in (part.before, part.probabilities))
    losses = [float(log_loss_terms(part.labels, p).mean()) for p in (part.before, part.probabilities)]
    if losses[1] < losses[0] - 0.002 or (after < before - 0.005 and losses[1] <= losses[0] + 0.002):
        return "On the test part that made its probabilities better."
    if losses[1] > losses[0] + 0.002:
        return "On the test part that did not help: with so few images to find it on, a temperature is itself uncertain."
    return "On the test part that made no difference to speak of."


def _calibration_rows(data: ReportData) -> list[dict[str, str]]:
    part, rows = words.classification(data), []
    for name, equal_mass in (("calibration error (ECE), 15 bins of equal width", False), ("calibration error, bins of equal count", True)):
        before, after = (expected_calibration_error(part.labels, p, equal_mass=equal_mass) for p in (part.before, part.probabilities))
        rows.append({"name": name, "before": f"{before:.3f}", "after": f"{after:.3f}"})
    for name, terms in (("log-loss", log_loss_terms), ("Brier score", brier_terms)):
        before, after = (float(terms(part.labels, p).mean()) for p in (part.before, part.probabilities))
        rows.append({"name": name, "before": f"{before:.3f}", "after": f"{after:.3f}"})
    return rows


def _trial_metrics(data: ReportData) -> list[str]:
    return [
        name
        for name in _TRIAL_METRICS
        if name != data.objective and any(metric.name == name for trial in data.package.trials for metric in trial.metrics)
    ]


def _trial_rows(data: ReportData) -> list[dict[str, Any]]:
    names = _trial_metrics(data)
    winner = data.package.details.get("winner_trial", "")
    rows = []
    for trial in data.package.trials[:_LISTED_TRIALS]:
        found = {metric.name: metric for metric in trial.metrics if not metric.class_name}
        objective = found.get(data.objective)
        rows.append(
            {
                "best": trial.id == winner,
                "candidate": trial.candidate,
                "state": _state(trial),
                "objective": words.figure(objective) if objective else "–" if trial.objective is None else f"{trial.objective:.3f}",
                "cells": [words.figure(found[name]) if name in found else "–" for name in names],
                "time": words.duration(trial.duration),
                "settings": ", ".join(f"{key.replace('_', ' ')} {_value(value)}" for key, value in trial.parameters.items()),
            }
        )
    return rows


def _state(trial: TrialRecord) -> str:
    said = {"pruned": "others were better", "stopped": "time was up"}.get(trial.state, trial.state)
    return f"{said}: {trial.message}" if trial.state == "failed" and trial.message else said


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, list | tuple):
        return " + ".join(_value(entry) for entry in value)
    return str(value)


def _made(data: ReportData) -> list[tuple[str, str]]:
    package = data.package
    rows = [
        ("model", package.name),
        ("winner", package.candidate),
        ("dataset", f"{package.dataset} ({data.dataset.display_name})" if data.dataset.display_name else package.dataset),
        ("dataset's digest", package.dataset_digest),
        ("made by", package.operation),
        (
            "time used",
            f"{words.duration(package.training_time)} of {words.duration(package.budget)} given, {words.plural(len(package.trials), 'trial')}",
        ),
        ("seed", str(package.seed)),
        ("input", _input_words(data)),
        ("graph", f"ONNX, FP32; {data.exporter}; largest difference to PyTorch {data.graph_error:.1e} in probability"),
        ("parity on Triton", f"largest difference to PyTorch {package.parity_error:.1e} in probability (allowed: 1e-4)"),
    ]
    if package.run_id:
        rows.append(("run in MLflow", package.run_id))
    return rows


def _input_words(data: ReportData) -> str:
    policy = data.package.input
    return f"{policy.width} × {policy.height} pixels, {policy.channels} channel(s), {policy.dtype}, {policy.resize}, {policy.interpolation}"
