"""How far shifted images are from home by the usual network, Inception-v3, as they are and translated: KID and FID, told beside those of the frozen model.

KID stands on the 2,048 figures of the network's end, in their own units, as it was made. FID of so many figures takes more images than a training reads, and is
far too large of fewer; it stands on the 64 of the first pooling, which tell of colour, contrast and edges more than of what is shown. Nothing is chosen by them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oteo_core.evaluation.bootstrap import generator
from oteo_translate.domains import Domain
from oteo_translate.measures.encoders import LAST, Encoder
from oteo_translate.measures.fid import fid, kid
from oteo_translate.measures.home import FID, INCEPTION_FID, INCEPTION_IMAGES, INCEPTION_KID, KID, RESAMPLES, distance_figures

MOST_IMAGES = 256
"""Of each set."""

LEAST_IMAGES = 8
"""Of each set, without which nothing is told."""

CHANNELS = (1, 3)
"""Of images that the network takes."""

_BATCH = 16
_MARGIN = 1.5
"""A batch may take so many times as long as the one before."""


def measure_by_inception(
    encoder: Encoder,
    home: Domain,
    shifted: Domain,
    translated: Callable[[NDArray[Any]], NDArray[Any]] | None,
    *,
    until: float,
    seed: int = 0,
    check: Callable[[], None] = lambda: None,
) -> tuple[dict[str, float], dict[str, float]]:
    """Measure as many images as there is time for, `MOST_IMAGES` of each set at most, drawn by the seed.

    Parameters
    ----------
    encoder
        Of `oteo_translate.measures.encoders.open_inception`.
    home, shifted
        Prepared images of 1 or 3 channels.
    translated
        What makes translations of shifted images; None: they are measured as they are alone.
    until
        Seconds since 1970 when the last batch has to be done; figures of it take a second or two.
    seed
        Of draw and resamples.
    check
        Raises where the job is to stop; asked between batches.

    Returns
    -------
    as they are, translated
        Figures for evidence: ``kid_inception`` and, of more than 64 images of either set, ``fid_inception_64``, with ``_lower`` and ``_upper`` where either
        set has two groups; ``inception_images``, of the shifted set. Empty where there was no time for `LEAST_IMAGES`, where the network's answers are no
        numbers, and the second without a translation.
    """
    theirs, ours = (
        generator(seed, "inception", which).permutation(len(one))[:MOST_IMAGES] for which, one in (("home", home), ("shifted", shifted))
    )
    seen: tuple[list[NDArray[np.float32]], ...] = ([], [], [])
    done, size, pace = 0, 1, 0.0
    while done < max(len(theirs), len(ours)):
        check()
        began = time.time()
        if began >= until:
            break
        if pace > 0:
            size = min(size, int((until - began) / (_MARGIN * pace)))
        if size < 1:
            break
        places = slice(done, done + size)
        if len(theirs[places]):
            seen[0].append(encoder(home.images[theirs[places]]))
        if len(ours[places]):
            images = np.ascontiguousarray(shifted.images[ours[places]])
            seen[1].append(encoder(images))
            if translated is not None:
                seen[2].append(encoder(translated(images)))
        done += size
        pace = (time.time() - began) / size
        size = min(2 * size, _BATCH)
    theirs, ours = theirs[:done], ours[:done]
    if min(len(theirs), len(ours)) < LEAST_IMAGES:
        return {}, {}
    groups = [shifted.groups[row] for row in ours], [home.groups[row] for row in theirs]
    known = np.concatenate(seen[0])
    before, after = (_figures(np.concatenate(one), known, groups, seed) if one else {} for one in seen[1:])
    return before, after


def _figures(
    embeddings: NDArray[np.float32], home: NDArray[np.float32], groups: tuple[list[str], list[str]], seed: int
) -> dict[str, float]:
    if not (np.isfinite(embeddings).all() and np.isfinite(home).all()):
        return {}
    last, first = (embeddings[:, :LAST], home[:, :LAST]), (embeddings[:, LAST:], home[:, LAST:])
    figures = {INCEPTION_IMAGES: float(len(embeddings))}
    figures |= distance_figures(INCEPTION_KID, kid(*last, groups=groups, seed=seed, resamples=RESAMPLES[KID]))
    if min(len(embeddings), len(home)) > first[0].shape[1]:
        figures |= distance_figures(INCEPTION_FID, fid(*first, groups=groups, seed=seed, resamples=RESAMPLES[FID]))
    return figures
