"""System shared memory between a caller and Triton on one host against tensors in gRPC messages, turn about.

``python benchmarks/shared_memory.py [--sides 224,448,1448] [--callers 1,8] [--seconds 1.5] [--repeats 7]``

It starts an embedded Triton with models that look at 16 pixels of their image, and asks them over grpc.aio, as the gateway does, in two ways:

- "gRPC": the tensor in the message, behind a head that is serialised once (`oteo_gateway.prediction.tensors`): what the gateway does;
- "shared memory": the pixels are copied into the caller's own slot of a region that is registered once with `tritonclient`, and the message, serialised once
  for each slot, names the slot. No message is built here, so that this is the least that it can cost.

The default sides are tensors of 150 KB, 600 KB and 6 MB (uint8, three channels). It prints a Markdown table: median and 99 % quantile of the latency, answers a
second, and milliseconds of processor time an answer, of the caller's process and of Triton's with its stubs; median of the repeats and their range. Linux only.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil
import uvloop
from measuring import ratio, spread
from numpy.typing import NDArray
from predict_models import CONFIG, tiny_graph
from tritonclient.grpc import service_pb2
from tritonclient.utils import shared_memory

from oteo_core.images import InputPolicy
from oteo_gateway.prediction.tensors import InferTemplate, read_outputs
from oteo_local.triton import start

_SERVICE = "/inference.GRPCInferenceService"
_OPTIONS = [("grpc.max_receive_message_length", 1 << 26), ("grpc.max_send_message_length", 1 << 26)]
_FIELDS = ("p50", "p99", "rate", "own", "triton")

Call = Callable[[int], Awaitable[bytes]]


class Region:
    """A region of shared memory with a slot for each caller, known to a Triton while the ``with`` block lasts.

    Parameters
    ----------
    address
        Triton's.
    name
        The region's.
    size, slots
        Bytes of a slot, and how many there are.
    """

    def __init__(self, address: str, name: str, size: int, slots: int) -> None:
        self._address = address
        self._name = name
        self._size = size
        self._slots = slots

    def __enter__(self) -> Region:
        whole = self._size * self._slots
        self._handle = shared_memory.create_shared_memory_region(self._name, f"/{self._name}", whole)
        self.memory: NDArray[np.uint8] = shared_memory.get_contents_as_numpy(self._handle, np.uint8, [self._slots, self._size])
        self._tell("Register", service_pb2.SystemSharedMemoryRegisterRequest(name=self._name, key=f"/{self._name}", byte_size=whole))
        return self

    def __exit__(self, *_: object) -> None:
        self._tell("Unregister", service_pb2.SystemSharedMemoryUnregisterRequest(name=self._name))
        del self.memory
        shared_memory.destroy_shared_memory_region(self._handle)

    def _tell(self, what: str, request: Any) -> None:
        with grpc.insecure_channel(self._address) as channel:
            channel.unary_unary(f"{_SERVICE}/SystemSharedMemory{what}")(request.SerializeToString(), timeout=10)

    def request(self, model: str, side: int, slot: int) -> bytes:
        """Give the request that names a slot."""
        message = service_pb2.ModelInferRequest(model_name=model)
        tensor = message.inputs.add(name="image", datatype="UINT8", shape=(1, side, side, 3))
        tensor.parameters["shared_memory_region"].string_param = self._name
        tensor.parameters["shared_memory_byte_size"].int64_param = self._size
        tensor.parameters["shared_memory_offset"].int64_param = slot * self._size
        message.outputs.add(name="probabilities")
        found: bytes = message.SerializeToString()
        return found


def triton_seconds(process: psutil.Process) -> float:
    """Give the processor time so far of Triton and its stubs, seconds, as finely as the scheduler counts."""
    total = 0
    for one in (process, *process.children(recursive=True)):
        for task in Path(f"/proc/{one.pid}/task").iterdir():
            try:
                total += int((task / "schedstat").read_text().split()[0])
            except (FileNotFoundError, ProcessLookupError):
                # A thread that ended just now.
                continue
    return total / 1e9


async def turn(call: Call, callers: int, seconds: float, triton: psutil.Process) -> dict[str, float]:
    """Have callers call one after another for some seconds; milliseconds, and answers a second."""
    latencies: list[float] = []
    begin, own, theirs = time.perf_counter(), time.process_time(), triton_seconds(triton)

    async def caller(slot: int) -> None:
        while (start := time.perf_counter()) < begin + seconds:
            read_outputs(await call(slot))
            latencies.append(time.perf_counter() - start)

    await asyncio.gather(*(caller(slot) for slot in range(callers)))
    took, own, theirs = time.perf_counter() - begin, time.process_time() - own, triton_seconds(triton) - theirs
    latencies.sort()
    count = len(latencies)
    p99 = latencies[int(0.99 * (count - 1))]
    return {
        "p50": 1e3 * statistics.median(latencies),
        "p99": 1e3 * p99,
        "rate": count / took,
        "own": 1e3 * own / count,
        "triton": 1e3 * theirs / count,
    }


async def compare(address: str, triton: psutil.Process, side: int, options: argparse.Namespace) -> None:
    """Print the rows of one size."""
    model = f"tiny{side}"
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (side, side, 3), np.uint8) for _ in range(max(options.callers))]
    template = InferTemplate(model, "", InputPolicy(width=side, height=side))
    async with grpc.aio.insecure_channel(address, _OPTIONS) as channel:
        infer = channel.unary_unary(f"{_SERVICE}/ModelInfer")
        with Region(address, f"oteo-benchmark-{os.getpid()}", images[0].nbytes, len(images)) as region:
            requests = [region.request(model, side, slot) for slot in range(len(images))]

            async def message(slot: int) -> bytes:
                answer: bytes = await infer(template.build(images[slot]), timeout=60)
                return answer

            async def shared(slot: int) -> bytes:
                region.memory[slot] = images[slot].reshape(-1)
                answer: bytes = await infer(requests[slot], timeout=60)
                return answer

            for slot in range(len(images)):
                given, other = read_outputs(await message(slot))[0], read_outputs(await shared(slot))[0]
                if not np.array_equal(given["probabilities"], other["probabilities"]):
                    raise RuntimeError("the two ways do not give the same answer")
            ways: dict[str, Call] = {"gRPC": message, "shared memory": shared}
            for callers in options.callers:
                found: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
                for call in ways.values():
                    await turn(call, callers, options.seconds / 2, triton)
                for number in range(options.repeats):
                    for name in list(ways)[:: 1 if number % 2 else -1]:
                        found[name].append(await turn(ways[name], callers, options.seconds, triton))
                rows = {name: {field: [one[field] for one in turns] for field in _FIELDS} for name, turns in found.items()}
                cpu = {name: [own + theirs for own, theirs in zip(row["own"], row["triton"], strict=True)] for name, row in rows.items()}
                for name, row in rows.items():
                    figures = [spread(row[field], 1 if field == "rate" else 2) for field in _FIELDS]
                    last = [f"{ratio(row['p50'], rows['gRPC']['p50']):.2f}", f"{ratio(cpu[name], cpu['gRPC']):.2f}"]
                    print(f"| {images[0].nbytes / 1e3:.0f} KB | {callers} | {name} | {' | '.join([*figures, *last])} |", flush=True)


def main() -> None:
    """Start Triton, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)

    def numbers(text: str) -> list[int]:
        return [int(part) for part in text.split(",")]

    parser.add_argument("--sides", type=numbers, default=[224, 448, 1448], help="sides of the square images, pixels")
    parser.add_argument("--callers", type=numbers, default=[1, 8], help="callers at a time")
    parser.add_argument("--seconds", type=float, default=1.5, help="length of a turn")
    parser.add_argument("--repeats", type=int, default=7, help="turns of each way")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="oteo-benchmark-") as folder, ExitStack() as stack:
        for side in options.sides:
            model = Path(folder) / f"tiny{side}"
            (model / "1").mkdir(parents=True)
            (model / "1" / "model.onnx").write_bytes(tiny_graph())
            (model / "config.pbtxt").write_text(CONFIG.format(name=model.name, side=side, classes=3, digest="", delay=0))
        triton = stack.enter_context(start(folder, load=tuple(f"tiny{side}" for side in options.sides), threads=1))
        process = psutil.Process(triton.process.pid)
        print(f"{os.cpu_count()} cores; load average before: {os.getloadavg()[0]:.1f}; {options.repeats} turns of {options.seconds:g} s")
        print(
            "\n| tensor | callers | way | p50 ms | p99 ms | answers/s | caller's CPU ms | Triton's CPU ms | p50 to gRPC's | CPU of both to gRPC's |"
        )
        print(f"|{'---|' * 10}", flush=True)
        for side in options.sides:
            uvloop.run(compare(triton.address, process, side, options))
        print(f"\nload average after: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
