"""How far images are from home in what the frozen model sees: KID and FID of its embeddings, as figures of a way's evidence.

The model is the domain encoder: it knows home's images as no network of everyday photographs does. Figures of one translator compare with each other, since the
encoder, home's images and the judged ones are the same for all ways; those of two models do not. Nothing is chosen by them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oteo_core.evaluation.bootstrap import LEVEL
from oteo_core.packages import MetricValue
from oteo_translate.measures.fid import Distance, fid, kid

KID, FID = "kid", "fid"

IMAGES, HOME_IMAGES, DIMENSIONS = "embedded_images", "embedded_home_images", "embedding_dimensions"
"""Figures that say what the distances stand on."""

INCEPTION_KID, INCEPTION_FID, INCEPTION_IMAGES = "kid_inception", "fid_inception_64", "inception_images"
"""The same by Inception, where its weights are given, and the images that they stand on: see `oteo_translate.measures.inception`."""

RESAMPLES = {KID: 100, FID: 40}
"""A way is judged with them: together they take some 30 ms for 64 images against 256."""

_LEAST = 2


class HomeMeasures:
    """Measures sets of embeddings against those of one home.

    Embeddings are divided by one number, the root of home's mean square, so that the kernel's constant of 1 means the same whatever the encoder's units are:
    pooled features of Inception, which the kernel was made for, are of that size.

    Parameters
    ----------
    home
        Embeddings ``(M, D)`` of home images.
    home_groups
        Of each: what belongs together (a patient); empty or None: every image is alone.
    seed
        Of the resamples, which are the same for all that is measured.
    """

    def __init__(self, home: NDArray[Any], home_groups: Sequence[Any] | None = None, *, seed: int = 0) -> None:
        wide = np.asarray(home, dtype=np.float64)
        size = float(np.sqrt(np.square(wide).mean())) if wide.size else 0.0
        self._scale = size if np.isfinite(size) and size > 0 else 1.0
        self._home = wide / self._scale
        self._groups = None if home_groups is None or not len(home_groups) else list(home_groups)
        self._seed = seed

    def of(self, embeddings: NDArray[Any], groups: Sequence[Any] | NDArray[Any] | None = None) -> dict[str, float]:
        """Measure a set.

        Parameters
        ----------
        embeddings
            ``(N, D)``.
        groups
            Of its images; None: every image is alone.

        Returns
        -------
        dict
            ``kid`` with ``kid_lower`` and ``kid_upper`` where there are two groups of either set; the same of ``fid`` where both sets have more images than
            dimensions, as the covariance of fewer is singular and FID is too large by much; `IMAGES`, `HOME_IMAGES`, `DIMENSIONS`. Empty where embeddings
            are not numbers or of fewer than two images: what is told beside the verdict must not cost it.
        """
        ours = np.asarray(embeddings, dtype=np.float64) / self._scale
        if min(len(ours), len(self._home)) < _LEAST or not (np.isfinite(ours).all() and np.isfinite(self._home).all()):
            return {}
        both = None if groups is None else list(groups), self._groups
        found = {KID: kid(ours, self._home, groups=both, seed=self._seed, resamples=RESAMPLES[KID])}
        if min(len(ours), len(self._home)) > ours.shape[1]:
            found[FID] = fid(ours, self._home, groups=both, seed=self._seed, resamples=RESAMPLES[FID])
        figures = {IMAGES: float(len(ours)), HOME_IMAGES: float(len(self._home)), DIMENSIONS: float(ours.shape[1])}
        for name, distance in found.items():
            figures |= distance_figures(name, distance)
        return figures


def distance_figures(name: str, distance: Distance) -> dict[str, float]:
    """Give a distance as figures: `name`, and ``{name}_lower`` and ``{name}_upper`` where it has an interval."""
    if distance.interval is None:
        return {name: distance.value}
    return {name: distance.value, f"{name}_lower": distance.interval.lower, f"{name}_upper": distance.interval.upper}


def distances_of(figures: Mapping[str, float]) -> list[MetricValue]:
    """Read KID, then FID, then those by Inception from the figures of a way's evidence; those that are not there are left out."""
    found = []
    for name, images in ((KID, IMAGES), (FID, IMAGES), (INCEPTION_KID, INCEPTION_IMAGES), (INCEPTION_FID, INCEPTION_IMAGES)):
        if name in figures:
            lower, upper = figures.get(f"{name}_lower"), figures.get(f"{name}_upper")
            level = LEVEL if lower is not None and upper is not None else 0.0
            found.append(MetricValue(name, figures[name], lower, upper, level, sample_count=int(figures.get(images, 0))))
    return found
