"""Predict through the gateway against Triton called directly and onnxruntime in the same process.

``python benchmarks/predict.py [--seconds 3] [--repeats 3] [--concurrency 1,8,32]``

It starts an embedded Triton and a gateway of its own on free ports, publishes two models with random weights (a resnet18 at 224 pixels and
a model that does next to nothing, so that what is left is the way there and back), and prints Markdown tables:

- throughput and latency of `Predict` with a PNG, of Triton called directly with the decoded tensor, and of onnxruntime in this process
  with the same decoding (`peer_model.py`: files are opened as `Predict` opens them), in turn within each repeat; median of the repeats and their range;
- the gateway's own processor time a request, beyond decoding and resizing, and that of forwarding a 600 KB inference request;
- where the time of one request goes;
- bars (`predict_bars.py`), for each of ``--models``: Predict against decoding here and Triton without a gateway, onnxruntime in this process, and against LitServe and BentoML with the same
  model and decoding (``--litserve PYTHON``, ``--bentoml PYTHON`` of environments that have them, such as
  ``python -m venv .build/bentoml && .build/bentoml/bin/pip install bentoml``), with ``--bf16 resnet18`` that model also in bfloat16; open loop at 70 % load;
  with the first of ``--models`` also for DICOM: one that the tests' own code draws (512 x 512 of 12 bits) and, where ``OTEO_TEST_DATA`` names a folder that holds
  one, a real file;
- every task, and streams, against decoding here and Triton without a gateway.

``--image FILE`` measures with an image of one's own alone, of any format that the gateway reads.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import cv2
import grpc
import onnxruntime
import predict_bars
import psutil
import uvloop
from google.longrunning import operations_pb2, operations_pb2_grpc
from judged_models import MODELS
from judged_models import publish as publish_task
from peer_model import opened, prepared
from predict_models import LARGE, SIDE, add_bf16, drawn_dicom, png, publish, real_dicom, resnet_graph, tiny_graph

from oteo_core.artifacts import ArtifactStore
from oteo_core.images import prepare
from oteo_core.packages import ModelPackage
from oteo_gateway.prediction.tensors import InferTemplate, read_outputs
from oteo_local import ports
from oteo_local.triton import start
from oteo_protos.gateway.v1 import deployment_pb2, deployment_pb2_grpc, inference_pb2, inference_pb2_grpc
from oteo_protos.type.v1 import image_pb2

AS_TRAINED, ROUNDED = "MODEL_VARIANT_UNSPECIFIED", "MODEL_VARIANT_BF16"
TOKEN = "benchmark"
METADATA = (("authorization", f"Bearer {TOKEN}"),)
INFER = "/inference.GRPCInferenceService/ModelInfer"


@contextmanager
def running_gateway(home: Path, triton: str, processes: int) -> Iterator[tuple[str, psutil.Process]]:
    """Run a gateway as a process of its own."""
    address = f"127.0.0.1:{ports.free_port()}"
    environment = {
        **os.environ,
        "OTEO_HOME": str(home),
        "OTEO_TOKEN": TOKEN,
        "OTEO_GATEWAY_ADDRESS": address,
        "OTEO_TRITON_URLS": triton,
        "OTEO_LOG_LEVEL": "info",
        "OTEO_PROCESSES": str(processes),
        "OMP_NUM_THREADS": "1",
    }
    with open(home / "gateway.log", "wb") as log:
        process = subprocess.Popen([sys.executable, "-m", "oteo_gateway"], env=environment, stdout=log, stderr=log)
    try:
        with grpc.insecure_channel(address) as channel:
            grpc.channel_ready_future(channel).result(timeout=60)
        yield address, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(20)


async def bare_hop(listen: str, target: str) -> None:
    """Forward any unary call as bytes and do nothing else: the least that a hop of grpc.aio can cost."""
    options = [("grpc.max_receive_message_length", 1 << 26)]
    channel = grpc.aio.insecure_channel(target, options)
    calls: dict[str, Any] = {}

    class Forward(grpc.GenericRpcHandler):
        def service(self, handler_call_details: Any) -> Any:
            call = calls.setdefault(handler_call_details.method, channel.unary_unary(handler_call_details.method))

            async def forward(request: bytes, context: Any) -> bytes:
                response: bytes = await call(request)
                return response

            return grpc.unary_unary_rpc_method_handler(forward)

    server = grpc.aio.server(options=options)
    server.add_generic_rpc_handlers((Forward(),))
    server.add_insecure_port(listen)
    await server.start()
    await server.wait_for_termination()


@contextmanager
def running_hop(triton: str) -> Iterator[tuple[str, psutil.Process]]:
    """Run the bare hop as a process of its own."""
    address = f"127.0.0.1:{ports.free_port()}"
    process = subprocess.Popen([sys.executable, __file__, "--hop", address, triton])
    try:
        with grpc.insecure_channel(address) as channel:
            grpc.channel_ready_future(channel).result(timeout=60)
        yield address, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(20)


def deploy(address: str, models: Mapping[str, tuple[str, str]]) -> None:
    """Put models, by the deployment's name each with its variant, into service and wait until they are."""
    with grpc.insecure_channel(address) as channel:
        deployments, operations = deployment_pb2_grpc.DeploymentServiceStub(channel), operations_pb2_grpc.OperationsStub(channel)
        for name, (model, variant) in models.items():
            part = deployment_pb2.DeployedModel(model=f"models/{model}", variant=variant)
            request = deployment_pb2.CreateDeploymentRequest(deployment_id=name, deployment=deployment_pb2.Deployment(models=[part]))
            operation = deployments.CreateDeployment(request, metadata=METADATA, timeout=60)
            while not operation.done:
                time.sleep(0.1)
                operation = operations.GetOperation(operations_pb2.GetOperationRequest(name=operation.name), metadata=METADATA, timeout=60)
            if operation.HasField("error"):
                raise RuntimeError(operation.error.message)


