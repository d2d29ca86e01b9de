"""Which classes an answer says are in an image: what shares of classes in a stream are counted by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oteo_core.packages.answers import ClassMap, Detections, Instances
from oteo_core.packages.decoding.detection import confident


def classes_there(answer: Detections | ClassMap | Instances, classes: int, decoding: Mapping[str, Any]) -> NDArray[np.bool_]:
    """Tell which of K classes an answer has, ``(K,)`` bool; of a detection those whose objects reach the package's thresholds."""
    there = np.zeros(classes + 1, dtype=np.bool_)
    if isinstance(answer, ClassMap):
        numbers = np.unique(answer.labels)
        there[numbers[numbers <= classes]] = True
    else:
        labels = confident(answer, decoding).labels if isinstance(answer, Detections) else answer.labels
        there[np.unique(labels) + 1] = True
    return there[1:]
