"""Detection by a transformer: a fixed number of queries, each of which answers with one object or none; no suppression.

RT-DETR (Zhao et al., CVPR 2024) as the ``transformers`` library has it. From scratch it needs more images than a hospital has: it is offered
where there are pretrained weights (``rtdetr_r18vd.safetensors`` and the like, as published for ``transformers``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from transformers import RTDetrConfig, RTDetrForObjectDetection, RTDetrResNetConfig

from oteo_automl.candidates.modules import saved
from oteo_automl.dense.detect.detector import Detector, Raw
from oteo_automl.dense.detect.targets import BatchBoxes

_STRIDES = (8, 16, 32)

SIZES: dict[str, dict[str, Any]] = {
    "rtdetr_r18vd": {"hidden_sizes": [64, 128, 256, 512], "depths": [2, 2, 2, 2], "layer_type": "basic", "layers": 3, "expansion": 0.5},
    "rtdetr_r34vd": {"hidden_sizes": [64, 128, 256, 512], "depths": [3, 4, 6, 3], "layer_type": "basic", "layers": 4, "expansion": 0.5},
    "rtdetr_r50vd": {
        "hidden_sizes": [256, 512, 1024, 2048],
        "depths": [3, 4, 6, 3],
        "layer_type": "bottleneck",
        "layers": 6,
        "expansion": 1.0,
    },
}
"""Those that have been published, by the name of their weights."""


@saved
class TransformerDetector(Detector):
    """RT-DETR.

    Parameters
    ----------
    architecture
        A name of `SIZES`.
    classes
        Number of classes.
    channels
        As of `Detector`.
    mean, spread
        Not used: its weights were trained on planes of 0 to 1.
    height, width
        Of the input, prepared pixels.
    queries
        Objects that it can answer with; at most as many as the pyramid has cells.
    """

    kind = "transformer-detector"
    draws = True

    def __init__(
        self,
        architecture: str,
        classes: int,
        channels: int,
        mean: Sequence[float],
        spread: Sequence[float],
        height: int,
        width: int,
        queries: int = 300,
    ) -> None:
        cells = sum((height // stride) * (width // stride) for stride in _STRIDES)
        queries = min(queries, cells)
        super().__init__(
            architecture=architecture, classes=classes, channels=channels, mean=mean, spread=spread, height=height, width=width,
            queries=queries,
        )  # fmt: skip
        self.classes = classes
        size = SIZES[architecture]
        backbone = RTDetrResNetConfig(
            num_channels=channels,
            hidden_sizes=size["hidden_sizes"],
            depths=size["depths"],
            layer_type=size["layer_type"],
            out_features=["stage2", "stage3", "stage4"],
        )
        config = RTDetrConfig(
            backbone_config=backbone,
            freeze_backbone_batch_norms=False,
            encoder_in_channels=size["hidden_sizes"][1:],
            hidden_expansion=size["expansion"],
            decoder_layers=size["layers"],
            num_queries=queries,
            anchor_image_size=[height, width],
            num_labels=classes,
        )
        # All of it is pretrained, not the encoder alone.
        self.encoder = RTDetrForObjectDetection(config)
        self._last_layer = RTDetrConfig.from_dict(config.to_dict() | {"auxiliary_loss": False})

    def from_planes(self, planes: torch.Tensor) -> Raw:
        """Give logits ``(N, Q, K)`` and boxes ``(N, Q, 4)``: centre and size, shares of the sides."""
        answer = self.encoder(pixel_values=planes)
        return answer.logits, answer.pred_boxes

    def lesson_loss(self, planes: torch.Tensor, targets: BatchBoxes) -> torch.Tensor:
        """Give its own loss: matched classes and boxes of all layers, and denoising."""
        loss: torch.Tensor = self.encoder(pixel_values=planes, labels=_shares(targets, planes.shape[2], planes.shape[3])).loss
        return loss

    def raw_loss(self, raw: Raw, targets: BatchBoxes, height: int, width: int) -> torch.Tensor:
        """Give the loss of the last layer alone."""
        labels = _shares(targets, height, width)
        logits, boxes = raw[0].float(), raw[1].float()
        model = cast(RTDetrForObjectDetection, self.encoder)
        loss: torch.Tensor = model.loss_function(logits, labels, logits.device, boxes, self._last_layer)[0]
        return loss

    def decode(self, raw: Raw, height: int, width: int, limit: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Give the likeliest of all queries' classes."""
        places = int(raw[0].shape[1]) * self.classes
        scores, best = torch.topk(torch.sigmoid(raw[0].float()).reshape(-1, places), min(limit, places), dim=1)
        query = torch.div(best, self.classes, rounding_mode="floor")
        sides = torch.tensor([width, height], dtype=torch.float32, device=scores.device)
        boxes = raw[1].float()
        corners = torch.cat([(boxes[..., :2] - 0.5 * boxes[..., 2:]) * sides, (boxes[..., :2] + 0.5 * boxes[..., 2:]) * sides], dim=2)
        return corners.gather(1, query[:, :, None].expand(-1, -1, 4)), scores, best - query * self.classes


def _shares(targets: BatchBoxes, height: int, width: int) -> list[dict[str, torch.Tensor]]:
    found = []
    for boxes, labels in zip(targets.boxes, targets.labels, strict=True):
        there = labels >= 0
        own = boxes[there]
        sides = own.new_tensor([width, height])
        shares = torch.cat([(own[:, :2] + own[:, 2:]) / 2.0 / sides, (own[:, 2:] - own[:, :2]) / sides], dim=1)
        found.append({"class_labels": labels[there], "boxes": shares})
    return found
