"""From what the search hands over to what `oteo_automl.finish.finish` takes."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oteo_automl.evaluation.bootstrap import Floats
from oteo_automl.evaluation.calibration import fit_temperature
from oteo_automl.evaluation.operating import OperatingRequest
from oteo_automl.finish import REFERENCE_IMAGES, CalibrationPart, Rival, TestPart, Winner
from oteo_automl.packaging.served import ServedClassifier, run_torch
from oteo_automl.report.charts import LearningCurve
from oteo_automl.search.data import SampleTable
from oteo_automl.search.result import EpochRecord, FittedCandidate, SearchResult
from oteo_core.datasets import DatasetReader, Sample
from oteo_core.errors import FailedPrecondition
from oteo_core.images import ImageLimits, InputPolicy, prepare

TEST_COLUMNS = ("path", "source_path", "split", "group", "labels")
_CHUNK = 64


def make_winner(
    result: SearchResult,
    reader: DatasetReader,
    table: SampleTable,
    images: NDArray[Any],
    scratch: Path,
    *,
    model_id: str,
    display_name: str = "",
    conformal_coverage: float = 0.9,
    operating_points: Sequence[OperatingRequest] = (),
    seed: int = 0,
    budget: float = 0.0,
    start_time: float = 0.0,
    run_id: str = "",
    labels: Mapping[str, str] | None = None,
    limits: ImageLimits = ImageLimits(),  # noqa: B008 (a frozen value)
    check: Callable[[], None] = lambda: None,
) -> Winner:
    """Gather what is published of a search.

    Parameters
    ----------
    result
        The search's result.
    reader
        The dataset. Its test part is read here, for the first time.
    table, images
        The search's samples and their prepared images ``(N, H, W, C)``.
    scratch
        Folder for the prepared test images.
    model_id, display_name
        Of the model to be made.
    conformal_coverage, operating_points
        Asked for; a coverage of 0 is 0.9.
    seed, budget, start_time
        Seed; seconds; when the work began, seconds since the epoch.
    run_id, labels
        In MLflow; free labels.
    limits
        Of decoding.
    check
        Called between images; may raise.

    Raises
    ------
    FailedPrecondition
        ``NO_TEST_PART``: there is no test image to judge on.
    """
    number = {name: index for index, name in enumerate(result.classes)}
    present = [sample for sample in reader.samples("test", columns=TEST_COLUMNS) if sample.labels]
    samples = [sample for sample in present if sample.labels[0] in number]
    if not samples:
        raise FailedPrecondition(
            f"dataset {reader.info.id!r} has no test images of the classes that were trained, so that nothing could be said of a model's worth; "
            "split it anew",
            reason="NO_TEST_PART",
        )
    best = result.best
    prepared = _prepare(reader, samples, best.input_policy, scratch / "test-images.npy", limits, check)
    training = np.flatnonzero(table.training)
    original = [place for place in training if not table.samples[place].derived_from]
    return Winner(
        model_id=model_id,
        display_name=display_name or reader.info.display_name or model_id,
        dataset=reader.info,
        classes=result.classes,
        candidate=best.candidate,
        network=best.module,
        policy=best.input_policy,
        calibration=CalibrationPart(best.validation.logits, best.validation.labels, best.validation.source),
        test=TestPart(
            ids=[sample.id for sample in samples],
            sources=[sample.source_path or sample.path for sample in samples],
            groups=[sample.group for sample in samples],
            labels=np.array([number[sample.labels[0]] for sample in samples], dtype=np.int64),
            images=prepared,
            pixels=lambda index: reader.image(samples[index], limits).pixels,
        ),
        training_images=_spread(images, original or training.tolist()),
        training_counts=np.bincount(table.labels[training], minlength=len(result.classes)).tolist(),
        rivals=_rivals(result, prepared),
        trials=result.trials,
        winner_trial=best.trial_id,
        curves=[_curve(_name(result, trial), records, best=trial == best.trial_id) for trial, records in result.curves.items() if records],
        plan=result.plan.summary,
        objective=result.objective,
        conformal_coverage=conformal_coverage or 0.9,
        operating_points=operating_points,
        seed=seed,
        budget=budget,
        start_time=start_time,
        run_id=run_id,
        labels=labels or {},
        details={
            "initial_weights": best.initial_weights,
            "parameters": best.parameters,
            "device": result.plan.device,
            "fingerprint": result.plan.fingerprint,
            "folds": result.plan.folds,
            "candidates": [asdict(candidate) for candidate in result.plan.candidates],
            "search_seconds": result.seconds,
            "search_steps": result.plan.steps,
            "test_images_of_other_classes": len(present) - len(samples),
        },
    )


def _prepare(
    reader: DatasetReader, samples: Sequence[Sample], policy: InputPolicy, path: Path, limits: ImageLimits, check: Callable[[], None]
) -> NDArray[Any]:
    """Decode and prepare test images into a file that is mapped into memory, with a thread for each processor."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (len(samples), policy.height, policy.width, policy.channels)
    images: NDArray[Any] = np.lib.format.open_memmap(path, mode="w+", dtype=np.dtype(policy.dtype), shape=shape)

    def fill(index: int) -> None:
        images[index] = prepare(reader.image(samples[index], limits).pixels, policy)

    with ThreadPoolExecutor(max(2, min(16, os.cpu_count() or 2)), thread_name_prefix="decode") as pool:
        for start in range(0, len(samples), _CHUNK):
            check()
            list(pool.map(fill, range(start, min(start + _CHUNK, len(samples)))))
    return images


def _spread(images: NDArray[Any], places: Sequence[int]) -> Iterator[NDArray[Any]]:
    """Give training images, evenly spread over the part where there are more than are looked at."""
    count = min(len(places), REFERENCE_IMAGES)
    for position in np.linspace(0, len(places) - 1, count).astype(int):
        yield np.asarray(images[places[position]])


def _rivals(result: SearchResult, images: NDArray[Any]) -> list[Rival]:
    rivals: list[Rival] = []
    taken = {result.best.trial_id}
    for role, candidate in (("the runner-up", result.runner_up), ("the baseline", result.baseline)):
        if candidate is None or candidate.trial_id in taken:
            continue
        taken.add(candidate.trial_id)
        rivals.append(Rival(f"{candidate.candidate} ({role})", _probabilities(candidate, images)))
    return rivals


def _probabilities(candidate: FittedCandidate, images: NDArray[Any]) -> Floats:
    """Give a rival's probabilities, calibrated as the winner's are, so that log-losses can be compared."""
    temperature = fit_temperature(candidate.validation.logits, candidate.validation.labels).temperature
    served = ServedClassifier(candidate.module, temperature).cpu().float().eval()
    return run_torch(served, images)[0].astype(np.float64)


def _name(result: SearchResult, trial_id: str) -> str:
    names = {trial.id: trial.candidate for trial in result.trials}
    return names.get(trial_id, trial_id)


def _curve(name: str, records: Sequence[EpochRecord], *, best: bool) -> LearningCurve:
    measured = [record for record in records if math.isfinite(record.validation_loss)]
    trained = [record for record in records if math.isfinite(record.train_loss)]
    return LearningCurve(
        name=name,
        steps=[record.epoch for record in trained],
        train_loss=[record.train_loss for record in trained],
        validation_steps=[record.epoch for record in measured],
        validation_loss=[record.validation_loss for record in measured],
        best=best,
    )
