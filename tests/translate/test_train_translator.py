"""From two datasets and a frozen model to a translator at work: TrainTranslator, TranslateDataset, TranslateImages over gRPC."""

from __future__ import annotations

import uuid
from urllib.parse import urlsplit

import grpc
import numpy as np
import pytest
from google.longrunning import operations_pb2, operations_pb2_grpc
from google.rpc import code_pb2, error_details_pb2
from grpc_status import rpc_status
from judged_models import publish, square
from live_server import live_server
from shift_sets import write
from thread_runner import ThreadRunner
from training_tools import RuntimeParity
from waiting import patient, wait_done

from oteo_core.artifacts import open_store
from oteo_core.datasets import DatasetReader
from oteo_core.images import decode, encode_png, prepare
from oteo_core.packages.translators import TRANSLATION, read_translator
from oteo_core.server import sync_channel
from oteo_protos.translate.v1 import translate_pb2 as pb
from oteo_protos.translate.v1 import translate_pb2_grpc
from oteo_protos.type.v1 import image_pb2
from oteo_translate import train_job
from oteo_translate.job import HANDLERS
from oteo_translate.service import Translate
from oteo_translate.settings import TranslateSettings

CLASSES = ("red", "green")


def squares(count: int, first: int = 0, gain: float = 1.0) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Draw squares, and masks of 1 (red) and 2 (green); with a gain of a half the model sees none."""
    rng = np.random.default_rng(first)
    images, masks = [], []
    for index in range(first, first + count):
        pixels, box = square(index)
        ground = 60 + 12 * np.sin(np.arange(pixels.shape[0]) / 5.0 + index)[:, None, None]
        textured = np.clip(np.maximum(pixels, ground) + rng.normal(0, 4, pixels.shape), 0, 255)
        mask = np.zeros(pixels.shape[:2], np.uint8)
        left, top = round(box.x), round(box.y)
        mask[top : top + round(box.height), left : left + round(box.width)] = 1 + CLASSES.index(box.class_name)
        images.append(np.rint(textured * gain).astype(np.uint8))
        masks.append(mask)
    return images, masks


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Give a channel to a running translate whose jobs run in threads, and its store with sets and a segmenter."""
    patch = pytest.MonkeyPatch()
    patch.setattr(train_job, "TritonParityClient", RuntimeParity)
    patch.setenv("OTEO_EXECUTOR", "inline")
    settings = TranslateSettings(home=tmp_path_factory.mktemp("home"), token="a-token", reconcile_seconds=0.05)
    store = open_store(settings)
    for name, first, gain in (("home", 0, 1.0), ("dark", 300, 0.45), ("alike", 600, 1.0)):
        images, masks = squares(20, first, gain)
        write(store, name, images, task="semantic_segmentation", classes=CLASSES, masks=masks, splits=["train"] * 10 + ["test"] * 10)
    publish(store, "semantic_segmentation")
    translate = Translate(settings, ThreadRunner(settings, store, HANDLERS))
    translate.start()
    with live_server(settings, translate.register) as server, sync_channel(server.address, settings) as channel:
        yield channel, store
    translate.stop()
    patch.undo()


def finished(channel, operation):
    operations = operations_pb2_grpc.OperationsStub(channel)
    request = operations_pb2.GetOperationRequest(name=operation.name)
    return wait_done(lambda: operations.GetOperation(request, timeout=patient(10)), 70)


def request_of(shifted: str, **fields) -> pb.TrainTranslatorRequest:
    request = pb.TrainTranslatorRequest(
        home_dataset="datasets/home",
        shifted_dataset=f"datasets/{shifted}",
        model="models/judged",
        methods=["moments", "gamma"],
        request_id=str(uuid.uuid4()),
        **fields,
    )
    request.budget.FromSeconds(120)
    return request


@pytest.fixture(scope="module")
def lighter(world):
    """Train a translator for the dark set."""
    channel, _ = world
    stub = translate_pb2_grpc.TranslateServiceStub(channel)
    request = request_of("dark", translator_id="lighter")
    begun = stub.TrainTranslator(request, timeout=patient(10))
    assert stub.TrainTranslator(request, timeout=patient(10)).name == begun.name
    done = finished(channel, begun)
    response, metadata = pb.TrainTranslatorResponse(), pb.TrainTranslatorMetadata()
    assert done.response.Unpack(response), done.error
    assert done.metadata.Unpack(metadata)
    assert metadata.translator == "translators/lighter"
    assert len(metadata.evidence) == len(response.translator.evidence)
    return response.translator


