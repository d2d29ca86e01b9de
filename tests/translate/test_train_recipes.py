"""What a user sets of a training reaches it: parameters of methods, the encoder of style transfer; and a trained way that is killed goes on."""

from __future__ import annotations

import io
import os
import re
import signal
import sys
import time
import uuid
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from frozen_models import domain, frozen
from google.longrunning import operations_pb2, operations_pb2_grpc
from google.protobuf import any_pb2
from judged_models import publish, square
from live_server import live_server
from shift_sets import write
from training_tools import RuntimeParity
from waiting import patient, wait_done, wait_for

from oteo_core.artifacts import ArtifactStore, open_store
from oteo_core.errors import FailedPrecondition, InvalidArgument
from oteo_core.graphs.modules import load_module
from oteo_core.jobs import ProcessJobRunner, files
from oteo_core.jobs.testing import run_handler
from oteo_core.operations.ids import new_operation_id
from oteo_core.packages.translators import TRANSLATION, MethodRecord, TranslatorPackage, read_translator
from oteo_core.server import sync_channel
from oteo_protos.translate.v1 import translate_pb2 as pb
from oteo_protos.translate.v1 import translate_pb2_grpc
from oteo_translate import train_job
from oteo_translate.adaptation.registry import ADAPTATIONS
from oteo_translate.domains import Domain
from oteo_translate.ladder.ladder import climb
from oteo_translate.measures import encoders, inception
from oteo_translate.measures.inception import measure_by_inception
from oteo_translate.methods.base import FitContext
from oteo_translate.methods.registry import METHODS
from oteo_translate.methods.style import encoder
from oteo_translate.proto import record_to_proto
from oteo_translate.service import Translate
from oteo_translate.settings import TranslateSettings
from oteo_translate.train_requests import check_inception

CLASSES = ("red", "green")
TINY = {"crop": 16, "width": 6, "blocks": 1, "critic_width": 6, "patches": 16, "vector": 16, "inspect": 4}


def squares(count: int, first: int, gain: float) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Draw squares on a ground, of this brightness, and masks of 1 (red) and 2 (green)."""
    images, masks = [], []
    for index in range(first, first + count):
        pixels, box = square(index)
        ground = 60 + 12 * np.sin(np.arange(pixels.shape[0]) / 5.0 + index)[:, None, None]
        mask = np.zeros(pixels.shape[:2], np.uint8)
        left, top = round(box.x), round(box.y)
        mask[top : top + round(box.height), left : left + round(box.width)] = 1 + CLASSES.index(box.class_name)
        images.append(np.rint(np.maximum(pixels, ground) * gain).astype(np.uint8))
        masks.append(mask)
    return images, masks


class Lab:
    """A home with two sets and a segmenter, where trainings run as jobs do."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.settings = self.settings_of()
        self.store: ArtifactStore = open_store(self.settings)
        for name, first, gain in (("home", 0, 1.0), ("dark", 300, 0.45)):
            images, masks = squares(24, first, gain)
            write(self.store, name, images, task="semantic_segmentation", classes=CLASSES, masks=masks, splits=["test"] * 24)
        publish(self.store, "semantic_segmentation")

    def settings_of(self, **fields: Any) -> TranslateSettings:
        return TranslateSettings(home=self.home, allow_anonymous=True, reconcile_seconds=0.05, job_python=sys.executable, **fields)

    def train(self, name: str, request: pb.TrainTranslatorRequest, **settings: Any) -> TranslatorPackage:
        """Run the job in this process; give what it published."""
        operation = new_operation_id("test")
        packed = any_pb2.Any()
        packed.Pack(pb.TrainTranslatorMetadata(translator=f"translators/{name}"))
        self.store.write_bytes(f"{files.folder(operation)}/{files.PROGRESS}", packed.SerializeToString())
        run_handler(train_job.TRAIN, request, settings=self.settings_of(**settings), artifacts=self.store, operation_id=operation)
        return read_translator(self.store, name)

    def translation(self, name: str) -> bytes:
        return self.store.read_bytes(f"translators/{name}/{TRANSLATION}")


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    patch.setattr(train_job, "TritonParityClient", RuntimeParity)
    patch.setenv("OTEO_EXECUTOR", "inline")
    yield Lab(tmp_path_factory.mktemp("lab"))
    patch.undo()


def asked(*methods: str, given: dict[str, dict[str, Any]] | None = None, **fields: Any) -> pb.TrainTranslatorRequest:
    request = pb.TrainTranslatorRequest(
        home_dataset="datasets/home",
        shifted_dataset="datasets/dark",
        model="models/judged",
        methods=methods,
        request_id=str(uuid.uuid4()),
        **fields,
    )
    for name, parameters in (given or {}).items():
        request.parameters[name].update(parameters)
    request.budget.FromSeconds(1800)
    return request


