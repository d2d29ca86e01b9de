"""The sample as a folder: class folders of PNG files named by microscope and patient, with a few flaws of real data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from oteo_core.sampledata.cells import KINDS, Smear, dirt, platelet, red_cell, white_cell
from oteo_core.sampledata.microscope import MICROSCOPES, Microscope, Slide, photograph
from oteo_core.sampledata.random import generator
from oteo_core.sampledata.shapes import pixel_grid

CLASSES = tuple(KINDS)
"""The classes, in alphabetical order; also the names of the folders."""

GROUP_PATTERN = r"patient-\d+"
"""Regular expression for the patient in a file's path: what an import's split is to keep together."""

PATIENTS = 24
"""Patients in a set; the even ones were seen under the first microscope, the odd ones under the second."""


@dataclass(frozen=True, slots=True)
class DrawnSet:
    """What was drawn.

    Attributes
    ----------
    folder
        Where the class folders lie.
    images
        The readable files, flaws among them.
    duplicates
        Files that are byte for byte another one, and which.
    near_duplicates
        Files that show what another one shows, saved again, and which.
    unreadable
        Files that break off in the middle.
    """

    folder: Path
    images: tuple[Path, ...]
    duplicates: dict[Path, Path]
    near_duplicates: dict[Path, Path]
    unreadable: tuple[Path, ...]


def draw_cell(index: int, *, seed: int = 7, size: int = 112) -> tuple[npt.NDArray[np.uint8], str, str]:
    """Draw one picture; the same whatever was drawn before.

    Parameters
    ----------
    index
        Number of the picture; it decides class, patient and microscope.
    seed
        Seed of the set.
    size
        Width and height, pixels, 48 to 1024.

    Returns
    -------
    tuple
        The picture, uint8 (size, size, 3) RGB; its class; the stem of its file's name.

    Raises
    ------
    ValueError
        If the size is out of range.
    """
    if not 48 <= size <= 1024:
        raise ValueError(f"size {size}: give 48 to 1024 pixels")
    rng = generator(seed, "cell", index)
    label = CLASSES[index % len(CLASSES)]
    # Runs of classes against runs of patients: every patient has cells of each class.
    patient = (index // len(CLASSES)) % PATIENTS
    microscope = MICROSCOPES[patient % len(MICROSCOPES)]
    slide = Slide.draw(generator(seed, "slide", patient))
    picture = _field(label, microscope, slide, size, rng)
    return picture, label, f"{microscope.name}_patient-{patient:02d}_{index:04d}"


def draw_cells(out: Path, *, count: int = 360, seed: int = 7, size: int = 112, flaws: bool = True) -> DrawnSet:
    """Draw a set into class folders.

    The same arguments give the same bytes on every run. With `flaws`, four files are added to the `count` drawn, as real
    folders have them: two copies of a file under other names, one picture saved again in another brightness, and one file that
    breaks off.

    Parameters
    ----------
    out
        Folder to draw into; made where it is missing. Files of the same names are replaced, others left.
    count
        Pictures, classes in turn.
    seed
        Seed of the set.
    size
        Width and height of a picture, pixels, 48 to 1024.
    flaws
        Whether to add the four flawed files; needs a count of at least 12.

    Returns
    -------
    DrawnSet
        The files.

    Raises
    ------
    ValueError
        If count or size is out of range.
    OSError
        If the folder cannot be written.
    """
    if count < 1 or (flaws and count < 12):
        raise ValueError(f"count {count}: give at least {12 if flaws else 1}")
    out = Path(out)
    for label in CLASSES:
        (out / label).mkdir(parents=True, exist_ok=True)
    images: list[Path] = []
    for index in range(count):
        picture, label, stem = draw_cell(index, seed=seed, size=size)
        path = out / label / f"{stem}.png"
        path.write_bytes(_png(picture))
        images.append(path)
    if not flaws:
        return DrawnSet(out, tuple(images), {}, {}, ())

    duplicates: dict[Path, Path] = {}
    for number, index in enumerate((4, 9)):
        original = images[index]
        # The same picture in another patient's name: the split has to keep both on one side.
        copy = original.with_name(original.stem.replace(_patient(original), f"patient-{20 + number:02d}") + "-copy.png")
        copy.write_bytes(original.read_bytes())
        duplicates[copy] = original
    original = images[8]
    again = original.with_name(f"{original.stem}-brighter.png")
    pixels = cv2.cvtColor(draw_cell(8, seed=seed, size=size)[0], cv2.COLOR_RGB2BGR).astype(np.float32)
    again.write_bytes(_encode(np.clip(pixels * 1.03 + 1.5, 0, 255).astype(np.uint8)))
    broken = images[5].with_name(f"{images[5].stem}-interrupted.png")
    data = _png(draw_cell(count, seed=seed, size=size)[0])
    broken.write_bytes(data[: len(data) // 3])
    return DrawnSet(out, (*images, *duplicates, again), duplicates, {again: original}, (broken,))


def _field(label: str, microscope: Microscope, slide: Slide, size: int, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Draw one white cell among its neighbours."""
    grid = pixel_grid(size)
    smear = Smear.clear(size)
    radius = microscope.radius * size
    x, y = (size * (0.5 + float(v)) for v in np.clip(rng.normal(0.0, 0.075, 2), -0.17, 0.17))

    red = radius * slide.red_radius
    wanted = int(rng.poisson(9 * slide.crowd * (0.255 / microscope.radius) ** 2))
    for _ in range(wanted):
        place = rng.uniform(-0.15, 1.15, 2) * size
        # A cell is pushed aside by the white one, and may touch it.
        if np.hypot(place[0] - x, place[1] - y) > radius * 1.05 + red * rng.uniform(0.55, 1.0):
            red_cell(smear, grid, rng, float(place[0]), float(place[1]), red * rng.uniform(0.9, 1.1), microscope.red_density * slide.stain)
    for _ in range(int(rng.poisson(0.8))):
        place = rng.uniform(0, 1, 2) * size
        platelet(smear, grid, rng, float(place[0]), float(place[1]), radius * rng.uniform(0.13, 0.22), slide.stain)
    white_cell(smear, grid, KINDS[label], rng, x, y, radius, slide.stain)
    for _ in range(int(rng.poisson(0.5))):
        place = rng.uniform(0, 1, 2) * size
        dirt(smear, grid, rng, float(place[0]), float(place[1]), radius * rng.uniform(0.12, 0.5))
    return photograph(smear, microscope, slide, rng)


def _patient(path: Path) -> str:
    return next(part for part in path.stem.split("_") if part.startswith("patient-"))


def _png(picture: npt.NDArray[np.uint8]) -> bytes:
    return _encode(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))


def _encode(bgr: npt.NDArray[np.uint8]) -> bytes:
    done, data = cv2.imencode(".png", bgr, [cv2.IMWRITE_PNG_COMPRESSION, 6])
    if not done:
        raise ValueError("OpenCV could not encode a picture as PNG")
    return bytes(data)
