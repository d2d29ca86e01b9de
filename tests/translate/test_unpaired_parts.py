"""Parts of unpaired translation, against independent references."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage
import scipy.signal
import torch

from oteo_core.errors import InvalidArgument
from oteo_translate.methods.unpaired import CUT, CycleGAN, SinCUT
from oteo_translate.methods.unpaired.crops import Crops, crop_sides
from oteo_translate.methods.unpaired.discriminators import PatchDiscriminator, layers_for
from oteo_translate.methods.unpaired.health import complaint
from oteo_translate.methods.unpaired.layers import BlurDown, double
from oteo_translate.methods.unpaired.losses import LeastSquares, Wasserstein
from oteo_translate.methods.unpaired.nce import patch_nce
from oteo_translate.methods.unpaired.objectives import build_generator
from oteo_translate.methods.unpaired.pools import ImagePool
from oteo_translate.methods.unpaired.recipe import Recipe
from oteo_translate.methods.unpaired.sincut import most_typical
from oteo_translate.methods.unpaired.structure import TaskStructure, edge_correlation, self_similarity


def keyed(seed=0):
    return torch.Generator().manual_seed(seed)


def planes(*shape, seed=0):
    return torch.rand(*shape, generator=keyed(seed))


def cells(count, side=32, seed=0):
    """Give bright even discs on dark paper."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:side, :side]
    found = np.full((count, 1, side, side), 0.2, np.float32)
    for image in found:
        for _ in range(3):
            y, x = rng.uniform(6, side - 6, 2)
            image[0][(rows - y) ** 2 + (columns - x) ** 2 < 20] = 0.8
    return torch.from_numpy(found)


# Layers.


def test_the_blur_before_halving_is_binomial():
    image = planes(1, 2, 9, 12)
    line = np.array([1, 2, 1]) / 4
    due = scipy.ndimage.convolve(image[0, 1].numpy(), np.outer(line, line), mode="nearest")[::2, ::2]
    assert np.allclose(BlurDown(2)(image)[0, 1].numpy(), due, atol=1e-6)


def test_doubling_is_cuts_transposed_filter():
    image = planes(1, 1, 5, 6)
    wide = np.pad(image[0, 0].numpy(), 1, mode="edge")
    spread = np.zeros((2 * wide.shape[0], 2 * wide.shape[1]))
    spread[::2, ::2] = wide
    line = np.array([1, 3, 3, 1]) / 4
    due = scipy.signal.convolve2d(spread, np.outer(line, line))
    assert np.allclose(double(image)[0, 0].numpy(), due[3 : 3 + 2 * 5, 3 : 3 + 2 * 6], atol=1e-6)


# Generators and discriminators.


@pytest.mark.parametrize("kind", ["resnet", "unet", "ganilla"])
@pytest.mark.parametrize("channels", [1, 3])
def test_an_untrained_residual_generator_is_near_the_identity_at_any_size(kind, channels):
    made = build_generator(kind, channels, True, 8, 3, 3)
    made.begin(keyed(1))
    for sides in ((8, 8), (9, 23), (32, 30)):
        image = planes(2, channels, *sides)
        with torch.inference_mode():
            found, maps = made.seen(image)
            assert found.shape == image.shape
            assert (found - image).abs().mean() < 0.12
            assert [one.shape[1] for one in maps] == made.widths
            assert all(torch.equal(one, other) for one, other in zip(maps, made.features(image), strict=True))


@pytest.mark.parametrize("kind", ["resnet", "unet", "ganilla"])
def test_a_generator_without_residual_answers_between_0_and_1(kind):
    made = build_generator(kind, 1, False, 4, 1, 2)
    made.begin(keyed(1))
    found = made(planes(1, 1, 16, 16))
    assert found.min() >= 0
    assert found.max() <= 1


