"""What a job's process takes of a node: chosen by what nodes have, passed on to Ray, told to the job and to who waits for it."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from google.protobuf import struct_pb2

from oteo_core.artifacts import ArtifactStore
from oteo_core.errors import Unavailable
from oteo_core.jobs import AUTO, JobRunner, JobState, Placing, RayJobRunner, Resources, Wanted, files, ray_runner
from oteo_core.jobs.resources import place
from oteo_core.operations import OperationManager, OperationStore
from oteo_core.settings import CoreSettings
from oteo_protos.augment.v1 import dataset_pb2
from oteo_protos.type.v1 import report_pb2

HEAD, WORKER, GPUS = Resources(0.0), Resources(4.0), Resources(8.0, 2)


@pytest.mark.parametrize(
    ("wanted", "nodes", "given", "note"),
    [
        (Wanted(1.0, AUTO), [HEAD, WORKER, GPUS], Resources(1.0, 1), ""),
        (Wanted(1.0, AUTO), [HEAD, WORKER], Resources(1.0), ""),
        (Wanted(1.0, 0), [HEAD, GPUS], Resources(1.0), ""),
        (Wanted(1.0, 2), [HEAD, GPUS], Resources(1.0, 2), ""),
        # Two nodes with two each are no node with four.
        (Wanted(1.0, 4), [HEAD, GPUS, GPUS], Resources(1.0, 2), "4 GPUs of one node asked for, and none has more than 2"),
        (Wanted(1.0, 1), [WORKER], Resources(1.0), "1 GPU of one node asked for, and none has more than 0"),
        # GPUs of a node that has too few CPUs beside them are of no use.
        (Wanted(2.0, AUTO), [Resources(1.0, 8), WORKER], Resources(2.0), ""),
        (Wanted(1.0, AUTO), [HEAD], Resources(0.0), "no node has 1 CPU for jobs"),
        (Wanted(1.0, AUTO), [Resources(0.0, 1)], Resources(0.0, 1), "no node has 1 CPU for jobs"),
        (Wanted(1.0, AUTO), [], Resources(0.0), "no node has 1 CPU for jobs"),
    ],
)
def test_a_job_is_given_what_one_node_has(wanted: Wanted, nodes: list[Resources], given: Resources, note: str) -> None:
    placing = place(wanted, nodes)
    assert placing == Placing(given, note)
    assert Placing.from_environment(placing.environment()) == placing
    assert Placing.from_environment({}) is None


@pytest.mark.parametrize(
    ("resources", "words"), [((1.0, 0), "1 CPU"), ((0.5, 2), "0.5 CPUs and 2 GPUs"), ((0.0, 1), "1 GPU"), ((0.0, 0), "nothing")]
)
def test_resources_in_words(resources: tuple[float, int], words: str) -> None:
    assert str(Resources(*resources)) == words


class Client:
    """Ray's job client, as far as it is asked here."""

    def __init__(self) -> None:
        self.submitted: list[dict[str, Any]] = []
        self.status = 200
        self.nodes: list[tuple[str, dict[str, float]]] = []

    def submit_job(self, **options: Any) -> None:
        self.submitted.append(options)

    def _do_request(self, method: str, endpoint: str) -> Any:
        assert (method, endpoint.partition("?")[0]) == ("GET", "/api/v0/nodes")
        rows = [{"state": state, "resources_total": total} for state, total in self.nodes]
        return SimpleNamespace(status_code=self.status, json=lambda: {"data": {"result": {"result": rows}}})

    def _raise_error(self, answer: Any) -> None:
        raise RuntimeError(f"HTTP status {answer.status_code}")


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Client:
    found = Client()
    monkeypatch.setattr(ray_runner, "_client_class", lambda: lambda _address, headers: found)
    return found


def test_ray_is_told_what_a_driver_takes(client: Client) -> None:
    runner = RayJobRunner("http://ray:8265")
    runner.submit("toy-a", 1, ["true"], {}, Resources(1.0, 2))
    runner.submit("toy-b", 1, ["true"], {})
    taken = [(one["submission_id"], one["entrypoint_num_cpus"], one["entrypoint_num_gpus"]) for one in client.submitted]
    assert taken == [("toy-a-1", 1.0, 2), ("toy-b-1", 0.0, 0)]