def test_what_makes_the_model_right_again_is_accepted_and_published_with_its_evidence(world, lighter):
    channel, store = world
    assert lighter.verdict == pb.Translator.VERDICT_ACCEPTED, lighter.reason
    assert lighter.method in ("moments", "gamma")
    assert lighter.changes == pb.Translator.CHANGES_IMAGE
    best = lighter.evidence[0]
    assert best.accepted
    assert best.gain.lower > 0.3
    assert best.structure.value > 0.5
    nothing = next(one for one in lighter.evidence if one.method == "nothing")
    assert not nothing.accepted
    assert nothing.score.value < 0.3 < best.score.value
    before, after = (next(each for each in one.distances if each.name == "kid") for one in (nothing, best))
    assert after.upper < before.lower, "and nearer to home in what the model sees"
    package = read_translator(store, "lighter")
    assert {TRANSLATION, "evidence.json", "report.html", "sheet.png", "translator.onnx", "triton/translator_lighter/1/model.onnx"} <= set(
        package.files
    )
    assert package.details["runs_on"].startswith("runs on ")
    # What the gateway tells the shifted source by, and a third one from it.
    policy = package.input
    dark, other = (np.asarray(prepare(squares(1, 900, gain)[0][0], policy, 8)) for gain in (0.45, 1.0))
    assert package.shifted_reference is not None
    assert package.shifted_reference.score(dark)[1] > 0.05 > package.shifted_reference.score(other)[1]
    page = store.read_bytes("translators/lighter/report.html").decode()
    assert "recommended" in page
    assert "data:image/png" in page
    assert "KID to home" in page
    sheet = decode(store.read_bytes("translators/lighter/sheet.png")).pixels
    assert sheet.shape[1] > 5 * 200
    assert urlsplit(lighter.report_uri).path.endswith("report.html")
    listed = translate_pb2_grpc.TranslateServiceStub(channel).ListTranslators(
        pb.ListTranslatorsRequest(model="models/judged"), timeout=patient(10)
    )
    assert [one.name for one in listed.translators] == ["translators/lighter"]


def test_a_dataset_is_translated_and_the_model_is_right_on_it(world, lighter):
    channel, store = world
    stub = translate_pb2_grpc.TranslateServiceStub(channel)
    begun = stub.TranslateDataset(pb.TranslateDatasetRequest(translator=lighter.name, dataset="datasets/dark"), timeout=patient(10))
    response = pb.TranslateDatasetResponse()
    done = finished(channel, begun)
    assert done.response.Unpack(response), done.error
    assert (response.dataset, response.sample_count) == ("datasets/dark-translated", 20)
    reader, dark = DatasetReader(store, "dark-translated"), DatasetReader(store, "dark")
    for sample in reader.samples():
        bright = reader.image(sample).pixels
        assert bright.max() > 128 > dark.image(dark.sample(sample.id)).pixels.max()
        assert np.array_equal(reader.mask(sample), dark.mask(dark.sample(sample.id)))


def test_images_are_translated_as_they_come_and_a_bad_one_ends_nothing(world, lighter):
    channel, _ = world
    images, _ = squares(3, 900, 0.45)
    contents = [encode_png(images[0]), b"no image", encode_png(images[1]), encode_png(images[2])]
    asked = [pb.TranslateImagesRequest(settings={"translator": lighter.name})]
    for index, content in enumerate(contents):
        asked.append(pb.TranslateImagesRequest(item={"key": str(index), "image": image_pb2.ImageSource(content=content)}))
    answers = list(translate_pb2_grpc.TranslateServiceStub(channel).TranslateImages(iter(asked), timeout=patient(20)))
    assert [one.key for one in answers] == ["0", "1", "2", "3"]
    assert answers[1].error.code == code_pb2.INVALID_ARGUMENT
    assert decode(answers[2].image.content).pixels.max() > 128


def test_a_training_shows_pictures_as_it_goes_and_its_losses_on_the_page(world):
    channel, store = world
    request = request_of("dark", translator_id="trained")
    request.methods[:] = ["fastcut"]
    tiny = {"crop": 16, "width": 6, "blocks": 1, "critic_width": 6, "patches": 16, "vector": 16, "inspect": 4, "steps": 12}
    request.parameters["fastcut"].update(tiny)
    done = finished(channel, translate_pb2_grpc.TranslateServiceStub(channel).TrainTranslator(request, timeout=patient(10)))
    metadata = pb.TrainTranslatorMetadata()
    assert done.WhichOneof("result") == "response", done.error
    assert done.metadata.Unpack(metadata)
    shown = decode(metadata.preview.content).pixels
    assert shown.shape[0] == 3 * read_translator(store, "trained").input.height, "what came, its translation, home's look, a row each"
    page = store.read_bytes("translators/trained/report.html").decode()
    assert "How the trainings went" in page
    assert 'alt="Losses of fastcut' in page


