"""What variants of a dense network are judged by: the objective of its answers on held-out images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oteo_automl.candidates.bank import spread
from oteo_automl.dense.base import DenseData, DenseTask
from oteo_automl.packaging.variants import VariantRequest
from oteo_core.images import InputPolicy

_JUDGED = 48
_CALIBRATION = 64


def dense_variants(
    kinds: Sequence[str],
    max_loss: float,
    objective: str,
    task: DenseTask,
    data: DenseData,
    images: NDArray[Any],
    held_out: NDArray[np.int64],
    policy: InputPolicy,
    decoding: Mapping[str, Any],
) -> VariantRequest | None:
    """Give the request of a dense network's variants; None where none are asked for.

    Parameters
    ----------
    kinds, max_loss
        See `VariantRequest`.
    objective
        A name of the task's quick scores; the task's usual one where it is not.
    task, data, images, held_out, policy, decoding
        As they were served: `held_out` are rows of `images`.
    """
    if not kinds:
        return None
    rows = spread(held_out, _JUDGED)
    truths = [data.truths(int(row)) for row in rows]
    sizes = [(int(width), int(height)) for width, height in data.sizes[rows]]

    def figure(outputs: Mapping[str, NDArray[Any]]) -> float:
        found = task.answers(outputs, sizes, policy, decoding)
        scores = task.scores(truths, found, len(data.classes))
        return float(scores.get(objective, scores.get(task.objectives[0], 0.0)))

    calibration = np.ascontiguousarray(images[spread(data.part("train"), _CALIBRATION)])
    return VariantRequest(kinds, objective, figure, calibration, np.ascontiguousarray(images[rows]), max_loss)
