"""How an image's pixels compare with those that a model was trained on, said in findings."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from oteo_core.datasets import Finding, Severity
from oteo_core.images import InputPolicy, significant_bits
from oteo_core.images.depth import white

_CODE = "PIXEL_TYPE_SCALED"


def fit_findings(pixels: NDArray[Any], policy: InputPolicy, bit_depth: int = 0) -> tuple[Finding, ...]:
    """Say where pixels are of another type than the model's training images, and what was done.

    What a model was trained on stands in its policy: uint8 for images of 8 bits; float32 with a bit depth for such of 16 bits that fill so many;
    float32 without one for floating-point images.

    Parameters
    ----------
    pixels
        As they were decoded, ``(H, W, C)``.
    policy
        What the model takes.
    bit_depth
        Bits that the file declares of a 16-bit sample; 0: none.
    """
    name = pixels.dtype.name
    if policy.dtype == "uint8":
        return _for_bytes(pixels, policy, bit_depth)
    if policy.bit_depth:
        return _for_whole_numbers(pixels, policy)
    if name == "float32":
        return ()
    top = white(name, significant_bits(pixels, bit_depth))
    return (_warning(_CODE, f"The model was trained on floating-point images; these {_words(pixels)} were divided by {top:g}."),)


def _for_bytes(pixels: NDArray[Any], policy: InputPolicy, bit_depth: int) -> tuple[Finding, ...]:
    if pixels.dtype == np.uint8:
        return ()
    if pixels.dtype == np.uint16:
        bits = policy.bit_depth or significant_bits(pixels, bit_depth)
        return (
            Finding(
                Severity.INFO,
                _CODE,
                f"The model was trained on 8-bit images; the image's values of {bits} bits were scaled to 8, {white('uint16', bits):g} to 255.",
            ),
        )
    return (
        _warning(
            _CODE,
            "The model was trained on 8-bit images; floating-point values were taken as 0 (black) to 1 (white), and those beyond were cut: "
            "values that mean something else, as Hounsfield units, tell this model nothing.",
        ),
    )


def _for_whole_numbers(pixels: NDArray[Any], policy: InputPolicy) -> tuple[Finding, ...]:
    if pixels.dtype == np.uint8:
        return (
            _warning(_CODE, f"The model was trained on images of {policy.bit_depth} bits; the image's 8 bits were scaled, 255 to white."),
        )
    top = white("uint16", policy.bit_depth)
    if pixels.dtype == np.float32:
        return (
            _warning(_CODE, f"The model was trained on images of {policy.bit_depth} bits; floating-point values were taken as they are."),
        )
    if int(pixels.max(initial=0)) > top:
        return (
            _warning(
                "PIXEL_VALUES_CUT", f"The model's training images fill {policy.bit_depth} bits; values above {top:g} were cut to that."
            ),
        )
    return ()


def _words(pixels: NDArray[Any]) -> str:
    return "8-bit values" if pixels.dtype == np.uint8 else "16-bit values"


def _warning(code: str, message: str) -> Finding:
    return Finding(Severity.WARNING, code, message)