# Parameters.


def test_a_method_is_tried_with_the_given_parameters_alone_and_the_others_as_ever(lab):
    made = lab.train("set", asked("fda", "moments", given={"fda": {"beta": 0.07}}))
    tried = [one for one in made.evidence if one.method == "fda"]
    assert [dict(one.parameters) for one in tried] == [{"beta": 0.07}]
    assert len([one for one in made.evidence if one.method == "moments"]) > 1


def test_a_trained_way_learns_by_the_users_recipe_and_the_same_request_gives_the_same_bytes(lab):
    recipe = {"fastcut": {**TINY, "steps": 12}}
    made = lab.train("first", asked("fastcut", given=recipe, seed=7))
    (tried,) = [one for one in made.evidence if one.method == "fastcut"]
    assert tried.parameters == recipe["fastcut"]
    found = load_module(lab.translation("first"))
    assert found.history["step"] == [4, 8, 12]
    assert found.settings["width"] == 6
    lab.train("second", asked("fastcut", given=recipe, seed=7))
    assert lab.translation("first") == lab.translation("second")
    lab.train("third", asked("fastcut", given=recipe, seed=8))
    assert lab.translation("first") != lab.translation("third"), "another seed is another training"


def test_structure_in_the_models_eyes_and_an_adaptations_parameters_can_be_asked_for():
    model = frozen("semantic_segmentation")
    home, dim = domain("semantic_segmentation", 24, 4), domain("semantic_segmentation", 24, 3, name="dim")
    dim = Domain(dim.name, (dim.images * 0.45 + 20).astype(np.uint8), dim.ids, dim.groups, dim.truths)
    recipe = {**TINY, "steps": 4, "task": 1.0}
    translations = {}
    result = climb(
        model,
        dim,
        home,
        methods={name: METHODS[name] for name in ("moments", "fastcut")},
        adaptations={"adabn": ADAPTATIONS["adabn"]},
        given={"fastcut": recipe, "adabn": {"prior": 4.0}},
        context=FitContext(seed=1),
        seen=lambda evidence, translation, adapted: translations.update({evidence.candidate.name: translation}),
    )
    tried = {name: [one.candidate for one in result.evidence if one.tried and one.candidate.name == name] for name in METHODS | ADAPTATIONS}
    assert [one.parameters for one in tried["fastcut"]] == [recipe], [one.reason for one in result.evidence]
    assert [one.settings for one in tried["adabn"]] == [{"prior": 4.0}]
    assert {one.candidate.settings["prior"] for one in result.evidence if one.candidate.name == "adabn+moments"} == {4.0}
    assert len(tried["moments"]) > 1
    assert "task" in translations["fastcut"].history, "its loss is among the curves"


# The encoder.


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """Give a folder as an operator fills it: random weights in the form of torchvision's file. It is looked through at a quarter of the usual side."""
    monkeypatch.setattr(encoder, "WORKING_SIDE", 32)
    folder = tmp_path / "weights"
    folder.mkdir()
    made = encoder.VggEncoder(16)
    with torch.no_grad():
        for parameter in made.layers.parameters():
            parameter.normal_(0, 0.05, generator=torch.Generator().manual_seed(0))
    torch.save({f"features.{name}": value for name, value in made.layers.state_dict().items()}, folder / "vgg16-397923af.pth")
    return folder


def notes_of(made: TranslatorPackage) -> str:
    return " ".join(made.details["notes"])


@pytest.mark.parametrize("place", ["request", "setting"])
def test_style_sees_with_the_pretrained_encoder_of_request_or_setting_and_the_translator_says_so(lab, weights, place):
    settings, fields = ({"encoder_uri": str(weights)}, {}) if place == "setting" else ({}, {"encoder_uri": f"file://{weights}"})
    made = lab.train(f"styled-{place}", asked("adain", given={"adain": {"steps": 1}}, **fields), **settings)
    (tried,) = [one for one in made.evidence if one.method == "adain"]
    assert tried.score is not None, tried.reason
    assert re.search(r"adain\) saw with pretrained:vgg16-397923af\.pth@[0-9a-f]{16}", notes_of(made))
    assert made.details["notes"][-1] in lab.store.read_bytes(f"translators/{made.id}/report.html").decode()
    translation = load_module(lab.translation(made.id))
    assert isinstance(translation.encoder, encoder.VggEncoder)