@dataclass
class Load:
    """What one run of a load gave: requests a second and latencies in milliseconds."""

    rate: float
    median: float
    p95: float


Call = Callable[[], Awaitable[Any]]


async def put_load(call: Call, concurrency: int, seconds: float) -> Load:
    """Have so many callers call one after another for some seconds."""
    latencies: list[float] = []
    end = time.perf_counter() + seconds

    async def caller() -> None:
        while time.perf_counter() < end:
            begin = time.perf_counter()
            await call()
            latencies.append(time.perf_counter() - begin)

    begin = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(concurrency)))
    total = time.perf_counter() - begin
    latencies.sort()
    return Load(len(latencies) / total, 1e3 * statistics.median(latencies), 1e3 * latencies[int(0.95 * (len(latencies) - 1))])


class Systems:
    """The three ways to an answer, over one event loop."""

    def __init__(
        self, gateway: str, triton: str, hop: str, content: bytes, packages: dict[str, ModelPackage], graphs: dict[str, bytes]
    ) -> None:
        options = [("grpc.max_receive_message_length", 1 << 26)]
        self._gateway = grpc.aio.insecure_channel(gateway, options)
        self._triton = grpc.aio.insecure_channel(triton, options)
        self._hop = grpc.aio.insecure_channel(hop, options)
        self._stub = inference_pb2_grpc.InferenceServiceStub(self._gateway)
        self._infer = self._triton.unary_unary(INFER)
        self._forwarded = self._gateway.unary_unary(INFER)
        self._hopped = self._hop.unary_unary(INFER)
        self._content = content
        self._packages = packages
        self._requests = {
            name: InferTemplate(name, "", package.input).build(prepared(content, package.input)) for name, package in packages.items()
        }
        cores = os.cpu_count() or 1
        self._threads = ThreadPoolExecutor(cores)
        settings = onnxruntime.SessionOptions()
        # As Triton's instance here: one session, its threads on all cores.
        settings.intra_op_num_threads = cores
        self._sessions = {
            name: onnxruntime.InferenceSession(graph, settings, providers=["CPUExecutionProvider"]) for name, graph in graphs.items()
        }

    async def close(self) -> None:
        """Close channels and threads."""
        await self._gateway.close()
        await self._triton.close()
        await self._hop.close()
        self._threads.shutdown()

    async def predict(self, model: str) -> inference_pb2.PredictResponse:
        """The encoded image to the gateway."""
        request = inference_pb2.PredictRequest(deployment=f"deployments/{model}", image=image_pb2.ImageSource(content=self._content))
        response: inference_pb2.PredictResponse = await self._stub.Predict(request, metadata=METADATA)
        return response

    async def direct(self, model: str) -> None:
        """Decoded tensor to Triton."""
        read_outputs(await self._infer(self._requests[model]))

    async def forwarded(self, model: str) -> None:
        """Decoded tensor to Triton through the gateway."""
        read_outputs(await self._forwarded(self._requests[model], metadata=METADATA))

    async def hopped(self, model: str) -> None:
        """Decoded tensor to Triton through the bare hop."""
        read_outputs(await self._hopped(self._requests[model]))

    async def in_process(self, model: str) -> None:
        """The encoded image to onnxruntime in this process."""
        await asyncio.get_running_loop().run_in_executor(self._threads, self._run, model)

    def _run(self, model: str) -> None:
        pixels = prepared(self._content, self._packages[model].input)
        self._sessions[model].run(["probabilities"], {"image": pixels[None]})


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Give median and range."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


