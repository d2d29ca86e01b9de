"""The one way from decoded pixels to a model's input: in training, in parity checks and in the gateway."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from oteo_core.errors import InvalidArgument
from oteo_core.images.depth import significant_bits, white
from oteo_core.images.geometry import place


@dataclass(frozen=True, slots=True)
class InputPolicy:
    """What a model takes.

    Parameters
    ----------
    width, height
        Pixels.
    channels
        1 for grey, 3 for colour, or as many as the images have.
    dtype
        "uint8", or "float32" with values of 0 to 1 (the share of the pixel type's range; float pixels are taken as they are).
    resize
        "stretch" fills the input; "letterbox" keeps the proportions and pads with zeros, the image in the middle.
    interpolation
        "area" averages when shrinking (no aliasing) and is linear when enlarging; "linear" is linear always.
    bit_depth
        Bits that 16-bit images fill, 1 to 16: 12 where the model was trained on a 12-bit detector's; what goes beyond is white. 0: each
        image's own, as a model that was trained on 8-bit images needs it.
    """

    width: int
    height: int
    channels: int = 3
    dtype: str = "uint8"
    resize: str = "stretch"
    interpolation: str = "area"
    bit_depth: int = 0

    def __post_init__(self) -> None:
        """Refuse values that `prepare` does not know."""
        if min(self.width, self.height, self.channels) < 1:
            raise InvalidArgument(
                f"an input of {self.width} x {self.height} with {self.channels} channels cannot be", reason="BAD_INPUT_POLICY"
            )
        for field, value, known in (
            ("dtype", self.dtype, ("uint8", "float32")),
            ("resize", self.resize, ("stretch", "letterbox")),
            ("interpolation", self.interpolation, ("area", "linear")),
        ):
            if value not in known:
                raise InvalidArgument(f"input policy: {field} is {value!r}; it may be {' or '.join(known)}", reason="BAD_INPUT_POLICY")
        if not 0 <= self.bit_depth <= 16:
            raise InvalidArgument(f"input policy: bit_depth is {self.bit_depth}; it may be 0 to 16", reason="BAD_INPUT_POLICY")

    def to_dict(self) -> dict[str, Any]:
        """Give the fields, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> InputPolicy:
        """Read the fields that `to_dict` gave; unknown ones are left aside, so that newer packages can be read."""
        # What was written before the bit depth was known took 65535 for white.
        return cls(**{"bit_depth": 16} | {name: fields[name] for name in cls.__dataclass_fields__ if name in fields})

    def to_json(self) -> str:
        """Give the fields as JSON text."""
        return json.dumps(self.to_dict(), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> InputPolicy:
        """Read what `to_json` gave."""
        return cls.from_dict(json.loads(text))


def prepare(pixels: NDArray[Any], policy: InputPolicy, bit_depth: int = 0) -> NDArray[Any]:
    """Bring decoded pixels to a model's input.

    Parameters
    ----------
    pixels
        (H, W, C), uint8, uint16 or float32, as `decode` gives them.
    policy
        What the model takes.
    bit_depth
        Bits that the file says a 16-bit image fills; it counts where the policy says nothing. 0: they tell it themselves.

    Returns
    -------
    ndarray
        (policy.height, policy.width, policy.channels) of policy.dtype, C-contiguous.

    Raises
    ------
    InvalidArgument
        CHANNELS_MISMATCH where the image's channels cannot be brought to the policy's.
    """
    top = white(pixels.dtype.name, policy.bit_depth or significant_bits(pixels, bit_depth))
    shaped = _with_channels(pixels, policy.channels, top)
    shaped = _resized(shaped, policy)
    return np.ascontiguousarray(_with_dtype(shaped, policy.dtype, top))


def _with_channels(pixels: NDArray[Any], wanted: int, top: float) -> NDArray[Any]:
    if pixels.shape[2] == wanted:
        return pixels
    if pixels.shape[2] in (2, 4):
        pixels = _on_black(pixels, top)
    have = pixels.shape[2]
    if have == wanted:
        return pixels
    if have == 1 and wanted == 3:
        return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB))
    if have == 3 and wanted == 1:
        return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY))[:, :, None]
    raise InvalidArgument(
        f"the image has {have} channels, the model takes {wanted}: give it images like those it was trained on", reason="CHANNELS_MISMATCH"
    )


def _on_black(pixels: NDArray[Any], top: float) -> NDArray[Any]:
    """Lay an image with alpha on black: what is transparent has arbitrary colours below it."""
    colour, alpha = pixels[:, :, :-1], pixels[:, :, -1:]
    if (alpha >= top).all():
        return np.ascontiguousarray(colour)
    laid = colour.astype(np.float32) * np.minimum(alpha.astype(np.float32) / top, 1.0)
    return np.asarray(laid if pixels.dtype == np.float32 else np.rint(laid).astype(pixels.dtype))


def _resized(pixels: NDArray[Any], policy: InputPolicy) -> NDArray[Any]:
    height, width = pixels.shape[:2]
    if policy.resize == "stretch":
        return _scaled(pixels, policy.width, policy.height, policy.interpolation)
    at = place(width, height, policy)
    inner = _scaled(pixels, at.inner_width, at.inner_height, policy.interpolation)
    canvas = np.zeros((policy.height, policy.width, pixels.shape[2]), pixels.dtype)
    canvas[at.top : at.top + at.inner_height, at.left : at.left + at.inner_width] = inner
    return canvas


def _scaled(pixels: NDArray[Any], width: int, height: int, interpolation: str) -> NDArray[Any]:
    if interpolation == "linear":
        return _cv_resize(pixels, width, height, cv2.INTER_LINEAR)
    # OpenCV's area mode averages only where both sides shrink: each side has its own step where one grows.
    shrunk_width, shrunk_height = min(width, pixels.shape[1]), min(height, pixels.shape[0])
    shrunk = _cv_resize(pixels, shrunk_width, shrunk_height, cv2.INTER_AREA)
    return _cv_resize(shrunk, width, height, cv2.INTER_LINEAR)


def _cv_resize(pixels: NDArray[Any], width: int, height: int, mode: int) -> NDArray[Any]:
    if pixels.shape[:2] == (height, width):
        return pixels
    resized = np.asarray(cv2.resize(pixels, (width, height), interpolation=mode))
    return resized[:, :, None] if resized.ndim == 2 else resized


def _with_dtype(pixels: NDArray[Any], dtype: str, top: float) -> NDArray[Any]:
    if pixels.dtype.name == dtype:
        return pixels
    if dtype == "float32":
        share = pixels.astype(np.float32) / np.float32(top)
        return np.minimum(share, np.float32(1.0)) if pixels.dtype == np.uint16 else share
    if pixels.dtype == np.uint16:
        whole = int(top)
        return np.asarray((np.minimum(pixels, whole).astype(np.uint32) * 255 + whole // 2) // whole).astype(np.uint8)
    return np.asarray(np.rint(np.clip(np.nan_to_num(pixels), 0.0, 1.0) * 255.0).astype(np.uint8))
