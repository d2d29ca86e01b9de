"""Watching for shift: what is kept, what several gateways share, when the alarm goes on and off, and what a caller sees of it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import cv2
import numpy as np
import prometheus_client
import pytest
from engine_fixtures import postgres
from gateway_support import CLASSES, Loop, RunningGateway, publish_model, running_gateway, settings_for
from google.longrunning import operations_pb2, operations_pb2_grpc
from waiting import patient, wait_for

from oteo_core.artifacts import open_store
from oteo_core.errors import Unavailable
from oteo_core.packages import image_statistics, statistic_names
from oteo_core.packages.reference_sample import ReferenceSample
from oteo_core.shift.home import Home
from oteo_core.shift.looking import WINDOWS
from oteo_gateway.deployments.records import Deployment, ModelPart, Serving, ServingModel
from oteo_gateway.prediction.answer import ClassAnswer
from oteo_gateway.prediction.regions import ObjectAnswer
from oteo_gateway.watching import words
from oteo_gateway.watching.collector import Batch, Collector, Watched, presence
from oteo_gateway.watching.records import WatchState
from oteo_gateway.watching.store import WatchStore
from oteo_gateway.watching.watcher import Watcher, WatchSettings, watched_of
from oteo_local.triton import start
from oteo_protos.gateway.v1 import deployment_pb2, deployment_pb2_grpc, inference_pb2, inference_pb2_grpc
from oteo_protos.type.v1 import image_pb2

__all__ = ["postgres"]

COLUMNS = [f"mean_{number}" for number in range(4)]
MARK = Serving((ServingModel(ModelPart("cells"), "d" * 64),), 1).mark
KEY = Watched("uid-cells", MARK, "cells")


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/oteo.db"
    return str(request.getfixturevalue("postgres").new_url())


@pytest.fixture
def store(url: str) -> Iterator[WatchStore]:
    found = WatchStore(url)
    yield found
    found.close()


def deployment(digest: str = "d" * 64) -> Deployment:
    made = datetime(2026, 1, 1, tzinfo=UTC)
    part = ModelPart("cells")
    shadow = ModelPart("other", shadow=True, percent=0)
    serving = Serving((ServingModel(part, digest), ServingModel(shadow, "e" * 64))[: 1 if digest[0] == "d" else 2], 1)
    return Deployment("cells", "uid-cells", "", (part,), made, made, serving=serving)


class World:
    """Watchers of several gateways on one database, turned by hand."""

    def __init__(self, store: WatchStore) -> None:
        self.store = store
        self.now = 1000.0
        self.holder = ""
        self.deployments = [deployment()]
        rng = np.random.default_rng(0)
        self.home: Home | None = Home.of_sample(COLUMNS, rng.normal(size=(400, 4)))
        self.told: dict[Watched, WatchState] = {}

    def gateway(self, name: str) -> tuple[Collector, Watcher]:
        collector = Collector()

        def lease(_lease: str, _seconds: float) -> bool:
            self.holder = self.holder or name
            return self.holder == name

        def told(_deployments: Iterable[Deployment], states: dict[Watched, WatchState]) -> None:
            self.told = states

        watcher = Watcher(
            collector, self.store, lambda: self.deployments, lambda _model: self.home, lease, WatchSettings(), told, lambda: self.now
        )
        return collector, watcher


def feed(collector: Collector, rows: np.ndarray, name: str = "", key: Watched = KEY) -> None:
    for number, row in enumerate(rows):
        collector.note(key, f"{name or time.monotonic_ns()}-{number}", row, np.array([True, False]))


def test_two_gateways_share_windows_and_alarm_and_a_restart_forgets_nothing(store: WatchStore) -> None:
    world = World(store)
    rng = np.random.default_rng(1)
    (one, first), (two, second) = world.gateway("a"), world.gateway("b")
    feed(one, rng.normal(size=(20, 4)))
    feed(two, rng.normal(size=(20, 4)))
    second_before_lease = world.holder
    first.turn()
    assert second_before_lease == ""
    assert world.told[KEY].window == 20
    assert world.told[KEY].look is None
    second.turn()
    first.turn()
    state = world.told[KEY]
    assert state.window == 40
    assert state.look is not None
    assert not state.alarm.on
    # The first gateway dies; the second takes the lease, and shifted images ring at once.
    world.holder = "b"
    feed(two, rng.normal(size=(64, 4)) + 3.0)
    second.turn()
    assert world.told[KEY].alarm.on
    # A new process reads it all from the database, and what it did not see still counts.
    world.holder = ""
    three, third = world.gateway("c")
    third.turn()
    assert world.told[KEY].alarm.on
    assert world.told[KEY].window == 104
    assert "look different" in words.message(world.told[KEY], 0.01, "cells")
    assert "oteo shift" in words.message(world.told[KEY], 0.01, "cells")
    # It ends when images are as before, for some looks.
    for _ in range(60):
        feed(three, rng.normal(size=(16, 4)))
        third.turn()
        if not world.told[KEY].alarm.on:
            break
    assert not world.told[KEY].alarm.on
    assert world.told[KEY].alarm.since == 0


def test_a_change_of_the_deployment_begins_anew_and_leaves_nothing(store: WatchStore) -> None:
    world = World(store)
    collector, watcher = world.gateway("a")
    feed(collector, np.random.default_rng(2).normal(size=(64, 4)) + 3.0)
    watcher.turn()
    assert world.told[KEY].alarm.on
    world.deployments = [deployment("f" * 64)]
    watcher.turn()
    assert KEY not in world.told
    assert [one.model for one in watched_of(world.deployments[0])] == ["cells"]
    assert store.states() == {}
    assert store.waiting() == {}
    assert store.latest(KEY, 10) == (None, {})


def test_the_same_image_again_counts_once_wherever_it_is_asked_for(store: WatchStore) -> None:
    world = World(store)
    (one, first), (two, second) = world.gateway("a"), world.gateway("b")
    row = np.full(4, 3.0)
    for _ in range(500):
        one.note(KEY, "the same file", row, np.array([True, False]))
    frames = np.random.default_rng(3).normal(size=(300, 4)) + 3.0
    for frame in frames:
        one.note(KEY, "a cine loop", frame, np.array([True, False]))
    two.note(KEY, "the same file", row, np.array([True, False]))
    first.turn()
    second.turn()
    first.turn()
    assert world.told[KEY].window == 2
    assert "30 more" in words.message(world.told[KEY], 0.01, "cells")


def test_little_traffic_is_looked_at_by_time_and_old_batches_go(store: WatchStore) -> None:
    world = World(store)
    collector, watcher = world.gateway("a")
    rng = np.random.default_rng(4)
    feed(collector, rng.normal(size=(40, 4)))
    watcher.turn()
    looked = world.told[KEY].looked
    world.now += 5
    feed(collector, rng.normal(size=(3, 4)))
    watcher.turn()
    assert world.told[KEY].looked == looked
    assert world.told[KEY].window == 43
    world.now += 60
    watcher.turn()
    assert world.told[KEY].looked == world.now
    assert world.told[KEY].unseen == 0
    for _ in range(30):
        feed(collector, rng.normal(size=(100, 4)))
        watcher.turn()
    kept = sum(store.latest(KEY, 10)[1].values())
    assert 2 * WINDOWS[-1] <= kept <= 2 * WINDOWS[-1] + 200
    assert world.told[KEY].window == WINDOWS[-1]


def test_what_is_kept_of_an_image_is_its_statistics(tmp_path: Path) -> None:
    store = WatchStore(f"sqlite:///{tmp_path}/oteo.db")
    collector = Collector()
    pixels = np.random.default_rng(5).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    collector.note(KEY, "f" * 64, image_statistics(pixels), np.array([True, False, True]))
    store.add(collector.take())
    batch, _ = store.latest(KEY, 1)
    assert batch is not None
    assert batch.statistics.shape == (1, len(statistic_names(3)))
    assert batch.answers.tolist() == [[True, False, True]]
    store.close()
    written = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert b"f" * 64 not in written
    assert pixels.tobytes()[:32] not in written


def test_a_package_without_statistics_is_not_tested(store: WatchStore) -> None:
    world = World(store)
    world.home = None
    collector, watcher = world.gateway("a")
    feed(collector, np.random.default_rng(6).normal(size=(64, 4)))
    watcher.turn()
    assert world.told[KEY].look is None
    assert world.told[KEY].window == 64


def test_the_loop_outlives_a_database_that_is_away() -> None:
    class Away:
        def add(self, _found: object) -> None:
            raise Unavailable("away")

    class Stopped:
        def __init__(self) -> None:
            self.turns = 0

        def wait(self, _seconds: float) -> bool:
            self.turns += 1
            return self.turns > 2

    collector = Collector()
    watcher = Watcher(
        collector,
        Away(),
        list,
        lambda _: None,
        lambda _n, _s: True,
        WatchSettings(),
        lambda _d, _s: None,  # type: ignore[arg-type]
    )
    feed(collector, np.zeros((3, 4)))
    watcher.run(Stopped())  # type: ignore[arg-type]
    assert collector.take() == {}


def test_presence_of_classes_by_answer() -> None:
    one = ClassAnswer((("green", 0.7), ("red", 0.3)), (), 0.0, "red", False)
    assert presence(one, CLASSES).tolist() == [False, True, False]
    several = replace(one, decision="", decisions=("red", "blue"))
    assert presence(several, CLASSES).tolist() == [True, False, True]
    assert presence(ObjectAnswer((("blue", 0.9, (0, 0, 1, 1)),)), CLASSES).tolist() == [False, False, True]


def test_a_batch_survives_any_number_of_classes(store: WatchStore) -> None:
    for classes in (0, 1, 13):
        key = Watched("u", str(classes), "m")
        answers = np.random.default_rng(classes).random((5, classes)) < 0.5
        store.add({key: Batch(np.arange(10, dtype=np.float32).reshape(5, 2), answers)})
        batch, counts = store.latest(key, 5)
        assert batch is not None
        assert (batch.answers == answers).all()
        assert list(counts.values()) == [5]


@pytest.fixture(scope="module")
def site(loop: Loop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    home = tmp_path_factory.mktemp("watching")
    with start(home / "model-repository", timeout=patient(30)) as server:
        settings = settings_for(home, triton_urls=[server.address], watch_seconds=0.2)
        artifacts = open_store(settings)
        publish_model(artifacts, "noise")
        rng = np.random.default_rng(7)
        rows = np.stack([image_statistics(noise(rng)) for _ in range(200)])
        answers = np.eye(3, dtype=bool)[rng.integers(0, 3, 200)]
        artifacts.write_bytes(
            "models/noise/reference.npz", ReferenceSample.of(statistic_names(3), rows, truths=answers, answers=answers).to_npz()
        )
        with running_gateway(loop, settings, log_dir=home / "logs") as running:
            stub = deployment_pb2_grpc.DeploymentServiceStub(running.channel)
            made = deployment_pb2.Deployment(models=[deployment_pb2.DeployedModel(model="models/noise")])
            operation = stub.CreateDeployment(deployment_pb2.CreateDeploymentRequest(deployment=made), timeout=60)
            operations = operations_pb2_grpc.OperationsStub(running.channel)
            wait_for(lambda: operations.GetOperation(operations_pb2.GetOperationRequest(name=operation.name), timeout=60).done, 40)
            yield running


def noise(rng: np.random.Generator, size: int = 16) -> np.ndarray:
    return rng.integers(0, 255, (size, size, 3), dtype=np.uint8)


def shown(site: RunningGateway) -> deployment_pb2.Deployment:
    stub = deployment_pb2_grpc.DeploymentServiceStub(site.channel)
    return stub.GetDeployment(deployment_pb2.GetDeploymentRequest(name="deployments/noise"), timeout=60)


def predict(site: RunningGateway, images: Iterable[np.ndarray]) -> None:
    stub = inference_pb2_grpc.InferenceServiceStub(site.channel)
    for image in images:
        content = bytes(cv2.imencode(".png", image)[1].tobytes())
        stub.Predict(
            inference_pb2.PredictRequest(deployment="deployments/noise", image=image_pb2.ImageSource(content=content)), timeout=120
        )


def metric(name: str) -> float | None:
    return prometheus_client.REGISTRY.get_sample_value(name, {"deployment": "noise"})


def test_a_caller_sees_windows_fill_the_alarm_ring_and_a_change_end_it(site: RunningGateway) -> None:
    assert "No image was seen yet" in shown(site).shift.message
    rng = np.random.default_rng(8)
    predict(site, [noise(rng)] * 3)
    wait_for(lambda: shown(site).shift.window_size == 1)
    assert "31 more" in shown(site).shift.message
    predict(site, [noise(rng) for _ in range(47)])
    wait_for(lambda: shown(site).shift.HasField("update_time") and shown(site).shift.window_size == 48)
    shift = shown(site).shift
    assert not shift.alarm
    assert shift.p_value > 1e-4
    assert shift.test in ("ks of image statistics", "fisher of class shares")
    assert 0.1 < shift.detectable_effect_size < 1
    assert "No shift in the latest" in shift.message
    predict(site, [noise(rng) // 2 for _ in range(48)])
    wait_for(lambda: shown(site).shift.alarm)
    shift = shown(site).shift
    assert shift.p_value < 1e-4
    assert shift.effect_size > 0.4
    assert shift.HasField("alarm_time")
    assert shift.test == "ks of image statistics"
    assert "standard deviations" in shift.message
    wait_for(lambda: metric("oteo_shift_alarm") == 1.0)
    assert (metric("oteo_shift_p_value") or 1) < 1e-4
    assert (metric("oteo_shift_window_images") or 0) >= 80
    stub = deployment_pb2_grpc.DeploymentServiceStub(site.channel)
    listed = stub.ListDeployments(deployment_pb2.ListDeploymentsRequest(), timeout=60).deployments
    assert listed[0].shift.alarm
    # Another name changes nothing of what is seen; another model does.
    changed = deployment_pb2.Deployment(
        name="deployments/noise", display_name="changed", models=[deployment_pb2.DeployedModel(model="models/noise")]
    )
    stub.UpdateDeployment(deployment_pb2.UpdateDeploymentRequest(deployment=changed), timeout=60)
    assert shown(site).shift.alarm
    publish_model(open_store(site.settings), "other")
    changed.models[0].model = "models/other"
    stub.UpdateDeployment(deployment_pb2.UpdateDeploymentRequest(deployment=changed), timeout=60)
    wait_for(lambda: not shown(site).shift.alarm, 40)
    assert shown(site).shift.window_size == 0
    wait_for(lambda: metric("oteo_shift_alarm") == 0.0)
