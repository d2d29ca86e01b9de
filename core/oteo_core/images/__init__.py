"""Images: read a header, decode with depth and channels kept, bring to a model's input, encode, compare.

Nothing is decoded before the size that the header declares was held against :class:`ImageLimits`.
"""

from __future__ import annotations

from oteo_core.images.decoding import Image, decode, decode_labels
from oteo_core.images.depth import significant_bits
from oteo_core.images.encoding import encode_jpeg, encode_png
from oteo_core.images.geometry import Placement, nearest, place
from oteo_core.images.hashing import perceptual_hash, pixel_digest
from oteo_core.images.header import FORMATS, ImageHeader
from oteo_core.images.limits import ImageLimits
from oteo_core.images.policy import InputPolicy, prepare
from oteo_core.images.probing import probe

__all__ = [
    "FORMATS",
    "Image",
    "ImageHeader",
    "ImageLimits",
    "InputPolicy",
    "Placement",
    "decode",
    "decode_labels",
    "encode_jpeg",
    "encode_png",
    "nearest",
    "perceptual_hash",
    "pixel_digest",
    "place",
    "prepare",
    "probe",
    "significant_bits",
]
