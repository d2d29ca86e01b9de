"""Classical descriptors as one network of tensor operations, so that what was trained is what is exported.

Local binary patterns (Ojala et al., IEEE TPAMI 24, 2002; the rotation-invariant uniform ones), histograms of oriented gradients (Dalal
and Triggs, CVPR 2005), Haralick's texture features of grey-level co-occurrence (IEEE Trans. SMC 3, 1973), histograms and moments of
brightness and colour, energies of a band-pass pyramid, and a tiny copy of the image. Each of FrImCla's descriptors (Garcia-Dominguez et
al., IEEE Access 7, 2019: LBP, HOG, Haralick's, histograms in Lab and in HSV) can also be had alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F

from oteo_automl.candidates.colour import colour_histogram, to_hsv, to_lab
from oteo_automl.candidates.modules import SavedModule, saved, to_planes

_LEVELS = 16
_NEIGHBOURS = ((-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1))
_DIRECTIONS = ((0, 1), (1, 1), (1, 0), (1, -1))
_EPSILON = 1e-6
"""Never below 1e-7: the ONNX exporter takes the addition of 1e-8 for an addition of nothing and leaves it out."""

DESCRIPTORS: dict[str, tuple[str, ...]] = {
    "classical": ("histograms", "moments", "lbp", "hog", "haralick", "bands", "thumbnail", "lab"),
    "lbp": ("lbp",),
    "hog": ("hog",),
    "haralick": ("haralick",),
    "lab": ("lab",),
    "hsv": ("hsv",),
}
"""Sets of descriptors by the name that candidates have them under."""


@saved
class Descriptors(SavedModule):
    """From ``(N, H, W, C)`` images to ``(N, D)`` features, float32.

    Parameters
    ----------
    height, width
        Of the images, pixels; at least 16.
    channels
        Of the images.
    parts
        Which descriptors, in this order: ``"histograms"``, ``"moments"``, ``"lbp"``, ``"hog"``, ``"haralick"``, ``"bands"``, ``"thumbnail"``,
        ``"lab"``, ``"hsv"``.

    Raises
    ------
    ValueError
        Images too small, or a part that is not known.
    """

    kind = "descriptors"
    _cosines: torch.Tensor
    _sines: torch.Tensor
    _levels: torch.Tensor
    _codes: torch.Tensor

    def __init__(self, height: int, width: int, channels: int, parts: Sequence[str] = DESCRIPTORS["classical"]) -> None:
        super().__init__(height=height, width=width, channels=channels, parts=list(parts))
        if min(height, width) < 16:
            raise ValueError(f"images of {width} x {height} are too small for descriptors; at least 16 x 16")
        unknown = sorted(set(parts) - {part for known in DESCRIPTORS.values() for part in known})
        if unknown or not parts:
            raise ValueError(f"no descriptors, or unknown ones: {unknown}")
        self._channels = channels
        self._parts = tuple(parts)
        sides = min(height, width)
        self._radii = [radius for radius in (1, 2, 4) if 4 * radius < sides]
        self._steps = [step for step in (1, 3) if 4 * step < sides]
        self._scales = [scale for scale in (1, 2, 4, 8, 16) if 4 * scale <= sides]
        self._cells = 6 if sides >= 48 else 4
        angles = torch.arange(8, dtype=torch.float32) * (2 * math.pi / 8)
        self.register_buffer("_cosines", torch.cos(angles).view(1, 8, 1, 1), persistent=False)
        self.register_buffer("_sines", torch.sin(angles).view(1, 8, 1, 1), persistent=False)
        self.register_buffer("_levels", torch.arange(_LEVELS, dtype=torch.float32), persistent=False)
        self.register_buffer("_codes", torch.arange(10, dtype=torch.float32).view(1, 10, 1, 1), persistent=False)
        with torch.no_grad():
            self.dimension = int(self(torch.zeros((1, height, width, channels), dtype=torch.uint8)).shape[1])

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Give ``(N, D)``."""
        planes = to_planes(image)
        colour = planes if self._channels in (1, 3) else planes.mean(dim=1, keepdim=True)
        grey = _grey(colour)
        return torch.cat([self._part(part, colour, grey) for part in self._parts], dim=1)

    def _part(self, name: str, colour: torch.Tensor, grey: torch.Tensor) -> torch.Tensor:
        if name == "histograms":
            return self._histograms(colour, grey)
        if name == "moments":
            return self._moments(colour)
        if name == "lbp":
            return self._patterns(grey)
        if name == "hog":
            return self._gradients(grey)
        if name == "haralick":
            return self._cooccurrence(grey)
        if name == "bands":
            return self._bands(colour)
        if name == "lab":
            return colour_histogram(to_lab(colour), circular=False)
        if name == "hsv":
            return colour_histogram(to_hsv(colour), circular=True)
        small = F.adaptive_avg_pool2d(grey, 8).flatten(1)
        return torch.cat([small, F.adaptive_avg_pool2d(colour, 4).flatten(1)], dim=1) if colour.shape[1] == 3 else small

    def _histograms(self, colour: torch.Tensor, grey: torch.Tensor) -> torch.Tensor:
        planes = [grey]
        if colour.shape[1] == 3:
            red, green, blue = colour[:, 0:1], colour[:, 1:2], colour[:, 2:3]
            # Opponent colours (van de Sande et al., IEEE TPAMI 32, 2010), stretched to 0 to 1.
            planes += [red, green, blue, (red - green) * 0.5 + 0.5, (red + green - 2 * blue) * 0.25 + 0.5]
        stacked = torch.cat(planes, dim=1).flatten(2)
        # Each pixel shares itself between its two nearest bins: a pixel on an edge does not jump.
        positions = stacked.clamp(0.0, 1.0) * (_LEVELS - 1)
        # One bin after the other: all at once would take sixteen times the memory and five times as long.
        bins = [F.relu(1.0 - (positions - float(level)).abs()).mean(dim=2) for level in range(_LEVELS)]
        return torch.sqrt(torch.stack(bins, dim=2).flatten(1) + _EPSILON)

    def _moments(self, colour: torch.Tensor) -> torch.Tensor:
        flat = colour.flatten(2)
        mean = flat.mean(dim=2)
        centred = flat - mean[:, :, None]
        spread = torch.sqrt((centred * centred).mean(dim=2) + _EPSILON)
        scaled = centred / spread[:, :, None]
        cube = scaled * scaled * scaled
        return torch.cat([mean, spread, cube.mean(dim=2), torch.log1p((cube * scaled).mean(dim=2))], dim=1)

    def _patterns(self, grey: torch.Tensor) -> torch.Tensor:
        # Whole numbers: comparisons then come out the same in every runtime.
        whole = torch.round(grey * 255.0)
        features = []
        for radius in self._radii:
            height, width = int(whole.shape[2]) - 2 * radius, int(whole.shape[3]) - 2 * radius
            centre = whole[:, :, radius : radius + height, radius : radius + width]
            bits = []
            for dy, dx in _NEIGHBOURS:
                top, left = radius + dy * radius, radius + dx * radius
                bits.append((whole[:, :, top : top + height, left : left + width] >= centre).float())
            stacked = torch.stack(bits, dim=0)
            changes = (stacked - torch.roll(stacked, 1, dims=0)).abs().sum(dim=0)
            ones = stacked.sum(dim=0)
            code = torch.where(changes <= 2.0, ones, torch.full_like(ones, 9.0))
            member = (code == self._codes).float()
            grid = 3 if radius == 1 else 1
            features.append(torch.sqrt(F.adaptive_avg_pool2d(member, 1).flatten(1) + _EPSILON))
            if grid > 1:
                features.append(torch.sqrt(_pool(member, grid).flatten(1) + _EPSILON))
        return torch.cat(features, dim=1)

    def _gradients(self, grey: torch.Tensor) -> torch.Tensor:
        across = (grey[:, :, 1:-1, 2:] - grey[:, :, 1:-1, :-2]) * 0.5
        down = (grey[:, :, 2:, 1:-1] - grey[:, :, :-2, 1:-1]) * 0.5
        squared = across * across + down * down + 1e-6
        # The doubled angle's cosine and sine, without an arc tangent; each bin is a smooth bump around its direction.
        double_cosine = (across * across - down * down) / squared
        double_sine = 2 * across * down / squared
        bumps = F.relu(double_cosine * self._cosines + double_sine * self._sines)
        energy = _pool(bumps * bumps * bumps * torch.sqrt(squared), self._cells)
        around = F.avg_pool2d(F.pad((energy * energy).sum(dim=1, keepdim=True), (1, 1, 1, 1), mode="replicate"), 3, stride=1)
        local = energy / torch.sqrt(around + 1e-5)
        return torch.cat([local.clamp(max=2.0).flatten(1), torch.log(energy.mean(dim=(2, 3)) + 1e-4)], dim=1)

    def _cooccurrence(self, grey: torch.Tensor) -> torch.Tensor:
        quantised = torch.floor(grey.clamp(0.0, 0.99999) * _LEVELS)
        member = (quantised[:, :, None] == self._levels.view(1, 1, _LEVELS, 1, 1)).float()[:, 0]
        joints = []
        for step in self._steps:
            for dy, dx in _DIRECTIONS:
                first, second = _shifted(member, dy * step, dx * step)
                counts = torch.matmul(first.flatten(2), second.flatten(2).transpose(1, 2))
                joints.append(counts / float(int(first.shape[2]) * int(first.shape[3])))
        # All steps and directions at once, (steps, directions, N, levels, levels): a graph of a tenth of the nodes.
        joint = torch.stack(joints, dim=0)
        joint = ((joint + joint.transpose(2, 3)) * 0.5).reshape(len(self._steps), len(_DIRECTIONS), -1, _LEVELS, _LEVELS)
        found = _haralick(joint, self._levels)
        # Over directions: the mean, and how much it matters where one looks; then (N, steps * 2 * 6).
        both = torch.cat([found.mean(dim=1), found.amax(dim=1) - found.amin(dim=1)], dim=2)
        return both.permute(1, 0, 2).flatten(1)

    def _bands(self, colour: torch.Tensor) -> torch.Tensor:
        features = []
        current = colour
        for scale in self._scales:
            smaller = F.avg_pool2d(current, 2) if scale * 4 <= min(int(colour.shape[2]), int(colour.shape[3])) else current
            enlarged = F.interpolate(smaller, scale_factor=2.0, mode="nearest")
            height, width = int(enlarged.shape[2]), int(enlarged.shape[3])
            band = current[:, :, :height, :width] - enlarged
            features.append(torch.log((band * band).mean(dim=(2, 3)) + 1e-6))
            features.append(torch.log((band * band).amax(dim=(2, 3)) + 1e-6))
            current = smaller
        return torch.cat(features, dim=1)


