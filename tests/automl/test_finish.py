"""From a search's winner to a published package, through a real job, and what happens where a step fails or the job is killed."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import time

import numpy as np
import onnx
import pytest
import torch
from google.protobuf import text_format
from training_tools import working_time
from tritonclient.grpc import model_config_pb2
from waiting import patient

from oteo_automl import completing
from oteo_automl.finish import finish
from oteo_automl.handover import make_winner
from oteo_automl.search.result import EpochRecord, FittedCandidate, Plan, Predictions, SearchResult
from oteo_core.artifacts import ArtifactStore
from oteo_core.datasets import DatasetInfo, DatasetReader, DatasetWriter, Sample
from oteo_core.errors import DeadlineExceeded, FailedPrecondition, InvalidArgument, NotFound
from oteo_core.graphs.export import run_onnx
from oteo_core.graphs.parity import TritonAway
from oteo_core.graphs.programs import load_program
from oteo_core.images import InputPolicy, encode_png, prepare
from oteo_core.jobs import JobHandler
from oteo_core.jobs.testing import run_handler
from oteo_core.packages import TrialRecord, list_models, read_model
from oteo_core.packages.second import as_second
from oteo_core.settings import CoreSettings
from oteo_protos.automl.v1 import automl_pb2

CLASSES = ("dark", "<b>light</b>")
POLICY = InputPolicy(width=32, height=32, channels=3, dtype="uint8", resize="stretch", interpolation="area")
SECONDS = patient(30)
"""Which suffice for all that finishing does."""


class Brightness(torch.nn.Module):
    """Tells dark from light by the mean; `gain` makes it boast."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.gain = torch.nn.Parameter(torch.tensor(gain))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        mean = image.float().mean(dim=(1, 2, 3)) / 255 - 0.5
        return torch.stack([-mean, mean], dim=1) * self.gain


class Served:
    """A Triton stand-in that runs the uploaded graph."""

    def __init__(self, away: bool = False, spoil: float = 0.0) -> None:
        self.away, self.spoil, self.loaded, self.config = away, spoil, {}, ""

    def load(self, name, config, files):
        if self.away:
            raise TritonAway("nobody listens")
        self.loaded[name] = files["1/model.onnx"]
        self.config = config

    def infer(self, name, images, outputs):
        probabilities, *others = run_onnx(self.loaded[name], images)
        return [probabilities + np.float32(self.spoil), *others]

    def unload(self, name):
        self.loaded.pop(name, None)


