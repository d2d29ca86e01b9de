"""Images larger than a model's input, looked at piece by piece at the scale that the model was trained at.

The image is brought to the scale at which training images were prepared, which gives a canvas in prepared pixels; windows of the model's input are
laid over it with an overlap, and what the model says of them is put together on the canvas, which is then decoded as one large input.
Overlapping answers for pixels are averaged with weights that fall towards a window's edge, where a network sees least of the surroundings
(Isensee et al., "nnU-Net", Nature Methods 2021, use a Gaussian for the same end). Boxes are put together by `oteo_gateway.prediction.pieces`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oteo_core.errors import InvalidArgument, Unimplemented
from oteo_core.images import InputPolicy, place, prepare
from oteo_core.packages import ModelPackage
from oteo_gateway.prediction.pieces import Seen, once, together

OVERLAP = 0.25
"""Least share of a window that its neighbour sees too."""

MOST_TILES = 256
"""Windows of one image; more are refused."""

_LARGER = 1.25
"""An image that exceeds the model's input by less is made smaller instead."""

_PLANES = ("probabilities", "heights")
_LEAST_SCORE = 0.02
_NEAR = 0.01


@dataclass(frozen=True, slots=True)
class Tiles:
    """Where the windows lie.

    Attributes
    ----------
    canvas
        What the whole image is prepared to; its width and height are the canvas's.
    tile
        What one window is prepared to: the model's own input.
    corners
        Left and top of each window, prepared pixels.
    """

    canvas: InputPolicy
    tile: InputPolicy
    corners: tuple[tuple[int, int], ...]


def plan_tiles(size: tuple[int, int], package: ModelPackage) -> Tiles | None:
    """Lay windows over an image.

    Parameters
    ----------
    size
        Width and height of the original, pixels.
    package
        The model's; its ``training_size`` gives the scale.

    Returns
    -------
    Tiles or None
        None where the image fits the input at that scale.

    Raises
    ------
    Unimplemented
        ``TILING``: the model answers for whole images, finds objects by masks of its own, or its package does not say at what scale it was trained.
    InvalidArgument
        ``TOO_MANY_TILES``.
    """
    policy = package.input
    if not _can_tile(package):
        raise Unimplemented(
            f"{package.name} ({package.task.replace('_', ' ')}) cannot answer by tiles; leave tiling unset.",
            reason="TILING",
            field="tiling",
        )
    if package.training_size is None:
        raise Unimplemented(
            f"The package of {package.name} does not say how large its training images were; train it again, or leave tiling unset.",
            reason="TILING",
            field="tiling",
        )
    if not worth_tiling(size, package):
        return None
    width, height = _canvas(size, package.training_size, policy)
    # A side that is shorter than a window is drawn out to it: padding would be something the model has not seen.
    canvas = replace(policy, width=max(width, policy.width), height=max(height, policy.height), resize="stretch")
    lefts, tops = _starts(canvas.width, policy.width), _starts(canvas.height, policy.height)
    if len(lefts) * len(tops) > MOST_TILES:
        raise InvalidArgument(
            f"This image needs {len(lefts) * len(tops)} tiles of {policy.width} x {policy.height}; at most {MOST_TILES} are looked at. "
            "Cut it into regions, or leave tiling unset.",
            reason="TOO_MANY_TILES",
            field="tiling",
        )
    return Tiles(canvas, policy, tuple((left, top) for top in tops for left in lefts))


def worth_tiling(size: tuple[int, int], package: ModelPackage) -> bool:
    """Tell whether an image (width and height, pixels) would be looked at by several windows."""
    if package.training_size is None or not _can_tile(package):
        return False
    width, height = _canvas(size, package.training_size, package.input)
    return width > package.input.width * _LARGER or height > package.input.height * _LARGER


def _can_tile(package: ModelPackage) -> bool:
    return package.task in ("detection", "semantic_segmentation", "instance_segmentation") and package.decoding.get("method") != "masks"


def _canvas(size: tuple[int, int], trained: tuple[int, int], policy: InputPolicy) -> tuple[int, int]:
    """Give the image's size at the training's scale, prepared pixels."""
    scale = place(*trained, policy)
    return max(1, round(size[0] * scale.scale_x)), max(1, round(size[1] * scale.scale_y))


def on_canvas(package: ModelPackage, tiles: Tiles) -> ModelPackage:
    """Give the package as the canvas is decoded by it.

    That one piece is all there is of a class, as found on training images, holds for an image of their size: a large one has many.
    """
    decoding = {name: value for name, value in package.decoding.items() if name not in ("largest_foreground", "largest")}
    return replace(package, input=tiles.canvas, decoding=decoding)


