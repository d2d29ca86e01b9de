"""What every task's training does in its job: the clock, checkpoints, the plan in the operation, trials in MLflow, the search's progress."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, TypeVar

import psutil
import torch

from oteo_automl.candidates.training import LEAST_STEPS
from oteo_automl.devices import Device, find_device
from oteo_automl.publishing import RESERVE_SECONDS
from oteo_automl.search.budget import Budget
from oteo_automl.search.checkpoints import StoredCheckpoints
from oteo_automl.search.data import ImageCache
from oteo_automl.search.planner import Speeds, least_finishing, least_training, make_plan, network_slots
from oteo_automl.search.probing import Probing
from oteo_automl.search.result import Plan
from oteo_automl.search.search import LEADERBOARD, Search, Snapshot, predicted_end
from oteo_automl.search.tracker import BackgroundTracker
from oteo_automl.search.work import Work
from oteo_automl.tracking import MLflowTracker
from oteo_core.datasets import DatasetReader
from oteo_core.errors import Internal, InvalidArgument, NotFound
from oteo_core.images import ImageLimits, InputPolicy
from oteo_core.jobs import Executor, JobContext
from oteo_core.packages import ModelPackage
from oteo_protos.automl.v1 import automl_pb2

Context = JobContext[automl_pb2.TrainModelRequest, automl_pb2.TrainModelMetadata]
R = TypeVar("R")

_SEARCH_SHARE = 0.85
"""Part of the progress bar that the search takes."""

_INLINE_BUDGET = 45.0
"""Seconds below which starting workers, which import PyTorch, would cost more than they bring."""

_FLUSH_SECONDS = 3.0

_USUAL_START = 8.0
"""Seconds from the job's process to its first own line on a machine that is not busy: imports mostly."""

_MOST_SLOWNESS = 3.0


