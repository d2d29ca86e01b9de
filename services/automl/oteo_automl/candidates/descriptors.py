"""Classical image descriptors, written as batched tensor operations so that they export as part of the graph.

Grey histogram and moments; colour histograms and moments in RGB and an opponent space; rotation-invariant uniform local binary patterns
(Ojala, Pietikäinen and Mäenpää, TPAMI 2002) at three radii; histograms of oriented gradients (Dalal and Triggs, CVPR 2005) on a coarse grid; Haralick's
texture figures from co-occurrence matrices (Haralick, Shanmugam and Dinstein, TSMC 1973); energies of a band-pass pyramid.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional

LEVELS = 12
"""Grey levels of the co-occurrence matrices."""
BINS = 16
"""Bins of the intensity histograms."""
ORIENTATIONS = 9
GRID = 4
_NEIGHBOURS = ((-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1))
_OFFSETS = ((0, 1), (1, 0), (1, 1), (1, -1))


def _uniform_table() -> torch.Tensor:
    """Give the class of each of the 256 patterns: its number of ones where it is uniform (0 to 8), else 9."""
    table = torch.empty(256, dtype=torch.long)
    for code in range(256):
        bits = [(code >> i) & 1 for i in range(8)]
        changes = sum(bits[i] != bits[(i + 1) % 8] for i in range(8))
        table[code] = sum(bits) if changes <= 2 else 9
    return table


def _histogram(index: torch.Tensor, bins: int) -> torch.Tensor:
    """Give the shares of the values 0 to bins - 1 in ``(N, P)``, as ``(N, bins)``."""
    return torch.stack([(index == value).float().mean(dim=1) for value in range(bins)], dim=1)


def _moments(values: torch.Tensor) -> torch.Tensor:
    """Give mean, standard deviation and skewness of ``(N, C, P)`` over P, as ``(N, 3 C)``."""
    mean = values.mean(dim=2)
    centred = values - mean[:, :, None]
    deviation = torch.sqrt((centred * centred).mean(dim=2) + 1e-6)
    skewness = (centred**3).mean(dim=2) / (deviation**3 + 1e-4)
    return torch.cat([mean, deviation, skewness.clamp(-10.0, 10.0)], dim=1)


class Descriptors(nn.Module):
    """Images to descriptors.

    Parameters
    ----------
    channels
        Channels of the images; 1 or 3 give grey by luminance, others by their mean.
    integer
        True for uint8 images (0 to 255), False for float32 (0 to 1).

    Notes
    -----
    Input ``(N, H, W, C)``, H and W at least 32; output ``(N, width)`` float32.
    """

    table: torch.Tensor
    luminance: torch.Tensor

    def __init__(self, channels: int, integer: bool) -> None:
        super().__init__()
        self.channels = channels
        self.integer = integer
        weights = torch.tensor([0.299, 0.587, 0.114]) if channels == 3 else torch.full((channels,), 1.0 / channels)
        self.register_buffer("luminance", weights.view(1, channels, 1, 1))
        self.register_buffer("table", _uniform_table())

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Give the descriptors of ``(N, H, W, C)``."""
        pixels = image.permute(0, 3, 1, 2).float()
        if self.integer:
            pixels = pixels / 255.0
        grey = (pixels * self.luminance).sum(dim=1, keepdim=True)
        parts = [self._intensity(pixels), self._binary_patterns(grey), self._gradients(grey), self._co_occurrence(grey), self._bands(grey)]
        return torch.cat(parts, dim=1)

    def _intensity(self, pixels: torch.Tensor) -> torch.Tensor:
        flat = pixels.flatten(2)
        index = (flat * BINS).clamp(0, BINS - 1).floor()
        parts = [_histogram(index[:, channel], BINS) for channel in range(self.channels)]
        parts.append(_moments(flat))
        if self.channels == 3:
            red, green, blue = flat[:, 0], flat[:, 1], flat[:, 2]
            opponent = torch.stack([red - green, (red + green) / 2 - blue, flat.amax(dim=1) - flat.amin(dim=1)], dim=1)
            index = ((opponent + 1.0) * (BINS / 2)).clamp(0, BINS - 1).floor()
            parts += [_histogram(index[:, channel], BINS) for channel in range(3)]
            parts.append(_moments(opponent))
        return torch.cat(parts, dim=1)

    def _binary_patterns(self, grey: torch.Tensor) -> torch.Tensor:
        parts = []
        smooth = grey
        for radius in (1, 2, 4):
            if radius > 1:
                smooth = functional.avg_pool2d(smooth, 3, stride=1, padding=1, count_include_pad=False)
            height, width = grey.shape[2] - 2 * radius, grey.shape[3] - 2 * radius
            centre = smooth[:, 0, radius : radius + height, radius : radius + width]
            code = torch.zeros_like(centre)
            for bit, (dy, dx) in enumerate(_NEIGHBOURS):
                y, x = radius * (1 + dy), radius * (1 + dx)
                code = code + (smooth[:, 0, y : y + height, x : x + width] >= centre).float() * float(1 << bit)
            parts.append(_histogram(self.table[code.long()].flatten(1), 10))
        return torch.cat(parts, dim=1)

    def _gradients(self, grey: torch.Tensor) -> torch.Tensor:
        dx = grey[:, 0, 1:-1, 2:] - grey[:, 0, 1:-1, :-2]
        dy = grey[:, 0, 2:, 1:-1] - grey[:, 0, :-2, 1:-1]
        size = torch.sqrt(dx * dx + dy * dy + 1e-12)
        # atan2 of two zeros differs between runtimes; the tiny number settles it and its weight is nil.
        angle = torch.atan2(dy, dx + 1e-9)
        position = torch.remainder(angle, math.pi) * (ORIENTATIONS / math.pi)
        planes = []
        for orientation in range(ORIENTATIONS):
            distance = torch.abs(position - (orientation + 0.5))
            distance = torch.minimum(distance, ORIENTATIONS - distance)
            planes.append(size * (1.0 - distance).clamp(min=0.0))
        stacked = torch.stack(planes, dim=1)
        height, width = stacked.shape[2] // GRID * GRID, stacked.shape[3] // GRID * GRID
        cells = functional.avg_pool2d(stacked[:, :, :height, :width], (height // GRID, width // GRID))
        blocks = functional.avg_pool2d(cells * cells, 2, stride=1).sum(dim=1, keepdim=True)
        norm = torch.sqrt(functional.avg_pool2d(functional.pad(blocks, (1, 1, 1, 1), mode="replicate"), 2, stride=1) + 1e-5)
        overall = cells.mean(dim=(2, 3))
        return torch.cat([(cells / norm).flatten(1), overall * 10.0], dim=1)

    def _co_occurrence(self, grey: torch.Tensor) -> torch.Tensor:
        low, high = grey.amin(dim=(2, 3), keepdim=True), grey.amax(dim=(2, 3), keepdim=True)
        level = ((grey - low) / (high - low + 1e-6) * LEVELS).clamp(0, LEVELS - 1).floor()[:, 0]
        planes = torch.stack([(level == value).float() for value in range(LEVELS)], dim=1)
        grid = torch.arange(LEVELS, dtype=torch.float32, device=grey.device)
        rows, columns = grid.view(1, LEVELS, 1), grid.view(1, 1, LEVELS)
        parts = []
        for distance in (1, 3):
            total = torch.zeros_like(grid).view(1, 1, LEVELS) * rows
            for dy, dx in _OFFSETS:
                y, x = dy * distance, dx * distance
                height, width = grey.shape[2] - y, grey.shape[3] - abs(x)
                left = max(0, -x)
                first = planes[:, :, :height, left : left + width].flatten(2)
                second = planes[:, :, y : y + height, left + x : left + x + width].flatten(2)
                pairs = torch.matmul(first, second.transpose(1, 2)) / float(height * width)
                total = total + (pairs + pairs.transpose(1, 2)) / 8.0
            difference = rows - columns
            mean = (total * rows).sum(dim=(1, 2), keepdim=True)
            variance = (total * (rows - mean) ** 2).sum(dim=(1, 2)) + 1e-4
            parts += [
                (total * difference**2).sum(dim=(1, 2)),
                (total * difference.abs()).sum(dim=(1, 2)),
                (total / (1.0 + difference**2)).sum(dim=(1, 2)),
                (total * total).sum(dim=(1, 2)).sqrt(),
                (total * (rows - mean) * (columns - mean)).sum(dim=(1, 2)) / variance,
                -(total * torch.log(total.clamp(min=1e-7))).sum(dim=(1, 2)),
                torch.diagonal(total, dim1=1, dim2=2).sum(dim=1),
            ]
        return torch.stack(parts, dim=1)

    def _bands(self, grey: torch.Tensor) -> torch.Tensor:
        parts = []
        current = grey
        for _ in range(4):
            smaller = functional.avg_pool2d(current, 2)
            height, width = smaller.shape[2] * 2, smaller.shape[3] * 2
            detail = current[:, :, :height, :width] - functional.interpolate(smaller, scale_factor=2.0, mode="nearest")
            energy = (detail * detail).flatten(1)
            parts += [torch.log(energy.mean(dim=1) + 1e-7), torch.log(energy.amax(dim=1) + 1e-7)]
            current = smaller
        return torch.stack(parts, dim=1)
