"""FID and KID against closed forms and brute force."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import nn

from oteo_core.errors import InvalidArgument
from oteo_translate.measures.encoders import Encoder, open_inception
from oteo_translate.measures.fid import fid, frechet_distance, kid
from oteo_translate.measures.home import HomeMeasures, distances_of


def draws(seed, count, size, shift=0.0, scale=1.0):
    return np.random.default_rng(seed).normal(shift, scale, (count, size))


def test_normal_distributions_in_one_dimension_have_a_closed_form():
    found = frechet_distance(np.array([1.0]), np.array([[4.0]]), np.array([-2.0]), np.array([[9.0]]))
    assert found == pytest.approx(3.0**2 + (2.0 - 3.0) ** 2)


def test_the_distance_of_normal_distributions_is_that_by_scipys_matrix_root():
    rng = np.random.default_rng(0)
    ours, theirs = (np.cov(rng.normal(size=(40, 6)) @ rng.normal(size=(6, 6)), rowvar=False) for _ in range(2))
    root = scipy.linalg.sqrtm(ours @ theirs)
    due = np.trace(ours) + np.trace(theirs) - 2 * np.trace(root).real + 6 * 0.25
    assert frechet_distance(np.zeros(6), ours, np.full(6, 0.5), theirs) == pytest.approx(due)


@pytest.mark.parametrize(("count", "size"), [(60, 5), (12, 40)])
def test_fid_of_embeddings_is_that_of_their_means_and_covariances(count, size):
    """Also where there are fewer images than dimensions, and another way is taken."""
    first, second = draws(1, count, size), draws(2, count + 3, size, 0.3, 1.5)
    ours, theirs = np.cov(first, rowvar=False), np.cov(second, rowvar=False)
    root = scipy.linalg.sqrtm(ours @ theirs).real
    due = np.square(first.mean(0) - second.mean(0)).sum() + np.trace(ours) + np.trace(theirs) - 2 * np.trace(root)
    assert fid(first, second, resamples=0).value == pytest.approx(due, rel=2e-3)
    assert fid(first, first, resamples=0).value == pytest.approx(0.0, abs=1e-6)


def test_kid_is_the_mean_over_all_pairs():
    first, second = draws(1, 7, 3), draws(2, 9, 3, 0.5)

    def kernel(a, b):
        return (a @ b / 3 + 1) ** 3

    same = np.mean([kernel(a, b) for i, a in enumerate(first) for j, b in enumerate(first) if i != j])
    other = np.mean([kernel(a, b) for i, a in enumerate(second) for j, b in enumerate(second) if i != j])
    cross = np.mean([kernel(a, b) for a in first for b in second])
    assert kid(first, second, resamples=0).value == pytest.approx(same + other - 2 * cross)


def test_kid_is_unbiased_and_fid_is_too_large_on_few_images():
    values = [(kid(draws(2 * s, 12, 4), draws(2 * s + 1, 12, 4), resamples=0).value) for s in range(200)]
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(len(values))
    assert fid(draws(0, 12, 4), draws(1, 12, 4), resamples=0).value > 5 * fid(draws(0, 4000, 4), draws(1, 4000, 4), resamples=0).value


def test_intervals_hold_the_true_distance_mostly():
    """True squared distance of two unit normals a mean apart: 4 x .5^2 = 1; KID's true value by many draws."""
    due = kid(draws(900, 3000, 4), draws(901, 3000, 4, 0.5), resamples=0).value
    held = {"fid": 0, "kid": 0}
    runs = 20
    for seed in range(runs):
        first, second = draws(10 + 2 * seed, 60, 4), draws(11 + 2 * seed, 60, 4, 0.5)
        for name, measure, truth in (("fid", fid, 1.0), ("kid", kid, due)):
            interval = measure(first, second, seed=seed, resamples=40).interval
            assert interval is not None
            held[name] += interval.lower <= truth <= interval.upper
    assert held["fid"] >= 0.8 * runs
    assert held["kid"] >= 0.8 * runs


def test_groups_widen_the_interval():
    """Ten images of each of six patients are not sixty patients."""
    rng = np.random.default_rng(4)
    patients = np.repeat(np.arange(6), 10)
    first = rng.normal(size=(6, 4))[patients] + 0.1 * rng.normal(size=(60, 4))
    second = rng.normal(size=(6, 4))[patients] + 0.1 * rng.normal(size=(60, 4))
    grouped = kid(first, second, groups=(patients, patients)).interval
    alone = kid(first, second).interval
    assert grouped is not None
    assert alone is not None
    assert grouped.upper - grouped.lower > 1.5 * (alone.upper - alone.lower)
    assert kid(first, second, groups=(np.zeros(60), patients)).interval is None


