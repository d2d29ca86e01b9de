"""Callers who are slow, stop halfway, stay without asking, or ask for far too much: memory is bounded and others are served."""

from __future__ import annotations

import asyncio
import itertools
import re
import resource
import socket
import struct
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

import grpc
import numpy as np
import onnx
import pytest
from flood_callers import Flood, Flooded
from gateway_processes import TOKEN, Gateways
from gateway_support import CLASSES, deploy_model, picture, publish_model
from google.rpc import status_pb2
from onnx import TensorProto, helper
from steady_load import SteadyLoad
from waiting import patient, wait_for

from oteo_core.artifacts import ArtifactStore
from oteo_core.errors import from_status
from oteo_core.images import encode_png
from oteo_local.triton import start
from oteo_protos.gateway.v1 import inference_pb2, inference_pb2_grpc
from oteo_protos.type.v1 import image_pb2

METADATA = (("authorization", f"Bearer {TOKEN}"),)
PICTURES = {colour: picture(colour) for colour in CLASSES}
MIB = 1 << 20
PREDICT = "/oteo.gateway.v1.InferenceService/Predict"
TIMED_SECONDS = 0.02
TIMED = f"""
import time
import numpy as np
import triton_python_backend_utils as backend


class TritonPythonModel:
    def execute(self, requests):
        answers = []
        for request in requests:
            mean = backend.get_input_tensor_by_name(request, "image").as_numpy().astype(np.float32).mean(axis=(1, 2))
            time.sleep({TIMED_SECONDS} * len(mean))
            logits = mean * np.float32(8 / 255)
            odds = np.exp(logits - logits.max(axis=1, keepdims=True))
            odds /= odds.sum(axis=1, keepdims=True)
            answers.append(backend.InferenceResponse([backend.Tensor("probabilities", odds), backend.Tensor("logits", logits)]))
        return answers
"""


