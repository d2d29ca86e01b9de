"""Attention maps: exact where they say so, the same in the graph, and on the thing that matters."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from oteo_automl.candidates.attention import attention, class_maps, map_size
from oteo_automl.candidates.classical import FAMILIES, fit_head
from oteo_automl.candidates.descriptors import Descriptors
from oteo_automl.candidates.modules import Blend, Chain
from oteo_automl.candidates.networks import NetworkClassifier
from oteo_automl.candidates.patches import fit_patches
from oteo_automl.packaging.served import ServedClassifier, ServedLabels
from oteo_core.graphs.export import export_onnx, run_onnx
from oteo_core.graphs.outputs import classification_outputs
from oteo_core.graphs.running import run_torch
from oteo_core.images import InputPolicy


def pictures(count: int, size: int = 64, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Grey noise, with a bright spot in one quarter where the label is 1; also which quarter (row, column)."""
    rng = np.random.default_rng(seed)
    images = rng.normal(90, 12, (count, size, size, 1))
    labels, where = np.arange(count) % 2, rng.integers(0, 2, (count, 2))
    half = size // 2
    for index in np.flatnonzero(labels):
        top, left = where[index] * half + half // 4
        images[index, top : top + half // 2, left : left + half // 2] += 90
    return np.clip(images, 0, 255).astype(np.uint8), labels.astype(np.int64), where


def network(name: str, classes: int = 3, channels: int = 1) -> NetworkClassifier:
    torch.manual_seed(0)
    module = NetworkClassifier(name, classes, channels, [0.4] * channels, [0.2] * channels)
    with torch.no_grad():
        for parameter in module.parameters():
            # Heads and normalisations begin at one and zero, which would hide what a map forgets.
            parameter.add_(0.02 * torch.randn_like(parameter))
    return module.eval()


@pytest.mark.parametrize("name", ["resnet10t", "mobilenetv4_conv_small", "convnextv2_nano"])
def test_places_add_up_to_the_logits(name):
    module = network(name)
    images = torch.from_numpy(pictures(6)[0])
    height, width = map_size(module, 64, 64, 1)
    with torch.no_grad():
        logits, maps = class_maps(module, images)
        torch.testing.assert_close(logits, module(images), atol=1e-5, rtol=1e-4)
        assert maps.shape == (6, 3, height, width)
        left = logits - maps.mean(dim=(2, 3))
    if name != "mobilenetv4_conv_small":
        # What is left is the bias of each class, the same for every image.
        torch.testing.assert_close(left, left[:1].expand_as(left), atol=1e-4, rtol=1e-3)
    else:
        # Which units are on differs from image to image, and with it the part of the bias that gets through: near one image it is the same.
        with torch.no_grad():
            near = torch.from_numpy(pictures(1)[0]).float() / 255
            logits, maps = class_maps(module, torch.cat([near, near * 1.0001]))
            change = maps.mean(dim=(2, 3))
        torch.testing.assert_close(
            logits[1] - logits[0], change[1] - change[0], atol=0.02 * float((logits[1] - logits[0]).abs().max()), rtol=0.1
        )


def test_a_linear_classifier_on_patches_shows_the_bright_spot():
    images, labels, _where = pictures(120)
    extractor = fit_patches(images, centres=24, seed=0)
    with torch.inference_mode():
        features = extractor(torch.from_numpy(images)).numpy()
    module = Chain([extractor, fit_head(FAMILIES["logistic"], features, labels, {"C": 0.03}, 2, 0)]).eval()
    assert map_size(module, 64, 64, 1) == (3, 3)
    fresh, truth, place = pictures(60, seed=5)
    with torch.inference_mode():
        logits, maps = class_maps(module, torch.from_numpy(fresh))
        torch.testing.assert_close(logits, module(torch.from_numpy(fresh)))
        shown = attention(logits, maps).numpy()
    right = (logits.argmax(dim=1).numpy() == 1) & (truth == 1)
    assert right.sum() > 20
    corners = shown[:, ::2, ::2][right]
    pointed = [np.unravel_index(corner.argmax(), (2, 2)) for corner in corners]
    hits = np.mean([tuple(found) == tuple(wanted) for found, wanted in zip(pointed, place[right], strict=True)])
    assert hits > 0.9
    assert shown.min() >= 0
    assert shown.max() <= 1


@pytest.mark.parametrize("kind", ["network", "blend", "labels"])
def test_the_graph_gives_the_same_map(kind):
    images, labels, _ = pictures(24)
    policy = InputPolicy(width=64, height=64, channels=1, dtype="uint8")
    module = network("resnet10t", 2)
    classes = 2
    if kind == "blend":
        extractor = Descriptors(64, 64, 1, ["haralick"]).eval()
        with torch.inference_mode():
            features = extractor(torch.from_numpy(images)).numpy()
        other = Chain([extractor, fit_head(FAMILIES["svm"], features, labels, FAMILIES["svm"].first, 2, 0)]).eval()
        assert map_size(other, 64, 64, 1) is None
        module = Blend([module, other, network("mobilenetv4_conv_small", 2)], [0.5, 0.3, 0.2], [1.2, 2.0, 0.8]).eval()
    size = map_size(module, 64, 64, 1)
    served = ServedLabels(module, [2.0, 0.5], [0.1, -0.3], maps=True) if kind == "labels" else ServedClassifier(module, 1.5, maps=True)
    plain = ServedLabels(module, [2.0, 0.5], [0.1, -0.3]) if kind == "labels" else ServedClassifier(module, 1.5)
    outputs = classification_outputs(classes, size)
    exported = export_onnx(served.eval(), policy, outputs, images)
    assert exported.fallback_reason == ""
    expected = run_torch(served, images)
    assert expected[2].shape == (24, *size)
    assert expected[2].max() <= 1
    assert expected[2].min() >= 0
    np.testing.assert_allclose(expected[0], run_torch(plain.eval(), images)[0], atol=1e-6)
    for batch in (1, 24):
        found = run_onnx(exported.data, images, batch)
        np.testing.assert_allclose(found[0], expected[0], atol=1e-4)
        np.testing.assert_allclose(found[2], expected[2], atol=1e-2)


def test_a_network_without_a_feature_map_has_no_attention():
    # Of transformers the last features are a sequence; this one also refuses other sizes than its own.
    torch.manual_seed(0)
    module = NetworkClassifier("vit_tiny_patch16_224", 2, 3, [0.5] * 3, [0.2] * 3).eval()
    assert map_size(module, 64, 64, 3) is None
    assert map_size(module, 224, 224, 3) is None
