"""What Predict answers by a real Triton is what the package's own graph answers where it was judged, for every task."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gateway_support import Loop, deploy, running_gateway, settings_for
from judged_models import MODELS, dataset, publish
from pycocotools import mask as coco_mask
from waiting import patient

from oteo_automl.evaluate_job import EVALUATE
from oteo_automl.predictions.formats import read_predictions
from oteo_automl.predictions.records import PredictionSet
from oteo_automl.settings import AutoMLSettings
from oteo_core.artifacts import ArtifactStore, open_store
from oteo_core.datasets import Box, DatasetReader, MaskEncoding
from oteo_core.images import decode_labels
from oteo_core.jobs.testing import run_handler
from oteo_local.triton import start
from oteo_protos.automl.v1 import automl_pb2
from oteo_protos.gateway.v1 import inference_pb2, inference_pb2_grpc

DECODING: dict[str, dict[str, Any]] = {
    "classification": {},
    "multi_label_classification": {"score_threshold": [0.4, 0.6]},
    "detection": {"score_threshold": 0.5},
    "semantic_segmentation": {"smallest": [3, 3]},
    "instance_segmentation": {"score": 0.3},
}
SIZES = ((64, 64), (37, 81), (150, 90), (33, 32))


def picture(index: int) -> tuple[np.ndarray, Box, np.ndarray]:
    """A bright rectangle on noise; of different sizes, and none in every fifth picture."""
    rng = np.random.default_rng(index)
    height, width = SIZES[index % len(SIZES)]
    pixels = rng.integers(0, 60, (height, width, 3), dtype=np.uint8)
    left, top = int(rng.integers(1, width // 3)), int(rng.integers(1, height // 3))
    wide, high = int(rng.integers(8, width // 2)), int(rng.integers(8, height // 2))
    mask = np.zeros((height, width), np.uint8)
    if index % 5 != 4:
        pixels[top : top + high, left : left + wide, index % 2] = 220
        mask[top : top + high, left : left + wide] = 1 + index % 2
    return pixels, Box(("red", "green")[index % 2], left, top, wide, high), mask


def drawn(task: str, index: int) -> tuple[np.ndarray, dict[str, Any]]:
    pixels, box, mask = picture(index)
    fields: dict[str, Any] = {
        "classification": {"labels": (("dark", "middle", "light")[index % 3],)},
        "multi_label_classification": {"labels": ("above",)},
        "detection": {"boxes": (box,)},
        "semantic_segmentation": {"mask": mask},
        "instance_segmentation": {"mask": mask},
    }[task]
    return pixels, fields


@pytest.fixture(scope="module")
def served(
    loop: Loop, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[ArtifactStore, Path, inference_pb2_grpc.InferenceServiceStub]]:
    home = tmp_path_factory.mktemp("package-answers")
    with start(home / "model-repository", timeout=patient(30)) as server:
        settings = settings_for(home, triton_urls=[server.address])
        store = open_store(settings)
        for task, decoding in DECODING.items():
            classes = MODELS[task][1]
            mask = MaskEncoding("class", (1, 2)) if task.endswith("segmentation") else None
            dataset(store, task.replace("_", "-"), task, classes, lambda index, task=task: drawn(task, index), 10, mask=mask)
            publish(store, task, task.replace("_", "-"), decoding=decoding)
        with running_gateway(loop, settings, log_dir=home / "logs") as running:
            names = [task.replace("_", "-") for task in DECODING]
            deploy(running.channel, names)
            deploy(running.channel, names, variant="MODEL_VARIANT_BF16")
            yield store, home, inference_pb2_grpc.InferenceServiceStub(running.channel)


def own_answers(store: ArtifactStore, home: Path, task: str) -> PredictionSet:
    """What EvaluateModel writes: the package's graph run by ONNX Runtime in automl."""
    name = task.replace("_", "-")
    form = "PREDICTION_FORMAT_COCO" if task in ("detection", "semantic_segmentation", "instance_segmentation") else "PREDICTION_FORMAT_CSV"
    request = automl_pb2.EvaluateModelRequest(name=f"models/{name}", dataset=f"datasets/{name}", prediction_formats=[form])
    settings = AutoMLSettings(home=home / "automl", artifacts=store.root_uri)
    packed = run_handler(EVALUATE, request, settings=settings, artifacts=store, operation_id=f"automl-{name}", attempt=1)
    response = automl_pb2.EvaluateModelResponse()
    assert packed.Unpack(response)
    (file,) = response.predictions
    folder = f"evaluations/automl-{name}"
    return read_predictions(store.read_bytes, f"{folder}/{file.uri.rsplit('/', 1)[1]}", classes=MODELS[task][1])


