"""A network with a mask head: objects are found by their centres, and each gets a mask from one matrix product.

Centres as in CenterNet (Zhou et al., "Objects as points", 2019); masks as in SOLOv2 (Wang et al., NeurIPS 2020) and CondInst (Tian et al., ECCV
2020): at an object's centre a vector is predicted that, multiplied with feature maps, gives the logits of its mask. Few images do not teach
such vectors to tell like objects apart by their place, so the product also holds a quadratic in the place relative to the centre, in units of a
predicted radius: a blob from the start, which the features then shape. All of it is dense, needs no boxes, and exports with fixed shapes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
from torch import nn

from oteo_automl.candidates.modules import SavedModule, Spec, build, saved, to_planes

STRIDE = 4
"""Prepared pixels to one of the centres' map, along a side."""

MASK_STRIDE = 2
"""The same for masks."""

EMBEDDING = 16
_PLACED = 5
_NOTHING = 0.02
_RADIUS = 6.0
"""Pixels of a mask: the radius before anything is learnt."""


class Heads(NamedTuple):
    """Raw maps: classes of pixels ``(N, K + 1, H / 2, W / 2)``, centres ``(N, K, H / 4, W / 4)``, vectors ``(N, E + 5, H / 4, W / 4)``, features ``(N, E, H / 2, W / 2)``."""

    classes: torch.Tensor
    centres: torch.Tensor
    vectors: torch.Tensor
    features: torch.Tensor


@saved
class MaskNetwork(SavedModule):
    """From ``(N, H, W, C)`` to `Heads`; sides are multiples of 32.

    Parameters
    ----------
    architecture
        timm's name of the encoder.
    classes
        K.
    channels
        C.
    mean, spread
        Of each channel, on the scale of 0 to 1.
    """

    kind = "centre-mask"
    mean: torch.Tensor
    spread: torch.Tensor

    def __init__(self, architecture: str, classes: int, channels: int, mean: Sequence[float], spread: Sequence[float]) -> None:
        super().__init__(architecture=architecture, classes=classes, channels=channels, mean=list(mean), spread=list(spread))
        unet = smp.Unet(
            f"tu-{architecture}", encoder_weights=None, in_channels=channels, classes=1, decoder_channels=(256, 128, 64, 32, 16)
        )
        self.trunk: nn.Module = unet.encoder
        self.blocks = nn.ModuleList(unet.decoder.blocks[:4])
        self.centre_head = _head(64, classes)
        self.vector_head = _head(64, EMBEDDING + _PLACED)
        self.class_head = nn.Conv2d(32, classes + 1, 3, padding=1)
        self.feature_head = nn.Conv2d(32, EMBEDDING, 3, padding=1)
        # A centre is rare: an even chance at every pixel would drown the first steps (Lin et al. 2017).
        nn.init.constant_(self.centre_head[-1].bias, -3.0)  # type: ignore[arg-type]
        self.register_buffer("mean", torch.tensor(list(mean), dtype=torch.float32).view(1, -1, 1, 1))
        self.register_buffer("spread", torch.tensor(list(spread), dtype=torch.float32).view(1, -1, 1, 1))

    @property
    def encoder(self) -> nn.Module:
        """Timm's network, whose parts are named as in its weights."""
        found: nn.Module = self.trunk.model  # type: ignore[assignment]
        return found

    def forward(self, image: torch.Tensor) -> Heads:
        """Give raw maps."""
        return self.from_planes(to_planes(image))

    def from_planes(self, planes: torch.Tensor) -> Heads:
        """Give raw maps of ``(N, C, H, W)`` float32 of 0 to 1."""
        features: list[torch.Tensor] = self.trunk((planes - self.mean) / self.spread)
        skips = features[1:][::-1]
        x, levels = skips[0], []
        for block, skip in zip(self.blocks, skips[1:], strict=True):
            x = block(x, skip.shape[2], skip.shape[3], skip_connection=skip)
            levels.append(x)
        coarse, fine = levels[-2], levels[-1]
        return Heads(self.class_head(fine), self.centre_head(coarse), self.vector_head(coarse), self.feature_head(fine))


