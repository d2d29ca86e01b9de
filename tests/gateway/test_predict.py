"""Predictions: what comes back, what is refused, and that a stream survives its worst image."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import grpc
import numpy as np
import pytest
from gateway_support import CLASSES, Loop, RunningGateway, details_of, picture, publish_model, running_gateway, settings_for
from google.longrunning import operations_pb2, operations_pb2_grpc
from waiting import patient, wait_for

from oteo_core.artifacts import ArtifactStore, open_store
from oteo_core.datasets import DatasetInfo, DatasetWriter, Sample
from oteo_core.datasets.named_images import ImageStore
from oteo_core.errors import InvalidArgument, ResourceExhausted
from oteo_core.packages import Conformal, OperatingPoint
from oteo_gateway.prediction.admission import Admission
from oteo_gateway.prediction.answer import classify, decide
from oteo_local.triton import start
from oteo_protos.gateway.v1 import deployment_pb2, deployment_pb2_grpc, inference_pb2, inference_pb2_grpc
from oteo_protos.type.v1 import image_pb2


@dataclass
class Site:
    running: RunningGateway
    artifacts: ArtifactStore
    home: Path

    def __post_init__(self) -> None:
        self.stub = inference_pb2_grpc.InferenceServiceStub(self.running.channel)

    def predict(self, image: image_pb2.ImageSource, **values: object) -> inference_pb2.PredictResponse:
        return self.stub.Predict(inference_pb2.PredictRequest(deployment="deployments/colours", image=image, **values), timeout=60)

    def refused(self, image: image_pb2.ImageSource, **values: object) -> tuple[grpc.StatusCode, str]:
        with pytest.raises(grpc.RpcError) as caught:
            self.predict(image, **values)
        return caught.value.code(), details_of(caught.value)[0]


@pytest.fixture(scope="module")
def site(loop: Loop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    home = tmp_path_factory.mktemp("predict")
    with start(home / "model-repository", timeout=patient(30)) as server:
        settings = settings_for(home, triton_urls=[server.address], max_image_pixels=1_000_000)
        artifacts = open_store(settings)
        publish_model(artifacts, "colours")
        with running_gateway(loop, settings, log_dir=home / "logs") as running:
            deployment = deployment_pb2.Deployment(models=[deployment_pb2.DeployedModel(model="models/colours")])
            stub = deployment_pb2_grpc.DeploymentServiceStub(running.channel)
            operation = stub.CreateDeployment(deployment_pb2.CreateDeploymentRequest(deployment=deployment), timeout=60)
            operations = operations_pb2_grpc.OperationsStub(running.channel)
            wait_for(lambda: operations.GetOperation(operations_pb2.GetOperationRequest(name=operation.name), timeout=60).done, 40)
            yield Site(running, artifacts, home)


def _encoded(ending: str, pixels: np.ndarray) -> bytes:
    return bytes(cv2.imencode(ending, pixels)[1].tobytes())


@pytest.mark.parametrize("ending", [".png", ".jpg", ".tiff"])
def test_answer_says_class_set_model_image_and_times(site: Site, ending: str) -> None:
    pixels = np.zeros((30, 40, 3), dtype=np.uint8)
    pixels[:, :, 0] = 250  # blue, as OpenCV writes it
    content = _encoded(ending, pixels)
    response = site.predict(image_pb2.ImageSource(content=content), top_k=2)
    result = response.classification
    assert next(score.class_name for score in result.scores) == "blue"
    assert len(result.scores) == 2
    assert result.scores[0].probability > 0.99
    assert list(result.prediction_set) == ["blue"]
    assert (result.decision, result.refer, result.coverage) == ("blue", False, 0.9)
    assert (response.model, response.deployment, response.model_version) == ("models/colours", "deployments/colours", "1")
    assert (response.image.width, response.image.height, response.image.channels, response.image.bit_depth) == (40, 30, 3, 8)
    assert len(response.image.sha256) == 64
    total = response.timing.total.ToNanoseconds()
    assert 0 < response.timing.decode.ToNanoseconds() < total
    assert 0 < response.timing.inference.ToNanoseconds() < total
    assert response.shift.distance > 3, "a flat blue image is far from noise"
    assert response.shift.p_value < 0.1


def test_uncertain_image_is_referred(site: Site) -> None:
    grey = np.full((20, 20, 3), 128, dtype=np.uint8)
    result = site.predict(image_pb2.ImageSource(content=_encoded(".png", grey))).classification
    assert [score.probability for score in result.scores] == pytest.approx([1 / 3] * 3, abs=1e-5)
    assert result.refer


def test_sixteen_bit_tiff_keeps_its_depth(site: Site) -> None:
    pixels = np.zeros((20, 20, 3), dtype=np.uint16)
    pixels[:, :, 1] = 60_000
    response = site.predict(image_pb2.ImageSource(content=_encoded(".tiff", pixels)))
    assert response.image.bit_depth == 16
    assert response.classification.scores[0].class_name == "green"


def test_dataset_sample_and_artifact_are_found_by_name(site: Site) -> None:
    writer = DatasetWriter(
        site.artifacts, "datasets/colours", DatasetInfo(id="colours", display_name="colours", task="classification", classes=CLASSES)
    )
    for colour in CLASSES:
        path = writer.add_media(f"{colour}.png", picture(colour))
        writer.add(Sample(id=f"s-{colour}", path=path, labels=(colour,), split="test"))
    writer.finish()
    response = site.predict(image_pb2.ImageSource(sample="datasets/colours/samples/s-green"))
    assert response.classification.decision == "green"
    uri = f"{site.artifacts.root_uri}/datasets/colours/{path}"
    assert site.predict(image_pb2.ImageSource(uri=uri)).classification.decision == "blue"
    assert site.refused(image_pb2.ImageSource(sample="datasets/colours/samples/none")) == (grpc.StatusCode.NOT_FOUND, "SAMPLE_NOT_FOUND")
    assert site.refused(image_pb2.ImageSource(sample="datasets/none/samples/none")) == (grpc.StatusCode.NOT_FOUND, "DATASET_NOT_FOUND")
    assert site.refused(image_pb2.ImageSource(uri="datasets/colours/none.png")) == (grpc.StatusCode.NOT_FOUND, "IMAGE_NOT_FOUND")


@pytest.mark.parametrize(
    "uri",
    [
        "/etc/hostname",
        "file:///etc/hostname",
        "../../secret.png",
        "{root}/../secret.png",
        "{root}/datasets/../../secret.png",
        "s3://bucket/x.png",
        "simplecache::file:///etc/hostname",
    ],
)
def test_nothing_outside_the_artifact_store_is_read(site: Site, uri: str) -> None:
    (site.home / "secret.png").write_bytes(picture("red"))
    code, reason = site.refused(image_pb2.ImageSource(uri=uri.format(root=site.artifacts.root_uri)))
    assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "FOREIGN_URI")


def test_bad_images_and_requests_are_refused_with_a_reason(site: Site) -> None:
    good = picture("red")
    noisy = _encoded(".png", np.random.default_rng(0).integers(0, 255, (200, 200, 3), dtype=np.uint8))
    invalid = grpc.StatusCode.INVALID_ARGUMENT
    content = [
        (b"not an image at all", {"UNREADABLE_IMAGE", "UNSUPPORTED_FORMAT"}),
        (noisy[: len(noisy) // 2], {"TRUNCATED_IMAGE"}),
        (_encoded(".png", np.zeros((1001, 1001, 3), dtype=np.uint8)), {"IMAGE_TOO_LARGE"}),
    ]
    for data, reasons in content:
        code, reason = site.refused(image_pb2.ImageSource(content=data))
        assert code is invalid
        assert reason in reasons
    source = image_pb2.ImageSource(content=good)
    assert site.refused(source, operating_point="none-such") == (invalid, "OPERATING_POINT_NOT_FOUND")
    assert site.refused(source, explain=True)[0] is grpc.StatusCode.UNIMPLEMENTED
    assert site.refused(source, alias="none-such") == (invalid, "ALIAS_NOT_FOUND")
    assert site.refused(image_pb2.ImageSource()) == (invalid, "INVALID_REQUEST")


def test_operating_point_decides(site: Site) -> None:
    # Red leads, but not by as much as the operating point wants.
    pixels = np.zeros((20, 20, 3), dtype=np.uint8)
    pixels[:, :, 2], pixels[:, :, 1] = 140, 100
    source = image_pb2.ImageSource(content=_encoded(".png", pixels))
    assert site.predict(source).classification.decision == "red"
    strict = site.predict(source, operating_point="specificity>=0.99").classification
    assert strict.decision == "green"
    assert strict.operating_point.endswith("/specificity>=0.99")
    assert strict.HasField("threshold")
    assert not site.predict(source).classification.HasField("threshold")


def test_stream_answers_in_order_and_outlives_bad_items(site: Site) -> None:
    def requests() -> Iterator[inference_pb2.PredictStreamRequest]:
        for number in range(30):
            item = inference_pb2.PredictRequest(deployment="deployments/colours", top_k=1)
            item.image.content = b"rubbish" if number % 10 == 4 else picture(CLASSES[number % 3])
            if number % 10 == 7:
                item.deployment = "not a name"
            if number % 10 == 8:
                item.deployment = "deployments/none"
            yield inference_pb2.PredictStreamRequest(key=str(number), request=item)

    answers = list(site.stub.PredictStream(requests(), timeout=120))
    assert [answer.key for answer in answers] == [str(number) for number in range(30)]
    for number, answer in enumerate(answers):
        codes = {4: grpc.StatusCode.INVALID_ARGUMENT, 7: grpc.StatusCode.INVALID_ARGUMENT, 8: grpc.StatusCode.NOT_FOUND}
        if number % 10 in codes:
            assert answer.error.code == codes[number % 10].value[0]
        else:
            assert answer.response.classification.scores[0].class_name == CLASSES[number % 3]


def test_many_callers_at_once_each_get_their_own_answer(site: Site) -> None:
    wrong: list[str] = []

    def call(number: int) -> None:
        colour = CLASSES[number % 3]
        if site.predict(image_pb2.ImageSource(content=picture(colour))).classification.decision != colour:
            wrong.append(colour)

    threads = [threading.Thread(target=call, args=(number,)) for number in range(60)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_full_queue_refuses_and_says_when_to_come_again() -> None:
    async def scenario() -> None:
        admission = Admission(places=1, queue=1)
        release = asyncio.Event()

        async def hold() -> float:
            async with admission.enter() as waited:
                await release.wait()
                return waited

        first, second = asyncio.create_task(hold()), asyncio.create_task(hold())
        await asyncio.sleep(0.05)
        with pytest.raises(ResourceExhausted) as caught:
            async with admission.enter():
                pass
        assert caught.value.reason == "TOO_MANY_REQUESTS"
        assert caught.value.retry_after
        # One that waits and is cancelled leaves its place in the queue.
        second.cancel()
        await asyncio.sleep(0)
        assert admission.waiting == 0
        release.set()
        assert await first < 0.05
        async with admission.enter():
            pass

    asyncio.run(scenario())


def test_large_object_is_refused_before_it_is_read_whole(tmp_path: Path) -> None:
    store = ArtifactStore(f"file://{tmp_path}")
    store.write_bytes("big.png", b"x" * 5000)
    images = ImageStore(store, max_bytes=1000)
    with pytest.raises(InvalidArgument) as caught:
        images.object("big.png")
    assert caught.value.reason == "IMAGE_TOO_LARGE"


def test_decision_below_the_threshold_is_the_likeliest_of_the_others() -> None:
    point = OperatingPoint("a", 0.7, 0.9, 0.9, "youden")
    assert decide({"a": 0.6, "b": 0.1, "c": 0.3}, point) == "c"
    assert decide({"a": 0.7, "b": 0.1, "c": 0.2}, point) == "a"
    assert decide({"a": 0.4, "b": 0.35, "c": 0.25}, None) == "a"


def test_two_classes_are_decided_by_the_package_s_first_point(tmp_path: Path) -> None:
    package = publish_model(ArtifactStore(f"file://{tmp_path}"), "binary", classes=["no", "yes"])
    package.operating_points = [OperatingPoint("yes", 0.2, 0.95, 0.7, "sensitivity>=0.95"), OperatingPoint("yes", 0.6, 0.8, 0.9, "youden")]
    package.conformal = Conformal(quantile=0.75, coverage=0.9, calibration_count=40)
    answer = classify(np.array([0.7, 0.3]), package)
    assert (answer.decision, answer.prediction_set, answer.refer) == ("yes", ("no", "yes"), True)
    assert classify(np.array([0.7, 0.3]), package, point_name="youden").decision == "no"
    package.conformal = None
    assert (classify(np.array([0.7, 0.3]), package).prediction_set, classify(np.array([0.7, 0.3]), package).refer) == ((), False)
