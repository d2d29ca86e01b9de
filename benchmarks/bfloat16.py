"""A model served in full precision and in bfloat16, through the gateway, turn about.

``python benchmarks/bfloat16.py [--home HOME --model NAME --dataset NAME] [--callers 1,8] [--seconds 5] [--repeats 3]``

It starts an embedded Triton and a gateway of its own, deploys the model and its ``bf16`` variant beside it, and prints a Markdown table: answers a second, median
milliseconds, and milliseconds of processor time of Triton's processes an answer (which mean something on a shared machine too), and how far the answers agree.
Without ``--home`` the model is a resnet18 at 224 pixels with random weights, asked with a PNG; with it, one that a training made in that home, asked with the
images of a dataset there. The processor must have bfloat16, or both columns are of full precision.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import grpc
import numpy as np
import predict
import psutil

from oteo_core.artifacts import ArtifactStore
from oteo_core.datasets import DatasetReader
from oteo_core.packages import read_model
from oteo_local.triton import start
from oteo_protos.gateway.v1 import inference_pb2, inference_pb2_grpc

FORMS = {"fp32": predict.AS_TRAINED, "bf16": predict.ROUNDED}
MODEL = "resnet18"


def made(home: Path) -> list[bytes]:
    """Publish a resnet18 that holds its variant, and give a PNG."""
    store = ArtifactStore(f"file://{home}/artifacts")
    predict.add_bf16(store, predict.publish(store, MODEL, predict.resnet_graph(home), predict.SIDE))
    return [predict.png(seed) for seed in range(4)]


def taken(home: Path, source: Path, model: str, dataset: str) -> list[bytes]:
    """Copy a trained model from another home, and give images of a dataset there: of the test part, or all."""
    shutil.copytree(source / "artifacts" / "models" / model, home / "artifacts" / "models" / model)
    reader = DatasetReader(ArtifactStore(f"file://{source}/artifacts"), dataset)
    samples = list(reader.samples("test")) or list(reader.samples())
    return [reader.read_media(sample) for sample in samples]


def ask(stub: inference_pb2_grpc.InferenceServiceStub, name: str, image: bytes) -> inference_pb2.PredictResponse:
    """Have a deployment answer."""
    request = inference_pb2.PredictRequest(deployment=f"deployments/{name}", image={"content": image})
    return stub.Predict(request, metadata=predict.METADATA, timeout=120)


def run(
    address: str, triton: psutil.Process, name: str, images: Sequence[bytes], callers: int, seconds: float
) -> tuple[float, float, float]:
    """Give answers a second, median milliseconds, and Triton's processor milliseconds an answer."""
    latencies: list[float] = []
    end = time.perf_counter() + seconds

    def call(number: int) -> None:
        with grpc.insecure_channel(address) as channel:
            stub = inference_pb2_grpc.InferenceServiceStub(channel)
            while time.perf_counter() < end:
                number += 1
                began = time.perf_counter()
                ask(stub, name, images[number % len(images)])
                latencies.append(time.perf_counter() - began)

    threads = [threading.Thread(target=call, args=(number,)) for number in range(callers)]
    before, began = predict.cpu_seconds(triton), time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    used, took = predict.cpu_seconds(triton) - before, time.perf_counter() - began
    return len(latencies) / took, 1000 * statistics.median(latencies), 1000 * used / len(latencies)


def agreement(address: str, images: Sequence[bytes]) -> str:
    """Say how far the two forms' answers agree."""
    alike: list[float] = []
    largest = 0.0
    with grpc.insecure_channel(address) as channel:
        stub = inference_pb2_grpc.InferenceServiceStub(channel)
        for image in images:
            plain, rounded = (ask(stub, name, image) for name in FORMS)
            if plain.WhichOneof("result") == "classification":
                pair = [{one.class_name: one.probability for one in answer.classification.scores} for answer in (plain, rounded)]
                largest = max(largest, max(abs(pair[0][name] - pair[1][name]) for name in pair[0]))
                alike.append(float(max(pair[0], key=lambda one: pair[0][one]) == max(pair[1], key=lambda one: pair[1][one])))
            elif plain.WhichOneof("result") == "segmentation":
                maps = [
                    cv2.imdecode(np.frombuffer(answer.segmentation.label_image.content, np.uint8), cv2.IMREAD_UNCHANGED)
                    for answer in (plain, rounded)
                ]
                alike.append(float((maps[0] == maps[1]).mean()))
            else:
                found = [sorted(one.class_name for one in answer.detection.objects) for answer in (plain, rounded)]
                alike.append(float(found[0] == found[1]))
    ending = f"; the largest difference of a probability is {largest:.4f}" if largest else ""
    return f"{len(images)} images: {100 * float(np.mean(alike)):.2f} % of decisions, or pixels, are the same{ending}."


def main() -> None:
    """Set everything up, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, help="OTEO_HOME of a stack whose model is measured")
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--dataset", help="dataset of that home whose images are sent")
    parser.add_argument("--callers", type=lambda text: [int(part) for part in text.split(",")], default=[1, 8])
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="oteo-bfloat16-") as folder:
        home = Path(folder)
        images = taken(home, options.home, options.model, options.dataset) if options.home else made(home)
        spec = read_model(ArtifactStore(f"file://{home}/artifacts"), options.model).input
        with (
            start(home / "model-repository", threads=0, timeout=300) as triton,
            predict.running_gateway(home, triton.address, 1) as (address, _),
        ):
            predict.deploy(address, {name: (options.model, variant) for name, variant in FORMS.items()})
            print(f"{options.model}, {spec.width} x {spec.height}; {options.repeats} repeats of {options.seconds:g} s, turn about\n")
            print(agreement(address, images))
            print("\n| callers | form | answers/s | median ms | Triton's processor ms an answer |\n|---|---|---|---|---|")
            process = psutil.Process(triton.process.pid)
            for callers in options.callers:
                rows: dict[str, list[tuple[float, float, float]]] = {name: [] for name in FORMS}
                for _ in range(options.repeats):
                    for name, row in rows.items():
                        row.append(run(address, process, name, images, callers, options.seconds))
                for name, row in rows.items():
                    print(f"| {callers} | {name} | {' | '.join(predict.spread(column) for column in zip(*row, strict=True))} |", flush=True)


if __name__ == "__main__":
    main()
