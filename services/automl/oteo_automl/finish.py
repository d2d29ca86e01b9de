"""From the search's winner to a published package: calibrate, judge once, export, prove, report, publish.

Everything here can be killed and run again: files go to the operation's staging folder, and the manifest is moved last.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from oteo_automl.candidates.attention import map_size
from oteo_automl.candidates.bank import spread_rows
from oteo_automl.completing import Draft, complete
from oteo_automl.exporting.second_network import second_among
from oteo_automl.finish_labels import finish_labels
from oteo_automl.packaging.served import ServedClassifier
from oteo_automl.publishing import (
    FinishContext,
    Steps,
    already_published,
    exporter_words,
    reference_of,
    spare_seconds,
    start_package,
)
from oteo_automl.report.cases import choose_cases
from oteo_automl.report.data import Case, ClassificationPart, PointCheck, ReportData
from oteo_automl.report.page import write_predictions
from oteo_automl.report.subgroups import fill_in
from oteo_automl.winner import NO_CURVE, Winner
from oteo_core.evaluation.bootstrap import LEVEL, Floats, Ints, encode_groups
from oteo_core.evaluation.calibration import expected_calibration_error, fit_temperature, softmax
from oteo_core.evaluation.classification import evaluate
from oteo_core.evaluation.comparison import compare
from oteo_core.evaluation.conformal import ConformalCheck, check_conformal, fit_conformal, prediction_sets
from oteo_core.evaluation.operating import choose_points, rates_at
from oteo_core.evaluation.sequences import sequence_metrics, sequence_notes
from oteo_core.evaluation.shifts import ShiftReport, measure_shifts
from oteo_core.graphs.export import Exported
from oteo_core.graphs.outputs import classification_outputs
from oteo_core.graphs.parity import ParityClient
from oteo_core.graphs.running import run_torch
from oteo_core.packages import (
    MetricValue,
    ModelPackage,
)
from oteo_core.reporting.overlays import heat_picture
from oteo_core.reporting.pictures import thumbnail

_PARITY_IMAGES = 24


def finish(
    ctx: FinishContext,
    winner: Winner,
    client: ParityClient,
    *,
    deadline: float,
    progress: Callable[[str, float], None] = lambda _stage, _fraction: None,
    sleep: Callable[[float], None] = time.sleep,
) -> ModelPackage:
    """Turn the search's winner into a published package.

    Parameters
    ----------
    ctx
        The job.
    winner
        What to publish.
    client
        A Triton to prove the package on.
    deadline
        When all must be done, seconds since the epoch; until then an absent Triton is waited for.
    progress
        Told each step's name and the share of `finish` done before it.
    sleep
        How to wait.

    Returns
    -------
    ModelPackage
        The published manifest. A rerun after the commit gives the one that is there.

    Raises
    ------
    Internal
        ``EXPORT_FAILED``.
    FailedPrecondition
        ``PARITY_FAILED``.
    DeadlineExceeded
        ``TRITON_UNAVAILABLE``.
    """
    published = already_published(ctx, winner.model_id)
    if published is not None:
        return published
    if np.ndim(winner.test.labels) == 2:
        return finish_labels(ctx, winner, client, deadline=deadline, progress=progress, sleep=sleep)
    step = Steps(ctx.check, progress)
    classes = list(winner.classes)
    calibration_labels = np.asarray(winner.calibration.labels, dtype=np.int64)

    with step("calibrate", 0.0):
        calibration = fit_temperature(np.asarray(winner.calibration.logits, dtype=np.float64), calibration_labels)
        calibrated = softmax(winner.calibration.logits, calibration.temperature)
        conformal = fit_conformal(calibration_labels, calibrated, winner.conformal_coverage)
        points = choose_points(calibration_labels, calibrated, classes, winner.operating_points)
        network = winner.network.cpu().float().eval()
        maps = map_size(network, winner.policy.height, winner.policy.width, winner.policy.channels)
        served = ServedClassifier(network, calibration.temperature, maps=maps is not None).eval()

    with step("evaluate", 0.1):
        labels = np.asarray(winner.test.labels, dtype=np.int64)
        served_probabilities, logits, *places = run_torch(served, winner.test.images)
        probabilities = served_probabilities.astype(np.float64)
        before = softmax(logits.astype(np.float64), 1.0 / calibration.temperature)
        judged = _judge(winner, labels, probabilities, before, conformal)
        known = np.arange(len(classes))
        reference, statistics = reference_of(
            winner.training_images,
            winner.policy.channels,
            groups=winner.training_groups,
            truths=None if winner.training_labels is None else winner.training_labels[:, None] == known,
            answers=probabilities.argmax(axis=1)[:, None] == known,
            answer_groups=winner.test.groups,
        )

    package = start_package(
        ctx,
        winner,
        task="classification",
        classes=classes,
        candidate=winner.candidate,
        policy=winner.policy,
        trials=winner.trials,
        metrics=judged.metrics,
        calibration=calibration.to_dict() | {"part": winner.calibration.description},
        details={"winner_trial": winner.winner_trial, "objective": winner.objective, "plan": winner.plan, **winner.details},
    )
    package.temperature, package.conformal, package.operating_points = calibration.temperature, conformal, points
    package.reference = reference

    def shifts_of(network: torch.nn.Module) -> Callable[[float], ShiftReport | None]:
        return lambda seconds: measure_shifts(
            winner.test.images,
            lambda batch, _: list(run_torch(network, batch)[0].argmax(axis=1)),
            lambda answers, places: float((np.asarray(answers) == labels[places]).mean()),
            metric="accuracy",
            seed=winner.seed,
            seconds=seconds,
            check=ctx.check,
        )

    def page(exported: Exported) -> ReportData:
        data = _report_data(winner, package, labels, probabilities, before, judged, exported, places[0] if places else None)
        data.significance, data.data_curve, data.no_data_curve = winner.significance, winner.growth, NO_CURVE
        fill_in(
            data,
            ctx.artifacts,
            ids=winner.test.ids,
            groups=winner.test.groups,
            truths=labels.tolist(),
            answers=list(probabilities),
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
        predictions=lambda: {
            "predictions.csv": write_predictions(
                winner.test.ids, winner.test.sources, winner.test.groups, labels, probabilities, classes, conformal.quantile
            )
        },
        variants=lambda: winner.variants,
        tensorrt=winner.tensorrt,
        start_time=winner.start_time,
        second=second_among(winner.rivals, len(classes), probabilities, lambda found: float((found.argmax(axis=1) == labels).mean())),
    )
    return complete(ctx, client, draft, step, deadline=deadline, sleep=sleep)


@dataclass(slots=True)
class _Judged:
    metrics: list[MetricValue]
    conformal: ConformalCheck
    group_count: int


def _judge(winner: Winner, labels: Ints, probabilities: Floats, before: Floats, conformal: Any) -> _Judged:
    groups = winner.test.groups
    metrics = evaluate(labels, probabilities, list(winner.classes), groups=groups, split="test", seed=winner.seed)
    check = check_conformal(labels, probabilities, conformal, groups=groups, seed=winner.seed)
    count = len(labels)
    metrics.append(MetricValue("ece_uncalibrated", expected_calibration_error(labels, before), split="test", sample_count=count))
    interval = check.interval
    metrics.append(
        MetricValue(
            "conformal_coverage",
            check.coverage,
            interval.lower if interval else None,
            interval.upper if interval else None,
            LEVEL if interval else 0.0,
            "test",
            "",
            count,
        )
    )
    metrics.append(MetricValue("conformal_set_size", check.mean_size, split="test", sample_count=count))
    metrics += sequence_metrics(labels, probabilities, winner.classes, winner.test.sequences, groups, seed=winner.seed)
    return _Judged(metrics, check, int(encode_groups(groups, count).max()) + 1)


def _report_data(
    winner: Winner,
    package: ModelPackage,
    labels: Ints,
    probabilities: Floats,
    before: Floats,
    judged: _Judged,
    exported: Exported,
    places: NDArray[Any] | None,
) -> ReportData:
    classes = list(winner.classes)
    quantile = package.conformal.quantile if package.conformal else math.inf
    sets = prediction_sets(probabilities, quantile)

    def case(index: int) -> Case:
        order = np.argsort(-probabilities[index], kind="stable")
        pixels = winner.test.pixels(index) if winner.test.pixels else winner.test.images[index]
        return Case(
            sample=winner.test.ids[index],
            source=winner.test.sources[index],
            picture=thumbnail(pixels),
            truth=classes[int(labels[index])],
            ranked=tuple((classes[int(k)], float(probabilities[index, k])) for k in order),
            prediction_set=tuple(classes[int(k)] for k in order if sets[index, k]),
            attention="" if places is None else heat_picture(pixels, places[index], winner.policy),
        )

    worst, unsure = choose_cases(labels, probabilities, encode_groups(winner.test.groups, len(labels)))
    return ReportData(
        package=package,
        dataset=winner.dataset,
        part=ClassificationPart(
            labels=labels,
            probabilities=probabilities,
            before=before,
            conformal=judged.conformal,
            points=[
                PointCheck(point, *rates_at(labels, probabilities, classes.index(point.class_name), point.threshold))
                for point in package.operating_points
            ],
            worst=[case(index) for index in worst],
            unsure=[case(index) for index in unsure],
        ),
        count=len(labels),
        group_count=judged.group_count,
        training_counts=list(winner.training_counts),
        comparisons=[
            compare(labels, probabilities, rival.probabilities, (winner.candidate, rival.name), groups=winner.test.groups, seed=winner.seed)
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
