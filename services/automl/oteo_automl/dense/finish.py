"""From a dense search's winner to a published package: thresholds, judging once on the test part, export, proof on Triton, report."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from oteo_automl.candidates.bank import spread
from oteo_automl.candidates.registry import BLEND
from oteo_automl.completing import Draft, complete
from oteo_automl.dense.base import DenseData, DenseTask, Facts, Served
from oteo_automl.dense.held_out import held_out_answers, kept_answers
from oteo_automl.dense.reporting import compare, predictions, report_data
from oteo_automl.dense.result import DenseResult, FittedNetwork
from oteo_automl.dense.variants import dense_variants
from oteo_automl.exporting.second_network import SecondNetwork
from oteo_automl.packaging.variants import MAX_LOSS
from oteo_automl.publishing import (
    REFERENCE_IMAGES,
    FinishContext,
    Steps,
    already_published,
    reference_of,
    spare_seconds,
    start_package,
)
from oteo_automl.report.data import ReportData
from oteo_automl.report.gather import PixelCalibration
from oteo_automl.report.subgroups import fill_in
from oteo_automl.search.checkpoints import StoredCheckpoints
from oteo_automl.search.intervals import SECONDS, HeldOut, add_intervals
from oteo_automl.search.pieces import model_name
from oteo_core.datasets import DatasetInfo, DatasetReader
from oteo_core.errors import FailedPrecondition, Internal
from oteo_core.evaluation.shifts import ShiftReport, measure_shifts
from oteo_core.graphs.export import Exported
from oteo_core.graphs.outputs import TOLERANCE, Output
from oteo_core.graphs.parity import ParityClient
from oteo_core.graphs.running import batches, run_torch
from oteo_core.images import ImageLimits, InputPolicy
from oteo_core.images import place as find_place
from oteo_core.packages import ClassMap, MetricValue, ModelPackage, TrialRecord
from oteo_core.packages.presence import classes_there

_log = logging.getLogger(__name__)

_PARITY_IMAGES = 12
_BATCH = 8
_PUBLISHING_SECONDS = 20.0
"""What export, the check on Triton and the report take on a processor."""

_SPARE = 0.005
"""Share of decisions (a pixel's class, the order of two objects of nearly equal score) that may fall the other way on another runtime."""


@dataclass(slots=True)
class DenseWinner:
    """A dense search's result, and what was asked.

    Parameters
    ----------
    model_id, display_name
        Of the model to be made.
    task, data, reader
        The task, the dataset's samples and the dataset.
    result
        The search's.
    images, targets
        Prepared images ``(N, H, W, C)`` and the task's targets, by the rows of `data`.
    held_out
        Rows that thresholds are found on; never the test part.
    held_out_words
        What they are, for the report.
    policy, facts
        How images are prepared; what the objects are like.
    seed, budget, start_time
        Seed; seconds; when the work began, seconds since 1970.
    run_id, labels
        In MLflow; free labels.
    limits
        Of decoding.
    variants, max_variant_loss
        Smaller or faster forms to make beside the graph, and what they may lose of the objective.
    tensorrt
        Precision of TensorRT in Triton's configuration; empty: without it.
    """

    model_id: str
    display_name: str
    task: DenseTask
    data: DenseData
    reader: DatasetReader
    result: DenseResult
    images: NDArray[Any]
    targets: Any
    held_out: NDArray[np.int64]
    held_out_words: str
    policy: InputPolicy
    facts: Facts
    seed: int = 0
    budget: float = 0.0
    start_time: float = 0.0
    run_id: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    limits: ImageLimits = ImageLimits()  # noqa: RUF009 (a frozen value)
    variants: Sequence[str] = ()
    max_variant_loss: float = MAX_LOSS
    tensorrt: str = ""

    @property
    def dataset(self) -> DatasetInfo:
        """The dataset's manifest."""
        return self.reader.info


@dataclass(slots=True)
class Judged:
    """A network's answers on the test part and what they are worth; `pixels` counts how sure and how often right pixels are, where they have probabilities."""

    served: Served
    answers: list[Any]
    metrics: list[MetricValue]
    pixels: PixelCalibration


def finish_dense(
    ctx: FinishContext,
    winner: DenseWinner,
    client: ParityClient,
    *,
    deadline: float,
    progress: Callable[[str, float], None] = lambda _stage, _fraction: None,
    sleep: Callable[[float], None] = time.sleep,
) -> ModelPackage:
    """Turn a dense search's winner into a published package; see `oteo_automl.finish.finish`.

    Raises
    ------
    Internal
        ``EXPORT_FAILED``.
    FailedPrecondition
        ``PARITY_FAILED``, ``NO_TEST_PART``.
    DeadlineExceeded
        ``TRITON_UNAVAILABLE``.
    """
    published = already_published(ctx, winner.model_id)
    if published is not None:
        return published
    try:
        return _finish(ctx, winner, client, deadline, progress, sleep)
    except Internal as error:
        alone = winner.result.runner_up
        if error.reason != "EXPORT_FAILED" or winner.result.best.candidate.name != BLEND or alone is None:
            raise
        # There is a model all the same: the best of the mixture's parts.
        _log.warning("the mixture cannot be published: %s", error)
        winner.result.best, winner.result.runner_up = alone, None
        winner.result.plan.summary += (
            f" The blend's graph did not answer as PyTorch does, so {alone.candidate.name} is published in its place."
        )
        return _finish(ctx, winner, client, deadline, progress, sleep)


def _finish(
    ctx: FinishContext,
    winner: DenseWinner,
    client: ParityClient,
    deadline: float,
    progress: Callable[[str, float], None],
    sleep: Callable[[float], None],
) -> ModelPackage:
    step = Steps(ctx.check, progress)
    data, result = winner.data, winner.result
    test = data.part("test")
    if not len(test):
        raise FailedPrecondition(
            f"dataset {winner.dataset.id!r} has no test images, so that nothing could be said of a model's worth; split it anew",
            reason="NO_TEST_PART",
        )

    with step("thresholds and calibration", 0.0):
        served = serve(winner, result.best)

    with step("evaluate", 0.15):
        truths = [data.truths(int(row)) for row in test]
        judged = judge(winner, served, test, truths, ctx.check)
        rows = _training_rows(winner)
        reference, statistics = reference_of(
            (np.asarray(winner.images[row]) for row in rows),
            winner.policy.channels,
            groups=[data.groups[row] for row in rows],
            answers=np.array([classes_there(one, len(data.classes), served.decoding) for one in judged.answers]),
            answer_groups=[data.groups[row] for row in test],
        )

    with step("compare with the others", 0.3):
        rivals: dict[str, tuple[FittedNetwork, Judged]] = {}
        each = step.seconds["thresholds and calibration"] + step.seconds["evaluate"]
        for role, one in (("the runner-up", result.runner_up), ("the baseline", result.baseline)):
            if one is None or one.trial_id == result.best.trial_id or any(one.trial_id == other.trial_id for other, _ in rivals.values()):
                continue
            # Late, the model itself comes first: what its rivals are worth on the test part stays unsaid.
            if time.time() + each + _PUBLISHING_SECONDS > deadline:
                break
            rivals[role] = one, judge(winner, serve(winner, one), test, truths, ctx.check)

    with step("intervals of the trials", 0.45):
        _add_intervals(ctx, winner, step.seconds["thresholds and calibration"], deadline)

    package = _package(ctx, winner, judged)
    package.reference = reference
    package.details["rivals"] = {
        f"{one.candidate.name} ({role})": {metric.name: metric.value for metric in other.metrics if not metric.class_name}
        for role, (one, other) in rivals.items()
    }
    groups = [data.groups[row] for row in test]
    second: SecondNetwork | None = None
    if "the runner-up" in rivals:
        one, other = rivals["the runner-up"]
        figure, own = (
            next((metric.value for metric in each.metrics if metric.name == winner.task.shown and not metric.class_name), 0.0)
            for each in (other, judged)
        )
        second = SecondNetwork(one.trial_id, other.served.module, graph_outputs(other.served), figure, own, other.served.decoding)

    def shifts_of(one: Served) -> Callable[[float], ShiftReport | None]:
        sizes = [(int(width), int(height)) for width, height in data.sizes[test]]
        return lambda seconds: measure_shifts(
            _Rows(winner.images, test),
            lambda batch, places: winner.task.answers(
                run_batch(one, batch), [sizes[place] for place in places], winner.policy, one.decoding
            ),
            lambda answers, places: winner.task.scores([truths[place] for place in places], answers, len(data.classes)).get(
                winner.task.shown, math.nan
            ),
            metric=winner.task.shown,
            seed=winner.seed,
            seconds=seconds,
            check=ctx.check,
        )

    def page(exported: Exported) -> ReportData:
        found = report_data(winner, package, judged, test, truths, exported)
        found.comparisons, found.not_compared = compare(winner, judged, truths, groups, rivals)
        fill_in(
            found,
            ctx.artifacts,
            ids=[data.samples[row] for row in test],
            groups=groups,
            truths=truths,
            answers=judged.answers,
            thresholds=served.decoding.get("score_threshold"),
            seconds=spare_seconds(deadline),
        )
        return found

    draft = Draft(
        package=package,
        served=served.module,
        outputs=graph_outputs(served),
        images=winner.images[spread(test, _PARITY_IMAGES)],
        statistics=statistics,
        shifts=shifts_of(served),
        rival_shifts={one.trial_id: shifts_of(other.served) for one, other in rivals.values()},
        page=page,
        predictions=lambda: predictions(winner, test, judged),
        variants=lambda: dense_variants(
            winner.variants,
            winner.max_variant_loss,
            result.objective,
            winner.task,
            data,
            winner.images,
            winner.held_out,
            winner.policy,
            served.decoding,
        ),
        tensorrt=winner.tensorrt,
        start_time=winner.start_time,
        second=second,
        batch=_BATCH,
        batching={"max_batch": _BATCH, "preferred": (4,)},
        marks=(0.5, 0.65, 0.75, 0.75, 0.8, 0.95),
    )
    return complete(ctx, client, draft, step, deadline=deadline, sleep=sleep)


def serve(winner: DenseWinner, fitted: FittedNetwork) -> Served:
    """Make what is exported of a trained network."""
    return winner.task.serve(
        fitted.candidate,
        fitted.module,
        winner.images,
        winner.targets,
        winner.held_out,
        policy=winner.policy,
        classes=len(winner.data.classes),
        facts=winner.facts,
        seed=winner.seed,
    )


def graph_outputs(served: Served) -> tuple[Output, ...]:
    """Give the outputs with what they may differ by between runtimes."""
    return tuple(
        Output(
            name,
            shape,
            datatype,
            tolerance=served.tolerance.get(name, TOLERANCE if datatype == "FP32" else 0.0),
            spare=0.0 if datatype == "FP32" else _SPARE,
            ranked_by=served.ranked_by if name != served.ranked_by else "",
        )
        for name, shape, datatype in served.outputs
    )


class _Rows(Sequence[NDArray[Any]]):
    """Rows of a large array, one at a time."""

    def __init__(self, images: NDArray[Any], rows: NDArray[np.int64]) -> None:
        self._images, self._rows = images, rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, place: Any) -> Any:
        return self._images[self._rows[place]]


