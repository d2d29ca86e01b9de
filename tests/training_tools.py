"""Trainings in this process: the job's own code, with ONNX Runtime answering where a Triton would."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from google.protobuf import any_pb2

from oteo_automl import train_classification, train_dense
from oteo_automl.settings import AutoMLSettings
from oteo_automl.train_job import TRAIN
from oteo_core.artifacts import ArtifactStore
from oteo_core.datasets import Box, DatasetInfo, DatasetWriter, MaskEncoding, Sample
from oteo_core.graphs.export import session
from oteo_core.images import encode_png
from oteo_core.jobs import files
from oteo_core.jobs.testing import run_handler
from oteo_core.operations.ids import new_operation_id
from oteo_protos.automl.v1 import automl_pb2


class RuntimeParity:
    """A parity client that serves by ONNX Runtime; the real Triton is asked in the end-to-end tests."""

    def __init__(self, url: str = "") -> None:
        self._graphs: dict[str, bytes] = {}

    def close(self) -> None:
        pass

    def load(self, name: str, config: str, files: Mapping[str, bytes]) -> None:
        self._graphs[name] = files["1/model.onnx"]

    def infer(self, name: str, images: np.ndarray, outputs: list[str]) -> list[np.ndarray]:
        return session(self._graphs[name]).run(list(outputs), {"image": np.ascontiguousarray(images)})

    def unload(self, name: str) -> None:
        self._graphs.pop(name, None)


@contextmanager
def working_time() -> Iterator[None]:
    """Have `time.time` and `time.perf_counter` pass only while this process works: what others take of a shared machine is not taken out of a budget.

    For work in this process alone, which waits for nothing: a wait would have no end.
    """
    worked = time.process_time()
    clocks = {name: (getattr(time, name), getattr(time, name)()) for name in ("time", "perf_counter")}
    with pytest.MonkeyPatch.context() as patch:
        for name, (wall, began) in clocks.items():
            patch.setattr(time, name, lambda wall=wall, began=began: began + min(wall() - began, time.process_time() - worked))
        yield


def train(
    monkeypatch: pytest.MonkeyPatch,
    store: ArtifactStore,
    home: Path,
    dataset: str,
    *,
    model: str = "made",
    seconds: int = 30,
    **fields: Any,
) -> automl_pb2.TrainModelResponse:
    """Train as the job does and give its response."""
    monkeypatch.setenv("OTEO_EXECUTOR", "inline")
    for module in (train_classification, train_dense):
        monkeypatch.setattr(module, "TritonParityClient", RuntimeParity)
    # Nobody listens there: trials are in the package alone.
    settings = AutoMLSettings(home=home, artifacts=store.root_uri, mlflow_uri="http://127.0.0.1:9", allow_anonymous=True)
    request = automl_pb2.TrainModelRequest(dataset=f"datasets/{dataset}", **fields)
    request.budget.seconds = seconds
    operation = new_operation_id("test")
    packed = any_pb2.Any()
    packed.Pack(automl_pb2.TrainModelMetadata(dataset=request.dataset, model=f"models/{model}"))
    store.write_bytes(f"{files.folder(operation)}/{files.PROGRESS}", packed.SerializeToString())
    response = automl_pb2.TrainModelResponse()
    with working_time():
        assert run_handler(TRAIN, request, settings=settings, artifacts=store, operation_id=operation).Unpack(response)
    return response


def draw_discs(
    rng: np.random.Generator, side: int = 64, channels: int = 1, most: int = 4
) -> tuple[np.ndarray, list[tuple[int, int, int, int]]]:
    """Draw light and dark discs on noise, apart from each other; give the image and (x, y, radius, kind) of each."""
    image = rng.normal(110, 12, (side, side, channels))
    discs: list[tuple[int, int, int, int]] = []
    for _ in range(int(rng.integers(0, most + 1))):
        radius = int(rng.integers(5, 9))
        x, y = (int(v) for v in rng.integers(radius + 1, side - radius - 1, 2))
        if any((x - a) ** 2 + (y - b) ** 2 < (radius + r + 2) ** 2 for a, b, r, _ in discs):
            continue
        kind = int(rng.integers(0, 2))
        mask = np.zeros((side, side), np.uint8)
        cv2.circle(mask, (x, y), radius, 1, -1)
        image[mask == 1] += 80 if kind else -80
        discs.append((x, y, radius, kind))
    return np.clip(image, 0, 255).astype(np.uint8), discs


KINDS = ("dark", "light")


def write_discs(
    store: ArtifactStore, task: str, *, count: int = 60, side: int = 64, channels: int = 1, name: str = "discs", seed: int = 0
) -> str:
    """Write a dataset of discs: boxes for detection, masks by class or by object for segmentation."""
    rng = np.random.default_rng(seed)
    encoding = {
        "semantic_segmentation": MaskEncoding("class", (1, 2)),
        "instance_segmentation": MaskEncoding("instance"),
    }.get(task)
    classes = ("disc",) if task == "instance_segmentation" else KINDS
    info = DatasetInfo(id=name, display_name="Discs", task=task, classes=classes, mask=encoding)
    with DatasetWriter(store, f"datasets/{name}", info) as writer:
        for index in range(count):
            image, discs = draw_discs(rng, side, channels)
            sample = Sample(
                id=f"s{index}",
                path=writer.add_media(f"{index}.png", encode_png(image)),
                source_path=f"{index}.png",
                width=side,
                height=side,
                channels=channels,
                dtype="uint8",
                split=("train", "train", "train", "validation", "test")[index % 5],
            )
            if encoding is None:
                sample.boxes = tuple(Box(KINDS[k], x - r, y - r, 2 * r + 1, 2 * r + 1) for x, y, r, k in discs)
            else:
                mask = np.zeros((side, side), np.uint8)
                for number, (x, y, r, kind) in enumerate(discs):
                    cv2.circle(mask, (x, y), r, kind + 1 if encoding.kind == "class" else number + 1, -1)
                sample.mask_path = writer.add_media(f"{index}-mask.png", encode_png(mask[:, :, None]))
            writer.add(sample)
        writer.finish()
    return name
