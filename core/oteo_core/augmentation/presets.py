"""Policies by modality: what changes between two images of the same thing, for each way of making images, and nothing that is a finding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from oteo_core.augmentation.policy import Policy, Step


@dataclass(frozen=True)
class Reason:
    """A step of a preset and why it is there.

    Attributes
    ----------
    transform, parameters, probability
        As of `Step`.
    why
        Why images of this modality vary so, or why not more.
    """

    transform: str
    why: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    probability: float = 1.0

    def step(self, boxes_only: bool) -> Step:
        """Give the step, optional unless it moves pixels, which is defined for all.

        Where objects are known by boxes alone nothing is turned but by quarters, for the reason that `default_policy` gives.
        """
        parameters = {**self.parameters, "rotate": (0.0, 0.0)} if boxes_only and "rotate" in self.parameters else self.parameters
        return Step(self.transform, parameters, self.probability, optional=self.transform not in _MOVES)


_MOVES = frozenset({"HorizontalFlip", "D4", "RandomRotate90", "Affine"})


@dataclass(frozen=True)
class Preset:
    """A policy for a modality.

    Attributes
    ----------
    name, modality
        Its name, and what it is for.
    orientation
        "free": all eight symmetries of the square; "upright": mirrors alone; "sided": none, because left and right mean something.
    why
        Why that orientation.
    reasons
        The other steps.
    """

    name: str
    modality: str
    orientation: str
    why: str
    reasons: tuple[Reason, ...]

    def policy(self, task: str, laterality: bool = False) -> Policy:
        """Give the policy for a task; `laterality` leaves mirrors out where the modality itself does not."""
        sided = laterality or self.orientation == "sided"
        symmetry: tuple[Step, ...] = ()
        if self.orientation == "free":
            symmetry = (Step("RandomRotate90") if sided else Step("D4"),)
        elif not sided:
            symmetry = (Step("HorizontalFlip", probability=0.5),)
        steps = (*symmetry, *(reason.step(task == "detection") for reason in self.reasons))
        return Policy(steps, laterality=sided, name=self.name)


def _frame(rotate: float, scale: float, shift: float, why: str, probability: float = 0.8) -> Reason:
    return Reason(
        "Affine",
        why,
        {"rotate": (-rotate, rotate), "scale": (1 - scale, 1 + scale), "translate_percent": (-shift, shift)},
        probability,
    )


MODALITIES: Mapping[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset(
            "bright-field",
            "bright-field microscopy: smears, cytology",
            "free",
            "a slide has no up",
            (
                _frame(45, 0.1, 0.05, "cells lie at any angle; size stays near, because it is often the finding"),
                Reason(
                    "RandomBrightnessContrast", "lamp and exposure", {"brightness_limit": (-0.15, 0.05), "contrast_limit": (-0.2, 0.2)}, 0.7
                ),
                Reason("ColorJitter", "stain batch and white balance", {"saturation": (0.75, 1.25), "hue": (-0.04, 0.04)}, 0.6),
                Reason("MicroscopeDefocus", "focus", {"radius": (0.5, 1.5)}, 0.2),
                Reason("Vignette", "uneven lighting", {"strength": (0.05, 0.25)}, 0.2),
                Reason("GaussNoise", "gain of the camera", {"std_range": (0.005, 0.03)}, 0.15),
            ),
        ),
        Preset(
            "fluorescence",
            "fluorescence microscopy",
            "free",
            "a dish has no up",
            (
                _frame(45, 0.15, 0.05, "cells lie at any angle"),
                Reason(
                    "RandomBrightnessContrast",
                    "expression, bleaching and exposure",
                    {"brightness_limit": (-0.05, 0.1), "contrast_limit": (-0.4, 0.4)},
                    0.7,
                ),
                Reason("RandomGamma", "how the camera's range was cut to what is stored", {"gamma_limit": (65.0, 150.0)}, 0.5),
                Reason("LowDose", "few photons: short exposures spare the cells", {"dose": (0.3, 0.9), "photons": 500.0}, 0.3),
                Reason("MicroscopeDefocus", "focus, and light from other planes", {"radius": (0.5, 2.0)}, 0.25),
                Reason("GaussNoise", "read-out noise", {"std_range": (0.005, 0.02)}, 0.2),
            ),
        ),
        Preset(
            "h-and-e",
            "histology, haematoxylin and eosin",
            "free",
            "a section has no up",
            (
                _frame(20, 0.1, 0.05, "framing"),
                Reason(
                    "StainJitter",
                    "stain strength differs between laboratories and batches",
                    {"scale": (0.85, 1.15), "shift": (-0.03, 0.03)},
                    0.8,
                ),
                Reason("RandomBrightnessContrast", "scanner", {"brightness_limit": (-0.1, 0.1), "contrast_limit": (-0.15, 0.15)}, 0.5),
                Reason("MicroscopeDefocus", "a fold or thick tissue leaves the focal plane", {"radius": (0.5, 1.5)}, 0.15),
                Reason("ImageCompression", "slide files are JPEG inside", {"quality_range": (50, 90)}, 0.2),
            ),
        ),
        Preset(
            "x-ray",
            "projection radiography",
            "sided",
            "the heart is on the left, and a mirrored film is an error, not a patient",
            (
                _frame(7, 0.07, 0.04, "patients do not stand straight"),
                Reason(
                    "RandomBrightnessContrast",
                    "exposure and window",
                    {"brightness_limit": (-0.15, 0.15), "contrast_limit": (-0.2, 0.2)},
                    0.7,
                ),
                Reason("RandomGamma", "the maker's grey curve", {"gamma_limit": (75.0, 135.0)}, 0.5),
                Reason("LowDose", "dose", {"dose": (0.4, 0.9)}, 0.2),
                Reason("GaussianBlur", "motion and focal spot", {"sigma_limit": (0.3, 1.0)}, 0.1),
            ),
        ),
        Preset(
            "ct",
            "computed tomography",
            "sided",
            "the liver is on the right",
            (
                _frame(10, 0.1, 0.03, "patients do not lie straight and are not of one size"),
                # Grey values are Hounsfield units: brightness and contrast mean something, and stay.
                Reason("HounsfieldGamma", "contrast inside the window, its ends kept", {"gamma": (0.85, 1.18)}, 0.3),
                Reason("GaussNoise", "dose and reconstruction", {"std_range": (0.005, 0.025)}, 0.3),
                Reason("GaussianBlur", "smooth kernels and thick slices", {"sigma_limit": (0.3, 1.0)}, 0.2),
                Reason("Sharpen", "sharp kernels", {"alpha": (0.05, 0.15)}, 0.1),
            ),
        ),
        Preset(
            "mr",
            "magnetic resonance imaging",
            "sided",
            "left and right of a brain are two findings",
            (
                _frame(10, 0.1, 0.03, "patients do not lie straight"),
                Reason("RandomGamma", "grey values have no unit: sequence and scanner bend them", {"gamma_limit": (70.0, 145.0)}, 0.5),
                Reason("RandomBrightnessContrast", "gain", {"brightness_limit": (-0.05, 0.1), "contrast_limit": (-0.25, 0.25)}, 0.5),
                Reason("BiasField", "coils are nearer to one side", {"strength": (0.05, 0.25)}, 0.4),
                Reason("RicianNoise", "noise of magnitude images", {"std": (0.005, 0.03)}, 0.2),
                Reason("Ghosting", "breath and pulse", {"intensity": (0.1, 0.4)}, 0.08),
                Reason("PatientMotion", "motion between lines of k-space", {}, 0.05),
                Reason("LowResolution", "matrix sizes differ", {"scale": (0.6, 0.9)}, 0.15),
            ),
        ),
        Preset(
            "fundus",
            "photographs of the retina",
            "upright",
            "a mirrored left eye is a right one; give laterality where the side itself is asked for",
            (
                _frame(15, 0.07, 0.04, "the head is not held straight"),
                Reason("Illumination", "light falls in through a pupil", {"intensity_range": (0.02, 0.15)}, 0.4),
                Reason("ColorJitter", "pigment and camera", {"saturation": (0.8, 1.2), "hue": (-0.02, 0.02)}, 0.5),
                Reason("RandomBrightnessContrast", "flash", {"brightness_limit": (-0.15, 0.15), "contrast_limit": (-0.2, 0.2)}, 0.6),
                Reason("MicroscopeDefocus", "cataract and focus", {"radius": (0.5, 1.5)}, 0.15),
                Reason("ImageCompression", "cameras store JPEG", {"quality_range": (60, 95)}, 0.15),
            ),
        ),
        Preset(
            "ultrasound",
            "ultrasound",
            "upright",
            "the probe may be held either way round, but depth goes down",
            (
                _frame(10, 0.1, 0.05, "the probe's angle"),
                Reason("MultiplicativeNoise", "speckle", {"multiplier": (0.88, 1.12)}, 0.4),
                Reason("RandomGamma", "gain and dynamic range", {"gamma_limit": (70.0, 145.0)}, 0.5),
                Reason("RandomBrightnessContrast", "gain", {"brightness_limit": (-0.15, 0.15), "contrast_limit": (-0.25, 0.25)}, 0.5),
                Reason("GaussianBlur", "frequency of the probe", {"sigma_limit": (0.3, 1.2)}, 0.15),
            ),
        ),
        Preset(
            "endoscopy",
            "endoscopy",
            "free",
            "the camera rolls",
            (
                _frame(45, 0.15, 0.05, "the camera rolls and comes nearer"),
                Reason("Illumination", "the lamp sits beside the lens", {"intensity_range": (0.02, 0.15)}, 0.4),
                Reason("ColorJitter", "white balance and blood", {"saturation": (0.8, 1.2), "hue": (-0.02, 0.02)}, 0.5),
                Reason(
                    "RandomBrightnessContrast", "automatic exposure", {"brightness_limit": (-0.2, 0.2), "contrast_limit": (-0.2, 0.2)}, 0.6
                ),
                Reason("MotionBlur", "the scope moves", {}, 0.2),
                Reason("ImageCompression", "video is compressed", {"quality_range": (40, 90)}, 0.25),
            ),
        ),
    )
}
"""Presets by modality."""