def run_batch(served: Served, images: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Give the outputs of a batch of prepared images in PyTorch, by name."""
    return dict(zip([name for name, _, _ in served.outputs], run_torch(served.module, images, _BATCH), strict=True))


def run_served(
    task: DenseTask,
    served: Served,
    images: NDArray[Any],
    rows: NDArray[np.int64],
    sizes: Sequence[tuple[int, int]],
    policy: InputPolicy,
    *,
    check: Callable[[], None] = lambda: None,
    seen: Callable[[int, Mapping[str, NDArray[Any]]], None] = lambda _place, _outputs: None,
) -> list[Any]:
    """Answer for rows of prepared images in PyTorch, in original pixels.

    The outputs of a batch at a time are in memory; `seen` is told those of each image, by its place among the rows.
    """
    found: list[Any] = []
    for part in batches(rows, _BATCH):
        check()
        outputs = run_batch(served, images[part])
        for place in range(len(part)):
            seen(len(found) + place, {name: value[place] for name, value in outputs.items()})
        found += task.answers(outputs, sizes[len(found) : len(found) + len(part)], policy, served.decoding)
    return found


def judge(winner: DenseWinner, served: Served, rows: NDArray[np.int64], truths: Sequence[Any], check: Callable[[], None]) -> Judged:
    """Answer for rows and judge the answers in original pixels."""
    sizes = [(int(width), int(height)) for width, height in winner.data.sizes[rows]]
    pixels = PixelCalibration()

    def seen(place: int, outputs: Mapping[str, NDArray[Any]]) -> None:
        truth = truths[place]
        if isinstance(truth, ClassMap):
            at = find_place(*sizes[place], winner.policy)
            pixels.add(at.values_out(outputs["probabilities"]), truth.labels)

    answers = run_served(winner.task, served, winner.images, rows, sizes, winner.policy, check=check, seen=seen)
    metrics = winner.task.evaluate(
        truths,
        answers,
        winner.data.classes,
        groups=[winner.data.groups[row] for row in rows],
        split="test",
        seed=winner.seed,
        decoding=served.decoding,
    )
    return Judged(served, answers, metrics, pixels)


def _add_intervals(ctx: FinishContext, winner: DenseWinner, each: float, deadline: float) -> None:
    """Give the figures of the best trials their intervals, from the answers that they have left among the checkpoints; `each` is what a network's answers take, seconds."""
    result, data = winner.result, winner.data
    if np.array_equal(winner.held_out, data.part("train")):
        # Figures of what was learnt from: an interval would promise what nobody knows.
        return
    checkpoints = StoredCheckpoints.of_operation(ctx.artifacts, ctx.operation_id)

    def answers(record: TrialRecord) -> HeldOut | None:
        stored = checkpoints.load(model_name(record.id))
        if stored is not None:
            kept = kept_answers(stored)
        elif record.id == result.best.trial_id and time.time() + each + _PUBLISHING_SECONDS <= deadline:
            # A mixture's answers lie nowhere.
            kept = _judged_again(winner, result.best)
        else:
            return None
        return held_out_answers(winner.task.name, winner.targets, data.groups, kept)

    add_intervals(
        result.trials,
        answers,
        task=winner.task.name,
        classes=len(data.classes),
        objective=result.objective,
        first=result.best.trial_id,
        seed=winner.seed,
        seconds=min(SECONDS, spare_seconds(deadline)),
    )


def _judged_again(winner: DenseWinner, fitted: FittedNetwork) -> dict[str, NDArray[Any]]:
    rows, classes = winner.held_out, len(winner.data.classes)
    # Nothing is learnt: the rows to learn from are never looked at.
    lesson = winner.task.lesson(
        fitted.candidate, winner.images, winner.targets, rows, rows, classes=classes, facts=winner.facts, seed=winner.seed
    )
    lesson.place(torch.device("cpu"))
    with torch.inference_mode():
        return lesson.judge(fitted.module).kept


def _training_rows(winner: DenseWinner) -> list[int]:
    return [int(row) for row in spread(winner.data.part("train"), REFERENCE_IMAGES) if not winner.data.rows[row].derived_from]


def _package(ctx: FinishContext, winner: DenseWinner, judged: Judged) -> ModelPackage:
    best, plan = winner.result.best, winner.result.plan
    package = start_package(
        ctx,
        winner,
        task=winner.task.name,
        classes=winner.data.classes,
        candidate=best.candidate.name,
        policy=winner.policy,
        trials=winner.result.trials,
        metrics=judged.metrics,
        calibration={**judged.served.calibration, "part": winner.held_out_words},
        details={
            "winner_trial": best.trial_id,
            "objective": winner.result.objective,
            "plan": plan.summary,
            "initial_weights": best.initial_weights,
            "parameters": best.parameters,
            "device": plan.device,
            "fingerprint": plan.fingerprint,
            "facts": winner.facts,
            "search_seconds": winner.result.seconds,
            "search_steps": plan.steps,
        },
    )
    package.decoding = judged.served.decoding
    width, height = np.median(winner.data.sizes[winner.data.part("train")], axis=0)
    package.training_size = (round(width), round(height))
    return package
