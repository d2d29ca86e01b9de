"""Augments batches, by either engine: the draws are those of `oteo_core.augmentation.augment`, image by image."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from oteo_core.augmentation.applying import Augmented, Course, Turn, augment
from oteo_core.augmentation.engines.base import Border, Drawn
from oteo_core.augmentation.engines.choosing import choose_engine
from oteo_core.augmentation.engines.cpu import CpuEngine
from oteo_core.augmentation.engines.drawing import edge_of
from oteo_core.augmentation.engines.gpu import KorniaEngine
from oteo_core.augmentation.keys import AugmentationKey
from oteo_core.augmentation.moving import Annotations
from oteo_core.augmentation.policy import Policy
from oteo_core.errors import InvalidArgument

if TYPE_CHECKING:
    import torch

ENGINES = ("auto", "cpu", "gpu")


def augment_batch(
    images: Sequence[NDArray[Any]],
    policy: Policy,
    keys: Sequence[AugmentationKey],
    annotations: Sequence[Annotations | None] | None = None,
    *,
    engine: str = "auto",
    device: str = "",
    border: Border = Border.REFLECT,
    bit_depth: int = 0,
) -> list[Augmented]:
    """Make an augmented copy of each of some images.

    By the CPU engine, each is what `augment` makes of it, to the bit. By the second engine, which takes images of one size and type
    together, pixels are the same within `oteo_core.augmentation.catalogue.agreement` a step; draws, annotations and everything else are
    equal.

    Parameters
    ----------
    images
        (H, W, C) each, uint8, uint16 or float32, of any sizes; left as they are.
    policy
        What to do.
    keys
        Which copy of which sample each image is for.
    annotations
        Where each image's objects are.
    engine
        "auto": for every step what `choose_engine` says; "cpu"; "gpu": the second engine for all steps that it has, on any device.
    device
        Where the second engine works, as torch calls it; left out: "cuda" where there is one, else "cpu".
    border, bit_depth
        As `augment` has them.

    Returns
    -------
    list of Augmented
        In the order of the images.

    Raises
    ------
    InvalidArgument
        BATCH_SIZE_MISMATCH where images, keys and annotations are not as many; UNKNOWN_ENGINE; and as `augment`, for the first image
        that it is raised for.
    FailedPrecondition
        ENGINE_NOT_INSTALLED or NO_SUCH_DEVICE, where the second engine is asked for.
    """
    if engine not in ENGINES:
        raise InvalidArgument(f"there is no engine {engine!r}; there are: {', '.join(ENGINES)}", reason="UNKNOWN_ENGINE", field="engine")
    count = len(images)
    marked: Sequence[Annotations | None] = [None] * count if annotations is None else annotations
    if len(keys) != count or len(marked) != count:
        raise InvalidArgument(
            f"{count} images, {len(keys)} keys and {len(marked)} annotations: give one key, and annotations or None, an image",
            reason="BATCH_SIZE_MISMATCH",
        )
    if engine != "cpu":
        device = device or _usual_device()
    if engine == "cpu" or (engine == "auto" and device == "cpu"):
        return [
            augment(pixels, policy, key, mark, border=border, bit_depth=bit_depth)
            for pixels, key, mark in zip(images, keys, marked, strict=True)
        ]
    courses = [
        Course(pixels, policy, key, mark, border=border, bit_depth=bit_depth)
        for pixels, key, mark in zip(images, keys, marked, strict=True)
    ]
    return _Batch(courses, _engine(device), "" if engine == "auto" else engine, device).run()


class _Batch:
    """Some images on their way, each held where its last step was done."""

    def __init__(self, courses: Sequence[Course], engine: KorniaEngine, named: str, device: str) -> None:
        self._courses = courses
        self._gpu = engine
        self._cpu = CpuEngine()
        self._named = named
        self._device = device
        self._dtypes = [course.start.dtype for course in courses]
        self._held: list[NDArray[Any] | torch.Tensor] = [course.start for course in courses]

    def run(self) -> list[Augmented]:
        for place in range(max((len(course.turns) for course in self._courses), default=0)):
            # What draws the same step for images that look alike to an engine is done together.
            groups: dict[tuple[Any, ...], list[tuple[int, Turn, Drawn]]] = {}
            for number, course in enumerate(self._courses):
                if place >= len(course.turns):
                    continue
                turn, shape = course.turns[place], self._shape(number)
                drawn = course.draw(turn, shape, partial(self._edge, number))
                if drawn is not None:
                    groups.setdefault((turn.step, shape, self._dtypes[number].name), []).append((number, turn, drawn))
            for (_, shape, _), group in groups.items():
                self._step(shape, group)
        return [course.finish(self._pixels(number)) for number, course in enumerate(self._courses)]

    def _step(self, shape: tuple[int, ...], group: Sequence[tuple[int, Turn, Drawn]]) -> None:
        spec = group[0][2].spec
        if (self._named or choose_engine(spec, shape, len(group), self._device)) == "gpu":
            planes = [self._planes(number) for number, _, _ in group]
            done: Sequence[NDArray[Any] | torch.Tensor] = self._gpu.apply_batch(
                [drawn for _, _, drawn in group], planes, self._dtypes[group[0][0]]
            )
        else:
            done = [self._cpu.apply(drawn, self._pixels(number)) for number, _, drawn in group]
        for (number, turn, drawn), changed in zip(group, done, strict=True):
            self._held[number] = changed
            self._courses[number].took(turn, drawn, shape[:2], self._shape(number)[:2])

    def _shape(self, number: int) -> tuple[int, ...]:
        held = self._held[number]
        if isinstance(held, np.ndarray):
            return held.shape
        channels, height, width = held.shape
        return height, width, channels

    def _edge(self, number: int) -> NDArray[Any]:
        held = self._held[number]
        return edge_of(held) if isinstance(held, np.ndarray) else self._gpu.edge(held, self._dtypes[number])

    def _planes(self, number: int) -> torch.Tensor:
        held = self._held[number]
        return self._gpu.upload(held) if isinstance(held, np.ndarray) else held

    def _pixels(self, number: int) -> NDArray[Any]:
        held = self._held[number]
        return held if isinstance(held, np.ndarray) else self._gpu.download(held, self._dtypes[number])


def _usual_device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


@cache
def _engine(device: str) -> KorniaEngine:
    return KorniaEngine(device)
