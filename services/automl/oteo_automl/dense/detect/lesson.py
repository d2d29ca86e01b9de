"""What a detector is taught."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from oteo_automl.candidates.lesson import Judgement
from oteo_automl.candidates.modules import to_planes
from oteo_automl.candidates.training import STATISTICS_IMAGES, Diverged, Recipe
from oteo_automl.dense.detect.augmentation import augment, box_strength, has_up
from oteo_automl.dense.detect.detector import Detector
from oteo_automl.dense.detect.targets import BatchBoxes, BoxTable, batch_boxes
from oteo_core.evaluation.detection import detection_scores
from oteo_core.packages import Detections

_RESIDENT_BYTES = 4 * 1024**3
_JUDGED_AT_ONCE = 8
_KEPT = 100
"""Answers of an image that are kept with a judgement."""


class DetectionLesson:
    """Images with boxes, for any `Detector`; see `oteo_automl.candidates.lesson.Lesson`.

    Images without objects are learnt from too: they say what background is.

    Parameters
    ----------
    images
        ``(M, H, W, C)`` prepared.
    table
        Boxes of all samples.
    train, held_out
        Rows.
    classes
        Number of classes.
    limit
        Objects that may be found in an image.
    seed
        Of the order.
    """

    def __init__(
        self,
        images: NDArray[Any],
        table: BoxTable,
        train: NDArray[np.int64],
        held_out: NDArray[np.int64],
        *,
        classes: int,
        limit: int,
        seed: int,
    ) -> None:
        self._images = images
        self._table = table
        self._train = train
        self._held_out = held_out
        self._classes = classes
        self._limit = limit
        self._seed = seed
        self._device = torch.device("cpu")
        self._resident: torch.Tensor | None = None
        self._resident_rows: dict[int, int] = {}
        self._upright = has_up(images, train)

    def place(self, device: torch.device) -> None:
        """Copy the images that are used there, where they are not too many."""
        self._device = device
        rows = np.unique(np.concatenate([self._train, self._held_out]))
        if len(rows) * int(np.prod(self._images.shape[1:])) * self._images.dtype.itemsize <= _RESIDENT_BYTES:
            self._resident = torch.from_numpy(np.ascontiguousarray(self._images[rows])).to(device)
            self._resident_rows = {int(row): number for number, row in enumerate(rows)}

    def order(self, epoch: int) -> NDArray[np.int64]:
        """Give all training rows, shuffled; images with objects of rare classes up to four times as often (Gupta et al., CVPR 2019, LVIS)."""
        rng = np.random.Generator(np.random.Philox(key=self._seed, counter=[0, 0, 0, epoch]))
        repeated = self._repeats()
        whole = np.floor(repeated).astype(np.int64)
        extra = rng.random(len(repeated)) < repeated - whole
        return np.asarray(rng.permutation(np.repeat(self._train, whole + extra)), dtype=np.int64)

    def _repeats(self) -> NDArray[np.float64]:
        present = np.zeros((len(self._train), self._classes), dtype=np.bool_)
        for number, truth in enumerate(self._table.rows(self._train)):
            present[number, truth.labels[~truth.crowd]] = True
        share = np.maximum(present.mean(axis=0), 1e-9)
        factor = np.clip(np.sqrt(0.1 / share), 1.0, 4.0)
        return np.where(present, factor, 1.0).max(axis=1) if len(present) else np.ones(0)

    def batch(self, rows: NDArray[np.int64]) -> tuple[torch.Tensor, BatchBoxes]:
        """Give planes and boxes of these rows."""
        if self._resident is not None:
            numbers = torch.tensor([self._resident_rows[int(row)] for row in rows], device=self._device)
            images = self._resident[numbers]
        else:
            images = torch.from_numpy(np.stack([self._images[int(row)] for row in rows])).to(self._device, non_blocking=True)
        targets = batch_boxes(list(self._table.rows(rows))).to(self._device)
        return to_planes(images).contiguous(memory_format=torch.channels_last), targets

    def loss(self, model: torch.nn.Module, batch: Any, recipe: Recipe, generator: torch.Generator) -> torch.Tensor:
        """Augment and give the network's own loss."""
        strength = box_strength(recipe.strength, upright=self._upright)
        with torch.autocast(self._device.type, enabled=False):
            planes, targets = augment(batch[0], batch[1], strength, generator)
        planes = planes.contiguous(memory_format=torch.channels_last)
        detector = cast(Detector, model)
        with self._drawing(detector, int(torch.randint(0, 2**31 - 1, (1,), generator=generator))):
            return detector.lesson_loss(planes, targets)

    @contextmanager
    def _drawing(self, detector: Detector, seed: int) -> Iterator[None]:
        """Let a detector draw from torch's global generator as from one of its own."""
        if not detector.draws:
            yield
            return
        with torch.random.fork_rng(devices=[self._device] if self._device.type == "cuda" else []):
            torch.manual_seed(seed)
            yield

    def clean_rows(self) -> NDArray[np.int64]:
        """Give training rows, at most a few hundred."""
        if len(self._train) <= STATISTICS_IMAGES:
            return self._train
        rng = np.random.Generator(np.random.Philox(key=self._seed))
        return np.sort(rng.choice(self._train, STATISTICS_IMAGES, replace=False))

    @torch.no_grad()
    def judge(self, model: torch.nn.Module) -> Judgement:
        """Give COCO's figures in the prepared geometry; the answers are kept as ``boxes``, ``scores``, ``classes`` and ``rows``."""
        detector = cast(Detector, model)
        height, width = int(self._images.shape[1]), int(self._images.shape[2])
        parts: list[tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]] = []
        losses: list[float] = []
        for start in range(0, len(self._held_out), _JUDGED_AT_ONCE):
            planes, targets = self.batch(self._held_out[start : start + _JUDGED_AT_ONCE])
            raw = detector.from_planes(planes)
            with self._drawing(detector, self._seed):
                losses.append(float(detector.held_out_loss(planes, raw, targets)) * len(planes))
            boxes, scores, classes = (part.cpu().numpy() for part in detector.decode(raw, height, width, self._limit))
            parts.append((boxes, scores, classes))
        boxes, scores, labels = (np.concatenate(part) for part in zip(*parts, strict=True))
        if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
            raise Diverged("the network's answers are not finite")
        found = [found_of(boxes[i], scores[i], labels[i]) for i in range(len(boxes))]
        truths = list(self._table.rows(self._held_out))
        figures = detection_scores(truths, found, self._classes)
        kept: dict[str, NDArray[Any]] = {
            "rows": self._held_out,
            "boxes": boxes[:, :_KEPT].astype(np.float32),
            "scores": scores[:, :_KEPT].astype(np.float32),
            "classes": labels[:, :_KEPT].astype(np.int64),
        }
        loss = float(np.sum(losses) / max(1, len(self._held_out)))
        return Judgement(loss, figures["map50"], figures, kept, self._verdict(found))

    def _verdict(self, found: list[Detections]) -> str:
        sure = [answer.labels[answer.scores > 0.1] for answer in found]
        missing = set(range(self._classes)) - set(np.concatenate([np.zeros(0, np.int64), *sure]).tolist())
        if not missing:
            return ""
        if len(missing) == self._classes:
            return "it finds nothing in the held-out images"
        return f"it finds no object of {len(missing)} of {self._classes} classes in the held-out images"


def found_of(boxes: NDArray[np.float32], scores: NDArray[np.float32], labels: NDArray[np.int64]) -> Detections:
    """Give the answers of one image, without the places where nothing was found."""
    kept = scores > 0
    return Detections(boxes[kept], scores[kept], labels[kept])
