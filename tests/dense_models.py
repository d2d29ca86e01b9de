"""Untrained detectors and segmentations as they would be served."""

from __future__ import annotations

import torch
from model_packages import CLASSES

from oteo_automl.dense.base import Served, find_task
from oteo_automl.dense.detect.serving import ServedDetector
from oteo_automl.dense.segment.serving import ServedSemantic, ServedWatershed
from oteo_core.images import InputPolicy

POLICY = InputPolicy(width=64, height=32, channels=3, resize="letterbox")
FACTS = {"side": [8.0, 10.0, 12.0], "short": [8.0], "limit": 20}


def served(task: str) -> Served:
    """Give an untrained network of a task as it would be served."""
    torch.manual_seed(3)
    dense, shape = find_task(task), (POLICY.height, POLICY.width)
    network = dense.network(dense.candidates[1], len(CLASSES), 3, [0.5] * 3, [0.25] * 3, FACTS).eval()
    if task == "detection":
        module = ServedDetector(network, 20, 1.2, (5.0, 5.5, 5.2), mirrored=True).eval()
        with torch.no_grad():
            count = int(module(torch.zeros((1, *shape, 3), dtype=torch.uint8))[1].shape[1])
        outputs = (("boxes", (count, 4), "FP32"), ("scores", (count,), "FP32"), ("classes", (count,), "INT64"))
        decoding = {"score_threshold": [0.3, 0.3, 0.4], "nms_iou": 0.3}
        return Served(module, outputs, decoding, tolerance={"boxes": 0.01, "scores": 1e-3}, ranked_by="scores")
    if task == "semantic_segmentation":
        return Served(
            ServedSemantic(network, "all", 1.4).eval(),
            (("label_map", shape, "UINT8"), ("probabilities", (len(CLASSES) + 1, *shape), "FP32")),
            {},
            tolerance={"probabilities": 1e-3},
        )
    return Served(
        ServedWatershed(network, "left-right", 1.4).eval(),
        (("probabilities", (len(CLASSES) + 1, *shape), "FP32"), ("heights", shape, "FP32")),
        {},
        tolerance={"probabilities": 1e-3, "heights": 1e-3},
    )
