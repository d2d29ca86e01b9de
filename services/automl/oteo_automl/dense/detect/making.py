"""The detectors that can be tried, and how they are made of a dataset's facts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from oteo_automl.dense.base import DenseCandidate
from oteo_automl.dense.detect.centre import CentreDetector
from oteo_automl.dense.detect.detector import Detector

CANDIDATES: tuple[DenseCandidate, ...] = (
    DenseCandidate("centre-resnet18", "resnet18", "centre", half=True, cost=1.0),
    DenseCandidate("centre-mobilenetv4_conv_small", "mobilenetv4_conv_small", "centre", cost=0.6),
    DenseCandidate("centre-resnet50d", "resnet50d", "centre", large=True, half=True, cost=2.6),
)

_CELLS = 3.0
"""Cells that the shorter side of a small object shall cover."""


def make_detector(
    candidate: DenseCandidate, classes: int, channels: int, mean: Sequence[float], spread: Sequence[float], facts: Mapping[str, Any]
) -> Detector:
    """Make an untrained detector.

    Raises
    ------
    KeyError
        A head that is not known.
    """
    side = [float(value) for value in facts["side"]]
    if candidate.head == "centre":
        # Where even small objects cover many cells, a coarser heatmap tells them apart as well, in half the time.
        stride = 8 if float(facts["short"][0]) >= 2 * 8 * _CELLS else 4
        return CentreDetector(candidate.architecture, classes, channels, mean, spread, stride=stride, base=max(2.0, side[2] / 2))
    raise KeyError(candidate.head)
