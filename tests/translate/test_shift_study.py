"""Datasets read as domains and compared: what is prepared, what is left out, and what bad input is answered with."""

from __future__ import annotations

import numpy as np
import pytest
from judged_models import publish
from shift_sets import textured, write

from oteo_core.artifacts import ArtifactStore
from oteo_core.errors import FailedPrecondition, InvalidArgument, OteoError
from oteo_core.images import InputPolicy
from oteo_core.packages.answers import IGNORED
from oteo_translate.reading import policy_of, read_domain, usable
from oteo_translate.shift.kinds import BOTH, COVARIATE, NONE, PREVALENCE
from oteo_translate.shift.page import write_page
from oteo_translate.shift.result import from_json, to_json
from oteo_translate.shift.study import study
from oteo_translate.tasks.model import open_task_model

POLICY = InputPolicy(32, 32)


@pytest.fixture
def store(tmp_path):
    return ArtifactStore(str(tmp_path / "store"))


@pytest.fixture
def compare(store, tmp_path):
    """Compare two sets of images, or two datasets; small draws keep it quick."""

    def run(home, shifted, **options):
        home = write(store, "home", home) if isinstance(home, list) else home
        shifted = write(store, "new", shifted) if isinstance(shifted, list) else shifted
        return study(home, shifted, tmp_path / "images", most=60, **options)

    return run


def some(count, start=0, **drawing):
    return [textured(start + index, **drawing) for index in range(count)]


def test_the_same_scanner_is_no_shift_and_another_is_one(compare, store):
    home = write(store, "home", some(24))
    alike = compare(home, some(20, 100))
    assert alike.shift.kind == NONE
    darker = compare(home, write(store, "darker", some(20, 200, level=0.35)))
    assert darker.shift.kind == COVARIATE
    assert darker.shift.statistics[0].effect < -1
    page = write_page(darker, operation="operations/x", when="today").decode()
    assert "The images of Darker look different from those of Home." in page
    assert page.count("data:image/jpeg") == 20
    assert 'src="http' not in page
    told = from_json(to_json(darker, operation="operations/x"))
    assert (told["kind"], told["dataset"], len(told["extremes"])) == ("covariate", "datasets/darker", 10)


def test_noise_and_sharpness_are_seen_where_brightness_stays(compare):
    assert compare(some(24), some(24, 100, noise=0.12)).shift.kind == COVARIATE


@pytest.mark.parametrize(("shares", "change", "kind"), [((4, 4, 24), 0.0, PREVALENCE), ((4, 4, 24), 0.12, BOTH), ((16, 8, 8), 0.0, NONE)])
def test_labels_tell_shares_from_looks(compare, store, shares, change, kind):
    names = ("dark", "middle", "light")

    def labelled(name, counts, start, lift):
        images = [textured(start + i + 100 * c, level=0.4 + 0.15 * c + lift) for c, count in enumerate(counts) for i in range(count)]
        return write(store, name, images, labels=[names[c] for c, count in enumerate(counts) for _ in range(count)])

    found = compare(labelled("home", (16, 8, 8), 0, 0.0), labelled("new", shares, 1000, change)).shift
    assert found.kind == kind
    assert found.prevalence.source == "labels"
    assert found.prevalence.home == (0.5, 0.25, 0.25)


