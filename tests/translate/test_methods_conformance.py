"""Every way to translate keeps the contract of `oteo_translate.methods.base`, whatever it does to colours."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from translate_domains import FEW, encoder_network, smears

from oteo_core.errors import FailedPrecondition, InvalidArgument
from oteo_core.graphs.export import run_onnx
from oteo_core.graphs.modules import dump_module, load_module
from oteo_translate.domains import Domain
from oteo_translate.methods.base import FitContext
from oteo_translate.methods.graphs import export_any_size
from oteo_translate.methods.registry import METHODS

CASES = [(name, channels) for name in sorted(METHODS) for channels in (3, 1) if METHODS[name].colours in (None, (1, 3)) or channels == 3]
ROUNDING = 1e-5
"""Sums over batches of another size may be taken in another order."""

_FITTED: dict[tuple[str, int], object] = {}


def context(channels, seed=0):
    return FitContext(seed=seed, network=encoder_network(channels))


def count(name):
    return max(6, METHODS[name].least)


def fit(name, channels):
    return METHODS[name].fit(*smears(count(name), channels), FEW.get(name, {}), context(channels))


@pytest.fixture
def fitted(request):
    """Give a method fitted once for all tests of this file."""
    if request.param not in _FITTED:
        _FITTED[request.param] = fit(*request.param)
    return _FITTED[request.param]


def everywhere(test):
    return pytest.mark.parametrize(
        ("fitted", "channels"),
        [(case, case[1]) for case in CASES],
        indirect=["fitted"],
        ids=[f"{name}-{channels}" for name, channels in CASES],
    )(test)


def images(channels, height, width, number=2, seed=5):
    return torch.rand(number, channels, height, width, generator=torch.Generator().manual_seed(seed))


@everywhere
@torch.inference_mode()
def test_size_and_range_stay_at_any_size_and_alone_as_in_a_batch(fitted, channels):
    for height, width in ((32, 40), (9, 23)):
        planes = images(channels, height, width)
        before = planes.clone()
        found = fitted(planes)
        assert found.shape == planes.shape
        assert found.dtype == torch.float32
        assert torch.isfinite(found).all()
        assert found.min() >= 0
        assert found.max() <= 1
        assert torch.equal(planes, before), "the input was written to"
        # Convolutions of another batch are summed in another order, more or less alike by processor: a twentieth of a grey level is nothing.
        alone = fitted(planes[1:])
        assert torch.allclose(alone, found[1:], atol=2e-4), float((alone - found[1:]).abs().max())
        assert torch.equal(fitted(planes), found)


@everywhere
@torch.inference_mode()
def test_constant_images_are_no_error(fitted, channels):
    for value in (0.0, 0.5, 1.0):
        found = fitted(torch.full((1, channels, 16, 16), value))
        assert torch.isfinite(found).all()
        assert found.min() >= 0
        assert found.max() <= 1


@everywhere
@torch.inference_mode()
def test_what_is_written_down_and_read_translates_the_same(fitted, channels):
    data = dump_module(fitted)
    again = load_module(data)
    planes = images(channels, 32, 40, 1)
    assert torch.equal(again(planes), fitted(planes))
    assert again.spec() == fitted.spec()
    assert all(torch.equal(one, other) for one, other in zip(again.state_dict().values(), fitted.state_dict().values(), strict=True))


@everywhere
def test_type_and_size_of_stored_images_stay(fitted, channels):
    draws = np.random.default_rng(3)
    for kind, white in ((np.uint8, 255), (np.uint16, 4095), (np.uint16, 65535), (np.float32, 1.0), (np.float64, 1.0)):
        unit = draws.random((11, 19, channels))
        pixels = (unit * white).astype(kind)
        found = fitted.apply_to(pixels, white)
        assert found.dtype == pixels.dtype
        assert found.shape == pixels.shape
        assert found.min() >= 0
        assert found.max() <= white
        assert np.array_equal(found, fitted.apply_to(pixels.copy(), white))
    # The same picture in 8 and in 16 bits comes out the same, but for the finer steps.
    shallow = (draws.random((16, 16, channels)) * 255).astype(np.uint8)
    deep = fitted.apply_to(shallow.astype(np.uint16) * 257, 65535)
    assert np.abs(deep / 257 - fitted.apply_to(shallow, 255)).max() < 0.51 + 1e-2 * 255 * (not fitted.exportable)
    assert fitted.apply_to(shallow[:3, :5], 255).shape == (3, 5, channels)


@everywhere
def test_images_that_it_was_not_fitted_for_are_refused(fitted, channels):
    with pytest.raises(InvalidArgument) as caught:
        fitted.apply_to(np.zeros((16, 16, channels + 1), np.uint8), 255)
    assert caught.value.reason == "CHANNELS_MISMATCH"
    broken = np.zeros((16, 16, channels), np.float32)
    broken[3, 4] = np.nan
    with pytest.raises(InvalidArgument) as caught:
        fitted.apply_to(broken, 1.0)
    assert caught.value.reason == "NOT_FINITE"


@everywhere
def test_its_graph_answers_as_it_does_at_any_size(fitted, channels):
    if not fitted.exportable:
        with pytest.raises(FailedPrecondition) as caught:
            export_any_size(fitted, channels)
        assert caught.value.reason == "NOT_EXPORTABLE"
        return
    data = export_any_size(fitted, channels)
    for number, height, width in ((1, 32, 32), (3, 33, 57)):
        planes = images(channels, height, width, number, seed=9)
        with torch.inference_mode():
            due = fitted(planes).permute(0, 2, 3, 1).numpy()
        assert np.abs(run_onnx(data, planes.permute(0, 2, 3, 1).numpy())[0] - due).max() < 2e-3


@pytest.mark.parametrize("name", sorted(METHODS))
def test_the_same_seed_gives_the_same_bytes(name):
    assert dump_module(fit(name, 3)) == dump_module(fit(name, 3))


@pytest.mark.parametrize("name", sorted(METHODS))
def test_constant_domains_are_answered_or_refused(name):
    shifted, home = smears(count(name), 3)
    flat = Domain("datasets/flat", np.full_like(shifted.images, 90), shifted.ids, shifted.groups)
    for pair in ((flat, home), (shifted, flat)):
        try:
            found = METHODS[name].fit(*pair, FEW.get(name, {}), context(3))
        except InvalidArgument:
            continue
        with torch.inference_mode():
            assert torch.isfinite(found(images(3, 16, 16, 1))).all()


@pytest.mark.parametrize("name", sorted(METHODS))
def test_what_it_cannot_be_fitted_on_is_refused(name):
    method = METHODS[name]
    shifted, home = smears(count(name), 3)

    def refused(shifted, home, parameters):
        with pytest.raises(InvalidArgument) as caught:
            method.fit(shifted, home, parameters, context(3))
        return caught.value.reason

    assert refused(shifted, home.take(np.arange(method.least - 1)), {}) == "TOO_FEW_IMAGES"
    assert refused(shifted.take(np.arange(0)), home, {}) == "TOO_FEW_IMAGES"
    assert refused(shifted, smears(count(name), 1)[1], {}) == "CHANNELS_MISMATCH"
    assert refused(shifted, home, {"no_such_thing": 1}) == "BAD_PARAMETER"
    holes = home.images.astype(np.float32) / 255
    holes[2, 5, 5] = np.nan
    assert refused(shifted, Domain(home.name, holes, home.ids, home.groups), {}) == "NOT_FINITE"
    if method.colours == (3,):
        assert refused(*smears(count(name), 1), {}) == "CHANNELS_MISMATCH"


@pytest.mark.parametrize("name", sorted(METHODS))
def test_it_says_what_it_is(name):
    method = METHODS[name]
    assert method.name == name
    assert method.summary.endswith(".")
    assert method.kind in ("training-free", "style", "trained")
    assert method.cost > 0
    assert len(method.grid()) >= 1
    json_values = (int, float, str, bool)
    assert all(isinstance(value, json_values) for parameters in method.grid() for value in parameters.values())


@pytest.mark.parametrize("name", sorted(METHODS))
def test_its_parameters_are_known_and_checked_without_images(name):
    method = METHODS[name]
    usual = method.settings({})
    assert usual, "what a user can set"
    for given in (*method.grid(), FEW.get(name, {})):
        assert set(given) <= set(usual)
        assert method.settings(given) == {**usual, **given}
    with pytest.raises(InvalidArgument) as caught:
        method.settings({"no_such_thing": 1})
    assert (caught.value.reason, caught.value.field) == ("BAD_PARAMETER", f"parameters.{name}.no_such_thing")
    assert all(one in caught.value.message for one in usual)


@pytest.mark.parametrize("name", sorted(METHODS))
def test_a_stopped_job_ends_its_fit(name):
    class Stopped(Exception):
        pass

    def check():
        raise Stopped

    with pytest.raises(Stopped):
        METHODS[name].fit(*smears(count(name), 3), FEW.get(name, {}), FitContext(check=check, network=encoder_network(3)))
