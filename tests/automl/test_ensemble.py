"""What is handed over: mixtures that really help, no slower than was asked for, and never more for less."""

from __future__ import annotations

import math
import time

import numpy as np
import torch
from numpy.typing import NDArray

from oteo_automl.search.ensemble import MOST_PARTS, Choice, Member, choose, front, halves, measure_latency, mix, price, select

COUNT, CLASSES = 300, 3


def _truth(seed: int = 0) -> NDArray[np.int64]:
    return np.random.default_rng(seed).integers(0, CLASSES, COUNT)


def _answers(truth: NDArray[np.int64], skill: float, seed: int) -> NDArray[np.float64]:
    """Give log-probabilities of a model that errs on its own."""
    logits = np.random.default_rng(seed).normal(0, 1, (len(truth), CLASSES))
    logits[np.arange(len(truth)), truth] += skill
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def _loss(truth: NDArray[np.int64]):  # type: ignore[no-untyped-def]
    def loss(answers: NDArray[np.float64], rows: NDArray[np.int64]) -> float:
        shifted = answers - np.log(np.exp(answers).sum(axis=1, keepdims=True))
        return float(-shifted[np.arange(len(rows)), truth[rows]].mean())

    return loss


def _groups() -> NDArray[np.int64]:
    return np.arange(COUNT) // 2


def _losses(members: list[Member], truth: NDArray[np.int64]) -> list[float]:
    return [_loss(truth)(member.answers, np.arange(COUNT)) for member in members]


def test_models_that_err_apart_are_mixed_and_the_mixture_is_better_on_new_samples() -> None:
    truth, new = _truth(0), _truth(1)
    members = [Member(f"t{place}", _answers(truth, 1.0, 10 + place), 0.01) for place in range(4)]
    fresh = [Member(f"t{place}", _answers(new, 1.0, 90 + place), 0.01) for place in range(4)]
    mixture = select(members, _loss(truth), _groups(), seed=0)
    assert mixture is not None
    assert abs(sum(mixture.weights) - 1.0) < 1e-9
    chosen = choose(members, mixture, _losses(members, truth))
    assert chosen == mixture
    alone = _loss(new)(fresh[0].answers, np.arange(COUNT))
    assert _loss(new)(mix(fresh, mixture.parts, mixture.weights), np.arange(COUNT)) < 0.9 * alone


def test_a_model_that_knows_nothing_or_has_failed_is_not_mixed_in() -> None:
    truth = _truth()
    broken = np.full((COUNT, CLASSES), np.nan)
    members = [
        Member("good", _answers(truth, 2.0, 1), 0.01),
        Member("other", _answers(truth, 2.0, 2), 0.01),
        Member("noise", _answers(truth, 0.0, 3), 0.01),
        Member("broken", broken, 0.01),
    ]
    mixture = select(members, _loss(truth), _groups(), seed=0)
    assert mixture is not None
    assert set(mixture.parts) == {0, 1}


def test_luck_on_the_validation_part_is_not_taken_for_a_gain() -> None:
    # Forty models of equal worth that err alike: mixing them brings nothing.
    truth = _truth()
    base = _answers(truth, 1.5, 1)
    rng = np.random.default_rng(5)
    members = [Member(f"t{place}", base + rng.normal(0, 0.02, base.shape), 0.01) for place in range(12)]
    mixture = select(members, _loss(truth), _groups(), seed=0)
    assert len(choose(members, mixture, _losses(members, truth)).parts) == 1


def test_the_longest_time_at_inference_is_kept() -> None:
    truth = _truth()
    members = [
        Member("slow", _answers(truth, 3.0, 1), 0.100),
        Member("middle", _answers(truth, 2.0, 2), 0.030),
        Member("quick", _answers(truth, 1.8, 3), 0.010),
    ]
    losses = _losses(members, truth)
    for limit, places in ((math.inf, {0, 1, 2}), (0.05, {1, 2}), (0.035, {1, 2}), (0.02, {2}), (0.001, {2})):
        mixture = select(members, _loss(truth), _groups(), seed=0, limit=limit)
        assert mixture is None or mixture.latency <= limit
        chosen = choose(members, mixture, losses, limit=limit)
        assert set(chosen.parts) <= places
        # Where none keeps it there is an answer all the same: the quickest.
        assert chosen.latency <= max(limit, 0.010)


