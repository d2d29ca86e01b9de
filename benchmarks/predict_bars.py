"""What `predict.py` measures against a bar: the gateway against decoding and Triton without it, onnxruntime, LitServe and BentoML, open loop, streams, every task.

Each way has the same image, the same decoding and the same model on the same cores, and answers a caller over loopback. What differs is said in
`peer_model.py`: the peers' onnxruntime spins while it waits, unless ``--peers-still`` takes that from them. With "tiny", a model that costs nothing, the way
there and back is compared; with resnet18 it is mostly onnxruntime with itself.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import math
import os
import random
import signal
import statistics
import subprocess
import sys
import sysconfig
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import onnxruntime
from measuring import ratio, spread
from peer_model import prepared

from oteo_core.packages import ModelPackage
from oteo_gateway.prediction.outputs import OUTPUTS
from oteo_gateway.prediction.tensors import InferTemplate, read_outputs
from oteo_local import ports
from oteo_protos.gateway.v1 import inference_pb2, inference_pb2_grpc
from oteo_protos.type.v1 import image_pb2

Call = Callable[[], Awaitable[Any]]
INFER = "/inference.GRPCInferenceService/ModelInfer"
CHANNELS = 8
# A connection stays with one gateway process: several, as several callers have.
APART = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", 1 << 26)]


@dataclass(frozen=True)
class Load:
    """What one run gave: answers a second, and latencies in milliseconds."""

    rate: float
    p50: float
    p99: float


def summed(latencies: Sequence[float], seconds: float) -> Load:
    """Sum up a run."""
    ordered = sorted(latencies)
    return Load(len(ordered) / seconds, 1e3 * statistics.median(ordered), 1e3 * ordered[int(0.99 * (len(ordered) - 1))])


async def closed_loop(call: Call, callers: int, seconds: float) -> Load:
    """Have so many callers call one after another."""
    latencies: list[float] = []
    begin = time.perf_counter()

    async def caller() -> None:
        while (start := time.perf_counter()) < begin + seconds:
            await call()
            latencies.append(time.perf_counter() - start)

    await asyncio.gather(*(caller() for _ in range(callers)))
    return summed(latencies, time.perf_counter() - begin)


async def open_loop(call: Call, rate: float, seconds: float, seed: int = 0) -> Load:
    """Call at random moments (Poisson) whatever the answers; latencies count from the moment that was meant."""
    draw = random.Random(seed)
    latencies: list[float] = []
    begin = time.perf_counter()

    async def one(meant: float) -> None:
        await call()
        latencies.append(time.perf_counter() - meant)

    tasks, at = [], begin
    while (at := at + draw.expovariate(rate)) < begin + seconds:
        await asyncio.sleep(max(0.0, at - time.perf_counter()))
        tasks.append(asyncio.create_task(one(at)))
    await asyncio.gather(*tasks)
    return summed(latencies, time.perf_counter() - begin)


_HERE = Path(__file__).resolve().parent
PEERS = {
    "LitServe": (str(_HERE / "litserve_peer.py"),),
    "BentoML": ("-m", "bentoml", "serve", "bentoml_peer:Served", "--working-dir", str(_HERE), "--host", "127.0.0.1", "--port"),
}
"""What a peer's interpreter is given, the port behind it."""


