"""The parts of style transfer, against exact answers, and what the methods promise of images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from translate_domains import encoder_network, smears

from oteo_core.errors import InvalidArgument
from oteo_core.graphs.modules import dump_module, load_module
from oteo_translate.methods.base import FitContext
from oteo_translate.methods.registry import METHODS
from oteo_translate.methods.style import encoder as encoders
from oteo_translate.methods.style import patchmatch, strotss
from oteo_translate.methods.style.adain import adapted, figures
from oteo_translate.methods.style.gatys import gram
from oteo_translate.methods.style.guided import carried


def draws(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def first(domain):
    return torch.from_numpy(domain.images[:1].transpose(0, 3, 1, 2).astype(np.float32) / 255)


def test_an_unchanged_copy_changes_nothing_and_a_change_of_colour_is_carried_over_at_full_size():
    image = torch.nn.functional.interpolate(draws(1, 3, 12, 8), (96, 64), mode="bicubic").clamp(0, 1)
    small = torch.nn.functional.interpolate(image, (48, 32), mode="area")
    assert torch.allclose(carried(image, small, small), image, atol=1e-5)
    colours = torch.tensor([0.5, 0.7, 0.9])[:, None, None]
    assert torch.allclose(carried(image, small, small * colours + 0.05), image * colours + 0.05, atol=0.02)


def test_an_edge_that_a_copy_made_up_is_not_carried_over():
    image = torch.full((1, 1, 64, 64), 0.5)
    painted = image.clone()
    painted[:, :, 20:40, 20:40] = 0.9
    found = carried(image, image, painted)
    assert (found[:, :, :, 1:] - found[:, :, :, :-1]).abs().max() < 0.15 * 0.4


def test_relaxed_transport_is_a_lower_bound_of_the_exact_one():
    one, other = draws(12, 5, seed=1), draws(12, 5, seed=2)
    cost = strotss.cosine_distance(one, other)
    rows, columns = linear_sum_assignment(cost.numpy())
    assert 0 < strotss.relaxed_transport(cost).item() <= cost[rows, columns].mean().item() + 1e-6
    shuffled = one[torch.randperm(12, generator=torch.Generator().manual_seed(0))]
    for distance in (strotss.relaxed_transport(strotss.cosine_distance(one, shuffled)), strotss.moments(one, shuffled)):
        assert distance.item() == pytest.approx(0, abs=1e-5)
    assert strotss.palette(one[:, :3], shuffled[:, :3]).item() < 1e-4


def test_self_similarity_does_not_see_a_turn_and_a_scale_of_features():
    one = torch.randn(20, 6, generator=torch.Generator().manual_seed(0))
    turn = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(1)))[0]
    assert strotss.self_similarity(3 * one @ turn, one).item() == pytest.approx(0, abs=1e-4)
    assert strotss.self_similarity(one.flip(0), one).item() > 0.1


def test_a_pyramid_is_put_together_as_it_was():
    image = draws(1, 3, 37, 52)
    assert torch.allclose(strotss.put_together(strotss.taken_apart(image)), image, atol=1e-6)


def test_patchmatch_finds_nearly_what_trying_all_finds():
    features = torch.nn.functional.avg_pool2d(draws(1, 8, 28, 32), 5, 1, 2)
    moved = torch.roll(features, (3, 5), (2, 3))
    own, other = patchmatch.patches(features), patchmatch.patches(moved)
    exact, best = patchmatch.nearest(own, other)
    start = torch.randint(28 * 32, (28 * 32,), generator=torch.Generator().manual_seed(1))
    found = patchmatch.matched(own, other, (28, 32), (28, 32), start, 4, torch.Generator().manual_seed(2))
    values = (own * other[found]).sum(1)
    assert (values >= (own * other[start]).sum(1) - 1e-6).all()
    assert (found == exact).float().mean() > 0.9
    assert (best - values).mean() < 0.01


def test_matches_that_are_the_image_itself_vote_for_the_image():
    image = draws(1, 3, 12, 17)
    places = torch.arange(12 * 17)
    # Patches over the border repeat it, so that the frame alone may differ.
    assert torch.allclose(patchmatch.voted(image, places, (12, 17))[:, :, 1:-1, 1:-1], image[:, :, 1:-1, 1:-1], atol=1e-5)
    assert torch.equal(patchmatch.finer(places, (12, 17), (12, 17), (24, 34), (24, 34)), torch.arange(24 * 34))


def test_adapted_features_have_the_mean_and_spread_asked_for():
    mean, spread = draws(1, 4, 1, 1, seed=1), draws(1, 4, 1, 1, seed=2)
    found_mean, found_spread = figures(adapted(draws(2, 4, 9, 9), mean, spread))
    assert torch.allclose(found_mean, mean.expand_as(found_mean), atol=1e-5)
    assert torch.allclose(found_spread, spread.expand_as(found_spread), atol=1e-3)


def test_products_of_channels_are_numpys():
    features = draws(2, 4, 5, 6)
    flat = features.numpy().reshape(2, 4, 30)
    assert gram(features).numpy() == pytest.approx(np.einsum("nap,nbp->nab", flat, flat) / 30, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "parameters"), [("gatys", {"steps": 10}), ("analogy", {}), ("adain", {"steps": 150}), ("strotss", {"steps": 5})]
)
def test_colours_come_nearer_to_home_and_cells_stay(name, parameters):
    shifted, home = smears(8, 3)
    found = METHODS[name].fit(shifted, home, parameters, FitContext(network=encoder_network(3)))
    with torch.inference_mode():
        before = torch.from_numpy(shifted.images[:3].transpose(0, 3, 1, 2).astype(np.float32) / 255)
        after = found(before)
    due = torch.from_numpy(home.images.transpose(0, 3, 1, 2).astype(np.float32) / 255).mean((0, 2, 3))
    far = (before.mean((0, 2, 3)) - due).abs().mean()
    assert (after.mean((0, 2, 3)) - due).abs().mean() < 0.9 * far
    for one, other in zip(before.mean(1).flatten(1), after.mean(1).flatten(1), strict=True):
        assert np.corrcoef(one, other)[0, 1] > 0.8


def test_a_fit_goes_on_where_it_was_killed():
    shifted, home = smears(6, 3)
    kept: dict[str, bytes] = {}
    network = encoder_network(3)
    whole = METHODS["adain"].fit(shifted, home, {"steps": 52}, FitContext(network=network))

    class Killed(Exception):
        pass

    def progress(share, _word):
        if share > 50.5 / 52:
            raise Killed

    with pytest.raises(Killed):
        METHODS["adain"].fit(shifted, home, {"steps": 52}, FitContext(network=network, save=kept.__setitem__, progress=progress))
    again = METHODS["adain"].fit(shifted, home, {"steps": 52}, FitContext(network=network, save=kept.__setitem__, load=kept.get))
    assert dump_module(again) == dump_module(whole)


def test_a_deadline_ends_training_with_what_there_is():
    shifted, home = smears(6, 3)
    found = METHODS["adain"].fit(shifted, home, {"steps": 10_000}, FitContext(network=encoder_network(3), deadline=0.0))
    assert torch.isfinite(found(first(shifted))).all()


@pytest.mark.parametrize("name", ["gatys", "strotss", "analogy", "adain"])
def test_without_a_network_it_is_said(name):
    with pytest.raises(InvalidArgument) as caught:
        METHODS[name].fit(*smears(6, 3), {}, FitContext())
    assert caught.value.reason == "NO_ENCODER"


def test_pretrained_weights_are_read_from_a_folder(tmp_path):
    made = encoders.VggEncoder(16)
    with torch.no_grad():
        for parameter in made.layers.parameters():
            parameter.normal_(0, 0.05, generator=torch.Generator().manual_seed(0))
    weights = {f"features.{name}": value for name, value in made.layers.state_dict().items()}
    torch.save({**weights, "classifier.0.bias": torch.zeros(3)}, tmp_path / "vgg16-397923af.pth")
    found = encoders.open_encoder(str(tmp_path))
    image = draws(1, 3, 128, 128)
    expected = made.features(image)
    assert [tuple(one.shape[1:]) for one in expected] == [(64, 128, 128), (128, 64, 64), (256, 32, 32), (512, 16, 16)]
    for one, other in zip(found.features(image), expected, strict=True):
        assert torch.equal(one, other)
    again = load_module(dump_module(found))
    assert torch.equal(again.features(image)[-1], expected[-1])
    grey = found.features(draws(1, 1, 64, 64))
    assert torch.isfinite(grey[-1]).all()


def test_weights_that_are_none_are_refused(tmp_path):
    with pytest.raises(InvalidArgument) as caught:
        encoders.open_encoder(str(tmp_path))
    assert caught.value.reason == "NO_ENCODER_WEIGHTS"
    torch.save({"features.0.weight": torch.zeros(1)}, tmp_path / "vgg19-x.pth")
    with pytest.raises(InvalidArgument) as caught:
        encoders.open_encoder(str(tmp_path / "vgg19-x.pth"))
    assert caught.value.reason == "BAD_ENCODER_WEIGHTS"


def test_vgg_sees_what_torchvisions_sees():
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(0)
    theirs = torchvision.models.vgg19(weights=None).features.eval()
    ours = encoders.VggEncoder(19)
    ours.layers.load_state_dict({name: value for name, value in theirs.state_dict().items() if name in ours.layers.state_dict()})
    image = draws(1, 3, 128, 128)
    value = (image - ours.mean) / ours.spread
    # relu1_1, relu2_1, relu3_1 and relu4_1 of the style papers.
    for place, layer in enumerate(theirs[:21]):
        value = layer(value)
        if place in (1, 6, 11, 20):
            assert torch.allclose(ours.features(image)[(1, 6, 11, 20).index(place)], value, atol=1e-5)
