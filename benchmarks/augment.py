"""Augmentation against a hand-written pool of albumentations, and the stream against the library in-process.

    python benchmarks/augment.py [--images 200] [--copies 2] [--repeats 3] [--size 512]

1. End to end on detection: read, decode, eight transforms with boxes, encode PNG, write with annotations. The peer is what a person writes: a
   `multiprocessing` pool of as many workers, an `albumentations.Compose` with `bbox_params`, OpenCV to decode and to encode with the same
   settings, one JSON file of boxes. Ours digests pixels, hashes what images look like, keeps provenance and writes the dataset beside that.
2. `AugmentImages` over gRPC on loopback, one stream, against calling `oteo_core.augmentation` in as many threads in this process on the same
   encoded images.

Both sides are warm. Prints medians and the spread over the repeats.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import albumentations
import cv2
import grpc
import numpy as np
from live_server import live_server

from oteo_augment.augmentation import AugmentationPlan, augment_dataset
from oteo_augment.augmentation.shard import ShardJob, augment_shard
from oteo_augment.service import Augment
from oteo_augment.settings import AugmentSettings
from oteo_core.artifacts import ArtifactStore
from oteo_core.augmentation import AugmentationKey, Policy, Step, augment_image
from oteo_core.datasets import Box, DatasetInfo, DatasetReader, DatasetWriter, Sample
from oteo_core.images import ImageLimits, decode, encode_jpeg, encode_png, pixel_digest
from oteo_core.jobs import ProcessJobRunner
from oteo_core.jobs.executor import ProcessExecutor
from oteo_protos.augment.v1 import augment_pb2, augment_pb2_grpc

STEPS = (
    ("HorizontalFlip", {}),
    ("Affine", {"rotate": (-10, 10), "scale": (0.9, 1.1), "translate_percent": (-0.05, 0.05)}),
    ("RandomBrightnessContrast", {"brightness_limit": (-0.2, 0.2), "contrast_limit": (-0.2, 0.2)}),
    ("RandomGamma", {"gamma_limit": (80, 120)}),
    ("ColorJitter", {"brightness": (1, 1), "contrast": (1, 1), "saturation": (0.8, 1.2), "hue": (-0.03, 0.03)}),
    ("GaussianBlur", {"sigma_limit": (0.3, 1.2)}),
    ("GaussNoise", {"std_range": (0.01, 0.04)}),
    ("VerticalFlip", {}),
)
WORKERS = len(os.sched_getaffinity(0))


def policy() -> Policy:
    """Our eight transforms."""
    return Policy(tuple(Step(name, parameters, 0.5) for name, parameters in STEPS))


def compose() -> albumentations.Compose:
    """The peer's eight transforms."""
    fixed = {"Affine": {"border_mode": cv2.BORDER_CONSTANT, "keep_ratio": True}, "GaussianBlur": {"blur_limit": 0}}
    steps = [getattr(albumentations, name)(**parameters, **fixed.get(name, {}), p=0.5) for name, parameters in STEPS]
    return albumentations.Compose(
        steps, bbox_params=albumentations.BboxParams(format="coco", label_fields=["labels"], min_visibility=0.1, clip=True)
    )


class Kept(dict[str, bytes]):
    """Checkpoints in memory."""

    def save(self, name: str, data: bytes) -> None:
        """Keep."""
        self[name] = data

    def load(self, name: str) -> bytes | None:
        """Give."""
        return self.get(name)

    def check(self) -> None:
        """Go on."""


def picture(index: int, size: int) -> np.ndarray:
    """A coloured, noisy image."""
    rng = np.random.default_rng(index)
    coarse = rng.integers(40, 216, (12, 12, 3), dtype=np.uint8)
    smooth = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)
    return np.clip(smooth + rng.normal(0, 4, smooth.shape), 0, 255).astype(np.uint8)


