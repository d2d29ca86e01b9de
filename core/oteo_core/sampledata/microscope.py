"""Two microscopes: how the same smear comes out under different stain, lamp, lens and camera."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from oteo_core.sampledata.cells import Smear
from oteo_core.sampledata.shapes import Field, pixel_grid, texture


@dataclass(frozen=True, slots=True)
class Microscope:
    """Stain, lamp, lens and camera.

    Attributes
    ----------
    name
        Part of the file names.
    radius
        Usual radius of a white cell, share of the picture's width.
    lamp
        Light of the empty field, red, green, blue, 0 to 1.
    basic, acid
        How much red, green and blue a density of 1 of each stain absorbs.
    red_density
        Acid density of red cells.
    rim
        Strength of the bright and dark rings at the edges of red cells.
    blur
        Range of the lens's blur, standard deviation, pixels at 112.
    vignette
        Largest loss of light at the corners, 0 to 1.
    noise
        Camera noise of a mid grey, 0 to 1.
    fringe
        Largest shift between the red and the blue picture (lateral colour), pixels at 112.
    """

    name: str
    radius: float
    lamp: tuple[float, float, float]
    basic: tuple[float, float, float]
    acid: tuple[float, float, float]
    red_density: float
    rim: float
    blur: tuple[float, float]
    vignette: float
    noise: float
    fringe: float


MICROSCOPES = (
    # A teaching microscope: halogen lamp without a blue filter, dry objective, pale haemoglobin, soft and grainy.
    Microscope("scope-a", 0.285, (0.985, 0.965, 0.70), (0.66, 1.00, 0.56), (0.10, 0.50, 0.50), 0.07, 0.10, (0.75, 1.25), 0.20, 0.016, 1.0),
    # A slide scanner: LED, oil objective, deep eosin, sharp.
    Microscope(
        "scope-b", 0.255, (0.955, 0.905, 0.915), (0.98, 1.14, 0.50), (0.17, 0.66, 0.54), 0.52, 0.025, (0.35, 0.75), 0.08, 0.009, 0.35
    ),
)


@dataclass(frozen=True, slots=True)
class Slide:
    """One patient's slide: what all its pictures share.

    Attributes
    ----------
    stain
        Depth of the stain, 1 as usual.
    balance
        Gains of red, green and blue.
    crowd
        Red cells per area, 1 as usual.
    red_radius
        Radius of red cells, in units of a white cell's.
    """

    stain: float
    balance: tuple[float, float, float]
    crowd: float
    red_radius: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Slide:
        """Draw one."""
        red, green, blue = (float(v) for v in np.exp(rng.normal(0.0, 0.025, 3)))
        return cls(float(rng.uniform(0.82, 1.15)), (red, green, blue), float(rng.uniform(0.5, 1.4)), float(rng.uniform(0.6, 0.72)))


def photograph(smear: Smear, microscope: Microscope, slide: Slide, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Take the picture.

    Parameters
    ----------
    smear
        What lies on the glass.
    microscope, slide
        With what, and whose.
    rng
        Every draw comes from it.

    Returns
    -------
    numpy.ndarray
        uint8 (size, size, 3), RGB.
    """
    size = smear.basic.shape[0]
    scale = size / 112.0
    light = np.empty((size, size, 3), np.float32)
    haze = 0.012 * texture(rng, size, 0.35 * size)
    for channel in range(3):
        density = smear.basic * np.float32(microscope.basic[channel]) + smear.acid * np.float32(microscope.acid[channel]) + haze
        light[..., channel] = np.float32(microscope.lamp[channel] * slide.balance[channel]) * np.exp(-density)
    light *= (1 + microscope.rim * np.clip(smear.rim, -1, 1))[..., None]

    sigma = float(rng.uniform(*microscope.blur)) * scale
    light = cv2.GaussianBlur(light, (0, 0), sigma)
    shift = rng.normal(0.0, microscope.fringe / 2, 2) * scale
    for channel, sign in ((0, 1.0), (2, -1.0)):
        matrix = np.array([[1, 0, sign * shift[0] / 2], [0, 1, sign * shift[1] / 2]], np.float64)
        light[..., channel] = cv2.warpAffine(
            light[..., channel], matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
    light *= _illumination(size, microscope, rng)[..., None]

    exposure = float(np.exp(rng.normal(0.0, 0.045)))
    light = np.clip(light * exposure, 0, 1)
    grain = rng.standard_normal(light.shape, dtype=np.float32)
    # Shot noise grows with the root of the light; the camera's own noise does not.
    light += microscope.noise * grain * (0.5 + np.sqrt(light))
    picture: npt.NDArray[np.uint8] = np.clip(light * 255 + 0.5, 0, 255).astype(np.uint8)
    return picture


def _illumination(size: int, microscope: Microscope, rng: np.random.Generator) -> Field:
    """Give the lamp's unevenness: darker to the corners, and a slope, about 1."""
    grid = pixel_grid(size)
    centre = size * (0.5 + rng.normal(0.0, 0.08, 2))
    x, y = (grid.x - np.float32(centre[0])) / size, (grid.y - np.float32(centre[1])) / size
    slope = rng.normal(0.0, 0.045, 2)
    fall = microscope.vignette * rng.uniform(0.4, 1.0)
    return (1 - np.float32(2 * fall) * (x * x + y * y) + np.float32(slope[0]) * x + np.float32(slope[1]) * y).astype(np.float32)
