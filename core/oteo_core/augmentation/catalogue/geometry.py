"""Transforms that move pixels, and annotations with them."""

from __future__ import annotations

from oteo_core.augmentation.catalogue.parameters import span, whole
from oteo_core.augmentation.catalogue.spec import TransformSpec

_REFLECT = 4
"""OpenCV's BORDER_REFLECT_101: what lies outside is mirrored in, so that no black corner tells an augmented image."""
_OWN = "oteo_core.augmentation.transforms"
_TURN = span(-15, 15, "Turn, against the clock", -360, 360, "degrees")
_SCALE = span(0.9, 1.1, "Scale", 0.1, 10, "times")
_MOVE = span(-0.05, 0.05, "Move along both axes", -1, 1, "share of the side")
_SHEAR = span(0, 0, "Shear along both axes", -60, 60, "degrees")
_HEIGHT = whole(224, "Height of the result", 1, 16384, "pixels")
_WIDTH = whole(224, "Width of the result", 1, 16384, "pixels")

GEOMETRY = (
    TransformSpec("HorizontalFlip", "Swaps left and right.", aliases=("mirror", "flip"), geometric=True, mirrors=True),
    TransformSpec("VerticalFlip", "Swaps top and bottom; with a half turn it is a mirror, too.", geometric=True, mirrors=True),
    TransformSpec("Transpose", "Swaps rows and columns, which mirrors too.", geometric=True, mirrors=True),
    TransformSpec("D4", "One of the eight symmetries of a square: quarter turns and mirrors.", geometric=True, mirrors=True),
    TransformSpec("RandomRotate90", "A number of quarter turns.", geometric=True),
    TransformSpec(
        "Affine",
        "Turns, scales, moves and shears; what lies outside is mirrored in.",
        {"rotate": _TURN, "scale": _SCALE, "translate_percent": _MOVE, "shear": _SHEAR},
        {"border_mode": _REFLECT, "keep_ratio": True},
        geometric=True,
        mixes=True,
        neutral={"rotate": (0.0, 0.0), "scale": (1.0, 1.0), "translate_percent": (0.0, 0.0), "shear": (0.0, 0.0)},
    ),
    TransformSpec(
        "Rotate",
        "Turns about the middle; the size stays, and what lies outside is mirrored in.",
        {"limit": _TURN},
        {"border_mode": _REFLECT},
        aliases=("rotate",),
        geometric=True,
        mixes=True,
        neutral={"limit": (0.0, 0.0)},
    ),
    TransformSpec(
        "Translate",
        "Moves along both axes; what lies outside is mirrored in.",
        {"translate_percent": _MOVE},
        {"border_mode": _REFLECT},
        aliases=("translation",),
        geometric=True,
        mixes=True,
        neutral={"translate_percent": (0.0, 0.0)},
        factory="albumentations:Affine",
    ),
    TransformSpec(
        "Shear",
        "Shears along both axes; what lies outside is mirrored in.",
        {"shear": span(-10, 10, "Shear along both axes", -60, 60, "degrees")},
        {"border_mode": _REFLECT},
        aliases=("shearing",),
        geometric=True,
        mixes=True,
        neutral={"shear": (0.0, 0.0)},
        factory="albumentations:Affine",
    ),
    TransformSpec(
        "Perspective",
        "Looks at the image a little from the side.",
        {"scale": span(0.02, 0.06, "How far the corners move", 0, 0.3, "share of the side")},
        {"border_mode": _REFLECT, "keep_size": True},
        geometric=True,
        mixes=True,
    ),
    TransformSpec(
        "ElasticTransform",
        "Bends as soft tissue under a cover glass does: random displacements, smoothed, which never fold.",
        {
            "displacement": span(0.005, 0.02, "Root mean square of the displacement along each axis", 0, 0.2, "share of the shorter side"),
            "smoothness": span(0.1, 0.2, "Distance over which it changes", 0.01, 1, "share of the shorter side"),
        },
        aliases=("elastic",),
        geometric=True,
        mixes=True,
        neutral={"displacement": (0.0, 0.0)},
        factory=f"{_OWN}.fields:ElasticTransform",
        source="Simard et al., 2003",
    ),
    TransformSpec(
        "OpticalDistortion",
        "Bends straight lines outwards or inwards, as wide lenses and endoscopes do.",
        {"strength": span(-0.08, 0.08, "Displacement in the corner, above 0 a barrel", -0.3, 0.3, "share of the half diagonal")},
        geometric=True,
        mixes=True,
        neutral={"strength": (0.0, 0.0)},
        factory=f"{_OWN}.fields:OpticalDistortion",
        source="Brown, 1966",
    ),
    TransformSpec(
        "RandomCropFromBorders",
        "Cuts a share off each side, each drawn by itself.",
        {"share": span(0, 0.1, "What is cut off one side", 0, 0.49, "share of the side")},
        aliases=("crop",),
        geometric=True,
        resizes=True,
        neutral={"share": (0.0, 0.0)},
        factory=f"{_OWN}.boxes:RandomCropFromBorders",
    ),
    TransformSpec(
        "RandomCrop",
        "Cuts out a box of a fixed size at a drawn place; a side that is shorter stays as it is.",
        {"height": _HEIGHT, "width": _WIDTH},
        aliases=("crop_size", "cropSize"),
        geometric=True,
        resizes=True,
        factory=f"{_OWN}.boxes:RandomCrop",
    ),
    TransformSpec(
        "CenterCrop",
        "Cuts a box of a fixed size out of the middle; a side that is shorter stays as it is.",
        {"height": _HEIGHT, "width": _WIDTH},
        {"center": True},
        geometric=True,
        resizes=True,
        factory=f"{_OWN}.boxes:RandomCrop",
    ),
    TransformSpec(
        "RandomResizedCrop",
        "Cuts out a part of a drawn area and shape and brings it to a fixed size.",
        {
            "height": _HEIGHT,
            "width": _WIDTH,
            "area": span(0.6, 1, "Area of the part", 0.01, 1, "share of the image"),
            "ratio": span(0.85, 1.18, "Width of the part by its height", 0.1, 10),
        },
        geometric=True,
        resizes=True,
        mixes=True,
        factory=f"{_OWN}.boxes:RandomResizedCrop",
        source="Szegedy et al., 2015",
    ),
    TransformSpec(
        "Resize",
        "Brings the image to a fixed size.",
        {"height": whole(512, "Height of the result", 1, 16384, "pixels"), "width": whole(512, "Width of the result", 1, 16384, "pixels")},
        aliases=("resize",),
        geometric=True,
        resizes=True,
        mixes=True,
        factory=f"{_OWN}.boxes:Resize",
    ),
    TransformSpec(
        "RandomScale",
        "Makes the image larger or smaller.",
        {"scale": span(0.8, 1.25, "The factor", 0.05, 8, "times")},
        geometric=True,
        resizes=True,
        mixes=True,
        neutral={"scale": (1.0, 1.0)},
        factory=f"{_OWN}.boxes:RandomScale",
    ),
    TransformSpec(
        "LongestMaxSize",
        "Scales the image so that its longer side has a length.",
        {"max_size": whole(512, "Length of the longer side", 1, 16384, "pixels")},
        {"side": "longest"},
        geometric=True,
        resizes=True,
        mixes=True,
        factory=f"{_OWN}.boxes:SideToSize",
    ),
    TransformSpec(
        "SmallestMaxSize",
        "Scales the image so that its shorter side has a length.",
        {"max_size": whole(512, "Length of the shorter side", 1, 16384, "pixels")},
        {"side": "smallest"},
        geometric=True,
        resizes=True,
        mixes=True,
        factory=f"{_OWN}.boxes:SideToSize",
    ),
)
