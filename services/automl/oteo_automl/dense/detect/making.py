"""The detectors that can be tried, and how they are made of a dataset's facts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from oteo_automl.candidates.weights import HUB_REPOSITORIES
from oteo_automl.dense.base import DenseCandidate
from oteo_automl.dense.detect.centre import CentreDetector
from oteo_automl.dense.detect.detector import Detector
from oteo_automl.dense.detect.fcos import FcosDetector, reach_of
from oteo_automl.dense.detect.two_stage import TwoStageDetector, anchor_aspects, anchor_sizes

CANDIDATES: tuple[DenseCandidate, ...] = (
    DenseCandidate("centre-resnet18", "resnet18", "centre", half=True, cost=1.2),
    DenseCandidate("centre-mobilenetv4_conv_small", "mobilenetv4_conv_small", "centre", half=True, cost=0.85),
    DenseCandidate("fcos-resnet18", "resnet18", "fcos", half=True, cost=1.3),
    DenseCandidate("faster-rcnn-mobilenet", "mobilenetv3_large_100", "faster-rcnn", half=True, rate=5e-4, batch=4, cost=1.7),
    DenseCandidate("rtdetr-r18", "rtdetr_r18vd", "detr", scratch=False, rate=3e-4, batch=4, cost=3.0, hub="PekingU/rtdetr_r18vd"),
    DenseCandidate(
        "rtdetr-r50", "rtdetr_r50vd", "detr", scratch=False, large=True, rate=3e-4, batch=4, cost=9.0, hub="PekingU/rtdetr_r50vd"
    ),
    DenseCandidate("centre-resnet50d", "resnet50d", "centre", large=True, half=True, cost=2.8),
)

HUB_REPOSITORIES.update({one.architecture: one.hub for one in CANDIDATES if one.hub})

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
    if candidate.head == "fcos":
        return FcosDetector(candidate.architecture, classes, channels, mean, spread, reach=reach_of(side))
    if candidate.head == "faster-rcnn":
        aspects = anchor_aspects(facts["aspect"])
        return TwoStageDetector(candidate.architecture, classes, channels, mean, spread, sizes=anchor_sizes(side), aspects=aspects)
    if candidate.head == "detr":
        # Imported here: transformers takes seconds, and most searches have no weights for it.
        from oteo_automl.dense.detect.transformer import TransformerDetector

        width, height = (int(value) for value in facts["input"])
        return TransformerDetector(candidate.architecture, classes, channels, mean, spread, height=height, width=width)
    raise KeyError(candidate.head)


def know_kind(kind: str) -> None:
    """Import the module of a kind of detector, so that `oteo_automl.candidates.modules.build` knows it; the others come with this module."""
    if kind == "transformer-detector":
        from oteo_automl.dense.detect import transformer  # noqa: F401
    elif kind in ("mean-detector", "fused-detector"):
        from oteo_automl.dense.detect import mixing  # noqa: F401
