"""How networks are trained: augmentation of batches, mixing, layers that learn slower, images that grow."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from waiting import patient

from oteo_automl.candidates.appearance import field, noisy, restained
from oteo_automl.candidates.augmenting import STRENGTHS, augment, pasted
from oteo_automl.candidates.classification import ClassificationLesson, TrainingRows
from oteo_automl.candidates.groups import parameter_groups
from oteo_automl.candidates.networks import NetworkClassifier
from oteo_automl.candidates.training import Recipe, Trainer


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def planes(channels: int, count: int = 16) -> torch.Tensor:
    return torch.rand((count, channels, 32, 40), generator=generator(7)) * 0.8 + 0.1


@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize("name", sorted(STRENGTHS))
def test_augmentation_keeps_shape_and_range_and_repeats(name, channels):
    batch = planes(channels)
    once, again = (augment(batch, STRENGTHS[name], generator(3)) for _ in range(2))
    assert once.shape == batch.shape
    assert torch.equal(once, again)
    assert float(once.min()) >= 0
    assert float(once.max()) <= 1
    if name == "none":
        torch.testing.assert_close(once, batch, atol=1e-5, rtol=0)
    else:
        assert float((once - augment(batch, STRENGTHS[name], generator(4))).abs().mean()) > 1e-3


def test_changes_of_nothing_change_nothing():
    batch, none = planes(3), torch.zeros(16, 1, 1, 1)

    def draw(*shape):
        return torch.rand(shape, generator=generator(1)) * 2 - 1

    torch.testing.assert_close(restained(batch, none, draw), batch, atol=1e-4, rtol=0)
    torch.testing.assert_close(field(batch, none, draw), batch, atol=1e-5, rtol=0)
    torch.testing.assert_close(noisy(batch, none, draw, generator(2)), batch, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", sorted(STRENGTHS))
@pytest.mark.parametrize("channels", [1, 3])
def test_what_a_dim_image_shows_is_still_there(name, channels):
    inside = torch.zeros(32, 32, dtype=torch.bool)
    inside[12:20, 12:20] = True
    dim = torch.where(inside, 0.05, 0.02).expand(64, channels, 32, 32)
    # Where things lie is not asked here, nor what a rectangle covers.
    look = replace(STRENGTHS[name], mirror=False, upright=True, degrees=0.0, scale=0.0, shift=0.0, erase=0.0)
    changed = augment(dim, look, generator(3)).mean(dim=1)
    contrast = changed[:, inside].mean(dim=1) - changed[:, ~inside].mean(dim=1)
    assert float(contrast.min()) > 0.3 * 0.03


def test_the_trivial_policy_changes_each_image_by_one_kind_at_most():
    batch = planes(3, 300)
    changed = augment(batch, STRENGTHS["trivial"], generator(5))
    mirrored = batch.flip(3)
    # Where nothing but a mirror came: about one in eleven; and most of what looks else is either moved or recoloured, not both.
    untouched = ((changed - batch).abs().amax(dim=(1, 2, 3)) < 2e-3) | ((changed - mirrored).abs().amax(dim=(1, 2, 3)) < 2e-3)
    assert 0.03 < float(untouched.float().mean()) < 0.3


def test_pasting_mixes_targets_by_the_pixels_that_stayed():
    batch = torch.zeros(4, 1, 40, 40)
    batch[2:] = 1.0
    targets = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    images, mixed = pasted(batch, targets, 0.75, generator())
    torch.testing.assert_close(images.mean(dim=(1, 2, 3)), mixed[:, 1])
    assert 0.2 < float(mixed[0, 1]) < 0.3


def small_network() -> NetworkClassifier:
    torch.manual_seed(0)
    return NetworkClassifier("resnet10t", 2, 1, [0.5], [0.2])


def test_lower_layers_learn_slower():
    network = small_network()
    scales = {id(p): group.get("lr_scale", 1.0) for group in parameter_groups(network, 0.05, 0.5) for p in group["params"]}
    assert set(scales) == {id(p) for p in network.parameters()}
    of = {name: scales[id(p)] for name, p in network.network.named_parameters()}
    assert of["fc.weight"] == 1.0
    assert of["conv1.0.weight"] < of["layer2.0.conv1.weight"] < of["layer4.0.conv1.weight"] < 1.0
    images = np.random.default_rng(0).integers(0, 255, (16, 32, 32, 1)).astype(np.uint8)
    rows = np.arange(16)
    moved = {}
    for layer_decay in (1.0, 0.3):
        network = small_network()
        before = network.network.conv1[0].weight.detach().clone()
        lesson = ClassificationLesson(TrainingRows(images, rows % 2, rows, rows, 2), 0)
        Trainer(network, lesson, Recipe(batch=8, layer_decay=layer_decay), seed=0).run(1, 1, time.time() + patient(60))
        moved[layer_decay] = float((network.network.conv1[0].weight.detach() - before).abs().mean())
    assert moved[0.3] < 0.2 * moved[1.0]


def test_images_grow_where_the_recipe_says_so():
    images = np.zeros((8, 64, 64, 1), np.uint8)
    rows = np.arange(8)
    seen = []

    class Eye(torch.nn.Module):
        def from_planes(self, batch):
            seen.append(int(batch.shape[2]))
            return batch.mean(dim=(1, 2, 3))[:, None].expand(-1, 2)

    for recipe in (Recipe(grow=0.5), Recipe()):
        lesson = ClassificationLesson(TrainingRows(images, rows % 2, rows, rows, 2), 0, epochs=4)
        lesson.place(torch.device("cpu"))
        for epoch in range(4):
            lesson.loss(Eye(), lesson.batch(lesson.order(epoch)), recipe, generator())
    assert seen == [48, 48, 64, 64, 64, 64, 64, 64]
