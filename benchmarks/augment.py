"""Augmentation end to end against CLoDSA and a hand-written pool of albumentations, and the stream against the library in-process.

    python benchmarks/augment.py [--only linear|sequential|stream] [--clodsa /a/venv/bin/python] [--images 32] [--repeats 3]

1. "linear": read, decode, one transform, encode PNG, write, annotations moved along; 8 transforms, so 8 outputs of every image. It is the only mode
   that CLoDSA has for boxes and for masks. CLoDSA takes transform 1 to 8 in turn, so does the pool; of Oteo's 8 copies each draws its transform, all
   equally often. CLoDSA 1.2.48 runs by its own JSON configuration in an environment of its own (`clodsa_peer.py` says how to make one).
2. "sequential": all eight transforms in a row, each with probability 0.5, eight outputs of every image; against the pool.
3. "stream": `AugmentImages` over gRPC on loopback, one stream, against calling `oteo_core.augmentation` in as many threads in this process on the
   same encoded images of 512 x 512.

The pool is what a person writes: as many spawned processes, `albumentations.Compose`, OpenCV, one JSON file (`augment_pool.py`). Oteo beside that
checks files, digests and hashes pixels, keeps provenance and checkpoints, and writes the dataset.
Images are real ones where OTEO_TEST_DATA names a folder, drawn ones else, PNG for all; everything lies in memory (/dev/shm), where Oteo's
fsync costs nothing. All sides are warm and take turns; prints medians, spreads and the medians of the ratios turn by turn, and the processor time that an output takes: it
bears company on the machine better than the clock does.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import augment_pool
import augment_sources
import cv2
import grpc
from live_server import live_server
from measuring import CORES, spread, table, timed, tree_cpu_seconds

from oteo_augment.augmentation import AugmentationPlan, augment_dataset
from oteo_augment.augmentation.shard import ShardJob, augment_shard
from oteo_augment.importing import Hooks, ImportOptions, Limits, SplitOptions, import_dataset
from oteo_augment.service import Augment
from oteo_augment.settings import AugmentSettings
from oteo_core.artifacts import ArtifactStore
from oteo_core.augmentation import AugmentationKey, Mode, Policy, Step, augment_image
from oteo_core.datasets import DatasetInfo, DatasetReader
from oteo_core.images import ImageLimits, decode, encode_png
from oteo_core.jobs import ProcessJobRunner
from oteo_core.jobs.executor import ProcessExecutor
from oteo_protos.augment.v1 import augment_pb2, augment_pb2_grpc

STEPS: augment_pool.Steps = (
    ("HorizontalFlip", {}),
    ("Affine", {"rotate": (-10, 10), "scale": (0.9, 1.1), "translate_percent": (-0.05, 0.05)}),
    ("RandomBrightnessContrast", {"brightness_limit": (-0.2, 0.2), "contrast_limit": (-0.2, 0.2)}),
    ("RandomGamma", {"gamma_limit": (80, 120)}),
    ("ColorJitter", {"brightness": (1, 1), "contrast": (1, 1), "saturation": (0.8, 1.2), "hue": (-0.03, 0.03)}),
    ("GaussianBlur", {"sigma_limit": (0.3, 1.2)}),
    ("GaussNoise", {"std_range": (0.01, 0.04)}),
    ("VerticalFlip", {}),
)
SINGLE: augment_pool.Steps = (
    ("HorizontalFlip", {}),
    ("VerticalFlip", {}),
    ("Affine", {"rotate": (10, 10), "scale": (1, 1), "translate_percent": (0, 0)}),
    ("Affine", {"rotate": (0, 0), "scale": (1, 1), "translate_percent": (0.03, 0.03)}),
    ("RandomGamma", {"gamma_limit": (80, 84)}),
    ("GaussianBlur", {"sigma_limit": (0.8, 0.8)}),
    ("GaussNoise", {"std_range": (0.04, 0.04)}),
    ("ColorJitter", {"brightness": (1, 1), "contrast": (1, 1), "saturation": (0.8, 0.8), "hue": (0, 0)}),
)
SINGLE_CLODSA = (
    ("flip", {"flip": 1}),
    ("flip", {"flip": 0}),
    ("rotate", {"angle": 10}),
    ("translation", {"x": 20, "y": 15}),
    ("gamma", {"gamma": 1.2}),
    ("gaussian_blur", {"kernel": 5}),
    ("gaussian_noise", {"mean": 0, "sigma": 10}),
    ("raise_saturation", {"power": 1.2}),
)
"""The same eight in CLoDSA's words. Its rotation makes the canvas larger, by a third here; its gamma and saturation are tables of 256 numbers."""


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


