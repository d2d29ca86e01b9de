"""Where only a worker that can still come has a GPU: it is asked for and waited for, and plan and operation say so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from training_runs import Home, inline_home

from oteo_automl import devices
from oteo_automl.devices import GPU_SHARE, Device, find_device
from oteo_automl.search.budget import Budget
from oteo_automl.search.checkpoints import StoredCheckpoints
from oteo_core.jobs import InlineExecutor, JobContext, JobStopped, Task
from oteo_core.jobs.watch import StopCause
from oteo_protos.automl.v1 import automl_pb2

GROUPS = [(4.0, 0), (8.0, 1)]
COUNTS = {"lying": (12, 4, 4), "standing": (12, 4, 4)}
NETWORK = ["classical-logistic", "timm-resnet10t"]


class Cluster(InlineExecutor):
    """Workers with a GPU that come when they are asked for, at the so-and-so-manieth look; None: never."""

    def __init__(self, at: int | None = None, *, live: float = 0.0) -> None:
        self._at, self._live = at, live
        self.looks = 0
        self.reserved: list[tuple[float, float]] = []
        self.held = False
        self.taken: list[float] = []

    @property
    def gpus(self) -> float:
        self.looks += bool(self.reserved)
        return 1.0 if self._at is not None and self.reserved and self.looks >= self._at else self._live

    def reserve(self, *, cpus: float, gpus: float, seconds: float) -> bool:
        assert seconds > 0
        self.reserved.append((cpus, gpus))
        self.held = True
        return True

    def release(self) -> None:
        self.held = False

    def submit(
        self, fn: Callable[..., Any], /, *args: Any, cpus: float = 1.0, gpus: float = 0.0, retries: int = 2, **kwargs: Any
    ) -> Task[Any]:
        if gpus > 0:
            self.release()
        self.taken.append(gpus)
        return super().submit(fn, *args, cpus=cpus, gpus=gpus, retries=retries, **kwargs)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    return inline_home(tmp_path, monkeypatch)


class Asked:
    """Attempts of one training."""

    def __init__(self, home: Home) -> None:
        self.checkpoints = StoredCheckpoints.of_operation(home.store, "train-x")
        self.said: list[str] = []

    def find(
        self,
        executor: InlineExecutor,
        workers: list[tuple[float, int]] = GROUPS,
        *,
        networks: bool = True,
        seconds: float = 1000.0,
        check: Callable[[], None] = lambda: None,
    ) -> Device:
        budget = Budget.resume(self.checkpoints, seconds, 0.1 * seconds)
        return find_device(executor, budget, self.checkpoints, workers, networks=networks, check=check, say=self.said.append)


@pytest.fixture
def asked(home: Home) -> Asked:
    return Asked(home)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for 0.9 s of 1000, and take that for long enough."""
    monkeypatch.setattr(devices, "WAIT_SHARE", 0.001)
    monkeypatch.setattr(devices, "WAIT_LEAST", 0.5)


@pytest.mark.parametrize("workers", [[], [(4.0, 0)], [(0.0, 1)]])
@pytest.mark.parametrize("live", [0.0, 2.0])
def test_without_workers_that_could_come_what_is_there_counts(asked: Asked, workers: list[tuple[float, int]], live: float) -> None:
    executor = Cluster(at=1, live=live)
    assert asked.find(executor, workers) == Device(live > 0, GPU_SHARE if live else 0.0)
    assert (executor.reserved, asked.said, asked.checkpoints.load("device.json")) == ([], [], None)


def test_a_gpu_that_is_there_is_not_waited_for(asked: Asked) -> None:
    executor = Cluster(live=1.0)
    assert asked.find(executor) == Device(True, GPU_SHARE)
    assert (executor.reserved, asked.said) == ([], [])


def test_a_worker_that_comes_is_trained_on_and_kept_until_then(asked: Asked) -> None:
    executor = Cluster(at=3)
    found = asked.find(executor)
    assert (found.gpu, found.share) == (True, GPU_SHARE)
    assert found.note.startswith("Networks train on GPUs: a worker that has one was asked for, and was there after")
    assert (executor.reserved, executor.held) == ([(1.0, GPU_SHARE)], True)
    # A fifth of what is left: 1000 s less a tenth for the end.
    assert asked.said == ["waits at most 180 s for a worker with a GPU to start; if none comes, networks train on processors"]


