"""What the page and the card of a detector or segmenter say, gathered from its answers on the test part and those of its rivals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from oteo_automl.predictions.formats import write_predictions
from oteo_automl.predictions.records import ImageRecord, PredictionSet
from oteo_automl.publishing import exporter_words
from oteo_automl.report.curves import learning_curve
from oteo_automl.report.data import ReportData, Spoken
from oteo_automl.report.gather import gather_dense
from oteo_automl.report.rivals import RivalAnswers, against_rivals, left_unsaid
from oteo_core.graphs.export import Exported
from oteo_core.packages import ModelPackage

if TYPE_CHECKING:
    from oteo_automl.dense.finish import DenseWinner, Judged
    from oteo_automl.dense.result import FittedNetwork

NO_CURVE = (
    "It was not measured: where objects are learnt, that would mean training networks again on parts of the images, for which the time was not given. "
    "To find out, train a second model in the same time on half of the training images and judge it on the same test part (oteo models evaluate): twice the images "
    "would bring at most about what the second half has brought."
)
"""Why there is no learning curve in data, and what to do instead: errors fall as a power of the number of images, by less with each doubling."""


def compare(
    winner: DenseWinner,
    judged: Judged,
    truths: Sequence[Any],
    groups: Sequence[str],
    rivals: Mapping[str, tuple[FittedNetwork, Judged]],
) -> tuple[list[Spoken], list[str]]:
    """Compare the winner with its rivals, by role, on the test part; also gives sentences on those that it was not compared with."""
    result = winner.result
    best = result.best
    said = against_rivals(
        winner.task.name,
        len(winner.data.classes),
        truths,
        groups,
        RivalAnswers(best.candidate.name, judged.answers, judged.served.decoding.get("score_threshold")),
        [
            RivalAnswers(f"{one.candidate.name} ({role})", other.answers, other.served.decoding.get("score_threshold"))
            for role, (one, other) in rivals.items()
        ],
        result.objective,
        seed=winner.seed,
    )
    runner_up = None if result.runner_up is None else (result.runner_up.trial_id, result.runner_up.candidate.name)
    unsaid = left_unsaid(
        (best.trial_id, best.candidate.name),
        runner_up,
        (result.baseline.trial_id, result.baseline.candidate.name),
        {one.trial_id for one, _ in rivals.values()},
    )
    return list(said), unsaid


def report_data(
    winner: DenseWinner,
    package: ModelPackage,
    judged: Judged,
    test: NDArray[np.int64],
    truths: Sequence[Any],
    exported: Exported,
) -> ReportData:
    """Gather what the page and the card say."""
    data, result = winner.data, winner.result
    groups = [data.groups[row] for row in test]
    thresholds = judged.served.decoding.get("score_threshold", 0.0)
    part = gather_dense(
        winner.task.name,
        truths,
        judged.answers,
        data.classes,
        ids=[data.samples[row] for row in test],
        sources=[data.rows[row].source_path or data.rows[row].path for row in test],
        groups=groups,
        pixels=lambda place: winner.reader.image(data.rows[test[place]], winner.limits).pixels,
        threshold=thresholds,
        calibration=judged.pixels.result() if judged.pixels.certainty else None,
        certainty=np.array(judged.pixels.certainty) if judged.pixels.certainty else None,
    )
    names = {trial.id: trial.candidate for trial in result.trials}
    return ReportData(
        package=package,
        dataset=winner.dataset,
        part=part,
        count=len(test),
        group_count=len(set(groups)),
        training_counts=_training_counts(winner),
        curves=[
            learning_curve(names.get(trial, trial), records, best=trial == result.best.trial_id, score_name=winner.task.shown)
            for trial, records in result.curves.items()
        ],
        calibrated_on=winner.held_out_words,
        objective=result.objective,
        plan=result.plan.summary,
        graph_error=exported.error,
        no_data_curve=NO_CURVE,
        exporter=exporter_words(exported),
    )


def _training_counts(winner: DenseWinner) -> list[int]:
    """Count for each class its objects in the training part; images where a class is a matter of pixels."""
    counts = [0] * len(winner.data.classes)
    if winner.task.name == "semantic_segmentation":
        known = {info.name: info for info in winner.dataset.class_info}
        for place, name in enumerate(winner.data.classes):
            if name in known:
                counts[place] = sum(part.sample_count for part in known[name].splits if part.split == "train")
        return counts
    for row in winner.data.part("train"):
        for label in winner.data.truths(int(row)).labels:
            counts[int(label)] += 1
    return counts


def predictions(winner: DenseWinner, test: NDArray[np.int64], judged: Judged) -> dict[str, bytes]:
    """Write the answers on the test part, as a table and as COCO results."""
    rows = [winner.data.rows[row] for row in test]
    images = [
        ImageRecord(row.id, row.source_path or row.path, width=int(size[0]), height=int(size[1]), group=row.group)
        for row, size in zip(rows, winner.data.sizes[test], strict=True)
    ]
    found = PredictionSet(winner.task.name, winner.data.classes, images, judged.answers)
    return {name: content for form in ("csv", "coco") for name, content in write_predictions(found, form).items()}
