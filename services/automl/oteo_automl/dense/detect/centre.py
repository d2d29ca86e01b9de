"""Detection on centre heatmaps: every object is a peak of its class's heatmap, with its box read off there.

After CenterNet (Zhou, Wang and Krähenbühl 2019, *Objects as Points*) for the heatmap and its loss; TTFNet (Liu et al., AAAI 2020) for
Gaussians with the object's proportions and for learning the box at all cells near the centre; the box as distances to four sides, as FCOS
(Tian et al., ICCV 2019), with the generalised IoU loss (Rezatofighi et al., CVPR 2019); and a predicted IoU that the score is multiplied with
(IoU-aware RetinaNet, Wu et al. 2020), so that the boxes that fit best come first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn
from torchvision.ops import generalized_box_iou_loss

from oteo_automl.candidates.modules import saved
from oteo_automl.dense.detect.detector import Detector, Raw, cell_centres, make_encoder, quiet_head
from oteo_automl.dense.detect.targets import BatchBoxes

_EXTENT = 0.54
"""Share of a box that its Gaussian, of six standard deviations, covers (TTFNet)."""

_LEAST_DEVIATION = 0.5
"""Cells."""

_WIDER = 1.85
"""How many times as wide the Gaussian is by which cells learn the box: with `_NEAR`, the middle half of the object does."""

_NEAR = 0.35
"""Height of that Gaussian above which a cell learns the box."""

_BOX_WEIGHT, _FIT_WEIGHT = 5.0, 1.0
"""Of the losses of box and predicted overlap, against the heatmap's (TTFNet's balance)."""


def block(inside: int, outside: int) -> nn.Sequential:
    """Make a 3x3 convolution with batch normalisation."""
    return nn.Sequential(nn.Conv2d(inside, outside, 3, padding=1, bias=False), nn.BatchNorm2d(outside), nn.ReLU(inplace=True))


class UNetDecoder(nn.Module):
    """Bring an encoder's features to one map at the finest of their strides, coarse to fine, each added to the next.

    Parameters
    ----------
    channels
        Of the features, fine to coarse; each is half the size of the one before.
    widths
        Of the maps, fine to coarse; the first is what is given out.
    """

    def __init__(self, channels: Sequence[int], widths: Sequence[int]) -> None:
        super().__init__()
        self.top = nn.Sequential(nn.Conv2d(channels[-1], widths[-1], 1, bias=False), nn.BatchNorm2d(widths[-1]), nn.ReLU(inplace=True))
        self.lateral = nn.ModuleList(nn.Conv2d(channels[i], widths[i + 1], 1, bias=False) for i in range(len(channels) - 1))
        self.merge = nn.ModuleList(block(widths[i + 1], widths[i]) for i in range(len(channels) - 1))

    def forward(self, features: Sequence[torch.Tensor]) -> torch.Tensor:
        """Give ``(N, widths[0], h, w)``."""
        x: torch.Tensor = self.top(features[-1])
        for index in range(len(self.lateral) - 1, -1, -1):
            x = F.interpolate(x, scale_factor=2.0, mode="nearest")
            x = self.merge[index](x + self.lateral[index](features[index]))
        return x


@saved
class CentreDetector(Detector):
    """A timm encoder, a light decoder and three heads: heatmap, box and predicted IoU.

    Parameters
    ----------
    architecture
        timm's name of the encoder.
    classes
        Number of classes.
    channels, mean, spread
        As of `Detector`.
    stride
        Prepared pixels to a cell of the heatmap: 4 or 8.
    width
        Channels of the decoder's last map.
    base
        Half the side of a usual object, prepared pixels: what an untrained network says.
    balance
        How much the predicted IoU weighs in the score: heat to the power of one, IoU to this power.
    """

    kind = "centre-detector"
    can_mirror = True

    def __init__(
        self,
        architecture: str,
        classes: int,
        channels: int,
        mean: Sequence[float],
        spread: Sequence[float],
        stride: int = 4,
        width: int = 64,
        base: float = 16.0,
        balance: float = 0.5,
    ) -> None:
        super().__init__(
            architecture=architecture, classes=classes, channels=channels, mean=mean, spread=spread, stride=stride, width=width, base=base,
            balance=balance,
        )  # fmt: skip
        self.stride, self.base, self.balance, self.classes = stride, base, balance, classes
        self.encoder, found = make_encoder(architecture, channels, stride)
        self.decoder = UNetDecoder(found, [min(width * 2**level, 256) for level in range(len(found))])
        self.heat = nn.Sequential(block(width, width), quiet_head(width, classes, -math.log(99.0)))
        self.place = nn.Sequential(block(width, width), quiet_head(width, 5))

    def from_planes(self, planes: torch.Tensor) -> Raw:
        """Give logits of the heatmap ``(N, K, h, w)``, and box and predicted IoU ``(N, 5, h, w)``."""
        x = self.decoder(self.encoder(self.normalised(planes)))
        return self.heat(x), self.place(x)

    def mirror_raw(self, raw: Raw) -> Raw:
        """Mirror maps, and let left and right sides change places."""
        place = raw[1].flip(3)
        return raw[0].flip(3), torch.cat([place[:, 2:3], place[:, 1:2], place[:, 0:1], place[:, 3:]], dim=1)

    def boxes(self, place: torch.Tensor, height: int, width: int) -> torch.Tensor:
        """Give the box of every cell, ``(N, 4, h, w)`` in prepared pixels."""
        xs, ys = cell_centres(height, width, self.stride, place.device)
        sides = torch.exp(place[:, :4].float().clamp(-6.0, 5.0)) * self.base
        return torch.stack([xs - sides[:, 0], ys - sides[:, 1], xs + sides[:, 2], ys + sides[:, 3]], dim=1)

    def raw_loss(self, raw: Raw, targets: BatchBoxes, height: int, width: int) -> torch.Tensor:
        """Give the penalty-reduced focal loss of the heatmap, the generalised IoU loss of boxes and the cross-entropy of predicted IoU."""
        heat, place = raw[0].float(), raw[1].float()
        aim = aims(targets, self.classes, height, width, self.stride)
        count = (targets.labels >= 0).sum().clamp(min=1).float()
        peaks = focal_loss(heat, aim.heat, aim.counts) / count
        image, row, column = aim.near
        if len(image) == 0:
            return peaks + 0.0 * place.sum()
        found = self.boxes(place, height, width)[image, :, row, column]
        true = targets.boxes[image, aim.owner]
        misfit: torch.Tensor = generalized_box_iou_loss(found, true)
        fit = iou(found.detach(), true)
        quality = F.binary_cross_entropy_with_logits(place[image, 4, row, column], fit, reduction="none")
        return peaks + ((_BOX_WEIGHT * misfit + _FIT_WEIGHT * quality) * aim.weight).sum() / count

    def decode(self, raw: Raw, height: int, width: int, limit: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Give the highest peaks of the heatmaps: cells that no neighbour of eight is above."""
        heat = torch.sigmoid(raw[0].float())
        # On a plateau all cells are peaks, whichever way a runtime rounds.
        peak = heat >= F.max_pool2d(heat, 3, stride=1, padding=1) * (1.0 - 1e-5)
        score = heat * torch.sigmoid(raw[1][:, 4:5].float()) ** self.balance * peak
        rows, columns = height // self.stride, width // self.stride
        cells = rows * columns
        scores, places = torch.topk(score.reshape(-1, self.classes * cells), min(limit, self.classes * cells), dim=1)
        classes = torch.div(places, cells, rounding_mode="floor")
        cell = (places - classes * cells)[:, :, None].expand(-1, -1, 4)
        boxes = self.boxes(raw[1], height, width).reshape(-1, 4, cells).permute(0, 2, 1)
        return boxes.gather(1, cell), scores, classes


