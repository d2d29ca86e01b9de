"""How far two models' answers for one image agree, and what many such figures say together."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from oteo_core.evaluation.bootstrap import LEVEL, wilson_interval
from oteo_core.evaluation.detection import match_boxes
from oteo_core.evaluation.semantic import SemanticScorer
from oteo_core.packages.answers import ClassMap, Detections, TrueBoxes
from oteo_gateway.prediction.answer import ClassAnswer
from oteo_gateway.prediction.regions import ObjectAnswer, RegionAnswer

_IOU = np.array([0.5])
_STEPS = 8
"""Bins of ratios for each doubling: a bin is 9 % wide."""
_FARTHEST = 10 * _STEPS


def agreement(given: ClassAnswer | ObjectAnswer | RegionAnswer, other: ClassAnswer | ObjectAnswer | RegionAnswer) -> float:
    """Give how far two answers for one image agree, 0 to 1.

    Classification: 1 where both decide alike (with several labels: on the same classes). Detection: F1 of matching boxes of equal class at an IoU of .5.
    Segmentation: Dice, the mean over the classes that either found. Where both found nothing they agree.

    Raises
    ------
    ValueError
        Answers of different tasks, or about images of different sizes.
    """
    if isinstance(given, ClassAnswer) and isinstance(other, ClassAnswer):
        return float((given.decision, set(given.decisions)) == (other.decision, set(other.decisions)))
    if isinstance(given, ObjectAnswer) and isinstance(other, ObjectAnswer):
        return _boxes(given, other)
    if isinstance(given, RegionAnswer) and isinstance(other, RegionAnswer):
        return _regions(given, other)
    raise ValueError(f"a {type(given).__name__} cannot be compared with a {type(other).__name__}")


def _boxes(given: ObjectAnswer, other: ObjectAnswer) -> float:
    total = len(given.objects) + len(other.objects)
    if not total:
        return 1.0
    names = {name: number for number, name in enumerate(sorted({name for name, _, _ in (*given.objects, *other.objects)}))}

    def arrays(answer: ObjectAnswer) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
        boxes = np.array([box for _, _, box in answer.objects], dtype=np.float32).reshape(-1, 4)
        scores = np.array([score for _, score, _ in answer.objects], dtype=np.float32)
        return boxes, scores, np.array([names[name] for name, _, _ in answer.objects], dtype=np.int64)

    true_boxes, _, true_labels = arrays(given)
    matched = match_boxes([TrueBoxes(true_boxes, true_labels)], [Detections(*arrays(other))], len(names), by_size=False, thresholds=_IOU)
    return 2.0 * sum(int(images[0].hits.sum()) for images in matched) / total


def _regions(given: RegionAnswer, other: RegionAnswer) -> float:
    if (given.width, given.height) != (other.width, other.height):
        raise ValueError(f"answers of {given.width} x {given.height} and of {other.width} x {other.height} pixels")
    maps = [_map(answer) for answer in (given, other)]
    classes = max(int(one.max(initial=0)) for one in maps)
    if not classes:
        return 1.0
    scorer = SemanticScorer([ClassMap(maps[0])], [ClassMap(maps[1])], classes, surface=False)
    values = scorer.score(np.ones((1, 1)))[0]
    return next(float(value) for column, value in zip(scorer.columns, values, strict=True) if column.name == "dice" and column.index < 0)


def _map(answer: RegionAnswer) -> NDArray[np.uint8]:
    """Give each pixel's class number from 1, 0 background."""
    if answer.object_classes is None:
        return answer.labels.astype(np.uint8)
    numbers = np.array([0, *(number + 1 for number in answer.object_classes)], dtype=np.uint8)
    found: NDArray[np.uint8] = numbers[answer.labels]
    return found


@dataclass(slots=True)
class Sums:
    """What is known of a shadow's answers, in a form that several gateways add up.

    Attributes
    ----------
    images, missed
        Images that both answered; copies that the shadow did not.
    agreed, squares
        Sum of the agreements, and of their squares.
    ratios
        How often the ratio of times fell into a bin: the bin's number is the ratio's binary logarithm in eighths, rounded.
    """

    images: int = 0
    missed: int = 0
    agreed: float = 0.0
    squares: float = 0.0
    ratios: dict[int, int] = field(default_factory=dict)

    def compared(self, value: float, ratio: float) -> None:
        """Count an image: its agreement, and the shadow's time over the other's."""
        self.images += 1
        self.agreed += value
        self.squares += value * value
        place = round(math.log2(max(ratio, 1e-9)) * _STEPS)
        place = min(max(place, -_FARTHEST), _FARTHEST)
        self.ratios[place] = self.ratios.get(place, 0) + 1

    def add(self, other: Sums) -> None:
        """Add what somebody else counted."""
        self.images += other.images
        self.missed += other.missed
        self.agreed += other.agreed
        self.squares += other.squares
        for place, count in other.ratios.items():
            self.ratios[place] = self.ratios.get(place, 0) + count

    def interval(self) -> tuple[float, float, float]:
        """Give mean agreement and the ends of its 95 % interval.

        Shares (every image 0 or 1) and means without any spread: Wilson's. Other means: Student's. Images are taken to be independent: many of one patient
        make the interval too narrow. Without images all of 0 to 1 is possible.
        """
        if not self.images:
            return 0.0, 0.0, 1.0
        mean = self.agreed / self.images
        spread = self.squares / self.images - mean * mean
        if spread < 1e-12 or math.isclose(self.squares, self.agreed):
            found = wilson_interval(mean, self.images)
            return mean, found.lower, found.upper
        if self.images < 2:
            return mean, 0.0, 1.0
        error = math.sqrt(spread / (self.images - 1))
        reach = float(stdtrit(self.images - 1, (1 + LEVEL) / 2)) * error
        return mean, max(0.0, mean - reach), min(1.0, mean + reach)

    def median_ratio(self) -> float:
        """Give the median of the ratios, within the 9 % of a bin; 0 without images."""
        half, below = sum(self.ratios.values()) / 2, 0
        for place, count in sorted(self.ratios.items()):
            if below + count >= half:
                return float(2.0 ** ((place - 0.5 + (half - below) / count) / _STEPS))
            below += count
        return 0.0