@contextmanager
def running_peer(name: str, python: Path, graph: Path, package: ModelPackage, cores: int, *, spin: bool) -> Iterator[str]:
    """Run a peer of `PEERS` with one model; gives its address."""
    port = ports.free_port()
    policy, written = graph.with_suffix(".json"), graph.with_suffix(f".{name}.log")
    policy.write_text(json.dumps(asdict(package.input)))
    environment = {
        **os.environ,
        "PEER_GRAPH": str(graph),
        "PEER_POLICY": str(policy),
        "PEER_SITE": sysconfig.get_paths()["purelib"],
        "PEER_CORES": str(cores),
        "PEER_SPIN": str(int(spin)),
        # BentoML's own folder, and that it is not to tell its makers of its use.
        "BENTOML_HOME": str(graph.parent / "bentoml"),
        "BENTOML_DO_NOT_TRACK": "True",
    }
    with open(written, "wb") as log:
        command = [str(python), *PEERS[name], str(port)]
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        until = time.monotonic() + 180
        while not _listens(port):
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"{name} did not start: {written.read_text()[-2000:]}")
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/predict"
    finally:
        # It has workers of its own in its process group.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _listens(port: int) -> bool:
    import socket

    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Ways:
    """The ways to an answer that are compared, each with the same image.

    Parameters
    ----------
    gateway, triton
        Addresses.
    token
        The gateway's.
    content
        The encoded image; another may be put in its place between two measurements.
    packages
        By name.
    cores
        Threads that decode in this process, and of onnxruntime in it.
    graphs
        ONNX, by the package's name, of models that onnxruntime runs in this process too.
    """

    def __init__(
        self,
        gateway: str,
        triton: str,
        token: str,
        content: bytes,
        packages: Mapping[str, ModelPackage],
        cores: int,
        graphs: Mapping[str, bytes] | None = None,
    ) -> None:
        self._metadata = (("authorization", f"Bearer {token}"),)
        self._channels = [grpc.aio.insecure_channel(gateway, APART) for _ in range(CHANNELS)]
        self._stubs = itertools.cycle([inference_pb2_grpc.InferenceServiceStub(channel) for channel in self._channels])
        self._triton = [grpc.aio.insecure_channel(triton, APART) for _ in range(CHANNELS)]
        self._infers = itertools.cycle([channel.unary_unary(INFER) for channel in self._triton])
        self._http = aiohttp.ClientSession()
        self.content = content
        self._packages = packages
        self._templates = {name: InferTemplate(name, "", package.input, OUTPUTS[package.task]) for name, package in packages.items()}
        self._threads = ThreadPoolExecutor(cores)
        settings = onnxruntime.SessionOptions()
        # As Triton's instance here: one session, its threads on all cores; they do not spin, so that those who are measured beside it are not slowed.
        settings.intra_op_num_threads = cores
        settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._sessions = {
            name: onnxruntime.InferenceSession(graph, settings, providers=["CPUExecutionProvider"])
            for name, graph in (graphs or {}).items()
        }

    async def close(self) -> None:
        """Close everything."""
        for channel in (*self._channels, *self._triton):
            await channel.close()
        await self._http.close()
        self._threads.shutdown()

    def request(self, name: str) -> inference_pb2.PredictRequest:
        """Give the gateway's request."""
        return inference_pb2.PredictRequest(deployment=f"deployments/{name}", image=image_pb2.ImageSource(content=self.content))

    async def predict(self, name: str) -> None:
        """Through the gateway."""
        await next(self._stubs).Predict(self.request(name), metadata=self._metadata)

    async def decode_and_direct(self, name: str) -> None:
        """Decode in threads of this process and ask Triton: what a caller would write who has no gateway."""
        await self.direct(await asyncio.get_running_loop().run_in_executor(self._threads, self.tensor, name))

    async def direct(self, request: bytes) -> None:
        """Ask Triton what `tensor` gave."""
        read_outputs(await next(self._infers)(request))

    def tensor(self, name: str) -> bytes:
        """Give Triton's request: the image decoded and brought to a model's input."""
        return self._templates[name].build(prepared(self.content, self._packages[name].input))

    async def in_process(self, name: str) -> None:
        """Decode in threads of this process and run onnxruntime there."""
        await asyncio.get_running_loop().run_in_executor(self._threads, self._run, name)

    def _run(self, name: str) -> None:
        self._sessions[name].run(["probabilities"], {"image": prepared(self.content, self._packages[name].input)[None]})

    async def peer(self, name: str, address: str) -> None:
        """Through a peer."""
        # Encoded for every call, as the gateway's request is.
        image = base64.b64encode(self.content).decode()
        async with self._http.post(address, json={"image": image} if name == "LitServe" else {"images": [image]}) as answer:
            answer.raise_for_status()
            await answer.json()

    async def ready(self, name: str, address: str, seconds: float = 120.0) -> None:
        """Wait until a peer answers: BentoML listens before its worker has the model."""
        until = time.monotonic() + seconds
        while True:
            try:
                await self.peer(name, address)
            except aiohttp.ClientError:
                if time.monotonic() > until:
                    raise
                await asyncio.sleep(0.5)
            else:
                return

    async def stream(self, name: str, count: int) -> float:
        """Send so many images through one PredictStream; gives answers a second."""

        async def requests() -> AsyncIterator[inference_pb2.PredictStreamRequest]:
            for number in range(count):
                yield inference_pb2.PredictStreamRequest(key=str(number), request=self.request(name))

        begin = time.perf_counter()
        answered = 0
        async for answer in next(self._stubs).PredictStream(requests(), metadata=self._metadata):
            if answer.HasField("error"):
                raise RuntimeError(answer.error.message)
            answered += 1
        assert answered == count
        return count / (time.perf_counter() - begin)