def test_ray_says_what_its_nodes_have_and_settings_what_can_come(client: Client) -> None:
    client.nodes = [
        ("ALIVE", {"CPU": 2.0, "memory": 1e9}),
        ("DEAD", {"CPU": 9.0, "GPU": 9.0}),
        ("ALIVE", {"GPU": 1.0, "object_store_memory": 1.0}),
    ]
    there = [Resources(2.0), Resources(0.0, 1)]
    assert RayJobRunner("http://ray:8265").nodes() == there
    assert RayJobRunner("http://ray:8265", workers=[(8, 1), (4.0, 0)]).nodes() == [*there, Resources(8.0, 1), Resources(4.0)]
    client.status = 503
    with pytest.raises(Unavailable):
        RayJobRunner("http://ray:8265").nodes()


def test_workers_that_can_come_are_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    assert CoreSettings().ray_workers == []
    monkeypatch.setenv("OTEO_RAY_WORKERS", "[[4, 0], [8, 1]]")
    assert CoreSettings().ray_workers == [(4.0, 0), (8.0, 1)]


class Runner(JobRunner):
    """Writes down what it is given."""

    def __init__(self, nodes: Sequence[Resources]) -> None:
        self.given: list[tuple[Resources, dict[str, str]]] = []
        self.there = nodes

    def submit(
        self, operation_id: str, attempt: int, entrypoint: Sequence[str], env: Mapping[str, str], resources: Resources = HEAD
    ) -> None:
        self.given.append((resources, dict(env)))

    def nodes(self) -> Sequence[Resources]:
        return self.there

    def status(self, operation_id: str, attempt: int) -> JobState:
        return JobState.PENDING

    def stop(self, operation_id: str, attempt: int) -> None:
        """Nothing runs."""

    def logs(self, operation_id: str, attempt: int) -> str:
        return ""


@pytest.fixture
def settings(tmp_path: Path) -> CoreSettings:
    return CoreSettings(home=tmp_path, job_python=sys.executable)


@pytest.fixture
def manager(settings: CoreSettings, runner: Runner) -> Iterator[OperationManager]:
    store = OperationStore(settings.database_url)
    found = OperationManager(settings, "toy", store, ArtifactStore(settings.artifacts), runner, wanted={"Train": Wanted(1.0, AUTO)})
    yield found
    found.close()
    store.close()


@pytest.fixture
def runner() -> Runner:
    return Runner([HEAD, GPUS])


def begin(manager: OperationManager, method: str) -> dataset_pb2.ImportDatasetMetadata:
    """Begin an operation; give its metadata once its job is submitted."""
    operation = manager.start(method, struct_pb2.Struct(), metadata=dataset_pb2.ImportDatasetMetadata(dataset="datasets/a"))
    manager.reconciler.advance(operation.name.removeprefix("operations/"))
    metadata = dataset_pb2.ImportDatasetMetadata()
    assert manager.get(operation.name).metadata.Unpack(metadata)
    assert metadata.dataset == "datasets/a"
    return metadata


def test_an_operation_says_what_its_job_waits_for(manager: OperationManager, runner: Runner) -> None:
    metadata = begin(manager, "Train")
    (taken, variables) = runner.given[0]
    assert taken == Resources(1.0, 1)
    assert Placing.from_environment(variables) == Placing(taken)
    assert metadata.progress.message == "waits for a node with 1 CPU and 1 GPU free"
    assert metadata.progress.state == report_pb2.Progress.STATE_QUEUED


def test_a_method_that_asks_for_nothing_takes_nothing(manager: OperationManager, runner: Runner) -> None:
    assert begin(manager, "Import").progress.message == ""
    (taken, variables) = runner.given[0]
    assert taken == Resources()
    assert Placing.from_environment(variables) is None


def test_nodes_are_looked_up_for_every_attempt(manager: OperationManager, runner: Runner) -> None:
    begin(manager, "Train")
    runner.there = [HEAD, WORKER]
    row = manager.unfinished()[0]
    manager.store.change(row.id, owner=manager.owner, attempt=2, submitted=False)
    manager.reconciler.advance(row.id)
    assert [taken for taken, _ in runner.given] == [Resources(1.0, 1), Resources(1.0)]
    assert files.Attempt.from_json(manager.artifacts.read_bytes(f"operations/{row.id}/{files.ATTEMPT}")).number == 2