def test_where_nothing_has_changed_nothing_is_recommended(world):
    channel, _ = world
    stub = translate_pb2_grpc.TranslateServiceStub(channel)
    done = finished(channel, stub.TrainTranslator(request_of("alike", label_free=True), timeout=patient(10)))
    response = pb.TrainTranslatorResponse()
    assert done.response.Unpack(response), done.error
    translator = response.translator
    assert translator.verdict == pb.Translator.VERDICT_REJECTED
    assert translator.criterion == "label-free"
    with pytest.raises(grpc.RpcError) as refused:
        stub.TranslateDataset(pb.TranslateDatasetRequest(translator=translator.name, dataset="datasets/alike"), timeout=patient(10))
    assert reason_of(refused.value) == "TRANSLATOR_REJECTED"
    stub.DeleteTranslator(pb.DeleteTranslatorRequest(name=translator.name), timeout=patient(10))
    with pytest.raises(grpc.RpcError):
        stub.GetTranslator(pb.GetTranslatorRequest(name=translator.name), timeout=patient(10))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model": "models/none"}, "MODEL_NOT_FOUND"),
        ({"shifted_dataset": "datasets/none"}, "DATASET_NOT_FOUND"),
        ({"shifted_dataset": "datasets/home"}, "SAME_DATASET"),
        ({"methods": ["magic"]}, "UNKNOWN_METHOD"),
        ({"translator_id": "judged"}, "TRANSLATOR_EXISTS"),
    ],
)
def test_what_cannot_be_tried_is_refused_at_once(world, changes, reason):
    channel, _ = world
    request = request_of("dark")
    for name, value in changes.items():
        if name == "methods":
            request.methods[:] = value
        else:
            setattr(request, name, value)
    with pytest.raises(grpc.RpcError) as refused:
        translate_pb2_grpc.TranslateServiceStub(channel).TrainTranslator(request, timeout=patient(10))
    assert reason_of(refused.value) == reason


@pytest.mark.parametrize(
    ("given", "reason", "field", "words"),
    [
        ({"fda": {"betta": 0.1}}, "BAD_PARAMETER", "parameters.fda.betta", ["beta (0 to 0.5)"]),
        ({"fda": {"beta": 0.6}}, "BAD_PARAMETER", "parameters.fda.beta", ["a number of 0 to 0.5"]),
        ({"fda": {"beta": None}}, "BAD_PARAMETER", "parameters.fda.beta", ["a number"]),
        ({"reinhard": {"space": "rgb"}}, "BAD_PARAMETER", "parameters.reinhard.space", ["lalphabeta", "cielab"]),
        ({"fastcut": {"steps": 1.5}}, "BAD_PARAMETER", "parameters.fastcut.steps", ["a whole number of 0 to 400000"]),
        ({"fastcut": {"processes": 1000}}, "BAD_PARAMETER", "parameters.fastcut.processes", ["0 to 16"]),
        ({"fastcut": {"side": 64}}, "BAD_PARAMETER", "parameters.fastcut.side", ["steps (0 to 400000)", "crop", "task", "precision"]),
        ({"cut": {"residual": "yes"}}, "BAD_PARAMETER", "parameters.cut.residual", ["true or false"]),
        ({"tent": {"episodes": -1}}, "BAD_PARAMETER", "parameters.tent.episodes", ["a whole number of 0 to 1000"]),
        ({"bbse": {"prior": 1}}, "BAD_PARAMETER", "parameters.bbse.prior", ["it has none"]),
        ({"magic": {}}, "UNKNOWN_METHOD", "parameters.magic", ["fastcut", "adabn"]),
        ({"moments": {"scope": "image"}}, "METHOD_NOT_ASKED", "parameters.moments", ["reinhard"]),
    ],
)
def test_parameters_that_a_method_does_not_take_are_refused_at_once_and_named(world, given, reason, field, words):
    channel, _ = world
    request = request_of("dark")
    request.methods[:] = ["fda", "reinhard", "fastcut", "cut", "tent", "bbse"]
    for name, parameters in given.items():
        request.parameters[name].update(parameters)
    with pytest.raises(grpc.RpcError) as refused:
        translate_pb2_grpc.TranslateServiceStub(channel).TrainTranslator(request, timeout=patient(10))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert (reason_of(refused.value), field_of(refused.value)) == (reason, field)
    assert all(word in refused.value.details() for word in words), refused.value.details()


