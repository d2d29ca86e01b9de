"""Jobs: killable anywhere, run again from their checkpoints, publishing last."""

from __future__ import annotations

from oteo_core.jobs.context import JobContext
from oteo_core.jobs.entry import JobHandler, run_job
from oteo_core.jobs.executor import Executor, InlineExecutor, ProcessExecutor, Task
from oteo_core.jobs.process_runner import ProcessJobRunner
from oteo_core.jobs.ray_runner import RayJobRunner
from oteo_core.jobs.resources import AUTO, Placing, Resources, Wanted
from oteo_core.jobs.runner import JobRunner, JobState
from oteo_core.jobs.watch import JobStopped

__all__ = [
    "AUTO",
    "Executor",
    "InlineExecutor",
    "JobContext",
    "JobHandler",
    "JobRunner",
    "JobState",
    "JobStopped",
    "Placing",
    "ProcessExecutor",
    "ProcessJobRunner",
    "RayJobRunner",
    "Resources",
    "Task",
    "Wanted",
    "run_job",
]