class Data:
    """The search's samples, as far as the handover looks at them."""

    def __init__(self, samples, images):
        self.samples = [sample.id for sample in samples]
        self.groups = [sample.group for sample in samples]
        self.sequences = [sample.sequence for sample in samples]
        self.labels = np.array([CLASSES.index(sample.labels[0]) for sample in samples])
        self.images = images
        self._splits = np.array([sample.split for sample in samples])

    def part(self, *names):
        return np.flatnonzero(np.isin(self._splits, names))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A store with a dataset of dark and light pictures, and the result of a search on it."""
    store = ArtifactStore(f"file://{tmp_path_factory.mktemp('store')}")
    rng = np.random.default_rng(0)
    samples, images = [], []
    with DatasetWriter(
        store, "datasets/shades", DatasetInfo(id="shades", display_name="Shades", task="classification", classes=CLASSES)
    ) as writer:
        for index in range(180):
            label = index % 2
            level = 128 + (1 if label else -1) * 22 + rng.normal(0, 22)
            pixels = np.clip(level + rng.normal(0, 20, (40, 36, 3)), 0, 255).astype(np.uint8)
            data = encode_png(pixels)
            sample = Sample(
                id=f"s{index}",
                path=writer.add_media(f"{index}.png", data),
                source_path=f"{('dark', 'light')[label]}/{index}.png",
                width=36,
                height=40,
                channels=3,
                dtype="uint8",
                split=("train", "train", "validation", "test")[index // 2 % 4],
                group=f"g{index // 16}" if index < 64 else "",
                labels=(CLASSES[label],),
            )
            writer.add(sample)
            samples.append(sample)
            images.append(prepare(pixels, POLICY))
        writer.finish()
    data = Data(samples, np.stack(images))
    rows = data.part("validation")

    def fitted(trial, name, gain):
        with torch.inference_mode():
            logits = Brightness(gain)(torch.from_numpy(data.images[rows])).numpy()
        predictions = Predictions(tuple(data.samples[i] for i in rows), data.labels[rows], logits)
        return FittedCandidate(trial, name, Brightness(gain), POLICY, {"gain": gain}, "scratch", predictions)

    curve = [EpochRecord(epoch, 1 / epoch, 1.1 / epoch if epoch % 2 else float("nan"), 0.9, 0.1, 1.0) for epoch in range(1, 7)]
    result = SearchResult(
        classes=CLASSES,
        objective="log_loss",
        best=fitted("t1", "timm-boaster", 90.0),
        runner_up=fitted("t2", "timm-backward", -3.0),
        baseline=fitted("t0", "classical-shy", 0.5),
        trials=[
            TrialRecord("t1", "timm-boaster", {"gain": 90.0}, objective=0.2, duration=12.0),
            TrialRecord("t0", "classical-shy", objective=0.6),
            TrialRecord("t9", "timm-broken", state="failed", message="ran out of <memory>"),
        ],
        curves={"t1": curve},
        plan=Plan(summary="A baseline, then two networks."),
        seconds=20.0,
    )
    return store, result, data


def publish(world, client, *, operation="automl-op", model="shades", seconds=SECONDS, attempt=1, **options):
    """Run `finish` in a job, as the service's own handler does."""
    store, result, data = world

    def run(ctx):
        winner = make_winner(
            result, data, DatasetReader(store, "shades"), model_id=model, budget=240.0, start_time=time.time() - 60, seed=3, **options
        )
        package = finish(ctx, winner, client, deadline=time.time() + seconds)
        return automl_pb2.TrainModelResponse(model=package.to_proto())

    handler = JobHandler(automl_pb2.TrainModelRequest, automl_pb2.TrainModelMetadata, run)
    answer = run_handler(
        handler, automl_pb2.TrainModelRequest(), settings=CoreSettings(), artifacts=store, operation_id=operation, attempt=attempt
    )
    response = automl_pb2.TrainModelResponse()
    assert answer.Unpack(response)
    return response.model


@pytest.fixture(scope="module")
def published(world):
    client = Served()
    model = publish(world, client)
    return world[0], model, read_model(world[0], "shades"), client


def test_package_holds_every_file_it_names_and_no_other(published):
    store, model, package, client = published
    assert model.name == "models/shades"
    assert set(package.files) == {
        "report.html",
        "README.md",
        "predictions.csv",
        "reference.npz",
        "second.onnx",
        "triton/shades/config.pbtxt",
        "triton/shades/labels.txt",
        "triton/shades/1/model.onnx",
    }
    import hashlib

    for name, file in package.files.items():
        data = store.read_bytes(f"models/shades/{name}")
        assert (hashlib.sha256(data).hexdigest(), len(data)) == (file.sha256, file.size)
    assert {entry.path for entry in store.iter("models/shades")} == {f"models/shades/{name}" for name in (*package.files, "package.json")}
    assert client.loaded == {}
    config = text_format.Parse(store.read_bytes("models/shades/triton/shades/config.pbtxt").decode(), model_config_pb2.ModelConfig())
    assert config.name == package.triton_model == "shades"
    assert config.parameters["oteo_digest"].string_value == package.digest
    assert package.digest == package.serving_digest(package.files["triton/shades/1/model.onnx"].sha256)


def test_the_first_rival_that_has_learnt_goes_beside_the_model(published, world):
    store, _, package, _ = published
    # The runner-up says the opposite of what is right, so that its opinion is worth nothing.
    assert package.details["second_opinion"] == {"candidate": "classical-shy", "trial": "t0", "decoding": {}}
    data = world[2]
    images = data.images[data.part("test")]
    second, own = (run_onnx(store.read_bytes(f"models/shades/{name}"), images)[0] for name in ("second.onnx", "triton/shades/1/model.onnx"))
    assert (second.argmax(axis=1) == own.argmax(axis=1)).mean() > 0.8
    assert np.abs(second - own).max() > 0.01
    manifest = as_second(package)
    assert (manifest.candidate, manifest.input, manifest.decoding) == ("classical-shy", package.input, {})
    assert as_second(dataclasses.replace(package, files={})) is None


