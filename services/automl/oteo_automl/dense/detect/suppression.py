"""Non-maximum suppression with shapes that do not depend on values, so that it can live in a graph."""

from __future__ import annotations

import torch

_ROUNDS = 8


def overlaps(boxes: torch.Tensor) -> torch.Tensor:
    """Give the intersection over union of all boxes of an image with each other: ``(N, k, 4)`` to ``(N, k, k)``."""
    low = torch.maximum(boxes[:, :, None, :2], boxes[:, None, :, :2])
    high = torch.minimum(boxes[:, :, None, 2:], boxes[:, None, :, 2:])
    sides = (high - low).clamp(min=0.0)
    common = sides[..., 0] * sides[..., 1]
    areas = (boxes[..., 2] - boxes[..., 0]).clamp(min=0.0) * (boxes[..., 3] - boxes[..., 1]).clamp(min=0.0)
    return common / (areas[:, :, None] + areas[:, None, :] - common).clamp(min=1e-6)


def survivors(boxes: torch.Tensor, labels: torch.Tensor | None, overlap: float) -> torch.Tensor:
    """Say which boxes no likelier surviving box of their class overlaps by more than `overlap`.

    Cluster-NMS (Zheng et al., IEEE Trans. Cybernetics 2022): a box is suppressed by survivors only, which a few rounds over the whole matrix
    settle; it is the usual greedy suppression unless more than `_ROUNDS` boxes suppress each other in a row.

    Parameters
    ----------
    boxes
        ``(N, k, 4)``, likeliest first.
    labels
        ``(N, k)``; None: all of one class.
    overlap
        Intersection over union, 0 to 1.

    Returns
    -------
    Tensor
        ``(N, k)`` float32, 1 or 0.
    """
    places = torch.arange(int(boxes.shape[1]), device=boxes.device)
    rivals = overlaps(boxes) * (places[:, None] < places[None, :]).float()
    if labels is not None:
        rivals = rivals * (labels[:, :, None] == labels[:, None, :]).float()
    kept = torch.ones_like(boxes[:, :, 0])
    for _ in range(_ROUNDS):
        kept = ((rivals * kept[:, :, None]).amax(dim=1) <= overlap).float()
    return kept


def likeliest(
    boxes: torch.Tensor, scores: torch.Tensor, labels: torch.Tensor, limit: int, overlap: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Suppress, and give the `limit` likeliest that are left; what is suppressed has a score of 0.

    Parameters
    ----------
    boxes, scores, labels
        ``(N, k, 4)``, ``(N, k)`` falling, ``(N, k)``.
    limit
        At most so many.
    overlap
        Intersection over union, 0 to 1.
    """
    left = scores * survivors(boxes, labels, overlap)
    best, places = torch.topk(left, min(limit, int(scores.shape[1])), dim=1)
    return boxes.gather(1, places[:, :, None].expand(-1, -1, 4)), best, labels.gather(1, places)