def by_sample(found: PredictionSet) -> dict[str, Any]:
    return {record.sample: answer for record, answer in zip(found.images, found.answers, strict=True)}


@pytest.mark.parametrize("task", list(DECODING))
def test_predict_answers_as_the_package_does(
    served: tuple[ArtifactStore, Path, inference_pb2_grpc.InferenceServiceStub], task: str
) -> None:
    store, home, stub = served
    name, classes = task.replace("_", "-"), MODELS[task][1]
    own = by_sample(own_answers(store, home, task))
    samples = list(DatasetReader(store, name).samples())
    assert len(own) == len(samples) == 10
    for sample in samples:
        by_name = inference_pb2.PredictRequest(deployment=f"deployments/{name}", image={"sample": f"datasets/{name}/samples/{sample.id}"})
        by_bytes = inference_pb2.PredictRequest(
            deployment=f"deployments/{name}", image={"content": DatasetReader(store, name).read_media(sample)}
        )
        for request in (by_name, by_bytes):
            answer = stub.Predict(request, timeout=120)
            expected = own[sample.id]
            if answer.WhichOneof("result") == "classification":
                given = {score.class_name: score.probability for score in answer.classification.scores}
                assert [given[one] for one in classes] == pytest.approx(list(expected), abs=1e-5)
            elif answer.WhichOneof("result") == "detection":
                assert [one.class_name for one in answer.detection.objects] == [classes[number] for number in expected.labels]
                boxes = [(b.x, b.y, b.x + b.width, b.y + b.height) for b in (one.box for one in answer.detection.objects)]
                assert np.allclose(np.array(boxes).reshape(-1, 4), expected.boxes.reshape(-1, 4), atol=0.02)
                assert [one.score for one in answer.detection.objects] == pytest.approx(list(expected.scores), abs=1e-4)
            else:
                labels = decode_labels(answer.segmentation.label_image.content).reshape(sample.height, sample.width)
                there = expected.labels if task == "semantic_segmentation" else expected.ids
                assert ((labels > 0) == (there > 0)).all()
                for region in answer.segmentation.regions:
                    mask = region.annotation.mask
                    rle = coco_mask.frPyObjects({"size": [mask.height, mask.width], "counts": list(mask.counts)}, mask.height, mask.width)
                    inside = coco_mask.decode(rle) > 0
                    if task == "semantic_segmentation":
                        assert set(np.unique(there[inside])) == {classes.index(region.class_name) + 1}
                    else:
                        (number,) = np.unique(there[inside])
                        assert classes[int(expected.labels[number - 1])] == region.class_name


@pytest.mark.parametrize("task", list(DECODING))
def test_a_deployment_of_the_bfloat16_variant_answers_nearly_as_the_model_does(
    served: tuple[ArtifactStore, Path, inference_pb2_grpc.InferenceServiceStub], task: str
) -> None:
    store, _, stub = served
    name = task.replace("_", "-")
    for sample in list(DatasetReader(store, name).samples())[:4]:
        image = {"sample": f"datasets/{name}/samples/{sample.id}"}
        plain, rounded = (
            stub.Predict(inference_pb2.PredictRequest(deployment=f"deployments/{name}{end}", image=image), timeout=120)
            for end in ("", "-bf16")
        )
        assert rounded.model == plain.model == f"models/{name}"
        if rounded.WhichOneof("result") == "classification":
            pairs = [{score.class_name: score.probability for score in one.classification.scores} for one in (plain, rounded)]
            assert pairs[0] == pytest.approx(pairs[1], abs=0.02)
        elif rounded.WhichOneof("result") == "detection":
            found = [[(one.class_name, one.box.x, one.box.width) for one in answer.detection.objects] for answer in (plain, rounded)]
            assert [one[0] for one in found[0]] == [one[0] for one in found[1]]
            # Eight bits of a place of up to 32 pixels, in an image of up to 150.
            assert np.allclose([one[1:] for one in found[0]], [one[1:] for one in found[1]], atol=1.0)
        else:
            labels = [decode_labels(answer.segmentation.label_image.content) for answer in (plain, rounded)]
            assert ((labels[0] > 0) == (labels[1] > 0)).mean() > 0.98
