"""The gate: whether a translation leaves anatomy as it is, by the images themselves and by what the model finds in them.

On shifted images the structure before and after is compared (`oteo_translate.ladder.structure`). On home images, which the model understands, its answers
are compared: the images are given the shifted look by a curve for each channel, which cannot move anything, then translated back, and the model must find
there what it finds in the images as they are, as nearly as it does without the translation.

Rare spoiling is looked for image by image: `oteo_translate.ladder.rare`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats

from oteo_core.evaluation.bootstrap import LEVEL, bootstrap, encode_groups, generator, percentile_interval
from oteo_core.packages import MetricValue
from oteo_translate.domains import Domain
from oteo_translate.ladder.rare import Inspection, inspect_each
from oteo_translate.ladder.structure import Structure, compare_structure
from oteo_translate.methods.base import Translation
from oteo_translate.tasks.model import TaskModel

LEAST_KEPT = 0.6
"""Share of the structure that has to be kept on average."""

WORST_PLACE = 0.75
"""Share of a small place's structure from which it counts as lost or invented there."""

MOST_SPOILT = 0.1
"""Share of images that may have such a place."""

LEAST_EDGES = 0.2
"""Correlation of edges that has to be left on average: a mirrored or moved image has less."""

MASKS_LOSS = 0.15
"""What agreement with the answers at home may lose against images that were not translated."""

COUNT_CHANGE = 0.5
"""Share by which the mean number of objects may change, and by half an object at least."""

_CURVE = 65
_LEAST_GROUPS = 3
"""Of home images, to tell an agreement that rose from luck."""

_BATCH = 16


@dataclass(frozen=True, slots=True)
class Gate:
    """What the gate found.

    Parameters
    ----------
    figure
        ``structure_kept``: the mean share of structure that is kept, with its interval.
    figures
        More numbers by name.
    complaint
        Why the translation is rejected; empty where it may pass.
    inspection
        Image by image.
    """

    figure: MetricValue
    figures: dict[str, float]
    complaint: str
    inspection: Inspection


