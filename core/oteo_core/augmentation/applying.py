"""Applies a policy to pixels, by albumentations, with draws that depend on the key alone."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oteo_core.augmentation.catalogue import TransformSpec, find_transform
from oteo_core.augmentation.engines.base import Border, Values, values_of
from oteo_core.augmentation.engines.cpu import CpuEngine
from oteo_core.augmentation.keys import REDRAW, AugmentationKey, step_generator
from oteo_core.augmentation.moving import Annotations, Motion, Mover
from oteo_core.augmentation.policy import Mode, Policy, Step
from oteo_core.augmentation.provenance import drawn_parameters
from oteo_core.augmentation.swapping import both_ways, mirrors, swapped_objects
from oteo_core.errors import InvalidArgument
from oteo_core.images.depth import FULL, emptied, filled, significant_bits

_PIXEL_TYPES = ("uint8", "uint16", "float32")
_ENGINE = CpuEngine()
_local = threading.local()
"""Built transforms carry the generator of their next draw, so every thread has its own."""


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
    drawn
        What each of them drew, as JSON values.
    mirrored
        True if the picture was turned over, so that left and right have changed places.
    points_lost
        Key points that left the picture, by name.
    """

    pixels: NDArray[Any]
    annotations: Annotations = field(default_factory=Annotations)
    lost: Counter[str] = field(default_factory=Counter)
    steps: tuple[int, ...] = ()
    drawn: tuple[dict[str, Any], ...] = ()
    mirrored: bool = False
    points_lost: Counter[str] = field(default_factory=Counter)


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
    pixels: NDArray[Any],
    policy: Policy,
    key: AugmentationKey,
    annotations: Annotations | None = None,
    *,
    border: Border = Border.REFLECT,
    bit_depth: int = 0,
) -> Augmented:
    """Make one augmented copy of an image, its annotations moved along.

    The same pixels, policy, key, border and depth give the same pixels, in any process, thread and order, whatever the annotations are.

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
    bit_depth
        Bits that uint16 pixels fill, 1 to 16: what white is, so how strong a change of brightness or noise is. One for all images of a
        dataset keeps them alike; 0, and where the image goes beyond it: the image's own.

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
    values = values_of(pixels)
    depth = _depth(pixels, bit_depth)
    # Whole numbers of fewer bits are stretched for the work: no transform need know of them, and each value comes back as it was.
    start = pixels if depth == FULL else filled(pixels, depth)
    result = start
    taken: list[int] = []
    drawn: list[dict[str, Any]] = []
    mirrored = False
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
        applied = _ENGINE.apply(transform, spec, result, values, generator, border)
        result = applied.pixels
        if spec.geometric and (mover is not None or spec.mirrors):
            motion = Motion(spec.name, transform, applied.parameters, before, result.shape[:2])
            mirrored ^= spec.mirrors and mirrors(motion)
            if mover is not None:
                mover.move(motion)
        taken.append(number)
        drawn.append({"transform": spec.name, **drawn_parameters(applied.parameters)})
    if depth == FULL:
        changed = np.array(result) if result is pixels else np.ascontiguousarray(result)
    else:
        changed = pixels.copy() if result is start else emptied(result, depth)
    moved, lost = mover.result(policy.min_visible_share) if mover is not None else (Annotations(), Counter[str]())
    if mirrored and policy.mirror_swaps:
        moved = swapped_objects(moved, both_ways(policy.mirror_swaps))
    points = mover.points_lost if mover is not None else Counter[str]()
    return Augmented(changed, moved, lost, tuple(taken), tuple(drawn), mirrored, points)


def _depth(pixels: NDArray[Any], bit_depth: int) -> int:
    """Give the bits that pixels fill: `FULL` for all but uint16."""
    if pixels.dtype != np.uint16 or bit_depth == FULL:
        return FULL
    own = significant_bits(pixels, bit_depth)
    return max(own, bit_depth)


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
    return _refusal(find_transform(step.transform), pixels, values_of(pixels))


def _refusal(spec: TransformSpec, pixels: NDArray[Any], values: Values) -> str:
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
