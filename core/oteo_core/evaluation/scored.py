"""One way to the figures of any task: truths and answers in, a function of image weights out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from oteo_core.evaluation.bootstrap import Floats
from oteo_core.evaluation.classification import OVERALL
from oteo_core.evaluation.classification import Scorer as ClassScorer
from oteo_core.evaluation.detection import ObjectScorer, match_boxes
from oteo_core.evaluation.instances import InstanceScorer
from oteo_core.evaluation.multilabel import MultilabelScorer
from oteo_core.evaluation.semantic import SemanticScorer


@dataclass(frozen=True, slots=True)
class Scored:
    """Answers that were looked at once.

    Parameters
    ----------
    score
        From weights of the images ``(B, N)`` to all figures ``(B, M)``.
    places
        Column of each figure of the whole, by its name.
    """

    score: Callable[[Floats], Floats]
    places: dict[str, int]

    def one(self, name: str) -> Callable[[Floats], Floats]:
        """Give the function of one figure, from weights ``(B, N)`` to ``(B,)``."""
        place = self.places[name]
        return lambda weights: self.score(weights)[:, place]


def score_answers(
    task: str, classes: int, truths: Sequence[Any], answers: Sequence[Any], thresholds: float | Sequence[float] | None = None
) -> Scored:
    """Look at truths and answers of any task.

    Parameters
    ----------
    task
        A value of `oteo_core.datasets.Task`.
    classes
        Number of classes, K.
    truths
        One for each of N images: class numbers (classification), ``(K,)`` bool (multi-label), or the task's form in `oteo_core.packages.answers`.
    answers
        One for each: probabilities ``(K,)``, or the task's form.
    thresholds
        Multi-label: ``(K,)``; detection: one score threshold or one for each class. None: 0.5; where F1 is best.
    """
    if task == "classification":
        scorer = ClassScorer(np.array(truths, dtype=np.int64), np.stack(answers))
        return Scored(scorer.score, {name: place for place, name in enumerate(OVERALL)})
    made: Any
    if task == "multi_label_classification":
        several = None if thresholds is None else np.broadcast_to(np.asarray(thresholds, dtype=np.float64), (classes,)).tolist()
        made = MultilabelScorer(np.stack(truths), np.stack(answers), several)
    elif task == "detection":
        made = ObjectScorer(match_boxes(truths, answers, classes, by_size=False), thresholds)
    elif task == "semantic_segmentation":
        made = SemanticScorer(truths, answers, classes, surface=False)
    else:
        made = InstanceScorer(truths, answers, classes, by_size=False)
    return Scored(made.score, {column.name: place for place, column in enumerate(made.columns) if column.index < 0})
