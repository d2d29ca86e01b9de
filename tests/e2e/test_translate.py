"""A shift measured and undone on the running stack: real Ray, a real Triton, through the gateway."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest

from oteo_core.images import decode, encode_png
from oteo_core.sampledata import draw_cell, draw_cells
from oteo_protos.augment.v1 import dataset_pb2
from oteo_protos.gateway.v1 import deployment_pb2, inference_pb2
from oteo_protos.translate.v1 import translate_pb2 as pb
from oteo_protos.type.v1 import image_pb2


@pytest.fixture(scope="module")
def dark(served, calls, tmp_path_factory) -> str:
    """Import the cells of another lamp: new ones, at half the light and blueish."""
    drawn = draw_cells(tmp_path_factory.mktemp("dark"), count=48, size=96, seed=99, flaws=False)
    for path in drawn.folder.rglob("*.png"):
        image = cv2.imread(str(path)).astype(np.float32) * (0.65, 0.5, 0.45)
        cv2.imwrite(str(path), np.rint(image).astype(np.uint8))
    request = dataset_pb2.ImportDatasetRequest(
        source_uri=str(drawn.folder), dataset_id=f"dark-{served.response.model.name.rpartition('-')[2]}"
    )
    return calls.result(calls.datasets.ImportDataset(request)).dataset.name


@pytest.fixture(scope="module")
def translator(served, calls, dark) -> pb.Translator:
    """Find what brings them back."""
    model = served.response.model
    request = pb.TrainTranslatorRequest(
        home_dataset=model.dataset, shifted_dataset=dark, model=model.name, methods=["moments", "reinhard"], display_name="Lamp"
    )
    request.budget.FromSeconds(90)
    return calls.result(calls.translate.TrainTranslator(request), seconds=60).translator


def test_another_lamp_is_noticed(served, calls, dark):
    found = calls.result(calls.translate.MeasureShift(pb.MeasureShiftRequest(model=served.response.model.name, dataset=dark)), seconds=60)
    assert found.kind in (pb.SHIFT_KIND_COVARIATE, pb.SHIFT_KIND_BOTH)
    assert {test.feature for test in found.tests} >= {"intensity", "output", "embedding"}
    assert len(found.extreme_samples) == 10


def test_ways_are_tried_and_the_choice_is_proved_on_triton(translator):
    tried = {one.method for one in translator.evidence if one.HasField("score")}
    assert tried >= {"nothing", "moments", "reinhard"}
    folder = Path(urlsplit(translator.package_uri).path)
    manifest = json.loads((folder / "translator.json").read_text())
    assert manifest["details"]["parity_images"] > 0
    assert manifest["details"]["parity_error"] <= 1.0
    assert (folder / "report.html").read_text().count("data:image") >= 2


def test_a_dataset_and_single_images_are_as_light_as_home_again(calls, dark, translator):
    request = pb.TranslateDatasetRequest(translator=translator.name, dataset=dark, allow_rejected=True)
    made = calls.result(calls.translate.TranslateDataset(request))
    assert made.sample_count == 48
    bright = draw_cell(3, size=96)[0]
    spoilt = np.rint(bright * (0.45, 0.5, 0.65)).astype(np.uint8)
    messages = [
        pb.TranslateImagesRequest(settings={"translator": translator.name, "allow_rejected": True}),
        pb.TranslateImagesRequest(item={"key": "cell", "image": image_pb2.ImageSource(content=encode_png(spoilt))}),
    ]
    (answer,) = list(calls.translate.TranslateImages(iter(messages), timeout=60))
    found = decode(answer.image.content).pixels.astype(float)
    assert np.abs(found.mean((0, 1)) - bright.mean((0, 1))).max() < 0.4 * np.abs(spoilt.mean((0, 1)) - bright.mean((0, 1))).max()


def test_a_deployment_uses_it_if_it_passed_its_gate_and_says_so(served, calls, translator):
    request = deployment_pb2.CreateDeploymentRequest(
        deployment_id="adapted",
        deployment={
            "models": [{"model": served.response.model.name, "alias": "champion"}],
            "adapt": inference_pb2.ADAPT_MODE_AUTO,
            "translator": translator.name,
        },
    )
    if translator.verdict != pb.Translator.VERDICT_ACCEPTED:
        assert calls.refusal(lambda: calls.deployments.CreateDeployment(request)).reason == "TRANSLATOR_NOT_ACCEPTED"
        return
    assert calls.result(calls.deployments.CreateDeployment(request)).state == deployment_pb2.Deployment.STATE_READY

    def ask(pixels: np.ndarray) -> inference_pb2.PredictResponse:
        source = image_pb2.ImageSource(content=encode_png(pixels))
        return calls.inference.Predict(inference_pb2.PredictRequest(deployment="deployments/adapted", image=source), timeout=60)

    # A test of single images at .05 errs on one in twenty of either kind.
    home = [draw_cell(index, size=96)[0] for index in range(8)]
    adapted = [ask(np.rint(image * (0.45, 0.5, 0.65)).astype(np.uint8)) for image in home]
    usual = [ask(image) for image in home]
    assert sum(answer.translator == translator.name for answer in adapted) >= 6
    assert sum(answer.translator == "" for answer in usual) >= 6
    for answer in (*adapted, *usual):
        said = {finding.code for finding in answer.findings}
        assert answer.alias == "champion"
        assert ("TRANSLATED" in said) == (answer.translator != "")
        assert ("NOT_TRANSLATED" in said) == (answer.translator == "")
    calls.deployments.DeleteDeployment(deployment_pb2.DeleteDeploymentRequest(name="deployments/adapted"))