def test_a_network_is_published_as_a_program_too_where_the_time_suffices(world):
    class Edges(Brightness):
        """A network, for all that finishing can see of it."""

        def __init__(self):
            super().__init__(3.0)
            self.mean = torch.nn.Conv2d(3, 3, 3)

        def forward(self, image):
            return super().forward(image) + self.mean(image.permute(0, 3, 1, 2).float() / 255).mean((2, 3))[:, :2]

    store, result, data = world
    searched = dataclasses.replace(result, best=dataclasses.replace(result.best, module=Edges()))
    with working_time():
        hurried = publish((store, searched, data), Served(), operation="automl-hurried", model="hurried", seconds=11.0)
    assert not {"network.pt2", "second.onnx"} & set(read_model(store, hurried.name.removeprefix("models/")).files)
    publish((store, searched, data), Served(), operation="automl-calm", model="calm", seconds=patient(60))
    assert read_model(store, "calm").files["network.pt2"].size > 1000
    program, names = load_program(store.read_bytes("models/calm/network.pt2"))
    images = data.images[data.part("test")]
    with torch.inference_mode():
        found = program.module()(torch.from_numpy(images))
    expected = run_onnx(store.read_bytes("models/calm/triton/calm/1/model.onnx"), images)
    assert names == ("probabilities", "logits")
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one.numpy(), other, atol=1e-4)


def test_graph_gives_the_calibrated_answers_of_the_predictions_file(published, world):
    store, _, package, _ = published
    data = world[2]
    rows = data.part("test")
    probabilities, _ = run_onnx(store.read_bytes("models/shades/triton/shades/1/model.onnx"), data.images[rows])
    written = list(csv.DictReader(io.StringIO(store.read_bytes("models/shades/predictions.csv").decode())))
    assert [row["sample"] for row in written] == [data.samples[i] for i in rows]
    np.testing.assert_allclose([[float(row[f"p_{name}"]) for name in CLASSES] for row in written], probabilities, atol=2e-6)
    accuracy = np.mean([row["correct"] == "1" for row in written])
    assert package.metric("accuracy").value == pytest.approx(accuracy)
    assert 0.6 < accuracy < 1
    # The boaster's temperature tames it.
    assert package.temperature > 2
    assert package.metric("ece").value < package.metric("ece_uncalibrated").value
    assert package.metric("accuracy").lower < accuracy < package.metric("accuracy").upper
    graph = onnx.load_model_from_string(store.read_bytes("models/shades/triton/shades/1/model.onnx"))
    assert json.loads({prop.key: prop.value for prop in graph.metadata_props}["oteo.classes"]) == list(CLASSES)


def test_manifest_says_how_it_was_made(published):
    _, model, package, _ = published
    assert package.operation == "operations/automl-op"
    assert package.candidate == "timm-boaster"
    assert package.dataset == "datasets/shades"
    assert len(package.dataset_digest) == 64
    assert [trial.id for trial in package.trials] == ["t1", "t0", "t9"]
    assert 60 <= package.training_time < 60 + patient(60)
    assert package.versions["torch"] == torch.__version__.split("+")[0] or package.versions["torch"] == torch.__version__
    assert set(package.details["finish_seconds"]) >= {"calibrate", "evaluate", "export", "parity", "report"}
    assert package.parity_error < 1e-5
    assert package.details["exporter"] == "torchscript"
    assert model.trial_count == 3
    assert {point.criterion for point in package.operating_points} == {"youden"}


def test_reference_tells_a_usual_image_from_an_inverted_one(published, world):
    _, _, package, _ = published
    images = world[2].images[world[2].part("test")]
    usual = [package.reference.score(image)[1] for image in images]
    assert np.mean(np.array(usual) < 0.05) < 0.3
    assert package.reference.score(np.full((32, 32, 3), 255, np.uint8))[1] < 0.05


