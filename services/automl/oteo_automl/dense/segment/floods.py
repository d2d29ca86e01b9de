"""What of a watershed network is exported, and its thresholds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from oteo_automl.evaluation.instances import instance_scores
from oteo_core.packages.answers import Instances
from oteo_core.packages.decoding.instances import WATERSHED, described, selected, watershed_objects

_LEAST_GAIN = 0.002


class ServedWatershed(torch.nn.Module):
    """``probabilities`` ``(N, K + 1, H, W)`` after temperature and ``heights`` ``(N, H, W)`` of 0 to 1, from a network with heights last."""

    temperature: torch.Tensor

    def __init__(self, maps: torch.nn.Module, temperature: float) -> None:
        super().__init__()
        self.maps = maps
        self.register_buffer("temperature", torch.tensor(float(temperature), dtype=torch.float32))

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Give probabilities and heights."""
        outputs = self.maps(image)
        return torch.softmax(outputs[:, :-1] / self.temperature, dim=1), torch.sigmoid(outputs[:, -1])


def tune_watershed(
    probabilities: Sequence[NDArray[np.float32]],
    heights: Sequence[NDArray[np.float32]],
    truths: Sequence[Instances],
    classes: int,
    median_area: float,
) -> dict[str, Any]:
    """Find the thresholds that give the best panoptic quality on held-out images, one after the other.

    Parameters
    ----------
    probabilities, heights
        ``(K + 1, h, w)`` and ``(h, w)`` of each image in the prepared geometry, without what letterboxing added.
    truths
        Objects in the same geometry.
    classes
        K.
    median_area
        Of an object, pixels.

    Returns
    -------
    dict
        As `decode_instances` takes it.
    """
    settings: dict[str, Any] = dict(WATERSHED) | {"smallest": float(max(3.0, 0.05 * median_area))}

    def figure(tried: dict[str, Any]) -> float:
        found = []
        for probability, height in zip(probabilities, heights, strict=True):
            one = described(watershed_objects(1.0 - probability[0], height, tried), probability)
            found.append(selected(one, one.scores >= tried["score"]))
        return instance_scores(truths, found, classes)["pq"]

    best = figure(settings)
    choices: tuple[tuple[str, tuple[float, ...]], ...] = (
        ("marker", (0.3, 0.4, 0.6, 0.7, 0.8)),
        ("foreground", (0.35, 0.65)),
        ("smooth", (0.7, 1.5)),
        ("smallest", (0.02 * median_area, 0.15 * median_area, 0.3 * median_area)),
        ("score", (0.6, 0.75)),
    )
    for name, values in choices:
        kept = settings
        for value in values:
            tried = kept | {name: float(value)}
            found = figure(tried)
            if found > best + _LEAST_GAIN:
                settings, best = tried, found
    return settings


def pq_by_image(found: Sequence[Instances], truths: Sequence[Instances], classes: int) -> NDArray[np.float64]:
    """Give the panoptic quality of each image; NaN where it is not defined."""
    return np.array(
        [
            instance_scores([truth], [one], classes)["pq"] if len(truth.labels) or len(one.labels) else np.nan
            for truth, one in zip(truths, found, strict=True)
        ]
    )
