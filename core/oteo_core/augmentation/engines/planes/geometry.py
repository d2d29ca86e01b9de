"""Steps that move pixels, by the matrix, field or box that was drawn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from kornia.geometry.transform import remap, warp_affine, warp_perspective
from torch.nn import functional

from oteo_core.augmentation.engines.base import Border
from oteo_core.augmentation.engines.planes.work import Planes, Step, Unsuited, Work, tensor


def _turned(plane: torch.Tensor, quarters: int) -> torch.Tensor:
    return torch.rot90(plane, quarters, (-2, -1))


_SYMMETRIES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "e": lambda plane: plane,
    "r90": lambda plane: _turned(plane, 1),
    "r180": lambda plane: _turned(plane, 2),
    "r270": lambda plane: _turned(plane, 3),
    "v": lambda plane: plane.flip(-2),
    "h": lambda plane: plane.flip(-1),
    "t": lambda plane: plane.transpose(-1, -2),
    "hvt": lambda plane: _turned(plane, 2).transpose(-1, -2),
}


def _mirrored(planes: torch.Tensor, work: Work) -> Planes:
    return planes.flip(-1)


def _upside_down(planes: torch.Tensor, work: Work) -> Planes:
    return planes.flip(-2)


def _transposed(planes: torch.Tensor, work: Work) -> Planes:
    return planes.transpose(-1, -2)


def _symmetry(planes: torch.Tensor, work: Work) -> Planes:
    return [_SYMMETRIES[str(part["group_element"])](plane) for plane, part in zip(planes, work.parts, strict=True)]


def _quarters(planes: torch.Tensor, work: Work) -> Planes:
    return [_turned(plane, int(part["factor"])) for plane, part in zip(planes, work.parts, strict=True)]


def _bordered(planes: torch.Tensor, work: Work, warp: Callable[[torch.Tensor, str], torch.Tensor]) -> torch.Tensor:
    """Warp with the border of the work: about the middles of the outermost pixels, as OpenCV's BORDER_REFLECT_101 mirrors."""
    if min(planes.shape[2:]) == 1:
        raise Unsuited  # kornia's places go from -1 to 1, and a single pixel has no such extent
    if work.border is Border.REFLECT:
        return warp(planes, "reflection")
    # Zeros come in, so the colour that should must be zero meanwhile.
    colours = [np.broadcast_to(np.asarray(part["fill"], np.float32), (planes.shape[1],)) for part in work.parts]
    fill = tensor(np.stack(colours), planes)[:, :, None, None]
    return warp(planes - fill, "zeros") + fill


def _affine(planes: torch.Tensor, work: Work) -> Planes:
    size = (planes.shape[2], planes.shape[3])
    matrices = tensor(np.stack([part["matrix"] for part in work.parts])[:, :2], planes)
    return _bordered(planes, work, lambda these, mode: warp_affine(these, matrices, size, padding_mode=mode, align_corners=True))


def _perspective(planes: torch.Tensor, work: Work) -> Planes:
    height, width = planes.shape[2:]
    # The quadrangle is brought to a rectangle, and that to the size of the image.
    matrices = [np.diag([width / part["max_width"], height / part["max_height"], 1.0]) @ part["matrix"] for part in work.parts]
    stacked = tensor(np.stack(matrices), planes)
    return _bordered(
        planes, work, lambda these, mode: warp_perspective(these, stacked, (height, width), padding_mode=mode, align_corners=True)
    )


def _field(planes: torch.Tensor, work: Work) -> Planes:
    height, width = planes.shape[2:]
    fields = tensor(np.stack([one.displacements(part) for one, part in zip(work.transforms, work.parts, strict=True)]), planes)
    across = torch.arange(width, device=planes.device, dtype=torch.float32) + fields[..., 0]
    down = torch.arange(height, device=planes.device, dtype=torch.float32)[:, None] + fields[..., 1]
    return _bordered(planes, work, lambda these, mode: remap(these, across, down, padding_mode=mode, align_corners=True))


def _boxed(planes: torch.Tensor, work: Work) -> Planes:
    return [_cut(plane, part) for plane, part in zip(planes, work.parts, strict=True)]


def _cut(plane: torch.Tensor, part: dict[str, Any]) -> torch.Tensor:
    left, top, right, bottom = part["box"]
    return resized(plane[:, top:bottom, left:right], tuple(part["size"]))


def resized(plane: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Bring ``(C, H, W)`` to a height and width: by lines where a side grows, else by the mean of the area that a pixel covers."""
    height, width = plane.shape[-2:]
    if size == (height, width):
        return plane
    if size[0] > height or size[1] > width:
        return functional.interpolate(plane[None], size, mode="bilinear", align_corners=False)[0]
    # A product of matrices, as torch's own "area" takes whole pixels only; in float64, as graphics processors may round products of
    # matrices to fewer digits than float32 has.
    return (areas(height, size[0], plane) @ plane.double() @ areas(width, size[1], plane).T).float()


def areas(before: int, after: int, like: torch.Tensor) -> torch.Tensor:
    """Give the share that each of so many pixels of a line has in each pixel of a shorter one, ``(after, before)`` float64; rows add up to 1."""
    ratio = before / after
    start = torch.arange(after, dtype=torch.float64)[:, None] * ratio
    pixel = torch.arange(before, dtype=torch.float64)[None, :]
    covered = torch.minimum(start + ratio, pixel + 1) - torch.maximum(start, pixel)
    return (covered.clamp_min(0) / ratio).to(like.device)


STEPS: dict[str, Step] = {
    "HorizontalFlip": _mirrored,
    "VerticalFlip": _upside_down,
    "Transpose": _transposed,
    "D4": _symmetry,
    "RandomRotate90": _quarters,
    "Affine": _affine,
    "Rotate": _affine,
    "Translate": _affine,
    "Shear": _affine,
    "Perspective": _perspective,
    "ElasticTransform": _field,
    "OpticalDistortion": _field,
    "RandomCropFromBorders": _boxed,
    "RandomCrop": _boxed,
    "CenterCrop": _boxed,
    "RandomResizedCrop": _boxed,
    "Resize": _boxed,
    "RandomScale": _boxed,
    "LongestMaxSize": _boxed,
    "SmallestMaxSize": _boxed,
}
