"""Which transforms the second engine does, and how closely it does them as the first.

The numbers hold for every image of the conformance suite, and are in 255ths of the full range whatever the type of the pixels: 1 is one
grey level of 8 bits, and 0.004 one of 16. For floating point of another range, the range of the image's values is the full range.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple


class Bound(NamedTuple):
    """How far an image of one engine may be from that of the other.

    Attributes
    ----------
    mean
        Largest mean of the absolute differences, in 255ths of the full range.
    far
        Difference that few values go beyond, in 255ths of the full range.
    share
        The largest share of them.
    """

    mean: float
    far: float
    share: float


@dataclass(frozen=True, slots=True)
class Agreement:
    """How closely two engines agree, and why not more.

    Attributes
    ----------
    name
        A word for it.
    eight
        For 8 bits.
    deep
        For 16 bits and floating point.
    reason
        What makes the difference.
    """

    name: str
    eight: Bound
    deep: Bound
    reason: str

    def bound(self, pixel_type: str) -> Bound:
        """Give the bound for "uint8", "uint16" or "float32"."""
        return self.eight if pixel_type == "uint8" else self.deep


_NONE = Bound(0.0, 0.0, 0.0)
_LEVEL = Bound(0.02, 1.0, 0.0)
_DIGITS = Bound(0.002, 0.02, 0.0)

SAME = Agreement("same", _NONE, _NONE, "pixels are copied or set; none is computed")
ROUNDED = Agreement(
    "rounded", _LEVEL, _DIGITS, "sums are taken in another order, so a value between two whole numbers may be rounded the other way"
)
STEPPED = Agreement(
    "stepped",
    Bound(0.02, 1.0, 0.001),
    Bound(0.002, 0.02, 0.001),
    "as rounded, and a value at a threshold, or between two bins of a histogram, may fall on its other side",
)
RESIZED = Agreement("resized", Bound(0.3, 1.0, 0.0), _DIGITS, "OpenCV enlarges 8 bits with weights of eleven bits")
MOVED = Agreement(
    "moved", Bound(0.3, 6.0, 0.001), Bound(0.3, 6.0, 0.001), "OpenCV takes the place of a pixel to 1/32, the second engine as it was drawn"
)
HUED = Agreement("hue", Bound(0.5, 2.0, 0.02), _DIGITS, "OpenCV holds hues of 8 bits in steps of two degrees, and rounds on the way")
LAB = Agreement("lab", Bound(0.3, 1.0, 0.0), Bound(0.3, 1.0, 0.0), "OpenCV looks CIE L*a*b* up in a table, the second engine computes it")

_KINDS: Mapping[Agreement, tuple[str, ...]] = {
    SAME: (
        *("HorizontalFlip", "VerticalFlip", "Transpose", "D4", "RandomRotate90", "RandomCropFromBorders", "RandomCrop", "CenterCrop"),
        *("InvertImg", "NoOp", "MedianBlur", "SaltAndPepper", "PixelDropout", "CoarseDropout", "Erasing", "GridDropout"),
    ),
    ROUNDED: (
        *("Translate", "RandomBrightnessContrast", "RandomGamma", "RandomToneCurve", "AutoContrast", "ColorShift", "raise_red"),
        *("raise_green", "raise_blue", "raise_saturation", "raise_value", "PlanckianJitter", "ToGray", "change_to_hsv", "GaussianBlur"),
        *("Blur", "MotionBlur", "AdvancedBlur", "MicroscopeDefocus", "Sharpen", "RingingOvershoot", "GaussNoise"),
        *("MultiplicativeNoise", "StainJitter", "Vignette", "BiasField"),
    ),
    STEPPED: ("Equalize", "UnsharpMask"),
    RESIZED: ("RandomResizedCrop", "Resize", "RandomScale", "LongestMaxSize", "SmallestMaxSize", "LowResolution"),
    MOVED: ("Affine", "Rotate", "Shear", "Perspective", "ElasticTransform", "OpticalDistortion"),
    HUED: ("ColorJitter", "raise_hue"),
    LAB: ("change_to_lab",),
}

AGREEMENT: Mapping[str, Agreement] = {name: kind for kind, names in _KINDS.items() for name in names}
"""The transforms that the second engine does, by name."""
KINDS: tuple[Agreement, ...] = tuple(_KINDS)
"""The kinds of agreement there are."""
