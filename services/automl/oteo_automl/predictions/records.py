"""The form of predictions between models and files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oteo_core.errors import InvalidArgument

Floats = NDArray[np.float64]

CLASSES = ("classification", "multi_label_classification")
"""Tasks whose answers are probabilities of the classes."""


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """An image that something was predicted for.

    Parameters
    ----------
    sample
        Its id in the dataset, or its file's name without the ending.
    source_path, group, split
        As in the dataset; empty where not known.
    width, height
        Pixels; 0 where not known.
    """

    sample: str
    source_path: str = ""
    width: int = 0
    height: int = 0
    group: str = ""
    split: str = ""


@dataclass(slots=True)
class PredictionSet:
    """What a model said of images.

    Parameters
    ----------
    task
        A value of `oteo_core.datasets.Task`.
    classes
        Names, in the order of the class numbers.
    images
        N images.
    answers
        One for each: probabilities ``(K,)`` float64 for `CLASSES`; `Detections`, `ClassMap` or `Instances`.
    truths
        What is true of each image, for `CLASSES`: names; empty where not known.
    quantile
        Conformal quantile, for classification; None without one.
    """

    task: str
    classes: tuple[str, ...]
    images: list[ImageRecord]
    answers: list[Any]
    truths: list[tuple[str, ...]] = field(default_factory=list)
    quantile: float | None = None


def unreadable(what: str, why: object) -> InvalidArgument:
    """Make the error of a file that cannot be read."""
    return InvalidArgument(f"{what} cannot be read as predictions: {why}", reason="UNREADABLE_PREDICTIONS", field="inputs")


def number_classes(names: Sequence[str], known: Sequence[str] | None, what: str) -> dict[str, int]:
    """Number the classes of a file: those that are known first, in their order; with `known`, others are refused."""
    if known is None:
        return {name: index for index, name in enumerate(dict.fromkeys(names))}
    numbers = {name: index for index, name in enumerate(known)}
    strange = sorted(set(names) - set(numbers))
    if strange:
        raise unreadable(what, f"it has classes {', '.join(strange)}, which are not among {', '.join(known)}")
    return numbers
