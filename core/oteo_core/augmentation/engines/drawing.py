"""Draws the parameters of a step, from a generator and from an image's shape and type: no engine, and no pixel, has a say in it."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oteo_core.augmentation.catalogue import TransformSpec
from oteo_core.augmentation.engines.base import GROUP, Border, Drawn, Scale, Values, scale_of

_NOTHING = bytes(8)


def needs_edge(transform: Any, spec: TransformSpec, border: Border) -> bool:
    """Tell whether a step brings in the colour of the image's edge, so that `draw` needs `edge_of` it."""
    return spec.geometric and border is Border.CONSTANT and hasattr(transform, "fill")


def edge_of(pixels: NDArray[Any]) -> NDArray[Any]:
    """Give an image's outermost pixels, ``(N, C)`` of ``(H, W, C)``."""
    return np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])


def draw(
    transform: Any,
    spec: TransformSpec,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    values: Values,
    generator: np.random.Generator,
    border: Border,
    edge: NDArray[Any] | None = None,
) -> Drawn:
    """Let a built transform draw for one image.

    Parameters
    ----------
    transform
        Built of `spec`; its generators, border and colour are set here.
    spec
        The transform in the catalogue.
    shape, dtype
        Of the image: (H, W, C), uint8, uint16 or float32.
    values
        Range of the original's values.
    generator
        The step's own; as much is taken from it whatever the image shows.
    border
        What comes in from outside.
    edge
        The image's outermost pixels (N, C), where `needs_edge`.
    """
    if hasattr(transform, "border_mode"):
        transform.border_mode = int(border)
    if spec.geometric and edge is None and hasattr(transform, "fill"):
        transform.fill = 0.0  # not used, and told among the parameters: the colour of an image before must not be
    transform.set_random_state(generator, random.Random(int(generator.integers(0, 2**63))))
    scale = scale_of(spec, dtype, values)
    work = np.dtype(np.float32) if scale.scaled else dtype
    if shape[2] <= GROUP or spec.unit_range:
        parts = [_part(transform, shape, work, scale, edge)]
    else:
        seed = int(generator.integers(0, 2**63))
        parts = []
        for start in range(0, shape[2], GROUP):
            # Every part draws the same.
            transform.set_random_state(np.random.Generator(np.random.Philox(key=seed)), random.Random(seed))
            few = (*shape[:2], min(GROUP, shape[2] - start))
            parts.append(_part(transform, few, work, scale, None if edge is None else edge[:, start : start + GROUP]))
    return Drawn(spec, transform, tuple(parts), scale, border)


def _part(transform: Any, shape: tuple[int, ...], dtype: np.dtype[Any], scale: Scale, edge: NDArray[Any] | None) -> dict[str, Any]:
    if edge is not None:
        median = np.median(scale.into(edge), axis=0).astype(dtype)
        transform.fill = tuple(float(value) for value in median)
    # What albumentations' own call does before it applies. It looks at an image's shape and type and never at its pixels, which a
    # stand-in that takes no memory shows.
    data = {"image": np.ndarray(shape, dtype, buffer=_NOTHING, strides=(0,) * len(shape))}
    # As its own call does, it keeps what it drew until the next draw: a field of noise then takes memory that is at hand, which is a fifth
    # of what it costs.
    transform.params = {}
    parameters: dict[str, Any] = transform.update_transform_params(params=transform.get_params(), data=data)
    parameters.update(transform.get_params_dependent_on_data(params=parameters, data=data))
    transform.params = parameters
    return parameters
