"""What the page and the card of every task say: names for templates."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from oteo_automl.report import charts as drawing
from oteo_automl.report import saying, verdicts, words
from oteo_automl.report.data import PointCheck, ReportData
from oteo_automl.report.findings import MEANINGS
from oteo_automl.report.metrics import LOSSES, about
from oteo_core.evaluation.data_curve import curve_line
from oteo_core.evaluation.statistics import Pair
from oteo_core.packages.manifest import MetricValue, TrialRecord
from oteo_core.reporting.drawing import PALETTE

_FINDING_WEIGHTS = {"info": "good to know", "warning": "kept; somebody should look", "error": "left out"}
_SEVERITIES = ("error", "warning", "info")
_TRIAL_METRICS = {
    "classification": ("log_loss", "accuracy", "auroc"),
    "multi_label_classification": ("mean_average_precision", "auroc", "f1"),
    "detection": ("map50_95", "map50", "f1"),
    "semantic_segmentation": ("dice", "iou"),
    "instance_segmentation": ("pq", "map50", "f1"),
}
_TASKS = {
    "classification": ("classification", "the best model that tells {} apart"),
    "multi_label_classification": ("several labels an image", "the best model that names which of {} an image has"),
    "detection": ("detection", "the best model that finds {} with boxes"),
    "semantic_segmentation": ("segmentation", "the best model that outlines {}"),
    "instance_segmentation": ("objects one by one", "the best model that outlines {}, each object by itself"),
}
_LISTED_TRIALS = 40
_CARD_TRIALS = 12
_LISTED_PAIRS = 12


def context(data: ReportData, *, charts: bool) -> dict[str, Any]:
    """Give the names that every template knows; `charts`: also the drawings."""
    package, dataset = data.package, data.dataset
    splits = [split for split in dataset.splits if split.split]
    task_words, asked = _TASKS.get(package.task, (package.task, "a model of {}"))
    trials = _trial_rows(data)
    return {
        "d": data,
        "p": package,
        "n": data.count,
        "curve_limit": len(PALETTE),
        "task_words": task_words,
        "asked": asked.format(words.listing(package.classes)),
        "verdict": verdicts.verdict(data),
        "limits": verdicts.limits(data),
        "objective_name": words.column(data.objective, package.task),
        "split_names": [split.split for split in splits],
        "split_totals": [split.sample_count for split in splits],
        "split_groups": [split.group_count for split in splits],
        "class_rows": _class_rows(data, [split.split for split in splits]),
        "counts_objects": package.task in ("detection", "instance_segmentation"),
        "duplicates": _duplicates(data),
        "sizes": _sizes(data),
        "findings": _findings(data),
        "shifted": data.shifts is not None and bool(data.shifts.results),
        "shift_sentence": saying.shift_sentence(data),
        "shift_rows": _shift_rows(data),
        "shift_mean": words.number(data.shifts.metric, data.shifts.mean) if data.shifts else "",
        "shift_clean": words.number(data.shifts.metric, data.shifts.clean) if data.shifts else "",
        "pair_rows": _pair_rows(data),
        "omnibus": _omnibus(data),
        "fold_note": _fold_note(data),
        "trial_metric_names": [
            f"{words.column(name.removesuffix('_under_shift'), package.task)}, test part under simulated shifts"
            if name.endswith("_under_shift")
            else words.column(name, package.task)
            for name in _trial_metrics(data)
        ],
        "trial_rows": trials,
        "trial_intervals": _interval_words(data),
        "card_trials": _CARD_TRIALS,
        "unlisted": f"{len(package.trials) - len(trials)} more trials are in the package." if len(package.trials) > len(trials) else "",
        "made": _made(data),
        "steps": [(name, words.duration(seconds)) for name, seconds in data.steps.items()],
        "charts": _charts(data) if charts else {},
    }


def navigation(data: ReportData, merged: dict[str, Any]) -> list[tuple[str, str]]:
    """Give the anchors of the sections that the page has, with titles."""
    compared = bool(data.comparisons or data.not_compared or data.significance)
    changed = bool(data.shifts or data.subgroups)
    listed = [
        ("data", "The data", True),
        ("quality", "How good it is", True),
        ("others", "Against the others", compared),
        ("trust", "Its probabilities" if merged["kind"] in ("classification", "multilabel") else "Its scores", True),
        ("thresholds", "Thresholds", merged["kind"] in ("classification", "multilabel", "detection")),
        ("change", "When images change", changed),
        ("cases", "Pictures", True),
        ("trials", "What was tried", True),
        ("more", "More images?", data.data_curve is not None or bool(data.no_data_curve)),
        ("limits", "Limits of use", True),
        ("made", "How it was made", True),
    ]
    return [(name, title) for name, title, shown in listed if shown]


def cell(metric: MetricValue | None) -> dict[str, str]:
    """Give a figure and its interval for a table."""
    return {"value": words.figure(metric), "span": words.span(metric)} if metric else {"value": "–", "span": ""}


def metric_rows(data: ReportData, names: Sequence[str]) -> list[dict[str, str]]:
    """Give the rows of a table of figures of the whole, those that the package has."""
    rows = []
    for name in names:
        metric = data.package.metric(name)
        if metric is None:
            continue
        shown = about(name, data.package.task)
        shifted = words.number(name, data.shifts.mean) if data.shifts is not None and data.shifts.metric == name else "–"
        rows.append({**cell(metric), "name": shown.title, "meaning": shown.meaning, "shifted": shifted})
    return rows


def tiles(data: ReportData, names: Sequence[str]) -> list[dict[str, str]]:
    """Give the headline figures."""
    found = [(name, metric) for name in names if (metric := data.package.metric(name)) is not None]
    return [{**cell(metric), "name": about(name, data.package.task).title} for name, metric in found]


def class_rows(data: ReportData, names: Sequence[str], counts: Sequence[int]) -> list[dict[str, Any]]:
    """Give the rows of a table of figures by class."""
    return [
        {
            "name": name,
            "count": int(counts[index]),
            "cells": [cell(data.package.metric(metric, class_name=name)) for metric in names],
        }
        for index, name in enumerate(data.package.classes)
    ]


def metric_chart(data: ReportData, names: Sequence[str], reference: float | None = None, reference_name: str = "") -> str:
    """Draw the headline figures with their intervals; empty where none has one."""
    rows = []
    for name in names:
        metric = data.package.metric(name)
        if metric is not None and metric.lower is not None and metric.upper is not None:
            rows.append((about(name, data.package.task).title, metric.value, metric.lower, metric.upper))
    return drawing.metric_chart(rows, reference, reference_name) if rows else ""


def class_title(name: str, task: str) -> str:
    """Give a figure's name as a narrow column's head."""
    short = {
        "f1": "F1",
        "ece": "ECE",
        "average_precision": "AP",
        "map50": "AP at IoU .50",
        "map50_95": "AP",
        "hausdorff95": "Hausdorff 95 %",
        "pq": "PQ",
        "sq": "SQ",
        "rq": "RQ",
    }
    return short.get(name) or words.column(name, task).split(" of ")[0]


def point_rows(points: Sequence[PointCheck]) -> list[dict[str, str]]:
    """Give the rows of the table of operating points."""
    return [
        {
            "class_name": check.point.class_name,
            "criterion": criterion(check.point.criterion),
            "threshold": "never" if check.point.threshold > 1 else f"{check.point.threshold:.3f}",
            "sensitivity": words.percent(check.point.sensitivity),
            "specificity": words.percent(check.point.specificity),
            "test_sensitivity": words.percent(check.test_sensitivity) if math.isfinite(check.test_sensitivity) else "–",
            "test_specificity": words.percent(check.test_specificity) if math.isfinite(check.test_specificity) else "–",
        }
        for check in points
    ]


def criterion(text: str) -> str:
    """Write what an operating point was asked for."""
    return "Youden" if text == "youden" else text.replace(">=", " ≥ ")


def _class_rows(data: ReportData, splits: Sequence[str]) -> list[dict[str, Any]]:
    rows = []
    for info in data.dataset.class_info:
        counts = {count.split: count.sample_count for count in info.splits}
        listed = [counts.get(split, 0) for split in splits]
        rows.append({"name": info.name, "counts": listed, "total": sum(listed), "objects": info.annotation_count})
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


def _findings(data: ReportData) -> list[dict[str, Any]]:
    if data.audit:
        found = [(one.code, one.severity, one.count, one.meaning or MEANINGS.get(one.code, "")) for one in data.audit]
    else:
        found = [(one.code, str(one.severity), one.count, MEANINGS.get(one.code, "")) for one in data.dataset.findings]
    order = {severity: place for place, severity in enumerate(_SEVERITIES)}
    found.sort(key=lambda one: (order.get(one[1], len(order)), -one[2]))
    return [
        {"code": code, "weight": _FINDING_WEIGHTS.get(severity, severity), "count": count, "meaning": meaning}
        for code, severity, count, meaning in found
    ]


def _shift_rows(data: ReportData) -> list[dict[str, str]]:
    if data.shifts is None:
        return []
    rows = []
    for name in dict.fromkeys(result.name for result in data.shifts.results):
        of_name = {result.strength: result for result in data.shifts.results if result.name == name}
        shown = {strength: words.number(data.shifts.metric, of_name[strength].value) if strength in of_name else "–" for strength in (1, 2)}
        said = "; ".join(dict.fromkeys(of_name[strength].words for strength in sorted(of_name)))
        rows.append({"name": name, "mild": shown[1], "strong": shown[2], "words": said})
    return rows


def _pair_rows(data: ReportData) -> list[dict[str, str]]:
    result = data.significance
    if result is None or not result.pairs:
        return []
    means = dict(zip(result.names, result.means, strict=True))
    mine = [pair for pair in result.pairs if pair.first == result.names[0]]
    return [_pair_row(pair, means[pair.second]) for pair in mine[:_LISTED_PAIRS]]


def _pair_row(pair: Pair, mean: float) -> dict[str, str]:
    return {
        "name": pair.second,
        "mean": f"{mean:.3f}",
        "difference": words.signed(pair.difference),
        "span": f"{words.signed(pair.lower)} to {words.signed(pair.upper)}" if pair.lower is not None and pair.upper is not None else "–",
        "p": f"{pair.p_value:.3f}" if pair.p_value >= 0.001 else "< 0.001",
        "adjusted": f"{pair.adjusted_p:.3f}" if pair.adjusted_p >= 0.001 else "< 0.001",
        "effect": f"{pair.effect:.2f}".replace("-", "−"),
    }


def _omnibus(data: ReportData) -> str:
    omnibus = data.significance.omnibus if data.significance else None
    if omnibus is None:
        return ""
    p = "< .001" if omnibus.p_value < 0.001 else f"= {omnibus.p_value:.3f}"
    distrust = "" if omnibus.trusted else " (too small, since folds are taken as independent)"
    return f" All candidates together, {omnibus.test}: p {p}{distrust}, {omnibus.effect_name} {omnibus.effect:.2f}."


def _fold_note(data: ReportData) -> str:
    """Say so where the best over the folds is not the model of the page."""
    result, package = data.significance, data.package
    if result is None or result.names[0] == package.candidate:
        return ""
    chosen = words.column(data.objective, package.task)
    return f"Over these {result.names[0]} has the best mean; the model of this page, {package.candidate}, was chosen by {chosen} on what all candidates are compared on."


def _trial_metrics(data: ReportData) -> list[str]:
    there = {metric.name for trial in data.package.trials for metric in trial.metrics}
    wanted = [*_TRIAL_METRICS.get(data.package.task, ()), *sorted(name for name in there if name.endswith("_under_shift"))]
    return [name for name in wanted if name != data.objective and name in there]


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
                "span": words.span(objective) if objective and objective.lower is not None else "",
                "cells": [words.figure(found[name]) if name in found else "–" for name in names],
                "time": words.duration(trial.duration),
                "settings": ", ".join(f"{key.replace('_', ' ')} {_value(value)}" for key, value in trial.parameters.items()),
            }
        )
    return rows


def _interval_words(data: ReportData) -> str:
    """Say what the intervals of the trials are; empty where none has one."""
    told = [metric for trial in data.package.trials for metric in trial.metrics if metric.lower is not None]
    if not told:
        return ""
    return (
        f"Intervals: {words.percent(told[0].confidence_level, 0)}, of the best {words.plural(len(told), 'trial')} each for itself, by resampling whole groups of the "
        f"{words.plural(max(metric.sample_count for metric in told), 'image')} that they are compared on. Where they overlap much, the order may be chance."
    )


def _state(trial: TrialRecord) -> str:
    said = {"pruned": "others were better", "stopped": "time was up"}.get(trial.state, trial.state)
    # What a trial that is made of others is made of, and why, is not said elsewhere.
    made = "parts" in trial.parameters or "folds_of" in trial.parameters
    return f"{said}: {trial.message}" if (trial.state == "failed" or made) and trial.message else said


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, list | tuple):
        return " + ".join(_value(entry) for entry in value)
    return str(value)


def _made(data: ReportData) -> list[tuple[str, str]]:
    package = data.package
    weights = str(package.details.get("initial_weights", ""))
    rows = [
        ("model", package.name),
        ("winner", package.candidate),
        ("initial weights", _weights(weights)),
        ("dataset", f"{package.dataset} ({data.dataset.display_name})" if data.dataset.display_name else package.dataset),
        ("dataset's digest", package.dataset_digest),
        ("made by", package.operation),
        (
            "time used",
            f"{words.duration(package.training_time)} of {words.duration(package.budget)} given, {words.plural(len(package.trials), 'trial')}",
        ),
        ("seed", str(package.seed)),
        ("input", _input_words(data)),
        ("graph", f"ONNX, FP32; {data.exporter}; largest difference to PyTorch {data.graph_error:.1e}"),
        ("parity on Triton", f"largest difference to PyTorch {package.parity_error:.1e}"),
        *((f"variant {one['kind']}", _variant(one)) for one in package.details.get("variants", ())[1:]),
        ("MLflow run", package.run_id),
    ]
    return [(name, value) for name, value in rows if value]


def _variant(one: Mapping[str, Any]) -> str:
    """Say what became of a variant: why it was kept or not, and what it loses."""
    if one["loss"] is None or not one["kept"]:
        return str(one["reason"])
    loss = f"loses {one['loss']:.3g}" if one["loss"] > 0 else "loses nothing"
    return f"{one['reason']}; {loss} of {one['figure_name']} on {words.plural(one['images'], 'held-out image')}"


def _weights(said: str) -> str:
    if not said:
        return ""
    parts = [part.strip() for part in said.split(",")]
    shown = ["none: trained from scratch on these images alone" if part == "scratch" else part.replace(":", ": ", 1) for part in parts]
    return "; ".join(dict.fromkeys(shown))


def _input_words(data: ReportData) -> str:
    policy = data.package.input
    return f"{policy.width} × {policy.height} pixels, {policy.channels} channel(s), {policy.dtype}, {policy.resize}, {policy.interpolation}"


def _charts(data: ReportData) -> dict[str, str]:
    task = data.package.task
    loss = "log-loss" if task == "classification" else "loss"
    named = [replace(curve, score_name=words.column(curve.score_name, task)) for curve in data.curves]
    found = {
        "learning": drawing.learning_chart(named, loss_name=loss) if data.curves else "",
        "front": _front(data),
        "shifts": "",
        "subgroups": "",
        "data": "",
    }
    shifts = data.shifts
    if shifts is not None and shifts.results:
        rows = []
        for name in dict.fromkeys(result.name for result in shifts.results):
            values = {result.strength: result.value for result in shifts.results if result.name == name}
            rows.append((name, values.get(1), values.get(2)))
        found["shifts"] = drawing.shift_chart(rows, shifts.clean, words.column(shifts.metric, task))
    if data.subgroups:
        name = data.subgroups[0].metric
        whole = data.package.metric(name)
        bars = [
            (f"{one.attribute}: {one.value}", one.figure, one.lower, one.upper, one.count) for one in data.subgroups if one.metric == name
        ]
        middle = whole.value if whole is not None else sum(bar[1] for bar in bars) / len(bars)
        found["subgroups"] = drawing.subgroup_chart(bars, middle, words.column(name, task))
    curve = data.data_curve
    if curve is not None and curve.counts:
        predicted = None
        if curve.predicted is not None and curve.lower is not None and curve.upper is not None:
            predicted = (2.0 * max(curve.counts), curve.predicted, curve.lower, curve.upper)
        found["data"] = drawing.data_chart(curve.counts, curve.scores, curve_line(curve), predicted, words.column(curve.metric, task))
    return found


def _front(data: ReportData) -> str:
    if len(data.front) < 2:
        return ""
    better = -1.0 if data.objective in LOSSES else 1.0
    points = []
    for one in data.front:
        beaten = any(
            other.milliseconds <= one.milliseconds
            and better * other.figure >= better * one.figure
            and (other.milliseconds, other.figure) != (one.milliseconds, one.figure)
            for other in data.front
        )
        points.append((one.name, one.milliseconds, one.figure, one.chosen, not beaten))
    return drawing.front_chart(points, words.column(data.objective, data.package.task), better > 0)
