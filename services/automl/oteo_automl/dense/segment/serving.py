"""What of a trained segmentation is exported, and the choices that are made on held-out images: mirroring, temperature, cleaning."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from oteo_automl.candidates.bank import spread
from oteo_automl.candidates.modules import SavedModule, Spec, build, saved
from oteo_core.evaluation.calibration import Calibration, fit_temperature
from oteo_core.evaluation.semantic import semantic_scores
from oteo_core.packages.answers import IGNORED, ClassMap
from oteo_core.packages.decoding.semantic import clean_map

MIRRORS: dict[str, tuple[tuple[int, ...], ...]] = {
    "": (),
    "left-right": ((3,),),
    "all": ((3,), (2,), (2, 3)),
}
"""Axes of ``(N, C, H, W)`` along which an image is mirrored beside being looked at as it is."""

_PIXELS_FITTED = 200_000
_GAIN = 0.003
_CLEANING_GAIN = 0.001
_LEAST_IMAGES = 4
_MIRRORED_AT_MOST = {"left-right": 512 * 512, "all": 320 * 320}
_JUDGED_AT_MOST = 96
_JUDGED_PIXELS = 24 * 256 * 256


class Mirrored(torch.nn.Module):
    """A network's maps, averaged over mirrored views of the image (nnU-Net's test-time augmentation), inside the graph.

    Parameters
    ----------
    network
        From ``(N, H, W, C)`` to ``(N, outputs, H, W)``.
    mirrors
        A name of `MIRRORS`.
    """

    def __init__(self, network: torch.nn.Module, mirrors: str) -> None:
        super().__init__()
        self.network = network
        self._axes = MIRRORS[mirrors]

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Give ``(N, outputs, H, W)`` float32."""
        total: torch.Tensor = self.network(image).float()
        for axes in self._axes:
            # The image has its channels last.
            total = total + self.network(image.flip([axis - 1 for axis in axes])).float().flip(list(axes))
        return total / (1 + len(self._axes))


class _Served(SavedModule):
    """A network, mirroring and temperature, as the exported graph computes them.

    Parameters
    ----------
    network
        Trained, or its spec.
    mirrors
        A name of `MIRRORS`.
    temperature
        Divides the logits of pixels' classes.
    """

    temperature: torch.Tensor

    def __init__(self, network: SavedModule | Spec, mirrors: str = "", temperature: float = 1.0) -> None:
        made = network if isinstance(network, SavedModule) else build(network)
        super().__init__(network=made.spec(), mirrors=mirrors, temperature=float(temperature))
        self.maps = Mirrored(made, mirrors)
        self.register_buffer("temperature", torch.tensor(float(temperature), dtype=torch.float32))


@saved
class ServedSemantic(_Served):
    """``label_map`` uint8 ``(N, H, W)`` and ``probabilities`` ``(N, K + 1, H, W)``."""

    kind = "served-semantic"

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Give label map and probabilities."""
        logits = self.maps(image) / self.temperature
        return logits.argmax(dim=1).to(torch.uint8), torch.softmax(logits, dim=1)


@saved
class ServedWatershed(_Served):
    """``probabilities`` ``(N, K + 1, H, W)`` and ``heights`` ``(N, H, W)`` of 0 to 1, from a network with heights last."""

    kind = "served-watershed"

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Give probabilities and heights."""
        outputs = self.maps(image)
        return torch.softmax(outputs[:, :-1] / self.temperature, dim=1), torch.sigmoid(outputs[:, -1])


