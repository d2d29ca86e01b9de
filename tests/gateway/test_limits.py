"""Limits and quotas of one caller: the arithmetic with a clock of the test's own, and through a gateway."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from access_support import bearing, who
from engine_fixtures import postgres
from gateway_support import Backend, Loop, details_of, running_gateway, settings_for
from google.longrunning import operations_pb2
from google.protobuf import any_pb2
from tritonclient.grpc import service_pb2
from waiting import patient, wait_for

from oteo_core.access import Role
from oteo_core.errors import ResourceExhausted, Unavailable
from oteo_core.operations import OperationStore
from oteo_core.operations.store import NewOperation
from oteo_core.tokens import TokenFile
from oteo_gateway.access.limits import DEFAULTS, Gauge, Limits, limits_for, widest
from oteo_gateway.access.quota_store import QuotaStore
from oteo_gateway.access.quotas import Quotas
from oteo_gateway.wire import batch_size
from oteo_protos.augment.v1 import augment_pb2, augment_pb2_grpc, dataset_pb2, dataset_pb2_grpc
from oteo_protos.gateway.v1 import inference_pb2, inference_pb2_grpc
from oteo_protos.type.v1 import image_pb2

__all__ = ["postgres"]


def reason_of(call: Callable[[], Any]) -> tuple[str, float | None]:
    with pytest.raises(ResourceExhausted) as caught:
        call()
    return caught.value.reason, caught.value.retry_after


def test_a_minutes_calls_may_come_at_once_and_then_at_their_rate() -> None:
    now = [0.0]
    gauge, limits = Gauge(lambda: now[0]), Limits(requests_per_minute=60)
    for _ in range(60):
        gauge.take("a", limits)
    assert reason_of(lambda: gauge.take("a", limits)) == ("RATE_LIMITED", pytest.approx(1.0))
    gauge.take("b", limits)
    now[0] = 1.5
    gauge.take("a", limits)
    assert reason_of(lambda: gauge.take("a", limits)) == ("RATE_LIMITED", pytest.approx(0.5))
    now[0] = 1e6
    for _ in range(60):
        gauge.take("a", limits)
    assert reason_of(lambda: gauge.take("a", limits))[0] == "RATE_LIMITED"


def test_calls_at_a_time() -> None:
    gauge, limits = Gauge(), Limits(concurrent_calls=2)
    gauge.begin("a", limits)
    gauge.begin("a", limits)
    assert reason_of(lambda: gauge.begin("a", limits))[0] == "TOO_MANY_CALLS"
    assert reason_of(lambda: gauge.take("a", limits))[0] == "TOO_MANY_CALLS"
    gauge.begin("b", limits)
    gauge.end("a")
    gauge.begin("a", limits)
    assert gauge.calls("a") == 2


def test_callers_without_end_are_forgotten_but_not_those_who_call() -> None:
    gauge, limits = Gauge(), Limits(requests_per_minute=1, concurrent_calls=1)
    gauge.begin("busy", limits)
    for number in range(25_000):
        gauge.take(f"made-up-{number}", limits)
    assert len(gauge._callers) <= 10_001
    assert reason_of(lambda: gauge.begin("busy", limits))[0] == "TOO_MANY_CALLS"


def test_of_several_roles_the_widest_limits_count_and_a_callers_own_before_them() -> None:
    few, many = Limits(requests_per_minute=10, images_per_day=5), Limits(requests_per_minute=100, concurrent_calls=3, images_per_day=0)
    assert widest([few, many]) == Limits(requests_per_minute=100, concurrent_calls=0, images_per_day=0)
    assert widest([]) == Limits()
    by_role = {**DEFAULTS, Role.VIEWER: few}
    assert limits_for("a", ["viewer"], by_role, {}) == few
    assert limits_for("a", ["viewer", "admin"], by_role, {}) == Limits()
    assert limits_for("a", ["viewer"], by_role, {"a": many}) == many


@pytest.mark.parametrize("processes", [2, 3, 4, 64])
def test_processes_of_a_gateway_allow_together_what_one_would(processes: int) -> None:
    now = [0.0]
    gauges = [Gauge(lambda: now[0], processes) for _ in range(processes)]
    limits = Limits(requests_per_minute=60, concurrent_calls=12)

    def calls() -> int:
        count = 0
        for gauge in gauges:
            with contextlib.suppress(ResourceExhausted):
                while True:
                    gauge.take("a", limits)
                    count += 1
        return count

    # One at least in each: more processes than calls are allowed a minute give each caller one a process.
    assert calls() == max(60, processes)
    now[0] = 30.0
    # What is left of a call in each adds up to less than one a process.
    assert 30 - processes < calls() <= 30 + processes
    assert calls() == 0
    begun = 0
    for gauge in gauges:
        with contextlib.suppress(ResourceExhausted):
            while True:
                gauge.begin("a", limits)
                begun += 1
    assert begun == max(12 // processes, 1) * processes
    with pytest.raises(ResourceExhausted, match=f"in each of {processes} processes"):
        gauges[0].begin("a", limits)
    gauges[0].end("a")
    gauges[0].begin("a", limits)


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[QuotaStore]:
    url = f"sqlite:///{tmp_path}/oteo.db" if request.param == "sqlite" else str(request.getfixturevalue("postgres").new_url())
    found = QuotaStore(url)
    yield found
    found.close()


def test_use_adds_up_in_the_database(store: QuotaStore) -> None:
    assert store.add("2027-01-01", {"a": 3, "b": 1}, ["c"]) == {"a": 3, "b": 1, "c": 0}
    assert store.add("2027-01-01", {"a": 4}) == {"a": 7}
    assert store.add("2027-01-02", {"a": 1}, ["b"]) == {"a": 1, "b": 0}
    assert store.add("2027-01-01", {}, ["a"]) == {"a": 7}
    store.forget("2027-01-02")
    assert store.add("2027-01-01", {}, ["a"]) == {"a": 0}
    assert store.add("2027-01-02", {}, ["a"]) == {"a": 1}


def test_gateways_share_a_days_quota(loop: Loop, store: QuotaStore) -> None:
    now = [datetime(2027, 1, 1, 22, tzinfo=UTC)]
    one, two = (Quotas(store, 2.0, lambda: now[0]) for _ in range(2))

    async def story() -> None:
        for _ in range(6):
            await one.check("a", 10)
            one.add("a", 1)
        assert await two.used("a") == 0
        await one.flush()
        await two.flush()
        assert await two.used("a") == 6
        two.add("a", 4)
        with pytest.raises(ResourceExhausted) as caught:
            await two.check("a", 10)
        assert (caught.value.reason, caught.value.retry_after) == ("QUOTA_EXCEEDED", 2 * 3600.0)
        # The other learns of it with the next two batches.
        await two.flush()
        await one.flush()
        assert await one.used("a") == 10
        # A new day begins anew; what was counted of the old one and not written yet stays with the old one.
        one.add("a", 2)
        now[0] += timedelta(hours=3)
        await one.check("a", 10)
        assert await one.used("a") == 0
        await one.flush()
        assert store.add("2027-01-01", {}, ["a"]) == {"a": 12}

    loop.run(story())


def test_a_database_that_is_away_stops_nothing_and_loses_nothing(loop: Loop, tmp_path: Path) -> None:
    class Away:
        def __init__(self) -> None:
            self.behind = QuotaStore(f"sqlite:///{tmp_path}/oteo.db")
            self.away = True

        def add(self, day: str, used: Any, asked: Any = ()) -> dict[str, int]:
            if self.away:
                raise Unavailable("away", reason="DATABASE_UNAVAILABLE")
            return self.behind.add(day, used, asked)

        def forget(self, before: str) -> None:
            self.behind.forget(before)

    store = Away()
    quotas = Quotas(store, 2.0)

    async def story() -> None:
        await quotas.check("a", 5)
        quotas.add("a", 5)
        await quotas.flush()
        with pytest.raises(ResourceExhausted):
            await quotas.check("a", 5)
        store.away = False
        await quotas.flush()
        assert await quotas.used("a") == 5
        assert await Quotas(store, 2.0).used("a") == 5

    loop.run(story())


@pytest.mark.parametrize(
    ("shape", "images"), [([4, 32, 32, 3], 4), ([1, 3, 8, 8, 8], 1), ([32, 32, 3], 1), ([], 1), ([0, 1, 1, 1], 1), ([10**9] * 4, 10_000)]
)
def test_images_of_a_request_to_triton(shape: list[int], images: int) -> None:
    request = service_pb2.ModelInferRequest(model_name="m")
    request.inputs.add(name="image", datatype="UINT8", shape=shape)
    request.inputs.add(name="more", datatype="UINT8", shape=[9, 9, 9, 9])
    request.raw_input_contents.append(b"\x2a" * 1000)
    assert batch_size(request.SerializeToString()) == images
    assert batch_size(b"\xff\xff\xff") == 1


# Through a gateway.


class World:
    """A gateway with one caller, and a service behind it."""

    def __init__(self, stack: ExitStack, loop: Loop, home: Path, limits: dict[str, int], roles: list[str], gateways: int = 1) -> None:
        self.backend = Backend()
        loop.run(self.backend.start())
        stack.callback(lambda: loop.run(self.backend.stop()))
        self.token, _ = TokenFile(home / "tokens.json").create("a", roles)
        self.settings = settings_for(
            home,
            augment_address=f"127.0.0.1:{self.backend.port}",
            limits_of={"token:a": limits},
            quota_seconds=0.1,
            predict_seconds=60.0,
        )
        self.channels = []
        for number in range(gateways):
            running = stack.enter_context(running_gateway(loop, self.settings.model_copy(), log_dir=home / f"logs{number}"))
            self.channels.append(stack.enter_context(grpc.insecure_channel(running.address)))
        self.channel = self.channels[0]
        self.metadata = bearing(self.token)

    def failure(self, call: Callable[[], Any]) -> tuple[str, str, dict[str, str], float | None]:
        with pytest.raises(grpc.RpcError) as caught:
            call()
        reason, metadata, delay = details_of(caught.value)
        return caught.value.code().name, reason, metadata, delay

    def predict(self, gateway: int = 0) -> str:
        """Ask for a prediction; nothing is deployed, which is found out behind the door."""
        request = inference_pb2.PredictRequest(deployment="deployments/none", image=image_pb2.ImageSource(content=b"x"))
        stub = inference_pb2_grpc.InferenceServiceStub(self.channels[gateway])
        return self.failure(lambda: stub.Predict(request, metadata=self.metadata, timeout=60))[1]


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as found:
        yield found


def test_a_caller_who_asks_too_often_is_told_when_to_come_again(stack: ExitStack, loop: Loop, tmp_path: Path) -> None:
    world = World(stack, loop, tmp_path / "home", {"requests_per_minute": 3}, ["viewer"])
    for _ in range(3):
        who(world.channel, world.token)
    code, reason, metadata, delay = world.failure(lambda: who(world.channel, world.token))
    assert (code, reason, metadata) == ("RESOURCE_EXHAUSTED", "RATE_LIMITED", {"limit": "3"})
    assert delay is not None
    assert 10 < delay <= 20
    # Oteo's own parts go on.
    from gateway_support import TOKEN

    for _ in range(5):
        who(world.channel, TOKEN)


def test_calls_at_a_time_are_counted_until_they_end(stack: ExitStack, loop: Loop, tmp_path: Path) -> None:
    world = World(stack, loop, tmp_path / "home", {"concurrent_calls": 2}, ["viewer"])
    let_go = threading.Event()

    async def get(request: Any, context: Any) -> dataset_pb2.Dataset:
        await asyncio.to_thread(let_go.wait, patient(30))
        return dataset_pb2.Dataset()

    world.backend.methods["/oteo.augment.v1.DatasetService/GetDataset"] = grpc.unary_unary_rpc_method_handler(
        get, dataset_pb2.GetDatasetRequest.FromString, dataset_pb2.Dataset.SerializeToString
    )
    stub = dataset_pb2_grpc.DatasetServiceStub(world.channel)
    request = dataset_pb2.GetDatasetRequest(name="datasets/a")
    calls = [stub.GetDataset.future(request, metadata=world.metadata, timeout=120) for _ in range(2)]

    def refused() -> bool:
        try:
            who(world.channel, world.token)
        except grpc.RpcError as error:
            return details_of(error)[0] == "TOO_MANY_CALLS"
        return False

    wait_for(refused)
    # One ends by being given up, one with an answer: both give their places back.
    calls[0].cancel()
    wait_for(lambda: not refused())
    let_go.set()
    calls[1].result()
    wait_for(lambda: {a.name: a.used for a in who(world.channel, world.token).allowances}["concurrent_calls"] == 1)


def test_the_days_images_are_shared_by_gateways_and_survive_them(stack: ExitStack, loop: Loop, tmp_path: Path) -> None:
    home = tmp_path / "home"
    with ExitStack() as first:
        world = World(first, loop, home, {"images_per_day": 4}, ["clinician"], gateways=2)
        for number in range(3):
            assert world.predict(number % 2) == "DEPLOYMENT_NOT_FOUND"

        def used() -> int:
            return {a.name: a.used for a in who(world.channels[1], world.token).allowances}["images_per_day"]

        wait_for(lambda: used() == 3)
        # The last of the four comes by a stream, whose fifth ends it.
        request = inference_pb2.PredictRequest(deployment="deployments/none", image=image_pb2.ImageSource(content=b"x"))
        stub = inference_pb2_grpc.InferenceServiceStub(world.channels[1])
        answers = []

        def all_of_them() -> None:
            items = (inference_pb2.PredictStreamRequest(key=str(number), request=request) for number in range(5))
            answers.extend(stub.PredictStream(items, metadata=world.metadata, timeout=120))

        code, reason, metadata, delay = world.failure(all_of_them)
        assert (code, reason, metadata) == ("RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED", {"quota": "images_per_day", "limit": "4"})
        assert delay is not None
        assert 0 < delay <= 86_400
        wait_for(lambda: world.predict(0) == "QUOTA_EXCEEDED")
    (home / "tokens.json").unlink()
    again = World(stack, loop, home, {"images_per_day": 4}, ["clinician"])
    assert again.predict() == "QUOTA_EXCEEDED"


def test_a_stream_of_images_is_slowed_to_the_rate_and_settings_are_no_image(stack: ExitStack, loop: Loop, tmp_path: Path) -> None:
    world = World(stack, loop, tmp_path / "home", {"requests_per_minute": 600, "images_per_day": 3}, ["trainer"])

    async def augment(requests: Any, context: Any) -> Any:
        async for request in requests:
            if request.HasField("item"):
                yield augment_pb2.AugmentImagesResponse()

    world.backend.methods["/oteo.augment.v1.AugmentService/AugmentImages"] = grpc.stream_stream_rpc_method_handler(
        augment, augment_pb2.AugmentImagesRequest.FromString, augment_pb2.AugmentImagesResponse.SerializeToString
    )
    stub = augment_pb2_grpc.AugmentServiceStub(world.channel)
    items = [augment_pb2.AugmentImagesRequest(item=augment_pb2.AugmentImagesRequest.Item(key=str(number))) for number in range(3)]
    settings = augment_pb2.AugmentImagesRequest(settings=augment_pb2.AugmentImagesRequest.Settings())
    assert len(list(stub.AugmentImages(iter([settings, *items]), metadata=world.metadata, timeout=120))) == 3
    assert (
        world.failure(lambda: list(stub.AugmentImages(iter([settings, *items]), metadata=world.metadata, timeout=120)))[1]
        == "QUOTA_EXCEEDED"
    )


def test_operations_that_have_not_ended_are_counted_over_all_services(stack: ExitStack, loop: Loop, tmp_path: Path) -> None:
    world = World(stack, loop, tmp_path / "home", {"running_operations": 2}, ["trainer"])

    async def begin(request: Any, context: Any) -> operations_pb2.Operation:
        return operations_pb2.Operation(name="operations/augment-x")

    world.backend.methods["/oteo.augment.v1.DatasetService/ImportDataset"] = grpc.unary_unary_rpc_method_handler(
        begin, dataset_pb2.ImportDatasetRequest.FromString, operations_pb2.Operation.SerializeToString
    )
    stub = dataset_pb2_grpc.DatasetServiceStub(world.channel)
    request = dataset_pb2.ImportDatasetRequest(source_uri="/images")
    operations = OperationStore(world.settings.database_url)
    stack.callback(operations.close)
    for number, (service, caller) in enumerate([("automl", "token:a"), ("automl", "token:b"), ("translate", "token:a")]):
        assert stub.ImportDataset(request, metadata=world.metadata, timeout=60).name == "operations/augment-x"
        operations.insert(
            NewOperation(
                id=f"{service}-{number}",
                service=service,
                method="M",
                caller=caller,
                request_id=str(number),
                request_digest="",
                request=b"",
                resource="",
                external=True,
                metadata=any_pb2.Any().SerializeToString(),
            )
        )
    code, reason, metadata, _ = world.failure(lambda: stub.ImportDataset(request, metadata=world.metadata, timeout=60))
    assert (code, reason, metadata) == ("RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED", {"quota": "running_operations", "limit": "2"})
    assert {a.name: a.used for a in who(world.channel, world.token).allowances}["running_operations"] == 2
    from oteo_core.operations import State

    operations.change("automl-0", state=State.SUCCEEDED)
    assert stub.ImportDataset(request, metadata=world.metadata, timeout=60).name == "operations/augment-x"
