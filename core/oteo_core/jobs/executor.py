"""Fan-out inside a job, as domain code sees it: plain functions, results, no engine."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, ProcessPoolExecutor
from concurrent.futures import wait as wait_futures
from concurrent.futures.process import BrokenProcessPool
from types import TracebackType
from typing import Any, Generic, ParamSpec, Self, TypeVar

from oteo_core.errors import Cancelled, OteoError, Unavailable
from oteo_core.jobs.threads import limit_threads

_T = TypeVar("_T")
_T_co = TypeVar("_T_co", covariant=True)
_P = ParamSpec("_P")


class Task(ABC, Generic[_T_co]):
    """A call that was handed to an executor."""

    @abstractmethod
    def result(self, timeout: float | None = None) -> _T_co:
        """Wait for the call's value.

        Raises
        ------
        Exception
            What the function raised, of its own class.
        TimeoutError
            It is not there after `timeout` seconds.
        Cancelled
            ``TASK_CANCELLED``: it was cancelled.
        Unavailable
            ``WORKER_LOST``: the process died under it, as often as it was tried.
        """

    @abstractmethod
    def cancel(self) -> None:
        """Stop the call, also one that runs; nothing happens where it has ended."""

    @property
    @abstractmethod
    def done(self) -> bool:
        """Whether it has ended, with a value or not."""


class Executor(ABC):
    """Runs functions elsewhere or here.

    Functions are defined at the top of a module, so that they can be pickled by name; arguments and values are picklable. A
    task has its numerical libraries' thread pools limited to the CPUs that it takes. A context manager: leaving it cancels
    what has not ended.
    """

    @abstractmethod
    def submit(
        self, fn: Callable[..., _T], /, *args: Any, cpus: float = 1.0, gpus: float = 0.0, retries: int = 2, **kwargs: Any
    ) -> Task[_T]:
        """Hand over a call.

        Parameters
        ----------
        fn
            The function.
        *args, **kwargs
            Its arguments.
        cpus, gpus
            What it takes while it runs; it waits until so much is free.
        retries
            How often it is run again where its process dies. An exception is not retried.
        """

    @abstractmethod
    def wait(self, tasks: Sequence[Task[_T]], timeout: float | None = None, count: int = 1) -> tuple[list[Task[_T]], list[Task[_T]]]:
        """Wait until `count` of the tasks have ended or the time is up.

        Returns
        -------
        tuple
            All that have ended, and the rest, each in the order given.
        """

    @property
    @abstractmethod
    def cpus(self) -> float:
        """CPUs that tasks can have at once."""

    @property
    @abstractmethod
    def gpus(self) -> float:
        """GPUs that tasks can have at once."""

    def reserve(self, *, cpus: float, gpus: float, seconds: float) -> bool:
        """Ask for so much of one node before there is a task for it, so that a node which comes only when it is wanted begins to come.

        Nobody else is given it until the first task that takes GPUs is handed over, `release` or `seconds`.

        Parameters
        ----------
        cpus, gpus
            As for `submit`.
        seconds
            How long it is kept at most, counted from when it is there.

        Returns
        -------
        bool
            Whether it was asked for: False where nodes do not come, and there is nothing to wait for.
        """
        return False

    def release(self) -> None:  # noqa: B027 (nothing is right where nothing is reserved)
        """Give up what was reserved, also where it has not come; nothing happens where nothing was."""

    @abstractmethod
    def close(self) -> None:
        """Cancel what has not ended."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def call_limited(fn: Callable[..., _T], cpus: float, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _T:
    """Run a task's function in a worker, with its thread pools limited."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    limit_threads(cpus)
    return fn(*args, **kwargs)


def cancelled_error() -> OteoError:
    """Give the error of a task that was cancelled."""
    return Cancelled("the task was cancelled", reason="TASK_CANCELLED")


def lost_error() -> OteoError:
    """Give the error of a task whose process died."""
    return Unavailable("the process of a task died each time it was tried (out of memory?)", reason="WORKER_LOST")


class InlineExecutor(Executor):
    """Runs each call at once, in the caller's thread."""

    def submit(
        self, fn: Callable[..., _T], /, *args: Any, cpus: float = 1.0, gpus: float = 0.0, retries: int = 2, **kwargs: Any
    ) -> Task[_T]:
        """Run the call; it has ended when this returns."""
        future: Future[_T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 (it is the task's, and raised by its result)
            future.set_exception(error)
        return _FutureTask(future)

    def wait(self, tasks: Sequence[Task[_T]], timeout: float | None = None, count: int = 1) -> tuple[list[Task[_T]], list[Task[_T]]]:
        """All have ended."""
        return list(tasks), []

    @property
    def cpus(self) -> float:
        """One: the caller's."""
        return 1.0

    @property
    def gpus(self) -> float:
        """None."""
        return 0.0

    def close(self) -> None:
        """Nothing is left to cancel."""


class ProcessExecutor(Executor):
    """Runs calls in processes of this machine, spawned, not forked.

    Parameters
    ----------
    workers
        How many at once; the machine's CPUs without it.
    """

    def __init__(self, workers: int | None = None) -> None:
        self._workers = workers or os.cpu_count() or 1
        self._lock = threading.Lock()
        self._pool: ProcessPoolExecutor | None = None
        self._tasks: list[_PoolTask[Any]] = []

    def submit(
        self, fn: Callable[..., _T], /, *args: Any, cpus: float = 1.0, gpus: float = 0.0, retries: int = 2, **kwargs: Any
    ) -> Task[_T]:
        """Hand the call to the next free process."""
        task: _PoolTask[_T] = _PoolTask(self, (fn, cpus, args, kwargs), retries)
        task.start()
        with self._lock:
            self._tasks = [known for known in self._tasks if not known.done] + [task]
        return task

    def wait(self, tasks: Sequence[Task[_T]], timeout: float | None = None, count: int = 1) -> tuple[list[Task[_T]], list[Task[_T]]]:
        """Wait for the processes."""
        limit = None if timeout is None else time.monotonic() + timeout
        wanted = min(count, len(tasks))
        while sum(task.done for task in tasks) < wanted:
            left = None if limit is None else limit - time.monotonic()
            if left is not None and left <= 0:
                break
            running = [task.future for task in tasks if isinstance(task, _PoolTask) and not task.done]
            wait_futures(running, timeout=0.5 if left is None else min(left, 0.5), return_when=FIRST_COMPLETED)
        return [task for task in tasks if task.done], [task for task in tasks if not task.done]

    @property
    def cpus(self) -> float:
        """Number of processes."""
        return float(self._workers)

    @property
    def gpus(self) -> float:
        """None: GPUs are Ray's to share out."""
        return 0.0

    def start(self, call: tuple[Any, ...]) -> Future[Any]:
        """Give a call to the pool, a new one where the last broke."""
        with self._lock:
            for _ in range(2):
                if self._pool is None:
                    self._pool = ProcessPoolExecutor(self._workers, mp_context=multiprocessing.get_context("spawn"))
                try:
                    return self._pool.submit(call_limited, *call)
                except BrokenProcessPool:
                    self._pool = None
            raise lost_error()

    def kill(self) -> None:
        """Kill the processes; the tasks that ran there start anew unless they were cancelled."""
        with self._lock:
            pool, self._pool = self._pool, None
            for task in self._tasks:
                # Killed with another's process: that is no fault of its own.
                if not task.future.done():
                    task.left += 1
        if pool is not None:
            for process in list((getattr(pool, "_processes", None) or {}).values()):
                process.kill()
            pool.shutdown(wait=False, cancel_futures=True)

    def close(self) -> None:
        """Kill the processes."""
        for task in self._tasks:
            task.cancelled = True
        self.kill()


class _FutureTask(Task[_T]):
    def __init__(self, future: Future[_T]) -> None:
        self.future = future

    def result(self, timeout: float | None = None) -> _T:
        return self.future.result(timeout)

    def cancel(self) -> None:
        self.future.cancel()

    @property
    def done(self) -> bool:
        return self.future.done()


class _PoolTask(Task[_T]):
    def __init__(self, executor: ProcessExecutor, call: tuple[Any, ...], retries: int) -> None:
        self._executor = executor
        self._call = call
        self.left = retries
        self.cancelled = False

    def start(self) -> None:
        self.future: Future[_T] = self._executor.start(self._call)

    @property
    def done(self) -> bool:
        if not self.future.done():
            return False
        # A process that died under it: once more, unless that was tried often enough or it was meant.
        broken = self.future.cancelled() or isinstance(self.future.exception(), BrokenProcessPool)
        if not broken or self.cancelled or self.left <= 0:
            return True
        self.left -= 1
        self.start()
        return False

    def result(self, timeout: float | None = None) -> _T:
        done, _ = self._executor.wait([self], timeout)
        if not done:
            raise TimeoutError(f"the task has not ended after {timeout} s")
        if self.cancelled:
            raise cancelled_error()
        try:
            return self.future.result()
        except (BrokenProcessPool, CancelledError) as error:
            raise lost_error() from error

    def cancel(self) -> None:
        if self.done:
            return
        self.cancelled = True
        if not self.future.cancel():
            # It runs: only its process's end ends it; the others of the pool are started again.
            self._executor.kill()