def test_a_model_adds_what_it_sees_what_it_says_and_what_it_loses(compare, store):
    package = publish(store, "classification")
    names = ("dark", "middle", "light")

    def shaded(start, count, lift=0.0, noise=0.05):
        levels = (0.35, 0.62, 0.9)
        return [np.clip(textured(start + i, level=levels[i % 3], noise=noise) + 255 * lift, 0, 255).astype(np.uint8) for i in range(count)]

    turn = [names[i % 3] for i in range(36)]
    splits = ["train"] * 3 + ["test"] * 33
    home = write(store, "home", shaded(0, 36), labels=turn, splits=splits)
    found = compare(home, write(store, "new", shaded(500, 30, 0.15, 0.12), labels=turn[:30]), model=open_task_model(store, package))
    assert len(found.home.domain) == 33  # not what it learned from
    assert {test.feature for test in found.shift.tests} == {"intensity", "output", "embedding", "labels"}
    assert found.shift.kind == COVARIATE
    assert found.loss.metric == "accuracy"
    assert found.loss.expected.lower <= found.loss.expected.value <= found.loss.expected.upper
    assert found.loss.measured > 0.1
    page = write_page(found, operation="operations/x", when="today").decode()
    assert "Expected loss of models/judged" in page
    assert "loss of accuracy, measured" in page

    class Blind:
        def answers(self, images):
            return [np.array([1.0, 0.0, 0.0])] * len(images)

    asked = compare(
        home,
        write(store, "third", shaded(500, 30, 0.15, 0.12), labels=turn[:30]),
        model=open_task_model(store, package),
        second_network=Blind(),
    )
    assert asked.loss.expected.method == "agreement with a second network"
    assert "by agreement with a second network" in write_page(asked, operation="operations/x", when="today").decode()
    with pytest.raises(InvalidArgument, match="is what models/judged was trained on"):
        compare(home, home, model=open_task_model(store, package))


def test_truths_are_read_in_the_prepared_geometry(store, tmp_path):
    masks = [np.zeros((40, 40), np.uint8) for _ in range(8)]
    for index, mask in enumerate(masks):
        mask[:20] = 1 + index % 2
    drawn = write(store, "home", some(8), task="semantic_segmentation", classes=("green", "blue"), masks=masks)
    policy = InputPolicy(32, 64, resize="letterbox")
    read = read_domain(drawn, policy, tmp_path, task="semantic_segmentation", classes=("red", "green"))
    first, second = (read.domain.truths[row].labels for row in (0, 1))
    assert first.shape == (64, 32)
    assert (first[:16] == IGNORED).all()
    assert (first[16:32] == 2).all()
    assert (first[32:48] == 0).all()
    # Blue is no class of the model.
    assert (second[16:32] == IGNORED).all()
    classes = write(store, "labels", some(8), labels=["dark", None, "light", "dark", "dark", "dark", "dark", "dark"])
    assert list(read_domain(classes, POLICY, tmp_path, task="classification", classes=("light", "dark")).domain.truths[:3]) == [1, None, 0]
    assert read_domain(classes, POLICY, tmp_path).domain.truths == ()


def test_what_stands_for_a_domain(store, tmp_path):
    reader = write(store, "home", some(30), spoilt=[3], copies=[5, 6], groups=["", *["g"] * 29])
    assert len(usable(reader)) == 28
    read = read_domain(reader, POLICY, tmp_path, most=20, seed=1)
    assert len(read.domain) + len(read.unread) == 20
    assert read.available == 28
    assert not {"s003", "s005", "s006"} & set(read.domain.ids)
    again = read_domain(reader, POLICY, tmp_path / "again", most=20, seed=1)
    assert again.domain.ids == read.domain.ids
    np.testing.assert_array_equal(again.domain.images, read.domain.images)
    whole = read_domain(reader, POLICY, tmp_path)
    assert [(one.sample, one.reason) for one in whole.unread] == [("s003", "TRUNCATED_IMAGE")]
    assert whole.domain.groups[0] == "s000"


def test_the_input_fits_both_sets(store):
    home = write(store, "home", some(8, side=50) + some(1, 20, side=300))
    assert policy_of(home, write(store, "grey", some(8, side=40, channels=1))) == InputPolicy(40, 40, 3)
    assert policy_of(*[write(store, name, some(8, channels=1)) for name in "ab"]).channels == 1
    deep = write(store, "deep", [image.astype(np.uint16) * 16 for image in some(8)], bit_depth=12)
    found = policy_of(home, deep)
    assert (found.dtype, found.bit_depth) == ("float32", 16)


# What else may come.


def test_a_set_compared_with_itself_is_refused(compare, store):
    home = write(store, "home", some(12))
    with pytest.raises(InvalidArgument) as caught:
        compare(home, home)
    assert caught.value.reason == "SAME_DATASET"
    with pytest.raises(InvalidArgument) as copied:
        compare(home, write(store, "copy", some(12)))
    assert copied.value.reason == "SAME_DATASET"