def draw(store: ArtifactStore, count: int, size: int) -> None:
    """A detection dataset of JPEGs with 12 boxes each."""
    with DatasetWriter(store, "datasets/bench", DatasetInfo("bench", task="detection", classes=("cell",))) as writer:
        for index in range(count):
            rng = random.Random(index)
            pixels = picture(index, size)
            data = encode_jpeg(pixels, 92)
            boxes = tuple(Box("cell", rng.uniform(0, size * 0.8), rng.uniform(0, size * 0.8), size * 0.12, size * 0.1) for _ in range(12))
            path = writer.add_media(f"{index:05}.jpg", data)
            digest = pixel_digest(decode(data).pixels)
            writer.add(
                Sample(f"i{index:05}", path=path, pixel_digest=digest, width=size, height=size, channels=3, split="train", boxes=boxes)
            )
        writer.finish()


def ours(store: ArtifactStore, copies: int, executor: ProcessExecutor, number: Iterator[int]) -> None:
    """Augment the dataset."""
    name = f"bench-{next(number)}"
    outcome = augment_dataset(
        store, "bench", AugmentationPlan(policy(), copies=copies, drop_originals=True), DatasetInfo(name, uid="u", create_time="2026-01-01T00:00:00+00:00"),
        staging=f"datasets/{name}", store_options={}, limits=ImageLimits(), executor=executor, checkpoints=Kept(), progress=lambda done, total: None,
    )  # fmt: skip
    if outcome.findings:
        raise SystemExit("samples were not augmented")


_compose: albumentations.Compose | None = None


