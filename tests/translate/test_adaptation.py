"""Models brought to shifted images: what is served answers as what was found, and the frozen model stays as it is."""

from __future__ import annotations

import dataclasses
import time

import numpy as np
import pytest
import torch
from frozen_models import Hand, domain, frozen, made

from oteo_core.errors import FailedPrecondition, InvalidArgument
from oteo_core.graphs.export import run_onnx
from oteo_translate.adaptation.adabn import blend
from oteo_translate.adaptation.base import ADAPTATIONS, planes_of
from oteo_translate.adaptation.bbse import estimate
from oteo_translate.adaptation.registry import tent
from oteo_translate.methods.base import FitContext
from oteo_translate.tasks.model import TaskModel
from oteo_translate.tasks.network import FrozenNetwork, Statistics


@pytest.fixture(scope="module")
def segmenter() -> TaskModel:
    return frozen("semantic_segmentation")


def dimmed(task: str, count: int, seed: int):
    """Give a domain whose images are darker and paler than home's."""
    one = domain(task, count, seed, name="dim")
    return dataclasses.replace(one, images=(one.images * 0.45 + 20).astype(np.uint8))


@pytest.mark.parametrize("name", ["adabn", "tent"])
def test_an_adapted_model_brings_back_what_the_shift_took_and_its_graph_answers_as_its_program(segmenter, name):
    shifted, home = dimmed("semantic_segmentation", 16, 3), domain("semantic_segmentation", 8, 4)
    before = segmenter.total(shifted.truths, segmenter.answers(shifted.images))
    at_home = segmenter.total(home.truths, segmenter.answers(home.images))
    blind = dataclasses.replace(shifted, truths=())
    way = ADAPTATIONS[name]
    adapted = way.adapt(segmenter, blind, home, way.grid()[0], FitContext(seed=1))
    after = adapted.model.total(shifted.truths, adapted.model.answers(shifted.images))
    assert before < at_home - 0.3
    assert after > before + 0.25
    program = FrozenNetwork.from_bytes(adapted.program, segmenter.package.input)
    found = program.run(planes_of(shifted.images[:5]))
    graph = run_onnx(adapted.graph, shifted.images[:5])
    np.testing.assert_allclose(found["probabilities"].numpy(), graph[1], atol=1e-3)
    assert segmenter.total(home.truths, segmenter.answers(home.images)) == at_home
    again = way.adapt(segmenter, blind, home, way.grid()[0], FitContext(seed=1))
    assert again.graph == adapted.graph


def test_statistics_are_blended_by_the_number_of_images(segmenter):
    network = segmenter.network
    name = network.norms()[0]
    kept = network.kept_statistics()[name]
    ones = Statistics(torch.ones(4), 2 * torch.ones(4), 12)
    found = blend(network, {name: ones}, 4.0)[name]
    torch.testing.assert_close(found.mean, 0.75 * ones.mean + 0.25 * kept.mean)
    torch.testing.assert_close(found.variance, 0.75 * ones.variance + 0.25 * kept.variance)
    assert blend(network, {name: ones}, 0.0)[name].mean.tolist() == [1.0] * 4


def test_entropy_is_that_of_the_answers_and_its_minimisation_lowers_it(segmenter):
    chances = torch.tensor([[0.5, 0.5], [1.0, 0.0], [0.25, 0.75]], requires_grad=True)
    expected = np.mean([1.0, 0.0, -(0.25 * np.log2(0.25) + 0.75 * np.log2(0.75))])
    assert float(tent.entropy("classification", {"probabilities": chances})) == pytest.approx(expected, abs=1e-4)
    assert float(tent.entropy("multi_label_classification", {"probabilities": chances})) == pytest.approx(expected, abs=1e-4)
    scores = torch.tensor([[0.5, 0.001]])
    assert float(tent.entropy("detection", {"scores": scores})) > 0.95
    shifted = dimmed("semantic_segmentation", 16, 3)
    adapted = ADAPTATIONS["tent"].adapt(segmenter, shifted, shifted, {"rate": 0.01, "episodes": 6}, FitContext(seed=1))
    assert adapted.details["steps"] == 6
    assert adapted.details["entropy_after"] < adapted.details["entropy_before"]
    late = ADAPTATIONS["tent"].adapt(segmenter, shifted, shifted, {}, FitContext(seed=1, deadline=time.time() - 1))
    assert late.details["steps"] == 0


