"""Where adapting the model is what helps, a model package comes of it, deployed as any model is; images stay as they are."""

from __future__ import annotations

import uuid

import numpy as np
import pytest
from frozen_models import domain, frozen
from google.protobuf import any_pb2
from shift_sets import write
from training_tools import RuntimeParity

from oteo_core.artifacts import open_store
from oteo_core.graphs.programs import PROGRAM
from oteo_core.jobs import files
from oteo_core.jobs.testing import run_handler
from oteo_core.operations.ids import new_operation_id
from oteo_core.packages import PackageFile, read_model
from oteo_core.packages.translators import MODEL, check_usable, read_translator
from oteo_protos.translate.v1 import translate_pb2 as pb
from oteo_translate import train_job
from oteo_translate.settings import TranslateSettings
from oteo_translate.tasks.model import open_task_model


def publish(store, model) -> None:
    """Publish a frozen model as automl does."""
    package = model.package
    contents = {
        f"{package.triton_path}/1/model.onnx": model.graph,
        f"{package.triton_path}/config.pbtxt": b"",
        PROGRAM: model.network.to_bytes(),
    }
    for name, content in contents.items():
        store.write_bytes(f"models/{package.id}/{name}", content)
        package.files[name] = PackageFile("0" * 64, len(content))
    store.write_bytes(f"models/{package.id}/package.json", package.to_json())


def test_an_adapted_model_is_published_beside_the_translator_that_names_it(tmp_path, monkeypatch):
    monkeypatch.setattr(train_job, "TritonParityClient", RuntimeParity)
    monkeypatch.setenv("OTEO_EXECUTOR", "inline")
    settings = TranslateSettings(home=tmp_path, allow_anonymous=True)
    store = open_store(settings)
    model = frozen("semantic_segmentation")
    publish(store, model)
    sets = {"home": domain("semantic_segmentation", 16, 4), "dim": domain("semantic_segmentation", 24, 3, name="dim")}
    for name, one in sets.items():
        images = [np.asarray(image) if name == "home" else dimmed(image) for image in one.images]
        write(
            store, name, images, task="semantic_segmentation", classes=model.package.classes, masks=[truth.labels for truth in one.truths]
        )
    request = pb.TrainTranslatorRequest(
        home_dataset="datasets/home",
        shifted_dataset="datasets/dim",
        model=model.package.name,
        methods=["adabn"],
        request_id=str(uuid.uuid4()),
    )
    request.budget.FromSeconds(120)
    operation = new_operation_id("test")
    packed = any_pb2.Any()
    packed.Pack(pb.TrainTranslatorMetadata(translator="translators/awake"))
    store.write_bytes(f"{files.folder(operation)}/{files.PROGRESS}", packed.SerializeToString())
    response = pb.TrainTranslatorResponse()
    assert run_handler(train_job.TRAIN, request, settings=settings, artifacts=store, operation_id=operation).Unpack(response)
    assert response.translator.verdict == pb.Translator.VERDICT_ACCEPTED, response.translator.reason
    assert response.translator.changes == pb.Translator.CHANGES_MODEL
    translator = read_translator(store, "awake")
    assert translator.changes == MODEL
    with pytest.raises(Exception, match="adapts the model"):
        check_usable(translator, allow_rejected=True)
    adapted = read_model(store, translator.details["adapted_model"])
    assert adapted.id == "awake"
    assert adapted.labels["adapted_from"] == model.package.name
    assert not adapted.metrics
    assert adapted.digest != model.package.digest
    again = open_task_model(store, adapted)
    dim = dimmed(sets["dim"].images)
    assert again.total(sets["dim"].truths, again.answers(dim)) > model.total(sets["dim"].truths, model.answers(dim)) + 0.25
    config = store.read_bytes(f"models/awake/{adapted.triton_path}/config.pbtxt").decode()
    assert f'"{adapted.digest}"' in config


def dimmed(images: np.ndarray) -> np.ndarray:
    """Make images darker and paler."""
    return (images * 0.45 + 20).astype(np.uint8)
