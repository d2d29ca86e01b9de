"""Learning from images that have no label: what the search's winner is sure of becomes a lesson for a student, which is kept only if it is better.

Data distillation (Radosavovic et al., CVPR 2018): the teacher, an ensemble mostly, answers each unlabelled image under several transforms; images on
which all agree, and surely enough, get its mean answer. Model distillation (Hinton, Vinyals and Dean, 2015): the student learns that answer
as it is, soft, beside the labelled images. How sure is sure enough is found on held-out images, and so is whether anything was gained: a
teacher that has seen their labels would flatter the student, so classifiers that were fitted on everything are fitted anew without them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from oteo_automl.candidates.classification import ClassificationLesson, TrainingRows
from oteo_automl.candidates.modules import Blend, SavedModule
from oteo_automl.candidates.training import Diverged, NothingLearnt, Recipe, Trainer, runs_on
from oteo_automl.search.classification_pieces import Problem, StoredModel, first_network, refit, wants_half
from oteo_automl.search.data import ArrayCache, ImageCache
from oteo_automl.search.pieces import model_name
from oteo_automl.search.result import EpochRecord
from oteo_automl.search.scoring import quick_loss, score
from oteo_core.datasets import DatasetReader, Sample
from oteo_core.evaluation.bootstrap import generator, resample_weights
from oteo_core.evaluation.label_calibration import level, sigmoid

STUDENT = "student"
"""What names of students begin with."""

RESULT = "distillation.json"
"""Checkpoint of the outcome."""

SHARE = 0.3
"""Part of the search's time that is kept for the student where unlabelled images are given."""

SURE = 0.9
"""Share of the resamples of held-out groups in which the student must be better."""

_RESAMPLES = 400
_LEAST = 10
_MOST_BYTES = 2 * 1024**3
_BATCH = 16
_ERRORS_HALVED = 0.5


