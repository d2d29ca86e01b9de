"""How long Triton's dynamic batcher should wait for others to share a batch: several queue delays, turn about.

``python benchmarks/predict_delay.py [--delays 0,50,500] [--models tiny,resnet18] [--callers 1,8,32] [--seconds 2] [--repeats 5]``

It starts an embedded Triton and a gateway of its own and deploys each model once for each delay, with the configuration that training writes
(`oteo_core.graphs.config`: preferred batches of 4, 8 and 16). For each number of callers it prints a Markdown table: answers a second, median and 99 % quantile of the
latency, images a batch, and milliseconds of processor time an answer of Triton with its stubs and of the gateway; median of the repeats and their range; through
`Predict` with a PNG, and direct with the decoded tensor. "to 500" is the median ratio to the last delay's turn beside it.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import predict
import psutil
import uvloop
from measuring import ratio, spread
from predict_bars import Ways, closed_loop
from predict_models import SIDE, png, publish, resnet_graph, tiny_graph
from shared_memory import triton_seconds
from tritonclient.grpc import service_pb2

from oteo_core.artifacts import ArtifactStore
from oteo_core.graphs.config import config_pbtxt
from oteo_core.graphs.outputs import Output
from oteo_local.triton import start

_FIELDS = ("rate", "p50", "p99", "batch", "triton", "gateway")
_STATISTICS = "/inference.GRPCInferenceService/ModelStatistics"


async def counts(channel: grpc.aio.Channel, model: str) -> tuple[int, int]:
    """Give images and runs of a model so far."""
    answer = await channel.unary_unary(_STATISTICS)(service_pb2.ModelStatisticsRequest(name=model).SerializeToString(), timeout=10)
    found = service_pb2.ModelStatisticsResponse.FromString(answer).model_stats[0]
    return found.inference_count, found.execution_count


async def measure(options: argparse.Namespace, gateway: tuple[str, psutil.Process], triton: Any, packages: dict[str, Any]) -> None:
    """Print the rows of every model, way and number of callers."""
    server = psutil.Process(triton.process.pid)
    ways = Ways(gateway[0], triton.address, predict.TOKEN, png(), packages, 2)
    tensors = {name: ways.tensor(name) for name in packages}
    last = options.delays[-1]
    heads = f"answers/s | p50 ms | p99 ms | images a batch | Triton's CPU ms | gateway's CPU ms | rate to {last} | p50 to {last} | p99 to {last}"
    print(f"\n| model | way | callers | delay, us | {heads} |\n|{'---|' * 13}", flush=True)
    async with grpc.aio.insecure_channel(triton.address) as channel:

        async def turn(way: str, name: str, callers: int) -> dict[str, float]:
            before, theirs, own = await counts(channel, name), triton_seconds(server), triton_seconds(gateway[1])
            load = await closed_loop(
                lambda: ways.predict(name) if way == "Predict" else ways.direct(tensors[name]), callers, options.seconds
            )
            after = await counts(channel, name)
            images, runs = after[0] - before[0], after[1] - before[1]
            return {
                "rate": load.rate,
                "p50": load.p50,
                "p99": load.p99,
                "batch": images / runs,
                "triton": 1e3 * (triton_seconds(server) - theirs) / images,
                "gateway": 1e3 * (triton_seconds(gateway[1]) - own) / images,
            }

        try:
            for model in options.models:
                for way in ("Predict", "direct"):
                    for callers in options.callers:
                        found: dict[int, list[dict[str, float]]] = {delay: [] for delay in options.delays}
                        for number in range(options.repeats + 1):
                            for delay in options.delays[:: 1 if number % 2 else -1]:
                                one = await turn(way, f"{model}-{delay}", callers)
                                if number:
                                    # The first of each warms up.
                                    found[delay].append(one)
                        for delay, turns in found.items():
                            row = {field: [one[field] for one in turns] for field in _FIELDS}
                            figures = [spread(row[field], 2) for field in _FIELDS]
                            for field in ("rate", "p50", "p99"):
                                figures.append(f"{ratio(row[field], [one[field] for one in found[last]]):.2f}")
                            print(f"| {model} | {way} | {callers} | {delay} | {' | '.join(figures)} |", flush=True)
        finally:
            await ways.close()


def main() -> None:
    """Set everything up, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)

    def numbers(text: str) -> list[int]:
        return [int(part) for part in text.split(",")]

    parser.add_argument("--delays", type=numbers, default=[0, 50, 500], help="microseconds; ratios are to the last")
    parser.add_argument("--models", type=lambda text: text.split(","), default=["tiny", "resnet18"])
    parser.add_argument("--callers", type=numbers, default=[1, 8, 32])
    parser.add_argument("--seconds", type=float, default=2.0, help="length of a turn")
    parser.add_argument("--repeats", type=int, default=5, help="turns of each delay")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="oteo-benchmark-") as folder, ExitStack() as stack:
        home = Path(folder)
        store = ArtifactStore(f"file://{home}/artifacts")
        graphs = {"tiny": tiny_graph, "resnet18": lambda: resnet_graph(home)}
        packages = {}
        for model in options.models:
            graph = graphs[model]()
            for delay in options.delays:
                name = f"{model}-{delay}"
                package = packages[name] = publish(store, name, graph, SIDE)
                outputs = tuple(Output(output, (len(package.classes),)) for output in ("probabilities", "logits"))
                config = config_pbtxt(name, package.input, outputs, parameters={"oteo_digest": package.digest}, queue_delay=delay)
                store.write_bytes(f"models/{name}/triton/{name}/config.pbtxt", config.encode())
        triton = stack.enter_context(start(home / "model-repository", threads=0))
        gateway = stack.enter_context(predict.running_gateway(home, triton.address, 1))
        predict.deploy(gateway[0], {name: (name, predict.AS_TRAINED) for name in packages})
        print(f"{os.cpu_count()} cores; load average before: {os.getloadavg()[0]:.1f}; {options.repeats} turns of {options.seconds:g} s")
        uvloop.run(measure(options, gateway, triton, packages))
        print(f"\nload average after: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
