"""Fan-out as Ray tasks."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import ray
from ray import exceptions

from oteo_core.jobs.executor import Executor, Task, call_limited, cancelled_error, lost_error

_T = TypeVar("_T")


class RayExecutor(Executor):
    """Runs calls as Ray tasks that declare the CPUs and GPUs they take.

    Parameters
    ----------
    address
        Of the cluster; ``"auto"`` inside a job.
    """

    def __init__(self, address: str = "auto") -> None:
        self._tasks: list[_RayTask[Any]] = []
        self._remote: Any = None
        self._reserved: Task[None] | None = None
        if not ray.is_initialized():
            _connect(address)
        self._remote = ray.remote(call_limited)

    def submit(
        self, fn: Callable[..., _T], /, *args: Any, cpus: float = 1.0, gpus: float = 0.0, retries: int = 2, **kwargs: Any
    ) -> Task[_T]:
        """Hand the call to Ray."""
        if gpus > 0:
            self.release()
        options = {"num_cpus": cpus, "num_gpus": gpus, "max_retries": retries, "retry_exceptions": False}
        reference = self._remote.options(name=getattr(fn, "__name__", "task"), **options).remote(fn, cpus, args, kwargs)
        task: _RayTask[_T] = _RayTask(reference)
        self._tasks = [known for known in self._tasks if not known.done] + [task]
        return task

    def wait(self, tasks: Sequence[Task[_T]], timeout: float | None = None, count: int = 1) -> tuple[list[Task[_T]], list[Task[_T]]]:
        """Wait for Ray."""
        if not tasks:
            return [], []
        references = [task.reference for task in tasks if isinstance(task, _RayTask)]
        ray.wait(references, num_returns=max(1, min(count, len(references))), timeout=timeout, fetch_local=False)
        # Those that have ended beside the ones waited for are given too.
        ready, _ = ray.wait(references, num_returns=len(references), timeout=0, fetch_local=False)
        ended = set(ready)
        done = [task for task in tasks if isinstance(task, _RayTask) and task.reference in ended]
        return list(done), [task for task in tasks if isinstance(task, _RayTask) and task.reference not in ended]

    @property
    def cpus(self) -> float:
        """CPUs of the cluster."""
        return float(ray.cluster_resources().get("CPU", 1.0))

    @property
    def gpus(self) -> float:
        """GPUs of the cluster."""
        return float(ray.cluster_resources().get("GPU", 0.0))

    def reserve(self, *, cpus: float, gpus: float, seconds: float) -> bool:
        """Have a task wait for it and then sleep: what is asked for so ends with the job, and Ray's autoscaler brings a node for it."""
        self.release()
        self._reserved = self.submit(time.sleep, seconds, cpus=cpus, gpus=gpus)
        return True

    def release(self) -> None:
        """Cancel that task."""
        held, self._reserved = self._reserved, None
        if held is not None:
            held.cancel()

    def close(self) -> None:
        """Cancel what has not ended."""
        for task in self._tasks:
            task.cancel()
        self._tasks = []


class _RayTask(Task[_T]):
    def __init__(self, reference: Any) -> None:
        self.reference = reference

    def result(self, timeout: float | None = None) -> _T:
        try:
            value: _T = ray.get(self.reference, timeout=timeout)
        except exceptions.GetTimeoutError as error:
            raise TimeoutError(f"the task has not ended after {timeout} s") from error
        except (exceptions.TaskCancelledError, exceptions.RayTaskError) as error:
            cause = getattr(error, "cause", None)
            if isinstance(error, exceptions.TaskCancelledError) or isinstance(cause, exceptions.TaskCancelledError):
                raise cancelled_error() from error
            # The exception itself, as domain code would have seen it had the function run here.
            raise cause if isinstance(cause, BaseException) else error from error
        except (
            exceptions.WorkerCrashedError,
            exceptions.OutOfMemoryError,
            exceptions.NodeDiedError,
            exceptions.ObjectLostError,
            exceptions.LocalRayletDiedError,
        ) as error:
            raise lost_error() from error
        return value

    def cancel(self) -> None:
        if not self.done:
            ray.cancel(self.reference, force=True, recursive=True)

    @property
    def done(self) -> bool:
        ready, _ = ray.wait([self.reference], timeout=0, fetch_local=False)
        return bool(ready)


def _connect(address: str) -> None:
    failure: list[BaseException] = []

    def connect() -> None:
        try:
            ray.init(address=address, namespace="oteo", logging_level=logging.WARNING, ignore_reinit_error=True)
        except BaseException as error:  # noqa: BLE001 (raised again by the thread that asked)
            failure.append(error)

    # On the main thread Ray would put its own SIGTERM handler in the place of the job's.
    thread = threading.Thread(target=connect, name="ray-init")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