def test_twice_the_time_must_bring_something() -> None:
    members = [Member("quick", np.zeros((4, 2)), 0.010), Member("slow", np.zeros((4, 2)), 0.020)]
    assert choose(members, None, [0.500, 0.499]).parts == (0,)
    assert choose(members, None, [0.500, 0.450]).parts == (1,)
    # Scores are losses below zero.
    assert choose(members, None, [-0.900, -0.901]).parts == (0,)
    assert choose(members, None, [-0.900, -0.930]).parts == (1,)
    # Nobody feels the difference between one millisecond and a half.
    assert price(0.5, 0.001, 0.0005) == 0.5
    worthless = Choice((0, 1), (0.5, 0.5), 0.4985, 0.030, 0.05)
    assert choose(members, worthless, [0.500, 0.499]).parts == (0,)


def test_the_front_is_what_nothing_else_beats() -> None:
    points = [(0.5, 0.01), (0.4, 0.02), (0.45, 0.03), (0.3, 0.05), (math.inf, 0.001), (0.5, 0.02)]
    assert front(points) == [True, True, False, True, False, False]


def test_few_samples_and_few_parts() -> None:
    truth = _truth()
    few = [Member(f"t{place}", _answers(truth, 1.0, place)[:10], 0.01) for place in range(3)]
    assert select(few, _loss(truth), np.arange(10), seed=0) is None
    many = [Member(f"t{place}", _answers(truth, 1.0, place), 0.01) for place in range(10)]
    mixture = select(many, _loss(truth), _groups(), seed=0)
    assert mixture is not None
    assert 2 <= len(mixture.parts) <= MOST_PARTS
    assert select(many, _loss(truth), _groups(), seed=0) == mixture


def test_the_time_of_a_model_is_measured() -> None:
    class Sleepy(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            time.sleep(0.004)
            return image

    assert measure_latency(Sleepy().eval(), np.zeros((8, 8, 3), np.uint8), runs=3) >= 0.004


def test_the_mean_of_two_that_err_apart_is_taken_unless_the_samples_speak_surely_against_it() -> None:
    truth = np.random.default_rng(5).integers(0, 3, 42)
    alike = halves(_answers(truth, 1.5, 1), _answers(truth, 1.5, 2), truth, np.arange(42))
    assert alike is not None
    assert alike > 0.05
    # What errs like the first and more so brings nothing: on some dozen samples that may be chance, on thousands it is not.
    for count, taken in ((42, True), (4000, False)):
        many = np.random.default_rng(5).integers(0, 3, count)
        first = _answers(many, 2.0, 1)
        worse = first + np.random.default_rng(2).normal(0, 0.5, first.shape)
        assert (halves(first, worse, many, np.arange(count)) is not None) == taken


def test_no_mean_of_two_that_err_alike_for_more_time() -> None:
    truth = np.random.default_rng(5).integers(0, 3, 42)
    one = _answers(truth, 1.5, 1)
    assert halves(one, one, truth, np.arange(42), cost=0.02) is None


def test_no_mean_with_a_model_that_has_learnt_little() -> None:
    truth = np.random.default_rng(5).integers(0, 3, 20)
    assert halves(_answers(truth, 2.0, 1), _answers(truth, 0.1, 2), truth, np.arange(20)) is None


def test_the_mean_of_two_for_several_labels() -> None:
    truth = np.random.default_rng(6).integers(0, 2, (60, 4))
    rng = np.random.default_rng(7)
    first, second = (rng.normal(0, 1, truth.shape) + 2.0 * truth - 1.0 for _ in range(2))
    gain = halves(first, second, truth, np.arange(60))
    assert gain is not None
    assert gain > 0.05
    assert halves(first, rng.normal(0, 1, truth.shape), truth, np.arange(60)) is None