class Training:
    """One attempt of a training.

    Attributes
    ----------
    context, request, settings
        The job, what is asked for, the service's settings.
    model_id
        Of the model to be made.
    checkpoints, budget
        What earlier attempts left, and the clock that counts them in.
    steps
        Measured seconds of each step so far.
    slowness
        How many times slower than usual the job came to life, 1 to 3: other work on the machine.
    """

    def __init__(self, context: Context) -> None:
        began = psutil.Process().create_time() if os.environ.get("OTEO_EXECUTOR") is None else time.time()
        self.context = context
        self.request = context.request
        self.settings = context.settings
        self.model_id = context.metadata.model.removeprefix("models/")
        self.checkpoints = StoredCheckpoints(
            context.artifacts.root_uri, f"operations/{context.operation_id}/checkpoints", self.settings.artifact_options
        )
        total = self.request.budget.ToTimedelta().total_seconds()
        self.steps: dict[str, float] = {"start": time.time() - began}
        self.slowness = min(_MOST_SLOWNESS, max(1.0, self.steps["start"] / _USUAL_START))
        self.budget = Budget.resume(self.checkpoints, total, self.reserve(), began)
        self._tracker: BackgroundTracker | None = None
        self._probing: Probing | None = None

    def reserve(self, *, dense: bool = False) -> float:
        """Give the seconds to keep for what follows the search: less in short budgets, where only small models are exported.

        Detectors and segmenters take longer, since thresholds, mirroring and post-processing are chosen on whole images; and a machine that was slow
        to start the job will be slow to end it.
        """
        total = self.request.budget.ToTimedelta().total_seconds()
        usual = (1.5 if dense else 1.0) * (RESERVE_SECONDS + 0.05 * total)
        kept = self.slowness * min(usual, 90.0 if dense else 60.0)
        return min(kept, max(0.4 * total, 10.0)) + _variants_reserve(self.request, total)

    @property
    def pretrained_uri(self) -> str:
        """Where pretrained weights lie; empty: none."""
        return self.request.pretrained_uri or str(self.settings.pretrained_uri)

    @property
    def max_latency(self) -> float:
        """Seconds that one image may take at inference; infinite where nothing was asked."""
        return self.request.max_latency.ToTimedelta().total_seconds() if self.request.HasField("max_latency") else math.inf

    @property
    def limits(self) -> ImageLimits:
        """Of decoding."""
        return ImageLimits(max_bytes=self.settings.max_image_bytes, max_pixels=self.settings.max_image_pixels)

    @property
    def start_time(self) -> float:
        """When the work began, as if all attempts had followed without a pause; seconds since 1970."""
        return self.budget.started - self.budget.spent_before

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Measure a step."""
        started = time.time()
        try:
            yield
        finally:
            self.steps[name] = round(time.time() - started, 3)

    def reader(self) -> DatasetReader:
        """Open the dataset.

        Raises
        ------
        NotFound
            ``DATASET_NOT_FOUND``.
        """
        self.context.progress(0.0, "reading the dataset", predicted_end=predicted_end(self.budget))
        try:
            return DatasetReader(self.context.artifacts, self.request.dataset.removeprefix("datasets/"))
        except NotFound as error:
            raise NotFound(f"there is no {self.request.dataset}", reason="DATASET_NOT_FOUND", field="dataset") from error

    def images(self, reader: DatasetReader, policy: InputPolicy, name: str) -> ImageCache:
        """Give the place of a dataset's prepared images on this machine: a file in the job's scratch folder."""
        return ImageCache(
            path=str(self.context.scratch / name),
            store_root=self.context.artifacts.root_uri,
            dataset=reader.info.id,
            policy=policy,
            store_options=self.settings.artifact_options,
            max_pixels=self.settings.max_image_pixels,
            max_bytes=self.settings.max_image_bytes,
        )

    def executor(self) -> Executor:
        """Give what pieces run on."""
        small = self.budget.total < _INLINE_BUDGET and not self.request.validate_only
        return self.context.executor("inline" if small else None)

    def device(self, executor: Executor, *, networks: bool = True) -> Device:
        """Say what networks are trained on, once a GPU that can come has come or was waited for; see `oteo_automl.devices.find_device`."""
        began: list[float] = []

        def say(sentence: str) -> None:
            began.append(time.time())
            self.context.progress(0.0, "waiting for a GPU", sentence, predicted_end(self.budget))

        found = find_device(
            executor, self.budget, self.checkpoints, self.settings.ray_workers, networks=networks, check=self.context.check, say=say
        )
        if began:
            self.steps["wait for a GPU"] = round(time.time() - began[0], 3)
        if found.note:
            self.context.progress(0.0, message=found.note)
        return found

    def make_room(self, work: Work[Any], executor: Executor, *, held_out: int, test: int) -> str:
        """Measure the first network, and make sure that there is time for its least training; says so in a sentence where that is beyond the budget.

        Nothing is trained before, so that a refusal costs little. A search that an earlier attempt began goes on as it is.

        Parameters
        ----------
        work
            A search of networks alone; the first is the one to be answered with.
        executor
            What it is measured on.
        held_out, test
            Images that thresholds are found on, and that the model is judged on.

        Raises
        ------
        InvalidArgument
            ``BUDGET_TOO_SMALL``.
        """
        self._probing = probing = Probing(work, self.budget)
        if self.checkpoints.load(LEADERBOARD) is not None:
            return ""
        first = work.entries[0]
        if first.model not in probing.found:
            with self.timed("measure the first network"):
                self.context.progress(0.02, f"measuring {first.name}", predicted_end=predicted_end(self.budget))
                probing.start(executor, first)
                while probing.tasks:
                    self.context.check()
                    probing.collect(executor.wait(probing.tasks, timeout=0.3)[0])
        probe = probing.found.get(first.model)
        if probe is None:
            # It fails again when it is trained, and says why.
            return ""
        asked = self.budget.total
        late = self.budget.make_room(
            least_training(probe, work.train_count, held_out), least_finishing(probe, held_out, test, self.slowness)
        )
        if not late:
            return ""
        return (
            f"{asked:.0f} s are not enough for the least training that is worth publishing ({LEAST_STEPS} steps of {first.name}) and what follows it: "
            f"all will be done about {math.ceil(late)} s later."
        )

    def plan(
        self,
        work: Work[Any],
        executor: Executor,
        reasons: Mapping[str, str],
        *,
        fingerprint: Mapping[str, Any],
        folds: int,
        input_size: int,
        notes: Sequence[str] = (),
    ) -> Plan:
        """Say what is to be done and show it; measure first where a plan is all that is asked for.

        See `oteo_automl.search.planner.make_plan`; a training measures while it has begun already.
        """
        probing = self._probing = self._probing or Probing(work, self.budget)
        if self.request.validate_only:
            with self.timed("measure"):
                self.context.progress(0.1, "measuring candidates")
                probing.run(executor)
        plan = make_plan(
            work,
            Speeds(work, probing.found, {}, network_slots(work, executor)),
            reasons,
            self.budget,
            fingerprint=fingerprint,
            device=device_name(gpu=work.gpu_share > 0),
            folds=folds,
            input_size=input_size,
            steps=self.steps,
            notes=notes,
            messages=probing.messages,
        )
        self.show_plan(plan)
        return plan

    def show_plan(self, plan: Plan, end: datetime | None = None) -> None:
        """Put the plan into the operation; `end` is when all will be done, None: when the budget ends."""
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
            if one.step_seconds:
                entry.step_time.FromMicroseconds(round(one.step_seconds * 1e6))
            entry.peak_memory_bytes, entry.measured = one.peak_memory, one.measured
        message.predicted_end_time.FromDatetime(end or predicted_end(self.budget))
        message.fingerprint.update({**plan.fingerprint, "measured_seconds": dict(plan.steps)})
        self.context.metadata.plan.CopyFrom(message)

    def search(self, work: Work[R], executor: Executor, plan: Plan) -> tuple[R, Search[R]]:
        """Search, telling the operation and MLflow."""
        context, objective = self.context, work.objective
        self._tracker = BackgroundTracker(
            MLflowTracker(
                self.settings.mlflow_uri,
                self.settings.mlflow_experiment,
                context.operation_id,
                self.model_id,
                self.request.dataset,
                timeout=self.settings.mlflow_timeout,
            )
        )

        shown = plan.summary

        def report(snapshot: Snapshot) -> None:
            nonlocal shown
            metadata = context.metadata
            metadata.finished_trial_count, metadata.running_trial_count = snapshot.finished, snapshot.running
            message = ""
            if snapshot.best is not None:
                metadata.best_trial.CopyFrom(snapshot.best.to_proto(self.model_id))
                value = "" if snapshot.best.objective is None else f", {objective} {snapshot.best.objective:.3f}"
                message = f"best so far: {snapshot.best.candidate}{value}"
            end = datetime.fromtimestamp(snapshot.predicted_end, UTC)
            if plan.summary != shown:
                # Something was measured since.
                shown = plan.summary
                self.show_plan(plan, end)
            elif metadata.HasField("plan"):
                metadata.plan.predicted_end_time.FromDatetime(end)
            context.progress(0.02 + _SEARCH_SHARE * snapshot.fraction, snapshot.stage, message, end)

        with self.timed("search"):
            search = Search(work, executor, self.budget, plan, self._tracker, probing=self._probing, check=context.check, report=report)
            try:
                result = search.run()
            except Internal as error:
                if error.reason != "NO_CANDIDATE" or self.budget.left > 0:
                    raise
                raise InvalidArgument(
                    f"a budget of {self.budget.total:.0f} s is too small on this machine: {error.message}; give more",
                    reason="BUDGET_TOO_SMALL",
                    field="budget",
                ) from error
        self.show_plan(plan)
        # The search's own tasks are over: all processors are free again.
        torch.set_num_threads(max(1, min(4, os.cpu_count() or 1)))
        return result, search

    def run_id(self, trial: str) -> str:
        """Give a trial's run in MLflow, empty where it is not known."""
        return self._tracker.run_id(trial) if self._tracker is not None else ""

    def finishing(self, stage: str, fraction: float) -> None:
        """Show a step of what follows the search, and keep the clock."""
        self.budget.keep(self.checkpoints)
        now = time.time()
        end = datetime.fromtimestamp(max(now, min(self.budget.end, now + self.budget.reserve * (1.0 - fraction))), UTC)
        self.context.progress(0.02 + _SEARCH_SHARE + (0.98 - _SEARCH_SHARE) * fraction, stage, predicted_end=end)

    def done(self, package: ModelPackage, warning: str = "") -> None:
        """Send what MLflow has not got, and say that all is done; `warning` is what a person should know of the model first."""
        if self._tracker is not None:
            self._tracker.flush(min(_FLUSH_SECONDS, max(0.5, self.budget.end - time.time())))
        self.context.progress(1.0, "done", f"{package.candidate} is published as {package.name}. {warning}".strip())


def device_name(*, gpu: bool) -> str:
    """Give "cpu" or the GPU's name."""
    return torch.cuda.get_device_name() if gpu and torch.cuda.is_available() else "gpu" if gpu else "cpu"


def _variants_reserve(request: automl_pb2.TrainModelRequest, total: float) -> float:
    """Give the seconds to keep for variants that are asked for."""
    return min(0.05 * total, 20.0) * len(request.variants)