class Clodsa:
    """CLoDSA in a process of its own, by its JSON configuration."""

    def __init__(self, python: str) -> None:
        script = Path(__file__).with_name("clodsa_peer.py")
        # An environment of its own: nothing of ours on its path.
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"TF_CPP_MIN_LOG_LEVEL": "3"}
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115  (closed by close)
        self._process = subprocess.Popen(
            [python, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True, env=environment
        )
        self._answer()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        if not line or line.startswith("error"):
            self._log.seek(0)
            raise SystemExit(f"CLoDSA failed: {line}\n{self._log.read()[-2000:]}")
        return line

    def run(self, source: augment_sources.Source, masks: bool, goal: Path) -> float:
        """Augment a folder; give the seconds that CLoDSA took."""
        goal.mkdir()
        words = {
            "problem": "semantic_segmentation" if masks else "detection",
            "annotation_mode": "folders" if masks else "pascalvoc",
            "output_mode": "folders" if masks else "pascalvoc",
            "generation_mode": "linear",
            "input_path": str(source.folder),
            "parameters": {"outputPath": f"{goal}/", "labelsExtension": ".png"},
            "augmentation_techniques": SINGLE_CLODSA,
        }
        configuration = goal.with_suffix(".json")
        configuration.write_text(json.dumps(words))
        assert self._process.stdin is not None
        self._process.stdin.write(f"{configuration}\n")
        self._process.stdin.flush()
        seconds = float(self._answer())
        folder = goal / "images" if masks else goal
        made = len(list(folder.glob("*.png")))
        if made != source.count * len(SINGLE_CLODSA):
            raise SystemExit(f"CLoDSA wrote {made} images")
        return seconds

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._log.close()


def bring_in(store: ArtifactStore, source: augment_sources.Source, name: str) -> None:
    """Import a folder, all of it for training."""
    options = ImportOptions(name, str(source.folder), split=SplitOptions(1.0, 0.0, 0.0))
    info = import_dataset(options, store, f"datasets/{name}", limits=Limits(), hooks=Hooks()).info
    if info.sample_count != source.count or info.excluded_count:
        raise SystemExit(f"{info.sample_count} of {source.count} images were imported, {info.excluded_count} left out")


def ours(store: ArtifactStore, name: str, plan: AugmentationPlan, executor: ProcessExecutor, target: str) -> None:
    """Augment a dataset as the local stack does."""
    info = DatasetInfo(target, uid="u", create_time="2026-01-01T00:00:00+00:00")
    outcome = augment_dataset(
        store, name, plan, info, staging=f"datasets/{target}", store_options={}, limits=ImageLimits(), executor=executor, checkpoints=Kept(),
        progress=lambda done, total: None,
    )  # fmt: skip
    if outcome.findings or outcome.copies != plan.copies * DatasetReader(store, name).info.sample_count:
        raise SystemExit("samples were not augmented")


def end_to_end(given: argparse.Namespace, root: Path, linear: bool, masks: bool, clodsa: Clodsa | None) -> None:
    """Measure one task in one mode."""
    kind = f"{'linear' if linear else 'sequential'}-{'masks' if masks else 'boxes'}"
    source = (augment_sources.segmentation if masks else augment_sources.detection)(root / kind / "source", given.images)
    store = ArtifactStore(f"file://{root}/{kind}/store")
    bring_in(store, source, "source")
    steps = SINGLE if linear else STEPS
    policy = Policy(tuple(Step(n, p, 1.0 if linear else 0.5) for n, p in steps), mode=Mode.LINEAR if linear else Mode.SEQUENTIAL)
    copies = len(steps)
    plan = AugmentationPlan(policy, copies=copies, drop_originals=True)
    reader = DatasetReader(store, "source")
    folder = reader.uri.removeprefix("file://")
    goal = root / kind / "goal"
    work = [
        augment_pool.PoolWork(
            f"{folder}/{s.path}", f"{folder}/{s.mask_path}" if s.mask_path else "", tuple((b.x, b.y, b.width, b.height) for b in s.boxes),
            steps, linear, copies, str(goal), index,
        )
        for index, s in enumerate(reader.samples())
    ]  # fmt: skip
    both, one = ProcessExecutor(CORES), ProcessExecutor(1)
    job = ShardJob(store.root_uri, {}, "source", "datasets/warm", AugmentationPlan(policy), ImageLimits())
    for executor in (both, one):
        for task in [executor.submit(augment_shard, job, list(reader.samples())[:4]) for _ in range(CORES)]:
            task.result()
    total = source.count * copies
    with get_context("spawn").Pool(CORES) as pool:

        def by_hand() -> None:
            if augment_pool.run(pool, work) != total:
                raise SystemExit("the pool wrote too little")

        def oteo(executor: ProcessExecutor) -> None:
            ours(store, "source", plan, executor, "goal")

        # Each gives its seconds; CLoDSA counts its own, for it is asked over a pipe.
        peers: dict[str, Callable[[], float]] = {}
        if linear and clodsa is not None:
            peers[f"CLoDSA 1.2.48, {CORES} processes"] = lambda: clodsa.run(source, masks, goal)
        peers[f"hand-written pool, {CORES} processes"] = lambda: timed(by_hand)
        peers[f"Oteo, {CORES} workers"] = lambda: timed(lambda: oteo(both))
        peers["Oteo, 1 worker"] = lambda: timed(lambda: oteo(one))
        rows: dict[str, list[float]] = {name: [] for name in peers}
        cpus: dict[str, list[float]] = {name: [] for name in peers}
        alone: list[float] = []
        for number in range(given.repeats + 1):
            for name, run in peers.items():
                cpu, own = tree_cpu_seconds(), time.process_time()
                rate = total / run()
                if number:  # the first round warms up
                    rows[name].append(rate)
                    cpus[name].append((tree_cpu_seconds() - cpu) / total * 1e3)
                    if name.startswith("Oteo"):
                        alone.append((time.process_time() - own) / total * 1e3)
                shutil.rmtree(goal, ignore_errors=True)
                store.delete("datasets/goal")
    both.close()
    one.close()
    names = list(rows)
    headings = {"of CLoDSA": names[0]} if len(names) == 4 else {}
    headings |= {"of the pool": names[-3], "of one worker": names[-1]}
    mode = "8 transforms, one output each" if linear else "8 transforms in a row, each with probability 0.5, 8 outputs"
    table(f"{source.title}; {mode}; PNG in and out", rows, headings, cpus)
    print(
        f"Of Oteo's, {spread(alone, 2)} ms of processor time each are not shared out among workers: cutting, collecting, writing the table."
    )
    shutil.rmtree(root / kind)


def stream(given: argparse.Namespace, root: Path) -> None:
    """The stream against the library."""
    images = [encode_png(augment_sources.picture(index, 512, 512)) for index in range(2 * given.images)]
    chosen = Policy(tuple(Step(name, parameters, 0.5) for name, parameters in STEPS))

    def work(numbered: tuple[int, bytes]) -> None:
        encode_png(augment_image(decode(numbered[1]).pixels, chosen, AugmentationKey(str(numbered[0]))))

    def in_process() -> None:
        with ThreadPoolExecutor(CORES) as threads:
            for _ in threads.map(work, enumerate(images)):
                pass

    settings = AugmentSettings(home=root / "home", allow_anonymous=True, stream_threads=CORES)
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
    table(f"{len(images)} PNGs of 512 x 512, decoded, 8 transforms each with probability 0.5, encoded; {CORES} threads", rows,
          {"of in-process": "library, in-process"})  # fmt: skip


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=("linear", "sequential", "stream"), help="one of the three; all unless given")
    parser.add_argument("--clodsa", default="", help="a Python with CLoDSA 1.2.48; left out of the comparison unless given")
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    cv2.setNumThreads(1)
    print(f"{CORES} cores; load average before: {os.getloadavg()[0]:.1f}; {given.repeats} repeats")
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    clodsa = Clodsa(given.clodsa) if given.clodsa and given.only in (None, "linear") else None
    try:
        with tempfile.TemporaryDirectory(prefix="oteo-bench-", dir=memory) as folder:
            for linear in (True, False):
                if given.only in (None, "linear" if linear else "sequential"):
                    for masks in (False, True):
                        end_to_end(given, Path(folder), linear, masks, clodsa)
            if given.only in (None, "stream"):
                stream(given, Path(folder))
    finally:
        if clodsa is not None:
            clodsa.close()


if __name__ == "__main__":
    main()