class Aims:
    """What the heads learn of a batch.

    Parameters
    ----------
    heat
        ``(N, K, h, w)`` float32, 0 to 1, exactly 1 at the centres.
    counts
        ``(N, 1, h, w)`` float32: 0 where a cell counts neither for nor against, else 1.
    near
        Image, row and column of the ``P`` cells that learn a box.
    owner
        ``(P,)`` int64: number of the object, in its image, that a cell learns.
    weight
        ``(P,)`` float32: those of one object sum to one.
    """

    __slots__ = ("counts", "heat", "near", "owner", "weight")

    def __init__(
        self, heat: torch.Tensor, counts: torch.Tensor, near: tuple[torch.Tensor, ...], owner: torch.Tensor, weight: torch.Tensor
    ) -> None:
        self.heat, self.counts, self.near, self.owner, self.weight = heat, counts, near, owner, weight


def aims(targets: BatchBoxes, classes: int, height: int, width: int, stride: int) -> Aims:
    """Draw what the heads learn: a Gaussian for each object with its proportions; where two meet, the higher counts."""
    boxes, labels = targets.boxes, targets.labels
    device, (images, most) = boxes.device, labels.shape
    rows, columns = height // stride, width // stride
    middle = (boxes[..., :2] + boxes[..., 2:]) / (2.0 * stride)
    limits = torch.tensor([columns - 1, rows - 1], device=device)
    cell = torch.minimum(middle.floor().long().clamp(min=0), limits)
    deviation = ((boxes[..., 2:] - boxes[..., :2]) * (_EXTENT / 6.0 / stride)).clamp(min=_LEAST_DEVIATION)
    x = torch.exp(-0.5 * ((torch.arange(columns, device=device) - cell[..., 0:1]) / deviation[..., 0:1]) ** 2)
    y = torch.exp(-0.5 * ((torch.arange(rows, device=device) - cell[..., 1:2]) / deviation[..., 1:2]) ** 2)
    wider_x, wider_y = x ** (1.0 / _WIDER**2), y ** (1.0 / _WIDER**2)
    here = (labels >= 0).float()
    heat = torch.zeros((images, classes, rows, columns), device=device)
    best = torch.zeros((images, rows, columns), device=device)
    owner = torch.zeros((images, rows, columns), dtype=torch.long, device=device)
    each = torch.arange(images, device=device)
    # One object of every image at a time: all at once would take K times the memory.
    for number in range(most):
        bump = y[:, number, :, None] * x[:, number, None, :] * here[:, number, None, None]
        label = labels[:, number].clamp(min=0)
        heat[each, label] = torch.maximum(heat[each, label], bump)
        wider = wider_y[:, number, :, None] * wider_x[:, number, None, :] * here[:, number, None, None]
        higher = wider > best
        best = torch.where(higher, wider, best)
        owner = torch.where(higher, number, owner)
    near = torch.nonzero(best > _NEAR, as_tuple=True)
    owned = owner[near]
    value = best[near]
    sums = torch.zeros(images * most, device=device).index_add_(0, near[0] * most + owned, value)
    return Aims(heat, _counting(targets.ignored, rows, columns, stride), near, owned, value / sums[near[0] * most + owned])