def test_shares_of_classes_are_told_from_confusions():
    """Against the closed form: answers in the very shares of known confusions give the very shares of the classes."""
    truly = np.array([[0.8, 0.15, 0.05], [0.1, 0.7, 0.2], [0.1, 0.2, 0.7]])
    home_shares, now = np.array([0.5, 0.3, 0.2]), np.array([0.1, 0.2, 0.7])

    def counted(shares):
        table = np.rint(2000 * shares[:, None] * truly).astype(int)
        labels, said = np.divmod(np.repeat(np.arange(9), table.ravel()), 3)
        return labels, np.eye(3)[said]

    labels, home = counted(home_shares)
    _, shifted = counted(now)
    found = estimate(labels, home, shifted)
    np.testing.assert_allclose(found.shifted, now, atol=1e-9)
    np.testing.assert_allclose(found.weights, now / home_shares, rtol=1e-9)
    np.testing.assert_allclose(found.singular, np.linalg.svd(home_shares[:, None] * truly, compute_uv=False).min(), rtol=1e-9)
    with pytest.raises(FailedPrecondition) as refused:
        estimate(labels, np.full((len(labels), 3), 1 / 3), shifted)
    assert refused.value.reason == "NOT_ADAPTABLE"
    with pytest.raises(FailedPrecondition):
        estimate(np.zeros(len(labels), dtype=np.int64), home, shifted)


def test_a_classifier_is_weighed_for_the_shares_that_come_now():
    model = frozen("classification")
    home = domain("classification", 80, 5)
    shifted = domain("classification", 80, 6, name="rare", large=0.06)
    adapted = ADAPTATIONS["bbse"].adapt(model, dataclasses.replace(shifted, truths=()), home, {}, FitContext())
    share = float(np.mean(shifted.truths))
    assert adapted.details["shifted_shares"]["large"] == pytest.approx(share, abs=0.12)
    assert adapted.details["home_shares"]["large"] > share + 0.2
    before, after = model.outputs(shifted.images), adapted.model.outputs(shifted.images)
    weights = np.array(list(adapted.details["shifted_shares"].values())) / np.array(list(adapted.details["home_shares"].values()))
    expected = before["probabilities"] * weights
    np.testing.assert_allclose(after["probabilities"], expected / expected.sum(1, keepdims=True), atol=1e-3)
    program = FrozenNetwork.from_bytes(adapted.program, model.package.input)
    np.testing.assert_allclose(program.run(planes_of(shifted.images[:3]))["probabilities"].numpy(), after["probabilities"][:3], atol=1e-4)


def test_what_cannot_be_adapted_is_refused(segmenter):
    shifted = dimmed("semantic_segmentation", 4, 3)
    adabn, tented, bbse = (ADAPTATIONS[name] for name in ("adabn", "tent", "bbse"))
    alone = TaskModel(segmenter.package, segmenter.graph)
    assert "network.pt2" in adabn.refusal(alone, shifted)
    with pytest.raises(FailedPrecondition) as refused:
        adabn.adapt(alone, shifted, shifted, {}, FitContext())
    assert refused.value.reason == "NOT_ADAPTABLE"
    assert "classification" in bbse.refusal(segmenter, shifted)
    with pytest.raises(InvalidArgument) as few:
        tented.adapt(segmenter, shifted, shifted, {}, FitContext())
    assert few.value.reason == "TOO_FEW_IMAGES"
    for wrong in ({"speed": 1}, {"prior": -1}, {"prior": "much"}, {"prior": float("nan")}):
        with pytest.raises(InvalidArgument) as bad:
            adabn.adapt(segmenter, shifted, shifted, wrong, FitContext())
        assert bad.value.reason == "BAD_PARAMETER"

    class Plain(Hand):
        """Without normalisations."""

        def __init__(self) -> None:
            super().__init__("semantic_segmentation")
            self.looking.norm = self.looking.deep = torch.nn.Identity()

    plain = TaskModel(*made("semantic_segmentation", Plain()))
    assert "batch normalisations" in adabn.refusal(plain, shifted)
    assert adabn.refusal(segmenter, shifted) == ""
