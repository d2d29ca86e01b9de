"""Classifiers on fixed features: their graphs answer as scikit-learn does, and descriptors as graphs answer as PyTorch does."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.neighbors import KNeighborsClassifier
from waiting import patient

from oteo_automl.candidates.attention import map_size
from oteo_automl.candidates.classical import FAMILIES, search_family
from oteo_automl.candidates.descriptors import DESCRIPTORS, Descriptors
from oteo_automl.candidates.heads import BoostedHead, NeighboursHead, dudani_weights
from oteo_automl.candidates.modules import Chain, dump_module, load_module
from oteo_automl.candidates.networks import NetworkClassifier
from oteo_automl.candidates.portfolio import FAMILIES as PORTFOLIO_FAMILIES
from oteo_automl.candidates.registry import CANDIDATES, choose
from oteo_automl.candidates.weights import has_weights
from oteo_automl.packaging.served import ServedClassifier
from oteo_automl.search.checkpoints import StoredCheckpoints
from oteo_automl.search.classification_pieces import Problem, StoredModel, fit_classifier
from oteo_automl.search.data import ArrayCache
from oteo_automl.search.pieces import model_name
from oteo_core.graphs.export import export_onnx, run_onnx
from oteo_core.graphs.outputs import classification_outputs
from oteo_core.graphs.running import run_torch
from oteo_core.images import InputPolicy


def clusters(classes: int, count: int = 90, features: int = 12, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    centres = rng.normal(size=(classes, features)) * 1.2
    return (centres[labels] + rng.normal(size=(count, features))).astype(np.float32), labels.astype(np.int64)


@pytest.mark.parametrize("classes", [2, 4])
def test_boosting_answers_as_scikit_learn_does(classes):
    x, y = clusters(classes)
    model = GradientBoostingClassifier(n_estimators=30, max_depth=3, subsample=0.6, max_features=0.5, random_state=1).fit(x[:60], y[:60])
    head = BoostedHead.from_sklearn(model, x[:1])
    with torch.inference_mode():
        answers = torch.softmax(head(torch.from_numpy(x)), dim=1).numpy()
    np.testing.assert_allclose(answers, model.predict_proba(x), atol=1e-5)


@pytest.mark.parametrize("classes", [2, 4])
def test_neighbours_answer_as_scikit_learn_does(classes):
    x, y = clusters(classes)
    model = KNeighborsClassifier(7, weights=dudani_weights).fit(x[:60], y[:60])
    head = NeighboursHead.from_sklearn(model, x[:60], y[:60])
    with torch.inference_mode():
        answers = head.probabilities(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(answers, model.predict_proba(x), atol=1e-4)


def test_neighbours_equally_far_may_change_places():
    # Two training samples at the same distance with other labels: which of them is the third nearest is chance.
    vectors = np.array([[0.0, 0.1], [0.2, 0.0], [1.0, 0.0], [-1.0, 0.0], [0.0, 3.0]], dtype=np.float32)
    answers = []
    for order in ([0, 1, 2, 3, 4], [0, 1, 3, 2, 4]):
        labels = np.array([0, 1, 1, 0, 0])[order]
        model = KNeighborsClassifier(3, weights=dudani_weights).fit(vectors[order], labels)
        head = NeighboursHead.from_sklearn(model, vectors[order], labels)
        answers.append(head.probabilities(torch.zeros(1, 2)).numpy())
    assert np.abs(answers[0] - answers[1]).max() < 5e-3


def drawn(count: int, channels: int, size: int = 32) -> np.ndarray:
    """Speckled images of many colours."""
    rng = np.random.default_rng(channels)
    rough = rng.random((count, 4, 4, channels)).repeat(size // 4, axis=1).repeat(size // 4, axis=2)
    return (255 * np.clip(rough + 0.2 * rng.normal(size=rough.shape), 0, 1)).astype(np.uint8)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_every_family_survives_storage_and_export(family):
    images = drawn(48, 1)
    labels = np.arange(48) % 3
    images[labels == 1] //= 2
    images[labels == 2] = np.roll(images[labels == 2], 7, axis=1) // 3
    extractor = Descriptors(32, 32, 1, DESCRIPTORS["haralick"]).eval()
    with torch.inference_mode():
        features = extractor(torch.from_numpy(images)).numpy()
    found = search_family(family, features, labels, np.arange(48) // 3 % 3, classes=3, seed=1, tries=2, deadline=0.0)
    assert found.log_loss < np.log(3)
    stored = load_module(dump_module(Chain([extractor, found.head])))
    policy = InputPolicy(width=32, height=32, channels=1, dtype="uint8")
    served = ServedClassifier(stored, 1.3)
    exported = export_onnx(served, policy, classification_outputs(3), images[:7])
    expected, _ = run_torch(served, images)
    for batch in (1, 5, 48):
        np.testing.assert_allclose(run_onnx(exported.data, images, batch)[0], expected, atol=1e-4)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ["lab", "hsv", "lbp", "hog"])
def test_descriptors_are_the_same_in_the_graph(name, channels):
    images = drawn(12, channels)
    extractor = Descriptors(32, 32, channels, DESCRIPTORS[name]).eval()
    policy = InputPolicy(width=32, height=32, channels=channels, dtype="uint8")
    served = ServedClassifier(extractor, 0.2)
    exported = export_onnx(served, policy, classification_outputs(extractor.dimension), images)
    assert exported.error < 1e-5
    _, logits = run_torch(served, images)
    np.testing.assert_allclose(run_onnx(exported.data, images, 5)[1], logits, atol=1e-3)


def test_colour_histograms_tell_hues_apart_that_brightness_does_not():
    flat = np.zeros((3, 32, 32, 3), dtype=np.uint8)
    flat[0, :, :] = (200, 0, 4)
    flat[1, :, :] = (200, 4, 0)  # a hair to the other side of red
    flat[2, :, :] = (0, 200, 200)
    with torch.inference_mode():
        hues = Descriptors(32, 32, 3, ["hsv"])(torch.from_numpy(flat)).numpy()
    assert np.abs(hues[0] - hues[1]).max() < 0.3
    assert np.abs(hues[0] - hues[2]).max() > 0.9


def test_frozen_features_of_any_network_whose_weights_are_given(tmp_path):
    torch.manual_seed(0)
    torch.save(NetworkClassifier("resnet10t", 7, 3, [0.5] * 3, [0.2] * 3).network.state_dict(), tmp_path / "resnet10t.pt")
    uri = f"file://{tmp_path}"
    assert has_weights(uri, "resnet10t")
    assert not has_weights(uri, "resnet18")
    chosen, reasons = choose([], gpu=False, pretrained=True, budget=600, weights={"resnet10t"})
    frozen = [one.name for one in chosen if one.name.startswith("frozen")]
    assert frozen == ["frozen-resnet10t-logistic", "frozen-resnet10t-svm"]
    assert "no weights of resnet18" in reasons["frozen-resnet18-logistic"]
    images = drawn(40, 3)
    labels = np.arange(40) % 2
    images[labels == 1] //= 3
    checkpoints = StoredCheckpoints(f"{uri}/checkpoints", "search")
    problem = Problem(ArrayCache(images), labels, np.arange(40), np.arange(40) // 2 % 2, 2, 2, 0, checkpoints, pretrained_uri=uri)
    result = fit_classifier(problem, "t0", CANDIDATES["frozen-resnet10t-logistic"], 2, time.time() + patient(20))
    assert result.initial_weights.startswith("pretrained:resnet10t@")
    assert result.scores["accuracy"] > 0.8
    stored = StoredModel.from_bytes(checkpoints.load(model_name("t0")))
    assert map_size(stored.module, 64, 64, 3) == (2, 2)


def test_short_budgets_try_little_and_names_stand_for_families():
    few, _ = choose([], gpu=False, pretrained=False, budget=30)
    assert [one.name for one in few] == ["classical-logistic", "classical-svm", "classical-boosting"]
    many, reasons = choose([], gpu=False, pretrained=False, budget=600)
    assert {"patches-boosting", "timm-resnet18"} <= {one.name for one in many}
    assert reasons["hog-neighbours"] == "only if asked for: seldom the best"
    asked, _ = choose(["hog", "lab-forest"], gpu=False, pretrained=False, budget=600)
    assert [one.name for one in asked] == ["classical-logistic", *(f"hog-{family}" for family in PORTFOLIO_FAMILIES), "lab-forest"]
