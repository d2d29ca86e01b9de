"""White blood cells, red blood cells and what else lies on a smear, as optical densities of two stains.

A Romanowsky stain (Wright, Giemsa) has two parts: a basic, blue one that nuclei and basophilic cytoplasm take up, and an
acid, red one that haemoglobin and granules take up. A field is therefore drawn as two density maps; the microscope
(`oteo_core.sampledata.microscope`) makes a colour image of them by Beer and Lambert's law.

What tells the classes apart is what a haematologist looks at: neutrophils have a nucleus of two to five lobes on thin
bridges and fine granules, lymphocytes a round nucleus that almost fills the cell, monocytes a large folded nucleus, kidney
or horseshoe, in grey cytoplasm with vacuoles. Size, place, turn and depth of stain overlap between classes on purpose.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from oteo_core.sampledata.shapes import Field, Grid, arc, capsule, coverage, disc, ellipse, texture, union, without, wobble


@dataclass(slots=True)
class Smear:
    """What lies on the glass.

    Attributes
    ----------
    basic, acid
        Optical densities of the blue and the red stain, float32 (size, size), 0 where the glass is clear.
    rim
        Refraction at edges, float32 (size, size), added to the light: brighter above 0, darker below.
    """

    basic: Field
    acid: Field
    rim: Field

    @classmethod
    def clear(cls, size: int) -> Smear:
        """Give a clean slide."""
        return cls(*(np.zeros((size, size), np.float32) for _ in range(3)))

    def cover(self, mask: Field, basic: Field | float, acid: Field | float) -> None:
        """Lay something opaque to what is below it, where `mask` is 1."""
        self.basic += mask * (basic - self.basic)
        self.acid += mask * (acid - self.acid)
        self.rim *= 1 - mask


def lobed_nucleus(grid: Grid, rng: np.random.Generator) -> Field:
    """Give a neutrophil's nucleus: two to five lobes along a bent line, joined by thin bridges. Unit: the cell's radius."""
    count = int(rng.choice([2, 3, 4, 5], p=[0.14, 0.42, 0.34, 0.10]))
    step = rng.uniform(0.95, 1.25) * {2: 1.7, 3: 1.35, 4: 1.12, 5: 0.95}[count]
    size = {2: 0.36, 3: 0.315, 4: 0.275, 5: 0.245}[count] * rng.uniform(0.94, 1.08)
    orbit = rng.uniform(0.44, 0.54)
    turn = -step * (count - 1) / 2
    centres, shape = [], np.full_like(grid.x, 9.0)
    for lobe in range(count):
        angle = turn + lobe * step + rng.normal() * 0.08
        radius = orbit * rng.uniform(0.82, 1.1)
        x, y = radius * np.cos(angle) - 0.12, radius * np.sin(angle)
        along, across = size * rng.uniform(0.95, 1.3), size * rng.uniform(0.78, 1.02)
        part = ellipse(grid, x, y, along, across, angle + np.pi / 2 + rng.normal() * 0.5)
        part = part + wobble(grid.local(x, y, 1.0), rng, 0.018, 2, 4)
        shape = union(shape, part, 0.05)
        centres.append((x, y))
    for start, end in pairwise(centres):
        shape = union(shape, capsule(grid, start, end, rng.uniform(0.045, 0.085)), 0.05)
    return shape


def round_nucleus(grid: Grid, rng: np.random.Generator) -> Field:
    """Give a lymphocyte's nucleus: round to oval, now and then with a shallow notch. Unit: the cell's radius."""
    radius = rng.uniform(0.64, 0.86)
    oval = rng.uniform(0.88, 1.0)
    shift = (0.9 - radius) * rng.uniform(0.0, 0.8)
    shape = ellipse(grid, shift, 0.0, radius, radius * oval, rng.uniform(0, np.pi))
    shape = shape + wobble(grid, rng, 0.014, 2, 5)
    if rng.random() < 0.22:
        side = rng.uniform(0, 2 * np.pi)
        notch = disc(grid, shift + 1.02 * radius * np.cos(side), 1.02 * radius * np.sin(side), radius * rng.uniform(0.10, 0.2))
        shape = without(shape, notch, 0.12)
    return shape


def folded_nucleus(grid: Grid, rng: np.random.Generator) -> Field:
    """Give a monocyte's nucleus: a kidney, a horseshoe or a fold. Unit: the cell's radius."""
    if rng.random() < 0.55:
        thick = rng.uniform(0.27, 0.35)
        shape = arc(grid.local(-0.12, 0.0, 1.0), rng.uniform(0.36, 0.46), rng.uniform(2.6, 3.9), thick)
    else:
        along, across = rng.uniform(0.68, 0.8), rng.uniform(0.5, 0.62)
        shape = ellipse(grid, 0.06, 0.0, across, along, 0.0)
        bite = ellipse(
            grid, -0.06 - across * rng.uniform(0.62, 0.8), rng.normal() * 0.1, 0.42 * rng.uniform(0.8, 1.15), 0.24, rng.normal() * 0.25
        )
        shape = without(shape, bite, 0.14)
    return shape + wobble(grid, rng, 0.022, 2, 6)


@dataclass(frozen=True, slots=True)
class Kind:
    """How one class of cell looks.

    Attributes
    ----------
    nucleus
        Draws the nucleus's outline.
    radius
        Range of the cell's radius, in units of the field's usual radius.
    cytoplasm
        Basic and acid density of the cytoplasm.
    granules, vacuoles
        How strong the fine acid grain is, and how many clear bubbles there are at most.
    chromatin
        Width of the nucleus's clumps, share of the radius, and how strong they are.
    """

    nucleus: Callable[[Grid, np.random.Generator], Field]
    radius: tuple[float, float]
    cytoplasm: tuple[float, float]
    granules: float
    vacuoles: int
    chromatin: tuple[float, float]


KINDS = {
    "lymphocyte": Kind(round_nucleus, (0.74, 1.06), (0.34, 0.12), 0.02, 1, (0.30, 0.13)),
    "monocyte": Kind(folded_nucleus, (0.92, 1.20), (0.30, 0.15), 0.05, 5, (0.16, 0.16)),
    "neutrophil": Kind(lobed_nucleus, (0.84, 1.12), (0.22, 0.22), 0.12, 0, (0.22, 0.15)),
}


def white_cell(smear: Smear, grid: Grid, kind: Kind, rng: np.random.Generator, x: float, y: float, radius: float, stain: float) -> None:
    """Draw one white cell.

    Parameters
    ----------
    smear
        Drawn into.
    grid
        The pixels' coordinates.
    kind
        Which class.
    rng
        Every draw comes from it.
    x, y, radius
        Centre and usual radius, pixels.
    stain
        How deep the stain is, 1 as usual.
    """
    size = grid.x.shape[0]
    radius *= rng.uniform(*kind.radius)
    local = grid.local(x, y, radius, rng.uniform(0, 2 * np.pi))
    stretch = rng.uniform(0.88, 1.0)
    body = ellipse(local, 0.0, 0.0, 1.0, stretch, rng.uniform(0, np.pi)) + wobble(local, rng, 0.018, 2, 7)
    edge = 2.2 / radius
    inside = coverage(body, edge)

    # Depths vary from cell to cell more than between classes, so that mean colour says little.
    depth = stain * rng.uniform(0.78, 1.18)
    tone = rng.normal(0.0, 0.05, 2)
    cloud = texture(rng, size, 0.5 * radius) * 0.05
    basic = (kind.cytoplasm[0] + tone[0]) * depth * (1 + cloud)
    acid = (kind.cytoplasm[1] + tone[1]) * depth * (1 - cloud)
    speckle = np.clip(texture(rng, size, 0.085 * radius), 0, None)
    acid = acid + speckle * kind.granules * depth * rng.uniform(0.6, 1.4)
    membrane = np.exp(-(((body + 0.03) / 0.05) ** 2)) * 0.07 * depth
    for _ in range(int(rng.integers(0, kind.vacuoles + 1))):
        angle, distance = rng.uniform(0, 2 * np.pi), rng.uniform(0.45, 0.88)
        bubble = coverage(disc(local, distance * np.cos(angle), distance * np.sin(angle), rng.uniform(0.05, 0.1)), edge)
        basic, acid = basic * (1 - 0.75 * bubble), acid * (1 - 0.75 * bubble)
    smear.cover(inside, (basic + membrane).astype(np.float32), acid.astype(np.float32))

    shape = np.maximum(kind.nucleus(local, rng), body + 0.04)
    width, strength = kind.chromatin
    clumps = texture(rng, size, max(width * radius, 1.5))
    fine = texture(rng, size, max(0.09 * radius, 1.0))
    density = rng.uniform(0.98, 1.3) * stain * (1 + strength * rng.uniform(0.8, 1.3) * clumps + 0.06 * fine)
    border = np.exp(-(((shape + 0.04) / 0.05) ** 2)) * 0.12 * stain
    smear.cover(coverage(shape, edge * 0.9), (density + border).astype(np.float32), (0.42 * density + 0.1 * stain).astype(np.float32))


def red_cell(smear: Smear, grid: Grid, rng: np.random.Generator, x: float, y: float, radius: float, density: float) -> None:
    """Draw one red cell: a disc thinner in the middle, so paler there; see-through where it lies on another."""
    local = grid.local(x, y, radius, rng.uniform(0, np.pi))
    body = ellipse(local, 0.0, 0.0, 1.0, rng.uniform(0.82, 1.0), 0.0) + wobble(local, rng, 0.02, 2, 5)
    inside = coverage(body, 1.8 / radius)
    pallor = np.exp(-((np.hypot(local.x + rng.normal() * 0.08, local.y + rng.normal() * 0.08) / rng.uniform(0.34, 0.52)) ** 2))
    thickness = 1 - rng.uniform(0.35, 0.75) * pallor
    smear.acid += inside * thickness * np.float32(density * rng.uniform(0.85, 1.15))
    smear.basic += inside * thickness * np.float32(0.16 * density)
    smear.rim += (np.exp(-(((body - 0.05) / 0.05) ** 2)) - np.exp(-(((body + 0.04) / 0.05) ** 2))).astype(np.float32)


def platelet(smear: Smear, grid: Grid, rng: np.random.Generator, x: float, y: float, radius: float, stain: float) -> None:
    """Draw one platelet: small, without a nucleus, grainy."""
    local = grid.local(x, y, radius, rng.uniform(0, np.pi))
    body = ellipse(local, 0.0, 0.0, 1.0, rng.uniform(0.6, 1.0), 0.0) + wobble(local, rng, 0.08, 2, 6)
    grain = 1 + 0.35 * texture(rng, grid.x.shape[0], max(0.5 * radius, 1.2))
    smear.cover(coverage(body, 2.0 / radius), 0.42 * stain * grain, 0.3 * stain * grain)


def dirt(smear: Smear, grid: Grid, rng: np.random.Generator, x: float, y: float, radius: float) -> None:
    """Draw a speck far out of focus: a soft dark blot."""
    local = grid.local(x, y, radius, rng.uniform(0, np.pi))
    blot = np.exp(-((np.hypot(local.x, local.y * rng.uniform(1.0, 1.9)) / 0.7) ** 2)).astype(np.float32)
    smear.basic += blot * np.float32(rng.uniform(0.08, 0.38))
    smear.acid += blot * np.float32(rng.uniform(0.05, 0.35))
