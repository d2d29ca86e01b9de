"""One-stage detection: every cell of a pyramid says whether it lies in an object and how far the four sides are.

FCOS (Tian et al., ICCV 2019) with torchvision's head and assignment over a timm encoder and a feature pyramid.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torchvision.models.detection.fcos import FCOS, FCOSHead
from torchvision.ops import FeaturePyramidNetwork

from oteo_automl.candidates.modules import saved
from oteo_automl.dense.detect.detector import Detector, Raw, make_encoder, pyramid
from oteo_automl.dense.detect.suppression import likeliest
from oteo_automl.dense.detect.targets import BatchBoxes

STRIDES = (8, 16, 32)
_BEFORE = 500
"""Answers that go into suppression, at most."""
_OVERLAP = 0.6


@saved
class FcosDetector(Detector):
    """FCOS over three strides.

    Parameters
    ----------
    architecture
        timm's name of the encoder.
    classes
        Number of classes.
    channels, mean, spread
        As of `Detector`.
    reach
        How large the objects of each stride are, relative to the usual: the longest way to a side is at most eight strides times this.
    width
        Channels of the pyramid, a multiple of 32.
    convolutions
        Before each head.
    """

    kind = "fcos-detector"

    def __init__(
        self,
        architecture: str,
        classes: int,
        channels: int,
        mean: Sequence[float],
        spread: Sequence[float],
        reach: float = 1.0,
        width: int = 128,
        convolutions: int = 2,
    ) -> None:
        super().__init__(
            architecture=architecture, classes=classes, channels=channels, mean=mean, spread=spread, reach=reach, width=width,
            convolutions=convolutions,
        )  # fmt: skip
        self.classes, self.reach = classes, reach
        self.encoder, found = make_encoder(architecture, channels, STRIDES[0])
        self.neck = FeaturePyramidNetwork(found, width)
        self.head = FCOSHead(width, 1, classes, num_convs=convolutions)
        # What `FCOS.compute_loss` looks for.
        self.center_sampling_radius = 1.5

    def from_planes(self, planes: torch.Tensor) -> Raw:
        """Give class logits ``(N, A, K)``, distances to the sides in strides ``(N, A, 4)`` and centredness ``(N, A, 1)`` of all cells."""
        outputs = self.head(pyramid(self.encoder(self.normalised(planes)), self.neck))
        return outputs["cls_logits"], outputs["bbox_regression"], outputs["bbox_ctrness"]

    def anchors(self, height: int, width: int, device: torch.device) -> tuple[torch.Tensor, list[int]]:
        """Give a square of the stride's reach around every cell's centre, ``(A, 4)``, and how many each stride has."""
        parts = []
        for stride in STRIDES:
            xs = (torch.arange(width // stride, device=device, dtype=torch.float32) + 0.5) * stride
            ys = (torch.arange(height // stride, device=device, dtype=torch.float32) + 0.5) * stride
            y, x = torch.meshgrid(ys, xs, indexing="ij")
            middle = torch.stack([x.reshape(-1), y.reshape(-1)], dim=1)
            half = 0.5 * stride * self.reach
            parts.append(torch.cat([middle - half, middle + half], dim=1))
        return torch.cat(parts), [len(part) for part in parts]

    def raw_loss(self, raw: Raw, targets: BatchBoxes, height: int, width: int) -> torch.Tensor:
        """Give torchvision's focal, generalised IoU and centredness losses; ignored regions count as background."""
        anchors, counts = self.anchors(height, width, raw[0].device)
        outputs = dict(zip(("cls_logits", "bbox_regression", "bbox_ctrness"), (head.float() for head in raw), strict=True))
        truths = objects_of(targets, first=0)
        losses = FCOS.compute_loss(cast(Any, self), truths, outputs, [anchors] * len(truths), counts)
        return torch.stack(list(losses.values())).sum()

    def decode(self, raw: Raw, height: int, width: int, limit: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Give the likeliest answers after suppression within classes."""
        anchors, _ = self.anchors(height, width, raw[0].device)
        score = torch.sqrt(torch.sigmoid(raw[0].float()) * torch.sigmoid(raw[2].float()))
        places = int(anchors.shape[0]) * self.classes
        scores, best = torch.topk(score.reshape(-1, places), min(_BEFORE, places), dim=1)
        cell = torch.div(best, self.classes, rounding_mode="floor")
        labels = best - cell * self.classes
        middle, size = 0.5 * (anchors[:, :2] + anchors[:, 2:]), anchors[:, 2:] - anchors[:, :2]
        sides = raw[1].float() * size.repeat(1, 2)
        boxes = torch.cat([middle - sides[..., :2], middle + sides[..., 2:]], dim=2)
        chosen = boxes.gather(1, cell[:, :, None].expand(-1, -1, 4))
        return likeliest(chosen, scores, labels, limit, _OVERLAP)


def objects_of(targets: BatchBoxes, first: int) -> list[dict[str, torch.Tensor]]:
    """Give the objects of each image as torchvision takes them; class numbers begin with `first`."""
    found = []
    for boxes, labels in zip(targets.boxes, targets.labels, strict=True):
        there = labels >= 0
        found.append({"boxes": boxes[there], "labels": labels[there] + first})
    return found


def reach_of(side: Sequence[float]) -> float:
    """Give `FcosDetector`'s reach from the percentiles of the objects' sides (prepared pixels): usual objects fall to the middle stride."""
    # The middle stride takes ways of 4 to 8 strides of 16; from the middle of an object half its side is to go.
    return min(2.0, max(0.25, float(side[2]) / 2.0 / (5.0 * STRIDES[1])))
