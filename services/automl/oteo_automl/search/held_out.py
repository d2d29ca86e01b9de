"""What a classifier's trial said of the held-out images, from its model's file or from what was chosen."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from oteo_automl.search.classification_pieces import Problem
from oteo_automl.search.intervals import HeldOut
from oteo_automl.search.pieces import model_name
from oteo_automl.search.result import FittedCandidate
from oteo_core.evaluation.calibration import fit_temperature, softmax
from oteo_core.evaluation.label_calibration import choose_thresholds, fit_labels, sigmoid
from oteo_core.packages import TrialRecord

if TYPE_CHECKING:
    from oteo_automl.search.classification_work import Settings


def held_out_answers(
    problem: Problem, settings: Settings, fitted: Sequence[FittedCandidate | None]
) -> Callable[[TrialRecord], HeldOut | None]:
    """Give what `oteo_automl.search.intervals.add_intervals` asks for the answers on the images that all candidates are compared on.

    `fitted` are models that are loaded already, such as a mixture, whose answers lie nowhere else. Answers are calibrated as
    `oteo_automl.search.scoring.score` does it. Where nothing was held out there are none: an interval of figures of the training images themselves
    would promise what nobody knows.
    """
    known = {one.trial_id: one for one in fitted if one is not None}
    row_of = {identity: row for row, identity in enumerate(settings.ids)}

    def answers(record: TrialRecord) -> HeldOut | None:
        if problem.fold_count == 0:
            return None
        chosen = known.get(record.id)
        if chosen is not None:
            rows = np.array([row_of[identity] for identity in chosen.validation.sample_ids], dtype=np.int64)
            logits: NDArray[Any] = chosen.validation.logits
        else:
            stored = problem.checkpoints.load(model_name(record.id))
            if stored is None:
                return None
            # The answers alone: the network is not built.
            content = torch.load(io.BytesIO(stored), map_location="cpu", weights_only=True)
            rows, logits = content["rows"].numpy(), content["logits"].numpy()
        compared = np.isin(rows, problem.held_out)
        return _calibrated(problem.labels[rows[compared]], logits[compared], [settings.groups[int(row)] for row in rows[compared]])

    return answers


def _calibrated(labels: NDArray[np.int64], logits: NDArray[Any], groups: Sequence[str]) -> HeldOut | None:
    if not len(labels):
        return None
    if labels.ndim == 2:
        probabilities = sigmoid(fit_labels(logits, labels).apply(logits))
        return HeldOut(list(labels == 1), list(probabilities), groups, choose_thresholds(labels, probabilities).tolist())
    return HeldOut(labels.tolist(), list(softmax(logits, fit_temperature(logits, labels).temperature)), groups)
