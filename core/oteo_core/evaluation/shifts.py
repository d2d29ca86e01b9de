"""How a model fares when images change as they do between scanners, stains and file treatments.

A fixed set of perturbations at two strengths, in the spirit of Hendrycks and Dietterich, "Benchmarking neural network robustness to common
corruptions and perturbations", ICLR 2019, and of its medical kin (Stacke et al., "Measuring domain shift for deep learning in
histopathology", 2021). None moves a pixel, so that truths stay as they are. They are `oteo_core.augmentation`'s transforms at fixed values,
applied to prepared images; random ones (noise) are drawn from the seed and the image's number, so that every model meets the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oteo_core.augmentation import AugmentationKey, Policy, Step, augment_image, refusal
from oteo_core.evaluation.bootstrap import Ints, generator
from oteo_core.packages.manifest import MetricValue

_LEAST_SECONDS = 1.0
MOST_IMAGES = 200
"""Test images that are looked at, at most."""

LEAST_IMAGES = 12
"""Fewer are not worth a figure: then nothing is measured, unless there are no more."""

_BATCH = 32


@dataclass(frozen=True, slots=True)
class Shift:
    """A simulated shift.

    Parameters
    ----------
    name
        For people.
    transform
        Of the catalogue in `oteo_core.augmentation`.
    parameters
        Mild and strong; lengths in pixels are of the prepared image.
    words
        What is done, with a place for each strength's number.
    numbers
        What to put there.
    """

    name: str
    transform: str
    parameters: tuple[Mapping[str, Any], Mapping[str, Any]]
    words: str
    numbers: tuple[str, str]

    def policy(self, strength: int) -> Policy:
        """Give the policy that does it: strength 1 or 2."""
        return Policy((Step(self.transform, self.parameters[strength - 1]),), name=f"{self.name} {strength}")


def _at(name: str, *values: float) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    return {name: [values[0], values[0]]}, {name: [values[1], values[1]]}


def _tone(brightness: tuple[float, float], contrast: tuple[float, float]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    mild, strong = ({"brightness_limit": [b, b], "contrast_limit": [c, c]} for b, c in zip(brightness, contrast, strict=True))
    return mild, strong


def _red(mild: float, strong: float) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    return {"shift": [mild, mild], "channel": "red"}, {"shift": [strong, strong], "channel": "red"}


def _density(mild: float, strong: float) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    return {"scale": [mild, mild], "shift": [0, 0]}, {"scale": [strong, strong], "shift": [0, 0]}


SHIFTS: tuple[Shift, ...] = (
    Shift("darker", "RandomBrightnessContrast", _tone((-0.1, -0.2), (0.0, 0.0)), "{} of the full range darker", ("10 %", "20 %")),
    Shift("blur", "GaussianBlur", _at("sigma_limit", 1.0, 2.0), "Gaussian blur, sigma {} pixels", ("1", "2")),
    Shift("colour balance", "ColorShift", _red(0.08, 0.16), "{} more red", ("8 %", "16 %")),
    Shift("noise", "GaussNoise", _at("std_range", 0.04, 0.1), "Gaussian noise, {} of the full range", ("4 %", "10 %")),
    Shift(
        "low contrast",
        "RandomBrightnessContrast",
        _tone((0.1, 0.2), (-0.2, -0.4)),
        "{} less contrast about the middle grey",
        ("20 %", "40 %"),
    ),
    Shift("resolution", "LowResolution", _at("scale", 0.5, 0.25), "at {} of the resolution and back", ("one half", "one quarter")),
    Shift("brighter", "RandomBrightnessContrast", _tone((0.1, 0.2), (0.0, 0.0)), "{} of the full range brighter", ("10 %", "20 %")),
    Shift("gamma", "RandomGamma", _at("gamma_limit", 70, 50), "grey values to the power of {}", ("0.7", "0.5")),
    Shift("stain", "StainJitter", _density(1.3, 1.6), "stains {} times as dense", ("1.3", "1.6")),
    Shift("JPEG", "ImageCompression", _at("quality_range", 40, 15), "stored as JPEG of quality {}", ("40", "15")),
    Shift(
        "uneven light",
        "Illumination",
        _at("intensity_range", 0.1, 0.2),
        "light that changes across the image by up to {}",
        ("10 %", "20 %"),
    ),
    Shift("saturation", "raise_saturation", _at("saturation", 0.6, 0.3), "colours {} as strong", ("0.6 times", "0.3 times")),
    Shift("fewer photons", "LowDose", _at("dose", 0.3, 0.1), "noise of {} of the light", ("30 %", "10 %")),
)
"""In the order in which they are tried: where time is short, the first of each kind are known."""


@dataclass(frozen=True, slots=True)
class ShiftResult:
    """The figure under one simulated shift.

    Parameters
    ----------
    name
        Of the shift: ``"blur"``.
    strength
        1 (mild) or 2 (strong).
    words
        What was done, with its numbers.
    value
        The figure.
    """

    name: str
    strength: int
    words: str
    value: float


@dataclass(frozen=True, slots=True)
class ShiftReport:
    """Figures of a model under simulated shifts.

    Parameters
    ----------
    metric
        Name of the figure.
    clean
        The figure on the same images without a shift.
    results
        One for each shift and strength that there was time for.
    sample_count
        Images that were used.
    left_out
        Shifts that there was no time for, or that do not apply to such images.
    larger_is_better
        False for losses.
    """

    metric: str
    clean: float
    results: tuple[ShiftResult, ...]
    sample_count: int
    left_out: tuple[str, ...] = ()
    larger_is_better: bool = True

    @property
    def mean(self) -> float:
        """Mean of the figures under all shifts; the clean figure where there was none."""
        return sum(result.value for result in self.results) / len(self.results) if self.results else self.clean

    @property
    def worst(self) -> ShiftResult | None:
        """The shift that costs most."""
        if not self.results:
            return None
        return (min if self.larger_is_better else max)(self.results, key=lambda result: result.value)


def measure_shifts(
    images: NDArray[Any] | Sequence[NDArray[Any]],
    predict: Callable[[NDArray[Any], Ints], Sequence[Any]],
    score: Callable[[Sequence[Any], Ints], float],
    *,
    metric: str,
    larger_is_better: bool = True,
    seed: int = 0,
    seconds: float = 60.0,
    most: int = MOST_IMAGES,
    shifts: Sequence[Shift] = SHIFTS,
    check: Callable[[], None] = lambda: None,
    clock: Callable[[], float] = time.monotonic,
) -> ShiftReport | None:
    """Measure a figure under every shift that there is time for.

    Parameters
    ----------
    images
        Prepared test images, each ``(H, W, C)`` uint8 or float32 of 0 to 1.
    predict
        Gives an answer for each image of a batch ``(n, H, W, C)``; the second argument says which images they are, ``(n,)`` places in `images`.
    score
        Gives the figure of answers for these places: the task's usual one. NaN where it is not defined.
    metric, larger_is_better
        Name of the figure, and its direction.
    seed
        Chooses the images, and draws what is random in a shift.
    seconds
        Time for all of it. The images without a shift are answered first; how long that takes decides how many images are looked at, and each
        further shift is begun only if it will be done in time.
    most
        Images that are looked at, at most.
    shifts
        What is done to them.
    check
        Called before each batch; may raise.
    clock
        Seconds.

    Returns
    -------
    ShiftReport or None
        None where there is no time for any shift, no image, or the figure is not defined.
    """
    began = clock()
    places = _chosen(len(images), most, seed)
    if not len(places) or seconds < _LEAST_SECONDS:
        return None
    # A first batch tells what an image costs: preparing, answering, scoring.
    probe = places[: min(len(places), _BATCH)]
    score(_answers(images, probe, predict, None, seed, check), probe)
    cost = max(clock() - began, 1e-6) / len(probe)
    runs = 2 * len(shifts) + 1
    affordable = int(0.8 * (seconds - (clock() - began)) / (cost * runs))
    if affordable < len(places):
        places = places[: max(affordable, min(LEAST_IMAGES, len(places)))]
    clean_began = clock()
    clean = score(_answers(images, places, predict, None, seed, check), places)
    took = clock() - clean_began
    if not np.isfinite(clean):
        return None
    results: list[ShiftResult] = []
    left_out: list[str] = []
    for shift in shifts:
        why = refusal(shift.policy(1).steps[0], np.asarray(images[int(places[0])]))
        if why:
            left_out.append(f"{shift.name} ({_plainly(why)})")
            continue
        # Strong first tells more, but mild and strong together say whether it is a slope or a cliff.
        for strength in (1, 2):
            if clock() - began + 1.2 * took > seconds:
                left_out.append(f"{shift.name}, {('mild', 'strong')[strength - 1]} (no time)")
                continue
            run_began = clock()
            value = score(_answers(images, places, predict, shift.policy(strength), seed, check), places)
            took = max(took, clock() - run_began)
            if np.isfinite(value):
                results.append(ShiftResult(shift.name, strength, shift.words.format(shift.numbers[strength - 1]), float(value)))
            else:
                left_out.append(f"{shift.name} (the figure is not defined)")
    if not results:
        return None
    return ShiftReport(metric, float(clean), tuple(results), len(places), tuple(left_out), larger_is_better)


def shift_metrics(report: ShiftReport, split: str = "test") -> list[MetricValue]:
    """Give the mean and the worst figure as metrics of a package: ``accuracy_under_shift`` and ``accuracy_under_worst_shift``."""
    found = [MetricValue(f"{report.metric}_under_shift", report.mean, split=split, sample_count=report.sample_count)]
    if report.worst is not None:
        found.append(MetricValue(f"{report.metric}_under_worst_shift", report.worst.value, split=split, sample_count=report.sample_count))
    return found


def apply_shift(image: NDArray[Any], shift: Shift, strength: int, *, place: int = 0, seed: int = 0) -> NDArray[Any]:
    """Give one image ``(H, W, C)`` under a shift, of the same shape and type; `place` and `seed` fix what is random."""
    return augment_image(image, shift.policy(strength), AugmentationKey(f"shift/{place}", 0, seed))


def _plainly(why: str) -> str:
    """Say shortly why a transform is not for such images."""
    if "channels" in why:
        return "for colour images"
    return "for 8-bit images" if "uint8" in why else why


def _chosen(count: int, most: int, seed: int) -> Ints:
    order = generator(seed, "shifts").permutation(count)[:most]
    return order.astype(np.int64)


def _answers(
    images: Any,
    places: Ints,
    predict: Callable[[NDArray[Any], Ints], Sequence[Any]],
    policy: Policy | None,
    seed: int,
    check: Callable[[], None],
) -> list[Any]:
    answers: list[Any] = []
    for start in range(0, len(places), _BATCH):
        check()
        part = places[start : start + _BATCH]
        batch = [np.asarray(images[int(place)]) for place in part]
        if policy is not None:
            batch = [augment_image(one, policy, AugmentationKey(f"shift/{place}", 0, seed)) for one, place in zip(batch, part, strict=True)]
        answers.extend(predict(np.stack(batch), part))
    return answers