def _counting(ignored: torch.Tensor, rows: int, columns: int, stride: int) -> torch.Tensor:
    xs, ys = cell_centres(rows * stride, columns * stride, stride, ignored.device)
    counts = torch.ones((len(ignored), 1, rows, columns), device=ignored.device)
    for number in range(ignored.shape[1]):
        left, top, right, bottom = (ignored[:, number, side].view(-1, 1, 1) for side in range(4))
        inside = (xs >= left) & (xs < right) & (ys >= top) & (ys < bottom)
        counts[:, 0] *= 1.0 - inside.float()
    return counts


def focal_loss(logits: torch.Tensor, heat: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """Sum CenterNet's focal loss: centres count in full, the less the nearer a cell is to one; `counts` of 0 leaves background out."""
    probability = torch.sigmoid(logits)
    centre = heat == 1.0
    for_it = -F.logsigmoid(logits) * (1.0 - probability) ** 2
    against = -F.logsigmoid(-logits) * probability**2 * (1.0 - heat) ** 4 * counts
    return torch.where(centre, for_it, against).sum()


def iou(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Give the intersection over union of boxes ``(P, 4)`` in pairs."""
    low = torch.maximum(first[:, :2], second[:, :2])
    high = torch.minimum(first[:, 2:], second[:, 2:])
    common = (high - low).clamp(min=0.0).prod(dim=1)
    areas = (first[:, 2:] - first[:, :2]).prod(dim=1) + (second[:, 2:] - second[:, :2]).prod(dim=1)
    return common / (areas - common).clamp(min=1e-6)
