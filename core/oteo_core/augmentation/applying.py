"""Applies a policy to pixels, by albumentations, with draws that depend on the key alone."""

from __future__ import annotations

import random
import threading
from collections import Counter
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from oteo_core.augmentation.catalogue import TransformSpec, find_transform
from oteo_core.augmentation.keys import REDRAW, AugmentationKey, step_generator
from oteo_core.augmentation.moving import Annotations, Motion, Mover
from oteo_core.augmentation.policy import Mode, Policy, Step
from oteo_core.errors import InvalidArgument

_PIXEL_TYPES = ("uint8", "uint16", "float32")
_local = threading.local()
"""Built transforms carry the generator of their next draw, so every thread has its own."""


class Border(IntEnum):
    """What comes in from outside where a step looks beyond the image's edge; the values are OpenCV's."""

    CONSTANT = 0
    """The colour that is usual at the edge: where objects are told apart, a mirrored one would stand there without its annotation."""
    REFLECT = 4
    """The image, mirrored, and its mask likewise: no corner of one colour tells an augmented image."""


@dataclass(frozen=True, slots=True)
class Augmented:
    """One augmented copy.

    Attributes
    ----------
    pixels
        (H, W, C) of the original's dtype, contiguous, never the input itself.
    annotations
        Moved along with the pixels.
    lost
        Objects of which too little was left, by class.
    steps
        Numbers of the policy's steps that were taken.
    """

    pixels: NDArray[Any]
    annotations: Annotations = field(default_factory=Annotations)
    lost: Counter[str] = field(default_factory=Counter)
    steps: tuple[int, ...] = ()


def augment_image(pixels: NDArray[Any], policy: Policy, key: AugmentationKey) -> NDArray[Any]:
    """Make one augmented copy of an image that has no annotations of places.

    As `augment`, whose parameters and errors it has.

    Returns
    -------
    numpy.ndarray
        (H, W, C) of the same dtype, contiguous, never the input itself. Height and width are swapped where a quarter turn was drawn.
    """
    return augment(pixels, policy, key).pixels


def augment(
    pixels: NDArray[Any], policy: Policy, key: AugmentationKey, annotations: Annotations | None = None, *, border: Border = Border.REFLECT
) -> Augmented:
    """Make one augmented copy of an image, its annotations moved along.

    The same pixels, policy, key and border give the same pixels, in any process, thread and order, whatever the annotations are.

    Parameters
    ----------
    pixels
        (H, W, C), uint8, uint16 or float32, as `oteo_core.images.decode` or `prepare` give them; left as they are.
    policy
        What to do.
    key
        Which copy of which sample this is.
    annotations
        Where its objects are.
    border
        What comes in from outside.

    Raises
    ------
    InvalidArgument
        TRANSFORM_NOT_DEFINED where a step that is not optional is not defined for such pixels; BAD_PARAMETER where
        albumentations refuses a parameter's value; UNSUPPORTED_PIXELS for another shape or dtype; MASK_SIZE_MISMATCH.
    """
    if pixels.ndim != 3 or pixels.dtype.name not in _PIXEL_TYPES or 0 in pixels.shape:
        raise InvalidArgument(
            f"pixels of shape {pixels.shape} and type {pixels.dtype.name}: augmentation takes (height, width, channels) of "
            + ", ".join(_PIXEL_TYPES),
            reason="UNSUPPORTED_PIXELS",
        )
    mover = _mover(annotations, pixels) if annotations else None
    values = _values(pixels)
    result = pixels
    taken = []
    for turn, number, strength in _drawn(policy, key):
        step = policy.steps[number]
        generator = step_generator(policy.digest, key, turn)
        if policy.mode is Mode.SEQUENTIAL and not generator.random() < step.probability:
            continue
        spec = find_transform(step.transform)
        why = _refusal(spec, pixels, values)
        if why:
            if step.optional:
                continue
            raise InvalidArgument(why, reason="TRANSFORM_NOT_DEFINED", field=f"policy.steps[{number}].transform")
        transform = _transform(number, step, spec, policy) if strength is None else _at_strength(number, step, spec, strength, generator)
        if hasattr(transform, "border_mode"):
            transform.border_mode = int(border)
        before = result.shape[:2]
        result, params = _apply(transform, spec, result, values, generator, border)
        if mover is not None and spec.geometric:
            mover.move(Motion(spec.name, transform, params, before, result.shape[:2]))
        taken.append(number)
    changed = np.array(result) if result is pixels else np.ascontiguousarray(result)
    moved, lost = mover.result(policy.min_visible_share) if mover is not None else (Annotations(), Counter[str]())
    return Augmented(changed, moved, lost, tuple(taken))


