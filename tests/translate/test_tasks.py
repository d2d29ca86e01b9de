"""The frozen task model: answers, scores without and with truths, and its inside."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from frozen_models import POLICY, SIDE, cells, domain, frozen, made, truths_of

from oteo_core.artifacts import ArtifactStore
from oteo_core.errors import FailedPrecondition
from oteo_core.evaluation.instances import instance_scores
from oteo_core.evaluation.semantic import semantic_scores
from oteo_core.graphs.programs import write_program
from oteo_core.packages import ClassMap, Detections, Instances, PackageFile, TrueBoxes
from oteo_core.packages.second import note_second
from oteo_translate.tasks.model import TaskModel, open_second, open_task_model
from oteo_translate.tasks.network import FrozenNetwork
from oteo_translate.tasks.scoring import MAIN_METRICS, image_score
from oteo_translate.tasks.views import View, usual_views

TASKS = tuple(MAIN_METRICS)


@pytest.fixture(scope="module")
def models():
    return {task: frozen(task) for task in TASKS}


@pytest.mark.parametrize("task", TASKS)
def test_a_model_is_good_at_home_sure_of_it_and_steady_under_other_views(models, task):
    model, home = models[task], domain(task, 12, 1)
    answers, sure = model.judge(home.images)
    scores = model.scores(home.truths, answers)
    total = model.total(home.truths, answers)
    assert scores.shape == sure.shape == (12,)
    assert ((scores >= 0) & (scores <= 1) & (sure >= 0) & (sure <= 1)).all()
    noise = np.random.default_rng(0).integers(0, 256, home.images.shape, dtype=np.uint8)
    wrong = model.answers(noise)
    assert scores.mean() > model.scores(home.truths, wrong).mean() + 0.1
    assert total > model.total(home.truths, wrong)
    assert model.agreements(home.images, answers).mean() > 0.7
    assert model.agreements(home.images, answers, [View()]) == pytest.approx(np.ones(12), abs=1e-6)
    assert model.scores([None] * 12, answers) == pytest.approx(np.full(12, np.nan), nan_ok=True)
    assert np.isnan(model.total([None] * 12, answers))
    assert len(model.answers(home.images[:0])) == 0
    embedded = model.embeddings(home.images)
    assert embedded.shape == (12, 4)
    assert embedded.dtype == np.float32
    alone = TaskModel(model.package, model.graph)
    assert alone.network is None
    assert alone.embeddings(home.images).shape[0] == 12


def test_scores_are_those_of_evaluation(models):
    """One image's score is what evaluation says of that image alone."""
    for task, reference in (("semantic_segmentation", "iou"), ("instance_segmentation", "pq")):
        model, home = models[task], domain(task, 6, 3)
        answers = model.answers(home.images)
        for truth, answer, score in zip(home.truths, answers, model.scores(home.truths, answers), strict=True):
            told = semantic_scores if task.startswith("semantic") else instance_scores
            assert score == pytest.approx(told([truth], [answer], 1)[reference], abs=1e-9)
    assert models["classification"].total([0, 1], [np.array([0.9, 0.1]), np.array([0.6, 0.4])]) == 0.5


def test_empty_answers_are_right_where_nothing_is_and_wrong_where_something_is():
    nothing, something = ClassMap(np.zeros((4, 4), np.uint8)), ClassMap(np.eye(4, dtype=np.uint8))
    assert image_score("semantic_segmentation", nothing, nothing, {}) == 1.0
    assert image_score("semantic_segmentation", something, nothing, {}) == 0.0
    assert image_score("semantic_segmentation", nothing, something, {}) == 0.0
    box = TrueBoxes(np.array([[0, 0, 4, 4]], np.float32), np.array([0]), np.array([False]))
    assert image_score("detection", TrueBoxes(), Detections(), {}) == 1.0
    assert image_score("detection", box, Detections(), {}) == 0.0
    found = Detections(np.array([[0, 0, 4, 4.2], [0, 0, 4, 4]], np.float32), np.array([0.9, 0.8], np.float32), np.array([0, 0]))
    assert image_score("detection", box, found, {"score_threshold": 0.5}) == pytest.approx(2 / 3)
    assert image_score("detection", box, found, {"score_threshold": 0.85}) == 1.0
    none = Instances(np.zeros((4, 4), np.int32), np.zeros(0, np.int64), np.zeros(0, np.float32))
    assert image_score("instance_segmentation", none, none, {}) == 1.0
    assert image_score("multi_label_classification", np.array([True, False]), np.array([0.7, 0.9]), {}) == 0.5


