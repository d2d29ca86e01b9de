"""Which answers without a truth are not to be believed, however sure the model is: those that find nothing, or everything, where home has no such images."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def fullest(shares: Floats) -> float:
    """Give the share of an image beyond which an answer is not believed: halfway from the fullest answer at home ``(N,)`` to all of the image."""
    return (1.0 + float(shares.max())) / 2 if len(shares) else 1.0


def believed(home_shares: Floats, home_counts: NDArray[np.int64], shares: Floats, counts: NDArray[np.int64]) -> Floats:
    """Say how far each answer is believed, ``(M,)`` of 0 to 1.

    Parameters
    ----------
    home_shares, shares
        Share of its image that an answer calls something, at home ``(N,)`` and here ``(M,)``; see `oteo_translate.tasks.scoring.found_share`.
    home_counts, counts
        Objects of each answer, the same shapes.

    Returns
    -------
    ndarray
        0 for answers beyond `fullest`; for those without any object the share of such answers at home over that here, 1 at most; 1 for all others.
    """
    empty = counts == 0
    often = float((home_counts == 0).mean()) if len(home_counts) else 1.0
    here = float(empty.mean()) if len(empty) else 0.0
    rare = min(1.0, often / here) if here else 1.0
    return np.where(empty, rare, 1.0) * (shares <= fullest(home_shares))