def test_page_loads_nothing_and_says_what_matters(published):
    store, _, package, _ = published
    page = store.read_bytes("models/shades/report.html").decode()
    assert "http://" not in page
    assert "https://" not in page
    assert "<script" not in page
    assert "<b>light</b>" not in page
    assert "&lt;b&gt;light&lt;/b&gt;" in page
    for words in (
        "timm-boaster",
        "timm-backward (the runner-up)",
        "classical-shy (the baseline)",
        "ran out of &lt;memory&gt;",
        "Limits of use",
        package.dataset_digest,
    ):
        assert words in page, words
    assert f"{100 * package.metric('accuracy').value:.1f}" in page
    assert page.count("data:image/jpeg") >= 6
    card = store.read_bytes("models/shades/README.md").decode()
    assert "limits of use" in card
    assert package.dataset_digest in card


def test_a_rerun_after_the_commit_gives_the_same_package(published, world):
    store, model, _, _ = published
    before = store.read_bytes("models/shades/package.json")
    again = publish(world, Served(away=True), attempt=2)
    assert store.read_bytes("models/shades/package.json") == before
    assert again == model


@pytest.mark.parametrize("when", ["parity", "report", "publish"])
def test_killed_at_any_step_it_leaves_no_model_and_a_rerun_publishes(world, monkeypatch, when):
    store = world[0]
    model, operation = f"killed-{when}", f"automl-k{when}"

    def killed(*_args, **_kwargs):
        raise RuntimeError("killed here")

    with monkeypatch.context() as patch:
        if when == "publish":
            patch.setattr("oteo_core.jobs.context.JobContext.publish", killed)
        else:
            patch.setattr(completing, {"parity": "prove", "report": "write_html"}[when], killed)
        with pytest.raises(RuntimeError, match="without a result"):
            publish(world, Served(), operation=operation, model=model)
    with pytest.raises(NotFound):
        read_model(store, model)
    publish(world, Served(), operation=operation, model=model, attempt=2)
    assert read_model(store, model).operation == f"operations/{operation}"


@pytest.mark.parametrize(
    ("client", "seconds", "error", "reason"),
    [
        (Served(away=True), 5.2, DeadlineExceeded, "TRITON_UNAVAILABLE"),
        (Served(spoil=1e-3), SECONDS, FailedPrecondition, "PARITY_FAILED"),
    ],
)
def test_no_proof_no_model(world, client, seconds, error, reason):
    with pytest.raises(error) as caught:
        publish(world, client, operation=f"automl-{reason.lower().replace('_', '')}", model="unproven", seconds=seconds)
    assert caught.value.reason == reason
    with pytest.raises(NotFound):
        read_model(world[0], "unproven")
    assert "unproven" not in [package.id for package in list_models(world[0])]


def test_requested_points_and_coverage_are_kept(world):
    from oteo_core.evaluation.operating import OperatingRequest

    publish(
        world,
        Served(),
        operation="automl-points",
        model="points",
        conformal_coverage=0.8,
        operating_points=[OperatingRequest("dark", sensitivity=0.9)],
        labels={"site": "north"},
    )
    package = read_model(world[0], "points")
    assert package.conformal.coverage == 0.8
    assert [(point.class_name, point.criterion) for point in package.operating_points] == [
        ("dark", "sensitivity>=0.9"),
        (CLASSES[1], "youden"),
    ]
    assert package.operating_points[0].sensitivity >= 0.9
    assert package.labels == {"site": "north"}


def test_no_test_images_is_said(world):
    store, result, data = world

    class Untested(Data):
        def __init__(self):
            vars(self).update(vars(data))

        def part(self, *names):
            return data.part(*(name for name in names if name != "test"))

    with pytest.raises(FailedPrecondition) as caught:
        make_winner(result, Untested(), DatasetReader(store, "shades"), model_id="x")
    assert caught.value.reason == "NO_TEST_PART"


def test_point_for_an_untrained_class_is_refused(world):
    from oteo_core.evaluation.operating import OperatingRequest

    store, result, data = world
    with pytest.raises(InvalidArgument) as caught:
        make_winner(
            result, data, DatasetReader(store, "shades"), model_id="x", operating_points=[OperatingRequest("grey", specificity=0.9)]
        )
    assert caught.value.reason == "UNKNOWN_CLASS"