def _head(width: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(width, 64, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(64, outputs, 1))


def mask_logits(vectors: torch.Tensor, centres: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
    """Multiply objects' vectors with the features.

    Parameters
    ----------
    vectors
        ``(N, M, E + 5)``: embedding, then radius (logarithm), level, two slopes and curvature.
    centres
        ``(N, M, 2)`` y and x, in pixels of the masks from the middle of the map.
    features
        ``(N, E, h, w)``.

    Returns
    -------
    Tensor
        ``(N, M, h, w)`` float32.
    """
    vectors, features, centres = vectors.float(), features.float(), centres.float()
    height, width = features.shape[2], features.shape[3]
    rows = torch.arange(height, device=features.device, dtype=torch.float32) + 0.5 - height / 2
    columns = torch.arange(width, device=features.device, dtype=torch.float32) + 0.5 - width / 2
    y = rows[:, None].expand(height, width).reshape(1, 1, -1)
    x = columns[None, :].expand(height, width).reshape(1, 1, -1)
    flat = features.flatten(2)
    places = torch.cat([y * y + x * x, y, x, torch.ones_like(x)], dim=1).expand(flat.shape[0], 4, height * width)
    radius = _RADIUS * torch.exp(vectors[..., EMBEDDING].clamp(-2.0, 3.5))
    level, slope_y, slope_x = vectors[..., EMBEDDING + 1], vectors[..., EMBEDDING + 2] / radius, vectors[..., EMBEDDING + 3] / radius
    curve = F.softplus(vectors[..., EMBEDDING + 4] + 1.0) / (radius * radius)
    centre_y, centre_x = centres[..., 0], centres[..., 1]
    # level + 2 + slopes (p - c) - curve |p - c|^2, by powers of the place.
    constant = level + 2.0 - slope_y * centre_y - slope_x * centre_x - curve * (centre_y * centre_y + centre_x * centre_x)
    terms = torch.stack([-curve, slope_y + 2.0 * curve * centre_y, slope_x + 2.0 * curve * centre_x, constant], dim=-1)
    product = torch.matmul(torch.cat([vectors[..., :EMBEDDING], terms], dim=-1), torch.cat([flat, places], dim=1))
    return product.view(product.shape[0], product.shape[1], height, width)


@saved
class ServedMasks(SavedModule):
    """What is exported: ``probabilities`` ``(N, K + 1, H, W)``, ``masks`` uint8 ``(N, M, H / 2, W / 2)``, ``scores`` float32 and ``classes`` int64 ``(N, M)``.

    A score is the centre's probability times the mean certainty of the mask's pixels (SOLOv2's maskness).

    Parameters
    ----------
    network
        A `MaskNetwork`, or its spec.
    most
        M, objects of an image.
    temperature
        Divides the logits of pixels' classes.
    """

    kind = "served-masks"
    temperature: torch.Tensor

    def __init__(self, network: SavedModule | Spec, most: int, temperature: float = 1.0) -> None:
        made = network if isinstance(network, SavedModule) else build(network)
        super().__init__(network=made.spec(), most=most, temperature=float(temperature))
        self.network = made
        self._most = most
        self.register_buffer("temperature", torch.tensor(float(temperature), dtype=torch.float32))

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Give probabilities, masks, scores and classes."""
        return self.from_heads(self.network(image))

    def from_heads(self, heads: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Give the outputs of raw maps."""
        classes, centres, vectors, features = (one.float() for one in heads)
        large = F.interpolate(classes, scale_factor=float(MASK_STRIDE), mode="bilinear", align_corners=False)
        chances = torch.sigmoid(centres)
        peaks = torch.where(F.max_pool2d(chances, 3, 1, 1) == chances, chances, torch.zeros_like(chances))
        # Whole numbers, not traced: only the batch may vary.
        count, height, width = (int(size) for size in centres.shape[1:])
        scores, chosen = torch.topk(peaks.flatten(1), min(self._most, count * height * width), dim=1)
        cells = chosen % (height * width)
        own = vectors.flatten(2).transpose(1, 2).gather(1, cells[:, :, None].expand(-1, -1, vectors.shape[1]))
        share = STRIDE / MASK_STRIDE
        y = (torch.div(cells, width, rounding_mode="floor").float() + 0.5 - height / 2) * share
        x = ((cells % width).float() + 0.5 - width / 2) * share
        certain = torch.sigmoid(mask_logits(own, torch.stack([y, x], dim=2), features))
        inside = (certain > 0.5).float()
        maskness = (certain * inside).sum(dim=(2, 3)) / (inside.sum(dim=(2, 3)) + 1e-3)
        scores = scores * maskness
        # Places beyond the objects there are hold nothing, on every runtime: which cells are left over is chance.
        taken = scores > _NOTHING
        masks = torch.round(certain * taken[:, :, None, None].float() * 255.0).to(torch.uint8)
        numbers = torch.div(chosen, height * width, rounding_mode="floor") * taken.long()
        return torch.softmax(large / self.temperature, dim=1), masks, scores * taken.float(), numbers
