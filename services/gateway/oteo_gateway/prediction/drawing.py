"""An answer drawn over its image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oteo_core.images import encode_png
from oteo_core.packages import ModelPackage
from oteo_core.reporting.overlays import canvas, colour_of, draw_boxes, draw_class_map, draw_heat, draw_objects, draw_text
from oteo_gateway.prediction.answer import ClassAnswer
from oteo_gateway.prediction.outputs import ATTENTION
from oteo_gateway.prediction.regions import ObjectAnswer, RegionAnswer

SIDE = 1024
"""Longest side of a drawing, pixels; small images grow by a whole factor."""

_CAPTIONS = 40
_WHITE = (255, 255, 255)


def draw_answer(
    pixels: NDArray[Any], answer: ClassAnswer | ObjectAnswer | RegionAnswer, package: ModelPackage, outputs: Mapping[str, NDArray[Any]]
) -> bytes:
    """Draw an answer: what a classifier looked at as heat, objects as boxes with scores, classes as colours, instances as outlines.

    Parameters
    ----------
    pixels
        The original, ``(H, W, C)``; deep images are shown between their extremes.
    answer, package
        The answer and the model's package.
    outputs
        Of the model; its ``attention``, where there is one, is drawn.

    Returns
    -------
    bytes
        PNG, 8-bit colour, at most `SIDE` pixels a side.
    """
    if isinstance(answer, ObjectAnswer):
        places = {name: place for place, name in enumerate(package.classes)}
        picture = draw_boxes(
            pixels,
            np.array([box for _, _, box in answer.objects], dtype=np.float64).reshape(-1, 4),
            [colour_of(places[name]) for name, _, _ in answer.objects],
            # Where there are many, their captions would hide them.
            captions=[f"{name} {score:.2f}" for name, score, _ in answer.objects] if len(answer.objects) <= _CAPTIONS else (),
            side=SIDE,
        )
    elif isinstance(answer, RegionAnswer):
        if answer.object_classes is None:
            picture = draw_class_map(pixels, answer.labels.astype(np.uint8), side=SIDE)
        else:
            picture = draw_objects(
                pixels, answer.labels.astype(np.int32), [colour_of(number) for number in answer.object_classes], side=SIDE
            )
    else:
        picture = draw_heat(pixels, outputs[ATTENTION][0], package.input, side=SIDE) if ATTENTION in outputs else canvas(pixels, SIDE)
        for line, (name, probability) in enumerate(_said(answer)):
            draw_text(picture, f"{name} {probability:.2f}", (4, 16 + 14 * line), _WHITE)
    return encode_png(picture)


def _said(answer: ClassAnswer) -> list[tuple[str, float]]:
    """Give what was decided on; the likeliest class where nothing was."""
    chosen = answer.decisions or ((answer.decision,) if answer.decision else ())
    return [(name, value) for name, value in answer.scores if name in chosen] or list(answer.scores[:1])
