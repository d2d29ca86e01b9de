"""Every executor behaves alike: inline, processes, Ray tasks."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from engines import RayHead
from waiting import patient, wait_for

from oteo_core.errors import InvalidArgument, Unavailable
from oteo_core.jobs import Executor, InlineExecutor, ProcessExecutor


@pytest.fixture(params=["inline", "process", "ray"], scope="module")
def executor(request: pytest.FixtureRequest) -> Iterator[Executor]:
    if request.param == "inline":
        yield InlineExecutor()
    elif request.param == "process":
        with ProcessExecutor(2) as processes:
            yield processes
    else:
        head: RayHead = request.getfixturevalue("ray_head")
        kept = dict(os.environ)
        os.environ.update(head.env)
        import ray

        from oteo_core.jobs.ray_executor import RayExecutor

        try:
            with RayExecutor(f"127.0.0.1:{head.ports['ray']}") as tasks:
                yield tasks
        finally:
            ray.shutdown()
            os.environ.clear()
            os.environ.update(kept)


def square(number: int, *, plus: int = 0) -> int:
    return number * number + plus


def refuse(field: str) -> None:
    raise InvalidArgument("not this", reason="TEST", field=field)


def bug() -> None:
    raise ZeroDivisionError("by zero")


def sleep(seconds: float, file: str = "") -> float:
    if file:
        Path(file).write_text(str(os.getpid()))
    time.sleep(seconds)
    return seconds


def die(folder: str, times: int) -> int:
    tries = len(list(Path(folder).iterdir()))
    (Path(folder) / str(tries)).touch()
    if tries < times:
        os.kill(os.getpid(), signal.SIGKILL)
    return tries


def thread_counts() -> tuple[str, int, int]:
    import cv2
    import threadpoolctl

    from oteo_core.jobs.threads import limit_threads

    # The task's own limit has been set before the libraries came: they read it from the environment.
    limit_threads(float(os.environ["OMP_NUM_THREADS"]))
    pools = [pool["num_threads"] for pool in threadpoolctl.threadpool_info()]
    return os.environ["OMP_NUM_THREADS"], cv2.getNumThreads(), max(pools, default=1)


def test_values_come_back_in_their_tasks(executor: Executor) -> None:
    tasks = [executor.submit(square, number, plus=1) for number in range(10)]
    assert [task.result() for task in tasks] == [number * number + 1 for number in range(10)]
    assert all(task.done for task in tasks)
    assert executor.cpus >= 1


def test_exceptions_keep_their_class(executor: Executor) -> None:
    with pytest.raises(InvalidArgument) as caught:
        executor.submit(refuse, "colour").result()
    assert (caught.value.reason, caught.value.field) == ("TEST", "colour")
    with pytest.raises(ZeroDivisionError):
        executor.submit(bug).result()


def test_waiting_gives_all_that_has_ended(executor: Executor) -> None:
    tasks = [executor.submit(square, number) for number in range(4)]
    done, pending = executor.wait(tasks, timeout=patient(30), count=4)
    assert (done, pending) == (tasks, [])
    assert executor.wait([], timeout=1) == ([], [])


def test_waiting_ends_with_the_time(executor: Executor) -> None:
    if isinstance(executor, InlineExecutor):
        assert executor.wait([executor.submit(sleep, 0.0)], timeout=0.1)[1] == []
        return
    slow = executor.submit(sleep, 60.0)
    begin = time.monotonic()
    assert executor.wait([slow], timeout=0.5) == ([], [slow])
    with pytest.raises(TimeoutError):
        slow.result(timeout=0.5)
    assert time.monotonic() - begin < 40
    slow.cancel()


def test_a_running_task_is_cancelled_and_its_neighbours_are_not(executor: Executor, tmp_path: Path) -> None:
    if isinstance(executor, InlineExecutor):
        executor.submit(square, 2).cancel()
        return
    slow = executor.submit(sleep, 600.0, str(tmp_path / "pid"))
    other = executor.submit(sleep, 2.0)
    wait_for((tmp_path / "pid").exists, 30)
    slow.cancel()
    with pytest.raises(Exception, match="cancelled"):
        slow.result(timeout=patient(20))
    assert other.result(timeout=patient(30)) == 2.0


def test_death_of_a_worker_is_made_good(executor: Executor, tmp_path: Path) -> None:
    if isinstance(executor, InlineExecutor):
        assert die(str(tmp_path), 0) == 0
        return
    assert executor.submit(die, str(tmp_path), 1, retries=2).result(timeout=patient(30)) == 1
    for file in tmp_path.iterdir():
        file.unlink()
    with pytest.raises(Unavailable) as caught:
        executor.submit(die, str(tmp_path), 5, retries=1).result(timeout=patient(30))
    assert caught.value.reason == "WORKER_LOST"
    assert len(list(tmp_path.iterdir())) == 2


def test_tasks_keep_to_their_cpus(executor: Executor) -> None:
    if isinstance(executor, InlineExecutor):
        # The caller's process is the caller's business.
        assert executor.submit(square, 1, cpus=1).result() == 1
        return
    assert executor.submit(thread_counts, cpus=1).result(timeout=patient(30)) == ("1", 1, 1)


def test_what_no_node_has_can_be_reserved_and_given_up(executor: Executor) -> None:
    """Tasks go on beside it, and where nodes do not come there is nothing to wait for."""
    elastic = executor.reserve(cpus=1.0, gpus=0.5, seconds=60.0)
    assert elastic == (type(executor).__name__ == "RayExecutor")
    assert executor.gpus == 0
    assert executor.submit(square, 3).result(timeout=patient(30)) == 9
    executor.release()
    executor.release()


def test_what_is_reserved_is_kept_from_others_until_it_is_released(executor: Executor) -> None:
    if not executor.reserve(cpus=executor.cpus, gpus=0.0, seconds=600.0):
        return
    other = executor.submit(square, 4)
    assert executor.wait([other], timeout=3.0) == ([], [other])
    executor.release()
    assert other.result(timeout=patient(30)) == 16
