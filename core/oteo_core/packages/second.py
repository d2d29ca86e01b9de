"""A second network of the same search, beside the model that is served.

Two networks that were trained on the same images, each in its own way, are wrong in different places. On images without labels the share in which they agree
therefore tells how often one of them is right, also where the images have shifted (Jiang, Nagarajan, Baek and Kolter, "Assessing Generalization of SGD via
Disagreement", ICLR 2022; Baek, Jiang, Raghunathan and Kolter, "Agreement-on-the-Line", NeurIPS 2022). It is never served.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from oteo_core.packages.manifest import ModelPackage

SECOND = "second.onnx"
"""The second network's graph, by its path in the package: inputs and outputs are those of the model's own graph."""

_KEY = "second_opinion"


def note_second(package: ModelPackage, candidate: str, trial: str, decoding: Mapping[str, Any]) -> None:
    """Say in a package what its second network is, and how its outputs are read."""
    package.details[_KEY] = {"candidate": candidate, "trial": trial, "decoding": dict(decoding)}


def as_second(package: ModelPackage) -> ModelPackage | None:
    """Give the manifest by which the second network's outputs are read; None where the package has none."""
    said = package.details.get(_KEY)
    if SECOND not in package.files or not isinstance(said, Mapping):
        return None
    return replace(package, candidate=str(said.get("candidate", "")), decoding=dict(said.get("decoding", {})))
