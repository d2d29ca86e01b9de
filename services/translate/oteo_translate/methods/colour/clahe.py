"""Local contrast brought to home's: contrast-limited adaptive histogram equalisation (Zuiderveld, Graphics Gems IV, 1994), then moments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from oteo_core.graphs.modules import saved
from oteo_translate.domains import Domain
from oteo_translate.methods.base import TRAINING_FREE, FitContext, Method, Parameters, Translation, method
from oteo_translate.methods.colour.moments import averaged, brought, measured
from oteo_translate.methods.colour.spaces import from_space, to_space
from oteo_translate.methods.sampling import planes

LEVELS = 256
TILES = 8
LIMITS = (0.0, 1.5, 2.0, 3.0, 4.0, 6.0)
"""Clip limits that a fit tries, in multiples of an even histogram; 0: no equalisation."""

_FIT_IMAGES = 50


def equalised(values: torch.Tensor, limit: float, tiles: int = TILES) -> torch.Tensor:
    """Equalise each tile's histogram with limited contrast and blend the four nearest tiles' curves.

    As OpenCV does it, but for three things: tiles are cut at the nearest pixel where the size is no multiple of them; values between two of the 256
    levels are interpolated, so that depth stays; and counts are no whole numbers, so that the limit holds in tiles of few pixels too.

    Parameters
    ----------
    values
        ``(N, C, H, W)`` of 0 to 1.
    limit
        Height at which a histogram is cut, in multiples of an even one; what is cut off goes to all levels alike.
    tiles
        On either axis.

    Returns
    -------
    Tensor
        Of the same shape, 0 to 1.
    """
    zero = torch.zeros_like(values[:1, :1])
    rows = torch.arange(values.shape[2], dtype=torch.float32)
    columns = torch.arange(values.shape[3], dtype=torch.float32)
    height, width = torch.ones_like(rows).sum(), torch.ones_like(columns).sum()
    tile = ((rows * tiles / height).floor()[:, None] * tiles + (columns * tiles / width).floor()[None, :] + zero).long()
    scaled = values.clamp(0, 1) * (LEVELS - 1)
    below = scaled.floor().clamp(max=LEVELS - 2)
    share = scaled - below
    place = tile * LEVELS + below.long()
    empty = torch.zeros_like(values.flatten(2)[:, :, :1]) + torch.zeros(tiles * tiles * LEVELS)
    counts = empty.scatter_add(2, place.flatten(2), (1 - share).flatten(2)).scatter_add(2, (place + 1).flatten(2), share.flatten(2))
    histogram = counts.reshape(counts.shape[0], counts.shape[1], tiles * tiles, LEVELS)
    size = histogram.sum(3, keepdim=True).clamp(min=1)
    height_limit = limit * size / LEVELS
    over = (histogram - height_limit).clamp(min=0).sum(3, keepdim=True)
    curves = ((torch.minimum(histogram, height_limit) + over / LEVELS).cumsum(3) / size).clamp(max=1).flatten(2)

    def curve(row: torch.Tensor, column: torch.Tensor) -> torch.Tensor:
        start = ((row[:, None] * tiles + column[None, :]) * LEVELS + zero).long() + below.long()
        low = curves.gather(2, start.flatten(2))
        high = curves.gather(2, (start + 1).flatten(2))
        return (low + (high - low) * share.flatten(2)).reshape(values.shape)

    up, down, vertical = _neighbours(rows, height, tiles)
    left, right, across = _neighbours(columns, width, tiles)
    top = curve(up, left) + (curve(up, right) - curve(up, left)) * across
    bottom = curve(down, left) + (curve(down, right) - curve(down, left)) * across
    blended: torch.Tensor = top + (bottom - top) * vertical[:, None]
    return blended


def _neighbours(points: torch.Tensor, length: torch.Tensor, tiles: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Give the tile before and after each point, and how far it is from the first centre to the second, 0 to 1."""
    place = points * tiles / length - 0.5
    first = place.floor()
    return first.clamp(0, tiles - 1), (first + 1).clamp(0, tiles - 1), place - first


