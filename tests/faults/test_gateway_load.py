"""Under steady load something is killed or cut: no answer is wrong, no call ends without a status, and all are answered again when it is back.

The bar is 5 s from when it is back to the beginning of the last call that is not answered, by the callers' own clocks (`OTEO_TEST_SLOWER` times as long on
a machine so much slower).
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from gateway_processes import TOKEN, Gateways
from gateway_support import CLASSES, deploy_model, picture, publish_model
from grpc_health.v1 import health_pb2, health_pb2_grpc
from steady_load import SteadyLoad
from waiting import SLOWER, patient, wait_for

from oteo_core.artifacts import ArtifactStore
from oteo_local import ports
from oteo_local.triton import RunningTriton, TritonServer, is_ready, start
from oteo_protos.augment.v1 import augment_pb2, augment_pb2_grpc
from oteo_protos.gateway.v1 import inference_pb2, inference_pb2_grpc
from oteo_protos.type.v1 import image_pb2

METADATA = (("authorization", f"Bearer {TOKEN}"),)
PICTURES = {colour: picture(colour) for colour in CLASSES}
RECOVERY_SECONDS = 5.0 * SLOWER
PATIENT = patient(10)
"""Seconds that a caller waits for an answer."""


async def predict(channel: grpc.aio.Channel, number: int) -> bool:
    """Ask for one image whose class is known."""
    colour = CLASSES[number % 3]
    request = inference_pb2.PredictRequest(deployment="deployments/colours", image=image_pb2.ImageSource(content=PICTURES[colour]))
    answer = await inference_pb2_grpc.InferenceServiceStub(channel).Predict(request, metadata=METADATA, timeout=PATIENT)
    return answer.classification.decision == colour


async def ask_augment(channel: grpc.aio.Channel, number: int) -> bool:
    """Ask the service behind for its catalogue."""
    answer = await augment_pb2_grpc.AugmentServiceStub(channel).ListTransforms(
        augment_pb2.ListTransformsRequest(), metadata=METADATA, timeout=PATIENT
    )
    return len(answer.transforms) > 10


@dataclass
class Service:
    """Augment as a process that may be killed and started again."""

    home: Path
    environment: dict[str, str]
    process: subprocess.Popen[bytes] | None = None

    def up(self) -> None:
        script = Path(__file__).resolve().parent.parent / "served_by_processes.py"
        with open(self.home / "augment.log", "ab") as log:
            self.process = subprocess.Popen([sys.executable, str(script), "augment"], env=self.environment, stdout=log, stderr=log)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()


@dataclass
class Site:
    """Two gateway processes, two Tritons that serve one model, and augment."""

    gateways: Gateways
    replicas: list[int]
    augment: Service
    stack: ExitStack
    home: Path
    tritons: dict[int, RunningTriton]

    def start_triton(self, port: int) -> None:
        """Start, or start again, the replica of a port."""
        self.tritons[port] = self.stack.enter_context(start(self.home / "model-repository", grpc_port=port, timeout=patient(30)))


@contextmanager
def gateways_on(home: Path, triton_urls: str, **environment: str) -> Iterator[Gateways]:
    """Run two gateway processes with a model that is served."""
    publish_model(ArtifactStore(f"file://{home}/artifacts"), "colours")
    running = Gateways(
        home,
        OTEO_TRITON_URLS=triton_urls,
        OTEO_RECONCILE_SECONDS="0.3",
        OTEO_PROBE_SECONDS="1",
        OTEO_HEALTH_SECONDS="0.3",
        OTEO_LEASE_SECONDS="2",
        **environment,
    )
    try:
        wait_for(lambda: len(running.listeners()) == 2, 60)
        with grpc.insecure_channel(running.address) as channel:
            deploy_model(channel, "colours", METADATA)
        yield running
    finally:
        running.kill()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    home = tmp_path_factory.mktemp("load")
    replicas = [ports.free_port(), ports.free_port()]
    address = f"127.0.0.1:{ports.free_port()}"
    augment = Service(home, {**os.environ, "OTEO_HOME": str(home), "OTEO_TOKEN": TOKEN, "OTEO_LISTEN": address})
    with ExitStack() as stack:
        tritons = {port: stack.enter_context(start(home / "model-repository", grpc_port=port, timeout=patient(30))) for port in replicas}
        augment.up()
        stack.callback(augment.kill)
        urls = ",".join(f"127.0.0.1:{port}" for port in replicas)
        gateways = stack.enter_context(gateways_on(home, urls, OTEO_AUGMENT_ADDRESS=address))
        yield Site(gateways, replicas, augment, stack, home, tritons)


def recovered(what: str, load: SteadyLoad, back: float) -> None:
    """Assert that all calls were answered again soon after a moment; print what a run showed, for who reads the log."""
    after = load.settled(back)
    print(f"{what}: {dict(load.codes())}; the last call that failed began {after:.1f} s after it was back")
    assert after <= RECOVERY_SECONDS, f"{what}: a call failed that began {after:.1f} s after it was back"


def test_a_triton_replica_is_killed(site: Site) -> None:
    with SteadyLoad(site.gateways.address, predict) as load:
        load.wait_good()
        victim = site.tritons[site.replicas[0]]
        victim.process.kill()
        victim.process.wait()
        load.wait_good()
        site.start_triton(site.replicas[0])
        back = time.monotonic()
        load.wait_good(200)
    load.check()
    recovered("Triton killed", load, back)
    assert set(load.codes()) <= {"OK", "UNAVAILABLE"}


def test_a_gateway_process_is_killed(site: Site) -> None:
    with SteadyLoad(site.gateways.address, predict, callers=6) as load:
        load.wait_good()
        for _ in range(2):
            killed = min(site.gateways.listeners())
            os.kill(killed, signal.SIGKILL)
            # The other process serves on: nobody waits for the new one.
            back = time.monotonic()
            load.wait_good(100)
            recovered("gateway process killed", load, back)
            wait_for(lambda killed=killed: len(site.gateways.listeners() - {killed}) == 2, 60)
            load.wait_good(100)
    load.check()
    recovered("gateway process killed twice", load, back)
    assert set(load.codes()) <= {"OK", "UNAVAILABLE"}


def test_a_service_is_killed(site: Site) -> None:
    with SteadyLoad(site.gateways.address, ask_augment) as load, SteadyLoad(site.gateways.address, predict, callers=2) as others:
        load.wait_good(seconds=30)
        moment = time.monotonic()
        site.augment.kill()
        wait_for(lambda: any(outcome.code == "UNAVAILABLE" for outcome in load.since(moment)))
        site.augment.up()
        wait_for(lambda: answers(site.augment.environment["OTEO_LISTEN"]), 60)
        back = time.monotonic()
        load.wait_good(100)
        others.wait_good()
    load.check()
    others.check()
    recovered("augment killed", load, back)
    assert set(load.codes()) <= {"OK", "UNAVAILABLE"}
    assert set(others.codes()) == {"OK"}, "who asks nothing of that service notices nothing"


def answers(address: str) -> bool:
    """Tell whether a service says of itself that it serves."""
    with grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=patient(5))
        except grpc.RpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


class Wire:
    """A network namespace with one cable to it, which can be cut: packets are dropped, and nobody is told."""

    near, far = "10.213.97.1", "10.213.97.2"

    def __init__(self) -> None:
        self.name = f"oteo-{secrets.token_hex(3)}"
        self.here, self.there = f"{self.name}a", f"{self.name}b"

    def __enter__(self) -> Wire:
        _run("ip", "netns", "add", self.name)
        try:
            _run("ip", "link", "add", self.here, "type", "veth", "peer", "name", self.there, "netns", self.name)
            _run("ip", "addr", "add", f"{self.near}/30", "dev", self.here)
            _run("ip", "link", "set", self.here, "up")
            for command in (
                ["addr", "add", f"{self.far}/30", "dev", self.there],
                ["link", "set", self.there, "up"],
                ["link", "set", "lo", "up"],
            ):
                _run("ip", "-n", self.name, *command)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run(["ip", "link", "del", self.here], check=False, capture_output=True)
        subprocess.run(["ip", "netns", "del", self.name], check=False, capture_output=True)

    def cut(self) -> None:
        """Drop every packet in both directions."""
        # A bucket that holds less than any packet lets none through.
        _run("tc", "qdisc", "add", "dev", self.here, "root", "tbf", "rate", "1kbit", "burst", "1", "limit", "1")
        _run("tc", "-n", self.name, "qdisc", "add", "dev", self.there, "root", "tbf", "rate", "1kbit", "burst", "1", "limit", "1")

    def mend(self) -> None:
        """Let packets through again."""
        _run("tc", "qdisc", "del", "dev", self.here, "root")
        _run("tc", "-n", self.name, "qdisc", "del", "dev", self.there, "root")


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=patient(20))


@pytest.fixture
def wire() -> Iterator[Wire]:
    if os.geteuid() != 0 or shutil.which("ip") is None or shutil.which("tc") is None:
        pytest.skip("cutting a network takes root, ip and tc (Debian: iproute2)")
    with Wire() as made:
        yield made


@contextmanager
def triton_behind(wire: Wire, home: Path) -> Iterator[str]:
    """Run a Triton at the far end of a wire; gives its address."""
    server = TritonServer(repository=str(home / "model-repository"), grpc_port=8001, host=wire.far, threads=1)
    (home / "model-repository").mkdir(parents=True, exist_ok=True)
    log = home / "triton.log"
    with open(log, "wb") as output:
        process = subprocess.Popen(
            ["ip", "netns", "exec", wire.name, *server.command()],
            env={**os.environ, **server.process_environment()},
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    running = RunningTriton(server, process, log)
    try:
        wait_for(lambda: process.poll() is not None or is_ready(running.address), 60)
        yield running.address
    finally:
        running.stop()


def test_the_network_to_triton_is_cut_for_5_seconds(wire: Wire, tmp_path: Path) -> None:
    with (
        triton_behind(wire, tmp_path) as address,
        gateways_on(tmp_path, address) as gateways,
        SteadyLoad(gateways.address, predict) as load,
    ):
        load.wait_good()
        wire.cut()
        cut = time.monotonic()
        time.sleep(5)
        wire.mend()
        back = time.monotonic()
        load.wait_good(100)
        during = [outcome for outcome in load.since(cut) if outcome.begin < back]
    load.check()
    recovered("network cut for 5 s", load, back)
    assert any(outcome.code == "UNAVAILABLE" for outcome in during), "callers are told, and soon enough to ask again"
    assert set(load.codes()) <= {"OK", "UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED"}