def test_the_same_seed_gives_the_same_interval():
    first, second = draws(1, 20, 4), draws(2, 20, 4)
    assert fid(first, second, seed=3, resamples=20) == fid(first, second, seed=3, resamples=20)
    assert fid(first, second, seed=3, resamples=20) != fid(first, second, seed=4, resamples=20)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (np.zeros((1, 3)), np.zeros((5, 3))),
        (np.zeros((5, 3)), np.zeros((5, 4))),
        (np.full((5, 3), np.nan), np.zeros((5, 3))),
        (np.zeros(5), np.zeros(5)),
    ],
)
def test_what_is_no_embedding_is_refused(first, second):
    for measure in (fid, kid):
        with pytest.raises(InvalidArgument) as caught:
            measure(first, second)
        assert caught.value.reason == "BAD_EMBEDDINGS"


def test_an_encoder_takes_what_images_there_are():
    torch.manual_seed(0)
    encoder = Encoder(nn.Conv2d(3, 5, 3), 16, (0.5,) * 3, (0.5,) * 3)
    colour = np.random.default_rng(0).integers(0, 256, (3, 20, 24, 3), np.uint8)
    found = encoder(colour, batch=2)
    assert found.shape == (3, 5)
    assert np.allclose(encoder((colour / 255).astype(np.float32)), found, atol=1e-5)
    grey = colour[..., :1]
    assert np.allclose(encoder(grey), encoder(np.repeat(grey, 3, axis=3)), atol=1e-6)


def test_weights_of_inception_that_are_not_there_or_are_others_are_refused(tmp_path):
    torch.save({"features.0.weight": torch.zeros(3)}, tmp_path / "inception_v3-other.pth")
    (tmp_path / "text.pth").write_bytes(b"no weights")
    (tmp_path / "empty").mkdir()
    reasons = {
        "": "BAD_INCEPTION_WEIGHTS",
        "text.pth": "BAD_INCEPTION_WEIGHTS",
        "missing.pth": "NO_INCEPTION_WEIGHTS",
        "empty": "NO_INCEPTION_WEIGHTS",
    }
    for name, reason in reasons.items():
        with pytest.raises(InvalidArgument) as caught:
            open_inception(str(tmp_path / name))
        assert caught.value.reason == reason, name


def test_a_set_like_home_is_near_it_and_another_is_not_whatever_the_units():
    """As the ladder tells it: the same figures if a network's features are a thousand times as large."""
    home, like, far = draws(1, 80, 6, 1.0), draws(2, 40, 6, 1.0), draws(3, 40, 6, 1.8)
    found = [HomeMeasures(unit * home, seed=5).of(unit * rows) for rows in (like, far) for unit in (1.0, 1000.0)]
    near, same_near, away, same_away = found
    assert near["kid_lower"] < 0.05 * away["kid"]
    assert near["kid_upper"] < away["kid_lower"]
    assert near["fid_upper"] < away["fid_lower"]
    assert near == pytest.approx(same_near)
    assert away == pytest.approx(same_away)
    metrics = {one.name: one for one in distances_of(away)}
    assert list(metrics) == ["kid", "fid"]
    assert metrics["kid"].lower < metrics["kid"].value < metrics["kid"].upper
    assert (metrics["kid"].confidence_level, metrics["kid"].sample_count) == (0.95, 40)


def test_fid_is_left_out_where_images_are_fewer_than_dimensions_and_kid_is_not():
    found = HomeMeasures(draws(1, 80, 40)).of(draws(2, 40, 40))
    assert [one.name for one in distances_of(found)] == ["kid"]
    assert (found["embedded_images"], found["embedded_home_images"], found["embedding_dimensions"]) == (40, 80, 40)
    assert "fid" in HomeMeasures(draws(1, 80, 40)).of(draws(2, 41, 40))


def test_one_patient_gives_a_distance_without_an_interval():
    found = HomeMeasures(draws(1, 30, 4), [f"p{row % 6}" for row in range(30)]).of(draws(2, 20, 4), np.zeros(20, int).tolist())
    (metric, _) = distances_of(found)
    assert metric.lower is None
    assert metric.confidence_level == 0.0


@pytest.mark.parametrize("rows", [np.full((9, 4), np.nan), np.zeros((1, 4)), np.zeros((0, 4))])
def test_embeddings_that_say_nothing_cost_no_verdict(rows):
    assert HomeMeasures(draws(1, 30, 4)).of(rows) == {}
    assert distances_of({}) == []


def test_a_network_that_answers_the_same_to_all_is_measured_all_the_same():
    found = HomeMeasures(np.zeros((9, 4))).of(np.zeros((9, 4)))
    assert found["kid"] == pytest.approx(0.0)
