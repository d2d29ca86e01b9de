"""Transforms that change colour."""

from __future__ import annotations

from oteo_core.augmentation.catalogue.parameters import choice, span, whole_span
from oteo_core.augmentation.catalogue.spec import TransformSpec

_OWN = "oteo_core.augmentation.transforms"
RGB = frozenset({3})
_KEEP = {"brightness": (1.0, 1.0), "contrast": (1.0, 1.0), "saturation": (1.0, 1.0), "hue": (0.0, 0.0)}
_SHIFT = span(0.03, 0.1, "What is added", -1, 1, "share of the full range")


def _raised(colour: str) -> TransformSpec:
    """Give CLoDSA's "raise" of one channel."""
    return TransformSpec(
        f"raise_{colour}",
        f"ColorShift on {colour} alone, upwards.",
        {"shift": _SHIFT},
        {"channel": colour},
        channels=RGB,
        unit_range=True,
        neutral={"shift": (0.0, 0.0)},
        factory=f"{_OWN}.colours:ColorShift",
    )


def _jitter(name: str, summary: str, part: str, low: float, high: float, lowest: float, highest: float, unit: str) -> TransformSpec:
    """Give `ColorJitter` of one of its four parts alone."""
    return TransformSpec(
        name,
        summary,
        {part: span(low, high, f"Change of the {part}", lowest, highest, unit)},
        {other: value for other, value in _KEEP.items() if other != part},
        channels=RGB,
        unit_range=True,
        neutral={part: _KEEP[part]},
        factory="albumentations:ColorJitter",
    )


COLOUR = (
    TransformSpec(
        "ColorJitter",
        "Changes brightness, contrast and saturation by factors and turns the hue.",
        {
            "brightness": span(1, 1, "Factor of the brightness", 0, 10),
            "contrast": span(1, 1, "Factor of the contrast", 0, 10),
            "saturation": span(0.8, 1.2, "Factor of the saturation", 0, 10),
            "hue": span(-0.03, 0.03, "Turn of the hue", -0.5, 0.5, "share of the colour circle"),
        },
        channels=RGB,
        unit_range=True,
        neutral=_KEEP,
    ),
    TransformSpec(
        "ColorShift",
        "Adds to each channel a draw of its own, or to one alone.",
        {
            "shift": span(-0.08, 0.08, "What is added", -1, 1, "share of the full range"),
            "channel": choice("all", ("all", "any", "red", "green", "blue"), "Which channel; any: one that is drawn"),
        },
        aliases=("shift_channel",),
        channels=RGB,
        unit_range=True,
        neutral={"shift": (0.0, 0.0)},
        factory=f"{_OWN}.colours:ColorShift",
    ),
    _raised("red"),
    _raised("green"),
    _raised("blue"),
    _jitter("raise_hue", "ColorJitter of the hue alone.", "hue", 0.01, 0.05, -0.5, 0.5, "share of the colour circle"),
    _jitter("raise_saturation", "ColorJitter of the saturation alone, upwards.", "saturation", 1.1, 1.5, 0, 10, "times"),
    _jitter("raise_value", "ColorJitter of the brightness alone, upwards.", "brightness", 1.05, 1.25, 0, 10, "times"),
    TransformSpec(
        "PlanckianJitter",
        "Changes the colour of the light, from that of a lamp to that of the sky.",
        {
            "temperature_limit": whole_span(
                5500, 7000, "Temperature of the light; 6000, that of white, must lie within", 3000, 15000, "kelvin"
            )
        },
        {"mode": "blackbody"},
        channels=RGB,
        unit_range=True,
        source="Zini et al., 2022",
    ),
    TransformSpec("ToGray", "Takes the colour away; three channels stay.", {}, {"num_output_channels": 3}, channels=RGB, unit_range=True),
    TransformSpec(
        "change_to_hsv",
        "Gives hue, saturation and value in place of red, green and blue, each scaled to the full range.",
        {},
        {"space": "hsv"},
        channels=RGB,
        unit_range=True,
        factory=f"{_OWN}.colours:ColorSpace",
    ),
    TransformSpec(
        "change_to_lab",
        "Gives lightness and the two colour axes of CIE L*a*b* in place of red, green and blue, each scaled to the full range.",
        {},
        {"space": "lab"},
        channels=RGB,
        unit_range=True,
        factory=f"{_OWN}.colours:ColorSpace",
    ),
    TransformSpec(
        "ChromaticAberration",
        "Moves the red and the blue plane apart towards the edge, as a lens that is not corrected does.",
        {
            "primary_distortion_limit": span(-0.01, 0.01, "First radial coefficient", -0.1, 0.1),
            "secondary_distortion_limit": span(-0.01, 0.01, "Second radial coefficient", -0.1, 0.1),
        },
        {"mode": "random"},
        channels=RGB,
        pixel_types=("uint8",),
        neutral={"primary_distortion_limit": (0.0, 0.0), "secondary_distortion_limit": (0.0, 0.0)},
    ),
)
