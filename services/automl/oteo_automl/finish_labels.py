"""From the search's winner to a published package where an image may have several labels; see `oteo_automl.finish` for one class an image."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from oteo_automl.candidates.attention import map_size
from oteo_automl.candidates.bank import spread_rows
from oteo_automl.completing import Draft, complete
from oteo_automl.exporting.second_network import second_among
from oteo_automl.packaging.served import ServedLabels
from oteo_automl.predictions.formats import write_predictions
from oteo_automl.predictions.records import ImageRecord, PredictionSet
from oteo_automl.publishing import (
    FinishContext,
    Steps,
    exporter_words,
    reference_of,
    spare_seconds,
    start_package,
)
from oteo_automl.report.data import PointCheck, ReportData
from oteo_automl.report.gather import gather_labels
from oteo_automl.report.subgroups import fill_in
from oteo_automl.winner import NO_CURVE, Winner
from oteo_core.datasets.info import Task
from oteo_core.evaluation.bootstrap import (
    Floats,
    Interval,
    Ints,
    bootstrap,
    encode_groups,
    generator,
    percentile_interval,
)
from oteo_core.evaluation.label_calibration import (
    LabelCalibration,
    check_label_sets,
    choose_label_points,
    choose_thresholds,
    fit_label_sets,
    fit_labels,
    label_calibration_error,
    sigmoid,
)
from oteo_core.evaluation.multilabel import evaluate_multilabel, multilabel_scores
from oteo_core.evaluation.sequences import sequence_metrics, sequence_notes
from oteo_core.evaluation.shifts import ShiftReport, measure_shifts
from oteo_core.graphs.export import Exported
from oteo_core.graphs.outputs import classification_outputs
from oteo_core.graphs.parity import ParityClient
from oteo_core.graphs.running import run_torch
from oteo_core.packages import MetricValue, ModelPackage, OperatingPoint
from oteo_core.reporting.overlays import heat_picture

_PARITY_IMAGES = 24


@dataclass(frozen=True, slots=True)
class _Settled:
    """What was found on the calibration part."""

    calibration: LabelCalibration
    thresholds: Floats
    sets: Floats
    points: list[OperatingPoint]


def finish_labels(
    ctx: FinishContext,
    winner: Winner,
    client: ParityClient,
    *,
    deadline: float,
    progress: Callable[[str, float], None] = lambda _stage, _fraction: None,
    sleep: Callable[[float], None] = time.sleep,
) -> ModelPackage:
    """Turn the winner into a published package; as `oteo_automl.finish.finish`, which calls it.

    The graph gives a calibrated probability for each label, which stand alone. ``decoding`` holds ``score_threshold``, from which each label is
    said; ``set_threshold``, from which it belongs to the set that misses few true labels; and ``set_coverage``, the share of those it holds.
    """
    step = Steps(ctx.check, progress)
    classes = list(winner.classes)
    with step("calibrate", 0.0):
        settled = _settle(winner)
        network = winner.network.cpu().float().eval()
        maps = map_size(network, winner.policy.height, winner.policy.width, winner.policy.channels)
        served = ServedLabels(network, settled.calibration.scale.tolist(), settled.calibration.bias.tolist(), maps=maps is not None).eval()

    with step("evaluate", 0.1):
        labels = np.asarray(winner.test.labels, dtype=np.int64)
        served_probabilities, logits, *places = run_torch(served, winner.test.images)
        probabilities = served_probabilities.astype(np.float64)
        before = sigmoid((logits.astype(np.float64) - settled.calibration.bias) / settled.calibration.scale)
        metrics = _judge(winner, labels, probabilities, before, settled)
        reference, statistics = reference_of(
            winner.training_images,
            winner.policy.channels,
            groups=winner.training_groups,
            truths=None if winner.training_labels is None else winner.training_labels.astype(np.bool_),
            answers=probabilities >= settled.thresholds,
            answer_groups=winner.test.groups,
        )

    package = start_package(
        ctx,
        winner,
        task=Task.MULTI_LABEL.value,
        classes=classes,
        candidate=winner.candidate,
        policy=winner.policy,
        trials=winner.trials,
        metrics=metrics,
        calibration=settled.calibration.to_dict() | {"part": winner.calibration.description},
        details={"winner_trial": winner.winner_trial, "objective": winner.objective, "plan": winner.plan, **winner.details},
    )
    package.operating_points, package.reference = settled.points, reference
    package.decoding = {
        "score_threshold": [float(value) for value in settled.thresholds],
        "set_threshold": [float(value) for value in settled.sets],
        "set_coverage": winner.conformal_coverage,
    }

    def shifts_of(network: torch.nn.Module) -> Callable[[float], ShiftReport | None]:
        return lambda seconds: measure_shifts(
            winner.test.images,
            lambda batch, _: list(run_torch(network, batch)[0].astype(np.float64)),
            lambda answers, places: multilabel_scores(labels[places], np.stack(answers)).get("mean_average_precision", math.nan),
            metric="mean_average_precision",
            seed=winner.seed,
            seconds=seconds,
            check=ctx.check,
        )

    def page(exported: Exported) -> ReportData:
        data = _report_data(winner, package, labels, probabilities, before, settled, exported, places[0] if places else None)
        data.significance, data.data_curve, data.no_data_curve = winner.significance, winner.growth, NO_CURVE
        fill_in(
            data,
            ctx.artifacts,
            ids=winner.test.ids,
            groups=winner.test.groups,
            truths=list(labels.astype(np.bool_)),
            answers=list(probabilities),
            thresholds=settled.thresholds.tolist(),
            seconds=spare_seconds(deadline),
        )
        return data

    draft = Draft(
        package=package,
        served=served,
        outputs=classification_outputs(len(classes), maps),
        images=winner.test.images[spread_rows(len(labels), _PARITY_IMAGES)],
        statistics=statistics,
        shifts=shifts_of(served),
        rival_shifts={one.trial_id: shifts_of(one.served) for one in winner.rivals if one.served is not None},
        page=page,
        predictions=lambda: {"predictions.csv": _predictions(winner, labels, probabilities)},
        variants=lambda: winner.variants,
        tensorrt=winner.tensorrt,
        start_time=winner.start_time,
        second=second_among(winner.rivals, len(classes), probabilities, lambda found: float(((found >= 0.5) == labels).mean())),
    )
    return complete(ctx, client, draft, step, deadline=deadline, sleep=sleep)


def _settle(winner: Winner) -> _Settled:
    labels = np.asarray(winner.calibration.labels, dtype=np.int64)
    calibration = fit_labels(winner.calibration.logits, labels)
    calibrated = sigmoid(calibration.apply(winner.calibration.logits))
    return _Settled(
        calibration=calibration,
        thresholds=choose_thresholds(labels, calibrated),
        sets=fit_label_sets(labels, calibrated, winner.conformal_coverage),
        points=choose_label_points(labels, calibrated, list(winner.classes), winner.operating_points),
    )


def _judge(winner: Winner, labels: Ints, probabilities: Floats, before: Floats, settled: _Settled) -> list[MetricValue]:
    groups, count = winner.test.groups, len(labels)
    metrics = evaluate_multilabel(
        labels, probabilities, list(winner.classes), thresholds=settled.thresholds.tolist(), groups=groups, split="test", seed=winner.seed
    )
    check = check_label_sets(labels, probabilities, settled.sets)
    metrics.append(MetricValue("ece_uncalibrated", label_calibration_error(labels, before), split="test", sample_count=count))
    if math.isfinite(check.coverage):
        metrics.append(MetricValue("label_set_coverage", check.coverage, split="test", sample_count=count))
    for name, value, positive in zip(winner.classes, check.label_coverage, labels.sum(axis=0), strict=True):
        if math.isfinite(value):
            metrics.append(MetricValue("label_set_coverage", value, split="test", class_name=name, sample_count=int(positive)))
    metrics.append(MetricValue("label_set_size", check.mean_size, split="test", sample_count=count))
    thresholds = settled.thresholds.tolist()
    metrics += sequence_metrics(
        labels, probabilities, winner.classes, winner.test.sequences, groups, thresholds=thresholds, seed=winner.seed
    )
    return metrics


def _predictions(winner: Winner, labels: Ints, probabilities: Floats) -> bytes:
    test, classes = winner.test, tuple(winner.classes)
    images = [
        ImageRecord(name, source, group=group, split="test")
        for name, source, group in zip(test.ids, test.sources, test.groups, strict=True)
    ]
    truths = [tuple(classes[int(k)] for k in np.flatnonzero(row)) for row in labels]
    return write_predictions(PredictionSet(Task.MULTI_LABEL.value, classes, images, list(probabilities), truths), "csv")["predictions.csv"]


@dataclass(frozen=True, slots=True)
class LabelComparison:
    """A paired comparison of two models of several labels: difference A minus B in mean binary log-loss, with its interval by group."""

    first: str
    second: str
    difference: float
    interval: Interval | None
    count: int

    @property
    def sentence(self) -> str:
        """The verdict in one sentence."""
        if self.interval is None:
            return f"{self.first} and {self.second} cannot be told apart on {self.count} images."
        low, high = self.interval.lower, self.interval.upper
        span = f"{self.difference:+.3f} ({self.interval.level:.0%} interval {low:+.3f} to {high:+.3f})".replace("-", "−")
        if low <= 0 <= high:
            return f"{self.first} and {self.second} do not differ reliably on {self.count} images: difference in log-loss a label {span}."
        return f"{self.first} is {'better' if high < 0 else 'worse'} than {self.second}: difference in log-loss a label {span}, on {self.count} images."


def compare_labels(
    labels: Ints, first: Floats, second: Floats, names: tuple[str, str], *, groups: Sequence[Any] | None = None, seed: int = 0
) -> LabelComparison:
    """Compare two models on the same samples, all ``(N, K)``; groups are drawn whole."""

    def terms(probabilities: Floats) -> Floats:
        clipped = np.clip(probabilities, 1e-12, 1 - 1e-12)
        losses: Floats = -np.where(labels == 1, np.log(clipped), np.log1p(-clipped)).mean(axis=1)
        return losses

    difference = terms(first) - terms(second)
    numbers = encode_groups(groups, len(labels))
    values = bootstrap(
        lambda weights: ((weights @ difference) / weights.sum(axis=1))[:, None], numbers, generator(seed, "compare", *names)
    )[:, 0]
    return LabelComparison(names[0], names[1], float(difference.mean()), percentile_interval(values), len(labels))


def _report_data(
    winner: Winner,
    package: ModelPackage,
    labels: Ints,
    probabilities: Floats,
    before: Floats,
    settled: _Settled,
    exported: Exported,
    places: NDArray[Any] | None,
) -> ReportData:
    classes, test = list(winner.classes), winner.test

    def pixels(index: int) -> NDArray[Any]:
        return test.pixels(index) if test.pixels else np.asarray(test.images[index])

    def attention(index: int) -> str:
        return "" if places is None else heat_picture(pixels(index), places[index], winner.policy)

    part = gather_labels(
        labels == 1,
        probabilities,
        before,
        settled.thresholds,
        classes,
        ids=test.ids,
        sources=test.sources,
        groups=test.groups,
        pixels=pixels,
        attention=None if places is None else attention,
    )
    part.points = [
        PointCheck(point, *_rates(labels, probabilities, classes.index(point.class_name), point.threshold)) for point in settled.points
    ]
    return ReportData(
        package=package,
        dataset=winner.dataset,
        part=part,
        count=len(labels),
        group_count=int(encode_groups(test.groups, len(labels)).max()) + 1,
        training_counts=list(winner.training_counts),
        comparisons=[
            compare_labels(labels, probabilities, rival.probabilities, (winner.candidate, rival.name), groups=test.groups, seed=winner.seed)
            for rival in winner.rivals
        ],
        not_compared=list(winner.not_compared),
        curves=list(winner.curves),
        calibrated_on=winner.calibration.description,
        objective=winner.objective,
        plan=winner.plan,
        graph_error=exported.error,
        exporter=exporter_words(exported),
        notes=sequence_notes(package.metrics),
    )


def _rates(labels: Ints, probabilities: Floats, index: int, threshold: float) -> tuple[float, float]:
    called, positive = probabilities[:, index] >= threshold, labels[:, index] == 1
    sensitivity = float(called[positive].mean()) if positive.any() else math.nan
    specificity = float((~called[~positive]).mean()) if (~positive).any() else math.nan
    return sensitivity, specificity
