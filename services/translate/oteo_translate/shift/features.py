"""From images and a model's outputs to the rows that are tested."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oteo_core.packages.reference import image_statistics, statistic_names
from oteo_translate.shift.sides import Floats

INTENSITY, OUTPUT, EMBEDDING = "intensity", "output", "embedding"
_DETECTIONS = 10


@dataclass(frozen=True, slots=True)
class Feature:
    """One way to look at images.

    Parameters
    ----------
    name
        `INTENSITY`, `OUTPUT` or `EMBEDDING`.
    home, shifted
        ``(N, D)`` and ``(M, D)``.
    columns
        D names; empty where they have none.
    """

    name: str
    home: Floats
    shifted: Floats
    columns: tuple[str, ...] = ()


def intensity(images: Sequence[NDArray[Any]] | NDArray[Any], check: Callable[[], None] = lambda: None) -> Floats:
    """Measure prepared images ``(N, H, W, C)``: `oteo_core.packages.reference.image_statistics` of each, ``(N, 2 C + 7)``."""
    rows = []
    for index in range(len(images)):
        if index % 32 == 0:
            check()
        rows.append(image_statistics(np.asarray(images[index])))
    return np.array(rows, dtype=np.float64)


def intensity_columns(channels: int) -> tuple[str, ...]:
    """Name the columns of `intensity`."""
    return tuple(statistic_names(channels))


def pooled_outputs(task: str, outputs: Mapping[str, NDArray[Any]], classes: Sequence[str]) -> tuple[Floats, tuple[str, ...]]:
    """Bring a model's outputs to a short row for each image.

    Parameters
    ----------
    task
        The model's.
    outputs
        Of the served graph, by name, ``(N, ...)``.
    classes
        The model's.

    Returns
    -------
    ndarray, tuple of str
        ``(N, D)`` and names. Whole images: the probabilities and the largest of them. Maps: mean and spread over pixels of each
        class's probability and of what else there is, and the mean entropy. Objects: scores of the ten likeliest, their sum, and expected objects of
        each class.
    """
    columns: list[Floats] = []
    names: list[str] = []

    def add(name: str, values: NDArray[Any]) -> None:
        columns.append(np.asarray(values, dtype=np.float64).reshape(len(values)))
        names.append(name)

    if task in ("classification", "multi_label_classification"):
        chances = outputs["probabilities"]
        for place, name in enumerate(classes):
            add(f"probability of {name}", chances[:, place])
        add("largest probability", chances.max(axis=1))
    elif "scores" in outputs:
        scores = np.asarray(outputs["scores"], dtype=np.float64)
        for place in range(min(_DETECTIONS, scores.shape[1])):
            add(f"score of object {place + 1}", scores[:, place])
        add("sum of scores", scores.sum(axis=1))
        if "classes" in outputs:
            for number, name in enumerate(classes):
                add(f"expected number of {name}", (scores * (outputs["classes"] == number)).sum(axis=1))
    else:
        for output, values in outputs.items():
            if values.dtype.kind != "f":
                continue
            planes = values.reshape(len(values), -1, *values.shape[-2:]) if values.ndim >= 3 else values[:, :, None, None]
            flat = planes.reshape(*planes.shape[:2], -1).astype(np.float64)
            for place in range(flat.shape[1]):
                title = _title(output, place, flat.shape[1], classes)
                add(f"mean of {title}", flat[:, place].mean(axis=1))
                add(f"spread of {title}", flat[:, place].std(axis=1))
            if output == "probabilities" and flat.shape[1] > 1:
                safe = np.clip(flat, 1e-12, 1.0)
                add("entropy", -(safe * np.log(safe)).sum(axis=1).mean(axis=1))
    return np.stack(columns, axis=1), tuple(names)


def _title(output: str, place: int, count: int, classes: Sequence[str]) -> str:
    if output == "probabilities" and count == len(classes) + 1:
        return ("background", *classes)[place]
    if output == "probabilities" and count == len(classes):
        return classes[place]
    return f"{output} {place + 1}" if count > 1 else output