def slow_model(trips: int = 1500, width: int = 512) -> bytes:
    """ONNX that answers as the colour model does after so much work in vain, which no runtime can leave out."""
    floats = TensorProto.FLOAT
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["y"]),
            helper.make_node("Sigmoid", ["y"], ["z"]),
            helper.make_node("Identity", ["go"], ["on"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("x", floats, None),
        ],
        [helper.make_tensor_value_info("on", TensorProto.BOOL, []), helper.make_tensor_value_info("z", floats, None)],
    )
    weights = np.random.default_rng(0).normal(0, 0.05, (width, width)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["image"], ["real"], to=floats),
            helper.make_node("ReduceMean", ["real"], ["mean"], axes=[1, 2], keepdims=0),
            helper.make_node("MatMul", ["mean", "up"], ["wide"]),
            helper.make_node("Loop", ["trips", "", "wide"], ["worked"], body=body),
            helper.make_node("MatMul", ["worked", "down"], ["little"]),
            helper.make_node("Mul", ["mean", "scale"], ["much"]),
            helper.make_node("Add", ["much", "little"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
        ],
        "slow",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", "H", "W", 3])],
        [helper.make_tensor_value_info(name, floats, ["N", 3]) for name in ("probabilities", "logits")],
        [
            helper.make_tensor("trips", TensorProto.INT64, [], [trips]),
            helper.make_tensor("scale", floats, [], [8 / 255]),
            onnx.numpy_helper.from_array(weights, "w"),
            onnx.numpy_helper.from_array(np.ones((3, width), np.float32) / width, "up"),
            onnx.numpy_helper.from_array(np.full((width, 3), 1e-6, np.float32), "down"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def question(number: int, deployment: str = "colours") -> inference_pb2.PredictRequest:
    """Give the so-many-th request."""
    image = image_pb2.ImageSource(content=PICTURES[CLASSES[number % 3]])
    return inference_pb2.PredictRequest(deployment=f"deployments/{deployment}", image=image)


async def ask_slow(channel: grpc.aio.Channel, number: int, name: str) -> bool:
    """Ask for what takes the processor, under a name."""
    stub = inference_pb2_grpc.InferenceServiceStub(channel)
    answer = await stub.Predict(question(number, "slow"), metadata=(*METADATA, ("x-oteo-caller", name)), timeout=patient(10))
    return answer.classification.decision == CLASSES[number % 3]


async def predict(channel: grpc.aio.Channel, number: int) -> bool:
    """Ask as a well-behaved caller does."""
    answer = await inference_pb2_grpc.InferenceServiceStub(channel).Predict(question(number), metadata=METADATA, timeout=patient(10))
    return answer.classification.decision == CLASSES[number % 3]


@pytest.fixture(scope="module")
def gateways(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateways]:
    """Two gateway processes with a quick model, a slow one, whose images Triton takes one by one, and one that takes time alone."""
    home = tmp_path_factory.mktemp("hostile")
    store = ArtifactStore(f"file://{home}/artifacts")
    publish_model(store, "colours")
    publish_model(store, "slow", graph=slow_model())
    publish_timed(store, "timed")
    with ExitStack() as stack:
        triton = stack.enter_context(start(home / "model-repository", timeout=patient(30)))
        running = Gateways(
            home, OTEO_TRITON_URLS=triton.address, OTEO_RECONCILE_SECONDS="0.3", OTEO_PREDICT_CONCURRENCY="8", OTEO_PREDICT_QUEUE="32"
        )
        stack.callback(running.kill)
        wait_for(lambda: len(running.listeners()) == 2, 60)
        with grpc.insecure_channel(running.address) as channel:
            for name in ("colours", "slow", "timed"):
                deploy_model(channel, name, METADATA)
        yield running


@contextmanager
def others_are_served(gateways: Gateways, growth: int, *, share: float = 1.0) -> Iterator[None]:
    """Assert that a caller who behaves is answered throughout, and that the processes' memory grows by no more.

    `share` below 1 lets the rest of the calls be told to come again: a queue that is full for a moment is no fault.
    """
    with SteadyLoad(gateways.address, predict, callers=2) as load:
        load.wait_good(40)
        before = gateways.memory()
        yield
        grown = gateways.memory() - before
        load.wait_good(40)
    load.check()
    print(f"grown by {grown / MIB:.0f} MiB of {growth / MIB:.0f}; others: {dict(load.codes())}")
    codes = load.codes()
    assert set(codes) <= ({"OK"} if share == 1.0 else {"OK", "RESOURCE_EXHAUSTED"})
    assert codes["OK"] >= share * sum(codes.values())
    assert grown < growth


def in_flight(gateways: Gateways, method: str) -> float:
    """Give the calls of a method that are being answered, by all processes."""
    found = [value for name, value in gateways.metrics().items() if re.match(rf'oteo_rpc_in_flight\{{method="[^"]*/{method}"\}}', name)]
    return sum(found)


# HTTP/2 by hand (RFC 9113, header fields as literals of RFC 7541 section 6.2.2): no library sends half a message.


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """Give one frame."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def header(name: str, value: str) -> bytes:
    """Give one header field."""
    return b"\x00" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()


def connect(port: int) -> socket.socket:
    """Open a connection as far as HTTP/2's settings."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=patient(20))
    connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b""))
    return connection


def begin_call(connection: socket.socket, token: str, sent: bytes, announced: int) -> None:
    """Begin a Predict whose message is announced with one length and sent with another."""
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": PREDICT,
        ":authority": "gateway",
        "content-type": "application/grpc",
        "te": "trailers",
        "authorization": f"Bearer {token}",
    }
    connection.sendall(frame(1, 4, 1, b"".join(header(name, value) for name, value in fields.items())))
    message = b"\x00" + struct.pack(">I", announced) + sent
    for at in range(0, len(message), 16_000):
        connection.sendall(frame(0, 0, 1, message[at : at + 16_000]))


def answered(connection: socket.socket) -> bytes:
    """Read until the server ends stream 1 or the connection, and give what it sent."""
    data, at = b"", 0
    while part := connection.recv(65_536):
        data += part
        while len(data) - at >= 9 + int.from_bytes(data[at : at + 3], "big"):
            size, kind, flags, stream = int.from_bytes(data[at : at + 3], "big"), data[at + 3], data[at + 4], data[at + 5 : at + 9]
            at += 9 + size
            if int.from_bytes(stream, "big") == 1 and (kind == 3 or flags & 1):
                return data
    return data


def test_half_messages(gateways: Gateways) -> None:
    half = bytes(60_000)
    with ExitStack() as stack, others_are_served(gateways, 80 * MIB):
        for _ in range(150):
            # A server whose window is full reads no more of this one; it must not stop reading others.
            begin_call(stack.enter_context(connect(gateways.port)), TOKEN, half, 8 * MIB)
        time.sleep(1)
        stranger = stack.enter_context(connect(gateways.port))
        begin_call(stranger, "wrong", half[:100], 8 * MIB)
        assert answered(stranger), "one without a token is refused before its message is there"
    wait_for(lambda: in_flight(gateways, "Predict") == 0)