def local_share(values: torch.Tensor) -> float:
    """Give the mean spread within tiles against the spread of the whole image ``(1, C, H, W)``, mean over channels: 0 to 1."""
    height, width = (size - size % TILES for size in values.shape[2:])
    cut = values[:, :, :height, :width].reshape(1, values.shape[1], TILES, height // TILES, TILES, width // TILES)
    within = cut.var(dim=(3, 5), correction=0).mean(dim=(2, 3)).sqrt()
    whole = values.var(dim=(2, 3), correction=0).sqrt()
    return float((within / whole.clamp(min=1e-6)).mean())


@saved
class ClaheTranslation(Translation):
    """Equalise lightness locally with one clip limit, then bring mean and spread to home's.

    Parameters
    ----------
    channels
        Of the images. Of 3 channels lightness is CIE L*, else each channel is taken by itself.
    limit
        Clip limit; 0: none.
    """

    kind = "translation-clahe"
    mean: torch.Tensor
    spread: torch.Tensor

    def __init__(self, channels: int, limit: float) -> None:
        super().__init__(channels=channels, limit=limit)
        self.limit = limit
        self.coloured = channels == 3
        self.register_buffer("mean", torch.zeros(1, channels, 1, 1))
        self.register_buffer("spread", torch.zeros(1, channels, 1, 1))

    def seen(self, planes: torch.Tensor) -> torch.Tensor:
        """Give what is worked on: lightness of 0 to 1 and colours, or the channels."""
        return to_space(planes, "cielab") / 100 if self.coloured else planes

    def local(self, values: torch.Tensor) -> torch.Tensor:
        """Equalise what `seen` gave."""
        if not self.limit:
            return values
        if self.coloured:
            return torch.cat([equalised(values[:, :1], self.limit), values[:, 1:]], dim=1)
        return equalised(values, self.limit)

    def forward(self, planes: torch.Tensor) -> torch.Tensor:
        """See `Translation`."""
        values = self.local(self.seen(planes))
        moved = brought(values, *measured(values), self.mean, self.spread)
        return from_space(moved * 100, "cielab") if self.coloured else moved.clamp(0, 1)


@method
class Clahe(Method):
    """Alignment of local contrast."""

    name = "clahe"
    kind = TRAINING_FREE
    summary = (
        "Local contrast is raised to home's by limited adaptive equalisation (CLAHE, Zuiderveld 1994), then mean and spread are aligned."
    )
    cost = 1.0
    per_image = 0.005

    def read(self, given: Parameters) -> dict[str, Any]:
        """See `Method`."""
        return {"limit": given.number_or_none("limit", 0.0, 40.0)}

    def fit(self, shifted: Domain, home: Domain, parameters: Mapping[str, Any], context: FitContext) -> Translation:
        """See `Method`; ``limit`` is a clip limit of 0 to 40, and is chosen where it is not given."""
        self.check(shifted, home)
        given: float | None = self.settings(parameters)["limit"]
        limit = self._chosen(shifted, home, context) if given is None else given
        found = ClaheTranslation(home.channels, limit)
        found.mean, found.spread = averaged([measured(found.seen(one)) for one in planes(home, context.check)])
        return found.eval()

    @staticmethod
    def _chosen(shifted: Domain, home: Domain, context: FitContext) -> float:
        """Give the limit whose images are nearest to home's in how much of their contrast is local."""
        probe = ClaheTranslation(home.channels, 0.0)
        lightness = slice(0, 1 if probe.coloured else None)
        due = torch.tensor([local_share(probe.seen(one)[:, lightness]) for one in planes(home, context.check, _FIT_IMAGES)]).mean()
        distances = []
        for limit in LIMITS:
            probe.limit = limit
            shares = [local_share(probe.local(probe.seen(one))[:, lightness]) for one in planes(shifted, context.check, _FIT_IMAGES)]
            distances.append(abs(float(torch.tensor(shares).mean() - due)))
        return LIMITS[distances.index(min(distances))]

    def grid(self) -> tuple[Mapping[str, Any], ...]:
        """See `Method`."""
        return ({}, {"limit": 2.0})