def _mover(annotations: Annotations, pixels: NDArray[Any]) -> Mover:
    sizes = {(item.height, item.width) for item in annotations.rle}
    if annotations.mask is not None:
        sizes.add((annotations.mask.shape[0], annotations.mask.shape[1]))
    for height, width in sizes - {(pixels.shape[0], pixels.shape[1])}:
        raise InvalidArgument(
            f"a mask of {width} x {height} pixels on an image of {pixels.shape[1]} x {pixels.shape[0]}", reason="MASK_SIZE_MISMATCH"
        )
    return Mover(annotations)


def check_policy(policy: Policy) -> None:
    """Build every transform of a policy, so that values which albumentations refuses are found before the work begins.

    Raises
    ------
    InvalidArgument
        BAD_PARAMETER; the field names the step.
    """
    for number, step in enumerate(policy.steps):
        _transform(number, step, find_transform(step.transform), policy)


def refusal(step: Step, pixels: NDArray[Any]) -> str:
    """Say why a step is not defined for such pixels; empty if it is."""
    return _refusal(find_transform(step.transform), pixels, _values(pixels))


class _Values(NamedTuple):
    """The range of an image's values, as far as it matters; asked once, of the original: no step of the catalogue leads out of it."""

    low: float = 0.0
    high: float = 1.0
    finite: bool = True

    @property
    def unit(self) -> bool:
        return self.finite and self.low >= 0 and self.high <= 1


def _values(pixels: NDArray[Any]) -> _Values:
    if pixels.dtype != np.float32:
        return _Values()
    low, high = float(pixels.min()), float(pixels.max())
    # NaN comes out of both; infinity out of one.
    return _Values(low, high, bool(np.isfinite(low) and np.isfinite(high)))


def _refusal(spec: TransformSpec, pixels: NDArray[Any], values: _Values) -> str:
    why = spec.refusal(pixels.dtype.name, pixels.shape[2])
    if why:
        return why
    if spec.unit_range and not values.unit:
        return f"{spec.name} computes with brightness and needs floating-point pixels from 0 to 1; the image goes beyond"
    if spec.mixes and not values.finite:
        return f"{spec.name} takes means of pixels; the image has pixels that are no finite numbers"
    return ""


def _drawn(policy: Policy, key: AugmentationKey) -> list[tuple[int, int, float | None]]:
    """Give what this copy may take, in order: the number of the draw, that of the step, and its strength where that is not in its parameters."""
    count = len(policy.steps)
    if policy.mode is Mode.SEQUENTIAL:
        return [(number, number, None) for number in range(count)]
    if policy.mode is Mode.POWER:
        combination = key.copy % REDRAW % policy.combinations + 1
        return [(number, number, None) for number in range(count) if combination >> number & 1]
    generator = step_generator(policy.digest, key, -1)
    weights = np.array([step.weight for step in policy.steps], dtype=np.float64)
    draws = policy.draws if policy.mode is Mode.RANDOM else 1
    chosen = [int(generator.choice(count, p=weights / weights.sum())) for _ in range(draws)]
    if policy.mode is Mode.LINEAR:
        return [(chosen[0], chosen[0], None)]
    strength = policy.magnitude if policy.mode is Mode.RANDOM else float(generator.random())
    return [(turn, number, strength) for turn, number in enumerate(chosen)]


