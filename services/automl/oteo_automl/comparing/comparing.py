"""The comparison itself: figures on the shared images, differences, tests and sentences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.stats import binomtest

from oteo_automl.comparing.answers import Shared, find_shared
from oteo_automl.comparing.result import Comparison, ModelDifference, ModelFigures
from oteo_automl.objectives import OBJECTIVES
from oteo_automl.report import words
from oteo_automl.report.metrics import LOSSES
from oteo_core.artifacts import ArtifactStore
from oteo_core.errors import InvalidArgument
from oteo_core.evaluation.bootstrap import LEVEL, Floats, Ints
from oteo_core.evaluation.paired import Difference, Paired, compare_paired, delong, delong_p, friedman_by_group
from oteo_core.evaluation.scored import Scored, score_answers
from oteo_core.evaluation.statistics import ALPHA
from oteo_core.packages import MetricValue, ModelPackage

_FEW_GROUPS = 20
_SHOWN = {
    "classification": ("accuracy", "balanced_accuracy", "f1", "auroc", "log_loss", "ece"),
    "multi_label_classification": ("mean_average_precision", "auroc", "f1", "subset_accuracy", "ece"),
    "detection": ("map50_95", "map50", "map75", "f1", "precision", "recall"),
    "semantic_segmentation": ("dice", "iou", "precision", "recall"),
    "instance_segmentation": ("pq", "sq", "rq", "map50_95", "map50", "aji"),
}


def compare_models(
    store: ArtifactStore,
    packages: Sequence[ModelPackage],
    *,
    metric: str = "",
    seed: int = 0,
    check: Callable[[], None] = lambda: None,
) -> Comparison:
    """Compare published models.

    Parameters
    ----------
    store
        Where models and datasets lie.
    packages
        Two and more, of one task and one set of classes.
    metric
        What decides; empty: what all were chosen by, else the task's usual one.
    seed
        Of the resamples.
    check
        Called between images; may raise.

    Raises
    ------
    InvalidArgument
        ``DIFFERENT_TASKS``, ``DIFFERENT_CLASSES``, ``UNKNOWN_METRIC``.
    """
    task = packages[0].task
    if len({package.task for package in packages}) > 1:
        listed = ", ".join(f"{package.name}: {package.task}" for package in packages)
        raise InvalidArgument(
            f"models that answer different questions cannot be compared ({listed})", reason="DIFFERENT_TASKS", field="names"
        )
    if len({frozenset(package.classes) for package in packages}) > 1:
        listed = "; ".join(f"{package.name}: {', '.join(package.classes)}" for package in packages)
        raise InvalidArgument(
            f"models that know different classes cannot be compared ({listed})", reason="DIFFERENT_CLASSES", field="names"
        )
    shown = _SHOWN.get(task, ())
    allowed = tuple(dict.fromkeys((*OBJECTIVES.get(task, ()), *shown)))
    metric = metric or _deciding(packages, allowed)
    if metric not in allowed:
        raise InvalidArgument(
            f"models for {task} are not compared by {metric!r}; choose of {', '.join(allowed)}", reason="UNKNOWN_METRIC", field="metric"
        )
    shared = find_shared(store, packages, seed=seed, check=check)
    if isinstance(shared, str):
        return _unpaired(packages, metric, shown, shared)
    return _paired(packages, shared, metric, tuple(dict.fromkeys((metric, *shown))), seed)


def _deciding(packages: Sequence[ModelPackage], allowed: Sequence[str]) -> str:
    chosen = {str(package.details.get("objective", "")) for package in packages}
    alike = chosen.pop() if len(chosen) == 1 else ""
    return alike if alike in allowed else allowed[0] if allowed else ""


def _scorer(package: ModelPackage, shared: Shared, answers: Sequence[Any]) -> Scored:
    thresholds: Any = package.decoding.get("score_threshold")
    if package.task == "multi_label_classification" and thresholds is None:
        chosen: dict[str, float] = {}
        for point in package.operating_points:
            chosen.setdefault(point.class_name, point.threshold)
        thresholds = [chosen.get(name, 0.5) for name in package.classes]
    return score_answers(package.task, len(package.classes), shared.truths, answers, thresholds)


def _paired(packages: Sequence[ModelPackage], shared: Shared, metric: str, shown: Sequence[str], seed: int) -> Comparison:
    # The answers are in the first model's class numbers, thresholds of each model its own.
    ordered = [_in_order_of(package, packages[0]) for package in packages]
    scorers = [_scorer(package, shared, answers) for package, answers in zip(ordered, shared.answers, strict=True)]
    larger = metric not in LOSSES
    groups = int(shared.groups.max()) + 1
    main = compare_paired([scorer.one(metric) for scorer in scorers], shared.groups, larger_is_better=larger, seed=seed)
    figures = _figures(packages, scorers, shared, metric, shown, main, seed)
    tests = _class_tests(packages[0], shared) if packages[0].task == "classification" else None
    overall = friedman_by_group([scorer.one(metric) for scorer in scorers], shared.groups, seed=seed) if len(packages) > 2 else None
    order = np.argsort([-value if larger else value for value in main.values], kind="stable").tolist()
    differences = [_difference(one, packages, main, metric, tests, len(main.differences)) for one in main.differences]
    looked_at = f"{words.plural(len(shared.ids), 'test image')} in {words.plural(groups, 'group')}"
    reason = f"They answered the same {looked_at}, so that each image is its own control."
    if shared.drawn_from > len(shared.ids):
        reason += f" (Of {shared.drawn_from:,} shared images these were drawn by seed.)"
    sentences = [one.sentence for one in differences if one.first == packages[order[0]].name]
    if overall is not None:
        p, count = overall
        said = "differ" if p < ALPHA else "are not shown to differ"
        sentences.append(
            f"All {len(packages)} together {said} (Friedman's test over {words.plural(count, 'group')}, p {words.p_value(p)})."
        )
    if groups < _FEW_GROUPS:
        sentences.append(f"Only {words.plural(groups, 'group')} of test images: only large differences could have been shown.")
    sentences.append("Whoever chooses the best of several models on these test images finds its figure a little too good.")
    return Comparison(
        metric,
        True,
        reason,
        len(shared.ids),
        groups,
        [figures[place] for place in order],
        differences,
        overall[0] if overall else None,
        sentences,
    )


def _in_order_of(package: ModelPackage, first: ModelPackage) -> ModelPackage:
    """Give the package with its classes in the order of the first's, as its answers were read, and its thresholds with them."""
    if package.classes == first.classes:
        return package
    decoding = dict(package.decoding)
    own = decoding.get("score_threshold")
    if isinstance(own, list | tuple):
        decoding["score_threshold"] = [own[package.classes.index(name)] for name in first.classes]
    return replace(package, classes=list(first.classes), decoding=decoding)