async def compare(systems: Systems, models: Sequence[str], concurrency: Sequence[int], seconds: float, repeats: int) -> None:
    """Print throughput and latency of the three systems, taken in turn."""
    calls = {"Predict": systems.predict, "Triton direct (tensor)": systems.direct, "onnxruntime in-process": systems.in_process}
    for model in models:
        for call in calls.values():
            await put_load(lambda: call(model), 4, min(1.0, seconds))  # noqa: B023 - called at once
    print("\n| model | concurrency | system | requests/s | median ms | p95 ms |\n|---|---|---|---|---|---|")
    for model in models:
        for parallel in concurrency:
            found: dict[str, list[Load]] = {name: [] for name in calls}
            for _ in range(repeats):
                for name, call in calls.items():
                    found[name].append(await put_load(lambda: call(model), parallel, seconds))  # noqa: B023 - called at once
            for name, loads in found.items():
                figures = [spread([getattr(load, field) for load in loads]) for field in ("rate", "median", "p95")]
                print(f"| {model} | {parallel} | {name} | {' | '.join(figures)} |")


def cpu_seconds(process: psutil.Process) -> float:
    """Give the processor time so far of a process and those below it."""
    times = [one.cpu_times() for one in (process, *process.children(recursive=True))]
    return float(sum(one.user + one.system for one in times))


def decoding_milliseconds(content: bytes, package: ModelPackage, repeats: int = 200) -> tuple[float, float]:
    """Give the processor time of decoding and of resizing one image, on one thread."""
    cv2.setNumThreads(1)
    marks = [time.thread_time()]
    for _ in range(repeats):
        pixels, depth = opened(content)
    marks.append(time.thread_time())
    for _ in range(repeats):
        prepare(pixels, package.input, depth)
    marks.append(time.thread_time())
    return 1e3 * (marks[1] - marks[0]) / repeats, 1e3 * (marks[2] - marks[1]) / repeats


@dataclass
class Processes:
    """What is measured from outside."""

    gateway: psutil.Process
    hop: psutil.Process


async def cost(call: Call, process: psutil.Process, parallel: int, seconds: float) -> float:
    """Give a process's own milliseconds of processor time a request under a load."""
    answered = 0

    async def counted() -> None:
        nonlocal answered
        await call()
        answered += 1

    before = cpu_seconds(process)
    await put_load(counted, parallel, seconds)
    return 1e3 * (cpu_seconds(process) - before) / answered


