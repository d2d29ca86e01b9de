"""A measurement from datasets to figures: what is read, what the model says of it, and what the tests find."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from oteo_core.datasets import DatasetReader, Sample
from oteo_core.errors import FailedPrecondition, InvalidArgument
from oteo_core.evaluation.bootstrap import generator
from oteo_core.images import ImageLimits, InputPolicy
from oteo_core.packages import ModelPackage
from oteo_core.truths.reading import annotated
from oteo_translate.measure_requests import refuse_same
from oteo_translate.reading import (
    LEAST_IMAGES,
    MOST_IMAGES,
    Reading,
    home_samples,
    policy_of,
    read_domain,
    rows_in_chunks,
    shared_keys,
    usable,
)
from oteo_translate.shift.features import EMBEDDING, INTENSITY, OUTPUT, Feature, intensity, intensity_columns, pooled_outputs
from oteo_translate.shift.loss import ExpectedLoss, expect_loss
from oteo_translate.shift.measure import ALPHA, Shift, measure_shift
from oteo_translate.shift.prevalence import ClassEvidence
from oteo_translate.shift.sides import Floats, Sides
from oteo_translate.shift.simulated import simulate
from oteo_translate.tasks.believing import believed


class Judge(Protocol):
    """What is used of `oteo_translate.tasks.model.TaskModel`."""

    package: ModelPackage
    metric: str

    def outputs(self, images: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Give the served graph's outputs."""

    def judge(self, images: NDArray[Any]) -> tuple[list[Any], Floats]:
        """Give answers and confidences."""

    def scores(self, truths: Sequence[Any], answers: Sequence[Any]) -> Floats:
        """Score images."""

    def as_truths(self, answers: Sequence[Any]) -> list[Any]:
        """Take answers for truths."""

    def counts(self, answers: Sequence[Any]) -> NDArray[np.int64]:
        """Count objects."""

    def shares(self, answers: Sequence[Any]) -> Floats:
        """Say how much of its image an answer calls something."""

    def embeddings(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """Describe images."""


class Second(Protocol):
    """What is used of a second network, another `oteo_translate.tasks.model.TaskModel`."""

    def answers(self, images: NDArray[Any]) -> list[Any]:
        """Answer images."""


@dataclass(frozen=True, slots=True)
class Study:
    """What was measured between two datasets.

    Parameters
    ----------
    home, shifted
        As they were read.
    home_name, shifted_name
        For people.
    model
        ``models/{id}``; empty without.
    policy
        How images were prepared.
    shift, loss
        What was found; `loss` None without a model or without truths at home.
    statistics
        Image statistics of both sides, for pictures.
    shared
        Images of the dataset in question that home holds too; they took no part.
    notes
        What whoever reads it should know, sentences.
    seed
        Of every draw.
    """

    home: Reading
    shifted: Reading
    home_name: str
    shifted_name: str
    model: str
    policy: InputPolicy
    shift: Shift
    loss: ExpectedLoss | None
    statistics: Feature
    shared: int
    notes: tuple[str, ...]
    seed: int


def study(
    home: DatasetReader,
    shifted: DatasetReader,
    folder: Path,
    *,
    model: Judge | None = None,
    second_network: Second | None = None,
    alpha: float = 0.0,
    seed: int = 0,
    most: int = MOST_IMAGES,
    limits: ImageLimits | None = None,
    check: Callable[[], None] = lambda: None,
    progress: Callable[[float, str], None] = lambda share, word: None,
) -> Study:
    """Measure.

    Parameters
    ----------
    home
        What the images are compared with; a model's own dataset where `model` is given.
    shifted
        The dataset in question.
    folder
        For prepared images.
    model
        Adds its outputs and embeddings to what is tested, and the expected loss.
    second_network
        The model's second network, whose agreement with it tells most of that loss; None: there is none.
    alpha
        Chance of a false alarm; 0: 0.05.
    seed
        Of every draw.
    most
        Images of either set that are looked at.
    limits
        Of decoding.
    check, progress
        Asked and told now and then.

    Raises
    ------
    InvalidArgument
        ``SAME_DATASET``, ``SHARED_IMAGES``, ``TOO_FEW_IMAGES``, ``CHANNELS_MISMATCH``.
    FailedPrecondition
        ``EMPTY_DATASET``, ``UNREADABLE_IMAGES``.
    """
    package = model.package if model is not None else None
    refuse_same(home, shifted, package.name if package is not None else "")
    policy = package.input if package is not None else policy_of(home, shifted)
    ours, notes = home_samples(home, package)
    theirs, shared = _unshared(home, shifted)
    if shared:
        notes.append(f"{shared} images of datasets/{shifted.info.id} are in datasets/{home.info.id} too; they took no part.")
    task, classes = _question(home, shifted, package)
    progress(0.0, "reading images")
    readings: list[Reading] = []
    for place, (reader, samples) in enumerate(((home, ours), (shifted, theirs))):
        readings.append(
            read_domain(
                reader,
                policy,
                folder,
                samples=samples,
                task=package.task if package is not None else "",
                classes=classes,
                most=most,
                seed=seed,
                limits=limits,
                check=check,
                progress=_within(progress, 0.2 * place, 0.2, "reading images"),
            )
        )
    first, second = readings
    for reading in readings:
        notes += _about(reading, policy)
    _refuse_unlike(first, second, package)
    statistics = Feature(
        INTENSITY,
        intensity(first.domain.images, check),
        intensity(second.domain.images, check),
        intensity_columns(policy.channels),
    )
    features = [statistics]
    loss = None
    evidence = _evidence(first, second, home, shifted, task, classes)
    if model is not None and package is not None:
        said = [
            _ask(model, second_network, reading, check, _within(progress, 0.4 + 0.15 * at, 0.15, "asking the model"))
            for at, reading in enumerate(readings)
        ]
        features += [
            Feature(OUTPUT, said[0].outputs, said[1].outputs, said[0].names),
            Feature(EMBEDDING, said[0].embeddings, said[1].embeddings),
        ]
        if evidence is not None and package.task.endswith("classification"):
            evidence = ClassEvidence(
                evidence.classes, evidence.home, evidence.shifted, said[0].probabilities, said[1].probabilities, evidence.exclusive
            )
        sides = Sides.of(first.domain.groups, second.domain.groups)
        belief = np.ones(len(second.domain))
        if not package.task.endswith("classification"):
            belief = believed(said[0].shares, said[0].counts, said[1].shares, said[1].counts)
            if lost := int((belief < 1).sum()):
                notes.append(
                    f"{lost} answers find nothing, or fill the image, as hardly any does at home: the expected loss does not believe them."
                )
        loss = expect_loss(
            model.metric,
            said[0].confidence,
            said[0].scores,
            said[1].confidence * belief,
            said[1].scores,
            sides,
            generator(seed, "shift", "loss"),
            seconded=(said[0].seconded, said[1].seconded * belief) if second_network is not None else None,
            simulated=simulate(first.domain.images, first.domain.truths, model.judge, model.scores, seed=seed, check=check),
        )
        if loss is None:
            notes.append("Home's images have no annotations, so that the loss of accuracy cannot be estimated.")
    found = measure_shift(
        features,
        first.domain.groups,
        second.domain.groups,
        classes=evidence,
        alpha=alpha or ALPHA,
        seed=seed,
        check=check,
        progress=lambda share, word: progress(0.7 + 0.25 * share, word),
    )
    return Study(
        first,
        second,
        home.info.display_name or home.info.id,
        shifted.info.display_name or shifted.info.id,
        package.name if package is not None else "",
        policy,
        found,
        loss,
        statistics,
        shared,
        (*notes, *found.notes),
        seed,
    )


def _within(progress: Callable[[float, str], None], start: float, width: float, word: str) -> Callable[[float], None]:
    """Give a part of a progress bar."""

    def tell(share: float) -> None:
        progress(start + width * share, word)

    return tell


def _unshared(home: DatasetReader, shifted: DatasetReader) -> tuple[list[Sample], int]:
    shared = shared_keys(home, shifted)
    everything = usable(shifted)
    theirs = usable(shifted, without=shared) if shared else everything
    lost = len(everything) - len(theirs)
    if lost and len(theirs) < LEAST_IMAGES:
        raise InvalidArgument(
            f"{lost} of the {len(everything)} images of datasets/{shifted.info.id} are in datasets/{home.info.id} too; {len(theirs)} are left, and "
            f"{LEAST_IMAGES} are needed",
            reason="SHARED_IMAGES",
            field="dataset",
        )
    return theirs, lost


def _question(home: DatasetReader, shifted: DatasetReader, package: ModelPackage | None) -> tuple[str, tuple[str, ...]]:
    """Give the task and the classes by which class shares are told; no task: they are not."""
    if package is not None:
        return package.task, tuple(package.classes)
    if home.info.task != shifted.info.task or home.info.task == "keypoints":
        return "", ()
    return home.info.task, tuple(dict.fromkeys([*home.info.classes, *shifted.info.classes]))


def _evidence(
    first: Reading, second: Reading, home: DatasetReader, shifted: DatasetReader, task: str, classes: tuple[str, ...]
) -> ClassEvidence | None:
    if not task or not classes:
        return None
    exclusive = task == "classification"
    return ClassEvidence(
        classes,
        _profiles(first.samples, home, task, classes),
        _profiles(second.samples, shifted, task, classes),
        exclusive=exclusive,
    )


def _profiles(samples: Sequence[Sample], reader: DatasetReader, task: str, classes: tuple[str, ...]) -> Floats:
    """Give which classes each image has, ``(N, K)``; NaN where it is not annotated for the task, or with a class of another question."""
    rows = np.full((len(samples), len(classes)), np.nan)
    for row, sample in enumerate(samples):
        named = set(sample.class_names())
        if not annotated(reader, sample, task) or (task == "classification" and not named <= set(classes)):
            continue
        rows[row] = [name in named for name in classes]
    return rows


@dataclass(frozen=True, slots=True)
class _Said:
    outputs: Floats
    names: tuple[str, ...]
    probabilities: Floats
    embeddings: Floats
    confidence: Floats
    scores: Floats
    seconded: Floats
    shares: Floats
    counts: NDArray[np.int64]


def _ask(model: Judge, second: Second | None, reading: Reading, check: Callable[[], None], progress: Callable[[float], None]) -> _Said:
    """Ask the model about all images, some at a time: maps of all together would not fit."""
    images = reading.domain.images
    truths = reading.domain.truths or [None] * len(images)
    pooled, chances, embedded, sure, scores, seconded, shares, counts = [], [], [], [], [], [], [], []
    names: tuple[str, ...] = ()
    for rows in rows_in_chunks(len(images)):
        check()
        part = np.ascontiguousarray(images[rows])
        outputs = model.outputs(part)
        values, names = pooled_outputs(model.package.task, outputs, model.package.classes)
        pooled.append(values)
        if model.package.task.endswith("classification"):
            chances.append(np.asarray(outputs["probabilities"], dtype=np.float64))
        embedded.append(np.asarray(model.embeddings(part), dtype=np.float64))
        answers, confidence = model.judge(part)
        sure.append(np.asarray(confidence, dtype=np.float64))
        scores.append(np.asarray(model.scores(truths[rows], answers), dtype=np.float64))
        shares.append(model.shares(answers))
        counts.append(model.counts(answers))
        if second is not None:
            seconded.append(np.asarray(model.scores(model.as_truths(answers), second.answers(part)), dtype=np.float64))
        progress(rows.stop / len(images))
    together = [
        np.concatenate(parts) if parts else np.zeros((0, 0)) for parts in (pooled, chances, embedded, sure, scores, seconded, shares)
    ]
    found = np.concatenate(counts) if counts else np.zeros(0, dtype=np.int64)
    return _Said(together[0], names, together[1], together[2], together[3], together[4], together[5], together[6], found)


def _refuse_unlike(first: Reading, second: Reading, package: ModelPackage | None) -> None:
    """Refuse a comparison in which most of a set could not be read."""
    for reading in (first, second):
        lost = [one for one in reading.unread if one.sample not in set(reading.domain.ids)]
        if len(lost) > len(reading.domain):
            raise FailedPrecondition(
                f"{len(lost)} of {len(lost) + len(reading.domain)} images of {reading.domain.name} cannot be used, the first is {lost[0].sample} "
                f"({lost[0].reason}: {lost[0].message}): what is left would not stand for the set",
                reason="UNREADABLE_IMAGES",
                field="dataset",
            )


def _about(reading: Reading, policy: InputPolicy) -> list[str]:
    notes = []
    lost = [one for one in reading.unread if one.sample not in set(reading.domain.ids)]
    if lost:
        named = ", ".join(f"{one.sample} ({one.reason})" for one in lost[:5])
        notes.append(f"{len(lost)} images of {reading.domain.name} could not be used: {named}{' and others' if len(lost) > 5 else ''}.")
    untold = len(reading.unread) - len(lost)
    if untold:
        notes.append(f"{untold} annotations of {reading.domain.name} could not be read.")
    if len(reading.domain) + len(lost) < reading.available:
        notes.append(f"{len(reading.domain) + len(lost)} of the {reading.available} images of {reading.domain.name} were drawn.")
    flat = sum(int(np.ptp(np.asarray(image)) == 0) for image in reading.domain.images)
    if flat:
        notes.append(f"{flat} images of {reading.domain.name} are of one value all over, which an empty field or a broken camera gives.")
    grey = {sample.channels for sample in reading.samples} <= {1, 2}
    if grey and policy.channels == 3:
        notes.append(f"The images of {reading.domain.name} are grey; they were compared in colour.")
    return notes
