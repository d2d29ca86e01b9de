"""Which images are fitted on, which are judged, and which the gate looks at."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oteo_core.errors import InvalidArgument
from oteo_core.evaluation.bootstrap import encode_groups, generator
from oteo_translate.domains import Domain
from oteo_translate.ladder.rare import INSPECTED
from oteo_translate.tasks.model import TaskModel

LEAST_IMAGES = 3

JUDGED = 64
"""Shifted images that are judged, at most; where there are twice as many, others are fitted on."""

HOME = 256
"""Home images that are looked at, at most."""

GATE = 24
"""Home images that the gate looks at, at most."""

FITTED = 512

TONED = 64
"""Images of each domain whose brightness is looked at."""

_SKEWED = 0.25
"""Measured: stained sections and smears -.7 to -1.4 (medians), fluorescence 3.0, MR slices .6."""

_SAME = 0.5
"""Share of shifted images that are home's from which the two sets are one."""


@dataclass(frozen=True, slots=True)
class Sets:
    """What `prepare_sets` gives; `unjudged` are shifted images that are not judged, to inspect; `same` where the two sets are one."""

    fit: Domain
    judged: Domain
    unjudged: Domain
    home: Domain
    gate: Domain
    same: bool


def prepare_sets(model: TaskModel, shifted: Domain, home: Domain, seed: int) -> Sets:
    """Check two domains against the model, and deal their images.

    Images that both hold are taken out of home. Labelled images are judged; of the rest whole groups are drawn.

    Raises
    ------
    InvalidArgument
        ``TOO_FEW_IMAGES``, ``CHANNELS_MISMATCH``, ``SIZE_MISMATCH``, ``NOT_FINITE``.
    """
    policy = model.package.input
    for domain in (shifted, home):
        if len(domain) < LEAST_IMAGES:
            raise InvalidArgument(f"{domain.name} has {len(domain)} images; {LEAST_IMAGES} are needed at least", reason="TOO_FEW_IMAGES")
        if domain.channels != policy.channels:
            raise InvalidArgument(
                f"{domain.name} has {domain.channels} channels and {model.package.name} takes {policy.channels}", reason="CHANNELS_MISMATCH"
            )
        if domain.images.shape[1:3] != (policy.height, policy.width):
            raise InvalidArgument(f"{domain.name} is not prepared for {model.package.name}", reason="SIZE_MISMATCH")
        if domain.images.dtype.kind == "f" and not all(np.isfinite(image).all() for image in domain.images):
            raise InvalidArgument(f"{domain.name} holds pixels that are no numbers", reason="NOT_FINITE")
    shared = np.isin(_digests(home), _digests(shifted))
    common = int(np.isin(_digests(shifted), _digests(home)).sum())
    same = common >= _SAME * len(shifted)
    apart = home if same or (~shared).sum() < LEAST_IMAGES else home.take(np.flatnonzero(~shared))
    known = apart.take(_drawn(apart, HOME, seed, "home"))
    labelled = [row for row, truth in enumerate(shifted.truths) if truth is not None]
    judged = _judged(shifted, labelled, seed)
    rest = np.setdiff1d(np.arange(len(shifted)), judged)
    # A way that was fitted on the very images is not flattered much by a curve or a statistic, but may be by a training.
    fitted = rest if len(rest) >= JUDGED else np.arange(len(shifted))
    fit = shifted.take(fitted[_drawn(shifted.take(fitted), FITTED, seed, "fit")])
    gate = known.take(_drawn(known, GATE, seed, "gate"))
    unjudged = shifted.take(rest[_drawn(shifted.take(rest), INSPECTED, seed, "unjudged")])
    return Sets(Domain(fit.name, fit.images, fit.ids, fit.groups), shifted.take(judged), unjudged, known, gate, same)


def opposite_tones(one: Domain, other: Domain) -> bool:
    """Tell whether what stands out is bright on dark in one domain and dark on bright in the other, as in fluorescence and in stained sections.

    Told by the skewness of each image's brightness, of which the half of the images has more: few bright pixels among many dark ones make it positive.
    """
    skews = [float(np.median([_skewness(image) for image in domain.images[:TONED]])) for domain in (one, other)]
    return min(skews) < -_SKEWED and max(skews) > _SKEWED


def _skewness(image: NDArray[Any]) -> float:
    grey = np.asarray(image, dtype=np.float64).mean(axis=2)
    spread = float(grey.std())
    return float(((grey - grey.mean()) ** 3).mean()) / spread**3 if spread > 0 else 0.0


def _judged(shifted: Domain, labelled: list[int], seed: int) -> NDArray[np.int64]:
    if len(shifted) <= JUDGED:
        return np.arange(len(shifted), dtype=np.int64)
    chosen = labelled[: 4 * JUDGED]
    others = np.setdiff1d(np.arange(len(shifted)), chosen)
    if len(chosen) >= JUDGED:
        return np.array(chosen, dtype=np.int64)
    more = others[_drawn(shifted.take(others), JUDGED - len(chosen), seed, "judged")]
    return np.sort(np.concatenate([np.array(chosen, dtype=np.int64), more]))


def _drawn(domain: Domain, most: int, seed: int, purpose: str) -> NDArray[np.int64]:
    """Draw images, a group after the other, so that as many groups as can be are there; all where they are few."""
    if len(domain) <= most:
        return np.arange(len(domain), dtype=np.int64)
    groups = encode_groups(domain.groups, len(domain))
    order = generator(seed, "ladder-sets", purpose).permutation(len(domain))
    # How many of its group come before each image: first ones first.
    rank = np.zeros(len(domain), dtype=np.int64)
    seen: dict[int, int] = {}
    for row in order:
        rank[row] = seen.get(int(groups[row]), 0)
        seen[int(groups[row])] = rank[row] + 1
    return np.sort(order[np.argsort(rank[order], kind="stable")][:most])


def _digests(domain: Domain) -> NDArray[np.str_]:
    return np.array([hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest() for image in domain.images])
