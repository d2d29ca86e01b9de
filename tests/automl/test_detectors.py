"""Every detector keeps the contract: it learns what it is shown, decodes to fixed shapes, is written down, and exports."""

from __future__ import annotations

import subprocess
import sys
import warnings

import numpy as np
import onnxruntime
import pytest
import torch
from detection_sets import discs
from safetensors.torch import save_file
from torchvision.ops import batched_nms
from waiting import patient

from oteo_automl.candidates.modules import dump_module
from oteo_automl.candidates.training import Recipe
from oteo_automl.candidates.weights import find_weights, load_weights
from oteo_automl.dense.base import DenseCandidate, find_task
from oteo_automl.dense.detect.serving import ServedDetector
from oteo_automl.dense.detect.suppression import likeliest
from oteo_automl.dense.detect.targets import table_of
from oteo_core.images import InputPolicy
from oteo_core.packages import TrueBoxes

TASK = find_task("detection")
DETECTORS = (
    DenseCandidate("centre", "resnet10t", "centre"),
    DenseCandidate("fcos", "resnet10t", "fcos"),
    DenseCandidate("faster-rcnn", "mobilenetv3_small_050", "faster-rcnn"),
)


def taught(candidate: DenseCandidate, channels: int = 3):
    """Give a network, its lesson and images, one of them without an object."""
    torch.set_num_threads(1)
    images, truths = discs(6, 64, channels, seed=1)
    truths[0] = TrueBoxes()
    table, rows = table_of(truths), np.arange(6)
    facts = TASK.facts(table, rows, InputPolicy(width=64, height=64, channels=channels), 2)
    torch.manual_seed(0)
    network = TASK.network(candidate, 2, channels, [0.3] * channels, [0.2] * channels, facts)
    lesson = TASK.lesson(candidate, images, table, rows, rows, classes=2, facts=facts, seed=0)
    lesson.place(torch.device("cpu"))
    return network, lesson, images


def steps(network, lesson, count: int, rate: float = 1e-3) -> list[float]:
    optimiser = torch.optim.AdamW(network.parameters(), lr=rate)
    losses = []
    network.train()
    for number in range(count):
        loss = lesson.loss(network, lesson.batch(np.arange(6)), Recipe(strength="none"), torch.Generator().manual_seed(number))
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 3.0)
        optimiser.step()
        losses.append(float(loss.detach()))
    return losses


def assert_graph_is_the_network(network, images, path):
    served = ServedDetector(network.eval(), 50).eval()
    names = ["boxes", "scores", "classes"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        axes = {name: {0: "batch"} for name in ("image", *names)}
        example = torch.zeros((2, *images.shape[1:]), dtype=torch.uint8)
        torch.onnx.export(
            served, (example,), path, dynamo=False, opset_version=17, input_names=["image"], output_names=names, dynamic_axes=axes
        )
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for count in (1, 3):
        with torch.no_grad():
            expected = [out.numpy() for out in served(torch.from_numpy(images[:count]))]
        answers = session.run(None, {"image": images[:count]})
        assert [answer.shape for answer in answers] == [(count, 50, 4), (count, 50), (count, 50)]
        assert np.abs(answers[1] - expected[1]).max() < 1e-4
        assert (np.diff(expected[1], axis=1) <= 0).all()
        # Boxes of equal scores may change places: each box is looked for among those of its class.
        for image in range(count):
            for box, score, label in zip(answers[0][image], answers[1][image], answers[2][image], strict=True):
                if score > 0.05:
                    rivals = expected[0][image][(expected[2][image] == label) & (np.abs(expected[1][image] - score) < 1e-4)]
                    assert np.abs(rivals - box).max(axis=1).min() < 1e-2


@pytest.mark.parametrize("candidate", DETECTORS, ids=lambda one: one.name)
def test_detectors_learn_decode_and_export(candidate, tmp_path):
    network, lesson, images = taught(candidate)
    losses = steps(network, lesson, 10)
    assert np.isfinite(losses).all()
    assert np.mean(losses[-2:]) < 0.8 * losses[0]
    judged = lesson.judge(network.eval())
    assert np.isfinite(judged.loss)
    assert judged.kept["boxes"].shape[1:] == (100, 4)
    again = lesson.judge(network)
    assert judged.loss == again.loss
    assert_graph_is_the_network(network, images, tmp_path / "a.onnx")


@pytest.mark.parametrize("candidate", DETECTORS, ids=lambda one: one.name)
def test_images_without_objects_teach_that_nothing_is_there(candidate):
    network, lesson, _ = taught(candidate, channels=1)
    rows = np.zeros(2, np.int64)
    network.train()
    loss = lesson.loss(network, lesson.batch(rows), Recipe(strength="light"), torch.Generator().manual_seed(0))
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)


