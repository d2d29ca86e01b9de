"""The part of a classifier's training that learns from images without labels; see `oteo_automl.search.distillation`."""

from __future__ import annotations

import time

import numpy as np

from oteo_automl.candidates.modules import Blend, SavedModule
from oteo_automl.candidates.portfolio import PORTFOLIO
from oteo_automl.search.classification_pieces import Problem, StoredModel
from oteo_automl.search.classification_work import ClassificationWork, Settings
from oteo_automl.search.data import TrainingData
from oteo_automl.search.distillation import STUDENT, Taught, UnlabelledCache, teach
from oteo_automl.search.pieces import model_name
from oteo_automl.search.result import FittedCandidate, Predictions, SearchResult
from oteo_automl.search.work import Entry
from oteo_automl.training_job import Training
from oteo_core.datasets import DatasetReader
from oteo_core.errors import NotFound
from oteo_core.evaluation.label_calibration import level
from oteo_core.jobs.executor import Executor
from oteo_core.packages import MetricValue, TrialRecord

_LATE_SECONDS = 5.0
_SHORTEST = 5.0
_IMAGES = 12_000


def learn_from_unlabelled(
    training: Training,
    executor: Executor,
    reader: DatasetReader,
    data: TrainingData,
    problem: Problem,
    settings: Settings,
    work: ClassificationWork,
    result: SearchResult,
) -> str:
    """Have the winner teach a student with the request's unlabelled images, and put the student in its place where it is better.

    Parameters
    ----------
    training, executor
        The job.
    reader, data
        The labelled dataset.
    problem, settings, work
        Of the search.
    result
        Of the search; the student's trial is added, and the winner replaced where the student is better.

    Returns
    -------
    str
        What was done and whether it helped, for the report.

    Raises
    ------
    NotFound
        ``DATASET_NOT_FOUND``: the unlabelled dataset is gone.
    """
    name = training.request.unlabelled_dataset
    try:
        others = DatasetReader(training.context.artifacts, name.removeprefix("datasets/"))
    except NotFound as error:
        raise NotFound(f"there is no {name}", reason="DATASET_NOT_FOUND", field="unlabelled_dataset") from error
    if training.budget.left < _SHORTEST:
        return _say(result, f"The time was too short to learn from the unlabelled images of {name}: they were not used.")
    with training.timed("learn from unlabelled images"):
        training.context.progress(0.85, "decoding unlabelled images")
        cache = UnlabelledCache(
            **vars(training.images(others, settings.policy, "unlabelled.npy")),
            seen=frozenset(sample.pixel_digest for sample in reader.samples(columns=["pixel_digest"]) if sample.pixel_digest),
        )
        cache.build(others, cache.samples(others), check=training.context.check)
        taught = _teach(training, executor, data, problem, settings, work, result, cache)
    _add(taught, problem, settings, result)
    return _say(result, taught.sentence)


def _say(result: SearchResult, sentence: str) -> str:
    """Put a sentence into the plan, which the report shows."""
    result.plan.notes.append(sentence)
    result.plan.summary = f"{result.plan.summary} {sentence}".strip()
    return sentence


def _teach(
    training: Training,
    executor: Executor,
    data: TrainingData,
    problem: Problem,
    settings: Settings,
    work: ClassificationWork,
    result: SearchResult,
    cache: UnlabelledCache,
) -> Taught:
    best = result.best
    entry = _student(work, result)
    recipe = work.recipe(entry)
    if not isinstance(best.module, SavedModule):
        return Taught(False, "The winner is of a kind that cannot teach: the unlabelled images were not used.")
    place = {identity: row for row, identity in enumerate(settings.ids)}
    rows = np.array([place[identity] for identity in best.validation.sample_ids], dtype=np.int64)
    groups = np.unique(data.groups, return_inverse=True)[1].astype(np.int64)
    epochs = int(np.clip(_IMAGES / max(1, 2 * work.train_count), 5, 80))
    deadline = training.budget.deadline - 1.0
    task = executor.submit(
        teach,
        problem,
        best.module,
        [str(part) for part in best.parameters.get("parts", [best.trial_id])],
        (rows, best.validation.logits),
        groups,
        cache,
        f"t{len(result.trials):03d}-{STUDENT}",
        entry.model,
        recipe,
        epochs,
        deadline,
        cpus=1.0,
        gpus=work.gpu_share,
    )
    while True:
        done, _ = executor.wait([task], timeout=0.5)
        training.context.check()
        training.context.progress(0.86, "a student learns from unlabelled images")
        if done:
            return task.result()
        if time.time() > deadline + _LATE_SECONDS:
            task.cancel()
            return Taught(False, "The time was up before the student had learnt from the unlabelled images: they were not used.")


def _student(work: ClassificationWork, result: SearchResult) -> Entry:
    """Give the best network of the search, or the first of the portfolio where none was trained."""
    networks = {one.name: one for one in work.entries if one.model}
    for trial in result.trials:
        if trial.candidate in networks and trial.objective is not None:
            return networks[trial.candidate]
    return next(iter(networks.values()), Entry(f"timm-{PORTFOLIO[0].name}", model=PORTFOLIO[0].name))


def _add(taught: Taught, problem: Problem, settings: Settings, result: SearchResult) -> None:
    """Put the student among the trials, and first where it was kept."""
    stored = problem.checkpoints.load(model_name(taught.trial)) if taught.trial else None
    if stored is None:
        return
    objective = taught.scores.get(settings.objective, taught.scores["log_loss"])
    count = len(problem.held_out)
    record = TrialRecord(
        id=taught.trial,
        candidate=taught.candidate,
        parameters={**taught.parameters, "unlabelled_images": taught.used, "least_confidence": taught.threshold},
        state="finished",
        metrics=[MetricValue(name, value, split="validation", sample_count=count) for name, value in taught.scores.items()],
        objective=objective,
        duration=taught.seconds,
        message=taught.sentence,
    )
    result.curves[taught.trial] = taught.curve
    if not taught.kept:
        result.trials.append(record)
        return
    result.trials.insert(0, record)
    model = StoredModel.from_bytes(stored)
    own, temperature = level(model.logits, problem.labels[model.rows])
    before = result.best
    rows, logits, module, candidate = model.rows, model.logits.astype(np.float64), model.module, taught.candidate
    if taught.share < 1.0 and isinstance(before.module, SavedModule):
        place = {identity: row for row, identity in enumerate(settings.ids)}
        known = np.array([place[identity] for identity in before.validation.sample_ids], dtype=np.int64)
        answers, other = level(before.validation.logits, before.validation.labels)
        rows = np.intersect1d(known, model.rows)
        logits = (1 - taught.share) * answers[np.searchsorted(known, rows)] + taught.share * own[np.searchsorted(model.rows, rows)]
        shares = [1 - taught.share, taught.share]
        module = Blend([before.module, model.module], shares, [other, temperature], several=problem.labels.ndim == 2).eval()
        candidate = f"{before.candidate} with {taught.candidate}"
    result.runner_up = before
    result.best = FittedCandidate(
        trial_id=taught.trial,
        candidate=candidate,
        module=module,
        input_policy=settings.policy,
        parameters=record.parameters,
        initial_weights=before.initial_weights,
        validation=Predictions(
            sample_ids=tuple(settings.ids[int(row)] for row in rows),
            labels=problem.labels[rows],
            logits=np.ascontiguousarray(logits, dtype=np.float32),
            groups=tuple(settings.groups[int(row)] for row in rows),
            source="the validation part",
        ),
        curve=taught.curve,
        duration=taught.seconds,
        objective=objective,
    )
