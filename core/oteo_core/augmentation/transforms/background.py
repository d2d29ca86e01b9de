"""Another background behind the objects."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from oteo_core.augmentation.transforms.base import Span, UnitTransform, seeded

_SOFT = 0.12
"""Standard deviation of the blur that an image's own background is left with, as a share of its smaller side."""


class BackgroundReplacement(UnitTransform):
    """Keeps the pixels of objects and replaces all others, so that a model cannot lean on what lies around its objects.

    The new background is made of the old one's colour, moved by a draw: even, of a smooth texture, or the old one smeared. What is an object
    comes from the annotations, as ``objects``; without any there is nothing to keep, and the step is not taken.

    Parameters
    ----------
    kind
        "even", "texture", "smeared", or "any": one of them is drawn.
    shift
        What is added to the old background's median, each channel by its own draw, as a share of the full range.
    contrast
        Standard deviation of the texture, as a share of the full range.
    grain
        Size of the texture's patches, as a share of the smaller side.
    p
        How likely it is applied.
    """

    def __init__(
        self, kind: str = "any", shift: Span = (-0.1, 0.1), contrast: Span = (0.02, 0.08), grain: Span = (0.02, 0.2), p: float = 1.0
    ) -> None:
        super().__init__(p=p)
        self.kind = kind
        self.shift = shift
        self.contrast = contrast
        self.grain = grain

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        """Draw the kind, the colour and the texture."""
        shape = data["image"].shape
        channels = shape[2] if len(shape) > 2 else 1
        kinds = ("even", "texture", "smeared")
        drawn = self.py_random.choice(kinds)
        return {
            "background": drawn if self.kind == "any" else self.kind,
            "colour": [self.draw(self.shift) for _ in range(channels)],
            "deviation": self.draw(self.contrast),
            "patch": self.draw(self.grain),
            "seed": self.draw_seed(),
        }

    def change(self, pixels: NDArray[np.float32], **params: Any) -> NDArray[np.float32]:
        """Put the new background where no object is."""
        objects: NDArray[np.bool_] = params["objects"]
        if objects.all():
            return pixels
        shift = np.asarray(params["colour"], np.float32)[: pixels.shape[2]]
        outside = ~objects
        middle = np.median(pixels[outside], axis=0).astype(np.float32)
        if (middle == middle[0]).all():
            shift = shift[:1]  # a grey picture in three channels stays grey
        new = _smeared(pixels, outside) + shift if params["background"] == "smeared" else np.broadcast_to(middle + shift, pixels.shape)
        if params["background"] == "texture":
            new = new + params["deviation"] * _texture(pixels.shape, params["patch"], params["seed"])
        return np.where(objects[:, :, None], pixels, new).astype(np.float32)


def _texture(shape: tuple[int, ...], patch: float, seed: int) -> NDArray[np.float32]:
    """Give smooth noise (H, W, C) of mean 0 and standard deviation 1, the same in all channels."""
    height, width = shape[:2]
    sigma = max(0.5, patch * min(height, width) / 2)
    noise = cv2.GaussianBlur(seeded(seed).standard_normal((height, width)).astype(np.float32), (0, 0), sigma, borderType=cv2.BORDER_REFLECT)
    noise = (noise - noise.mean()) / max(float(noise.std()), 1e-6)
    return np.broadcast_to(noise[:, :, None], shape)


def _smeared(pixels: NDArray[np.float32], outside: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Blur the background alone: the light of objects does not come in (normalised convolution, Knutsson and Westin, 1993)."""
    sigma = max(1.0, _SOFT * min(outside.shape))
    weight = outside.astype(np.float32)
    blurred = [cv2.GaussianBlur(pixels[:, :, c] * weight, (0, 0), sigma) for c in range(pixels.shape[2])]
    share = cv2.GaussianBlur(weight, (0, 0), sigma)
    middle = np.median(pixels[outside], axis=0)
    # Deep inside a large object no background is near: its median stands there.
    return np.stack([np.where(share > 1e-4, b / np.maximum(share, 1e-4), m) for b, m in zip(blurred, middle, strict=True)], axis=2)