def test_suppression_in_the_graph_is_the_usual_one():
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(2, 60, 2, generator=generator) * 60
    boxes = torch.cat([corner, corner + 10 + torch.rand(2, 60, 2, generator=generator) * 20], dim=2)
    scores = torch.rand(2, 60, generator=generator).sort(dim=1, descending=True).values
    labels = torch.randint(0, 2, (2, 60), generator=generator)
    found = likeliest(boxes, scores, labels, 60, 0.4)
    for image in range(2):
        expected = batched_nms(boxes[image], scores[image], labels[image], 0.4)
        kept = found[1][image] > 0
        assert torch.equal(found[0][image][kept], boxes[image][expected])
        assert torch.equal(found[2][image][kept], labels[image][expected])


@pytest.mark.slow
def test_a_transformer_learns_decodes_exports_and_takes_weights_from_a_folder(tmp_path):
    candidate = DenseCandidate("rtdetr", "rtdetr_r18vd", "detr", scratch=False)
    network, lesson, images = taught(candidate)
    losses = steps(network, lesson, 5, rate=3e-4)
    assert np.isfinite(losses).all()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.isfinite(lesson.loss(network, lesson.batch(np.arange(6)), Recipe(), torch.Generator().manual_seed(0)))
    assert losses[-1] < losses[0]
    assert np.isfinite(lesson.judge(network.eval()).loss)
    assert_graph_is_the_network(network, images, tmp_path / "a.onnx")
    # A file as the library publishes them, for another number of classes.
    state = {name: value.clone() for name, value in network.encoder.state_dict().items()}
    other = TASK.network(candidate, 5, 3, [0.0] * 3, [1.0] * 3, TASK.facts(table_of([TrueBoxes()]), np.arange(1), InputPolicy(64, 64), 5))
    save_file(state, tmp_path / "rtdetr_r18vd.safetensors")
    weights = find_weights(tmp_path.as_uri(), candidate.architecture)
    assert weights is not None
    load_weights(other.get_submodule("encoder"), weights)
    name = "model.backbone.model.embedder.embedder.0.convolution.weight"
    assert torch.equal(other.encoder.state_dict()[name], state[name])
    # It is read again where nothing was imported before.
    (tmp_path / "module.bin").write_bytes(dump_module(other))
    code = "import sys; from oteo_automl.candidates.modules import load_module; print(load_module(open(sys.argv[1], 'rb').read()).kind)"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "module.bin")], capture_output=True, text=True, timeout=patient(40), check=False
    )
    assert done.stdout.strip() == "transformer-detector", done.stderr


def test_half_precision_of_a_gpu_changes_no_loss_much():
    for candidate in DETECTORS:
        network, lesson, _ = taught(candidate)
        batch = lesson.batch(np.arange(6))
        losses = []
        for half in (False, True):
            network.train()
            torch.manual_seed(0)
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
                losses.append(float(lesson.loss(network, batch, Recipe(strength="none"), torch.Generator().manual_seed(0)).detach()))
        assert losses[1] == pytest.approx(losses[0], rel=0.15), candidate.name
