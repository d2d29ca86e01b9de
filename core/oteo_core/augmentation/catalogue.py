"""The transforms that a policy may use, by albumentations' names, and for which pixels each is defined."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from oteo_core.errors import InvalidArgument

_REFLECT = 4
"""OpenCV's BORDER_REFLECT_101: what lies outside is mirrored in, so that no black corner tells an augmented image."""


@dataclass(frozen=True)
class TransformSpec:
    """One transform.

    Attributes
    ----------
    name
        As albumentations calls it, in version 2.0.
    summary
        What it does, a sentence.
    parameters
        The parameters that may be given, with their defaults.
    fixed
        Parameters that are not for a policy to change.
    aliases
        Other names.
    geometric
        True if it moves pixels.
    mirrors
        True if it can swap left and right.
    channels
        Numbers of channels that it is defined for; empty: any.
    unit_range
        True if it computes with brightness: floating-point pixels must then lie in 0 to 1. 16-bit pixels are computed in
        float32 and rounded back, which keeps all their bits.
    mixes
        True if it only takes weighted means of pixels: floating-point pixels of any finite range then go through it scaled.
    in_float
        True if 8-bit pixels are computed in float32, too, because albumentations' table cuts fractions off.
    """

    name: str
    summary: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()
    geometric: bool = False
    mirrors: bool = False
    channels: frozenset[int] = frozenset()
    unit_range: bool = False
    mixes: bool = False
    in_float: bool = False

    def check_names(self, given: Mapping[str, Any], *, field: str) -> None:
        """Raise InvalidArgument BAD_PARAMETER for a parameter that the transform does not have."""
        unknown = sorted(set(given) - set(self.parameters))
        if unknown:
            known = ", ".join(sorted(self.parameters)) or "none"
            raise InvalidArgument(
                f"{self.name} has no parameter {', '.join(map(repr, unknown))}; it has: {known}",
                reason="BAD_PARAMETER",
                field=f"{field}.{unknown[0]}",
            )


_SPECS = (
    TransformSpec("HorizontalFlip", "Swaps left and right.", aliases=("mirror",), geometric=True, mirrors=True),
    TransformSpec("VerticalFlip", "Swaps top and bottom; with a half turn it is a mirror, too.", geometric=True, mirrors=True),
    TransformSpec("D4", "One of the eight symmetries of a square: quarter turns and mirrors.", geometric=True, mirrors=True),
    TransformSpec("RandomRotate90", "A number of quarter turns.", geometric=True),
    TransformSpec(
        "Affine",
        "Turns (degrees), scales, moves (share of the side) and shears (degrees); what lies outside is mirrored in.",
        {"rotate": (-15.0, 15.0), "scale": (0.9, 1.1), "translate_percent": (-0.05, 0.05), "shear": (0.0, 0.0)},
        {"border_mode": _REFLECT, "keep_ratio": True},
        geometric=True,
        mixes=True,
    ),
    TransformSpec(
        "RandomBrightnessContrast",
        "Adds to the brightness and multiplies the contrast, as shares of the full range.",
        {"brightness_limit": (-0.2, 0.2), "contrast_limit": (-0.2, 0.2)},
        aliases=("brightness_contrast",),
        unit_range=True,
    ),
    TransformSpec(
        "RandomGamma", "Bends the grey curve; percent.", {"gamma_limit": (80.0, 120.0)}, aliases=("gamma",), unit_range=True, in_float=True
    ),
    TransformSpec(
        "ColorJitter",
        "Changes brightness, contrast and saturation by factors and the hue by a share of the colour circle.",
        {"brightness": (1.0, 1.0), "contrast": (1.0, 1.0), "saturation": (0.8, 1.2), "hue": (-0.03, 0.03)},
        channels=frozenset({3}),
        unit_range=True,
    ),
    TransformSpec("GaussianBlur", "Blurs as a lens out of focus does; pixels.", {"sigma_limit": (0.3, 1.2)}, {"blur_limit": 0}, mixes=True),
    TransformSpec("GaussNoise", "Adds noise, as a share of the full range.", {"std_range": (0.01, 0.04)}, unit_range=True),
)

CATALOGUE: Mapping[str, TransformSpec] = {spec.name: spec for spec in _SPECS}
"""The transforms by name."""

_BY_ANY_NAME = {name: spec for spec in _SPECS for name in (spec.name, *spec.aliases)}


def find_transform(name: str, *, field: str = "transform") -> TransformSpec:
    """Give a transform by its name or an alias.

    Raises
    ------
    InvalidArgument
        UNKNOWN_TRANSFORM.
    """
    try:
        return _BY_ANY_NAME[name]
    except KeyError:
        known = ", ".join(sorted(CATALOGUE))
        raise InvalidArgument(f"there is no transform {name!r}; there are: {known}", reason="UNKNOWN_TRANSFORM", field=field) from None