def _at_strength(number: int, step: Step, spec: TransformSpec, strength: float, generator: np.random.Generator) -> Any:
    """Make a step's transform with every parameter that has a neutral value that far from it, towards one of its range's ends."""
    given = {**spec.parameters, **step.parameters}
    narrowed = dict(step.parameters)
    for name, neutral in spec.neutral.items():
        ranged = isinstance(neutral, tuple)
        still = neutral[0] if ranged else neutral
        end = given[name][int(generator.integers(0, 2))] if ranged else given[name]
        value = still + strength * (end - still)
        value = value if isinstance(still, float) else round(value)
        narrowed[name] = [value, value] if ranged else value
    return _build(number, Step(step.transform, narrowed), spec)


def _apply(
    transform: Any, spec: TransformSpec, pixels: NDArray[Any], values: _Values, generator: np.random.Generator, border: Border
) -> tuple[NDArray[Any], dict[str, Any]]:
    """Apply one step; give the pixels, and what was drawn."""
    transform.set_random_state(generator, random.Random(int(generator.integers(0, 2**63))))
    dtype = pixels.dtype
    # albumentations computes brightness for uint8 and float32 only, and holds float32 to be within 0 to 1: it clips.
    low, span = 0.0, 1.0
    if dtype == np.uint16 and spec.unit_range:
        span = 65535.0
    elif dtype == np.uint8 and spec.in_float:
        span = 255.0
    elif spec.mixes and not values.unit:
        low, span = values.low, max(values.high - values.low, float(np.finfo(np.float32).tiny))
    scaled = (low, span) != (0.0, 1.0)
    work = (pixels.astype(np.float32) - np.float32(low)) / np.float32(span) if scaled else pixels
    fills = spec.geometric and border is Border.CONSTANT and hasattr(transform, "fill")
    changed = _once(transform, work, fills) if work.shape[2] <= 4 or spec.unit_range else _by_parts(transform, work, generator, fills)
    params: dict[str, Any] = transform.get_applied_params()
    if scaled:
        changed = changed * np.float32(span) + np.float32(low)
        if dtype.kind == "u":
            changed = np.rint(changed)
    return changed.astype(dtype, copy=False), params


def _once(transform: Any, pixels: NDArray[Any], fills: bool) -> NDArray[Any]:
    if fills:
        transform.fill = _edge_colour(pixels)
    return _restored(transform(image=np.ascontiguousarray(pixels))["image"])


def _edge_colour(pixels: NDArray[Any]) -> tuple[float, ...]:
    """Give the median of an image's outermost pixels, a value a channel."""
    edge = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    return tuple(float(value) for value in np.median(edge, axis=0).astype(pixels.dtype))


def _by_parts(transform: Any, pixels: NDArray[Any], generator: np.random.Generator, fills: bool) -> NDArray[Any]:
    """Apply one draw to four channels at a time: most of OpenCV takes no more."""
    seed = int(generator.integers(0, 2**63))
    parts = []
    for start in range(0, pixels.shape[2], 4):
        transform.set_random_state(np.random.Generator(np.random.Philox(key=seed)), random.Random(seed))
        parts.append(_once(transform, pixels[:, :, start : start + 4], fills))
    return np.concatenate(parts, axis=2)


def _restored(pixels: NDArray[Any]) -> NDArray[Any]:
    """Give back the axis of a single channel, which OpenCV drops."""
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def _transform(number: int, step: Step, spec: TransformSpec, policy: Policy) -> Any:
    """Give the built transform of a step, built once a thread."""
    cache: dict[tuple[str, int], Any] | None = getattr(_local, "transforms", None)
    if cache is None or len(cache) > 256:
        cache = _local.transforms = {}
    built = cache.get((policy.digest, number))
    if built is None:
        built = cache[policy.digest, number] = _build(number, step, spec)
    return built


def _build(number: int, step: Step, spec: TransformSpec) -> Any:
    try:
        return spec.build(step.parameters)
    except InvalidArgument as error:
        raise InvalidArgument(error.message, reason=error.reason, field=f"policy.steps[{number}].{error.field}") from error
