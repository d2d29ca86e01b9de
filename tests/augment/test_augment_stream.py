"""AugmentImages and PreviewAugmentation through a real server: order, errors that end nothing, annotations that stay put."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
import tifffile
from google.protobuf.json_format import MessageToDict
from google.rpc import code_pb2
from live_server import live_server
from waiting import patient

from oteo_augment.augmentation import AugmentationPlan, augment_dataset
from oteo_augment.service import Augment
from oteo_augment.settings import AugmentSettings
from oteo_core.artifacts import ArtifactStore, open_store
from oteo_core.augmentation import AugmentationKey, Policy, augment_image, default_policy
from oteo_core.datasets import Box, DatasetInfo, DatasetReader, DatasetWriter, Sample
from oteo_core.images import ImageLimits, decode, encode_png, pixel_digest
from oteo_core.jobs import ProcessJobRunner
from oteo_core.jobs.executor import InlineExecutor
from oteo_core.sampledata import draw_cell
from oteo_protos.augment.v1 import augment_pb2, augment_pb2_grpc
from oteo_protos.type.v1 import annotation_pb2, image_pb2

Request = augment_pb2.AugmentImagesRequest
FLIP = augment_pb2.AugmentationPolicy(steps=[{"transform": "HorizontalFlip"}])


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> AugmentSettings:
    return AugmentSettings(home=tmp_path_factory.mktemp("home"), allow_anonymous=True, stream_threads=2, max_image_pixels=100_000)


@pytest.fixture(scope="module")
def artifacts(settings: AugmentSettings) -> ArtifactStore:
    """A store with the dataset `marked`: drawn cells with a box each."""
    store = open_store(settings)
    info = DatasetInfo("marked", task="detection", classes=("cell",))
    with DatasetWriter(store, "datasets/marked", info) as writer:
        for index in range(6):
            pixels, _, stem = draw_cell(index, size=48)
            path = writer.add_media(f"{stem}.png", encode_png(pixels))
            box = Box("cell", 10, 12, 20, 18)
            part = "test" if index == 5 else "train"
            writer.add(
                Sample(id=stem, path=path, pixel_digest=pixel_digest(pixels), width=48, height=48, channels=3, split=part, boxes=(box,))
            )
        writer.finish()
    return store


@pytest.fixture(scope="module")
def stub(settings: AugmentSettings, artifacts: ArtifactStore, tmp_path_factory) -> Iterator[augment_pb2_grpc.AugmentServiceStub]:
    runner = ProcessJobRunner(tmp_path_factory.mktemp("logs"))
    service = Augment(settings, runner)
    with live_server(settings, service.register) as server, grpc.insecure_channel(server.address) as channel:
        yield augment_pb2_grpc.AugmentServiceStub(channel)
    service.operations.close()
    runner.close()


def picture(index: int, size: int = 48) -> np.ndarray:
    return draw_cell(index, size=size)[0]


def item(key: str, pixels: np.ndarray | bytes, *annotations: annotation_pb2.Annotation) -> Request:
    data = pixels if isinstance(pixels, bytes) else encode_png(pixels)
    return Request(item=Request.Item(key=key, image=image_pb2.ImageSource(content=data), annotations=annotations))


def settings_(**fields) -> Request:
    return Request(settings=Request.Settings(**fields))


def test_answers_come_in_order_and_are_what_the_library_makes(stub) -> None:
    policy = default_policy()
    requests = [settings_(seed=9, copies=2), *(item(f"image-{n}", picture(n)) for n in range(30))]
    answers = list(stub.AugmentImages(iter(requests), timeout=patient(20)))
    assert [(a.key, a.copy) for a in answers] == [(f"image-{n}", c) for n in range(30) for c in range(2)]
    for answer in (answers[0], answers[7], answers[59]):
        number = int(answer.key.removeprefix("image-"))
        expected = augment_image(picture(number), policy, AugmentationKey(answer.key, answer.copy, 9))
        np.testing.assert_array_equal(decode(answer.image.content).pixels, expected)
        # What is written beside it is enough to make it again.
        told = MessageToDict(answer.provenance)
        again = augment_image(
            picture(number), Policy.from_json(told["policy"]), AugmentationKey(told["key"], int(told["copy"]), int(told["seed"]))
        )
        np.testing.assert_array_equal(again, expected)


def test_an_item_that_fails_is_answered_and_the_others_too(stub) -> None:
    box = annotation_pb2.Annotation(class_name="cell", box=annotation_pb2.BoundingBox(x=1, y=2, width=10, height=5))
    stream = io.BytesIO()
    tifffile.imwrite(stream, np.zeros((8, 8), np.float32))
    flat = annotation_pb2.Annotation(class_name="cell", box=annotation_pb2.BoundingBox(x=1, y=2, width=0, height=5))
    requests = [
        settings_(policy=FLIP),
        item("good", picture(0), box),
        item("noise", b"nothing"),
        item("truncated", encode_png(picture(1))[:500]),
        item("large", picture(1, size=400)),
        item("float", stream.getvalue()),
        item("flat", picture(1), flat),
        settings_(policy=FLIP),
        Request(item=Request.Item(key="gone", image=image_pb2.ImageSource(sample="datasets/marked/samples/none"))),
        Request(item=Request.Item(key="away", image=image_pb2.ImageSource(uri="file:///etc/passwd"))),
        item("last", picture(2)),
    ]
    answers = {a.key: a for a in stub.AugmentImages(iter(requests), timeout=patient(20))}
    reasons = {key: a.error.details[0].value.decode("latin-1") for key, a in answers.items() if a.HasField("error")}
    for key, reason in {
        "noise": "UNREADABLE_IMAGE",
        "truncated": "TRUNCATED_IMAGE",
        "large": "IMAGE_TOO_LARGE",
        "float": "PIXELS_NOT_HELD",
        "": "SETTINGS_NOT_FIRST",
        "gone": "SAMPLE_NOT_FOUND",
        "away": "FOREIGN_URI",
    }.items():
        assert reason in reasons[key], key
    assert answers["flat"].error.code == code_pb2.INVALID_ARGUMENT
    assert set(answers) - set(reasons) == {"good", "last"}
    np.testing.assert_array_equal(decode(answers["good"].image.content).pixels, picture(0)[:, ::-1])
    (moved,) = answers["good"].annotations
    assert (moved.box.x, moved.box.y, moved.box.width, moved.box.height) == (37, 2, 10, 5)


def test_turned_boxes_and_points_are_mirrored_and_points_change_their_names(stub) -> None:
    turned = annotation_pb2.OrientedBox(center_x=12, center_y=20, width=10, height=4, angle=0.5)
    points = annotation_pb2.Keypoints(
        points=[
            annotation_pb2.Keypoints.Point(name="left", x=10, y=5, visible=True),
            annotation_pb2.Keypoints.Point(name="right", x=30, y=6),
        ]
    )
    marks = [
        annotation_pb2.Annotation(class_name="ship", oriented_box=turned, attributes={"from": "above"}),
        annotation_pb2.Annotation(class_name="face", keypoints=points),
    ]
    policy = augment_pb2.AugmentationPolicy(steps=FLIP.steps, mirror_swaps={"left": "right"})
    (answer,) = stub.AugmentImages(iter([settings_(policy=policy), item("marked", picture(0), *marks)]), timeout=patient(20))
    ship, face = answer.annotations
    box = ship.oriented_box
    assert (round(box.center_x, 4), round(box.center_y, 4), round(box.width, 4), round(box.height, 4)) == (36, 20, 10, 4)
    assert np.isclose(np.sin(2 * box.angle), np.sin(-1.0), atol=1e-4)
    assert ship.attributes == {"from": "above"}
    assert [(p.name, p.x, p.y, p.visible) for p in face.keypoints.points] == [("right", 38, 5, True), ("left", 18, 6, False)]


def test_a_mirror_of_points_with_sides_must_say_which_swap(stub) -> None:
    eyes = [annotation_pb2.Keypoints.Point(name=name, x=10, y=5, visible=True) for name in ("left_eye", "right_eye")]
    face = annotation_pb2.Annotation(class_name="face", keypoints=annotation_pb2.Keypoints(points=eyes))
    (answer,) = stub.AugmentImages(iter([settings_(policy=FLIP), item("face", picture(0), face)]), timeout=patient(20))
    assert answer.error.code == code_pb2.INVALID_ARGUMENT
    assert '{"left_eye": "right_eye"}' in answer.error.message
    turn = augment_pb2.AugmentationPolicy(steps=[{"transform": "Rotate"}])
    (answer,) = stub.AugmentImages(iter([settings_(policy=turn), item("face", picture(0), face)]), timeout=patient(20))
    assert not answer.HasField("error")


def test_without_settings_the_default_policy_is_taken_and_nothing_in_gives_nothing_out(stub) -> None:
    (answer,) = stub.AugmentImages(iter([item("a", picture(3))]), timeout=patient(20))
    np.testing.assert_array_equal(decode(answer.image.content).pixels, augment_image(picture(3), default_policy(), AugmentationKey("a")))
    assert list(stub.AugmentImages(iter([]), timeout=patient(10))) == []


@pytest.mark.parametrize(
    ("policy", "field"),
    [
        ({"steps": [{"transform": "D5"}]}, "policy.steps[0].transform"),
        ({"steps": [{"transform": "Affine", "parameters": {"rotate": "much"}}]}, "policy.steps[0].parameters.rotate"),
    ],
)
def test_settings_that_cannot_be_followed_end_the_stream(stub, policy, field) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        list(stub.AugmentImages(iter([settings_(policy=policy), item("a", picture(0))]), timeout=patient(20)))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    details = dict(caught.value.trailing_metadata())["grpc-status-details-bin"]
    assert field.encode() in details


def test_a_slow_reader_holds_the_sender_back(stub) -> None:
    sent = 0

    def requests() -> Iterator[Request]:
        nonlocal sent
        yield settings_(policy=FLIP)
        data = encode_png(np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8))
        for number in range(300):
            sent += 1
            yield item(str(number), data)

    answers = stub.AugmentImages(requests(), timeout=patient(20))
    first = next(answers)
    import time

    time.sleep(1.5)
    assert first.key == "0"
    assert sent < 150
    assert sum(1 for _ in answers) == 299


def test_a_preview_shows_what_an_augmentation_makes(stub, artifacts, tmp_path: Path) -> None:
    response = stub.PreviewAugmentation(
        augment_pb2.PreviewAugmentationRequest(dataset="datasets/marked", policy=FLIP, sample_count=2, copies=3, seed=4),
        timeout=patient(20),
    )
    assert response.sheet.media_type == "image/png"
    sheet = decode(response.sheet.content).pixels
    assert sheet.shape == (2 * (256 + 28), 4 * 262, 3)
    original, copy = sheet[:256, :256].astype(int), sheet[:256, 262 : 262 + 256].astype(int)
    # The mirrored picture with its box, which a drawn line at most a pixel off tells apart.
    assert np.mean(np.abs(original[:, ::-1] - copy)) < 3
    assert np.mean(np.abs(original - copy)) > 5
    with pytest.raises(grpc.RpcError) as caught:
        stub.PreviewAugmentation(augment_pb2.PreviewAugmentationRequest(dataset="datasets/none"), timeout=patient(10))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


class Kept(dict):
    """Checkpoints in memory."""

    save, load = dict.__setitem__, dict.get

    def check(self) -> None:
        """Goes on."""


def test_boxes_go_with_the_copies_of_a_dataset(artifacts) -> None:
    plan = AugmentationPlan(Policy.from_json({**default_policy("detection").to_json(), "min_visible_share": 0.5}), copies=3)
    outcome = augment_dataset(
        artifacts, "marked", plan, DatasetInfo("marked-more", uid="u", create_time="2026-01-01T00:00:00+00:00"), staging="datasets/marked-more",
        store_options={}, limits=ImageLimits(), executor=InlineExecutor(), checkpoints=Kept(), progress=lambda done, total: None,
    )  # fmt: skip
    assert (outcome.copies, outcome.dropped_annotations) == (15, 0)
    made = [s for s in DatasetReader(artifacts, "marked-more").samples() if s.derived_from]
    assert len(made) == 15
    assert all(len(s.boxes) == 1 and s.boxes[0].class_name == "cell" for s in made)
    assert len({s.boxes for s in made}) > 5