def test_without_an_encoder_a_model_without_a_network_has_no_style(lab):
    made = lab.train("blind", asked("adain", "moments", given={"adain": {"steps": 1}}))
    (left_out,) = [one for one in made.evidence if one.method == "adain"]
    assert "neither are pretrained weights given" in left_out.reason
    assert "saw with" not in notes_of(made)


def test_an_encoder_that_is_none_ends_the_job_before_any_work(lab, tmp_path, monkeypatch):
    monkeypatch.setattr(train_job, "read_domain", lambda *arguments, **more: pytest.fail("images were read"))
    (tmp_path / "vgg16.pth").write_bytes(b"no weights")
    with pytest.raises(InvalidArgument) as caught:
        lab.train("broken", asked("gatys", encoder_uri=str(tmp_path)))
    assert (caught.value.reason, caught.value.field) == ("BAD_ENCODER_WEIGHTS", "encoder_uri")
    with pytest.raises(FailedPrecondition, match="the service's setting encoder_uri") as failed:
        lab.train("broken", asked("gatys"), encoder_uri=str(tmp_path))
    assert failed.value.reason == "BAD_ENCODER_WEIGHTS"
    monkeypatch.undo()
    monkeypatch.setattr(train_job, "TritonParityClient", RuntimeParity)
    # What no method would see with is no obstacle.
    assert lab.train("untouched", asked("moments"), encoder_uri=str(tmp_path)).method


# Inception.


@pytest.fixture(scope="module")
def inception_weights(tmp_path_factory):
    """Give a folder with random weights of Inception-v3 as torchvision publishes them; its norms know some squares, so that it tells images apart."""
    network = torchvision.models.inception_v3(weights=None, init_weights=False, aux_logits=True)
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight, generator=generator)
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    images = np.stack([image for gain in (1.0, 0.45) for image in squares(3, 800, gain)[0]])
    planes = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        network.train()(torch.nn.functional.interpolate(planes, (299, 299)))
    folder = tmp_path_factory.mktemp("inception")
    torch.save(network.state_dict(), folder / "inception_v3_google-0cc3c7bd.pth")
    return folder


def record_distances(evidence: list[MethodRecord], method: str) -> dict[str, Any]:
    """Give the distances of a way as the contract tells them."""
    (one,) = [each for each in evidence if each.method == method]
    return {metric.name: metric for metric in record_to_proto(one).distances}


def test_the_published_translation_is_measured_by_inception_where_its_weights_are_given(lab, inception_weights, monkeypatch):
    monkeypatch.setattr(encoders, "SIDE", 75)
    made = lab.train("measured", asked("gamma", "moments"), inception_uri=str(inception_weights))
    measured = [one for one in made.evidence if "kid_inception" in one.figures]
    assert [one.method for one in measured if one.method != "nothing"] == [made.method], "of all ways the published one alone"
    before, after = (record_distances(measured, name)["kid_inception"] for name in ("nothing", made.method))
    assert after.upper < before.lower < before.value < before.upper
    assert before.sample_count == after.sample_count == 24
    assert "fid_inception_64" not in record_distances(measured, "nothing"), "24 images are fewer than 64 figures"
    page = lab.store.read_bytes(f"translators/{made.id}/report.html").decode()
    assert f"KID of the images to home {before.value:.3g} (" in page
    assert "FID by Inception is left out" in page
    assert re.search(r"by Inception stand on inception_v3_google-0cc3c7bd\.pth@[0-9a-f]{16}", notes_of(made))


def test_fid_is_measured_of_sets_larger_than_its_figures_and_nothing_without_time(inception_weights, monkeypatch):
    monkeypatch.setattr(encoders, "SIDE", 75)
    network = encoders.open_inception(str(inception_weights))
    home, shifted = (Domain(name, np.stack(squares(70, first, gain)[0]), [f"{row}" for row in range(70)], [f"{row}" for row in range(70)])
                     for name, first, gain in (("home", 0, 1.0), ("dark", 300, 0.45)))  # fmt: skip
    calls = []

    def lit(images):
        calls.append(len(images))
        return np.rint(np.minimum(images / 0.45, 255)).astype(np.uint8)

    before, after = measure_by_inception(network, home, shifted, lit, until=time.time() + 600)
    assert after["fid_inception_64_upper"] < before["fid_inception_64_lower"]
    assert after["kid_inception_upper"] < before["kid_inception_lower"]
    assert before["inception_images"] == sum(calls) == 70
    assert measure_by_inception(network, home, shifted, lit, until=time.time()) == ({}, {})
    assert sum(calls) == 70, "past its time nothing is begun"


