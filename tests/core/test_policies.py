"""Modes of policies, and the presets by modality."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from oteo_core.augmentation import (
    PRESETS,
    AugmentationKey,
    Mode,
    Policy,
    Step,
    augment,
    check_policy,
    default_policy,
    find_transform,
    preset_policy,
)
from oteo_core.augmentation.presets import MODALITIES
from oteo_core.errors import InvalidArgument
from oteo_core.sampledata import draw_cell

MIRROR, TURN, GAMMA = Step("HorizontalFlip"), Step("RandomRotate90"), Step("RandomGamma", {"gamma_limit": [60, 160]})


def taken(policy: Policy, copy: int, pixels: np.ndarray) -> tuple[int, ...]:
    return augment(pixels, policy, AugmentationKey("s", copy)).steps


@pytest.fixture(scope="module")
def cell() -> np.ndarray:
    return draw_cell(3, size=48)[0]


def test_power_makes_each_combination_once(cell) -> None:
    policy = Policy((MIRROR, TURN, GAMMA), Mode.POWER)
    assert policy.combinations == 7
    assert Counter(taken(policy, copy, cell) for copy in range(7)) == Counter([(0,), (1,), (0, 1), (2,), (0, 2), (1, 2), (0, 1, 2)])
    # A new draw of a copy is of the same combination.
    assert taken(policy, 4 + (1 << 20), cell) == taken(policy, 4, cell)


def test_trivial_takes_one_step_at_any_strength(cell) -> None:
    policy = Policy((GAMMA, Step("GaussNoise", {"std_range": [0.0, 0.2]})), Mode.TRIVIAL)
    steps = Counter(taken(policy, copy, cell) for copy in range(60))
    assert set(steps) == {(0,), (1,)}
    assert min(steps.values()) > 15
    noise = Policy((Step("GaussNoise", {"std_range": [0.0, 0.2]}),), Mode.TRIVIAL)
    grey = np.full((64, 64, 1), 128, np.uint8)
    spread = [float(np.std(augment(grey, noise, AugmentationKey("s", copy)).pixels)) for copy in range(40)]
    assert min(spread) < 5
    assert max(spread) > 25


@pytest.mark.parametrize("magnitude", [0.0, 0.5, 1.0])
def test_random_takes_so_many_steps_at_one_strength(cell, magnitude: float) -> None:
    policy = Policy((GAMMA, Step("Translate", {"translate_percent": [-0.25, 0.25]})), Mode.RANDOM, draws=3, magnitude=magnitude)
    results = [augment(cell, policy, AugmentationKey("s", copy)) for copy in range(12)]
    assert all(len(result.steps) == 3 for result in results)
    changed = [not np.array_equal(result.pixels, cell) for result in results]
    assert not any(changed) if magnitude == 0 else all(changed)


def test_strength_goes_from_what_changes_nothing_to_an_end_of_the_range() -> None:
    ramp = np.linspace(0, 255, 256).astype(np.uint8).reshape(16, 16, 1)

    def gammas(magnitude: float) -> set[int]:
        policy = Policy((Step("RandomGamma", {"gamma_limit": [50, 200]}),), Mode.RANDOM, draws=1, magnitude=magnitude)
        return {int(augment(ramp, policy, AugmentationKey("s", copy)).pixels[8, 0, 0]) for copy in range(20)}

    weak, strong = gammas(0.2), gammas(1.0)
    assert len(weak) == len(strong) == 2
    assert min(strong) < min(weak) < 128 < max(weak) < max(strong)


def test_modes_are_told_apart_by_the_digest_and_come_back_from_json() -> None:
    policies = [Policy((MIRROR, GAMMA), mode) for mode in Mode]
    policies += [Policy((MIRROR, GAMMA), Mode.RANDOM, draws=3), Policy((MIRROR, GAMMA), Mode.RANDOM, magnitude=0.7)]
    assert len({policy.digest for policy in policies}) == len(policies)
    for policy in policies:
        assert Policy.from_json(policy.to_json()) == policy


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: Policy((MIRROR,) * 11, Mode.POWER), "policy.steps"),
        (lambda: Policy((), Mode.POWER), "policy.steps"),
        (lambda: Policy((MIRROR,), Mode.RANDOM, draws=0), "policy.draws"),
        (lambda: Policy((MIRROR,), Mode.RANDOM, magnitude=1.5), "policy.magnitude"),
        (lambda: Policy((MIRROR,), min_visible_share=-0.1), "policy.min_visible_share"),
        (lambda: Policy((Step("D4", weight=0.0),), Mode.TRIVIAL), "policy.steps"),
    ],
)
def test_policies_that_make_no_sense_are_refused(make, field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        make()
    assert (caught.value.reason, caught.value.field) == ("BAD_POLICY", field)


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_preset_works_on_every_kind_of_pixels(name: str, cell) -> None:
    policy = preset_policy(name, "classification")
    assert policy.name == name
    for pixels in (cell, cell[:, :, :1], cell.astype(np.uint16) * 257, (cell / 255).astype(np.float32), np.repeat(cell, 2, axis=2)):
        made = [augment(pixels, policy, AugmentationKey("s", copy)).pixels for copy in range(5)]
        assert {(one.dtype, one.shape) for one in made} == {(pixels.dtype, pixels.shape)}
        assert len({one.tobytes() for one in made}) >= 3


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_preset_suits_its_task(name: str) -> None:
    for task in ("classification", "detection", "instance_segmentation"):
        policy = preset_policy(name, task)
        check_policy(policy)
        turns = {step.parameters["rotate"] for step in policy.steps if "rotate" in step.parameters}
        assert len(turns) == 1
        assert (turns == {(0.0, 0.0)}) == (task == "detection")
    one_sided = preset_policy(name, task, laterality=True)
    assert one_sided.laterality
    assert not any(find_transform(step.transform).mirrors for step in one_sided.steps)


def test_presets_keep_what_is_a_finding_and_say_why() -> None:
    assert len(MODALITIES) == 9
    for preset in MODALITIES.values():
        assert preset.why
        assert all(reason.why for reason in preset.reasons)
    for name in ("x-ray", "ct", "mr"):
        assert preset_policy(name, "classification").laterality, name
    # Hounsfield units are measurements.
    changing = {"RandomBrightnessContrast", "RandomGamma", "ColorJitter"}
    assert not changing & {step.transform for step in preset_policy("ct", "classification").steps}
    assert preset_policy("default", "classification").digest == default_policy().digest