def test_shared_images_take_no_part(compare, store):
    home = write(store, "home", some(20))
    found = compare(home, write(store, "new", some(6) + some(16, 100)))
    assert found.shared == 6
    assert found.shift.images == (20, 16)
    assert any("6 images of datasets/new are in datasets/home too" in note for note in found.notes)
    with pytest.raises(InvalidArgument, match="20 of the 24 images of datasets/more are in datasets/home too; 4 are left") as caught:
        compare(home, write(store, "more", some(20) + some(4, 300)))
    assert caught.value.reason == "SHARED_IMAGES"


@pytest.mark.parametrize("empty", ["home", "new"])
def test_an_empty_set_is_refused(compare, empty):
    with pytest.raises(FailedPrecondition, match=f"datasets/{empty} has no image") as caught:
        compare([] if empty == "home" else some(12), [] if empty == "new" else some(12, 100))
    assert caught.value.reason == "EMPTY_DATASET"


def test_three_images_are_too_few(compare):
    with pytest.raises(InvalidArgument, match="datasets/new has 3 images; 8 are needed") as caught:
        compare(some(12), some(3, 100))
    assert caught.value.reason == "TOO_FEW_IMAGES"


def test_images_of_one_patient_are_too_few_groups(compare, store):
    with pytest.raises(InvalidArgument, match="12 images in 1 groups"):
        compare(some(12), write(store, "new", some(12, 100), groups=["p"] * 12))


def test_other_channels_are_compared_or_refused(compare, store):
    grey = compare(write(store, "home", some(12)), write(store, "grey", some(12, 100, channels=1)))
    assert grey.policy.channels == 3
    assert any("are grey" in note for note in grey.notes)
    with pytest.raises(InvalidArgument, match=r"datasets/home: 3; datasets/five: 5") as caught:
        compare(write(store, "home", some(12)), write(store, "five", some(12, 100, channels=5)))
    assert caught.value.reason == "CHANNELS_MISMATCH"
    five = compare(write(store, "a", some(12, channels=5)), write(store, "b", some(12, 100, channels=5, level=0.8)))
    assert five.shift.kind == COVARIATE


def test_constant_images_are_answered(compare, store):
    flat = [np.full((20, 20, 3), 10 + index, np.uint8) for index in range(12)]
    found = compare(some(12), flat)
    assert found.shift.kind == COVARIATE
    assert any("12 images of datasets/new are of one value" in note for note in found.notes)
    same = compare(
        write(store, "black", [np.zeros((20, 20 + index, 3), np.uint8) for index in range(10)]),
        write(store, "dark", [np.zeros((40 + index, 20, 3), np.uint8) for index in range(10)]),
    )
    assert same.shift.kind == NONE


def test_values_that_are_no_numbers_are_named(compare, store):
    def floats(count, start, holes=0):
        images = [image.astype(np.float32) / 255 for image in some(count, start, channels=1)]
        for image in images[:holes]:
            image[3:5, 3:9] = np.nan
        return images

    found = compare(write(store, "home", floats(12, 0)), write(store, "new", floats(14, 100, holes=2)))
    assert found.shift.images == (12, 12)
    assert [one.reason for one in found.shifted.unread] == ["NOT_FINITE", "NOT_FINITE"]
    assert any("s000 (NOT_FINITE)" in note for note in found.notes)
    with pytest.raises(OteoError) as caught:
        compare(write(store, "home", floats(12, 0)), write(store, "bad", floats(20, 200, holes=14)))
    assert caught.value.reason == "TOO_FEW_IMAGES"
    assert "NOT_FINITE" in caught.value.message


def test_a_set_that_is_mostly_broken_does_not_stand_for_itself(compare, store):
    with pytest.raises(FailedPrecondition) as caught:
        compare(some(12), write(store, "new", some(30, 100), spoilt=range(18)))
    assert caught.value.reason == "UNREADABLE_IMAGES"