@dataclass(slots=True)
class Taught:
    """How it went.

    Parameters
    ----------
    kept
        True where the student, or its mean with the winner, takes the winner's place.
    sentence
        For people: what was done, and whether it helped.
    trial
        Id of the student's trial; empty where none was trained.
    candidate
        The student's name.
    share
        Of the student in the mean with the winner: 1 alone, 0.5 half and half.
    images, used, threshold
        Unlabelled images looked at, those that were learnt from, and the least confidence of them.
    agreement_accuracy
        Of the teacher's agreed and sure answers on held-out images, 0 to 1.
    gain, sureness
        By which the objective was better on held-out images, and the share of resamples in which it was.
    scores
        The student's, on held-out images.
    seconds
        That all of it took.
    curve
        The student's.
    parameters
        The student's recipe.
    """

    kept: bool
    sentence: str
    trial: str = ""
    candidate: str = ""
    share: float = 0.0
    images: int = 0
    used: int = 0
    threshold: float = 0.0
    agreement_accuracy: float = 0.0
    gain: float = 0.0
    sureness: float = 0.0
    scores: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    curve: list[EpochRecord] = field(default_factory=list)
    parameters: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> bytes:
        """Write it."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_json(cls, data: bytes) -> Taught:
        """Read what `to_json` wrote."""
        values = json.loads(data)
        values["curve"] = [EpochRecord(**record) for record in values["curve"]]
        return cls(**values)


@dataclass(frozen=True)
class UnlabelledCache(ImageCache):
    """The prepared images of a dataset whose labels, if it has any, are not looked at.

    Parameters
    ----------
    seen
        Digests of pixels that are in the labelled dataset: such images are left out, or the student would learn from the test part.
    """

    seen: frozenset[str] = frozenset()

    def samples(self, reader: DatasetReader) -> list[Sample]:
        """Give the images that may be learnt from."""
        columns = ["path", "width", "height", "channels", "dtype", "bit_depth", "media_kind", "frames", "sequence", "pixel_digest"]
        return [
            sample
            for sample in reader.samples(columns=columns)
            if sample.is_picture and not (sample.pixel_digest and sample.pixel_digest in self.seen)
        ]


def teach(
    problem: Problem,
    module: SavedModule,
    parts: Sequence[str],
    held: tuple[NDArray[np.int64], NDArray[np.float32]],
    groups: NDArray[np.int64],
    unlabelled: UnlabelledCache | ArrayCache,
    trial: str,
    architecture: str,
    recipe: Recipe,
    epochs: int,
    deadline: float,
) -> Taught:
    """Have the winner teach a student; the piece of a student's trial, which leaves its network among the checkpoints.

    Parameters
    ----------
    problem
        Labelled images and their folds.
    module
        The winner, to logits.
    parts
        Ids of the trials that it is made of, in the order of a blend's parts.
    held
        Rows ``(M,)`` and the winner's logits ``(M, K)`` of held-out samples.
    groups
        Number of the group of every row of the data.
    unlabelled
        The other images.
    trial
        Id of the student's trial.
    architecture, recipe, epochs
        The student.
    deadline
        Seconds since 1970; at most a third of the time until then goes to the teacher.
    """
    earlier = problem.checkpoints.load(RESULT)
    if earlier is not None:
        return Taught.from_json(earlier)
    began = time.time()
    taught = _teach(problem, module, parts, held, groups, unlabelled, trial, architecture, recipe, epochs, deadline)
    taught.seconds = time.time() - began
    problem.checkpoints.save(RESULT, taught.to_json())
    return taught


def _teach(
    problem: Problem,
    module: SavedModule,
    parts: Sequence[str],
    held: tuple[NDArray[np.int64], NDArray[np.float32]],
    groups: NDArray[np.int64],
    unlabelled: UnlabelledCache | ArrayCache,
    trial: str,
    architecture: str,
    recipe: Recipe,
    epochs: int,
    deadline: float,
) -> Taught:
    others, images = unlabelled.open(), problem.cache.open()
    rows = problem.held_out
    if problem.fold_count == 0 or len(rows) < _LEAST:
        return Taught(False, "There are too few labelled images to tell whether unlabelled ones help: they were not used.")
    if not len(others):
        return Taught(False, "The unlabelled dataset has no image that is not among the labelled ones: nothing was learnt from it.")
    if others.shape[1:] != images.shape[1:]:
        raise ValueError(f"unlabelled images of {others.shape[1:]} beside labelled ones of {images.shape[1:]}")
    labels = problem.labels[rows]
    teacher = without_held_out(problem, module, parts)
    logits, _ = answers(teacher, images, rows)
    temperature = level(logits.mean(axis=0), labels)[1]
    known = _Answers.of(logits, temperature, several=labels.ndim == 2)
    threshold, right = choose_threshold(known, labels)
    said = f"The winner was asked for {len(others)} unlabelled images under {len(_TRANSFORMS)} transforms"
    if threshold is None:
        return Taught(
            False, f"{said}: where it was sure and agreed with itself on held-out images it was not right more often; they were not used."
        )
    limit = max(_BATCH, min(len(others), _MOST_BYTES // max(1, others[0].nbytes)))
    third = time.time() + max(1.0, (deadline - time.time()) / 3)
    found_logits, asked = answers(teacher, others, np.arange(limit), deadline=third)
    found = _Answers.of(found_logits, temperature, several=labels.ndim == 2)
    sure = np.flatnonzero(found.agreed & (found.confidence >= threshold))
    facts = Taught(False, "", images=asked, used=len(sure), threshold=float(threshold), agreement_accuracy=right)
    if len(sure) < _LEAST:
        facts.sentence = f"{said}: it was sure of {len(sure)} of {asked} only; they were not used."
        return facts
    lesson, network = _lesson(problem, images, others, sure, found.probabilities[sure], architecture, recipe, epochs)
    trainer = Trainer(network, lesson, recipe, seed=problem.seed, device=runs_on(), half=wants_half(problem, architecture))
    try:
        outcome = trainer.run(epochs, epochs, deadline, judge_every=max(1, epochs // 8))
    except Diverged as error:
        facts.sentence = f"{said}; the student that learnt from {len(sure)} of them diverged ({error}) and was left."
        return facts
    except NothingLearnt as error:
        facts.sentence = f"{said}; {error} of a student: they were not used."
        return facts
    own = outcome.judgement.kept["logits"]
    model = StoredModel(trainer.result(), rows, own, "the validation part")
    problem.checkpoints.save(model_name(trial), model.to_bytes())
    facts.trial, facts.candidate = trial, f"{STUDENT}-{architecture}"
    facts.scores, facts.curve = score(own, labels), outcome.curve
    facts.parameters = {**asdict(recipe), "epochs": outcome.epochs}
    _decide(facts, problem, own, held, groups)
    verdict = (
        f"better in {facts.sureness:.0%} of resamples (by {facts.gain:.4f} of {problem.objective}), and was kept"
        if facts.kept
        else f"better in {facts.sureness:.0%} of resamples only ({facts.gain:+.4f} of {problem.objective}), and was not kept"
    )
    mean = "its mean with the winner" if facts.share < 1 else "it"
    facts.sentence = (
        f"{said}; {len(sure)} of {asked} were agreed on with a confidence of at least {threshold:.2f} "
        f"(on held-out images such answers are right in {right:.0%}). A student, {architecture}, learnt from them; on held-out images {mean} was {verdict}."
    )
    return facts


def without_held_out(problem: Problem, module: SavedModule, parts: Sequence[str]) -> SavedModule:
    """Give the winner as it is without the held-out labels: networks never saw them, classifiers on features are fitted anew."""
    if isinstance(module, Blend) and len(parts) > 1:
        settings = module.settings
        members = [refit(problem, one, trial) for one, trial in zip(module.parts, parts, strict=True) if isinstance(one, SavedModule)]
        return Blend(members, settings["weights"], settings["temperatures"], several=settings["several"]).eval()
    return refit(problem, module, parts[0])


def _identity(images: NDArray[Any]) -> NDArray[Any]:
    return images


def _mirrored(images: NDArray[Any]) -> NDArray[Any]:
    return images[:, :, ::-1]


def _lit(images: NDArray[Any], factor: float) -> NDArray[Any]:
    top = 255.0 if images.dtype == np.uint8 else 1.0
    changed: NDArray[np.float32] = np.clip(images.astype(np.float32) * np.float32(factor), 0.0, top).astype(np.float32)
    return np.round(changed).astype(np.uint8) if images.dtype == np.uint8 else changed


def _brighter(images: NDArray[Any]) -> NDArray[Any]:
    return _lit(images, 1.1)


def _darker(images: NDArray[Any]) -> NDArray[Any]:
    return _lit(images, 0.9)


_TRANSFORMS = (_identity, _mirrored, _brighter, _darker)


def answers(
    module: SavedModule, images: NDArray[Any], rows: NDArray[np.int64], *, deadline: float = float("inf")
) -> tuple[NDArray[np.float32], int]:
    """Ask a module under all transforms.

    Returns
    -------
    logits, count
        ``(T, M, K)``; rows that the time did not reach are left out, at the end.
    """
    found: list[NDArray[np.float32]] = []
    with torch.inference_mode():
        for start in range(0, len(rows), _BATCH):
            if found and time.time() > deadline:
                break
            batch = np.asarray(images[rows[start : start + _BATCH]])
            each = [module(torch.from_numpy(np.ascontiguousarray(change(batch)))).float().numpy() for change in _TRANSFORMS]
            found.append(np.stack(each))
    logits = np.concatenate(found, axis=1)
    return logits, logits.shape[1]


@dataclass(slots=True)
class _Answers:
    """Mean probabilities over transforms ``(M, K)``, how sure they are ``(M,)``, and whether all transforms agree ``(M,)``."""

    probabilities: NDArray[np.float64]
    confidence: NDArray[np.float64]
    agreed: NDArray[np.bool_]
    said: NDArray[np.int64]

    @classmethod
    def of(cls, logits: NDArray[np.float32], temperature: float, *, several: bool) -> _Answers:
        scaled = logits.astype(np.float64) / temperature
        if several:
            each = sigmoid(scaled)
            mean = each.mean(axis=0)
            agreed = ((each >= 0.5) == (mean >= 0.5)).all(axis=(0, 2))
            return cls(mean, np.maximum(mean, 1.0 - mean).min(axis=1), agreed, (mean >= 0.5).astype(np.int64))
        scaled -= scaled.max(axis=2, keepdims=True)
        each = np.exp(scaled)
        each /= each.sum(axis=2, keepdims=True)
        mean = each.mean(axis=0)
        agreed = (each.argmax(axis=2) == mean.argmax(axis=1)).all(axis=0)
        return cls(mean, mean.max(axis=1), agreed, mean.argmax(axis=1).astype(np.int64))


def choose_threshold(known: _Answers, labels: NDArray[np.int64]) -> tuple[float | None, float]:
    """Find the least confidence from which agreed answers on held-out images are wrong at most half as often as all answers are.

    Returns
    -------
    threshold, accuracy
        None where there is none with at least ten images behind it; and the accuracy of those answers.
    """
    right = known.said == labels if labels.ndim == 1 else (known.said == labels).all(axis=1)
    allowed = _ERRORS_HALVED * float((~right).mean())
    order = np.argsort(-known.confidence, kind="stable")
    order = order[known.agreed[order]]
    if len(order) < _LEAST:
        return None, 0.0
    errors = np.cumsum(~right[order]) / np.arange(1, len(order) + 1)
    good = np.flatnonzero(errors <= allowed + 1e-12)
    good = good[good >= _LEAST - 1]
    if not len(good):
        return None, 0.0
    last = int(good[-1])
    return float(known.confidence[order[last]]), float(1.0 - errors[last])


def _lesson(
    problem: Problem,
    images: NDArray[Any],
    others: NDArray[Any],
    sure: NDArray[np.int64],
    targets: NDArray[np.float64],
    architecture: str,
    recipe: Recipe,
    epochs: int,
) -> tuple[ClassificationLesson, SavedModule]:
    """Put labelled and agreed images side by side."""
    whole = np.concatenate([np.asarray(images), np.asarray(others[np.sort(sure)])])
    targets = targets[np.argsort(sure)]
    several = problem.labels.ndim == 2
    hard = (targets >= 0.5).astype(np.int64) if several else targets.argmax(axis=1).astype(np.int64)
    labels = np.concatenate([problem.labels, hard])
    soft = problem.labels.astype(np.float64) if several else np.eye(problem.classes)[problem.labels]
    added = np.arange(len(images), len(whole))
    rows = TrainingRows(
        whole,
        labels,
        np.concatenate([problem.learnt_from, added]),
        problem.held_out,
        problem.classes,
        soft=np.concatenate([soft, targets]).astype(np.float32),
        trusted=len(problem.learnt_from),
    )
    network = first_network(problem, architecture, images, recipe)[0]
    return ClassificationLesson(rows, problem.seed, epochs), network


def _decide(
    facts: Taught,
    problem: Problem,
    own: NDArray[np.float32],
    held: tuple[NDArray[np.int64], NDArray[np.float32]],
    groups: NDArray[np.int64],
) -> None:
    """Compare the student, and its mean with the winner, with the winner on held-out rows, groups drawn whole."""
    rows = np.intersect1d(held[0], problem.held_out)
    labels = problem.labels[rows]
    best = level(held[1], problem.labels[held[0]])[0][np.searchsorted(held[0], rows)]
    student = level(own, problem.labels[problem.held_out])[0][np.searchsorted(problem.held_out, rows)]
    choices = [(1.0, student), (0.5, 0.5 * student + 0.5 * best)]
    losses = [quick_loss(answer, labels, problem.objective) for _, answer in choices]
    share, answer = choices[int(np.argmin(losses))]
    numbers = np.unique(groups[rows], return_inverse=True)[1].astype(np.int64)
    gains = []
    for weights in resample_weights(numbers, generator(problem.seed, "distillation"), _RESAMPLES):
        for weight in weights:
            drawn = np.repeat(np.arange(len(rows)), np.round(weight).astype(np.int64))
            gains.append(
                quick_loss(best[drawn], labels[drawn], problem.objective) - quick_loss(answer[drawn], labels[drawn], problem.objective)
            )
    facts.share = share
    facts.gain = float(quick_loss(best, labels, problem.objective) - min(losses))
    facts.sureness = float(np.mean(np.asarray(gains) > 0))
    facts.kept = facts.gain > 0 and facts.sureness >= SURE