@torch.inference_mode()
def run_maps(module: torch.nn.Module, images: NDArray[Any], rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Give ``(M, outputs, H, W)`` float32 of rows of the images, a few at a time."""
    size = max(1, min(16, 4 * 256 * 256 // int(np.prod(images.shape[1:3]))))
    parts = [
        module(torch.from_numpy(np.stack([images[row] for row in rows[start : start + size].tolist()]))).numpy()
        for start in range(0, len(rows), size)
    ]
    return np.concatenate(parts).astype(np.float32)


def choosing_rows(held_out: NDArray[np.int64], images: NDArray[Any], classes: int, most: int = _JUDGED_AT_MOST) -> NDArray[np.int64]:
    """Give the held-out rows that choices are made on: so few that time and memory (a few hundred megabytes of maps) stay small."""
    pixels = int(np.prod(images.shape[1:3]))
    few = _JUDGED_PIXELS // (pixels * max(1, (classes + 1) // 4))
    return judged_rows(held_out, int(np.clip(few, _LEAST_IMAGES, most)))


def judged_rows(held_out: NDArray[np.int64], most: int = _JUDGED_AT_MOST) -> NDArray[np.int64]:
    """Give the held-out rows that choices are made on: all, or `most` evenly spread ones."""
    return spread(held_out, most)


def choose_mirrors(
    network: SavedModule, images: NDArray[Any], rows: NDArray[np.int64], score: Callable[[NDArray[np.float32]], NDArray[np.float64]]
) -> tuple[str, NDArray[np.float32]]:
    """Choose mirroring and give its maps ``(M, outputs, H, W)`` of the rows.

    It multiplies the cost of an answer by two or four, so it is kept only where the images are small enough (512 x 512, 320 x 320) and `score`, a
    figure for each image, gains on average by more than its standard error and by at least .003.
    """
    plain = run_maps(network, images, rows)
    names = [name for name, pixels in _MIRRORED_AT_MOST.items() if int(np.prod(images.shape[1:3])) <= pixels]
    if len(rows) < _LEAST_IMAGES or not names:
        return "", plain
    best, maps, figures = "", plain, score(plain)
    for name in names:
        tried = run_maps(Mirrored(network, name), images, rows)
        found = score(tried)
        if gains(found - figures, _GAIN):
            best, maps, figures = name, tried, found
    return best, maps


def gains(differences: NDArray[np.float64], least: float) -> bool:
    """Say whether paired differences are on average at least `least` and above their standard error."""
    differences = differences[np.isfinite(differences)]
    if not len(differences):
        return False
    error = float(differences.std(ddof=1)) / np.sqrt(len(differences)) if len(differences) > 1 else 0.0
    return bool(differences.mean() >= least and differences.mean() > error)


def dice_by_image(maps: Sequence[NDArray[np.uint8]], truths: Sequence[NDArray[np.uint8]], classes: int) -> NDArray[np.float64]:
    """Give the mean Dice of each image over the classes that truth or answer has; NaN where neither has any."""
    return np.array(
        [
            semantic_scores([ClassMap(truth)], [ClassMap(found)], classes)["dice"]
            if ((truth > 0) & (truth != IGNORED)).any() or ((found > 0) & (truth != IGNORED)).any()
            else np.nan
            for found, truth in zip(maps, truths, strict=True)
        ]
    )


def pixel_temperature(logits: NDArray[np.float32], maps: NDArray[np.uint8], seed: int) -> Calibration | None:
    """Find the temperature of all pixels' classes on held-out images ``(M, K + 1, H, W)``; None where no pixel counts.

    Pixels of one image are much alike, so a couple of hundred thousand drawn ones say as much as all.
    """
    counted = np.flatnonzero(maps.ravel() != IGNORED)
    if not len(counted):
        return None
    rng = np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, 2, 0]))
    if len(counted) > _PIXELS_FITTED:
        counted = np.sort(rng.choice(counted, _PIXELS_FITTED, replace=False))
    extent = int(np.prod(logits.shape[2:]))
    chosen = logits.reshape(len(logits), logits.shape[1], extent)[counted // extent, :, counted % extent]
    return fit_temperature(chosen, maps.ravel()[counted].astype(np.int64))


def choose_cleaning(
    found: Sequence[NDArray[np.uint8]], truths: Sequence[NDArray[np.uint8]], classes: int, areas: Sequence[float]
) -> dict[str, Any]:
    """Find what of `clean_map` helps on held-out images, one thing after another on top of what was kept.

    Parameters
    ----------
    found, truths
        ``(h, w)`` uint8 in the prepared geometry, without what letterboxing added.
    classes
        K.
    areas
        Median area of a piece of each class, pixels; the least sizes that are tried are shares of it.

    Returns
    -------
    dict
        For `clean_map`; empty where nothing helped.
    """
    if len(found) < _LEAST_IMAGES:
        return {}
    decoding: dict[str, Any] = {}
    best = dice_by_image(found, truths, classes)

    def consider(changed: dict[str, Any]) -> bool:
        nonlocal decoding, best
        figures = dice_by_image([clean_map(labels, changed) for labels in found], truths, classes)
        # An image that holds nothing any more, and truly holds nothing, has become right.
        differences = np.where(np.isnan(figures), 1.0, figures) - np.where(np.isnan(best), 1.0, best)
        if gains(differences, _CLEANING_GAIN):
            decoding, best = changed, figures
            return True
        return False

    consider({"largest_foreground": True})
    for key in ("largest", "fill_holes"):
        for number in range(classes):
            consider(decoding | {key: _with(decoding.get(key), number, True, classes, False)})
    for number in range(classes):
        for share in (0.02, 0.05, 0.1, 0.2, 0.4):
            consider(decoding | {"smallest": _with(decoding.get("smallest"), number, max(2.0, share * areas[number]), classes, 0.0)})
    return decoding


def _with(values: list[Any] | None, number: int, value: Any, classes: int, default: Any) -> list[Any]:
    changed = list(values) if values else [default] * classes
    changed[number] = value
    return changed


def uncovered(labels: NDArray[Any], outside: int) -> tuple[slice, slice]:
    """Give the rows and columns of a prepared map that the image covers; letterboxing leaves `outside` around it."""
    inside = labels != outside
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    if not len(rows):
        return slice(0, labels.shape[0]), slice(0, labels.shape[1])
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
