"""Barnes et al., "PatchMatch", SIGGRAPH 2009, all places at once: what neighbours found is tried, then chance, ever nearer."""

from __future__ import annotations

import torch
from torch.nn import functional

PATCH = 3
_STRIDES = (4, 2, 1)
_SEARCHES = 5


def patches(features: torch.Tensor) -> torch.Tensor:
    """Give the patch around each place of ``(1, c, h, w)``, of length 1: ``(h * w, 9 * c)``."""
    padded = functional.pad(features, (1, 1, 1, 1), mode="replicate")
    return functional.normalize(functional.unfold(padded, PATCH)[0].T, dim=1)


def nearest(own: torch.Tensor, other: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Find for each row of ``(P, d)`` the most similar of ``(Q, d)`` by trying all: places ``(P,)`` and similarities."""
    best = (own @ other.T).max(1)
    return best.indices, best.values


def matched(
    own: torch.Tensor,
    other: torch.Tensor,
    size: tuple[int, int],
    other_size: tuple[int, int],
    start: torch.Tensor,
    rounds: int,
    draws: torch.Generator,
) -> torch.Tensor:
    """Find a good match for each place, from a first guess.

    Parameters
    ----------
    own, other
        Patches ``(h * w, d)`` and ``(H * W, d)`` of length 1.
    size, other_size
        (h, w) and (H, W).
    start
        ``(h * w,)`` places in the other to begin with.
    rounds
        Of propagation and search.
    draws
        Of the search.

    Returns
    -------
    Tensor
        ``(h * w,)``: places in the other, nowhere worse than the start.
    """
    height, width = size
    rows, columns = start.div(other_size[1], rounding_mode="floor"), start % other_size[1]
    value = (own * other[start]).sum(1)

    def attempt(new_rows: torch.Tensor, new_columns: torch.Tensor) -> None:
        nonlocal rows, columns, value
        new_rows, new_columns = new_rows.clamp(0, other_size[0] - 1), new_columns.clamp(0, other_size[1] - 1)
        found = (own * other[new_rows * other_size[1] + new_columns]).sum(1)
        better = found > value
        rows, columns = torch.where(better, new_rows, rows), torch.where(better, new_columns, columns)
        value = torch.where(better, found, value)

    for _ in range(rounds):
        for stride in _STRIDES:
            for down, right in ((stride, 0), (-stride, 0), (0, stride), (0, -stride)):
                shifted_rows = torch.roll(rows.reshape(height, width), (down, right), (0, 1)).flatten() + down
                shifted_columns = torch.roll(columns.reshape(height, width), (down, right), (0, 1)).flatten() + right
                attempt(shifted_rows, shifted_columns)
        reach = max(other_size) / 2
        for _ in range(_SEARCHES):
            step = (torch.rand(2, len(own), generator=draws) * 2 - 1) * reach
            attempt(rows + step[0].round().long(), columns + step[1].round().long())
            reach /= 2
    return rows * other_size[1] + columns


def finer(
    places: torch.Tensor, size: tuple[int, int], other: tuple[int, int], to: tuple[int, int], other_to: tuple[int, int]
) -> torch.Tensor:
    """Bring matches of a coarse resolution to a finer one: each place looks where its coarse place looked, and beside."""
    rows = torch.arange(to[0])[:, None].expand(to)
    columns = torch.arange(to[1])[None, :].expand(to)
    coarse = (rows * size[0]).div(to[0], rounding_mode="floor") * size[1] + (columns * size[1]).div(to[1], rounding_mode="floor")
    found = places[coarse.flatten()].reshape(to)
    down = found.div(other[1], rounding_mode="floor") * other_to[0] / other[0] + (rows * size[0] / to[0]) % 1 * other_to[0] / other[0]
    right = (found % other[1]) * other_to[1] / other[1] + (columns * size[1] / to[1]) % 1 * other_to[1] / other[1]
    return (down.floor().long().clamp(max=other_to[0] - 1) * other_to[1] + right.floor().long().clamp(max=other_to[1] - 1)).flatten()


def voted(image: torch.Tensor, places: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Put an image together from matched patches: each pixel is the mean of what the patches over it say.

    Parameters
    ----------
    image
        ``(1, C, H, W)`` from which patches are taken.
    places
        ``(h * w,)`` in it.
    size
        (h, w) of the answer.

    Returns
    -------
    Tensor
        ``(1, C, h, w)``.
    """
    padded = functional.pad(image, (1, 1, 1, 1), mode="replicate")
    taken = functional.unfold(padded, PATCH)[:, :, places]
    total = functional.fold(taken, size, PATCH, padding=1)
    return total / functional.fold(torch.ones_like(taken), size, PATCH, padding=1)
