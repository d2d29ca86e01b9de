"""Faults of magnetic resonance images that arise where they are recorded, in the space of spatial frequencies."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from oteo_core.augmentation.transforms.base import Span, UnitTransform


class Ghosting(UnitTransform):
    """Faint copies along the phase axis: every n-th line of frequencies is weaker, as with a pulsating or breathing patient.

    Axel et al., "Respiratory effects in two-dimensional Fourier transform MR imaging", 1986; made as in TorchIO (Perez-Garcia et al., 2021).

    Parameters
    ----------
    ghosts
        Number of copies.
    intensity
        By how much those lines are weakened, 0 to 1.
    p
        How likely it is applied.
    """

    def __init__(self, ghosts: tuple[int, int] = (2, 6), intensity: Span = (0.3, 0.7), p: float = 1.0) -> None:
        super().__init__(p=p)
        self.ghosts = ghosts
        self.intensity = intensity

    def get_params(self) -> dict[str, Any]:
        """Draw the phase axis, the number of copies and their intensity."""
        return {"axis": self.py_random.randrange(2), "count": self.py_random.randint(*self.ghosts), "loss": self.draw(self.intensity)}

    def change(self, pixels: NDArray[np.float32], **params: Any) -> NDArray[np.float32]:
        """Weaken the lines."""
        axis, length = params["axis"], pixels.shape[params["axis"]]
        if params["loss"] == 0:
            return pixels
        line = np.fft.rfftfreq(length, 1 / length)
        # The lowest frequencies hold the brightness of the whole; they are left alone.
        weaker = (line % params["count"] == 0) & (line > 0.01 * length)
        gain = np.where(weaker, 1 - params["loss"], 1.0)
        gain = gain[:, None, None] if axis == 0 else gain[None, :, None]
        changed = np.fft.irfft(np.fft.rfft(pixels, axis=axis) * gain, n=length, axis=axis)
        return changed.astype(np.float32)


class KSpaceSpikes(UnitTransform):
    """Stripes over the whole image: single frequencies that are far too strong, from a spark in the coil or its room.

    Heiland, "From A as in aliasing to Z as in zipper: artifacts in MRI", 2008. A spike and its mirror image in the space of frequencies
    are a wave in the image, which is added here.

    Parameters
    ----------
    count
        Number of spikes.
    intensity
        Amplitude of each wave, as a share of the full range.
    p
        How likely it is applied.
    """

    def __init__(self, count: tuple[int, int] = (1, 2), intensity: Span = (0.01, 0.03), p: float = 1.0) -> None:
        super().__init__(p=p)
        self.count = count
        self.intensity = intensity

    def get_params(self) -> dict[str, Any]:
        """Draw amplitude, direction, frequency (cycles a pixel) and phase of each wave."""
        waves = [
            (self.draw(self.intensity), self.draw((0, math.pi)), self.draw((0.05, 0.3)), self.draw((0, 2 * math.pi)))
            for _ in range(self.py_random.randint(*self.count))
        ]
        return {"waves": waves}

    def change(self, pixels: NDArray[np.float32], **params: Any) -> NDArray[np.float32]:
        """Add the waves."""
        down, across = np.ogrid[: pixels.shape[0], : pixels.shape[1]]
        added = np.zeros(pixels.shape[:2])
        for amplitude, direction, frequency, phase in params["waves"]:
            way = across * math.cos(direction) + down * math.sin(direction)
            added += amplitude * np.cos(2 * math.pi * frequency * way + phase)
        return pixels + added.astype(np.float32)[:, :, None]


class PatientMotion(UnitTransform):
    """Motion between the lines of frequencies: some were recorded of an image that had turned and moved.

    Shaw et al., "MRI k-space motion artefact augmentation", 2019. The lowest frequencies, which hold the shape of things, come from
    the image as it was, so that annotations stay right.

    Parameters
    ----------
    moves
        Number of times that the patient moves.
    shift
        How far, in pixels along each axis.
    rotate
        By how much the patient turns, in degrees.
    p
        How likely it is applied.
    """

    def __init__(self, moves: tuple[int, int] = (1, 3), shift: Span = (-2.0, 2.0), rotate: Span = (-1.5, 1.5), p: float = 1.0) -> None:
        super().__init__(p=p)
        self.moves = moves
        self.shift = shift
        self.rotate = rotate

    def get_params(self) -> dict[str, Any]:
        """Draw the phase axis, and for each move the share of lines from which it holds, shifts and turn."""
        moves = [
            (self.draw((0.08, 0.5)), self.draw(self.shift), self.draw(self.shift), self.draw(self.rotate))
            for _ in range(self.py_random.randint(*self.moves))
        ]
        return {"axis": self.py_random.randrange(2), "moves": sorted(moves), "side": self.py_random.choice((-1, 1))}

    def change(self, pixels: NDArray[np.float32], **params: Any) -> NDArray[np.float32]:
        """Put the frequencies together from the moved images."""
        moves = params["moves"]
        if all(x == 0 and y == 0 and turn == 0 for _, x, y, turn in moves):
            return pixels
        axis = params["axis"]
        height, width = pixels.shape[:2]
        line = np.fft.fftfreq(pixels.shape[axis]) * params["side"]
        line = line[:, None, None] if axis == 0 else line[None, :, None]
        recorded = np.fft.fft(pixels, axis=axis)
        for start, x, y, turn in moves:
            matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), turn, 1.0)
            matrix[:, 2] += x, y
            moved = cv2.warpAffine(np.ascontiguousarray(pixels), matrix, (width, height), borderMode=cv2.BORDER_REFLECT_101)
            recorded = np.where(line > start, np.fft.fft(moved.reshape(pixels.shape), axis=axis), recorded)
        return np.abs(np.fft.ifft(recorded, axis=axis)).astype(np.float32)