class Anatomy:
    """The gate for one model and its two domains.

    Parameters
    ----------
    model
        Frozen.
    shifted
        Judged images.
    home
        Some two dozen images.
    opposite
        What is bright in one domain is dark in the other: the shifted look is imitated likewise.
    seed, check
        As of `Judge`.
    """

    def __init__(
        self,
        model: TaskModel,
        shifted: Domain,
        home: Domain,
        *,
        opposite: bool = False,
        seed: int = 0,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self._model, self._shifted, self._seed, self._check = model, shifted, seed, check
        self._groups = encode_groups(home.groups, len(home))
        answers = model.answers(home.images)
        self._truths, self._counts = model.as_truths(answers), model.counts(answers)
        self._imitated = imitate(home.images, shifted.images, falling=opposite)
        check()
        untouched = model.answers(self._imitated)
        self._untouched = model.scores(self._truths, untouched)
        self.masks_kept = _mean(self._untouched)
        self.objects = float(self._counts.mean()), float(model.counts(untouched).mean())

    def inspect(self, translation: Translation, translated: NDArray[Any]) -> Gate:
        """Inspect a translation.

        Parameters
        ----------
        translation
            From shifted to home.
        translated
            The judged images after it.
        """
        structure = compare_structure(self._shifted.images, translated, self._check)
        figures = {
            "structure_lost": float(structure.lost.mean()),
            "structure_invented": float(structure.invented.mean()),
            "spoilt_images": float((structure.worst > WORST_PLACE).mean()),
            "edge_correlation": float(structure.edges.mean()),
            **self.at_home(self._model, translation),
        }
        inspection = inspect_each(structure, self._shifted.ids)
        complaint = self._complaint(structure, figures) or inspection.complaint
        return Gate(self._kept(structure), figures | inspection.figures(), complaint, inspection)

    def at_home(self, model: TaskModel, translation: Translation | None) -> dict[str, float]:
        """Say what is found in home images of the shifted look, after a way: agreement with what the frozen model finds in them as they are, and objects.

        Parameters
        ----------
        model
            The frozen one, or an adapted one.
        translation
            None: the images stay as they are.
        """
        images = self._imitated if translation is None else translate(translation, self._imitated, self._check)
        after = model.answers(images)
        scores = model.scores(self._truths, after)
        return {
            "masks_kept": _mean(scores),
            "masks_kept_untouched": self.masks_kept,
            "masks_p_value": _p_value(scores - self._untouched, self._groups),
            "objects_at_home": self.objects[0],
            "objects_after": float(model.counts(after).mean()),
        }

    def _complaint(self, structure: Structure, figures: dict[str, float]) -> str:
        lost, new = (float((worst > WORST_PLACE).mean()) for worst in (structure.worst_lost, structure.worst_invented))
        if figures["edge_correlation"] < LEAST_EDGES:
            return f"edges are not where they were (correlation {figures['edge_correlation']:.2f})"
        if lost > MOST_SPOILT:
            return f"in {lost:.0%} of the images something is gone that was there"
        if new > MOST_SPOILT:
            return f"in {new:.0%} of the images something is there that was not"
        if float(structure.kept.mean()) < LEAST_KEPT:
            return f"only {float(structure.kept.mean()):.0%} of the structure is kept"
        if figures["masks_kept"] < self.masks_kept - MASKS_LOSS:
            return f"on home images the model no longer finds what is there (agreement {figures['masks_kept']:.2f}, untranslated {self.masks_kept:.2f})"
        allowed = max(0.5, COUNT_CHANGE * self.objects[0])
        before = abs(self.objects[1] - self.objects[0])
        if abs(figures["objects_after"] - self.objects[0]) > before + allowed:
            return f"on home images the model finds {figures['objects_after']:.1f} objects where there are {self.objects[0]:.1f}"
        return ""

    def _kept(self, structure: Structure) -> MetricValue:
        kept = np.clip(structure.kept, 0.0, 1.0)
        groups = encode_groups(self._shifted.groups, len(kept))
        drawn = bootstrap(lambda weights: (weights @ kept / weights.sum(axis=1))[:, None], groups, generator(self._seed, "structure"))
        interval = percentile_interval(drawn[:, 0])
        lower, upper = (interval.lower, interval.upper) if interval else (None, None)
        return MetricValue("structure_kept", float(kept.mean()), lower, upper, LEVEL if interval else 0.0, "test", "", len(kept))


def imitate(home: NDArray[Any], shifted: NDArray[Any], *, falling: bool = False) -> NDArray[Any]:
    """Give home images the shifted look as far as a rising curve for each channel can: the quantiles of all pixels are matched.

    Parameters
    ----------
    home, shifted
        ``(N, H, W, C)`` and ``(M, H, W, C)`` uint8, or float32 of 0 to 1.
    falling
        By a falling curve: the brightest at home become the darkest, as between fluorescence and stained sections.
    """
    grid = np.linspace(0.0, 1.0, _CURVE)
    out = np.empty_like(home)
    for channel in range(home.shape[3]):
        source = np.quantile(home[..., channel].astype(np.float64), grid)
        target = np.quantile(shifted[..., channel].astype(np.float64), grid[::-1] if falling else grid)
        # What many pixels share is one step of the curve, and goes to the middle of what it stands for.
        values, places = np.unique(source, return_inverse=True)
        means = np.bincount(places, weights=target) / np.bincount(places)
        mapped = np.interp(home[..., channel].astype(np.float64), values, means)
        out[..., channel] = np.rint(mapped) if home.dtype == np.uint8 else mapped
    return out


@torch.inference_mode()
def translate(translation: Translation, images: NDArray[Any], check: Callable[[], None] = lambda: None) -> NDArray[Any]:
    """Translate prepared images ``(N, H, W, C)``, as the served graph does: uint8 in, uint8 out."""
    parts = []
    for start in range(0, len(images), _BATCH):
        check()
        part = torch.from_numpy(np.ascontiguousarray(images[start : start + _BATCH])).permute(0, 3, 1, 2)
        planes = part.float() / 255.0 if images.dtype == np.uint8 else part
        found = translation(planes).permute(0, 2, 3, 1).cpu().numpy()
        parts.append(np.rint(found * 255.0).clip(0, 255).astype(np.uint8) if images.dtype == np.uint8 else found.astype(images.dtype))
    return np.concatenate(parts)


def _mean(values: NDArray[np.float64]) -> float:
    return float(np.nanmean(values)) if np.isfinite(values).any() else 0.0


def _p_value(differences: NDArray[np.float64], groups: NDArray[np.int64]) -> float:
    """Give the one-sided p-value of a mean above 0, by Student's t-test of the means of groups; 1 where there are too few to tell."""
    known = np.isfinite(differences)
    if not known.any():
        return 1.0
    _, places = np.unique(groups[known], return_inverse=True)
    means = np.bincount(places, weights=differences[known]) / np.bincount(places)
    if len(means) < _LEAST_GROUPS:
        return 1.0
    if np.ptp(means) == 0.0:
        return 0.0 if means[0] > 0 else 1.0
    return float(stats.ttest_1samp(means, 0.0, alternative="greater").pvalue)