def test_ten_thousand_idle_connections(gateways: Gateways) -> None:
    count = 10_000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < count + 1000:
        pytest.skip(f"{count} connections take more open files than the {hard} that are allowed here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        with ExitStack() as stack, others_are_served(gateways, count * 64 * 1024):
            for _ in range(count):
                stack.enter_context(connect(gateways.port))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert gateways.serving()


def test_a_thousand_streams_are_opened_and_dropped(gateways: Gateways) -> None:
    async def scenario() -> None:
        channels = [grpc.aio.insecure_channel(gateways.address, [("grpc.use_local_subchannel_pool", 1)]) for _ in range(4)]

        async def one(number: int) -> None:
            call = inference_pb2_grpc.InferenceServiceStub(channels[number % 4]).PredictStream(metadata=METADATA)
            for _ in range(3):
                await call.write(inference_pb2.PredictStreamRequest(key=str(number), request=question(number, "slow")))
            call.cancel()

        for begin in range(0, 1000, 250):
            await asyncio.gather(*(one(number) for number in range(begin, begin + 250)))
        await asyncio.gather(*(channel.close() for channel in channels))

    with others_are_served(gateways, 100 * MIB, share=0.9):
        asyncio.run(scenario())
        wait_for(lambda: in_flight(gateways, "PredictStream") == 0, 60)


def test_a_caller_that_reads_no_answers_is_not_read_either(gateways: Gateways) -> None:
    noise = encode_png(np.random.default_rng(0).integers(0, 255, (600, 600, 3), dtype=np.uint8))
    request = inference_pb2.PredictStreamRequest(request=question(0))
    request.request.image.content = noise
    request.key = "k" * 100

    # A window of a few answers, which grows by nothing but reading.
    options = [("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 4096), ("grpc.use_local_subchannel_pool", 1)]

    async def scenario() -> int:
        async with grpc.aio.insecure_channel(gateways.address, options) as channel:
            call = inference_pb2_grpc.InferenceServiceStub(channel).PredictStream(metadata=METADATA)
            sent = 0

            async def send() -> None:
                nonlocal sent
                for _ in itertools.count():
                    await call.write(request)
                    sent += 1

            sender = asyncio.create_task(send())
            last = -1
            while sent != last:
                last = sent
                await asyncio.sleep(3)
            sender.cancel()
            call.cancel()
            return sent

    with others_are_served(gateways, 150 * MIB):
        sent = asyncio.run(scenario())
    print(f"{sent} images of {len(noise) / MIB:.1f} MiB were taken")


def publish_timed(store: ArtifactStore, name: str) -> None:
    """Publish what answers as the colour model does after `TIMED_SECONDS` of waiting: as a model on a graphics processor, it takes time and no processor."""
    publish_model(store, name)
    folder = f"models/{name}/triton/{name}"
    store.delete(f"{folder}/1/model.onnx")
    store.write_bytes(f"{folder}/1/model.py", TIMED.encode())
    config = store.read_bytes(f"{folder}/config.pbtxt").decode()
    store.write_bytes(f"{folder}/config.pbtxt", config.replace('backend: "onnxruntime"', 'backend: "python"').encode())


async def ask_timed(channel: grpc.aio.Channel, number: int) -> bool:
    """Ask as a ward does, whose name is not the flood's."""
    stub = inference_pb2_grpc.InferenceServiceStub(channel)
    answer = await stub.Predict(question(number, "timed"), metadata=(*METADATA, ("x-oteo-caller", "ward")), timeout=patient(10))
    return answer.classification.decision == CLASSES[number % 3]


def reason_of(flooded: Flooded) -> tuple[str, bool]:
    """Give the reason of a status, and whether it says when to come again."""
    status = from_status(status_pb2.Status.FromString(flooded.data))
    return status.reason, bool(status.retry_after)


def test_a_flood_of_ten_times_what_can_be_answered(gateways: Gateways) -> None:
    """Goodput is that of a model that takes time and no processor: one on these cores would have to share them with the flood and its callers.

    The flood comes from a process of its own. Ninety percent is the bar; a twentieth is left to what else the machine does.
    """
    with SteadyLoad(gateways.address, ask_timed, callers=16, pause=0) as load:
        load.wait_good(100)
        begin = time.monotonic()
        time.sleep(4)
        able = len([outcome for outcome in load.since(begin) if outcome.code == "OK"]) / (time.monotonic() - begin)
    before = gateways.memory()
    requests = [question(number, "timed").SerializeToString() for number in range(3)]
    # The ward's calls are a part of what can be answered, and as many as its two callers like.
    with SteadyLoad(gateways.address, ask_timed, callers=2, pause=0.05) as ward:
        ward.wait_good(10)
        metadata = (*METADATA, ("x-oteo-caller", "flood"))
        flood = Flood(gateways.address, PREDICT, requests, metadata, rate=10 * able, seconds=8, patience=5)
        # By then the queue is full, and to the end it is.
        begin = flood.begun() + 2
        time.sleep(max(0.0, begin + 6 - time.monotonic()))
        end, grown = time.monotonic(), gateways.memory() - before
        flooded = flood.ended()
    ward.check()
    during = [outcome for outcome in ward.outcomes if begin <= outcome.end < end]
    good = sum(one.code == "OK" and begin <= one.end < end for one in flooded)
    share = (good + len(during)) / (end - begin) / able
    codes = Counter(one.code for one in flooded)
    print(
        f"able {able:.0f}/s; flooded with {len(flooded) / 8:.0f}/s: {dict(codes)}; "
        f"goodput {100 * share:.0f} %, {len(during)} of it the ward's; grown by {grown / MIB:.0f} MiB"
    )
    rights = [inference_pb2.PredictResponse.FromString(one.data).classification.decision in CLASSES for one in flooded if one.code == "OK"]
    assert all(rights)
    refused = [reason_of(one) for one in flooded if one.code == "RESOURCE_EXHAUSTED"]
    assert {reason for reason, _ in refused} <= {"TOO_MANY_REQUESTS", "NOT_IN_TIME"}
    assert all(retry for _, retry in refused), "who is refused is told when to come again"
    assert len(refused) > len(flooded) / 2
    assert set(codes) <= {"OK", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"}
    assert ward.codes().keys() == {"OK"}, "who asks little is served whatever others ask"
    assert during
    assert share > 0.85
    assert grown < 100 * MIB
    refusals = sum(value for name, value in gateways.metrics().items() if name.startswith("oteo_predict_refused_total"))
    assert refusals >= len(refused), "every refusal is counted"
    log = (gateways.home / "gateway.log").read_text()
    assert log.count('"TOO_MANY_REQUESTS"') + log.count('"NOT_IN_TIME"') < len(refused) / 2, "and few have lines of their own"
    assert '"calls refused"' in log


def test_a_flood_takes_turns_with_others_on_the_processor(gateways: Gateways) -> None:
    """The same with a model that works on the cores that gateway, flood and test share, and that the flood's own process takes a part of.

    The bar of 90 percent is missed here (docs/benchmarks.md). What is asserted is what refusing calls unread brought: before, three tenths were left.
    """
    with SteadyLoad(gateways.address, partial(ask_slow, name="probe"), callers=16, pause=0) as load:
        load.wait_good(40)
        begin = time.monotonic()
        time.sleep(3)
        able = len([outcome for outcome in load.since(begin) if outcome.code == "OK"]) / (time.monotonic() - begin)
    requests = [question(number, "slow").SerializeToString() for number in range(3)]
    with SteadyLoad(gateways.address, partial(ask_slow, name="ward"), callers=2, pause=0.05) as ward:
        ward.wait_good(4)
        metadata = (*METADATA, ("x-oteo-caller", "flood"))
        flood = Flood(gateways.address, PREDICT, requests, metadata, rate=10 * able, seconds=5, patience=5)
        begin = flood.begun() + 1
        flooded = flood.ended()
        ward.wait_good(4)
    ward.check()
    during = sum(outcome.code == "OK" and begin <= outcome.end < begin + 4 for outcome in ward.outcomes) / 4
    good = sum(one.code == "OK" and begin <= one.end < begin + 4 for one in flooded) / 4 + during
    codes = dict(Counter(one.code for one in flooded))
    print(f"able {able:.0f}/s; flooded with {10 * able:.0f}/s: {codes}; goodput {good:.0f}/s, {during:.0f} of it the ward's")
    assert good > 0.35 * able, f"{good:.0f} of {able:.0f} a second"
    assert ward.codes().keys() == {"OK"}, "who asks little is served whatever others ask"
