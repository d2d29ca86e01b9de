"""The mathematics of the training-free methods, against closed forms and independent programs."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from scipy.optimize import nnls
from skimage.color import rgb2lab
from skimage.exposure import match_histograms
from sklearn.decomposition import DictionaryLearning
from sklearn.linear_model import Lasso
from translate_domains import smears

from oteo_translate.domains import Domain
from oteo_translate.methods.base import FitContext
from oteo_translate.methods.colour import macenko, stains, vahadane
from oteo_translate.methods.colour.clahe import equalised
from oteo_translate.methods.colour.quantiles import mapped, masked_quantile, quantiles
from oteo_translate.methods.colour.spaces import SPACES, from_space, to_space
from oteo_translate.methods.registry import METHODS

HE = np.array([[0.65, 0.07], [0.70, 0.99], [0.29, 0.11]])
"""Haematoxylin and eosin of Ruifrok and Johnston 2001."""

OTHER = np.array([[0.50, 0.25], [0.55, 0.75], [0.67, 0.61]])


def domain(images, name="datasets/d"):
    images = np.asarray(images, np.float32)
    names = [f"{name}-{row}" for row in range(len(images))]
    return Domain(name, images, names, names)


def fit(name, shifted, home, **parameters):
    return METHODS[name].fit(shifted, home, parameters, FitContext()).eval()


@torch.inference_mode()
def translate(translation, image):
    return translation(torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None])[0].permute(1, 2, 0).numpy()


def noise(seed, shape, low=0.3, high=0.6):
    return np.random.default_rng(seed).uniform(low, high, shape).astype(np.float32)


def test_each_image_gets_the_mean_and_spread_of_home():
    home = domain([noise(seed, (20, 24, 3), 0.4, 0.4 + 0.05 * seed) for seed in (1, 2, 3)])
    found = translate(fit("moments", domain(noise(9, (3, 20, 24, 3))), home), noise(4, (33, 21, 3), 0.1, 0.5))
    assert found.mean((0, 1)) == pytest.approx(home.images.mean((1, 2)).mean(0), abs=1e-5)
    assert found.std((0, 1)) == pytest.approx(home.images.std((1, 2)).mean(0), abs=1e-5)


def test_a_change_of_gain_and_offset_is_undone_exactly_by_the_domains_moments():
    home = domain(noise(1, (5, 16, 16, 3)))
    shifted = domain(home.images * np.float32(0.5) + np.float32([0.3, 0.1, 0.2]))
    found = translate(fit("moments", shifted, home, scope="domain"), shifted.images[2])
    assert found == pytest.approx(home.images[2], abs=1e-5)


def test_quantiles_are_numpys():
    values = np.random.default_rng(0).normal(size=(2, 3, 101)).astype(np.float32)
    at = np.array([0, 0.013, 0.5, 0.99, 1], np.float32)
    found = quantiles(torch.from_numpy(values), torch.from_numpy(at)).numpy()
    assert found == pytest.approx(np.quantile(values, at, axis=2).transpose(1, 2, 0), abs=1e-5)
    mask = np.random.default_rng(1).random((2, 101)) < 0.3
    found = masked_quantile(torch.from_numpy(values[:, 0]), torch.from_numpy(mask), 0.9).numpy()
    assert found == pytest.approx([np.quantile(values[row, 0][mask[row]], 0.9) for row in (0, 1)], abs=1e-5)


def test_histogram_matching_is_scikit_images():
    rng = np.random.default_rng(0)
    other = (rng.beta(2, 5, (64, 80, 3)) * [0.9, 0.5, 1.0]).astype(np.float32)
    image = rng.normal(0.5, 0.1, (70, 51, 3)).clip(0, 1).astype(np.float32)
    found = translate(fit("histogram", domain(noise(1, (3, 16, 16, 3))), domain([other] * 3)), image)
    assert np.abs(found - match_histograms(image, other, channel_axis=2)).max() < 0.05
    assert np.abs(found - match_histograms(image, other, channel_axis=2)).mean() < 0.001


def test_equal_pixels_stay_equal_and_order_stays_when_most_of_an_image_is_black():
    image = np.zeros((40, 40, 1), np.float32)
    image[5:15, 5:15, 0] = np.round(noise(3, (10, 10)) * 255) / 255
    for scope in ("image", "domain"):
        found = translate(fit("histogram", domain([image] * 3), domain(noise(1, (3, 40, 40, 1), 0.1, 0.9)), scope=scope), image)
        order = np.argsort(image.ravel(), kind="stable")
        assert np.all(np.diff(found.ravel()[order]) >= -1e-6)
        assert len(np.unique(found[image == 0])) == 1


def test_one_map_for_all_images_undoes_a_monotone_change():
    home = domain(noise(1, (6, 32, 32, 3), 0.0, 1.0))
    shifted = domain(home.images**2)
    found = translate(fit("histogram", shifted, home, scope="domain"), shifted.images[3])
    assert np.abs(found - home.images[3]).mean() < 0.01


def test_ranks_of_values_between_the_quantiles():
    source = torch.linspace(0, 1, 257)[None, None]
    target = source**2
    values = torch.rand(1, 1, 500, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(mapped(values, source, target), values**2, atol=1e-4)


@pytest.mark.parametrize("name", ["moments", "histogram"])
@pytest.mark.parametrize("scope", ["image", "domain"])
def test_a_negative_is_undone(name, scope):
    home = domain(noise(1, (6, 32, 32, 3), 0.1, 0.5) ** 2)
    shifted = domain(1 - home.images)
    found = translate(fit(name, shifted, home, scope=scope, tone="negative"), shifted.images[3])
    assert np.abs(found - home.images[3]).mean() < 0.01


@pytest.mark.parametrize("name", ["moments", "histogram"])
def test_where_home_has_no_colour_images_lose_theirs(name):
    home = domain(np.repeat(noise(1, (5, 32, 32, 1), 0.0, 0.5), 3, axis=3))
    found = translate(fit(name, domain(noise(2, (5, 32, 32, 3))), home, tone="negative"), noise(3, (32, 32, 3)))
    assert np.abs(found - found.mean(2, keepdims=True)).max() < 1e-5


@pytest.mark.parametrize("space", SPACES)
def test_colour_spaces_are_there_and_back(space):
    planes = torch.rand(2, 3, 9, 9, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(from_space(to_space(planes, space), space), planes, atol=1e-3)
    if space == "cielab":
        assert to_space(planes, space).permute(0, 2, 3, 1).numpy() == pytest.approx(rgb2lab(planes.permute(0, 2, 3, 1).numpy()), abs=0.05)


def test_the_papers_space_of_a_grey_has_no_colour():
    grey = to_space(torch.full((1, 3, 4, 4), 0.5), "lalphabeta")[0, :, 0, 0]
    # The rows of the matrix to cone responses sum to 1 but for the third, which the paper rounds to 0.9973.
    assert grey[0].item() == pytest.approx(np.sqrt(3) * np.log10(0.5 + 1 / 255), abs=2e-3)
    assert grey[1:].abs().max().item() < 2e-3


def test_reinhard_gives_home_s_moments_in_lab():
    shifted, home = smears(5, 3)
    found = translate(fit("reinhard", shifted, home, space="cielab"), shifted.images[1].astype(np.float32) / 255)
    due = rgb2lab(home.images / 255)
    lab = rgb2lab(found)
    # What leaves the range of colours is cut off, so that it is near and not equal.
    assert np.abs(lab.mean((0, 1)) - due.mean((0, 1, 2))).max() < 2.0
    assert np.abs(lab.std((0, 1)) / due.std((1, 2)).mean(0) - 1).max() < 0.1


def fourier_by_numpy(image, amplitudes, band):
    """Swap amplitudes as the paper's own description has it: in the middle of the shifted spectrum."""
    spectrum = np.fft.fftshift(np.fft.fft2(image, axes=(0, 1)), axes=(0, 1))
    strength, phase = np.abs(spectrum), np.angle(spectrum)
    row, column = image.shape[0] // 2, image.shape[1] // 2
    square = np.s_[row - band : row + band + 1, column - band : column + band + 1]
    strength[square] = amplitudes[square]
    back = np.fft.ifft2(np.fft.ifftshift(strength * np.exp(1j * phase), axes=(0, 1)), axes=(0, 1))
    return np.real(back).clip(0, 1)