@pytest.mark.usefixtures("impatient")
def test_none_that_comes_is_given_up_and_processors_are_kept_to(asked: Asked) -> None:
    executor = Cluster()
    found = asked.find(executor)
    assert found == Device(False, 0.0, "Networks train on processors: a worker with a GPU was asked for, and did not come within 1 s.")
    assert not executor.held
    # Images have the size for processors: a GPU that is there when the job is begun again comes too late.
    again = Cluster(live=1.0)
    assert asked.find(again) == found
    assert again.reserved == []


@pytest.mark.usefixtures("impatient")
def test_a_gpu_that_is_lost_is_asked_for_again_and_images_keep_their_size(asked: Asked) -> None:
    assert asked.find(Cluster(live=1.0)) == Device(True, GPU_SHARE)
    again = Cluster(at=2)
    assert asked.find(again).share == GPU_SHARE
    assert len(again.reserved) == 1
    never = asked.find(Cluster())
    assert (never.gpu, never.share) == (True, 0.0)
    assert "did not come" in never.note
    assert asked.find(Cluster(live=1.0)) == Device(True, GPU_SHARE)


def test_a_budget_too_small_to_wait_in_asks_for_nothing(asked: Asked) -> None:
    executor = Cluster(at=1)
    found = asked.find(executor, seconds=100.0)
    assert found.note == "Networks train on processors: this budget is too short to wait for a worker with a GPU to start."
    assert (found.gpu, found.share, executor.reserved) == (False, 0.0, [])


def test_the_wait_is_bounded_for_a_budget_of_days(asked: Asked) -> None:
    asked.find(Cluster(at=1), seconds=200_000.0)
    assert "at most 900 s" in asked.said[0]


def test_where_no_network_is_asked_for_none_is_waited_for(asked: Asked) -> None:
    executor = Cluster(at=1)
    assert asked.find(executor, networks=False) == Device(False, 0.0)
    assert executor.reserved == []


def test_an_executor_whose_nodes_do_not_come_has_nothing_to_wait_for(asked: Asked) -> None:
    assert asked.find(InlineExecutor()) == Device(False, 0.0)
    assert asked.said == []


def test_a_job_that_is_to_stop_stops_while_it_waits(asked: Asked) -> None:
    def stop() -> None:
        raise JobStopped(StopCause.CANCELLED)

    with pytest.raises(JobStopped):
        asked.find(Cluster(), check=stop)


# The same through the job itself.


def plan(
    home: Home, monkeypatch: pytest.MonkeyPatch, executor: Cluster, seconds: float, candidates: list[str]
) -> tuple[automl_pb2.TrainingPlan, list[str]]:
    """Ask for a plan; give it, and what the operation said on the way."""
    said: list[str] = []
    progress = JobContext.progress

    def listen(self: Any, *args: Any, **kwargs: Any) -> None:
        progress(self, *args, **kwargs)
        said.append(self.metadata.progress.message)

    monkeypatch.setattr(JobContext, "progress", listen)
    monkeypatch.setattr(JobContext, "executor", lambda _self, _kind=None: executor)
    home.settings.ray_workers = GROUPS
    response = home.train(home.dataset("cells", COUNTS), seconds, candidates=candidates, validate_only=True)
    return response.plan, said


def test_a_training_waits_says_so_and_takes_the_gpu(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    executor = Cluster(at=2)
    made, said = plan(home, monkeypatch, executor, 300.0, NETWORK)
    assert made.device == "gpu"
    assert "Networks train on GPUs: a worker that has one was asked for" in made.summary
    assert any(one.startswith("waits at most") for one in said)
    assert GPU_SHARE in executor.taken
    assert not executor.held
    assert "wait for a GPU" in dict(made.fingerprint["measured_seconds"])


@pytest.mark.usefixtures("impatient")
def test_a_training_whose_gpu_does_not_come_goes_on_with_processors(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    executor = Cluster()
    made, said = plan(home, monkeypatch, executor, 800.0, NETWORK)
    assert made.device == "cpu"
    assert "Networks train on processors: a worker with a GPU was asked for, and did not come within" in made.summary
    assert executor.reserved
    assert set(executor.taken) == {0.0}
    assert any("did not come" in one for one in said)


def test_classifiers_alone_wait_for_no_gpu(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    executor = Cluster()
    made, _ = plan(home, monkeypatch, executor, 300.0, ["classical"])
    assert (made.device, executor.reserved) == ("cpu", [])
    assert "GPU" not in made.summary
