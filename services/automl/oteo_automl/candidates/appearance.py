"""How another microscope, scanner, stain or exposure would have shown the same thing: changes of appearance, of whole batches."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

Draw = Callable[..., torch.Tensor]

# Haematoxylin, eosin, DAB: optical density in red, green and blue (Ruifrok and Johnston, Analytical and Quantitative Cytology and Histology 23, 2001).
_DYES = ((0.65, 0.70, 0.29), (0.07, 0.99, 0.11), (0.27, 0.57, 0.78))
_FLOOR = 1.0 / 255.0
_SPREADS = 4.0


def extent(planes: torch.Tensor) -> torch.Tensor:
    """Give how much of the range of 0 to 1 each image takes up, ``(N, 1, 1, 1)``: four standard deviations, at most 1.

    What is added to an image has to be in proportion to it: a shift that a bright-field image bears pushes all that a dim fluorescence image
    shows below black.
    """
    return (_SPREADS * planes.std(dim=(1, 2, 3), keepdim=True, unbiased=False)).clamp(max=1.0)


def relit(planes: torch.Tensor, far: torch.Tensor | float, draw: Draw) -> torch.Tensor:
    """Change contrast, brightness and gamma.

    Parameters
    ----------
    planes
        ``(N, C, H, W)`` of 0 to 1.
    far
        ``(N, 1, 1, 1)`` or one for all: contrast and gamma change by up to this share, brightness by up to half of it, in shares of the image's
        `extent`. Gamma is taken between black and the image's largest value.
    draw
        Gives numbers from -1 to 1.
    """
    count = planes.shape[0]
    contrast = torch.exp(far * draw(count, 1, 1, 1))
    brightness = 0.5 * far * draw(count, 1, 1, 1) * extent(planes)
    gamma = torch.exp(far * draw(count, 1, 1, 1))
    middle = planes.mean(dim=(1, 2, 3), keepdim=True)
    planes = ((planes - middle) * contrast + middle + brightness).clamp(0.0, 1.0)
    top = planes.amax(dim=(1, 2, 3), keepdim=True).clamp(min=_FLOOR)
    return (planes / top + 1e-6).pow(gamma).clamp(max=1.0) * top


def restained(planes: torch.Tensor, far: torch.Tensor, draw: Draw) -> torch.Tensor:
    """Change how much of each dye there is (Tellez et al., Medical Image Analysis 58, 2019: HED jitter).

    Parameters
    ----------
    planes
        ``(N, 3, H, W)`` of 0 to 1.
    far
        ``(N, 1, 1, 1)``: amounts change by up to this share, and by up to a tenth of it everywhere.
    draw
        Gives numbers from -1 to 1.
    """
    dyes = torch.tensor(_DYES, dtype=torch.float32, device=planes.device)
    dyes = dyes / dyes.norm(dim=1, keepdim=True)
    density = -torch.log(planes.clamp(min=_FLOOR))
    amounts = torch.einsum("nchw,cd->ndhw", density, torch.linalg.inv(dyes))
    count = planes.shape[0]
    amounts = amounts * (1.0 + far * draw(count, 3, 1, 1)) + 0.1 * far * draw(count, 3, 1, 1)
    return torch.exp(-torch.einsum("ndhw,dc->nchw", amounts, dyes)).clamp(0.0, 1.0)


def field(planes: torch.Tensor, far: torch.Tensor, draw: Draw) -> torch.Tensor:
    """Make some regions brighter than others, smoothly: uneven light, a coil's bias field; by up to `far` ``(N, 1, 1, 1)``, a share."""
    rough = draw(planes.shape[0], 1, 3, 3)
    smooth = F.interpolate(rough, size=(int(planes.shape[2]), int(planes.shape[3])), mode="bicubic", align_corners=True)
    return (planes * torch.exp(far * smooth.clamp(-1.0, 1.0))).clamp(0.0, 1.0)


def blurred(planes: torch.Tensor, draw: Draw) -> torch.Tensor:
    """Blur each image with a Gaussian of 0.3 to 1.5 pixels."""
    count, channels = int(planes.shape[0]), int(planes.shape[1])
    sigma = 0.9 + 0.6 * draw(count)
    offsets = torch.arange(-3, 4, device=planes.device, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (offsets[None] / sigma[:, None]) ** 2)
    kernel = (kernel / kernel.sum(dim=1, keepdim=True)).repeat_interleave(channels, dim=0)
    height, width = int(planes.shape[2]), int(planes.shape[3])
    flat = F.pad(planes, (3, 3, 3, 3), mode="replicate").reshape(1, count * channels, height + 6, width + 6)
    flat = F.conv2d(flat, kernel[:, None, :, None], groups=count * channels)
    flat = F.conv2d(flat, kernel[:, None, None, :], groups=count * channels)
    return flat.reshape(count, channels, height, width)


def coarsened(planes: torch.Tensor, draw: Draw) -> torch.Tensor:
    """Bring the batch to a half to nine tenths of its resolution and back: one factor for all, since sizes must be."""
    factor = 0.7 + 0.2 * float(draw(1))
    height, width = int(planes.shape[2]), int(planes.shape[3])
    small = F.interpolate(planes, size=(max(8, round(height * factor)), max(8, round(width * factor))), mode="area")
    return F.interpolate(small, size=(height, width), mode="bilinear", align_corners=False).clamp(0.0, 1.0)


def noisy(planes: torch.Tensor, far: torch.Tensor, draw: Draw, generator: torch.Generator) -> torch.Tensor:
    """Add normal noise of a standard deviation of up to `far` ``(N, 1, 1, 1)``, in shares of the image's `extent`."""
    spread = far * draw(planes.shape[0], 1, 1, 1).abs() * extent(planes)
    # Uniform numbers are drawn in a third of the time of normal ones; the sum of three is near enough.
    noise = torch.rand((3, *planes.shape), generator=generator).sum(dim=0).sub_(1.5).mul_(2.0).to(planes.device)
    return (planes + spread * noise).clamp(0.0, 1.0)
