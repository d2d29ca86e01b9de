"""One replica kept: what is asked of it, and how often."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from gateway_support import publish_model

from oteo_core.artifacts import ArtifactStore
from oteo_core.errors import FailedPrecondition, Internal, OteoError, Unavailable
from oteo_gateway.deployments.replica import ReplicaKeeper
from oteo_gateway.deployments.repository import ModelRepository
from oteo_gateway.deployments.units import Unit, model_unit


class Server:
    """A model server in memory that can be broken."""

    address = "replica:1"

    def __init__(self) -> None:
        self.loaded: dict[str, str] = {}
        self.disk: dict[str, str] = {}
        self.touched: set[str] = set()
        self.dead: set[str] = set()
        self.away = False
        self.broken = False
        self.weak = False
        self.calls: list[str] = []

    def index(self) -> dict[str, bool]:
        self._there()
        return {name: name in self.loaded for name in {*self.disk, *self.loaded}}

    def digest(self, model: str) -> str:
        return self.loaded[model]

    def load(self, model: str) -> None:
        self.calls.append(f"load {model}")
        if self.broken:
            raise FailedPrecondition("not a graph")
        if model not in self.loaded or self.loaded[model] != self.disk[model] or model in self.touched:
            self.dead.discard(model)
        self.touched.discard(model)
        self.loaded[model] = self.disk[model]

    def unload(self, model: str) -> None:
        self.calls.append(f"unload {model}")
        del self.loaded[model]

    def probe(self, unit: Unit) -> None:
        self._answer("probe", unit)

    def warm(self, unit: Unit) -> None:
        self._answer("warm", unit)
        if self.weak:
            raise Internal("no memory for a batch of 16")

    def _answer(self, how: str, unit: Unit) -> None:
        self.calls.append(f"{how} {unit.name}")
        self._there()
        if unit.name in self.dead:
            raise Internal("stub is not healthy")

    def touch(self, model: str) -> None:
        self.calls.append(f"touch {model}")
        self.touched.add(model)

    def _there(self) -> None:
        if self.away:
            raise Unavailable("away", reason="REPLICA_AWAY")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def parts(tmp_path: Path) -> tuple[Server, Clock, ReplicaKeeper, dict[str, Unit]]:
    package = publish_model(ArtifactStore(f"file://{tmp_path}"), "m")
    server, clock = Server(), Clock()
    server.disk["m"] = package.digest
    return server, clock, ReplicaKeeper(server, server, probe_seconds=5, linger_seconds=3, clock=clock), {"m": model_unit(package)}


def test_loads_once_and_probes_in_its_period(parts: tuple[Server, Clock, ReplicaKeeper, dict[str, Unit]]) -> None:
    server, clock, keeper, wanted = parts
    assert keeper.sync(wanted).models["m"].ready
    for clock.now in (1.0, 2.0, 4.9):
        keeper.sync(wanted)
    assert server.calls == ["load m", "warm m"]
    clock.now = 5.1
    keeper.sync(wanted)
    assert server.calls[2:] == ["probe m"]
    keeper.doubt("m")
    keeper.sync(wanted)
    assert server.calls[3:] == ["probe m"]


def test_dead_model_is_touched_and_loaded_again(parts: tuple[Server, Clock, ReplicaKeeper, dict[str, Unit]]) -> None:
    server, clock, keeper, wanted = parts
    keeper.sync(wanted)
    server.dead.add("m")
    clock.now = 6.0
    assert keeper.sync(wanted).models["m"].ready
    assert server.calls[2:] == ["probe m", "touch m", "load m", "warm m"]


def test_model_that_does_not_load_is_tried_ever_more_rarely(parts: tuple[Server, Clock, ReplicaKeeper, dict[str, Unit]]) -> None:
    server, clock, keeper, wanted = parts
    server.broken = True
    for second in range(61):
        clock.now = float(second)
        state = keeper.sync(wanted).models["m"]
    assert not state.ready
    assert "not a graph" in state.message
    assert server.calls.count("load m") == 6  # at 0, 1, 3, 7, 15 and 31 seconds
    server.broken = False
    clock.now = 61.0
    assert keeper.sync(wanted).models["m"].ready


def test_model_that_cannot_take_the_batches_it_prefers_is_not_called_ready(
    parts: tuple[Server, Clock, ReplicaKeeper, dict[str, Unit]],
) -> None:
    server, clock, keeper, wanted = parts
    server.weak = True
    for clock.now in (0.0, 1.0, 3.0, 7.0):
        state = keeper.sync(wanted).models["m"]
        assert not state.ready
        assert "batch of 16" in state.message
    server.weak = False
    clock.now = 15.0
    assert keeper.sync(wanted).models["m"].ready


def test_replica_that_comes_back_is_not_kept_waiting(parts: tuple[Server, Clock, ReplicaKeeper, dict[str, Unit]]) -> None:
    server, clock, keeper, wanted = parts
    keeper.sync(wanted)
    server.away = True
    state = keeper.sync(wanted)
    assert (state.alive, state.models["m"].ready) == (False, False)
    server.away = False
    server.loaded.clear()
    clock.now = 0.1
    assert keeper.sync(wanted).models["m"].ready


def test_unwanted_model_lingers_then_goes_unless_it_is_not_ours(
    parts: tuple[Server, Clock, ReplicaKeeper, dict[str, Unit]],
) -> None:
    server, clock, keeper, wanted = parts
    keeper.sync(wanted)
    server.loaded |= {"theirs": "", "oteo-parity-1": "digest"}
    keeper.sync({})
    clock.now = 2.9
    keeper.sync({})
    assert "m" in server.loaded
    clock.now = 3.0
    keeper.sync({})
    assert set(server.loaded) == {"theirs", "oteo-parity-1"}


def test_what_needs_others_is_loaded_last_and_unloaded_first(parts: tuple[Server, Clock, ReplicaKeeper, dict[str, Unit]]) -> None:
    server, clock, keeper, wanted = parts
    model = wanted["m"]
    for name in ("translator_t", "m_t"):
        server.disk[name] = name
    units = {
        "m_t": replace(model, name="m_t", digest="m_t", needs=("translator_t", "m")),
        "translator_t": replace(model, name="translator_t", digest="translator_t"),
        **wanted,
    }
    keeper.sync(units)
    assert [call for call in server.calls if call.startswith("load")] == ["load m", "load translator_t", "load m_t"]
    keeper.sync({})
    clock.now = 4.0
    keeper.sync({})
    assert server.calls[-3:] == ["unload m_t", "unload translator_t", "unload m"]


def test_repository_holds_a_folder_while_its_digest_stands(tmp_path: Path) -> None:
    artifacts, store = ArtifactStore(f"file://{tmp_path}/artifacts"), ArtifactStore(f"file://{tmp_path}/repository")
    repository = ModelRepository(store, artifacts)
    package = publish_model(artifacts, "m")
    assert repository.write(model_unit(package))
    assert not repository.write(model_unit(package))
    assert repository.models() == {"m": package.digest}
    # Killed between the model and its configuration: written again.
    store.delete("m/config.pbtxt")
    assert repository.write(model_unit(package))
    store.write_bytes("m/1/old.onnx", b"of an earlier package")
    renewed = publish_model(artifacts, "m", sharpness=2)
    assert repository.write(model_unit(renewed))
    assert [entry.path for entry in store.iter("m")] == ["m/1/model.onnx", "m/config.pbtxt"]
    store.write_bytes("oteo-parity-9/config.pbtxt", store.read_bytes("m/config.pbtxt"))
    store.write_bytes("theirs/config.pbtxt", b'name: "theirs"')
    store.write_bytes("rubbish/config.pbtxt", b"\xff{{{")
    assert repository.models() == {"m": renewed.digest}
    repository.remove("m")
    assert repository.models() == {}


def test_package_without_its_model_is_refused(tmp_path: Path) -> None:
    artifacts = ArtifactStore(f"file://{tmp_path}/artifacts")
    package = publish_model(artifacts, "m")
    artifacts.delete("models/m/triton/m/1")
    with pytest.raises(OteoError) as caught:
        ModelRepository(ArtifactStore(f"file://{tmp_path}/repository"), artifacts).write(model_unit(package))
    assert caught.value.reason == "BROKEN_PACKAGE"
