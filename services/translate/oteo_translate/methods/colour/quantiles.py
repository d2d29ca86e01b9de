"""Quantiles of an image's channels, and maps from one distribution to another; plain tensor operations that ONNX has."""

from __future__ import annotations

import torch

_FAR = 1e9


def quantiles(values: torch.Tensor, probabilities: torch.Tensor) -> torch.Tensor:
    """Give quantiles, linear between neighbours (type 7 of Hyndman and Fan 1996, NumPy's usual one).

    Parameters
    ----------
    values
        ``(N, C, P)``, P free.
    probabilities
        ``(K,)`` of 0 to 1.

    Returns
    -------
    Tensor
        ``(N, C, K)``.
    """
    ordered = torch.sort(values, dim=2).values
    places = probabilities * (values.shape[2] - 1)
    below = places.floor()
    first = ordered[:, :, below.long()]
    second = ordered[:, :, places.ceil().long()]
    return first + (second - first) * (places - below)


def masked_quantile(values: torch.Tensor, mask: torch.Tensor, probability: float) -> torch.Tensor:
    """Give a quantile of the values that count.

    Parameters
    ----------
    values
        ``(N, P)``, below 1e9.
    mask
        ``(N, P)`` bool: which count.
    probability
        Of 0 to 1.

    Returns
    -------
    Tensor
        ``(N,)``; 1e9 where none counts.
    """
    ordered = torch.sort(torch.where(mask, values, torch.full_like(values, _FAR)), dim=1).values
    places = probability * (mask.float().sum(1, keepdim=True) - 1).clamp(min=0)
    below = places.floor()
    first = ordered.gather(1, below.long())
    second = ordered.gather(1, places.ceil().long())
    return (first + (second - first) * (places - below))[:, 0]


def mapped(values: torch.Tensor, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Send each value to where its rank among `source` lies in `target`.

    A value that is as often there as a whole stretch of the source takes the middle of that stretch, so that equal pixels stay equal.

    Parameters
    ----------
    values
        ``(N, C, P)``.
    source, target
        ``(N, C, K)`` ascending, K - 1 a power of two: quantile functions at the same probabilities.

    Returns
    -------
    Tensor
        ``(N, C, P)``; ascending in the values.
    """
    last = source.shape[2] - 1
    upper = _search(values, source, strict=False)
    lower = _search(values, source, strict=True)
    # Below the value: all up to `lower`; at most as large: all up to `upper`. Inside a stretch of equal quantiles both ends are the value.
    low = source.gather(2, upper)
    high = source.gather(2, (upper + 1).clamp(max=last))
    share = ((values - low) / (high - low).clamp(min=1e-12)).clamp(0, 1)
    share = torch.where(high > low, share, torch.zeros_like(share))
    inside = target.gather(2, upper)
    between = inside + (target.gather(2, (upper + 1).clamp(max=last)) - inside) * share
    first = (lower + 1).clamp(max=last)
    tied = upper > first
    middle = (first + upper).float() / 2
    floor = middle.floor()
    half = target.gather(2, floor.long())
    half = half + (target.gather(2, middle.ceil().long()) - half) * (middle - floor)
    return torch.where(tied & (values <= low), half, between)


def _search(values: torch.Tensor, knots: torch.Tensor, *, strict: bool) -> torch.Tensor:
    """Give the last place whose knot is at most the value (`strict`: below it), by halving; -1, or 0 where not strict, where there is none."""
    span = knots.shape[2] - 1
    place = torch.full_like(values, -1, dtype=torch.int64)
    step = KNOTS - 1
    while step >= 1:
        tried = place + step
        knot = knots.gather(2, tried.clamp(max=span))
        fits = (knot < values) if strict else (knot <= values)
        place = torch.where(fits & (tried <= span), tried, place)
        step //= 2
    return place if strict else place.clamp(min=0)


KNOTS = 257
"""Knots of a quantile function: 256 steps, as many as 8 bits have."""


def probabilities() -> torch.Tensor:
    """Give the probabilities of a quantile function's knots, ``(KNOTS,)``, 0 to 1 in even steps."""
    return torch.linspace(0, 1, KNOTS)
