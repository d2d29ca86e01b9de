"""Small frozen task models with weights set by hand, and pictures of cells that they know: for tests of what judges and adapts models."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from oteo_core.graphs.export import export_onnx
from oteo_core.graphs.outputs import Output, classification_outputs
from oteo_core.graphs.programs import write_program
from oteo_core.images import InputPolicy
from oteo_core.packages import ClassMap, Instances, ModelPackage, TrueBoxes
from oteo_translate.domains import Domain
from oteo_translate.tasks.model import TaskModel

SIDE = 48
POLICY = InputPolicy(width=SIDE, height=SIDE, channels=3)
KINDS = ("small", "large")


def cells(count: int, seed: int = 0, *, side: int = SIDE, large: float = 0.5) -> tuple[NDArray[np.uint8], list[Instances]]:
    """Draw pink cells on a dim ground, apart from each other: images ``(N, H, W, 3)`` and their objects; `large` is the share of large ones."""
    rng = np.random.Generator(np.random.Philox(key=seed))
    images = np.zeros((count, side, side, 3), np.uint8)
    truths = []
    for index in range(count):
        ids = np.zeros((side, side), np.int32)
        labels: list[int] = []
        wanted = int(rng.integers(1, 4))
        for _ in range(20):
            kind = int(rng.random() < large)
            radius = (4, 7)[kind]
            x, y = (int(v) for v in rng.integers(radius + 1, side - radius - 1, 2))
            place = np.zeros((side, side), np.uint8)
            cv2.circle(place, (x, y), radius + 2, 1, -1)
            if (ids[place > 0] > 0).any():
                continue
            cv2.circle(ids, (x, y), radius, len(labels) + 1, -1)
            labels.append(kind)
            if len(labels) == wanted:
                break
        inside = cv2.GaussianBlur((ids > 0).astype(np.float32), (0, 0), 0.8)[:, :, None]
        texture = cv2.GaussianBlur(rng.normal(0, 1, (side, side, 3)).astype(np.float32), (0, 0), 1.0)
        ground, cell = np.array([90.0, 80.0, 100.0]), np.array([190.0, 120.0, 170.0])
        images[index] = np.clip(ground + (cell - ground) * inside + 12 * texture, 0, 255).astype(np.uint8)
        truths.append(Instances(ids, np.array(labels, dtype=np.int64), np.ones(len(labels), dtype=np.float32)))
    return images, truths


def truths_of(task: str, objects: Sequence[Instances]) -> list[Any]:
    """Give what is true of the pictures in a task's form; of an image the class is whether there are large cells, the labels are the kinds."""
    found: list[Any] = []
    for one in objects:
        if task == "classification":
            found.append(int((one.labels == 1).any()))
        elif task == "multi_label_classification":
            found.append(np.array([(one.labels == kind).any() for kind in range(2)]))
        elif task == "semantic_segmentation":
            found.append(ClassMap((one.ids > 0).astype(np.uint8)))
        elif task == "instance_segmentation":
            found.append(Instances(one.ids, np.zeros_like(one.labels), one.scores))
        else:
            boxes = [cv2.boundingRect((one.ids == number + 1).astype(np.uint8)) for number in range(len(one.labels))]
            corners = np.array([[x, y, x + w, y + h] for x, y, w, h in boxes], dtype=np.float32).reshape(-1, 4)
            found.append(TrueBoxes(corners, np.zeros(len(boxes), dtype=np.int64), np.zeros(len(boxes), dtype=np.bool_)))
    return found


def domain(task: str, count: int, seed: int, *, name: str = "home", labelled: bool = True, large: float = 0.5) -> Domain:
    """Give a domain of pictures."""
    images, objects = cells(count, seed, large=large)
    names = [f"{name}-{index}" for index in range(count)]
    return Domain(f"datasets/{name}", images, names, names, truths_of(task, objects) if labelled else ())


