"""Several detectors' answers made one, by cases that can be followed by hand."""

from __future__ import annotations

import numpy as np
import pytest

from oteo_automl.predictions.records import ImageRecord, PredictionSet
from oteo_automl.predictions.voting import METHODS, combine, combine_sets
from oteo_core.errors import InvalidArgument
from oteo_core.packages.answers import ClassMap, Detections


def _found(*objects: tuple[float, float, int]) -> Detections:
    """Boxes of 10 x 10 at (x, 0), each with a score and a class."""
    boxes = np.array([[x, 0, x + 10, 10] for x, _, _ in objects], dtype=np.float32).reshape(-1, 4)
    return Detections(boxes, np.array([s for _, s, _ in objects], np.float32), np.array([k for _, _, k in objects], np.int64))


# One object near x = 0 that all three see, one near 50 that two see, one at 90 that one sees; at 0 another class sees something too.
THREE = [
    _found((0, 0.9, 0), (50, 0.6, 0)),
    _found((1, 0.8, 0), (51, 0.7, 0), (0, 0.3, 1)),
    _found((2, 0.5, 0), (90, 0.4, 0)),
]


@pytest.mark.parametrize(
    ("method", "places"),
    [("affirmative", [(0, 0), (51, 0), (90, 0), (0, 1)]), ("consensus", [(0, 0), (51, 0)]), ("unanimous", [(0, 0)])],
)
def test_votes(method: str, places: list[tuple[int, int]]) -> None:
    result = combine(THREE, method)
    assert [(int(box[0]), int(label)) for box, label in zip(result.boxes, result.labels, strict=True)] == places
    assert list(result.scores) == sorted(result.scores, reverse=True)


def test_half_is_no_consensus_of_two_and_one_detector_has_one_vote() -> None:
    twice = _found((0, 0.9, 0), (1, 0.8, 0))
    assert len(combine([twice, Detections()], "consensus").scores) == 0
    assert len(combine([twice, _found((2, 0.3, 0))], "unanimous").scores) == 1


def test_weighted_box_fusion_averages_by_score_and_lowers_what_few_saw() -> None:
    result = combine(THREE, "weighted_box_fusion")
    first = result.boxes[0]
    assert first[0] == pytest.approx((0 * 0.9 + 1 * 0.8 + 2 * 0.5) / 2.2, abs=1e-5)
    assert result.scores[0] == pytest.approx(2.2 / 3, abs=1e-6)
    by_place = {
        round(float(box[0])): float(score)
        for box, score, label in zip(result.boxes, result.scores, result.labels, strict=True)
        if not label
    }
    assert by_place[90] == pytest.approx(0.4 / 3, abs=1e-6)


def test_weights_of_detectors() -> None:
    one, other = _found((0, 0.5, 0)), _found((2, 0.5, 0))
    result = combine([one, other], "weighted_box_fusion", weights=[3, 1])
    assert result.boxes[0, 0] == pytest.approx(0.5)
    assert result.scores[0] == pytest.approx((1.5 + 0.5) / 2 * 2 / 4)


def test_overlap_that_is_asked_for() -> None:
    pair = [_found((0, 0.9, 0)), _found((2, 0.8, 0))]
    assert len(combine(pair, "affirmative", iou=0.5).scores) == 1
    assert len(combine(pair, "affirmative", iou=0.7).scores) == 2


@pytest.mark.parametrize("method", METHODS)
def test_nothing_found_stays_nothing(method: str) -> None:
    assert combine([Detections(), Detections()], method).boxes.shape == (0, 4)


def test_sets_go_by_names_of_images_and_classes() -> None:
    first = PredictionSet("detection", ("a", "b"), [ImageRecord("x"), ImageRecord("y")], [_found((0, 0.9, 0)), _found((5, 0.2, 1))])
    second = PredictionSet(
        "detection", ("b", "a"), [ImageRecord("y"), ImageRecord("x", "x.png", 9, 8)], [_found((5, 0.6, 0)), _found((1, 0.7, 1))]
    )
    result = combine_sets([first, second], "unanimous")
    assert [image.sample for image in result.images] == ["x", "y"]
    assert [result.classes[one.labels[0]] for one in result.answers] == ["a", "b"]
    strict = combine_sets([first, second], "unanimous", score_threshold=0.5)
    assert [len(one.scores) for one in strict.answers] == [1, 0]
    with pytest.raises(InvalidArgument, match="semantic"):
        combine_sets([first, PredictionSet("semantic_segmentation", ("a",), [], [ClassMap(np.zeros((1, 1), np.uint8))])], "consensus")