def _figures(
    packages: Sequence[ModelPackage], scorers: Sequence[Scored], shared: Shared, metric: str, shown: Sequence[str], main: Paired, seed: int
) -> list[ModelFigures]:
    """Measure what is listed beside the deciding metric, whose intervals are known."""
    everything = np.ones((1, len(shared.ids)))
    found = []
    for place, (package, scorer) in enumerate(zip(packages, scorers, strict=True)):
        row = scorer.score(everything)[0]
        metrics = []
        for name in shown:
            value = float(row[scorer.places[name]]) if name in scorer.places else float("nan")
            if not np.isfinite(value):
                continue
            interval = main.intervals[place] if name == metric else None
            lower, upper, level = (interval.lower, interval.upper, interval.level) if interval is not None else (None, None, 0.0)
            metrics.append(MetricValue(name, value, lower, upper, level, "test", sample_count=len(shared.ids)))
        found.append(ModelFigures(package.name, package.display_name, package.candidate, tuple(metrics)))
    return found


def _class_tests(package: ModelPackage, shared: Shared) -> Callable[[int, int], tuple[tuple[str, float], ...]]:
    """Give McNemar's test of a pair, and DeLong's where there are two classes."""
    labels: Ints = np.array(shared.truths, dtype=np.int64)
    probabilities = np.stack([np.stack(answers) for answers in shared.answers])
    right = probabilities.argmax(axis=2) == labels[None]
    areas: tuple[Floats, Floats] | None = None
    if len(package.classes) == 2 and 0 < labels.sum() < len(labels):
        areas = delong(labels == 1, probabilities[:, :, 1], shared.groups)

    def tests(first: int, second: int) -> tuple[tuple[str, float], ...]:
        only = int((right[first] & ~right[second]).sum()), int((right[second] & ~right[first]).sum())
        found = [("McNemar (accuracy)", float(binomtest(only[0], sum(only)).pvalue) if sum(only) else 1.0)]
        if areas is not None:
            found.append(("DeLong (AUROC)", delong_p(*areas, first, second)))
        return tuple(found)

    return tests


