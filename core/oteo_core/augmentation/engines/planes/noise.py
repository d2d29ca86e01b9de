"""Steps that add noise or take parts of the image away, by the fields and boxes that were drawn."""

from __future__ import annotations

import torch

from oteo_core.augmentation.engines.planes.tone import cut
from oteo_core.augmentation.engines.planes.work import Planes, Step, Work


def _noisy(planes: torch.Tensor, work: Work) -> Planes:
    noise = work.arrays("noise_map", planes)
    # To whole numbers albumentations adds whole numbers, cut off towards zero.
    return planes + (noise.trunc() if work.whole else noise)


def _speckled(planes: torch.Tensor, work: Work) -> Planes:
    return cut(planes * work.arrays("multiplier", planes), work)


def _salted(planes: torch.Tensor, work: Work) -> Planes:
    salt, pepper = work.arrays("salt_mask", planes) > 0, work.arrays("pepper_mask", planes) > 0
    return planes.masked_fill(salt, work.top).masked_fill(pepper, 0.0)


def _dropped(planes: torch.Tensor, work: Work) -> Planes:
    return planes.masked_fill(work.arrays("drop_mask", planes) > 0, 0.0)


def _holed(planes: torch.Tensor, work: Work) -> Planes:
    changed = planes.clone()
    for number, part in enumerate(work.parts):
        for left, top, right, bottom in part["holes"].tolist():
            changed[number, :, top:bottom, left:right] = 0.0
    return changed


STEPS: dict[str, Step] = {
    "GaussNoise": _noisy,
    "MultiplicativeNoise": _speckled,
    "SaltAndPepper": _salted,
    "PixelDropout": _dropped,
    "CoarseDropout": _holed,
    "Erasing": _holed,
    "GridDropout": _holed,
}
