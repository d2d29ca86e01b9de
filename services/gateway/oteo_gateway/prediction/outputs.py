"""Which outputs each task's graph has, and whether an answer is one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oteo_core.errors import Internal
from oteo_core.images import InputPolicy
from oteo_core.packages import ModelPackage
from oteo_core.packages.translators import TRANSLATED

OUTPUTS: dict[str, tuple[str, ...]] = {
    "classification": ("probabilities",),
    "multi_label_classification": ("probabilities",),
    "detection": ("boxes", "scores", "classes"),
    "semantic_segmentation": ("probabilities",),
    # All: what is needed besides the probabilities depends on how its objects are found.
    "instance_segmentation": (),
}
"""Outputs that an answer is made of, by task; none: all that the model has. Other tasks are not served."""

CLASSES = ("classification", "multi_label_classification")
"""Tasks that say something of the whole image."""

ATTENTION = "attention"
"""Map of what a classifier looked at, ``(N, h, w)`` float32 of 0 to 1; not every model has it."""


def check_outputs(package: ModelPackage, outputs: Mapping[str, NDArray[Any]]) -> None:
    """Refuse what is no answer for one image.

    Raises
    ------
    Internal
        ``BAD_MODEL_OUTPUT``: an output is missing, of another shape than the package says, or not finite.
    """
    count, policy = len(package.classes), package.input
    needed = OUTPUTS[package.task] or ("probabilities",)
    missing = [name for name in needed if name not in outputs]
    if missing:
        raise Internal(f"{package.name} answered without {', '.join(missing)}.", reason="BAD_MODEL_OUTPUT")
    planes = (1, count + 1, policy.height, policy.width)
    rows = outputs["scores"].shape[-1:] if package.task == "detection" else ()
    wanted: dict[str, tuple[int, ...]] = {
        "classification": {"probabilities": (1, count)},
        "multi_label_classification": {"probabilities": (1, count)},
        "detection": {"boxes": (1, *rows, 4), "scores": (1, *rows), "classes": (1, *rows)},
        "semantic_segmentation": {"probabilities": planes},
        "instance_segmentation": {"probabilities": planes},
    }[package.task]
    for name, shape in wanted.items():
        values = outputs[name]
        if values.shape != shape:
            raise Internal(f"{package.name} answered {name} of shape {values.shape}, not {shape}.", reason="BAD_MODEL_OUTPUT")
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise Internal(f"{package.name} answered {name} with numbers that are not finite.", reason="BAD_MODEL_OUTPUT")
    if package.task == "detection" and (outputs["classes"][outputs["scores"] > 0] >= count).any():
        raise Internal(f"{package.name} answered with a class number over {count - 1}.", reason="BAD_MODEL_OUTPUT")


def check_translated(translator: str, policy: InputPolicy, outputs: Mapping[str, NDArray[Any]]) -> None:
    """Refuse what is no translation of one image.

    Raises
    ------
    Internal
        ``BAD_MODEL_OUTPUT``: no image of the shape and type that the model behind it takes.
    """
    values = outputs.get(TRANSLATED)
    wanted = (1, policy.height, policy.width, policy.channels)
    if values is None or values.shape != wanted or values.dtype != np.dtype(policy.dtype):
        found = "nothing" if values is None else f"{values.dtype} of shape {values.shape}"
        raise Internal(f"{translator} gave {found}, not {policy.dtype} of shape {wanted}.", reason="BAD_MODEL_OUTPUT")