async def own_cost(systems: Systems, processes: Processes, content: bytes, package: ModelPackage, seconds: float, repeats: int) -> None:
    """Print the gateway's own processor time a request, beside the bare hop's in the same minutes."""
    gateway, hop = processes.gateway, processes.hop
    await put_load(lambda: systems.hopped("large"), 4, 1.0)
    before = cpu_seconds(gateway)
    await asyncio.sleep(2.0)
    idle = 1e3 * (cpu_seconds(gateway) - before) / 2.0
    rows: dict[str, dict[int, list[float]]] = {}
    decodes: list[tuple[float, float]] = []
    for _ in range(repeats):
        for parallel in (1, 8):
            decodes.append(decoding_milliseconds(content, package))
            predict = await cost(lambda: systems.predict("tiny"), gateway, parallel, seconds)
            figures = {
                "Predict, in all": predict,
                "Predict, beyond decode and resize": predict - sum(decodes[-1]),
                "bare hop of grpc.aio, the tensor of that image (150 KB)": await cost(
                    lambda: systems.hopped("tiny"), hop, parallel, seconds
                ),
                "forwarding a 600 KB inference request": await cost(lambda: systems.forwarded("large"), gateway, parallel, seconds),
                "bare hop of grpc.aio, the same 600 KB": await cost(lambda: systems.hopped("large"), hop, parallel, seconds),
            }
            for name, value in figures.items():
                rows.setdefault(name, {}).setdefault(parallel, []).append(value)
    decoding, resizing = (spread(values, 2) for values in zip(*decodes, strict=True))
    print(f"\nDecoding {decoding} ms and resizing {resizing} ms of processor time for the image of {len(content) // 1024} KiB;")
    print(f"the idle gateway takes {idle:.1f} ms of processor time a second (its loops).")
    print("\n| processor time, ms a request | concurrency 1 | concurrency 8 | bar |\n|---|---|---|---|")
    bars = {"Predict, beyond decode and resize": "2", "forwarding a 600 KB inference request": "1.5"}
    for name, values in rows.items():
        print(f"| {name} | {spread(values[1], 2)} | {spread(values[8], 2)} | {bars.get(name, '')} |")


async def where_it_goes(systems: Systems, model: str, count: int = 200) -> None:
    """Print the stages of one request at a time, medians."""
    stages: dict[str, list[float]] = {name: [] for name in ("whole", "gateway", "queue", "decode", "inference", "direct")}
    for _ in range(count):
        begin = time.perf_counter()
        timing = (await systems.predict(model)).timing
        whole = 1e3 * (time.perf_counter() - begin)
        stages["whole"].append(whole)
        for name, duration in (
            ("gateway", timing.total),
            ("queue", timing.queue),
            ("decode", timing.decode),
            ("inference", timing.inference),
        ):
            stages[name].append(duration.ToNanoseconds() / 1e6)
        begin = time.perf_counter()
        await systems.direct(model)
        stages["direct"].append(1e3 * (time.perf_counter() - begin))
    median = {name: statistics.median(values) for name, values in stages.items()}
    rest = median["gateway"] - median["queue"] - median["decode"] - median["inference"]
    rows = [
        ("caller to gateway and back: gRPC, token, checks, log", median["whole"] - median["gateway"]),
        ("waiting for a place", median["queue"]),
        ("decode and resize", median["decode"]),
        ("thread hand-over, shift statistics, serialising, answer", rest),
        ("Triton, there and back", median["inference"]),
        ("in all, as the caller sees it", median["whole"]),
        ("(Triton called directly by the same caller)", median["direct"]),
    ]
    print(f"\n| one request of {model} | median ms |\n|---|---|")
    for name, value in rows:
        print(f"| {name} | {value:.2f} |")


def pictures(given: Path | None) -> dict[str, bytes]:
    """Give the images to ask about, by what they are called in tables: the one that is given, or a PNG and DICOM, drawn and, where there is one, real."""
    if given is not None:
        return {given.suffix.removeprefix(".") or "image": given.read_bytes()}
    real = real_dicom(Path(os.environ["OTEO_TEST_DATA"])) if "OTEO_TEST_DATA" in os.environ else None
    return {"PNG": png(), "DICOM, drawn": drawn_dicom(), **({"DICOM, real": real} if real is not None else {})}


async def measure(options: argparse.Namespace, addresses: Sequence[str], processes: Processes, made: dict[str, Any]) -> None:
    """Run all measurements."""
    content, images = made["content"], made["images"]
    cores = len(os.sched_getaffinity(0))
    systems = Systems(*addresses, content, made["packages"], made["graphs"])
    ways = predict_bars.Ways(
        addresses[0], addresses[1], TOKEN, content, {**made["packages"], **made["task packages"]}, cores, made["graphs"]
    )
    try:
        if "compare" in options.parts:
            await compare(systems, options.models, options.concurrency, options.seconds, options.repeats)
        if "cost" in options.parts:
            await own_cost(systems, processes, content, made["packages"]["tiny"], options.seconds, options.repeats)
        if "stages" in options.parts:
            for model in options.models:
                await where_it_goes(systems, model)
        if "bars" in options.parts:
            for model in options.models:
                with ExitStack() as stack:
                    package, graph = made["packages"][model], made["folder"] / f"{model}.onnx"
                    peers = {
                        name: stack.enter_context(
                            predict_bars.running_peer(name, python, graph, package, cores, spin=not options.peers_still)
                        )
                        for name, python in (("LitServe", options.litserve), ("BentoML", options.bentoml))
                        if python
                    }
                    rounded = made["rounded"].get(model, "")
                    for image, ways.content in images.items():
                        if ways.content == content or model == options.models[0]:
                            await predict_bars.bars(
                                ways, model, options.concurrency, options.seconds, options.repeats, peers, rounded, image
                            )
                    ways.content = content
        if "open" in options.parts:
            for model in (*options.models, *made["rounded"].values()):
                await predict_bars.at_70_percent(ways, model, options.seconds, options.repeats)
        if "tasks" in options.parts:
            await predict_bars.tasks_and_streams(ways, made["tasks"], options.seconds, options.repeats)
    finally:
        await systems.close()
        await ways.close()


