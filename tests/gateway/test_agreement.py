"""How far two answers agree, and what many such figures say together."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from scipy.stats import t

from oteo_core.evaluation.bootstrap import wilson_interval
from oteo_gateway.prediction.agreement import Sums, agreement
from oteo_gateway.prediction.answer import ClassAnswer
from oteo_gateway.prediction.regions import ObjectAnswer, RegionAnswer


def decided(decision: str, *labels: str) -> ClassAnswer:
    return ClassAnswer(scores=(), prediction_set=(), coverage=0.0, decision=decision, refer=False, decisions=labels)


def boxes(*objects: tuple[str, float, tuple[float, float, float, float]]) -> ObjectAnswer:
    return ObjectAnswer(objects)


def regions(*masks: tuple[int, np.ndarray], size: tuple[int, int] = (12, 8), instances: bool = False) -> RegionAnswer:
    """An answer with masks of class numbers from 0; of objects where `instances` is set."""
    labels = np.zeros((size[1], size[0]), dtype=np.uint8)
    for place, (number, drawn) in enumerate(masks, start=1):
        labels[drawn > 0] = place if instances else number + 1
    classes = tuple(number for number, _ in masks) if instances else None
    return RegionAnswer((), len(masks), b"", *size, labels, classes)


def mask(left: int, top: int, right: int, bottom: int) -> np.ndarray:
    drawn = np.zeros((8, 12), dtype=np.uint8)
    cv2.rectangle(drawn, (left, top), (right - 1, bottom - 1), 1, -1)
    return drawn


def test_equal_decisions_agree() -> None:
    assert agreement(decided("red"), decided("red")) == 1.0
    assert agreement(decided("red"), decided("blue")) == 0.0
    assert agreement(decided("", "a", "b"), decided("", "b", "a")) == 1.0
    assert agreement(decided("", "a", "b"), decided("", "a")) == 0.0
    assert agreement(decided("", *()), decided("")) == 1.0


def test_boxes_agree_by_f1_at_half_overlap() -> None:
    first, second = ("cell", 0.9, (0.0, 0.0, 10.0, 10.0)), ("cell", 0.8, (50.0, 0.0, 60.0, 10.0))
    near = ("cell", 0.4, (1.0, 0.0, 11.0, 10.0))
    assert agreement(boxes(first, second), boxes(first, second)) == 1.0
    assert agreement(boxes(first, second), boxes(near)) == pytest.approx(2 / 3)
    assert agreement(boxes(first), boxes(("clot", 0.9, (0.0, 0.0, 10.0, 10.0)))) == 0.0
    assert agreement(boxes(first), boxes(("cell", 0.9, (6.0, 0.0, 16.0, 10.0)))) == 0.0
    assert agreement(boxes(first), boxes()) == 0.0
    assert agreement(boxes(), boxes()) == 1.0
    # One box cannot be found twice.
    assert agreement(boxes(first), boxes(near, ("cell", 0.3, (0.0, 1.0, 10.0, 11.0)))) == pytest.approx(2 / 3)


def test_regions_agree_by_mean_dice_of_the_classes_that_either_found() -> None:
    left, shifted, other = mask(0, 0, 4, 4), mask(2, 0, 6, 4), mask(8, 4, 12, 8)
    assert agreement(regions((0, left)), regions((0, left))) == 1.0
    assert agreement(regions((0, left)), regions((0, shifted))) == pytest.approx(2 * 8 / 32)
    assert agreement(regions((0, left), (2, other)), regions((0, left))) == pytest.approx(0.5)
    # Objects count by their classes: which is numbered first does not matter.
    one, two = regions((1, left), (0, other), instances=True), regions((0, other), (1, left), instances=True)
    assert agreement(one, two) == 1.0
    assert agreement(one, regions((0, left), (0, other), instances=True)) == pytest.approx((0.0 + 2 * 16 / 48) / 2)
    assert agreement(regions(), regions()) == 1.0
    assert agreement(regions((0, left)), regions()) == 0.0
    with pytest.raises(ValueError, match="pixels"):
        agreement(regions(), regions(size=(8, 12)))
    with pytest.raises(ValueError, match="ClassAnswer"):
        agreement(decided("a"), boxes())


def test_interval_of_a_share_is_wilsons_and_of_a_mean_students() -> None:
    share, mean = Sums(), Sums()
    values = np.random.default_rng(3).uniform(0.5, 1.0, 40)
    for value in [1.0] * 37 + [0.0] * 3:
        share.compared(value, 1.0)
    for value in values:
        mean.compared(float(value), 1.0)
    due = wilson_interval(37 / 40, 40)
    assert share.interval() == pytest.approx((37 / 40, due.lower, due.upper))
    lower, upper = t.interval(0.95, 39, loc=values.mean(), scale=values.std(ddof=1) / np.sqrt(40))
    assert mean.interval() == pytest.approx((values.mean(), lower, upper))
    alike = Sums()
    for _ in range(10):
        alike.compared(1.0, 1.0)
    assert alike.interval()[1] == pytest.approx(wilson_interval(1.0, 10).lower)
    assert Sums().interval() == (0.0, 0.0, 1.0)
    one = Sums()
    one.compared(0.7, 1.0)
    assert one.interval()[1] < 0.7 < one.interval()[2]


def test_sums_of_two_gateways_are_the_sums_of_one_and_the_median_is_within_a_bin() -> None:
    ratios = np.exp(np.random.default_rng(5).normal(0.4, 0.5, 501))
    whole, first, second = Sums(), Sums(), Sums()
    for number, ratio in enumerate(ratios):
        whole.compared(0.5, float(ratio))
        (first if number % 2 else second).compared(0.5, float(ratio))
    first.add(second)
    assert first == whole
    assert whole.median_ratio() == pytest.approx(float(np.median(ratios)), rel=0.09)
    assert Sums().median_ratio() == 0.0
    extreme = Sums()
    extreme.compared(1.0, 0.0)
    assert 0 < extreme.median_ratio() < 0.01