def test_time_for_some_images_measures_these(monkeypatch):
    """A clock that only the network moves, two seconds an image of each of two sets: eight are the least of which anything is told."""
    clock = [0.0]
    monkeypatch.setattr(inception, "time", SimpleNamespace(time=lambda: clock[0]))

    class Slow(encoders.Encoder):
        def __init__(self) -> None:
            pass

        def __call__(self, images, batch=32):
            clock[0] += len(images)
            return np.random.default_rng(len(images)).normal(size=(len(images), encoders.LAST + encoders.FIRST))

    one = Domain("one", np.zeros((100, 8, 8, 3), np.uint8), [f"{row}" for row in range(100)], [f"{row}" for row in range(100)])
    for until in (15.0, 60.0, 150.0):
        clock[0] = 0.0
        before, after = measure_by_inception(Slow(), one, one, None, until=until)
        assert clock[0] <= until
        assert after == {}
        assert before.get("inception_images", 0) == (0 if until == 15.0 else clock[0] / 2)
        assert not before or before["inception_images"] > until / 4


def test_a_setting_of_inception_that_is_broken_ends_the_job_before_any_work(lab, tmp_path, monkeypatch):
    monkeypatch.setattr(train_job, "read_domain", lambda *arguments, **more: pytest.fail("images were read"))
    (tmp_path / "inception_v3.pth").write_bytes(b"no weights")
    for uri, reason in ((tmp_path, "BAD_INCEPTION_WEIGHTS"), (tmp_path / "none", "NO_INCEPTION_WEIGHTS")):
        with pytest.raises(FailedPrecondition, match="the service's setting inception_uri") as failed:
            lab.train("broken", asked("moments"), inception_uri=str(uri))
        assert failed.value.reason == reason
    check_inception(str(tmp_path))
    with pytest.raises(FailedPrecondition, match="the service's setting inception_uri"):
        check_inception(str(tmp_path / "none"))


# Killed.


class QuickRunner(ProcessJobRunner):
    """Runs translate's jobs with a state kept at every look."""

    def submit(self, operation_id, attempt, entrypoint, env, *more, **named):
        command = ["quick_translate_job" if word == "oteo_translate.job" else word for word in entrypoint]
        assert command != list(entrypoint)
        # One thread, as this process has: sums over another number of threads are other sums.
        own = {"PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": os.environ["OMP_NUM_THREADS"]}
        super().submit(operation_id, attempt, command, {**env, **own}, *more, **named)


def step_of(state: bytes) -> int:
    content = torch.load(io.BytesIO(torch.load(io.BytesIO(state), weights_only=True)["state"]), weights_only=True)
    return int(content["standing"]["step"])


@pytest.mark.slow
def test_a_training_that_is_killed_goes_on_from_its_state_and_ends_as_if_nothing_had_been(lab):
    recipe = {"fastcut": {**TINY, "steps": 200}}
    runner = QuickRunner(lab.home / "jobs", executor="inline")
    translate = Translate(lab.settings, runner)
    translate.start()
    try:
        with live_server(lab.settings, translate.register) as server, sync_channel(server.address, lab.settings) as channel:
            operations = operations_pb2_grpc.OperationsStub(channel)
            request = asked("fastcut", given=recipe, seed=5, translator_id="killed")
            name = translate_pb2_grpc.TranslateServiceStub(channel).TrainTranslator(request, timeout=patient(10)).name
            operation = name.removeprefix("operations/")
            kept = f"{files.folder(operation)}/{files.CHECKPOINTS}"

            def states() -> list[bytes]:
                return [lab.store.read_bytes(one.path) for one in lab.store.iter(kept) if "/fastcut-" in one.path]

            (state,) = wait_for(states, 60, said=lambda: runner.logs(operation, 1), pause=0.02)
            os.kill(runner.pid(operation, 1), signal.SIGKILL)
            at = step_of(state)
            done = wait_done(
                lambda: operations.GetOperation(operations_pb2.GetOperationRequest(name=name), timeout=patient(10)),
                120,
                said=lambda: runner.logs(operation, 2),
            )
    finally:
        translate.stop()
        runner.close()
    response, metadata = pb.TrainTranslatorResponse(), pb.TrainTranslatorMetadata()
    assert done.response.Unpack(response), done.error
    assert done.metadata.Unpack(metadata)
    assert metadata.progress.attempt == 2
    assert response.translator.name == "translators/killed"
    begun = re.search(r"the training goes on from step (\d+)", runner.logs(operation, 2))
    assert begun, runner.logs(operation, 2)
    assert at <= int(begun[1]) < 200
    found = load_module(lab.translation("killed"))
    assert found.history["step"][-1] == 200
    lab.train("whole", asked("fastcut", given=recipe, seed=5))
    assert lab.translation("killed") == lab.translation("whole")