def peer_one(work: tuple[str, str, list[list[float]], int, int]) -> list[tuple[str, list[Any]]]:
    """What a worker of the peer's pool does with one image."""
    global _compose
    cv2.setNumThreads(1)
    if _compose is None:
        _compose = compose()
    source, goal, boxes, copies, index = work
    pixels = cv2.cvtColor(cv2.imdecode(np.frombuffer(Path(source).read_bytes(), np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    made = []
    for copy in range(copies):
        out = _compose(image=pixels, bboxes=boxes, labels=["cell"] * len(boxes))
        path = f"{goal}/{index:05}-{copy}.png"
        Path(path).write_bytes(encode_png(out["image"]))
        made.append((path, [list(map(float, box)) for box in out["bboxes"]]))
    return made


def peer(pool: Any, work: list[tuple[str, str, list[list[float]], int, int]], goal: Path) -> None:
    """The hand-written pool."""
    goal.mkdir()
    found = [item for part in pool.imap(peer_one, [(s, str(goal), b, c, i) for s, _, b, c, i in work], chunksize=8) for item in part]
    (goal / "boxes.json").write_text(json.dumps(found))


def timed(work: Callable[[], None]) -> float:
    """Give the seconds that a call takes."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def table(title: str, rows: dict[str, list[float]], peer_name: str) -> None:
    """Print medians, spreads and ratios to the peer."""
    print(f"\n{title}")
    print(f"{'':34}{'images/s':>10}{'spread':>18}{'of the peer':>13}")
    for name, values in rows.items():
        ratio = statistics.median([v / p for v, p in zip(values, rows[peer_name], strict=True)])
        print(f"{name:34}{statistics.median(values):>10.1f}{f'{min(values):.1f} to {max(values):.1f}':>18}{ratio:>12.2f}x")


def dataset(given: argparse.Namespace, root: Path) -> None:
    """End to end."""
    store = ArtifactStore(f"file://{root}/store")
    draw(store, given.images, given.size)
    reader = DatasetReader(store, "bench")
    folder = reader.uri.removeprefix("file://")
    work = [
        (f"{folder}/{s.path}", "", [[b.x, b.y, b.width, b.height] for b in s.boxes], given.copies, index)
        for index, s in enumerate(reader.samples())
    ]
    numbers = iter(range(10_000))
    both, one = ProcessExecutor(WORKERS), ProcessExecutor(1)
    job = ShardJob(store.root_uri, {}, "bench", "datasets/warm", AugmentationPlan(policy()), ImageLimits())
    for executor in (both, one):
        for task in [executor.submit(augment_shard, job, list(reader.samples())[:4]) for _ in range(WORKERS)]:
            task.result()
    total = given.images * given.copies
    rows: dict[str, list[float]] = {f"hand-written pool, {WORKERS} workers": [], f"oteo, {WORKERS} workers": [], "oteo, 1 worker": []}
    # Spawned, as ours are; forked ones would share this process's loaded modules and threads.
    with get_context("spawn").Pool(WORKERS) as pool:
        peer(pool, work, root / "warm")
        for number in range(given.repeats):
            goal = root / f"peer-{number}"
            names = iter(rows)
            rows[next(names)].append(total / timed(lambda goal=goal: peer(pool, work, goal)))
            rows[next(names)].append(total / timed(lambda: ours(store, given.copies, both, numbers)))
            rows[next(names)].append(total / timed(lambda: ours(store, given.copies, one, numbers)))
    both.close()
    one.close()
    table(
        f"Detection, {given.images} JPEGs of {given.size} px, {given.copies} copies each, 8 transforms at probability 0.5, PNG out",
        rows,
        next(iter(rows)),
    )


def stream(given: argparse.Namespace, root: Path) -> None:
    """The stream against the library."""
    images = [encode_png(picture(index, given.size)) for index in range(given.images)]
    chosen = policy()

    def work(numbered: tuple[int, bytes]) -> None:
        encode_png(augment_image(decode(numbered[1]).pixels, chosen, AugmentationKey(str(numbered[0]))))

    def in_process() -> None:
        with ThreadPoolExecutor(WORKERS) as threads:
            for _ in threads.map(work, enumerate(images)):
                pass

    settings = AugmentSettings(home=root / "home", allow_anonymous=True, stream_threads=WORKERS)
    runner = ProcessJobRunner(root / "logs")
    service = Augment(settings, runner)
    message = augment_pb2.AugmentationPolicy(steps=[{"transform": name, "probability": 0.5} for name, _ in STEPS])
    for step, (_, parameters) in zip(message.steps, STEPS, strict=True):
        step.parameters.update({name: list(value) for name, value in parameters.items()})
    options = [("grpc.max_receive_message_length", 64 << 20)]
    rows: dict[str, list[float]] = {"library, in-process": [], "AugmentImages, one stream": []}
    with live_server(settings, service.register) as server, grpc.insecure_channel(server.address, options) as channel:
        stub = augment_pb2_grpc.AugmentServiceStub(channel)

        def requests() -> Iterator[augment_pb2.AugmentImagesRequest]:
            yield augment_pb2.AugmentImagesRequest(settings={"policy": message})
            for index, data in enumerate(images):
                yield augment_pb2.AugmentImagesRequest(item={"key": str(index), "image": {"content": data}})

        def over_grpc() -> None:
            answers = list(stub.AugmentImages(requests()))
            if len(answers) != len(images) or any(a.HasField("error") for a in answers):
                raise SystemExit("the stream answered with errors")

        in_process()
        over_grpc()
        for _ in range(given.repeats):
            rows["library, in-process"].append(len(images) / timed(in_process))
            rows["AugmentImages, one stream"].append(len(images) / timed(over_grpc))
    service.operations.close()
    runner.close()
    table(f"PNGs of {given.size} px, decoded, 8 transforms, encoded; {WORKERS} threads", rows, "library, in-process")


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--copies", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--size", type=int, default=512)
    given = parser.parse_args()
    cv2.setNumThreads(1)
    print(f"{WORKERS} cores; load average before: {os.getloadavg()[0]:.1f}; {given.repeats} repeats")
    with tempfile.TemporaryDirectory(prefix="oteo-bench-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        dataset(given, Path(folder))
        stream(given, Path(folder))


if __name__ == "__main__":
    main()
