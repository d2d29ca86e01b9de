"""Thresholds of instance segmentations, found on held-out images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oteo_core.evaluation.bootstrap import generator, resample_weights
from oteo_core.evaluation.instances import InstanceScorer, instance_scores
from oteo_core.images import InputPolicy
from oteo_core.packages.answers import Instances
from oteo_core.packages.decoding.instances import MASKS, decode_instances, described, selected
from oteo_core.packages.decoding.watershed import WATERSHED, watershed_objects

Choices = tuple[tuple[str, tuple[float, ...]], ...]

_LEAST_GAIN = 0.002
_RESAMPLES = 40

_FLOODS: tuple[dict[str, float], ...] = (
    {"distance": 0.0, "prominence": 0.15, "marker": 0.4},
    {"distance": 0.3, "prominence": 0.08},
    {"distance": 0.8, "prominence": 0.02, "marker": 0.1, "smooth": 1.0},
    {"distance": 1.0, "prominence": 0.02, "marker": 0.1, "smooth": 1.0},
)
"""What is tried beside `usual_watershed`: learnt heights alone, other mixtures, distances alone as the classic way has them."""


def usual_watershed(median_area: float) -> dict[str, Any]:
    """Give the settings that networks are compared by before any are tuned: learnt heights and the foreground's distances, both of weight.

    Parameters
    ----------
    median_area
        Of an object, prepared pixels.
    """
    return WATERSHED | {
        "distance": 0.6,
        "radius": max(1.0, float(np.sqrt(median_area / np.pi))),
        "prominence": 0.05,
        "marker": 0.2,
        "smallest": max(3.0, 0.05 * median_area),
    }


def tune_watershed(
    probabilities: Sequence[NDArray[np.float32]],
    heights: Sequence[NDArray[np.float32]],
    truths: Sequence[Instances],
    classes: int,
    median_area: float,
) -> dict[str, Any]:
    """Find what is flooded (learnt heights, the foreground's distances or both) and the thresholds by which objects are best.

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

    Notes
    -----
    Best is the largest mean of panoptic quality and mean average precision: the first counts objects that are told apart, the second also looks at
    outlines. After a short training heights are rough, and distances within the foreground, the classic way, tell touching objects apart better;
    both together did better than either (docs/training.md).
    """

    def find(tried: Mapping[str, Any]) -> list[Instances]:
        found = [described(watershed_objects(1.0 - p[0], h, tried), p) for p, h in zip(probabilities, heights, strict=True)]
        return [selected(one, one.scores >= tried["score"]) for one in found]

    usual = usual_watershed(median_area)
    worth = _worth(truths, classes)
    best, figures = usual, worth(find(usual))
    for flood in _FLOODS:
        tried = usual | flood
        if _gains(found := worth(find(tried)), figures):
            best, figures = tried, found
    prominence, marker = float(best["prominence"]), float(best["marker"])
    choices: Choices = (
        ("prominence", (0.5 * prominence, 2.0 * prominence)),
        ("smooth", (0.0, 1.0)),
        ("marker", (0.5 * marker, 1.4 * marker)),
        ("foreground", (0.42, 0.58)),
        ("smallest", (0.02 * median_area, 0.15 * median_area, 0.3 * median_area)),
        ("score", (0.6, 0.75)),
    )
    return _tuned(find, best, choices, worth, figures)


def tune_masks(
    outputs: Sequence[Mapping[str, NDArray[Any]]], truths: Sequence[Instances], policy: InputPolicy, classes: int, median_area: float
) -> dict[str, Any]:
    """Find the thresholds by which objects are best; see `tune_watershed`.

    Parameters
    ----------
    outputs
        Served outputs of each image, batches of one.
    truths
        Objects in the prepared geometry, -1 where letterboxing added something.
    policy
        Width and height of the input.
    classes
        K.
    median_area
        Of an object, pixels.
    """
    whole = InputPolicy(policy.width, policy.height, policy.channels)

    def find(tried: Mapping[str, Any]) -> list[Instances]:
        return [decode_instances(one, [(policy.width, policy.height)], whole, tried)[0] for one in outputs]

    choices: Choices = (
        ("score", (0.1, 0.2, 0.4, 0.5, 0.6)),
        ("foreground", (0.4, 0.6)),
        ("overlap", (0.3, 0.7)),
        ("smallest", (0.15 * median_area,)),
    )
    usual, worth = MASKS | {"smallest": max(3.0, 0.05 * median_area)}, _worth(truths, classes)
    return _tuned(find, usual, choices, worth, worth(find(usual)))


def _tuned(
    find: Callable[[Mapping[str, Any]], list[Instances]],
    settings: dict[str, Any],
    choices: Choices,
    worth: Callable[[Sequence[Instances]], NDArray[np.float64]],
    best: NDArray[np.float64],
) -> dict[str, Any]:
    """Change one setting after the other where that gains on `best`, which is what the settings are worth as they are."""
    for name, values in choices:
        kept = settings
        for value in values:
            if value == kept[name]:
                continue
            tried = kept | {name: float(value)}
            if _gains(figures := worth(find(tried)), best):
                settings, best = tried, figures
    return settings


def _worth(truths: Sequence[Instances], classes: int) -> Callable[[Sequence[Instances]], NDArray[np.float64]]:
    """Give what answers are worth, ``(1 + resamples,)``: on the images, and on such draws of them as tell how sure that is."""
    drawn = resample_weights(np.arange(len(truths)), generator(0, "thresholds"), _RESAMPLES)
    weights = np.concatenate([np.ones((1, len(truths))), *drawn])

    def worth(found: Sequence[Instances]) -> NDArray[np.float64]:
        scorer = InstanceScorer(truths, found, classes, by_size=False)
        taken = [at for at, column in enumerate(scorer.columns) if column.index < 0 and column.name in ("pq", "map50_95")]
        return np.asarray(np.nan_to_num(scorer.score(weights)[:, taken]).mean(axis=1))

    return worth


def _gains(figures: NDArray[np.float64], before: NDArray[np.float64]) -> bool:
    """Say whether a change is worth its while: it gains more than a little and more than twice its standard error; of a dozen changes tried on twenty images some gain by chance."""
    differences = figures - before
    return bool(differences[0] > max(_LEAST_GAIN, 2.0 * float(differences[1:].std())))


def pq_by_image(found: Sequence[Instances], truths: Sequence[Instances], classes: int) -> NDArray[np.float64]:
    """Give the panoptic quality of each image; NaN where it is not defined."""
    return np.array(
        [
            instance_scores([truth], [one], classes)["pq"] if len(truth.labels) or len(one.labels) else np.nan
            for truth, one in zip(truths, found, strict=True)
        ]
    )