@pytest.mark.parametrize(("layers", "seen"), [(1, 18), (2, 40), (3, 84)])
def test_a_discriminators_patches_are_as_large_as_said(layers, seen):
    judge = PatchDiscriminator(1, 2, layers, normed=False)
    with torch.no_grad():
        for parameter in judge.parameters():
            parameter.fill_(0.1)
    image = torch.full((1, 1, 160, 160), 0.5, requires_grad=True)
    verdict = judge(image)
    verdict[0, 0, verdict.shape[2] // 2, verdict.shape[3] // 2].backward()
    touched = image.grad[0, 0].nonzero()
    assert (touched.max(0).values - touched.min(0).values + 1).tolist() == [seen, seen]
    assert layers_for(seen) < 3 or layers_for(2 * seen) == 3


# Losses.


def test_adversarial_losses_are_least_where_each_side_wins():
    ones, zeros = torch.ones(2, 1, 3, 3), torch.zeros(2, 1, 3, 3)
    squares, earth = LeastSquares(), Wasserstein()
    assert squares.critic(ones, zeros) == 0
    assert squares.critic(zeros, ones) == 1
    assert squares.generator(ones) == 0
    assert squares.generator(zeros) == 1
    assert earth.critic(ones, zeros) == -1
    assert earth.generator(ones) == -1


def test_patch_nce_is_the_cross_entropy_of_the_own_place_among_its_image():
    rng = np.random.default_rng(0)
    queries, keys = (rng.normal(size=(2, 5, 4)) for _ in range(2))
    due = []
    for image in range(2):
        for place in range(5):
            logits = keys[image] @ queries[image, place] / 0.07
            due.append(np.log(np.exp(logits - logits.max()).sum()) + logits.max() - logits[place])
    ours, theirs = torch.tensor(queries, requires_grad=True), torch.tensor(keys, requires_grad=True)
    loss = patch_nce(ours, theirs)
    assert float(loss.detach()) == pytest.approx(np.mean(due), rel=1e-5)
    loss.backward()
    assert ours.grad is not None
    assert theirs.grad is None


def test_edges_may_change_in_strength_and_sign_but_not_in_place():
    image = cells(3)
    alike = [image, 1 - image, 0.3 * image + 0.5]
    for other in alike:
        assert torch.allclose(edge_correlation(image, other), torch.ones(3), atol=2e-3)
    assert (edge_correlation(image, image.roll(4, -1)) < 0.5).all()
    assert (edge_correlation(image, image.flip(-1)) < 0.7).all()
    erased = image.clone()
    erased[:, :, :, 16:] = 0.2
    assert (edge_correlation(image, erased) < 0.97).all()
    even = torch.full_like(image, 0.4)
    assert torch.allclose(edge_correlation(even, even + 0.2), torch.ones(3))
    assert (edge_correlation(even, image) < 0.1).all()


def test_self_similarity_forgets_what_all_places_share():
    maps = planes(1, 4, 6, 6)
    where = torch.tensor([0, 7, 20, 35])
    found = self_similarity(maps, where)
    assert torch.allclose(found.diagonal(dim1=1, dim2=2), torch.ones(1, 4), atol=1e-5)
    assert torch.allclose(self_similarity(3 * maps + 2, where), found, atol=1e-5)
    assert not torch.allclose(self_similarity(maps.roll(1, -1), where), found, atol=1e-2)


def test_structure_in_the_task_models_eyes_has_a_gradient_only_in_what_is_drawn():
    class Network:
        def features(self, image, names):
            return [image, torch.nn.functional.avg_pool2d(image, 2), torch.nn.functional.avg_pool2d(image, 4)]

    loss = TaskStructure(Network())
    source, drawn = planes(2, 3, 16, 16), planes(2, 3, 16, 16, seed=1).requires_grad_(True)
    found = loss(source, drawn, keyed())
    found.backward()
    assert drawn.grad.abs().sum() > 0
    assert loss(source, source, keyed()) == 0
    assert found > 0.1


def test_a_pool_shows_old_images_half_of_the_time_and_is_restored():
    pool = ImagePool(4)
    first = planes(4, 1, 2, 2)
    assert torch.equal(pool.show(first, keyed()), first)
    again = ImagePool(4)
    again.restore(pool.state(), torch.device("cpu"))
    old = 0
    for step in range(100):
        new = torch.full((1, 1, 2, 2), float(step + 2))
        shown = pool.show(new, keyed(step))
        assert torch.equal(again.show(new, keyed(step)), shown)
        old += int(not torch.equal(shown, new))
    assert 35 <= old <= 65
    assert torch.equal(ImagePool(0).show(first, keyed()), first)


# Batches.


def test_crops_are_parts_of_the_images_flipped_or_not():
    images = np.arange(2 * 12 * 10, dtype=np.uint8).reshape(2, 12, 10, 1)
    crops = Crops(images, 8, 8, zoom=0.0, vertical=True, device=torch.device("cpu"))
    found = crops.draw(40, keyed())
    assert found.shape == (40, 1, 8, 8)
    wanted = set()
    for image in images[..., 0].astype(np.float32) / np.float32(255):
        for y in range(5):
            for x in range(3):
                part = image[y : y + 8, x : x + 8]
                wanted |= {np.ascontiguousarray(one).tobytes() for one in (part, part[::-1], part[:, ::-1], part[::-1, ::-1])}
    seen = {one[0].contiguous().numpy().tobytes() for one in found}
    assert seen <= wanted
    assert len(seen) > 25
    assert torch.equal(crops.draw(40, keyed()), found)
    as_floats = Crops(images.astype(np.float32) / np.float32(255), 8, 8, zoom=0.0, vertical=True, device=torch.device("cpu"))
    assert torch.equal(as_floats.draw(40, keyed()), found)
    zoomed = Crops(images, 8, 8, zoom=0.3, vertical=False, device=torch.device("cpu")).draw(9, keyed())
    assert zoomed.shape == (9, 1, 8, 8)


def test_sides_of_crops():
    assert crop_sides([(3, 100, 50, 3), (3, 90, 60, 3)], 64, 16) == (64, 48)
    assert crop_sides([(3, 9, 300, 3)], 256, 16) == (9, 256)


# Health.


def test_generators_that_are_of_no_use_are_found_out():
    probes, home = cells(4, seed=1), 1 - cells(4, seed=2)
    assert complaint(lambda image: 1 - image, probes, home) == ""
    assert "even" in complaint(lambda image: image.mean((2, 3), keepdim=True).expand_as(image), probes, home)
    assert "same" in complaint(lambda image: image[:1].expand_as(image), probes, home)
    assert "not numbers" in complaint(lambda image: image * torch.nan, probes, home)
    even = torch.full_like(probes, 0.5)
    assert complaint(lambda image: image, even, home) == ""


# Recipes.


def test_the_papers_weights_are_the_usual_ones():
    assert (CycleGAN.recipe.cycle, CycleGAN.recipe.identity, CycleGAN.recipe.pool) == (10.0, 0.5, 50)
    assert (CUT.recipe.contrast, CUT.recipe.identity) == (1.0, 1.0)


@pytest.mark.parametrize(
    "parameters",
    [
        {"no_such_thing": 1},
        {"steps": -1},
        {"steps": 1.5},
        {"rate": 0},
        {"rate": float("nan")},
        {"rate": "fast"},
        {"vertical": 1},
        {"generator": "vit"},
        {"crop": 5},
        {"average": 1.0},
        {"critic_layers": 4},
    ],
)
def test_what_a_recipe_cannot_be_is_refused(parameters):
    with pytest.raises(InvalidArgument) as caught:
        Recipe().changed(parameters, "cut")
    assert caught.value.reason == "BAD_PARAMETER"
    assert "cut" in str(caught.value)


def test_sizes_follow_device_and_images():
    small, large = Recipe().settled(64, 80, "cpu", 0), Recipe().settled(512, 512, "cuda", 4)
    assert (small.crop, small.critic_layers, small.processes) == (64, 2, 1)
    assert (large.crop, large.width, large.blocks, large.critic_layers, large.processes) == (256, 64, 9, 3, 4)
    assert Recipe().settled(512, 512, "cuda:1", 4).processes == 1
    assert SinCUT().cropped(Recipe(), 64, 100).crop == 48


def test_the_most_typical_image_is_no_outlier():
    images = np.full((5, 8, 8, 3), 100, np.uint8) + np.arange(5, dtype=np.uint8)[:, None, None, None]
    images[2] = 250
    assert most_typical(images) in (1, 3)
