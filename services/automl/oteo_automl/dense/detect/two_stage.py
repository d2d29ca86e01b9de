"""Two-stage detection: proposals from a pyramid, then a class and a finer box for each.

Faster R-CNN (Ren et al., NeurIPS 2015; with feature pyramids, Lin et al., CVPR 2017) of torchvision's parts over a timm encoder. Training is
torchvision's; inference is written anew with shapes that do not depend on values, so that it exports with a batch of any size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign, roi_align

from oteo_automl.candidates.modules import saved
from oteo_automl.dense.detect.detector import Detector, Raw, make_encoder, pyramid
from oteo_automl.dense.detect.fcos import STRIDES, objects_of
from oteo_automl.dense.detect.suppression import likeliest, survivors
from oteo_automl.dense.detect.targets import BatchBoxes

_POOLED = 7
_USUAL_SIZE = 224.0
"""Side of an object that is pooled at stride 16 (Lin et al., equation 1)."""
_BEFORE, _PROPOSALS = 400, 150
_ANSWERS = 400
_PROPOSAL_OVERLAP, _OVERLAP = 0.7, 0.5


@saved
class TwoStageDetector(Detector):
    """Faster R-CNN over three strides.

    Parameters
    ----------
    architecture
        timm's name of the encoder.
    classes
        Number of classes.
    channels, mean, spread
        As of `Detector`.
    sizes
        Sides of the anchors of each stride, prepared pixels.
    aspects
        Height to width of the anchors.
    width
        Channels of the pyramid.
    hidden
        Of the second stage.
    """

    kind = "two-stage-detector"
    draws = True

    def __init__(
        self,
        architecture: str,
        classes: int,
        channels: int,
        mean: Sequence[float],
        spread: Sequence[float],
        sizes: Sequence[Sequence[float]],
        aspects: Sequence[float] = (0.5, 1.0, 2.0),
        width: int = 128,
        hidden: int = 256,
    ) -> None:
        super().__init__(
            architecture=architecture, classes=classes, channels=channels, mean=mean, spread=spread,
            sizes=[list(one) for one in sizes], aspects=list(aspects), width=width, hidden=hidden,
        )  # fmt: skip
        self.classes = classes
        self.encoder, found = make_encoder(architecture, channels, STRIDES[0])
        self.neck = FeaturePyramidNetwork(found, width)
        anchors = AnchorGenerator(tuple(tuple(one) for one in sizes), (tuple(aspects),) * len(sizes))
        # torchvision's usual thresholds; the samples per image and the proposals are a third of its, five times as fast (measured).
        many = {"training": 600, "testing": 600}
        few = {"training": 300, "testing": 300}
        head = RPNHead(width, anchors.num_anchors_per_location()[0])
        self.proposals = RegionProposalNetwork(anchors, head, 0.7, 0.3, 128, 0.5, many, few, _PROPOSAL_OVERLAP)
        self.regions = RoIHeads(
            MultiScaleRoIAlign(["0", "1", "2"], _POOLED, 2),
            TwoMLPHead(width * _POOLED**2, hidden),
            FastRCNNPredictor(hidden, classes + 1),
            0.5, 0.5, 64, 0.25, None, 0.01, _OVERLAP, 300,
        )  # fmt: skip

    def from_planes(self, planes: torch.Tensor) -> Raw:
        """Give the pyramid, fine to coarse."""
        return tuple(pyramid(self.encoder(self.normalised(planes)), self.neck))

    def raw_loss(self, raw: Raw, targets: BatchBoxes, height: int, width: int) -> torch.Tensor:
        """Give the sum of torchvision's four losses; ignored regions count as background."""
        features = {str(number): feature.float() for number, feature in enumerate(raw)}
        shapes = [(height, width)] * len(raw[0])
        images = ImageList(raw[0].new_zeros((len(raw[0]), 1, height, width)), shapes)
        truths = objects_of(targets, first=1)
        was = self.training
        # Neither has batch normalisation: the mode only says whether there is a loss.
        self.proposals.train()
        self.regions.train()
        with torch.autocast(raw[0].device.type, enabled=False):
            proposed, first = self.proposals(images, features, truths)
            _, second = self.regions(features, proposed, shapes, truths)
        self.proposals.train(was)
        self.regions.train(was)
        return torch.stack([*first.values(), *second.values()]).sum()

    def decode(self, raw: Raw, height: int, width: int, limit: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Give the likeliest answers of the second stage after suppression within classes."""
        features = [feature.float() for feature in raw]
        proposed = self._proposed(features, height, width)
        count = int(proposed.shape[1])
        pooled = self._pooled(features, proposed)
        logits, shifts = self.regions.box_predictor(self.regions.box_head(pooled))
        share = torch.softmax(logits, dim=1)[:, 1:].reshape(-1, count * self.classes)
        decoded = self.regions.box_coder.decode_single(shifts, proposed.reshape(-1, 4)).reshape(-1, self.classes + 1, 4)[:, 1:]
        boxes = _inside(decoded.reshape(-1, count * self.classes, 4), height, width)
        scores, best = torch.topk(share, min(_ANSWERS, count * self.classes), dim=1)
        labels = torch.remainder(best, self.classes)
        return likeliest(boxes.gather(1, best[:, :, None].expand(-1, -1, 4)), scores, labels, limit, _OVERLAP)

    def _proposed(self, features: list[torch.Tensor], height: int, width: int) -> torch.Tensor:
        objectness, shifts = self.proposals.head(features)
        kinds = self.proposals.anchor_generator.num_anchors_per_location()[0]
        chances = torch.cat([one.permute(0, 2, 3, 1).flatten(1) for one in objectness], dim=1)
        moved = torch.cat(
            [
                one.unflatten(1, (kinds, 4)).permute(0, 3, 4, 1, 2).reshape(-1, (height // s) * (width // s) * kinds, 4)
                for one, s in zip(shifts, STRIDES, strict=True)
            ],
            dim=1,
        )
        anchors = self._anchors(height, width, chances.device)
        total = int(anchors.shape[0])
        chances = chances.reshape(-1, total)
        best, places = torch.topk(chances, min(_BEFORE, total), dim=1)
        wanted = places[:, :, None].expand(-1, -1, 4)
        near = anchors[places.reshape(-1)]
        boxes = self.proposals.box_coder.decode_single(moved.gather(1, wanted).reshape(-1, 4), near)
        boxes = _inside(boxes.reshape(-1, int(best.shape[1]), 4), height, width)
        left = torch.sigmoid(best) * survivors(boxes, None, _PROPOSAL_OVERLAP)
        _, first = torch.topk(left, min(_PROPOSALS, int(best.shape[1])), dim=1)
        return boxes.gather(1, first[:, :, None].expand(-1, -1, 4))

    def _anchors(self, height: int, width: int, device: torch.device) -> torch.Tensor:
        parts = []
        for stride, base in zip(STRIDES, self.proposals.anchor_generator.cell_anchors, strict=True):
            ys = torch.arange(height // stride, device=device, dtype=torch.float32) * stride
            xs = torch.arange(width // stride, device=device, dtype=torch.float32) * stride
            y, x = torch.meshgrid(ys, xs, indexing="ij")
            corner = torch.stack([x.reshape(-1), y.reshape(-1)] * 2, dim=1)
            parts.append((corner[:, None] + base.to(device)[None]).reshape(-1, 4))
        return torch.cat(parts)

    def _pooled(self, features: list[torch.Tensor], proposed: torch.Tensor) -> torch.Tensor:
        """Pool every proposal at every stride and keep that of its size: three times the work, of fixed shape."""
        count = int(proposed.shape[1])
        image = torch.arange(proposed.shape[0], device=proposed.device, dtype=proposed.dtype)
        flat = proposed.reshape(-1, 4)
        regions = torch.cat([image[:, None].expand(-1, count).reshape(-1, 1), flat], dim=1)
        area = (flat[:, 2] - flat[:, 0]) * (flat[:, 3] - flat[:, 1])
        level = torch.floor(4.0 + torch.log2(torch.sqrt(area) / _USUAL_SIZE + 1e-6)).clamp(3.0, 5.0) - 3.0
        total = torch.zeros_like(regions[:, :1, None, None])
        for number, (feature, stride) in enumerate(zip(features, STRIDES, strict=True)):
            part = roi_align(feature, regions, (_POOLED, _POOLED), 1.0 / stride, 2, aligned=False)
            total = total + part * (level == number).float()[:, None, None, None]
        return total


def _inside(boxes: torch.Tensor, height: int, width: int) -> torch.Tensor:
    return torch.stack(
        [
            boxes[..., 0].clamp(0.0, float(width)),
            boxes[..., 1].clamp(0.0, float(height)),
            boxes[..., 2].clamp(0.0, float(width)),
            boxes[..., 3].clamp(0.0, float(height)),
        ],
        dim=-1,
    )


def anchor_sizes(side: Sequence[float]) -> list[list[float]]:
    """Give two sides of anchors for each stride from the percentiles (5, 25, 50, 75, 95) of the objects' sides, prepared pixels."""
    low, high = max(4.0, float(side[0])), max(6.0, float(side[4]))
    step = max(1.2, (high / low) ** 0.5)
    return [[round(low * step**number, 1), round(low * step ** (number + 0.5), 1)] for number in range(len(STRIDES))]


def anchor_aspects(aspect: Sequence[float]) -> list[float]:
    """Give heights to widths of anchors from the percentiles of the objects' widths to heights."""
    return sorted({round(1.0 / max(0.1, min(10.0, float(aspect[number]))), 2) for number in (0, 2, 4)})