def _difference(
    one: Difference,
    packages: Sequence[ModelPackage],
    main: Paired,
    metric: str,
    tests: Callable[[int, int], tuple[tuple[str, float], ...]] | None,
    count: int,
) -> ModelDifference:
    first, second = packages[one.first], packages[one.second]
    more = tests(one.first, one.second) if tests is not None else ()
    name = words.column(metric, first.task)
    shown = one.adjusted_p < ALPHA and one.interval is not None and not one.interval.lower <= 0 <= one.interval.upper
    figures = f"{name} {words.number(metric, main.values[one.first])} and {words.number(metric, main.values[one.second])}"
    span = f", difference {words.signed(one.value)}"
    if one.interval is not None:
        span += f", {one.interval.level:.0%} interval {words.signed(one.interval.lower)} to {words.signed(one.interval.upper)}"
    corrected = f" after Holm's correction for {count} pairs" if count > 1 else ""
    said = "".join(f"; {test} p {words.p_value(p)}" for test, p in more)
    verdict = f"{first.name} is better than {second.name}" if shown else f"{first.name} and {second.name} are not shown to differ"
    sentence = f"{verdict}: {figures}{span}, p {words.p_value(one.adjusted_p)} by paired resampling{corrected}{said}."
    lower, upper, level = (one.interval.lower, one.interval.upper, one.interval.level) if one.interval else (None, None, LEVEL)
    return ModelDifference(
        first.name, second.name, metric, one.value, lower, upper, level, one.p_value, one.adjusted_p, more, shown, sentence
    )


def _unpaired(packages: Sequence[ModelPackage], metric: str, shown: Sequence[str], why: str) -> Comparison:
    """Compare the intervals that the packages hold."""
    larger = metric not in LOSSES
    values = [package.metric(metric) for package in packages]
    places = [place for place, value in enumerate(values) if value is not None]
    places.sort(key=lambda place: -_value(values[place]) if larger else _value(values[place]))
    rest = [place for place in range(len(packages)) if place not in places]
    differences = []
    for at, first in enumerate(places):
        for second in places[at + 1 :]:
            differences.append(_apart(packages[first], packages[second], values[first], values[second], metric))
    sentences = [f"They cannot be compared image by image: {why}."]
    sentences += [one.sentence for one in differences if places and one.first == packages[places[0]].name]
    sentences += [f"{packages[place].name} has no figure of {words.column(metric, packages[place].task)}." for place in rest]
    sentences.append("EvaluateModel on one dataset for all of them gives figures that can be compared.")
    figures = [
        ModelFigures(
            packages[place].name,
            packages[place].display_name,
            packages[place].candidate,
            tuple(one for name in dict.fromkeys((metric, *shown)) if (one := packages[place].metric(name)) is not None),
        )
        for place in (*places, *rest)
    ]
    return Comparison(
        metric, False, f"They cannot be compared image by image: {why}.", models=figures, differences=differences, sentences=sentences
    )


def _apart(first: ModelPackage, second: ModelPackage, a: MetricValue | None, b: MetricValue | None, metric: str) -> ModelDifference:
    if a is None or b is None:
        raise ValueError("a model without the figure")
    name = words.column(metric, first.task)
    known = None not in (a.lower, a.upper, b.lower, b.upper)
    apart = known and (float(a.lower or 0) > float(b.upper or 0) or float(a.upper or 0) < float(b.lower or 0))
    figures = f"{name} {words.figure(a)} ({words.span(a)}) and {words.figure(b)} ({words.span(b)}), each on its own test images"
    if apart:
        sentence = f"{first.name} has the better figure than {second.name}, with intervals that do not meet: {figures}; part of it may be that its test images are easier."
    else:
        sentence = f"Nothing can be said of {first.name} and {second.name}: {figures}; the intervals meet."
    return ModelDifference(first.name, second.name, metric, a.value - b.value, None, None, 0.0, None, None, (), False, sentence)


def _value(metric: MetricValue | None) -> float:
    return 0.0 if metric is None else metric.value
