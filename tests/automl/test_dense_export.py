"""Detectors and segmentations in other forms: what is around their networks is written down and built again, and their answers are in the image's pixels."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from dense_models import POLICY, served
from model_packages import CLASSES, publish_served
from waiting import patient

from oteo_automl.candidates.networks import NetworkClassifier
from oteo_automl.dense.finish import graph_outputs
from oteo_automl.exporting.forms import WRITERS
from oteo_automl.exporting.network_file import load_network, network_files
from oteo_automl.exporting.source import Source
from oteo_automl.packaging.served import ServedClassifier, ServedLabels
from oteo_core.artifacts import ArtifactStore
from oteo_core.exports import FolderSink
from oteo_core.graphs.export import run_onnx
from oteo_core.images import decode, encode_png, prepare
from oteo_core.packages.decoding.detection import confident, decode_detections
from oteo_core.packages.decoding.semantic import decode_class_maps


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Folders of the ONNX and TorchScript forms of every dense task, and a picture."""
    top = tmp_path_factory.mktemp("dense")
    store = ArtifactStore(f"file://{top}/store")
    rng = np.random.default_rng(3)
    pixels = cv2.resize(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8), (70, 90), interpolation=cv2.INTER_CUBIC)
    (top / "picture.png").write_bytes(encode_png(pixels))
    for name in ("detection", "semantic_segmentation", "instance_segmentation"):
        made = served(name)
        model = name.replace("_", "-")
        package = publish_served(store, model, made.module, graph_outputs(made), POLICY, task=name, decoding=made.decoding)
        for form in ("onnx", "torchscript") if name == "detection" else ("onnx",):
            with FolderSink(top / f"{model}-{form}") as sink:
                WRITERS[form](Source(store, package), sink, lambda: None)
    return top, store


def answer(folder: Path, picture: Path) -> dict[str, object]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "predict.py", str(picture)]
    ran = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=patient(40), check=False)
    assert ran.returncode == 0, ran.stderr[-2000:]
    return json.loads(ran.stdout)


def outputs_of(top: Path, store: ArtifactStore, model: str) -> dict[str, np.ndarray]:
    """Give the graph's outputs for the picture, prepared by Oteo."""
    facts = json.loads((top / f"{model}-onnx" / "model.json").read_text())
    batch = prepare(decode((top / "picture.png").read_bytes()).pixels, POLICY)[None]
    return dict(zip(facts["outputs"], run_onnx(store.read_bytes(f"models/{model}/triton/{model}/1/model.onnx"), batch), strict=True))


@pytest.mark.parametrize("form", ["onnx", pytest.param("torchscript", marks=pytest.mark.slow)])
def test_a_detectors_objects_are_in_the_images_pixels(exported, form):
    top, store = exported
    said = answer(top / f"detection-{form}", top / "picture.png")["objects"]
    decoding = served("detection").decoding
    [found] = decode_detections(outputs_of(top, store, "detection"), [(70, 90)], POLICY, decoding)
    wanted = confident(found, decoding)
    assert len(wanted.scores) > 0
    assert [one["class"] for one in said] == [CLASSES[label] for label in wanted.labels]
    np.testing.assert_allclose([one["score"] for one in said], wanted.scores, atol=1e-4)
    np.testing.assert_allclose([one["box"] for one in said], wanted.boxes, atol=0.1)


def test_a_segmentations_pixels_are_the_images(exported):
    top, store = exported
    said = answer(top / "semantic-segmentation-onnx", top / "picture.png")["pixels"]
    [wanted] = decode_class_maps(outputs_of(top, store, "semantic-segmentation"), [(70, 90)], POLICY, {})
    assert said == {name: int((wanted.labels == index + 1).sum()) for index, name in enumerate(CLASSES)}
    assert sum(said.values()) > 0
    raw = answer(top / "instance-segmentation-onnx", top / "picture.png")["outputs"]
    assert raw == {"probabilities": [4, 32, 64], "heights": [32, 64]}


def test_every_dense_form_says_what_its_outputs_are(exported):
    top, _ = exported
    for model, words in (
        ("detection", "left, top, right, bottom"),
        ("semantic-segmentation", "background first"),
        ("instance-segmentation", "heights"),
    ):
        assert words in (top / f"{model}-onnx" / "README.md").read_text()


def plain() -> NetworkClassifier:
    torch.manual_seed(1)
    return NetworkClassifier("resnet10t", 3, 3, [0.5] * 3, [0.25] * 3).eval()


@pytest.mark.parametrize(
    "module",
    [
        lambda: ServedClassifier(plain(), 2.0, maps=True),
        lambda: ServedLabels(plain(), [1.5, 0.5, 1.0], [0.2, -0.3, 0.0]),
        *(lambda task=task: served(task).module for task in ("detection", "semantic_segmentation", "instance_segmentation")),
    ],
)
def test_what_is_kept_is_the_module_that_was_served(module):
    made = module().eval()
    again = load_network(network_files(made)["network.pt"])
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 32, 64, 3), dtype=np.uint8))
    with torch.inference_mode():
        for ours, theirs in zip(again(image), made(image), strict=True):
            torch.testing.assert_close(ours, theirs)