@pytest.mark.parametrize("view", [View(True), View(quarters=1), View(True, 1), View(True, 3), View(quarters=2), *usual_views(5, 7)])
def test_answers_come_back_from_a_view(view):
    """A picture that is its own answer is the same after going and coming back; boxes are the boxes of the moved pixels."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, (5, 7)).astype(np.uint8)
    moved = dataclasses.replace(view, gamma=1.0).image(labels[None, :, :, None])[0, :, :, 0]
    np.testing.assert_array_equal(view.back(ClassMap(moved), 5, 7).labels, labels)
    ids = np.zeros((5, 7), np.int32)
    ids[1:3, 4:7] = 1
    there = dataclasses.replace(view, gamma=1.0).image(ids[None, :, :, None])[0, :, :, 0]
    rows, columns = np.nonzero(there)
    box = np.array([[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]], np.float32)
    back = view.back(Detections(box, np.ones(1, np.float32), np.zeros(1, np.int64)), 5, 7)
    np.testing.assert_allclose(back.boxes, [[4, 1, 7, 3]])


def test_confidence_falls_where_the_model_does_not_know_its_way(models):
    images, _ = cells(10, 5)
    # Contrast so low that cells are neither clearly there nor clearly not.
    pale = (images // 2 + 50).astype(np.uint8)
    for task in ("semantic_segmentation", "instance_segmentation", "detection"):
        model = models[task]
        assert model.confidence(pale).mean() < model.confidence(images).mean() - 0.05, task


@pytest.fixture(scope="module")
def network(models) -> FrozenNetwork:
    return models["semantic_segmentation"].network


def test_the_network_answers_as_the_graph(models, network):
    images, _ = cells(3, 7)
    planes = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    found, expected = network.run(planes), models["semantic_segmentation"].outputs(images)
    np.testing.assert_allclose(found["probabilities"].numpy(), expected["probabilities"], atol=1e-4)
    assert network.error_of_floats() < 1e-4
    served = network.served().eval()
    np.testing.assert_allclose(served(torch.from_numpy(images))[1].numpy(), expected["probabilities"], atol=1e-4)
    again = FrozenNetwork.from_bytes(network.to_bytes(), POLICY)
    np.testing.assert_array_equal(again.run(planes)["probabilities"], found["probabilities"])


def test_gradients_reach_the_pixels_and_agree_with_finite_differences(network):
    images, _ = cells(1, 8)
    planes = (torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255).requires_grad_()

    def value(given):
        return network.run(given)["probabilities"][:, 1].double().sum()

    (slope,) = torch.autograd.grad(value(planes), planes)
    assert slope.abs().sum() > 0
    # Where the picture is smooth to the network, a step in the slope's own direction rises by the slope's length.
    direction = slope / slope.norm()
    step = 1e-2
    with torch.no_grad():
        rise = (value(planes + step * direction) - value(planes - step * direction)) / (2 * step)
    assert float(rise) == pytest.approx(float(slope.norm()), rel=0.02)


def test_features_come_fine_to_coarse_and_gradients_pass_them(network):
    images, _ = cells(2, 9)
    planes = (torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255).requires_grad_()
    found = network.features(planes)
    assert [tuple(one.shape) for one in found] == [(2, 4, SIDE, SIDE), (2, 4, SIDE // 2, SIDE // 2)]
    assert all((one >= 0).all() for one in found), "the last activation of each resolution, here a rectifier's"
    (slope,) = torch.autograd.grad(found[1].sum(), planes)
    assert slope.abs().sum() > 0
    assert len(network.features(planes, network.depths()[-1:])) == 1
    with pytest.raises(FailedPrecondition) as refused:
        network.features(planes, ["nowhere"])
    assert refused.value.reason == "NO_FEATURES"


def test_statistics_are_measured_as_a_training_batch_would_and_can_be_put_in_place(network):
    images, _ = cells(6, 10)
    planes = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    first = network.norms()[0]
    found = network.measure([planes])
    assert set(found) == set(network.norms())
    blurred = planes.mean(1, keepdim=True)
    expected = torch.nn.functional.avg_pool2d(torch.nn.functional.pad(blurred, (1, 1, 1, 1)), 3, stride=1)
    assert float(found[first].mean[0]) == pytest.approx(float(expected.mean()), abs=1e-5)
    assert float(found[first].variance[0]) == pytest.approx(float(expected.var(correction=0)), rel=1e-3)
    halves = network.measure([planes[:2], planes[2:]])
    torch.testing.assert_close(halves[first].variance, found[first].variance, rtol=1e-4, atol=1e-7)
    changed = network.with_statistics(found)
    torch.testing.assert_close(
        changed.run(planes)["probabilities"], network.run(planes, batch_norms="batch")["probabilities"], rtol=1e-3, atol=1e-4
    )
    assert float((changed.run(planes * 0.5)["probabilities"] - network.run(planes * 0.5)["probabilities"]).abs().max()) >= 0
    kept = network.kept_statistics()
    torch.testing.assert_close(changed.kept_statistics()[first].mean, found[first].mean)
    assert not torch.equal(kept[first].mean, found[first].mean), "the network that was asked is as it was"
    names = network.affine()
    assert {network.norm(first).weight, network.norm(first).bias} <= set(names)
    state = {network.norm(first).weight: torch.full((4,), 2.0, requires_grad=True)}
    out = network.run(planes, state=state)["probabilities"]
    (slope,) = torch.autograd.grad(out[:, 1].sum(), state[network.norm(first).weight])
    assert slope.abs().sum() > 0


def test_a_published_model_is_opened_with_its_network_where_it_has_one(tmp_path):
    package, graph, program = made("classification")
    store = ArtifactStore(f"file://{tmp_path}")
    store.write_bytes(f"models/frozen/{package.triton_path}/1/model.onnx", graph)
    store.write_bytes("models/frozen/network.pt2", program)
    assert open_task_model(store, package).network is None
    package.files["network.pt2"] = PackageFile("", len(program))
    model = open_task_model(store, package)
    assert model.network is not None
    images, objects = cells(8, 4)
    assert model.total(truths_of("classification", objects), model.answers(images)) >= 0.75
    store.write_bytes("models/frozen/network.pt2", b"broken")
    assert open_task_model(store, package).network is None
    package.task = "keypoints"
    with pytest.raises(FailedPrecondition) as refused:
        open_task_model(store, package)
    assert refused.value.reason == "UNKNOWN_TASK"


def test_the_second_network_of_a_model_is_opened_where_it_has_one(tmp_path):
    package, graph, _ = made("semantic_segmentation")
    store = ArtifactStore(f"file://{tmp_path}")
    assert open_second(store, package) is None
    note_second(package, "unet-small", "t003", package.decoding | {"smallest": 10_000_000})
    assert open_second(store, package) is None, "it is said what it is, but it is not there"
    package.files["second.onnx"] = PackageFile("", len(graph))
    assert open_second(store, package) is None, "nor is it in the store"
    store.write_bytes("models/frozen/second.onnx", graph)
    second = open_second(store, package)
    assert second.package.candidate == "unet-small"
    assert second.package.decoding["smallest"] == 10_000_000
    images, _ = cells(4, 4)
    own = TaskModel(package, graph)
    alike = own.alike(own.answers(images), own.answers(images))
    np.testing.assert_allclose(alike, 1.0)
    empty = [ClassMap(np.zeros_like(one.labels)) for one in own.answers(images)]
    assert own.alike(own.answers(images), empty).max() < 0.5


def test_a_program_that_reckons_with_whole_numbers_is_not_taken_for_a_network():
    class Wrapping(torch.nn.Module):
        """Adds bytes to bytes, which begin anew at 256."""

        def forward(self, image):
            mean = (image + image).float().mean((1, 2, 3)) / 255
            logits = torch.stack([mean, -mean], 1)
            return torch.softmax(logits, 1), logits

    package, graph, _ = made("classification")
    program = write_program(Wrapping(), POLICY, ["probabilities", "logits"])
    assert FrozenNetwork.from_bytes(program, POLICY).error_of_floats() > 0.1
    assert TaskModel(package, graph, program).network is None