class Looking(nn.Module):
    """Sees how red a place is, finely and coarsely, through two batch normalisations whose statistics are those of the pictures."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.fine, self.coarse = nn.Conv2d(channels, 4, 3, padding=1, bias=False), nn.Conv2d(4, 4, 1, bias=False)
        self.norm, self.deep = nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        with torch.no_grad():
            self.fine.weight.zero_()
            self.fine.weight[0] = 1.0 / (9 * channels)
            self.fine.weight[1] = -1.0 / (9 * channels)
            self.fine.weight[2, :, :, 0], self.fine.weight[2, :, :, 2] = 0.1, -0.1
            self.fine.weight[3, :, 0], self.fine.weight[3, :, 2] = 0.1, -0.1
            self.coarse.weight.copy_(torch.eye(4)[:, :, None, None])

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Give how bright each place is, in spreads above the usual, ``(N, H, W)``."""
        planes = image.permute(0, 3, 1, 2).float() / (255.0 if image.dtype == torch.uint8 else 1.0)
        fine = torch.relu(self.norm(self.fine(planes)))
        coarse = torch.relu(self.deep(self.coarse(nn.functional.avg_pool2d(fine, 2))))
        grown = nn.functional.interpolate(coarse, scale_factor=2.0, mode="nearest")
        return fine[:, 0] - fine[:, 1] + 0.1 * grown[:, 0]


class Hand(nn.Module):
    """A head for each task on what `Looking` sees."""

    def __init__(self, task: str) -> None:
        super().__init__()
        self.task, self.looking = task, Looking()

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Give the outputs of the task's packages."""
        seen = self.looking(image)
        odds = 4.0 * (seen - 1.2)
        inside = torch.sigmoid(odds)
        if self.task == "semantic_segmentation":
            chances = torch.stack([1.0 - inside, inside], dim=1)
            return (inside > 0.5).to(torch.uint8), chances
        if self.task == "instance_segmentation":
            heights = nn.functional.avg_pool2d(inside[:, None], 5, stride=1, padding=2)[:, 0]
            return torch.stack([1.0 - inside, inside], dim=1), heights
        # A large cell fills a window of 9 x 9, a small one does not.
        filled = nn.functional.avg_pool2d(inside[:, None], 9, stride=1)
        largest = filled.flatten(1).amax(dim=1)
        if self.task == "classification":
            logits = torch.stack([-20.0 * (largest - 0.9), 20.0 * (largest - 0.9)], dim=1)
            return torch.softmax(logits, dim=1), logits
        if self.task == "multi_label_classification":
            logits = torch.stack([4.0 - 8.0 * (largest - 0.4), 20.0 * (largest - 0.9)], dim=1)
            return torch.sigmoid(logits), logits
        score, place = filled.flatten(1).topk(2, dim=1)
        wide = filled.shape[3]
        top, left = torch.div(place, wide, rounding_mode="floor").float(), (place % wide).float()
        return torch.stack([left, top, left + 9.0, top + 9.0], dim=2), score.clamp(0, 1), torch.zeros_like(place)


def outputs_of(task: str) -> tuple[Output, ...]:
    """Name what a model of a task gives."""
    if task == "semantic_segmentation":
        return Output("label_map", (SIDE, SIDE), "UINT8", tolerance=0.0, spare=0.01), Output(
            "probabilities", (2, SIDE, SIDE), tolerance=1e-3
        )
    if task == "instance_segmentation":
        return Output("probabilities", (2, SIDE, SIDE), tolerance=1e-3), Output("heights", (SIDE, SIDE), tolerance=1e-3)
    if task == "detection":
        return Output("boxes", (2, 4), tolerance=20.0), Output("scores", (2,), tolerance=1e-3), Output("classes", (2,), "INT64")
    return classification_outputs(2)


def made(task: str, module: nn.Module | None = None) -> tuple[ModelPackage, bytes, bytes]:
    """Give manifest, graph and program of a model that knows the pictures of `cells`."""
    served = Hand(task) if module is None else module
    images = torch.from_numpy(cells(16, 99)[0])
    if module is None:
        # Statistics as training leaves them.
        for norm in (served.looking.norm, served.looking.deep):
            norm.momentum = None
        served.train()
        with torch.no_grad():
            served(images)
            served(images)
        for norm in (served.looking.norm, served.looking.deep):
            norm.momentum = 0.1
    served.eval()
    outputs = outputs_of(task)
    graph = export_onnx(served, POLICY, outputs, images[:3].numpy()).data
    classes = list(KINDS) if task.endswith("classification") else ["cell"]
    decoding = {"score_threshold": 0.5} if task in ("detection", "multi_label_classification") else {}
    package = ModelPackage(
        id="frozen", display_name="Frozen", uid="1", task=task, classes=classes, dataset="datasets/home", dataset_digest="", candidate="hand",
        input=POLICY, create_time=datetime(2026, 1, 1, tzinfo=UTC), decoding=decoding,
    )  # fmt: skip
    return package, graph, write_program(served, POLICY, [output.name for output in outputs])


def frozen(task: str) -> TaskModel:
    """Give a model of a task."""
    return TaskModel(*made(task))
