"""Steps that blur and sharpen, by the kernel that was drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import torch
from kornia.filters import filter2d, filter2d_separable, median_blur
from numpy.typing import NDArray

from oteo_core.augmentation.engines.planes.geometry import resized
from oteo_core.augmentation.engines.planes.work import Planes, Step, Unsuited, Work, alike, indices, tensor
from oteo_core.augmentation.transforms.optics import disc_kernel


def _lines(planes: torch.Tensor, kernels: Sequence[NDArray[Any]]) -> torch.Tensor:
    """Filter every image by a kernel of its own along rows and columns."""
    stacked = _stacked([np.asarray(kernel).reshape(1, -1) for kernel in kernels], planes)[:, 0]
    filtered: torch.Tensor = filter2d_separable(planes, stacked, stacked, border_type="reflect")
    return filtered


def _squares(planes: torch.Tensor, kernels: Sequence[NDArray[Any]]) -> torch.Tensor:
    """Filter every image by a square kernel of its own."""
    filtered: torch.Tensor = filter2d(planes, _stacked(kernels, planes), border_type="reflect")
    return filtered


def _stacked(kernels: Sequence[NDArray[Any]], planes: torch.Tensor) -> torch.Tensor:
    """Give kernels of odd sides as one tensor, those that are smaller with zeros around them."""
    rows, columns = max(kernel.shape[0] for kernel in kernels), max(kernel.shape[1] for kernel in kernels)
    if max(rows, columns) // 2 >= min(planes.shape[2:]):
        raise Unsuited  # torch mirrors an image once, OpenCV as often as needed
    padded = np.zeros((len(kernels), rows, columns), np.float32)
    for number, kernel in enumerate(kernels):
        top, left = (rows - kernel.shape[0]) // 2, (columns - kernel.shape[1]) // 2
        padded[number, top : top + kernel.shape[0], left : left + kernel.shape[1]] = kernel
    return tensor(padded, planes)


def _gaussian(planes: torch.Tensor, work: Work) -> Planes:
    return _lines(planes, [part["kernel"] for part in work.parts])


def _mean(planes: torch.Tensor, work: Work) -> Planes:
    return _lines(planes, [np.full(part["kernel"], 1 / part["kernel"]) for part in work.parts])


def _median(planes: torch.Tensor, work: Work) -> Planes:
    result = torch.empty_like(planes)
    for side, numbers in alike([int(part["side"]) for part in work.parts]).items():
        chosen = indices(numbers, planes)
        result[chosen] = planes[chosen] if side == 1 else median_blur(planes[chosen], side, border_type="replicate")
    return result


def _drawn_kernel(planes: torch.Tensor, work: Work) -> Planes:
    return _squares(planes, [part["kernel"] for part in work.parts]).clamp(0, work.top)


def _sharper(planes: torch.Tensor, work: Work) -> Planes:
    return _squares(planes, [part["sharpening_matrix"] for part in work.parts]).clamp(0, work.top)


def _defocused(planes: torch.Tensor, work: Work) -> Planes:
    return _squares(planes, [disc_kernel(part["pixels_radius"]) for part in work.parts])


def _coarser(planes: torch.Tensor, work: Work) -> Planes:
    height, width = planes.shape[2:]
    changed = []
    for plane, part in zip(planes, work.parts, strict=True):
        small = (max(1, round(height * part["factor"])), max(1, round(width * part["factor"])))
        changed.append(resized(resized(plane, small), (height, width)))
    return torch.stack(changed)


def _unsharp(planes: torch.Tensor, work: Work) -> Planes:
    kernels = [cv2.getGaussianKernel(part["ksize"], part["sigma"], cv2.CV_32F) for part in work.parts]
    share = planes / work.top
    residual = share - _lines(share, kernels)
    threshold = tensor([one.threshold for one in work.transforms], planes).view(-1, 1, 1, 1)
    soft = _lines((residual.abs() * 255 > threshold).float(), kernels)
    sharp = (share + work.values("alpha", planes) * residual).clamp(0, 1)
    return (sharp * soft + share * (1 - soft)) * work.top


STEPS: dict[str, Step] = {
    "GaussianBlur": _gaussian,
    "Blur": _mean,
    "MedianBlur": _median,
    "MotionBlur": _drawn_kernel,
    "AdvancedBlur": _drawn_kernel,
    "MicroscopeDefocus": _defocused,
    "LowResolution": _coarser,
    "Sharpen": _sharper,
    "UnsharpMask": _unsharp,
    "RingingOvershoot": _drawn_kernel,
}
