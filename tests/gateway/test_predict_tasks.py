"""Predictions of detection, segmentation and several labels, through a real Triton; and how regions are measured."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import cv2
import grpc
import numpy as np
import pytest
import tifffile
from gateway_support import Loop, deploy, details_of, running_gateway, settings_for
from judged_models import dataset, publish, square
from pycocotools import mask as coco_mask
from sequence_files import dicom
from waiting import patient

from oteo_core.artifacts import open_store
from oteo_core.errors import Internal
from oteo_core.images import decode_labels
from oteo_core.packages import OperatingPoint
from oteo_gateway.prediction.answer import label
from oteo_gateway.prediction.outputs import check_outputs
from oteo_gateway.prediction.regions import diameter, runs_of
from oteo_local.triton import start
from oteo_protos.gateway.v1 import inference_pb2, inference_pb2_grpc

LABELS = {"score_threshold": [0.4, 0.6], "set_threshold": [0.02, 0.0005], "set_coverage": 0.9}
TASKS = {
    "multi_label_classification": ("labels", LABELS),
    "detection": ("boxes", {"score_threshold": 0.5}),
    "semantic_segmentation": ("pixels", {}),
    "instance_segmentation": ("objects", {"score": 0.3}),
    "attentive": ("attentive", {}),
}


@pytest.fixture(scope="module")
def stub(loop: Loop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[inference_pb2_grpc.InferenceServiceStub]:
    home = tmp_path_factory.mktemp("predict-tasks")
    with start(home / "model-repository", timeout=patient(30)) as server:
        settings = settings_for(home, triton_urls=[server.address])
        artifacts = open_store(settings)

        def draw(index: int) -> tuple[np.ndarray, dict[str, object]]:
            pixels, box = square(index)
            return pixels, {"boxes": (box,), "spacing": (0.5, 0.25)}

        dataset(artifacts, "squares", "detection", ("red", "green"), draw, 2)
        for task, (name, decoding) in TASKS.items():
            publish(artifacts, task, name, decoding=decoding, training_size=(64, 64))
        with running_gateway(loop, settings, log_dir=home / "logs") as running:
            deploy(running.channel, [name for name, _ in TASKS.values()])
            yield inference_pb2_grpc.InferenceServiceStub(running.channel)


def ask(
    stub: inference_pb2_grpc.InferenceServiceStub, name: str, image: dict[str, object], **values: object
) -> inference_pb2.PredictResponse:
    return stub.Predict(inference_pb2.PredictRequest(deployment=f"deployments/{name}", image=image, **values), timeout=120)


def png(pixels: np.ndarray) -> bytes:
    return bytes(cv2.imencode(".png", pixels[:, :, ::-1])[1].tobytes())


def test_boxes_in_pixels_of_the_original(stub: inference_pb2_grpc.InferenceServiceStub) -> None:
    pixels, box = square(1)
    answer = ask(stub, "boxes", {"content": png(pixels)}).detection
    (found,) = answer.objects
    assert found.class_name == "green"
    assert found.score == pytest.approx(0.9)
    assert (found.box.x, found.box.y, found.box.width, found.box.height) == (box.x, box.y, box.width, box.height)
    assert dict(answer.counts) == {"green": 1}
    assert not ask(stub, "boxes", {"content": png(pixels)}, score_threshold=0.95).detection.objects
    assert not ask(stub, "boxes", {"content": png(np.zeros_like(pixels))}).detection.objects


@pytest.mark.parametrize("name", ["pixels", "objects"])
def test_regions_with_area_diameter_and_label_image(stub: inference_pb2_grpc.InferenceServiceStub, name: str) -> None:
    _, box = square(0)
    answer = ask(stub, name, {"sample": "datasets/squares/samples/s000"}).segmentation
    (region,) = answer.regions
    assert region.class_name == "red"
    assert region.area == pytest.approx(box.width * box.height, rel=0.25)
    assert region.area_mm2 == pytest.approx(region.area * 0.125)
    assert region.diameter == pytest.approx(np.hypot(box.width, box.height), rel=0.15)
    assert region.diameter_mm == pytest.approx(np.hypot(box.width * 0.5, box.height * 0.25), rel=0.15)
    labels = decode_labels(answer.label_image.content)
    assert labels.shape[:2] == (64, 64)
    assert int((labels == 1).sum()) == region.area
    mask = region.annotation.mask
    drawn = coco_mask.decode(coco_mask.frPyObjects({"size": [64, 64], "counts": list(mask.counts)}, 64, 64))
    np.testing.assert_array_equal(drawn, labels.reshape(64, 64) == 1)
    assert region.annotation.HasField("score") == (name == "objects")


def test_regions_without_spacing_and_of_nothing(stub: inference_pb2_grpc.InferenceServiceStub) -> None:
    pixels, _ = square(3)
    two = np.concatenate([pixels, pixels], axis=1)
    answer = ask(stub, "pixels", {"content": png(two)}).segmentation
    assert [region.class_name for region in answer.regions] == ["green", "green"]
    assert not answer.regions[0].HasField("area_mm2")
    nothing = ask(stub, "objects", {"content": png(np.zeros_like(pixels))}).segmentation
    assert not nothing.regions
    assert not decode_labels(nothing.label_image.content).any()


@pytest.mark.parametrize("spacing", ["PixelSpacing", "ImagerPixelSpacing", "tiff"])
def test_areas_in_millimetres_where_the_bytes_say_how_large_pixels_are(stub: inference_pb2_grpc.InferenceServiceStub, spacing: str) -> None:
    pixels, _ = square(3)
    if spacing == "tiff":
        stream = io.BytesIO()
        tifffile.imwrite(stream, pixels, photometric="rgb", resolution=(20, 10), resolutionunit="CENTIMETER")
        content = stream.getvalue()
    else:
        colour = {"SamplesPerPixel": 3, "PlanarConfiguration": 0, "PhotometricInterpretation": "RGB", "PixelData": pixels.tobytes()}
        content = dicom(pixels[:, :, 0], 0, series="1", **colour, **{"PixelSpacing": None, spacing: [1.0, 0.5]})
    region = ask(stub, "pixels", {"content": content}).segmentation.regions[0]
    assert region.area_mm2 == pytest.approx(region.area * 0.5)
    assert region.diameter_mm > 0.5 * region.diameter


def large() -> np.ndarray:
    pixels = np.zeros((192, 256, 3), np.uint8)
    pixels[20:44, 30:70, 0] = 220
    pixels[110:150, 160:186, 1] = 220
    return pixels


@pytest.mark.parametrize("name", ["boxes", "pixels", "objects"])
def test_a_large_image_by_tiles(stub: inference_pb2_grpc.InferenceServiceStub, name: str) -> None:
    content = {"content": png(large())}
    answer = ask(stub, name, content, tiling=inference_pb2.TILING_ON)
    if name == "boxes":
        found = {item.class_name: (item.box.x, item.box.y, item.box.width, item.box.height) for item in answer.detection.objects}
        assert found["red"] == pytest.approx((30, 20, 40, 24), abs=3)
        assert found["green"] == pytest.approx((160, 110, 26, 40), abs=3)
        # One look at the whole finds one box around both.
        assert len(ask(stub, name, content).detection.objects) == 1
    else:
        areas = {region.class_name: region.area for region in answer.segmentation.regions}
        assert areas == {"red": pytest.approx(960, rel=0.1), "green": pytest.approx(1040, rel=0.1)}
        assert decode_labels(answer.segmentation.label_image.content).shape[:2] == (192, 256)
    assert [finding.code for finding in answer.findings] == ["TILED"]
    assert "IMAGE_SHRUNK" in [finding.code for finding in ask(stub, name, content).findings]
    assert not ask(stub, name, {"content": png(square(0)[0])}, tiling=inference_pb2.TILING_ON).findings


def test_tiles_of_a_classifier_are_refused(stub: inference_pb2_grpc.InferenceServiceStub) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        ask(stub, "labels", {"content": png(large())}, tiling=inference_pb2.TILING_ON)
    assert details_of(caught.value)[0] == "TILING"


def test_masks_as_polygons_or_not_at_all(stub: inference_pb2_grpc.InferenceServiceStub) -> None:
    content = {"content": png(square(0)[0])}
    runs = ask(stub, "pixels", content).segmentation
    outlined = ask(stub, "pixels", content, mask_encoding=inference_pb2.MASK_ENCODING_POLYGONS).segmentation
    bare = ask(stub, "pixels", content, mask_encoding=inference_pb2.MASK_ENCODING_NONE).segmentation
    assert runs.regions[0].area == outlined.regions[0].area == bare.regions[0].area
    (polygon,) = outlined.regions[0].annotation.polygons.polygons
    points = np.array(polygon.points, np.float32).reshape(-1, 2)
    assert cv2.contourArea(points) == pytest.approx(runs.regions[0].area, rel=0.1)
    assert not outlined.regions[0].annotation.HasField("mask")
    box = bare.regions[0].annotation.box
    assert (box.x, box.y) == tuple(points.min(axis=0))
    assert (box.x + box.width, box.y + box.height) == tuple(points.max(axis=0))


@pytest.mark.parametrize("name", ["boxes", "pixels", "objects", "attentive", "labels"])
def test_a_drawing_of_the_answer(stub: inference_pb2_grpc.InferenceServiceStub, name: str) -> None:
    pixels = square(0)[0]
    answer = ask(stub, name, {"content": png(pixels)}, draw=True)
    assert answer.drawing.media_type == "image/png"
    drawn = cv2.imdecode(np.frombuffer(answer.drawing.content, np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1]
    factor = drawn.shape[0] // 64
    assert drawn.shape == (64 * factor, 64 * factor, 3)
    assert (drawn != np.repeat(np.repeat(pixels, factor, axis=0), factor, axis=1)).any()
    assert not ask(stub, name, {"content": png(pixels)}).HasField("drawing")


def test_several_labels_are_decided_class_by_class(stub: inference_pb2_grpc.InferenceServiceStub) -> None:
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[4:8] = 250
    both = pixels.copy()
    both[24:28] = 250
    one = ask(stub, "labels", {"content": png(pixels)}).classification
    assert list(one.decisions) == ["above"]
    assert (one.decision, one.coverage) == ("", 0.9)
    # The other label is too unlikely to be said and too likely to be left out of the set.
    assert set(one.prediction_set) == {"above", "below"}
    assert one.refer
    two = ask(stub, "labels", {"content": png(both)}, top_k=1).classification
    assert set(two.decisions) == {"above", "below"}
    assert len(two.scores) == 1
    assert not two.refer


def test_a_stream_of_several_tasks(stub: inference_pb2_grpc.InferenceServiceStub) -> None:
    content = png(square(1)[0])
    names = ["boxes", "pixels", "objects", "labels"]
    requests = [
        inference_pb2.PredictStreamRequest(key=name, request={"deployment": f"deployments/{name}", "image": {"content": content}})
        for name in names
    ]
    answers = list(stub.PredictStream(iter(requests), timeout=120))
    kinds = [answer.response.WhichOneof("result") for answer in answers]
    assert kinds == ["detection", "segmentation", "segmentation", "classification"]


def test_a_map_of_what_was_looked_at(stub: inference_pb2_grpc.InferenceServiceStub) -> None:
    pixels = np.zeros((60, 90, 3), np.uint8)
    pixels[:30, 45:] = 255
    answer = ask(stub, "attentive", {"content": png(pixels)}, explain=True)
    seen = cv2.imdecode(np.frombuffer(answer.explanation.content, np.uint8), cv2.IMREAD_UNCHANGED)
    assert seen.shape == (60, 90)
    assert seen[:15, 70:].min() > 200
    assert seen[45:].max() < 60
    assert answer.classification.scores
    assert not ask(stub, "attentive", {"content": png(pixels)}).HasField("explanation")


def test_a_map_that_the_model_lacks_is_refused(stub: inference_pb2_grpc.InferenceServiceStub) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        ask(stub, "labels", {"content": png(square(1)[0])}, explain=True)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert details_of(caught.value)[0] == "EXPLANATION"


@pytest.mark.parametrize("seed", range(6))
def test_run_lengths_of_a_window_are_those_of_the_whole_mask(seed: int) -> None:
    rng = np.random.default_rng(seed)
    height, width = int(rng.integers(3, 9)), int(rng.integers(3, 9))
    whole = rng.random((height, width)) < 0.6
    whole[int(rng.integers(height)), int(rng.integers(width))] = True
    rows, columns = np.flatnonzero(whole.any(axis=1)), np.flatnonzero(whole.any(axis=0))
    window = whole[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    counts = runs_of(window, int(columns[0]), int(rows[0]), (width, height))
    flat = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    padded = np.concatenate([flat, np.zeros(height * width - len(flat), bool)])
    np.testing.assert_array_equal(padded.reshape(width, height).T, whole)
    assert all(counts[1:]), "a run of length nothing"


def test_diameter_is_the_longest_distance_between_corners() -> None:
    assert diameter(np.ones((3, 4), bool)) == pytest.approx(5.0)
    assert diameter(np.eye(5, dtype=bool)) == pytest.approx(np.hypot(5, 5))
    assert diameter(np.ones((1, 1), bool), (2.0, 0.5)) == pytest.approx(np.hypot(2.0, 0.5))


def test_an_operating_point_counts_for_its_class(tmp_path: Path) -> None:
    from oteo_core.artifacts import ArtifactStore

    points = [OperatingPoint("above", 0.1, 0.9, 0.9, "sensitivity>=0.9"), OperatingPoint("below", 0.8, 0.9, 0.9, "youden")]
    package = publish(ArtifactStore(f"file://{tmp_path}"), "multi_label_classification", operating_points=points)
    assert label(np.array([0.3, 0.7]), package).decisions == ("below",)
    assert label(np.array([0.3, 0.7]), package, point_name="sensitivity>=0.9").decisions == ("below", "above")
    assert label(np.array([0.3, 0.7]), package, point_name="below/youden").decisions == ()
    with pytest.raises(Internal):
        check_outputs(package, {"probabilities": np.full((1, 2), np.nan, np.float32)})
    with pytest.raises(Internal, match="without probabilities"):
        check_outputs(package, {})
