"""Applies a policy to pixels, by albumentations, with draws that depend on the key alone."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from oteo_core.augmentation.catalogue import TransformSpec, find_transform
from oteo_core.augmentation.engines.base import Border, Drawn, Values, values_of
from oteo_core.augmentation.engines.cpu import CpuEngine
from oteo_core.augmentation.engines.drawing import draw, edge_of, needs_edge
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
    course = Course(pixels, policy, key, annotations, border=border, bit_depth=bit_depth)
    result = course.start
    for turn in course.turns:
        drawn = course.draw(turn, result.shape, partial(edge_of, result))
        if drawn is not None:
            before, result = result.shape[:2], _ENGINE.apply(drawn, result)
            course.took(turn, drawn, before, result.shape[:2])
    return course.finish(result)


class Turn(NamedTuple):
    """A step that a copy may take.

    Attributes
    ----------
    number
        Of the draw, which its generator is made of.
    step
        Number of the policy's step.
    strength
        0 to 1 where it is not in the step's parameters; None: it is.
    """

    number: int
    step: int
    strength: float | None


class Course:
    """The way of one copy through its policy, whatever engine applies the steps.

    Parameters are those of `augment`, and so are the errors: those of pixels and annotations here, those of steps in `draw`.

    Attributes
    ----------
    start
        The pixels that the first step gets.
    turns
        The steps that the copy may take, in order.
    """

    def __init__(
        self,
        pixels: NDArray[Any],
        policy: Policy,
        key: AugmentationKey,
        annotations: Annotations | None = None,
        *,
        border: Border = Border.REFLECT,
        bit_depth: int = 0,
    ) -> None:
        if pixels.ndim != 3 or pixels.dtype.name not in _PIXEL_TYPES or 0 in pixels.shape:
            raise InvalidArgument(
                f"pixels of shape {pixels.shape} and type {pixels.dtype.name}: augmentation takes (height, width, channels) of "
                + ", ".join(_PIXEL_TYPES),
                reason="UNSUPPORTED_PIXELS",
            )
        self._mover = _mover(annotations, pixels) if annotations else None
        self._pixels = pixels
        self._policy = policy
        self._key = key
        self._border = border
        self._values = values_of(pixels)
        self._depth = _depth(pixels, bit_depth)
        # Whole numbers of fewer bits are stretched for the work: no transform need know of them, and each value comes back as it was.
        self.start = pixels if self._depth == FULL else filled(pixels, self._depth)
        self.turns = _turns(policy, key)
        self._taken: list[int] = []
        self._drawn: list[dict[str, Any]] = []
        self._mirrored = False

    def draw(self, turn: Turn, shape: tuple[int, ...], edge: Callable[[], NDArray[Any]]) -> Drawn | None:
        """Draw a step for pixels of a shape.

        Parameters
        ----------
        turn
            One of `turns`.
        shape
            (H, W, C), as the steps before have left it.
        edge
            Gives the outermost pixels (N, C); asked only where their colour comes in.

        Returns
        -------
        Drawn or None
            None where the copy does not take the step: it was not drawn, or it needs objects and there are none.
        """
        policy, number = self._policy, turn.step
        step = policy.steps[number]
        generator = step_generator(policy.digest, self._key, turn.number)
        if policy.mode is Mode.SEQUENTIAL and not generator.random() < step.probability:
            return None
        spec = find_transform(step.transform)
        why = _refusal(spec, self._pixels, self._values)
        if why:
            if step.optional:
                return None
            raise InvalidArgument(why, reason="TRANSFORM_NOT_DEFINED", field=f"policy.steps[{number}].transform")
        if turn.strength is None:
            transform = _transform(number, step, spec, policy)
        else:
            transform = _at_strength(number, step, spec, turn.strength, generator)
        objects = None
        if spec.needs_objects:
            objects = self._mover.covered(shape[0], shape[1]) if self._mover is not None else None
            if objects is None:
                return None
        colour = edge() if needs_edge(transform, spec, self._border) else None
        drawn = draw(transform, spec, shape, self._pixels.dtype, self._values, generator, self._border, colour)
        for part in drawn.parts if objects is not None else ():
            part["objects"] = objects
        return drawn

    def took(self, turn: Turn, drawn: Drawn, before: tuple[int, ...], after: tuple[int, ...]) -> None:
        """Move the annotations by a step that was applied, from a height and width to another, and write down what was drawn."""
        spec = drawn.spec
        if spec.geometric and (self._mover is not None or spec.mirrors):
            motion = Motion(spec.name, drawn.transform, drawn.parameters, (before[0], before[1]), (after[0], after[1]))
            self._mirrored ^= spec.mirrors and mirrors(motion)
            if self._mover is not None:
                self._mover.move(motion)
        self._taken.append(turn.step)
        self._drawn.append({"transform": spec.name, **drawn_parameters(drawn.parameters)})

    def finish(self, result: NDArray[Any]) -> Augmented:
        """Give the copy whose pixels the last step has left."""
        pixels, policy = self._pixels, self._policy
        if self._depth == FULL:
            # A crop of all of an image is a view of it.
            changed = np.array(result, order="C") if np.may_share_memory(result, pixels) else np.ascontiguousarray(result)
        else:
            changed = pixels.copy() if result is self.start else emptied(result, self._depth)
        moved, lost = self._mover.result(policy.min_visible_share) if self._mover is not None else (Annotations(), Counter[str]())
        if self._mirrored and policy.mirror_swaps:
            moved = swapped_objects(moved, both_ways(policy.mirror_swaps))
        points = self._mover.points_lost if self._mover is not None else Counter[str]()
        return Augmented(changed, moved, lost, tuple(self._taken), tuple(self._drawn), self._mirrored, points)


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


def _turns(policy: Policy, key: AugmentationKey) -> list[Turn]:
    """Give what a copy may take, in order."""
    count = len(policy.steps)
    if policy.mode is Mode.SEQUENTIAL:
        return [Turn(number, number, None) for number in range(count)]
    if policy.mode is Mode.POWER:
        combination = key.copy % REDRAW % policy.combinations + 1
        return [Turn(number, number, None) for number in range(count) if combination >> number & 1]
    generator = step_generator(policy.digest, key, -1)
    weights = np.array([step.weight for step in policy.steps], dtype=np.float64)
    draws = policy.draws if policy.mode is Mode.RANDOM else 1
    chosen = [int(generator.choice(count, p=weights / weights.sum())) for _ in range(draws)]
    if policy.mode is Mode.LINEAR:
        return [Turn(chosen[0], chosen[0], None)]
    strength = policy.magnitude if policy.mode is Mode.RANDOM else float(generator.random())
    return [Turn(turn, number, strength) for turn, number in enumerate(chosen)]


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
