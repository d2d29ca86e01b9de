"""A published model judged on a dataset, from the manifests to figures and prediction files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

import numpy as np

from oteo_automl.judging.judges import Figures, Judge, find_judge
from oteo_automl.judging.result import Evaluation, PartFigures, Remark
from oteo_automl.judging.rows import check_pairing, choose_rows
from oteo_automl.judging.running import Answered, Answers, Keeper, Skipped, Truths, answer_all, read_graph
from oteo_automl.judging.subgroups import LEAST_IMAGES, divide
from oteo_automl.predictions.formats import NAMES, write_predictions
from oteo_automl.predictions.records import CLASSES, ImageRecord, PredictionSet
from oteo_core.artifacts import ArtifactStore
from oteo_core.datasets import DatasetReader, Sample
from oteo_core.errors import FailedPrecondition
from oteo_core.images import ImageLimits
from oteo_core.packages import ModelPackage

_LISTED = 20
_ANSWERING = 0.8


class Progress(Protocol):
    """Takes word of how far the work is."""

    def __call__(self, fraction: float, stage: str) -> None:
        """Take a share, 0 to 1, and what is done."""


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked.

    Parameters
    ----------
    parts
        Splits.
    subgroups
        Names of `oteo_automl.judging.subgroups.KINDS`; empty: what the data tells apart.
    forms
        Of prediction files.
    leave_out_unknown
        Whether to leave out what is of classes that the model does not know, instead of refusing.
    seed
        Of the intervals.
    """

    parts: tuple[str, ...] = ("test",)
    subgroups: tuple[str, ...] = ()
    forms: tuple[str, ...] = ("csv",)
    leave_out_unknown: bool = False
    seed: int = 0


def judge_model(
    keeper: Keeper,
    store: ArtifactStore,
    package: ModelPackage,
    reader: DatasetReader,
    question: Question,
    *,
    operation: str,
    limits: ImageLimits,
    progress: Progress,
    write: Callable[[str, bytes], None],
) -> Evaluation:
    """Judge a model on a dataset.

    Parameters
    ----------
    keeper
        Keeps what was done, for a later attempt.
    store
        Where the package lies.
    package, reader, question
        The model, the dataset and what is asked.
    operation
        Name of the operation, for the result.
    limits
        Of decoding.
    progress
        Told how far it is.
    write
        Takes the prediction files, by name.

    Raises
    ------
    InvalidArgument
        ``WRONG_TASK``, ``UNKNOWN_CLASS``.
    FailedPrecondition
        ``EMPTY_PART``; ``NO_READABLE_IMAGE``: none of the images could be read.
    """
    info = reader.info
    check_pairing(package, info, question.parts, leave_out_unknown=question.leave_out_unknown)
    rows = choose_rows(reader, package, question.parts, leave_out_unknown=question.leave_out_unknown)
    judge = find_judge(package)
    graph = read_graph(store, package)
    answered = answer_all(keeper, judge, graph, reader, rows.samples, limits, lambda share: progress(_ANSWERING * share, "answering"))
    samples, answers, skipped = answered.samples, answered.answers, answered.skipped
    if not samples:
        raise FailedPrecondition(
            f"none of the {len(rows.samples)} images could be read: {skipped[0].path}: {skipped[0].message}", reason="NO_READABLE_IMAGE"
        )
    progress(_ANSWERING, "judging")
    truths = Truths(judge, reader, samples, keeper.check)
    figures = judge.figures(truths, answers, samples)
    groups = [sample.group or sample.id for sample in samples]
    split = "+".join(question.parts)
    metrics = figures.measure(range(len(samples)), groups, split, question.seed)
    progress(0.9, "telling parts apart")
    parts, remarks = _parts(figures, samples, groups, package, question, keeper.check)
    progress(0.95, "writing")
    files = _write(package, question, samples, answers, write)
    return Evaluation(
        model=package.name,
        model_digest=package.digest,
        task=package.task,
        classes=list(package.classes),
        dataset=f"datasets/{info.id}",
        dataset_name=info.display_name,
        dataset_digest=info.digest,
        domain=info.domain,
        splits=list(question.parts),
        images=len(samples),
        groups=len(set(groups)),
        skipped=len(skipped) + sum(rows.left_out.values()),
        metrics=metrics,
        parts=parts,
        remarks=[
            *_on_training(package, reader, question.parts),
            *_on_unusual(answered),
            *_on_skipped(skipped, rows.left_out),
            *remarks,
        ],
        predictions=files,
        operation=operation,
        create_time=datetime.now(UTC).isoformat(timespec="seconds"),
        seed=question.seed,
        confusion=_confusion(judge, truths, answers),
    )


