"""The transforms that a policy may use: their parameters, and for which pixels and annotations each is defined.

Importing it is cheap: albumentations, and what stands on it, is imported when the first transform is built.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from oteo_core.augmentation.catalogue.agreement import AGREEMENT
from oteo_core.augmentation.catalogue.blur import BLUR
from oteo_core.augmentation.catalogue.colour import COLOUR
from oteo_core.augmentation.catalogue.geometry import GEOMETRY
from oteo_core.augmentation.catalogue.medical import MEDICAL
from oteo_core.augmentation.catalogue.noise import HOLES, NOISE
from oteo_core.augmentation.catalogue.parameters import Kind, Parameter
from oteo_core.augmentation.catalogue.spec import PIXEL_TYPES, TransformSpec
from oteo_core.augmentation.catalogue.tone import TONE
from oteo_core.errors import InvalidArgument

__all__ = ["CATALOGUE", "PIXEL_TYPES", "Kind", "Parameter", "TransformSpec", "find_transform"]

_GROUPS = {
    "Geometry": GEOMETRY,
    "Brightness, contrast and the grey curve": TONE,
    "Colour": COLOUR,
    "Blurs and sharpening": BLUR,
    "Noise and compression": NOISE,
    "Missing parts": HOLES,
    "Microscopes, computed tomography and magnetic resonance": MEDICAL,
}

CATALOGUE: Mapping[str, TransformSpec] = {
    spec.name: replace(spec, group=group, agreement=AGREEMENT.get(spec.name)) for group, specs in _GROUPS.items() for spec in specs
}
"""The transforms by name."""

_BY_ANY_NAME = {name: spec for spec in CATALOGUE.values() for name in (spec.name, *spec.aliases)}


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
