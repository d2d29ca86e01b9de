"""Whole trainings of classifiers in this process, on drawn datasets of any shape and damage."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import any_pb2
from numpy.typing import NDArray
from training_tools import RuntimeParity, working_time

from oteo_automl import train_classification, train_dense, train_job
from oteo_automl.settings import AutoMLSettings
from oteo_core.artifacts import ArtifactStore
from oteo_core.datasets import DatasetInfo, DatasetReader, DatasetWriter, Sample
from oteo_core.images import encode_png, perceptual_hash, pixel_digest
from oteo_core.jobs.testing import run_handler
from oteo_core.operations.ids import new_operation_id
from oteo_core.operations.model import unpack
from oteo_core.packages import ModelPackage, read_model
from oteo_protos.automl.v1 import automl_pb2

Picture = Callable[[int, np.random.Generator], NDArray[Any]]


def stripes(kind: int, rng: np.random.Generator, size: int = 32) -> NDArray[np.uint8]:
    """Draw lying (kind 0), standing (1) or slanting (2) stripes in noise, ``(size, size, 3)``."""
    y, x = np.mgrid[:size, :size]
    wave = np.sin((y, x, x + y)[kind % 3] * 2 * np.pi / 8 + rng.uniform(0, 6))
    grey = 128 + 60 * wave[..., None] + rng.normal(0, 25, (size, size, 3))
    return np.clip(grey, 0, 255).astype(np.uint8)


class Home:
    """A store with drawn datasets, and trainings on them.

    Parameters
    ----------
    folder
        Of the store.
    """

    def __init__(self, folder: Path) -> None:
        # Nobody listens there: trainings go on without MLflow.
        self.settings = AutoMLSettings(
            home=folder, artifacts=f"file://{folder}/artifacts", mlflow_uri="http://127.0.0.1:9", mlflow_timeout=1
        )
        self.store = ArtifactStore(self.settings.artifacts)

    def dataset(
        self,
        name: str,
        counts: Mapping[str, tuple[int, int, int]],
        *,
        picture: Picture = stripes,
        group: Callable[[str, int], str] = lambda _class, _number: "",
        damage: Sequence[str] = (),
    ) -> str:
        """Draw a dataset; `counts` are training, validation and test images of each class; files of samples in `damage` are broken afterwards."""
        rng = np.random.default_rng(7)
        info = DatasetInfo(id=name, task="classification", classes=list(counts))
        paths = {}
        with DatasetWriter(self.store, f"datasets/{name}", info) as writer:
            for kind, (label, parts) in enumerate(counts.items()):
                splits = [part for part, count in zip(("train", "validation", "test"), parts, strict=True) for _ in range(count)]
                for number, split in enumerate(splits):
                    pixels = picture(kind, rng)
                    data = encode_png(pixels)
                    identity = f"{label}-{number:04d}"
                    paths[identity] = writer.add_media(f"{identity}.png", data)
                    writer.add(
                        Sample(
                            id=identity,
                            path=paths[identity],
                            source_path=f"in/{identity}.png",
                            sha256=hashlib.sha256(data).hexdigest(),
                            pixel_digest=pixel_digest(pixels),
                            phash=perceptual_hash(pixels),
                            width=pixels.shape[1],
                            height=pixels.shape[0],
                            channels=pixels.shape[2],
                            dtype=pixels.dtype.name,
                            split=split,
                            labels=(label,),
                            group=group(label, number),
                        )
                    )
            writer.finish()
        for identity in damage:
            path = f"datasets/{name}/{paths[identity]}"
            whole = self.store.read_bytes(path)
            self.store.write_bytes(path, whole[: len(whole) // 3])
        return f"datasets/{name}"

    def train(
        self, dataset: str, seconds: float = 30, operation: str = "", *, wall: bool = False, **fields: Any
    ) -> automl_pb2.TrainModelResponse:
        """Run a training as its job would; its budget counts the time in which this process works, with `wall` all time."""
        request = automl_pb2.TrainModelRequest(dataset=dataset, **fields)
        request.budget.FromMilliseconds(round(1000 * seconds))
        model = fields.get("model_id", dataset.removeprefix("datasets/"))
        packed = any_pb2.Any()
        packed.Pack(automl_pb2.TrainModelMetadata(dataset=dataset, model=f"models/{model}"))
        operation = operation or new_operation_id("train")
        self.store.write_bytes(f"operations/{operation}/progress.binpb", packed.SerializeToString())
        with nullcontext() if wall else working_time():
            answer = run_handler(train_job.TRAIN, request, settings=self.settings, artifacts=self.store, operation_id=operation)
        response = unpack(answer)
        assert isinstance(response, automl_pb2.TrainModelResponse)
        return response

    def media(self, dataset: str, sample: str, *, mask: bool = False) -> str:
        """Give the path of a sample's file in the store."""
        row = DatasetReader(self.store, dataset).sample(sample)
        return f"datasets/{dataset}/{row.mask_path if mask else row.path}"

    def package(self, response: automl_pb2.TrainModelResponse) -> ModelPackage:
        """Read what was published."""
        return read_model(self.store, response.model.name)

    def report(self, response: automl_pb2.TrainModelResponse) -> str:
        """Read the published report."""
        return self.store.read_bytes(f"{response.model.name}/report.html").decode()


def inline_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """Give a home of its own; pieces run in this process."""
    monkeypatch.setenv("OTEO_EXECUTOR", "inline")
    for module in (train_classification, train_dense):
        monkeypatch.setattr(module, "TritonParityClient", RuntimeParity)
    return Home(tmp_path)