def _parts(
    figures: Figures,
    samples: Sequence[Sample],
    groups: Sequence[str],
    package: ModelPackage,
    question: Question,
    check: Callable[[], None],
) -> tuple[list[PartFigures], list[Remark]]:
    parts, sentences = divide(samples, package.task, question.subgroups)
    found = []
    for part in parts:
        check()
        own = [groups[row] for row in part.rows]
        enough = len(part.rows) >= LEAST_IMAGES
        metrics = figures.measure(part.rows, own, "+".join(question.parts), question.seed) if enough else []
        found.append(PartFigures(part.kind, part.value, len(part.rows), len(set(own)), metrics))
    return found, [Remark("info", "NOT_TOLD_APART", sentence) for sentence in sentences]


def _on_training(package: ModelPackage, reader: DatasetReader, parts: Sequence[str]) -> list[Remark]:
    if reader.info.digest != package.dataset_digest or parts == ("test",):
        return []
    seen = [part for part in parts if part != "test"]
    text = (
        f"The model was fitted or chosen on the {' and '.join(seen)} part of this very dataset: its figures there say little of new images."
    )
    return [Remark("warning", "TRAINED_ON", text)]


def _on_unusual(answered: Answered) -> list[Remark]:
    count = len(answered.samples)
    # One in a hundred is what chance gives.
    if not answered.unusual or answered.unusual < max(2, 0.05 * count):
        return []
    text = (
        f"{answered.unusual} of {count} images look unlike the training images (farther out than 99 of 100 of those): "
        "what the model's own report says may not hold for them."
    )
    return [Remark("warning", "UNUSUAL_IMAGES", text)]


def _on_skipped(skipped: Sequence[Skipped], left_out: dict[str, int]) -> list[Remark]:
    remarks = [Remark("info", "LEFT_OUT", f"{count} image{'s' * (count > 1)} left out: {why}.") for why, count in left_out.items()]
    remarks += [
        Remark("error", one.reason, f"An image could not be read and was left out: {one.message}", one.sample, one.path)
        for one in skipped[:_LISTED]
    ]
    if len(skipped) > _LISTED:
        remarks.append(Remark("error", "MORE_SKIPPED", f"{len(skipped) - _LISTED} more images could not be read and were left out."))
    return remarks


def _confusion(judge: Judge, truths: Truths, answers: Answers) -> list[list[int]]:
    if judge.package.task != "classification":
        return []
    counts = np.zeros((len(judge.classes), len(judge.classes)), dtype=np.int64)
    for place in range(len(answers)):
        counts[truths[place], int(np.argmax(answers[place]))] += 1
    return [[int(value) for value in row] for row in counts]


def _write(
    package: ModelPackage, question: Question, samples: Sequence[Sample], answers: Any, write: Callable[[str, bytes], None]
) -> dict[str, str]:
    images = [record(sample) for sample in samples]
    truths = [tuple(sample.labels) for sample in samples] if package.task in CLASSES else []
    quantile = package.conformal.quantile if package.conformal else None
    predictions = PredictionSet(package.task, tuple(package.classes), images, answers, truths, quantile)
    for form in question.forms:
        for name, content in write_predictions(predictions, form).items():
            write(name, content)
    return {form: NAMES[form] for form in question.forms}


def record(sample: Sample) -> ImageRecord:
    """Give what prediction files say of a sample."""
    return ImageRecord(sample.id, sample.source_path or sample.path, sample.width, sample.height, sample.group, sample.split)