def test_an_encoder_that_is_not_there_or_for_nothing_is_refused_at_once(world, tmp_path):
    channel, _ = world
    for methods, uri, reason in (
        (["gatys"], str(tmp_path), "NO_ENCODER_WEIGHTS"),
        ([], str(tmp_path / "none" / "vgg16.pth"), "NO_ENCODER_WEIGHTS"),
        (["gatys"], "nowhere://weights/vgg16.pth", "UNKNOWN_SCHEME"),
        (["moments"], str(tmp_path), "METHOD_NOT_ASKED"),
    ):
        request = request_of("dark", encoder_uri=uri)
        request.methods[:] = methods
        with pytest.raises(grpc.RpcError) as refused:
            translate_pb2_grpc.TranslateServiceStub(channel).TrainTranslator(request, timeout=patient(10))
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert (reason_of(refused.value), field_of(refused.value)) == (reason, "encoder_uri")


def broken(count: int) -> list[np.ndarray]:
    """Draw squares of floats with a hole that is no number."""
    images = [image.astype(np.float32) / 255 for image in squares(count, 900)[0]]
    for image in images:
        image[2:4, 2:4] = np.nan
    return images


@pytest.mark.parametrize(
    ("name", "images", "reason"),
    [
        ("empty", [], "EMPTY_DATASET"),
        ("three", squares(3, 700, 0.45)[0], "TOO_FEW_IMAGES"),
        ("holes", broken(12), "TOO_FEW_IMAGES"),
        ("five-channels", [np.repeat(image[:, :, :1], 5, axis=2) for image in squares(12, 720, 0.45)[0]], "TOO_FEW_IMAGES"),
    ],
)
def test_sets_that_say_nothing_are_refused_with_the_reason(world, name, images, reason):
    channel, store = world
    write(store, name, images, task="semantic_segmentation", classes=CLASSES)
    told, message = _refusal(channel, request_of(name, label_free=True))
    assert told == reason
    assert name in message


def test_a_copy_of_home_under_another_name_is_refused(world):
    channel, store = world
    images, masks = squares(20)
    write(store, "copy", images, task="semantic_segmentation", classes=CLASSES, masks=masks, splits=["train"] * 10 + ["test"] * 10)
    told, message = _refusal(channel, request_of("copy", label_free=True))
    assert told == "SAME_DATASET"
    assert "copy" in message


def _refusal(channel: grpc.Channel, request: pb.TrainTranslatorRequest) -> tuple[str, str]:
    """Give reason and message of a training that is refused at once, or fails."""
    try:
        operation = translate_pb2_grpc.TranslateServiceStub(channel).TrainTranslator(request, timeout=patient(10))
    except grpc.RpcError as refused:
        return reason_of(refused), refused.details()
    done = finished(channel, operation)
    info = error_details_pb2.ErrorInfo()
    assert any(detail.Unpack(info) for detail in done.error.details), done
    return info.reason, done.error.message


@pytest.mark.parametrize("name", ["flat", "half-shared", "grey"])
def test_odd_sets_are_answered(world, name):
    """Constant images, images that home holds too, and grey ones before a model of colours: a verdict, and no error."""
    channel, store = world
    images = {
        "flat": [np.full((40, 40, 3), 5 + index, np.uint8) for index in range(12)],
        "half-shared": squares(12, 0)[0] + squares(8, 800, 0.45)[0],
        "grey": [image[:, :, :1] for image in squares(12, 740, 0.45)[0]],
    }[name]
    write(store, name, images, task="semantic_segmentation", classes=CLASSES)
    request = request_of(name, label_free=True)
    request.methods[:] = ["moments"]
    done = finished(channel, translate_pb2_grpc.TranslateServiceStub(channel).TrainTranslator(request, timeout=patient(10)))
    response = pb.TrainTranslatorResponse()
    assert done.response.Unpack(response), done.error
    translator = response.translator
    assert translator.reason
    if name != "grey":
        assert translator.verdict == pb.Translator.VERDICT_REJECTED
    if name == "half-shared":
        assert "the same images" in translator.reason


def reason_of(error: grpc.RpcError) -> str:
    info = error_details_pb2.ErrorInfo()
    assert any(detail.Unpack(info) for detail in rpc_status.from_call(error).details)
    return info.reason


def field_of(error: grpc.RpcError) -> str:
    bad = error_details_pb2.BadRequest()
    assert any(detail.Unpack(bad) for detail in rpc_status.from_call(error).details)
    return bad.field_violations[0].field
