"""Which boxes of one image are which: for pictures, and for who is taken for whom."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from oteo_core.packages.answers import Detections, TrueBoxes
from oteo_core.packages.decoding.detection import inside, overlaps

_OVERLAP = 0.5


class BoxPairs:
    """Boxes of one image in pairs at IoU .5: by falling score within the classes, then what is left across them.

    Parameters
    ----------
    truth, answer
        Of the image; the answer by falling score, without what is below the threshold.

    Attributes
    ----------
    true_found, found_right
        For each true box whether it was found, for each box of the answer whether it is right.
    crowd, beside
        True boxes that are crowds, and boxes of the answer that lie in one: neither right nor false.
    mixed
        Pairs (true box, box of the answer) of different classes.
    """

    def __init__(self, truth: TrueBoxes, answer: Detections) -> None:
        self.truth, self.answer = truth, answer
        self.crowd = truth.crowd if len(truth.crowd) else np.zeros(len(truth.labels), dtype=np.bool_)
        self.true_found = np.zeros(len(truth.labels), dtype=np.bool_)
        self.found_right = np.zeros(len(answer.labels), dtype=np.bool_)
        self.beside = np.zeros(len(answer.labels), dtype=np.bool_)
        self.mixed: list[tuple[int, int]] = []
        ious = overlaps(answer.boxes, truth.boxes)
        alike = answer.labels[:, None] == truth.labels[None]
        for index in range(len(answer.labels)):
            fits = np.where(alike[index] & ~self.true_found & ~self.crowd, ious[index], 0.0)
            if len(fits) and fits.max() >= _OVERLAP:
                self.true_found[int(fits.argmax())] = True
                self.found_right[index] = True
            elif (alike[index] & self.crowd & (inside(answer.boxes[index][None], truth.boxes)[0] >= _OVERLAP)).any():
                self.beside[index] = True
        taken = self.true_found | self.crowd
        for index in np.flatnonzero(~self.found_right & ~self.beside).tolist():
            fits = np.where(taken, 0.0, ious[index])
            if len(fits) and fits.max() >= _OVERLAP:
                place = int(fits.argmax())
                taken[place] = True
                self.mixed.append((place, index))

    @property
    def hits(self) -> int:
        """Boxes that are right."""
        return int(self.found_right.sum())

    @property
    def alarms(self) -> int:
        """Boxes that are false."""
        return int((~self.found_right & ~self.beside).sum())

    @property
    def misses(self) -> int:
        """True boxes that were not found."""
        return int((~self.true_found & ~self.crowd).sum())

    @property
    def mistakes(self) -> int:
        """False and missed boxes."""
        return self.alarms + self.misses

    @property
    def f1(self) -> float:
        """F1 of the image; NaN where nothing is there and nothing was found."""
        total = 2 * self.hits + self.mistakes
        return 2 * self.hits / total if total else float("nan")

    @property
    def words(self) -> str:
        """What there is to say of it."""
        return found_words(self.hits, self.hits + self.misses, self.alarms)

    def count(self, confusion: NDArray[np.int64]) -> None:
        """Add to the counts ``(K + 1, K + 1)``: rows truth, columns answer, the last of both "nothing"."""
        nothing = len(confusion) - 1
        for label in self.truth.labels[self.true_found]:
            confusion[label, label] += 1
        for place, index in self.mixed:
            confusion[self.truth.labels[place], self.answer.labels[index]] += 1
        missed, invented = ~self.true_found & ~self.crowd, ~self.found_right & ~self.beside
        for place, index in self.mixed:
            missed[place], invented[index] = False, False
        for label in self.truth.labels[missed]:
            confusion[label, nothing] += 1
        for label in self.answer.labels[invented]:
            confusion[nothing, label] += 1


def found_words(hits: int, there: int, alarms: int) -> str:
    """Say how an image fared."""
    false = f"{alarms} false alarm{'s' if alarms != 1 else ''}" if alarms else "no false alarm"
    return f"finds {hits} of {there}, {false}" if there else f"nothing is there; {false}"