@pytest.mark.parametrize("size", [(32, 40), (33, 41)])
@pytest.mark.parametrize("beta", [0.01, 0.09, 0.2])
def test_fourier_adaptation_is_the_swap_in_numpys_spectrum(size, beta):
    images = noise(0, (8, *size, 3), 0.2, 0.8)
    amplitudes = np.abs(np.fft.fftshift(np.fft.fft2(images[:4], axes=(1, 2)), axes=(1, 2))).mean(0)
    found = translate(fit("fda", domain(images[4:]), domain(images[:4]), beta=beta), images[5])
    assert found == pytest.approx(fourier_by_numpy(images[5].astype(np.float64), amplitudes, int(beta * min(size))), abs=2e-5)


def test_an_image_at_twice_the_size_gets_the_same_coarse_change():
    shifted, home = smears(5, 3)
    translation = fit("fda", shifted, home, beta=0.05)
    small = shifted.images[0].astype(np.float32) / 255
    large = cv2.resize(small, None, fx=2, fy=2, interpolation=cv2.INTER_LINEAR)
    change = cv2.resize(translate(translation, large) - large, small.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(change - (translate(translation, small) - small)).mean() < 0.01


def test_a_mean_of_home_is_given_to_a_black_image():
    shifted, home = smears(5, 3)
    found = translate(fit("fda", shifted, home), np.zeros((32, 40, 3), np.float32))
    assert found == pytest.approx(np.broadcast_to(home.images.mean((0, 1, 2)) / 255, found.shape), abs=1e-3)


def test_the_plane_of_the_main_eigenvectors_is_numpys():
    rng = np.random.default_rng(0)
    for _ in range(20):
        root = rng.normal(size=(3, 3)) * [1, 1, 0.2]
        matrix = root @ root.T
        found = macenko.axes(torch.from_numpy(matrix[None].astype(np.float32)))[0].numpy()
        small = np.linalg.eigh(matrix)[1][:, 0]
        assert np.abs(small @ found).max() < 0.05
        assert found.T @ found == pytest.approx(np.eye(2), abs=1e-3)


def unit(matrix):
    return matrix / np.linalg.norm(matrix, axis=0)


def stained_image(seed, matrix, side=64, light=1.0):
    """Give an image and its amounts: a third of either stain alone, a third mixed, and glass at the edge."""
    rng = np.random.default_rng(seed)
    amounts = rng.gamma(4.0, 0.3, (side, side, 2)).clip(0.2, 2.2)
    kind = rng.integers(0, 3, (side, side))
    amounts[kind == 0, 1] = 0
    amounts[kind == 1, 0] = 0
    amounts[:6] = 0
    return (light * np.exp(-amounts @ unit(matrix).T)).astype(np.float32), amounts


@pytest.mark.parametrize(("name", "nearest"), [("macenko", 0.99), ("vahadane", 0.99)])
def test_known_stains_are_found_and_exchanged(name, nearest):
    shifted = domain([stained_image(seed, HE)[0] for seed in range(4)])
    home = domain([stained_image(seed, OTHER)[0] for seed in range(10, 14)])
    for scope in ("image", "domain"):
        translation = fit(name, shifted, home, scope=scope)
        assert (unit(HE) * translation.shifted_stains[0].numpy()).sum(0).min() > nearest
        assert (unit(OTHER) * translation.home_stains[0].numpy()).sum(0).min() > nearest
        image, amounts = stained_image(20, HE)
        due = np.exp(-amounts @ unit(OTHER).T)
        found = translate(translation, image)
        assert np.abs(found - due).mean() < 0.03
        assert np.abs(found - due).mean() < 0.3 * np.abs(image - due).mean()


@pytest.mark.parametrize("name", ["macenko", "vahadane"])
def test_an_image_without_stain_stays_white_and_a_spot_takes_the_domains_stains(name):
    shifted = domain([stained_image(seed, HE)[0] for seed in range(3)])
    home = domain([stained_image(seed, OTHER)[0] for seed in range(10, 13)])
    translation = fit(name, shifted, home)
    assert translate(translation, np.ones((32, 32, 3), np.float32)) == pytest.approx(1.0)
    spot = np.ones((64, 64, 3), np.float32)
    spot[10:14, 10:14] = np.exp(-1.0 * unit(HE)[:, 0])
    found = translate(translation, spot)
    assert found[0, 0] == pytest.approx(np.ones(3))
    density = -np.log(found[12, 12])
    assert density @ unit(OTHER)[:, 0] / np.linalg.norm(density) > 0.99


def test_glass_that_is_not_white_becomes_the_glass_of_home():
    shifted = domain([stained_image(seed, HE, light=np.array([0.9, 0.85, 0.6]))[0] for seed in range(3)])
    home = domain([stained_image(seed, OTHER, light=np.array([0.7, 0.8, 0.95]))[0] for seed in range(10, 13)])
    found = translate(fit("macenko", shifted, home, light="measured"), stained_image(9, HE, light=np.array([0.9, 0.85, 0.6]))[0])
    assert found[2, 20] == pytest.approx([0.7, 0.8, 0.95], abs=0.02)


def test_amounts_are_those_of_nnls_and_of_scikit_learns_lasso():
    rng = np.random.default_rng(0)
    columns = unit(HE).astype(np.float32)
    pixels = (rng.normal(0.3, 0.5, (3, 60))).astype(np.float32)
    found = stains.solved(torch.from_numpy(pixels)[None], torch.from_numpy(columns)[None])[0].numpy()
    assert found == pytest.approx(np.stack([nnls(columns, pixel)[0] for pixel in pixels.T], axis=1), abs=1e-4)
    found = stains.lasso(torch.from_numpy(pixels)[None], torch.from_numpy(columns)[None], 0.1)[0].numpy()
    for place in range(60):
        solver = Lasso(alpha=0.1 / 3, positive=True, fit_intercept=False, tol=1e-8, max_iter=10000).fit(
            columns.astype(np.float64), pixels[:, place].astype(np.float64)
        )
        assert found[:, place] == pytest.approx(solver.coef_, abs=1e-4)


def test_own_factoring_ends_as_good_as_scikit_learns_dictionary():
    image, _ = stained_image(0, HE)
    densities = stains.density(torch.from_numpy(image.transpose(2, 0, 1))[None], torch.ones(1, 3, 1))
    mask = stains.stained(densities)

    def objective(columns):
        amounts = stains.lasso(densities, columns, vahadane.PENALTY)
        errors = (densities - columns @ amounts).square().sum(1) / 2 + vahadane.PENALTY * amounts.sum(1)
        return float(errors[mask].mean())

    start = torch.tensor(unit(OTHER), dtype=torch.float32)[None]
    learner = DictionaryLearning(
        n_components=2,
        alpha=vahadane.PENALTY,
        max_iter=30,
        tol=1e-6,
        fit_algorithm="cd",
        transform_algorithm="lasso_cd",
        positive_code=True,
        positive_dict=True,
        random_state=0,
    ).fit(densities[0].T[mask[0]][::8].numpy().astype(np.float64))
    library = stains.ordered(torch.from_numpy(learner.components_.T.astype(np.float32))[None])
    own = vahadane.factored(densities, mask, start)
    assert objective(own) < objective(start)
    assert objective(own) == pytest.approx(objective(library), rel=0.005)
    assert (own * library).sum(1).min() > 0.995


@pytest.mark.parametrize("limit", [2.0, 4.0, 40.0])
def test_local_equalisation_is_opencvs(limit):
    rng = np.random.default_rng(0)
    image = cv2.GaussianBlur(rng.integers(0, 256, (512, 384)).astype(np.uint8), (7, 7), 0)
    due = cv2.createCLAHE(clipLimit=limit, tileGridSize=(8, 8)).apply(image)
    found = equalised(torch.from_numpy(image)[None, None].float() / 255, limit)[0, 0].numpy() * 255
    # OpenCV cuts off and hands out in whole counts, tiles here have 12 pixels a level.
    assert np.abs(found - due).mean() < 2
    assert found.std() == pytest.approx(due.std(), rel=0.01)


def test_local_equalisation_keeps_more_than_256_levels():
    ramp = torch.linspace(0.2, 0.4, 64 * 64).reshape(1, 1, 64, 64)
    assert len(torch.unique(equalised(ramp, 2.0))) > 2000


def test_clahe_finds_that_home_has_more_local_contrast():
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:64, :64] / 63.0
    images = [(0.6 * rows + 0.03 * rng.normal(size=(64, 64)) + 0.1 * columns).clip(0, 1)[:, :, None] for _ in range(4)]
    flat = domain(images)
    home = domain([equalised(torch.from_numpy(one.transpose(2, 0, 1))[None].float(), 3.0)[0].permute(1, 2, 0).numpy() for one in images])
    assert fit("clahe", flat, home).limit >= 2.0
    assert fit("clahe", home, home).limit == 0.0


def test_gamma_and_contrast_are_undone():
    home = domain(noise(1, (5, 40, 40, 1), 0.1, 0.9))
    shifted = domain(0.1 + 0.5 * ((home.images - 0.1) / 0.8) ** 2)
    for scope in ("image", "domain"):
        found = translate(fit("gamma", shifted, home, scope=scope), shifted.images[0])
        assert np.abs(found - home.images[0]).mean() < 0.02


@pytest.mark.parametrize("name", sorted(name for name, way in METHODS.items() if way.kind == "training-free"))
def test_a_home_image_hardly_changes_where_home_is_also_the_shifted_domain(name):
    home = domain([stained_image(seed, HE)[0] for seed in range(5)])
    found = translate(fit(name, home, home), home.images[0])
    assert np.abs(found - home.images[0]).mean() < 0.03
