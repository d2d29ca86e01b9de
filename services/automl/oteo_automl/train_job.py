"""TrainModel's job: read, plan, search, finish, within the budget."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime

import psutil
import torch

from oteo_automl.candidates.registry import BLEND, choose, matching
from oteo_automl.evaluation.operating import OperatingRequest
from oteo_automl.finish import RESERVE_SECONDS, already_published, finish
from oteo_automl.handover import make_winner
from oteo_automl.search.budget import Budget
from oteo_automl.search.checkpoints import StoredCheckpoints
from oteo_automl.search.classification_pieces import Problem
from oteo_automl.search.classification_work import ClassificationWork, Settings
from oteo_automl.search.data import ImageCache, TrainingData, check_classes, describe, leave_out, read_table
from oteo_automl.search.fingerprint import choose_policy, take_fingerprint
from oteo_automl.search.folds import make_folds
from oteo_automl.search.planner import Speeds, make_plan
from oteo_automl.search.probing import Probing
from oteo_automl.search.result import Plan, SearchResult
from oteo_automl.search.search import Search, Snapshot, predicted_end
from oteo_automl.search.tracker import BackgroundTracker
from oteo_automl.tracking import MLflowTracker
from oteo_automl.triton import TritonParityClient
from oteo_core.datasets import DatasetReader
from oteo_core.errors import FailedPrecondition, NotFound
from oteo_core.images import ImageLimits
from oteo_core.jobs import Executor, JobContext, JobHandler
from oteo_core.packages import ModelPackage
from oteo_protos.automl.v1 import automl_pb2

Context = JobContext[automl_pb2.TrainModelRequest, automl_pb2.TrainModelMetadata]

_SEARCH_SHARE = 0.85
"""Part of the progress bar that the search takes."""

_INLINE_BUDGET = 45.0
"""Seconds below which starting workers, which import PyTorch, would cost more than they bring."""

_GPU_SHARE = 0.5
_FLUSH_SECONDS = 3.0

_log = logging.getLogger(__name__)


def run(context: Context) -> automl_pb2.TrainModelResponse:
    """Train a model; with ``validate_only`` plan one."""
    began = psutil.Process().create_time() if os.environ.get("OTEO_EXECUTOR") is None else time.time()
    request, settings = context.request, context.settings
    model_id = context.metadata.model.removeprefix("models/")
    if not request.validate_only:
        published = already_published(context, model_id)
        if published is not None:
            return _response(published, context.metadata.plan)
    checkpoints = StoredCheckpoints(context.artifacts.root_uri, f"operations/{context.operation_id}/checkpoints", settings.artifact_options)
    total = request.budget.ToTimedelta().total_seconds()
    budget = Budget.resume(checkpoints, total, _reserve(total), began)
    steps: dict[str, float] = {"start": time.time() - began}
    with _timed(steps, "read the dataset"):
        context.progress(0.0, "reading the dataset", predicted_end=predicted_end(budget))
        reader = _reader(context)
        data, samples = read_table(reader)
        _check_test(request.dataset, data)
        fingerprint = take_fingerprint(data)
    executor = context.executor("inline" if total < _INLINE_BUDGET and not request.validate_only else None)
    with executor:
        gpu = executor.gpus >= 1
        policy = choose_policy(fingerprint, gpu=gpu, budget=total, largest=settings.largest_input)
        pretrained = request.pretrained_uri or settings.pretrained_uri
        candidates, reasons = choose(request.candidates, gpu=gpu, pretrained=bool(pretrained), budget=total, smallest_side=policy.width)
        asked = Settings(
            candidates=candidates,
            objective=request.objective or "log_loss",
            policy=policy,
            classes=data.classes,
            ids=data.samples,
            groups=data.groups,
            gpu_share=_GPU_SHARE if gpu else 0.0,
            max_latency=request.max_latency.ToTimedelta().total_seconds() if request.HasField("max_latency") else math.inf,
            blend=not request.candidates or any(BLEND in matching(name) for name in request.candidates),
        )
        cache = ImageCache(
            path=str(context.scratch / "images.npy"),
            store_root=context.artifacts.root_uri,
            dataset=reader.info.id,
            policy=policy,
            store_options=settings.artifact_options,
            max_pixels=settings.max_image_pixels,
            max_bytes=settings.max_image_bytes,
        )
        with _timed(steps, "decode the images"):
            context.progress(0.01, "decoding the images")
            left_out = leave_out(data, cache.build(reader, samples, check=context.check))
            data.images = cache.open()
        if left_out:
            check_classes(data)
            _check_test(request.dataset, data)
            fingerprint = take_fingerprint(data)
        rows = data.part("train", "validation")
        training = data.parts[rows] == "train"
        folds, fold_count = make_folds(data.labels[rows], training, [data.groups[row] for row in rows], seed=request.seed)
        device = torch.cuda.get_device_name() if gpu and torch.cuda.is_available() else "gpu" if gpu else "cpu"
        problem = Problem(
            cache=cache,
            labels=data.labels,
            rows=rows,
            folds=folds,
            fold_count=fold_count,
            classes=len(data.classes),
            seed=request.seed,
            checkpoints=checkpoints,
            pretrained_uri=pretrained,
            scratch=str(context.scratch),
            objective=asked.objective,
        )
        work = ClassificationWork(problem, asked)
        probing = Probing(work, budget)
        if request.validate_only:
            with _timed(steps, "measure the networks"):
                context.progress(0.5, "measuring the networks")
                probing.run(executor)
        plan = make_plan(
            work,
            Speeds(work, probing.found, {}),
            reasons,
            budget,
            fingerprint={**fingerprint.to_dict(), "left_out_samples": [one.to_dict() for one in left_out]},
            device=device,
            folds=fold_count,
            input_size=max(policy.width, policy.height),
            steps=steps,
            notes=[describe(left_out)] if left_out else [],
            messages=probing.messages,
        )
        _show_plan(context, plan, budget)
        if request.validate_only:
            return automl_pb2.TrainModelResponse(plan=context.metadata.plan)
        tracker = BackgroundTracker(
            MLflowTracker(
                settings.mlflow_uri,
                settings.mlflow_experiment,
                context.operation_id,
                model_id,
                request.dataset,
                timeout=settings.mlflow_timeout,
            )
        )
        with _timed(steps, "search"):
            result = _search(context, work, executor, budget, plan, tracker, probing)
    package = _finish(context, result, data, reader, budget, model_id, tracker)
    return _response(package, context.metadata.plan)


def _check_test(dataset: str, data: TrainingData) -> None:
    if not len(data.part("test")):
        raise FailedPrecondition(
            f"{dataset} has no test part, so that nothing could be said of a model's worth: import it with one", reason="NO_TEST_PART"
        )


def _reserve(total: float) -> float:
    """Give the seconds to keep for what follows the search: less in short budgets, where only small models are exported."""
    return min(RESERVE_SECONDS + 0.05 * total, max(0.4 * total, 10.0), 60.0)


def _reader(context: Context) -> DatasetReader:
    try:
        return DatasetReader(context.artifacts, context.request.dataset.removeprefix("datasets/"))
    except NotFound as error:
        raise NotFound(f"there is no {context.request.dataset}", reason="DATASET_NOT_FOUND", field="dataset") from error


def _search(
    context: Context,
    work: ClassificationWork,
    executor: Executor,
    budget: Budget,
    plan: Plan,
    tracker: BackgroundTracker,
    probing: Probing,
) -> SearchResult:
    def report(snapshot: Snapshot) -> None:
        metadata = context.metadata
        metadata.finished_trial_count, metadata.running_trial_count = snapshot.finished, snapshot.running
        message = ""
        if snapshot.best is not None:
            metadata.best_trial.CopyFrom(snapshot.best.to_proto(metadata.model.removeprefix("models/")))
            value = "" if snapshot.best.objective is None else f", {work.objective} {snapshot.best.objective:.3f}"
            message = f"best so far: {snapshot.best.candidate}{value}"
        context.progress(
            0.02 + _SEARCH_SHARE * snapshot.fraction, snapshot.stage, message, datetime.fromtimestamp(snapshot.predicted_end, UTC)
        )

    search = Search(work, executor, budget, plan, tracker, probing=probing, check=context.check, report=report)
    result = search.run()
    result.trials = search.records()
    return result


def _finish(
    context: Context,
    result: SearchResult,
    data: TrainingData,
    reader: DatasetReader,
    budget: Budget,
    model_id: str,
    tracker: BackgroundTracker,
) -> ModelPackage:
    request, settings = context.request, context.settings
    _show_plan(context, result.plan, budget)
    # The search's own tasks are over: all processors are free again.
    torch.set_num_threads(max(1, min(4, os.cpu_count() or 1)))
    run_id = tracker.run_id(result.best.trial_id)
    winner = make_winner(
        result,
        data,
        reader,
        model_id=model_id,
        display_name=request.display_name,
        conformal_coverage=request.conformal_coverage,
        operating_points=[_operating(point) for point in request.operating_points],
        seed=request.seed,
        budget=budget.total,
        start_time=budget.started - budget.spent_before,
        run_id=run_id,
        labels=dict(request.labels),
        limits=ImageLimits(max_bytes=settings.max_image_bytes, max_pixels=settings.max_image_pixels),
    )

    def progress(stage: str, fraction: float) -> None:
        budget.keep(
            StoredCheckpoints(context.artifacts.root_uri, f"operations/{context.operation_id}/checkpoints", settings.artifact_options)
        )
        context.progress(0.02 + _SEARCH_SHARE + (0.98 - _SEARCH_SHARE) * fraction, stage, predicted_end=predicted_end(budget))

    with closing(TritonParityClient(settings.triton_urls[0])) as client:
        package = finish(context, winner, client, deadline=budget.end, progress=progress)
    tracker.flush(min(_FLUSH_SECONDS, max(0.5, budget.end - time.time())))
    context.progress(1.0, "done", f"{package.candidate} is published as {package.name}")
    return package


def _operating(point: automl_pb2.OperatingPointRequest) -> OperatingRequest:
    kind = point.WhichOneof("target")
    return OperatingRequest(point.class_name, **{kind: getattr(point, kind)})


@contextmanager
def _timed(steps: dict[str, float], name: str) -> Iterator[None]:
    started = time.time()
    try:
        yield
    finally:
        steps[name] = round(time.time() - started, 3)


def _show_plan(context: Context, plan: Plan, budget: Budget) -> None:
    message = automl_pb2.TrainingPlan(summary=plan.summary, device=plan.device, folds=plan.folds)
    for one in plan.candidates:
        entry = message.candidates.add(
            name=one.name,
            input_size=one.input_size,
            batch_size=one.batch_size,
            epochs=one.epochs,
            reason=one.reason,
            initial_weights=one.initial_weights,
        )
        entry.epoch_time.FromMilliseconds(round(one.epoch_seconds * 1000))
        entry.measured, entry.peak_memory_bytes = one.measured, one.peak_memory
        if one.step_seconds:
            entry.step_time.FromMicroseconds(round(one.step_seconds * 1e6))
    message.predicted_end_time.FromDatetime(predicted_end(budget))
    message.fingerprint.update({**plan.fingerprint, "measured_seconds": dict(plan.steps)})
    context.metadata.plan.CopyFrom(message)


def _response(package: ModelPackage, plan: automl_pb2.TrainingPlan) -> automl_pb2.TrainModelResponse:
    return automl_pb2.TrainModelResponse(model=package.to_proto(), plan=plan)


TRAIN = JobHandler(automl_pb2.TrainModelRequest, automl_pb2.TrainModelMetadata, run)
