"""Parts of the images that figures can be told apart by: folders, groups, sizes and the like."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np

from oteo_automl.judging.rows import class_names
from oteo_core.datasets import Sample

LEAST_IMAGES = 5
"""So many images a part must have for figures."""

MOST_PARTS = 20
"""With more parts nothing is told apart by itself; asked for, the largest `MOST_ASKED` are given."""

MOST_ASKED = 50


@dataclass(frozen=True, slots=True)
class Part:
    """Some of the images.

    Parameters
    ----------
    kind
        One of `KINDS`.
    value
        Which part, for people.
    rows
        Places of its images.
    """

    kind: str
    value: str
    rows: tuple[int, ...]


def source_folders(samples: Sequence[Sample], task: str) -> list[str]:
    """Give the first folder in which the images' source paths differ."""
    paths = [PurePosixPath(sample.source_path).parent.parts for sample in samples]
    depth = 0
    while all(len(path) > depth for path in paths) and len({path[depth] for path in paths}) == 1:
        depth += 1
    return ["/".join(path[: depth + 1]) for path in paths]


def _terciles(values: Sequence[float], words: Callable[[float], str], unit: str) -> list[str]:
    """Name each value's third; empty names where the values are (nearly) all alike."""
    lower, upper = (float(edge) for edge in np.quantile(np.asarray(values, dtype=np.float64), (1 / 3, 2 / 3), method="inverted_cdf"))
    if min(values) == max(values):
        return [""] * len(values)
    first, second = words(lower), words(upper)
    middle = f"over {first} to {second} {unit}" if upper > lower else ""
    return [f"up to {first} {unit}" if value <= lower else middle if value <= upper else f"over {second} {unit}" for value in values]


def image_sizes(samples: Sequence[Sample], task: str) -> list[str]:
    """Name each image's third by number of pixels."""
    return _terciles([sample.width * sample.height for sample in samples], lambda pixels: f"{pixels / 1e6:.3g}", "megapixels")


def object_counts(samples: Sequence[Sample], task: str) -> list[str]:
    """Name each image's third by number of objects; nothing where the objects are in masks."""
    if task not in ("detection", "instance_segmentation"):
        return [""] * len(samples)
    counts = [max(len(sample.boxes) + len(sample.oriented_boxes), len(sample.polygons), len(sample.rle)) for sample in samples]
    return _terciles(counts, lambda count: f"{count:g}", "objects")


def pixel_types(samples: Sequence[Sample], task: str) -> list[str]:
    """Name channels and bits."""
    bits = {"uint8": 8, "uint16": 16}
    colours = {1: "grey", 3: "colour"}
    named = []
    for sample in samples:
        depth = f"{sample.bit_depth or bits[sample.dtype]} bit" if sample.dtype in bits else "floating point"
        named.append(f"{colours.get(sample.channels, f'{sample.channels} channels')}, {depth}")
    return named


KINDS: dict[str, Callable[[Sequence[Sample], str], list[str]]] = {
    "source_folder": source_folders,
    "group": lambda samples, task: [sample.group for sample in samples],
    "sequence": lambda samples, task: [sample.sequence for sample in samples],
    "image_size": image_sizes,
    "class": lambda samples, task: [""] * len(samples),
    "pixel_type": pixel_types,
    "split": lambda samples, task: [sample.split for sample in samples],
    "object_count": object_counts,
}
"""What can be told apart: a name of its part for each image, empty for none. Classes are special, as an image may have several."""


def divide(samples: Sequence[Sample], task: str, asked: Sequence[str]) -> tuple[list[Part], list[str]]:
    """Divide images.

    Parameters
    ----------
    samples
        The images judged.
    task
        Of the model.
    asked
        Names of `KINDS`; empty: all that give 2 to `MOST_PARTS` parts (classes: not for classification, whose figures are by class anyway).

    Returns
    -------
    parts, remarks
        By kind, the largest first; sentences on what was asked for and cannot be told apart.
    """
    found: list[Part] = []
    remarks: list[str] = []
    for kind in dict.fromkeys(asked) or KINDS:
        by_value: dict[str, list[int]] = {}
        if kind == "class":
            if not asked and task == "classification":
                continue
            for place, sample in enumerate(samples):
                for name in sorted(class_names(sample, task)):
                    by_value.setdefault(name, []).append(place)
        else:
            for place, value in enumerate(KINDS[kind](samples, task)):
                if value:
                    by_value.setdefault(value, []).append(place)
        words = kind.replace("_", " ")
        if len(by_value) < 2:
            if asked:
                remarks.append(f"The images are not told apart by {words}: {'all are of one' if by_value else 'it is not known'}.")
            continue
        if len(by_value) > MOST_PARTS and not asked:
            continue
        ordered = sorted(by_value.items(), key=lambda item: (-len(item[1]), item[0]))
        if len(ordered) > MOST_ASKED:
            remarks.append(f"Of {len(ordered)} parts by {words} the {MOST_ASKED} largest are given.")
        found += [Part(kind, value, tuple(rows)) for value, rows in ordered[:MOST_ASKED]]
    return found, remarks