def main() -> None:
    """Set everything up, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0, help="length of one run of a load")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--concurrency", type=lambda text: [int(part) for part in text.split(",")], default=[1, 8, 32])
    parser.add_argument("--models", type=lambda text: text.split(","), default=["tiny", "resnet18"], help="models to compare on")
    parser.add_argument("--parts", type=lambda text: text.split(","), default=["compare", "cost", "stages", "bars", "open", "tasks"])
    parser.add_argument(
        "--bf16",
        type=lambda text: [part for part in text.split(",") if part],
        default=[],
        help="of these models also the form in bfloat16 through the gateway; for processors that have it",
    )
    parser.add_argument("--processes", type=int, default=1, help="processes of the gateway")
    parser.add_argument("--image", type=Path, help="image to send, of any format that the gateway reads, instead of the PNG and DICOM")
    parser.add_argument("--litserve", type=Path, help="interpreter of an environment that has LitServe")
    parser.add_argument("--bentoml", type=Path, help="interpreter of an environment that has BentoML")
    parser.add_argument(
        "--peers-still", action="store_true", help="have the peers' onnxruntime not spin while it waits, as Oteo's does not"
    )
    parser.add_argument("--hop", nargs=2, metavar=("LISTEN", "TARGET"), help="be the bare hop; used by the benchmark itself")
    options = parser.parse_args()
    if options.hop:
        uvloop.run(bare_hop(*options.hop))
        return
    with tempfile.TemporaryDirectory(prefix="oteo-benchmark-") as folder:
        home = Path(folder)
        store = ArtifactStore(f"file://{home}/artifacts")
        graphs = {"tiny": tiny_graph(), "resnet18": resnet_graph(home), "large": tiny_graph()}
        (home / "tiny.onnx").write_bytes(graphs["tiny"])
        packages = {name: publish(store, name, graph, LARGE if name == "large" else SIDE) for name, graph in graphs.items()}
        tasks = {task: task.replace("_", "-") for task in MODELS}
        task_packages = {
            # Objects are found by this watershed's settings; the other tasks have none.
            model: publish_task(store, task, model, decoding={"score": 0.3} if task == "instance_segmentation" else {})
            for task, model in tasks.items()
        }
        with ExitStack() as stack:
            triton = stack.enter_context(start(home / "model-repository", threads=0))
            address, gateway = stack.enter_context(running_gateway(home, triton.address, options.processes))
            hop_address, hop = stack.enter_context(running_hop(triton.address))
            models = {name: (name, AS_TRAINED) for name in (*graphs, *tasks.values())}
            rounded = {name: f"{name}-bf16" for name in options.bf16}
            for name, form in rounded.items():
                add_bf16(store, packages[name])
                models[form] = (name, ROUNDED)
            deploy(address, models)
            load = os.getloadavg()[0]
            print(f"{os.cpu_count()} cores; load average before: {load:.1f}; {options.repeats} repeats of {options.seconds:g} s")
            images = pictures(options.image)
            made = {
                "packages": packages,
                "graphs": graphs,
                "tasks": tasks,
                "task packages": task_packages,
                "rounded": rounded,
                "folder": home,
            }
            made |= {"images": images, "content": next(iter(images.values()))}
            asyncio.run(measure(options, (address, triton.address, hop_address), Processes(gateway, hop), made))


if __name__ == "__main__":
    main()