def _grey(colour: torch.Tensor) -> torch.Tensor:
    if colour.shape[1] == 1:
        return colour
    return colour[:, 0:1] * 0.299 + colour[:, 1:2] * 0.587 + colour[:, 2:3] * 0.114


def _pool(planes: torch.Tensor, grid: int) -> torch.Tensor:
    """Average over a grid; what does not divide evenly is left out at the right and below."""
    height, width = int(planes.shape[2]) // grid, int(planes.shape[3]) // grid
    return F.avg_pool2d(planes[:, :, : height * grid, : width * grid], (height, width))


def _shifted(member: torch.Tensor, down: int, across: int) -> tuple[torch.Tensor, torch.Tensor]:
    height, width = int(member.shape[2]) - abs(down), int(member.shape[3]) - abs(across)
    left, other = max(0, -across), max(0, across)
    return member[:, :, :height, left : left + width], member[:, :, down : down + height, other : other + width]


def _haralick(joint: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
    """Give six features of joint probabilities ``(..., levels, levels)``."""
    difference = levels[:, None] - levels[None, :]
    squared = difference * difference
    both = (-2, -1)
    contrast = (joint * squared).sum(dim=both)
    dissimilarity = (joint * difference.abs()).sum(dim=both)
    homogeneity = (joint / (1.0 + squared)).sum(dim=both)
    uniformity = (joint * joint).sum(dim=both)
    entropy = -(joint * torch.log(joint + 1e-6)).sum(dim=both)
    marginal = joint.sum(dim=-1)
    mean = (marginal * levels).sum(dim=-1, keepdim=True)
    centred = levels - mean
    variance = (marginal * centred * centred).sum(dim=-1)
    covariance = (joint * centred.unsqueeze(-1) * centred.unsqueeze(-2)).sum(dim=both)
    correlation = covariance / (variance + 1e-3)
    return torch.stack([torch.log1p(contrast), dissimilarity, homogeneity, uniformity, entropy, correlation], dim=-1)
