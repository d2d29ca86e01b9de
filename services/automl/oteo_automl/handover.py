"""From what the search hands over to what `oteo_automl.finish.finish` takes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oteo_automl.evaluation.bootstrap import Floats
from oteo_automl.evaluation.calibration import fit_temperature
from oteo_automl.evaluation.operating import OperatingRequest
from oteo_automl.finish import REFERENCE_IMAGES, CalibrationPart, Rival, TestPart, Winner
from oteo_automl.packaging.served import ServedClassifier, run_torch
from oteo_automl.report.charts import LearningCurve
from oteo_automl.search.data import TrainingData
from oteo_automl.search.result import EpochRecord, FittedCandidate, SearchResult
from oteo_core.datasets import DatasetReader, Sample
from oteo_core.errors import FailedPrecondition


def make_winner(
    result: SearchResult,
    data: TrainingData,
    reader: DatasetReader,
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
) -> Winner:
    """Gather what is published of a search.

    Parameters
    ----------
    result
        The search's result.
    data
        All samples, prepared; the images of its test part are looked at here for the first time.
    reader
        The dataset, for its manifest, source paths and original pixels.
    model_id, display_name
        Of the model to be made.
    conformal_coverage, operating_points
        Asked for.
    seed, budget, start_time
        Seed; seconds; when the work began, seconds since the epoch.
    run_id, labels
        In MLflow; free labels.

    Raises
    ------
    FailedPrecondition
        ``NO_TEST_PART``: there is no test image to judge on.
    """
    places = data.part("test")
    if not len(places):
        raise FailedPrecondition("the dataset has no test part, so that nothing could be said of a model's worth", reason="NO_TEST_PART")
    images = data.images[places]
    samples = {sample.id: sample for sample in reader.samples("test", columns=["path", "source_path"])}
    ids = [data.samples[place] for place in places]
    best = result.best
    train = data.part("train")
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
            ids=ids,
            sources=[samples[name].source_path if name in samples else name for name in ids],
            groups=[data.groups[place] for place in places],
            labels=data.labels[places],
            images=images,
            pixels=_Pixels(reader, samples, ids, images),
        ),
        training_images=_spread(data.images, train),
        training_counts=np.bincount(data.labels[train], minlength=len(result.classes)).tolist(),
        rivals=_rivals(result, images),
        trials=result.trials,
        winner_trial=best.trial_id,
        curves=[_curve(_name(result, trial), records, best=trial == best.trial_id) for trial, records in result.curves.items() if records],
        plan=result.plan.summary,
        objective=result.objective,
        conformal_coverage=conformal_coverage,
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
        },
    )


class _Pixels:
    """Gives the original pixels of a test image, or the prepared ones where they are gone."""

    def __init__(self, reader: DatasetReader, samples: Mapping[str, Sample], ids: Sequence[str], images: NDArray[Any]) -> None:
        self._reader, self._samples, self._ids, self._images = reader, samples, ids, images

    def __call__(self, index: int) -> NDArray[Any]:
        sample = self._samples.get(self._ids[index])
        pixels: NDArray[Any] = self._images[index] if sample is None else self._reader.image(sample).pixels
        return pixels


def _spread(images: NDArray[Any], places: NDArray[np.int64]) -> Iterator[NDArray[Any]]:
    """Give training images, evenly spread over the part where there are more than are looked at."""
    chosen = places[np.linspace(0, len(places) - 1, min(len(places), REFERENCE_IMAGES)).astype(int)] if len(places) else places
    for place in chosen:
        yield images[place]


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