async def bars(
    ways: Ways,
    model: str,
    concurrency: Sequence[int],
    seconds: float,
    repeats: int,
    peers: Mapping[str, str],
    rounded: str = "",
    image: str = "PNG",
) -> None:
    """Print the gateway beside decoding and Triton without it, onnxruntime here, peers (addresses by name) and a deployment in bfloat16, taken in turn."""
    calls: dict[str, Call] = {
        "Predict": lambda: ways.predict(model),
        **({"Predict, bfloat16": lambda: ways.predict(rounded)} if rounded else {}),
        "decode + Triton direct": lambda: ways.decode_and_direct(model),
        "decode + onnxruntime in-process": lambda: ways.in_process(model),
        **{name: partial(ways.peer, name, address) for name, address in peers.items()},
    }
    for name, address in peers.items():
        await ways.ready(name, address)
    for call in calls.values():
        await closed_loop(call, 4, min(2.0, seconds))
    own = [name for name in calls if name.startswith("Predict")]
    heads = [f"{name}'s {figure} to it" for name in own for figure in ("rate", "p99")]
    print(f"\n| {model}, {image}, callers | way | answers/s | p50 ms | p99 ms | {' | '.join(heads)} |\n|{'---|' * (5 + len(heads))}")
    for callers in concurrency:
        found: dict[str, list[Load]] = {name: [] for name in calls}
        for _ in range(repeats):
            for name, call in calls.items():
                found[name].append(await closed_loop(call, callers, seconds))
        for name, loads in found.items():
            figures = [spread([getattr(load, field) for load in loads]) for field in ("rate", "p50", "p99")]
            for mine in own:
                for field in ("rate", "p99"):
                    figures.append(f"{ratio([getattr(load, field) for load in found[mine]], [getattr(load, field) for load in loads]):.2f}")
            print(f"| {callers} | {name} | {' | '.join(figures)} |", flush=True)


def queueing_p99(load: float) -> float:
    """Give the 99 % quantile of the wait before one server, in its service times, where calls come at random and all take alike (M/D/1), 0 < load < 1.

    Source: the exponential tail of the wait, ``C exp(-t x)`` with ``load (exp(t) - 1) = t`` (Asmussen, "Applied Probability and Queues", chapter XIII).
    """
    low, high = 1e-6, 50.0
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if load * math.expm1(middle) < middle else (low, middle)
    return math.log((1 - load) / (load * math.exp(low) - 1) / 0.01) / low


async def at_70_percent(ways: Ways, model: str, seconds: float, repeats: int) -> None:
    """Print latencies at 70 % of what the gateway can answer, callers coming at random.

    The last column is what no server can be under that answers one after the other as fast as eight callers had it: its queue's own p99 and the time of one
    call. Only answers that overlap better than with eight callers, or a lone caller who is answered slower, bring p99 below it.
    """

    async def call() -> None:
        await ways.predict(model)

    alone = (await closed_loop(call, 1, seconds)).p50
    print(
        "\n| 70 % load, open loop | rate/s | p50 ms | p99 ms | service time ms | p99 in service times | of a queue before one server |"
        "\n|---|---|---|---|---|---|---|"
    )
    for number in range(repeats):
        able = (await closed_loop(call, 8, seconds)).rate
        load = await open_loop(call, 0.7 * able, 5 * seconds, number)
        least = 1 + queueing_p99(0.7) * 1e3 / able / alone
        print(
            f"| {model} | {0.7 * able:.1f} | {load.p50:.1f} | {load.p99:.1f} | {alone:.1f} | {load.p99 / alone:.1f} | {least:.1f} |",
            flush=True,
        )


async def tasks_and_streams(ways: Ways, tasks: dict[str, str], seconds: float, repeats: int) -> None:
    """Print the gateway's rate for every task with a network that costs nothing, called one by one and as a stream, beside decoding and Triton without it.

    What is done without the gateway ends where the graph's outputs are arrays: regions, masks and label images, which `Predict` answers with, are not made. A stream
    has eight images under way (``OTEO_PREDICT_STREAM_WINDOW``), so that the same eight callers are its measure too.
    """
    heads = ("Predict, 8 callers, answers/s", "p50 ms", "decode + Triton direct, 8 callers", "p50 ms", "Predict's rate to it")
    print(f"\n| task | {' | '.join(heads)} | one PredictStream, images/s | its rate to it |\n|{'---|' * 8}")
    for task, model in tasks.items():
        calls: dict[str, Call] = {"Predict": partial(ways.predict, model), "direct": partial(ways.decode_and_direct, model)}
        for call in calls.values():
            await closed_loop(call, 4, min(1.0, seconds))
        loads: dict[str, list[Load]] = {name: [] for name in calls}
        streams: list[float] = []
        for _ in range(repeats):
            for name, call in calls.items():
                loads[name].append(await closed_loop(call, 8, seconds))
            streams.append(await ways.stream(model, max(20, int(loads["Predict"][-1].rate * seconds))))
        rates = {name: [load.rate for load in found] for name, found in loads.items()}
        cells = [cell for name, found in loads.items() for cell in (spread(rates[name]), spread([load.p50 for load in found]))]
        cells += [f"{ratio(rates['Predict'], rates['direct']):.2f}", spread(streams), f"{ratio(streams, rates['direct']):.2f}"]
        print(f"| {task} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    sys.exit("run predict.py")