def cut_tiles(pixels: NDArray[Any], tiles: Tiles, bit_depth: int) -> list[NDArray[Any]]:
    """Prepare an original ``(H, W, C)`` and give its windows, each as the model takes it."""
    whole = prepare(pixels, tiles.canvas, bit_depth)
    return [whole[top : top + tiles.tile.height, left : left + tiles.tile.width] for left, top in tiles.corners]


def join_tiles(answers: Sequence[Mapping[str, NDArray[Any]]], tiles: Tiles) -> dict[str, NDArray[Any]]:
    """Put the windows' outputs together as those of one input of the canvas's size.

    Parameters
    ----------
    answers
        The model's outputs for each window, a batch of one each: ``boxes``, ``scores``, ``classes``, or ``probabilities`` with or without
        ``heights``.
    tiles
        Where they lie.
    """
    if "boxes" in answers[0]:
        return _joined_boxes(answers, tiles)
    weight = _weight(tiles)
    total = np.zeros((tiles.canvas.height, tiles.canvas.width), dtype=np.float32)
    sums = {name: np.zeros((*answers[0][name].shape[1:-2], *total.shape), dtype=np.float32) for name in _PLANES if name in answers[0]}
    for answer, (left, top) in zip(answers, tiles.corners, strict=True):
        window = (slice(top, top + tiles.tile.height), slice(left, left + tiles.tile.width))
        total[window] += weight
        for name, planes in sums.items():
            planes[(..., *window)] += np.asarray(answer[name][0], dtype=np.float32) * weight
    return {name: (planes / total)[None] for name, planes in sums.items()}


def _starts(whole: int, part: int) -> list[int]:
    """Give where windows of `part` begin, evenly, overlapping by `OVERLAP` at least, the last one ending where the whole does."""
    if whole <= part:
        return [0]
    count = 1 + int(np.ceil((whole - part) / (part * (1.0 - OVERLAP))))
    return [round(place_ * (whole - part) / (count - 1)) for place_ in range(count)]


def _weight(tiles: Tiles) -> NDArray[np.float32]:
    """Give a window's weights ``(height, width)``: they rise from its edges over the length of the overlap."""

    def ramp(length: int) -> NDArray[np.float32]:
        distance = np.minimum(np.arange(length), np.arange(length)[::-1]) + 0.5
        return np.minimum(distance / max(1.0, OVERLAP * length), 1.0).astype(np.float32)

    return np.asarray(np.outer(ramp(tiles.tile.height), ramp(tiles.tile.width)), dtype=np.float32)


def _joined_boxes(answers: Sequence[Mapping[str, NDArray[Any]]], tiles: Tiles) -> dict[str, NDArray[Any]]:
    """Put objects together: whole ones are taken as they are, pieces of one object become one, and what was seen twice is kept once."""
    found = []
    for owner, (answer, corner) in enumerate(zip(answers, tiles.corners, strict=True)):
        there = answer["scores"][0] >= _LEAST_SCORE
        own = np.asarray(answer["boxes"][0][there], dtype=np.float64)
        found.append(
            Seen(
                own + np.array([*corner, *corner], dtype=np.float64),
                np.asarray(answer["scores"][0][there], dtype=np.float32),
                np.asarray(answer["classes"][0][there], dtype=np.int64),
                _cut_off(own, corner, tiles),
                np.full(len(own), owner),
            )
        )
    joined = once(together(found, tiles))
    order = np.argsort(-joined.scores, kind="stable")
    return {"boxes": joined.boxes[order][None], "scores": joined.scores[order][None], "classes": joined.classes[order][None]}


def _cut_off(boxes: NDArray[np.float64], corner: tuple[int, int], tiles: Tiles) -> NDArray[np.bool_]:
    """Tell which boxes ``(M, 4)`` of a window reach an edge of it that is none of the image's."""
    (left, top), tile, canvas = corner, tiles.tile, tiles.canvas
    near_x, near_y = _NEAR * tile.width, _NEAR * tile.height
    found = (boxes[:, 0] <= near_x) & (left > 0)
    found |= (boxes[:, 1] <= near_y) & (top > 0)
    found |= (boxes[:, 2] >= tile.width - near_x) & (left + tile.width < canvas.width)
    found |= (boxes[:, 3] >= tile.height - near_y) & (top + tile.height < canvas.height)
    return np.asarray(found)
