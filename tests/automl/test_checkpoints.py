"""Networks that were trained elsewhere: read without trust, matched with the classes, tried as they are and trained further."""

from __future__ import annotations

import hashlib
import http.server
import io
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save
from training_runs import Home, stripes
from training_tools import train

from oteo_automl.candidates.checkpoints import Checkpoint, load_given, read_checkpoint
from oteo_automl.candidates.classification import ClassificationLesson, TrainingRows
from oteo_automl.candidates.modules import load_module
from oteo_automl.candidates.networks import NetworkClassifier
from oteo_automl.candidates.training import Recipe, Trainer
from oteo_automl.candidates.weights import find_weights, has_weights, load_weights
from oteo_automl.dense.base import find_task
from oteo_automl.dense.work import choose_candidates
from oteo_automl.exporting.network_file import network_files
from oteo_automl.packaging.served import ServedClassifier
from oteo_automl.search.checkpoint_pieces import judge_given, take_checkpoints
from oteo_automl.search.checkpoints import StoredCheckpoints
from oteo_automl.search.classification_pieces import Problem, train_network
from oteo_automl.search.data import ArrayCache
from oteo_core.errors import OteoError
from oteo_core.packages import read_model

CLASSES = ("lying", "slanting", "standing")
"""The dataset's order; the checkpoint was trained in another."""
THEIRS = ("standing", "lying", "slanting")


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory) -> Path:
    """Files of a network that was trained on stripes by somebody else, in several forms."""
    folder = tmp_path_factory.mktemp("elsewhere")
    rng = np.random.default_rng(2)
    kinds = {"lying": 0, "standing": 1, "slanting": 2}
    labels = np.arange(240) % 3
    images = np.stack([stripes(kinds[THEIRS[label]], rng) for label in labels])
    torch.manual_seed(0)
    network = NetworkClassifier("resnet10t", 3, 3, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    rows = np.arange(240)
    lesson = ClassificationLesson(TrainingRows(images, labels, rows[:210], rows[210:], 3), 0)
    trainer = Trainer(network, lesson, Recipe(rate=2e-3), seed=0)
    judged = trainer.run(4, 4, float("inf")).judgement
    assert judged.score > 0.9
    state = {name: value.contiguous() for name, value in trainer.result().network.state_dict().items()}
    (folder / "plain.safetensors").write_bytes(save(state))
    torch.save({"epoch": 4, "state_dict": {f"module.{name}": value for name, value in state.items()}}, folder / "wrapped.pth")
    torch.save({f"model.{name}": value for name, value in state.items()}, folder / "lightning.pt")
    (folder / "oteo.pt").write_bytes(network_files(ServedClassifier(trainer.result(), 1.5))["network.pt"])
    return folder


def answers(network: NetworkClassifier, classes=CLASSES) -> float:
    """Give the share of stripes that a network names rightly."""
    rng = np.random.default_rng(9)
    kinds = {"lying": 0, "standing": 1, "slanting": 2}
    images = torch.from_numpy(np.stack([stripes(kinds[name], rng) for name in classes for _ in range(10)]))
    with torch.inference_mode():
        return float((network.eval()(images).argmax(1).numpy() == np.repeat(np.arange(3), 10)).mean())


@pytest.mark.parametrize(
    ("file", "architecture"),
    [("plain.safetensors", "resnet10t"), ("wrapped.pth", "resnet10t"), ("lightning.pt", "resnet10t"), ("oteo.pt", "")],
)
def test_forms_that_are_read_and_classes_matched_by_name(elsewhere, file, architecture):
    asked = Checkpoint(str(elsewhere / file), architecture, classes=tuple(name.upper() for name in THEIRS))
    given, data = read_checkpoint(asked, CLASSES, 3)
    assert given.fits
    assert given.architecture == "resnet10t"
    assert given.source == f"checkpoint:{file.split('.')[0]}@{hashlib.sha256((elsewhere / file).read_bytes()).hexdigest()[:16]}"
    assert answers(load_module(data)) > 0.9
    assert answers(load_given(data, drop=0.3)) > 0.9


def test_without_names_the_order_counts(elsewhere):
    given, data = read_checkpoint(Checkpoint(str(elsewhere / "plain.safetensors"), "resnet10t"), CLASSES, 3)
    assert given.fits
    assert "in their order" in given.reason
    assert answers(load_module(data), THEIRS) > 0.9
    assert answers(load_module(data)) < 0.5


def test_other_classes_and_other_channels_keep_what_fits(elsewhere):
    path = str(elsewhere / "plain.safetensors")
    given, data = read_checkpoint(Checkpoint(path, "resnet10t", classes=THEIRS), ("lying", "wavy"), 3)
    assert not given.fits
    assert "it knows no wavy" in given.reason
    assert load_module(data)(torch.zeros((1, 32, 32, 3), dtype=torch.uint8)).shape == (1, 2)
    given, data = read_checkpoint(Checkpoint(path, "resnet10t", classes=THEIRS), CLASSES, 1)
    grey = load_module(data)
    assert given.fits
    images = torch.from_numpy(np.stack([stripes(kind, np.random.default_rng(kind))[:, :, :1] for kind in (0, 2, 1) for _ in range(10)]))
    with torch.inference_mode():
        assert (grey(images).argmax(1).numpy() == np.repeat(np.arange(3), 10)).mean() > 0.7


class Evil:
    """Runs code when it is unpickled."""

    def __reduce__(self):
        return (pytest.fail, ("its code was run",))


@pytest.mark.parametrize(
    ("make", "architecture", "classes", "reason", "words"),
    [
        (lambda f: f / "none.pth", "resnet10t", (), "BAD_CHECKPOINT", "nothing is at"),
        (lambda f: f / "plain.onnx", "resnet10t", (), "BAD_CHECKPOINT", "ends in .onnx"),
        (lambda f: f / "plain.safetensors", "", (), "BAD_CHECKPOINT", "name timm's architecture"),
        (lambda f: f / "plain.safetensors", "resnet_nein", (), "BAD_CHECKPOINT", "timm has no network"),
        (lambda f: f / "plain.safetensors", "resnet18", (), "BAD_CHECKPOINT", "tensors"),
        (lambda f: f / "oteo.pt", "resnet18", (), "BAD_CHECKPOINT", "says of itself that it is a resnet10t"),
        (lambda f: f / "plain.safetensors", "resnet10t", ("a", "b"), "CHECKPOINT_CLASSES", "has 3 outputs, and 2 classes"),
        (lambda f: _write(f / "evil.pth", {"state_dict": Evil()}), "resnet10t", (), "BAD_CHECKPOINT", "no file of tensors"),
        (lambda f: _write(f / "words.pth", {"a": 1}), "resnet10t", (), "BAD_CHECKPOINT", "no tensors"),
        (lambda f: _cut(f), "resnet10t", (), "BAD_CHECKPOINT", "no file of tensors"),
    ],
)
def test_what_cannot_be_used_is_refused_with_a_sentence(elsewhere, make, architecture, classes, reason, words):
    with pytest.raises(OteoError) as caught:
        read_checkpoint(Checkpoint(str(make(elsewhere)), architecture, classes=classes), CLASSES, 3, field="checkpoints[0]")
    assert (caught.value.reason, caught.value.field) == (reason, "checkpoints[0]")
    assert words in caught.value.message


def _write(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


def _cut(folder: Path) -> Path:
    data = (folder / "wrapped.pth").read_bytes()
    (folder / "cut.pth").write_bytes(data[: len(data) // 2])
    return folder / "cut.pth"


def test_its_pieces_judge_it_as_it_is_and_begin_from_it(elsewhere, tmp_path):
    rng = np.random.default_rng(4)
    labels = np.arange(60) % 3
    kinds = (0, 2, 1)
    images = np.stack([stripes(kinds[label], rng) for label in labels])
    checkpoints = StoredCheckpoints(f"file://{tmp_path}", "checkpoints", {})
    asked = [Checkpoint(str(elsewhere / "plain.safetensors"), "resnet10t", "theirs", THEIRS)]
    [given] = take_checkpoints(asked, checkpoints, CLASSES, 3)
    # Another attempt does not need the file again.
    assert take_checkpoints([Checkpoint("gone.pth", "", "theirs")], checkpoints, CLASSES, 3) == (given,)
    rows = np.arange(60)
    folds = (rows >= 30).astype(np.int64)
    problem = Problem(ArrayCache(images), labels, rows, folds, 2, 3, 0, checkpoints, given={given.candidate: given})
    as_is = judge_given(problem, "t1", given)
    assert as_is.scores["accuracy"] > 0.9
    assert as_is.initial_weights == given.source
    further = train_network(problem, "t2", 0, given.candidate, Recipe(rate=1e-4, batch=8), 1, 1, float("inf"))
    assert further.initial_weights == given.source
    # One epoch at a low rate from scratch would be guessing.
    assert further.scores["accuracy"] > 0.8
    with pytest.raises(OteoError) as caught:
        take_checkpoints([*asked, *asked], checkpoints, CLASSES, 3)
    assert caught.value.reason == "DUPLICATE_CHECKPOINT"


@pytest.mark.slow
def test_a_training_tries_it_as_it_is_and_trains_it_further(elsewhere, tmp_path, monkeypatch):
    home = Home(tmp_path)
    home.dataset("stripes", {"lying": (8, 6, 8), "standing": (8, 6, 8)})
    response = train(
        monkeypatch,
        home.store,
        tmp_path,
        "stripes",
        seconds=45,
        candidates=["classical-logistic"],
        checkpoints=[{"uri": str(elsewhere / "plain.safetensors"), "architecture": "resnet10t", "name": "theirs", "classes": list(THEIRS)}],
    )
    package = read_model(home.store, response.model.name)
    trials = {trial.candidate: trial for trial in package.trials}
    assert {"classical-logistic", "checkpoint-theirs", "checkpoint-theirs-as-is"} <= set(trials)
    assert trials["checkpoint-theirs-as-is"].state == "finished", trials["checkpoint-theirs-as-is"].message
    [accuracy] = [metric.value for metric in trials["checkpoint-theirs-as-is"].metrics if metric.name == "accuracy"]
    assert accuracy > 0.9
    plan = {one.name: one for one in response.plan.candidates}
    assert "matched with the classes by name" in plan["checkpoint-theirs"].reason
    assert any(trial.candidate == "checkpoint-theirs" and trial.metrics for trial in package.trials)


# Weights by name and digest.


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> tuple[Path, str]:
    """A folder of pretrained weights, and the digest of the one file in it."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(1)
    data = save(timm.create_model("resnet10t", num_classes=10).state_dict())
    (folder / "resnet10t.safetensors").write_bytes(data)
    return folder, hashlib.sha256(data).hexdigest()


def test_a_digest_picks_the_file_or_refuses_it(weights):
    folder, digest = weights
    found = find_weights(f"{folder}#resnet10t@{digest[:12].upper()}", "resnet10t")
    assert found is not None
    assert found.source == f"pretrained:resnet10t@{digest[:16]}"
    assert find_weights(str(folder), "resnet10t").source == found.source
    assert find_weights(f"{folder}#resnet18@{digest}", "resnet10t") is None
    assert not has_weights(f"{folder}#resnet18", "resnet10t")
    assert has_weights(f"{folder}#resnet18,resnet10t@{digest}", "resnet10t")
    with pytest.raises(OteoError) as caught:
        find_weights(f"{folder}#resnet10t@{'0' * 16}", "resnet10t")
    assert (caught.value.reason, caught.value.field) == ("WRONG_DIGEST", "pretrained_uri")
    assert digest in caught.value.message


PUBLISHED = tuple(f"/{name}/resolve/main/model.safetensors" for name in ("timm/resnet10t.c3_in1k", "PekingU/rtdetr_r18vd"))
"""What the hub of the tests has: the same file under both names."""


@pytest.fixture
def hub(weights, tmp_path, monkeypatch) -> Iterator[list[str]]:
    """A hub of this machine that holds one network's weights; gives the paths that it was asked for."""
    data, digest = (weights[0] / "resnet10t.safetensors").read_bytes(), weights[1]
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self, body: bool) -> None:
            asked.append(self.path)
            if self.path not in PUBLISHED and "/api/" not in self.path:
                self.send_response(404)
                self.send_header("X-Error-Code", "EntryNotFound")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("ETag", f'"{digest}"')
            self.send_header("X-Repo-Commit", "a" * 40)
            self.end_headers()
            if body:
                self.wfile.write(data)

        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def log_message(self, *_args: object) -> None:
            """Stay quiet."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    yield asked
    server.shutdown()
    server.server_close()


def test_the_hub_gives_weights_by_name_and_digest(hub, weights):
    assert has_weights("hub:", "resnet10t")
    found = find_weights(f"hub:#resnet10t.c3_in1k@{weights[1][:16]}", "resnet10t")
    assert found is not None
    assert found.source == f"pretrained:resnet10t.c3_in1k@{weights[1][:16]}"
    network = timm.create_model("resnet10t", num_classes=2)
    load_weights(network, found)
    theirs = torch.load(io.BytesIO(_as_torch(found.data)), weights_only=True)
    assert torch.equal(network.state_dict()["layer1.0.conv1.weight"], theirs["layer1.0.conv1.weight"])
    assert not has_weights("hub:", "regnety_004")
    with pytest.raises(OteoError) as caught:
        find_weights("hub:#resnet10t@00000000", "resnet10t")
    assert caught.value.reason == "WRONG_DIGEST"


def test_the_hub_gives_weights_of_a_detector_that_timm_does_not_know(hub, weights):
    candidates = {one.name: one for one in find_task("detection").candidates}
    architecture = candidates["rtdetr-r18"].architecture
    found = find_weights(f"hub:#{architecture}@{weights[1][:16]}", architecture)
    assert found is not None
    assert found.source == f"pretrained:{architecture}@{weights[1][:16]}"
    assert "/PekingU/rtdetr_r18vd/resolve/main/model.safetensors" in hub
    with pytest.raises(OteoError) as caught:
        find_weights(f"hub:#{architecture}@00000000", architecture)
    assert caught.value.reason == "WRONG_DIGEST"
    # One that the hub does not have is not to be had, and said so for what it is.
    assert not has_weights("hub:", candidates["rtdetr-r50"].architecture)
    _, reasons = choose_candidates(
        find_task("detection"),
        [],
        gpu=False,
        pretrained={name: has_weights("hub:#rtdetr_r18vd", one.architecture) for name, one in candidates.items()},
    )
    assert reasons["rtdetr-r18"] == "in the portfolio for this machine"


def _as_torch(data: bytes) -> bytes:
    from safetensors.torch import load

    buffer = io.BytesIO()
    torch.save(load(data), buffer)
    return buffer.getvalue()


def test_a_hub_that_is_away_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(OteoError) as caught:
        find_weights("hub:", "resnet10t")
    assert (caught.value.reason, caught.value.field) == ("HUB_UNREACHABLE", "pretrained_uri")
    assert "resnet10t" in caught.value.message
