"""Teaching a network which pixels belong to which object: classes of pixels and heights for a watershed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from oteo_automl.candidates.lesson import Judgement
from oteo_automl.dense.segment.augmenting import change_look, chosen_look, move
from oteo_automl.dense.segment.lessons import Pictures, clean_sample
from oteo_automl.dense.segment.losses import cross_entropy_and_dice
from oteo_automl.dense.segment.patches import Points, patch_size
from oteo_automl.dense.segment.serving import judged_rows
from oteo_automl.dense.segment.targets import InstanceTargets
from oteo_automl.dense.segment.tuning import usual_watershed
from oteo_core.evaluation.instances import instance_scores
from oteo_core.packages.answers import IGNORED, Instances
from oteo_core.packages.decoding.instances import described
from oteo_core.packages.decoding.watershed import watershed_objects
from oteo_core.truths.masks import renumbered

if TYPE_CHECKING:
    from oteo_automl.candidates.training import Recipe

_HEIGHT_WEIGHT = 2.0
_JUDGED_AT_MOST = 48
_USUAL_AREA = 200.0
"""Of an object, prepared pixels, where nobody says."""


def class_maps(targets: InstanceTargets, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Give the class of each pixel ``(len(rows), H, W)``: 0 background, ``k + 1`` class ``k``, `IGNORED`."""
    maps: list[NDArray[np.uint8]] = []
    for row in rows.tolist():
        numbers = np.concatenate([[0], targets.objects(row) + 1, [IGNORED]]).astype(np.uint8)
        maps.append(numbers[targets.ids[row]])
    return np.stack(maps)


class _Rows:
    """Class maps by row, as `Points` wants them, made when asked for."""

    def __init__(self, targets: InstanceTargets) -> None:
        self._targets = targets

    def __getitem__(self, row: int) -> NDArray[np.uint8]:
        return np.asarray(class_maps(self._targets, np.array([row]))[0])


class ObjectLesson:
    """What lessons of objects share: images, moved targets, patches; see `oteo_automl.candidates.lesson.Lesson`.

    Parameters
    ----------
    images
        ``(N, H, W, C)``.
    targets
        Of the same samples.
    train, held_out
        Rows.
    classes
        K.
    seed
        Of what is drawn.
    """

    def __init__(
        self,
        images: NDArray[Any],
        targets: InstanceTargets,
        train: NDArray[np.int64],
        held_out: NDArray[np.int64],
        *,
        classes: int,
        seed: int,
    ) -> None:
        self.images, self.targets, self.train, self.held_out = images, targets, train, held_out
        self.classes, self.seed = classes, seed
        self.pictures = Pictures(images)
        self.device = torch.device("cpu")
        self._points = Points(_Rows(targets), train)
        self._patch: tuple[int, int] | None = None
        self._repeats = 1

    def place(self, device: torch.device) -> None:
        """Copy images to the device and choose the patch."""
        self.device = device
        self.pictures.place(device)
        height, width = self.images.shape[1:3]
        self._patch = patch_size(height, width, gpu=device.type == "cuda")
        if self._patch is not None:
            self._repeats = max(1, round(height * width / (self._patch[0] * self._patch[1])))

    def order(self, epoch: int) -> NDArray[np.int64]:
        """Give rows, rare classes more often."""
        return self._points.order(self.train, self._repeats, self.seed, epoch)

    def batch(self, rows: NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, NDArray[np.int64]]:
        """Give planes, objects' numbers int64, heights of 0 to 1 ``(N, 1, H, W)``, what class map number a number has ``(N, M + 2)``, and the rows.

        The last column of the fourth is for -1.
        """
        chosen = rows.tolist()
        ids = torch.from_numpy(np.stack([self.targets.ids[row] for row in chosen])).to(self.device).long()
        heights = torch.from_numpy(np.stack([self.targets.heights[row] for row in chosen])).to(self.device)
        objects = [self.targets.objects(row) for row in chosen]
        numbers = np.zeros((len(chosen), max(len(one) for one in objects) + 2), dtype=np.int64)
        for place, one in enumerate(objects):
            numbers[place, 1 : len(one) + 1] = one + 1
        numbers[:, -1] = IGNORED
        return self.pictures.planes(rows), ids, heights[:, None].float() / 255.0, torch.from_numpy(numbers).to(self.device), rows

    def augmented(
        self, batch: Any, recipe: Recipe, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Move and change a batch; give planes, objects' numbers, heights ``(N, h, w)`` and class maps."""
        planes, ids, heights, numbers, rows = batch
        look = chosen_look(recipe.strength)
        centres = self._points.centres(rows, generator) if self._patch is not None else None
        with torch.autocast(self.device.type, enabled=False):
            planes, ids, moved = move(planes, ids, look, generator, patch=self._patch, centres=centres, outside=-1, values=heights)
            planes = change_look(planes, look, generator).contiguous(memory_format=torch.channels_last)
        return planes, ids, (heights if moved is None else moved)[:, 0], looked_up(ids, numbers)

    def clean_rows(self) -> NDArray[np.int64]:
        """Give some training rows."""
        return clean_sample(self.images, self.train, self.seed)

    def judged_rows(self) -> NDArray[np.int64]:
        """Give the held-out rows that epochs are judged on."""
        return judged_rows(self.held_out, _JUDGED_AT_MOST)


def looked_up(ids: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    """Give the class map ``(N, h, w)`` of objects' numbers; -1 takes the last column of `numbers`."""
    places = torch.where(ids < 0, torch.full_like(ids, numbers.shape[1] - 1), ids)
    return numbers.gather(1, places.flatten(1)).view(ids.shape)


def prepared_truth(targets: InstanceTargets, row: int, window: tuple[slice, slice] | None = None) -> Instances:
    """Give the objects of a sample in the prepared geometry, or of a part of it."""
    ids = np.asarray(targets.ids[row]) if window is None else np.asarray(targets.ids[row][window])
    return renumbered(ids, targets.objects(row))


def height_loss(logits: torch.Tensor, heights: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Give the mean cross-entropy of heights (taken as probabilities) where pixels count, objects and background each with half the weight.

    All are ``(N, h, w)``.
    """
    logits = logits.float()
    each = F.binary_cross_entropy_with_logits(logits, heights, reduction="none")
    # Least where the heights are met exactly: what is left over is no error.
    least = F.binary_cross_entropy(heights, heights, reduction="none")
    total = logits.new_zeros(())
    for part in (ids > 0, ids == 0):
        total = total + ((each - least) * part).sum() / part.sum().clamp_min(1)
    return total


class WatershedLesson(ObjectLesson):
    """Classes of pixels and heights: an output for background, for each class, and one for the height.

    Attributes
    ----------
    settings
        By which judged heights become objects.
    """

    settings: Mapping[str, Any] = usual_watershed(_USUAL_AREA)

    def loss(self, model: Any, batch: Any, recipe: Recipe, generator: torch.Generator) -> torch.Tensor:
        """Give cross-entropy and Dice of the classes plus the error of the heights."""
        planes, ids, heights, maps = self.augmented(batch, recipe, generator)
        outputs = model.from_planes(planes)
        with torch.autocast(self.device.type, enabled=False):
            return self._terms(outputs.float(), maps, heights, ids)

    def _terms(self, outputs: torch.Tensor, maps: torch.Tensor, heights: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        return cross_entropy_and_dice(outputs[:, :-1], maps) + _HEIGHT_WEIGHT * height_loss(outputs[:, -1], heights, ids)

    @torch.no_grad()
    def judge(self, model: Any) -> Judgement:
        """Find objects in held-out images by usual thresholds and compare."""
        rows = self.judged_rows()
        truths, found = [], []
        total = 0.0
        size = self.pictures.at_once()
        for start in range(0, len(rows), size):
            chosen = rows[start : start + size]
            planes, ids, heights, numbers, _ = self.batch(chosen)
            outputs = model.from_planes(planes).float()
            total += len(chosen) * float(self._terms(outputs, looked_up(ids, numbers), heights[:, 0], ids))
            probabilities = torch.softmax(outputs[:, :-1], dim=1).cpu().numpy()
            floods = torch.sigmoid(outputs[:, -1]).cpu().numpy()
            for row, probability, flood in zip(chosen.tolist(), probabilities, floods, strict=True):
                truths.append(prepared_truth(self.targets, row))
                found.append(described(watershed_objects(1.0 - probability[0], flood, self.settings), probability))
        return judged(rows, truths, found, self.classes, total / max(1, len(rows)))


def judged(rows: NDArray[np.int64], truths: list[Instances], found: list[Instances], classes: int, loss: float) -> Judgement:
    """Compare objects of rows in the prepared geometry; kept are their ``ids``, and class and score of all of them, ``counts`` of each image."""
    scores = instance_scores(truths, found, classes)
    ids = np.stack([one.ids for one in found]) if found else np.zeros((0, 1, 1), dtype=np.int32)
    message = "" if any(len(one.labels) for one in found) or not any(len(one.labels) for one in truths) else "it finds no object"
    kept: dict[str, NDArray[Any]] = {
        "ids": ids,
        "rows": rows,
        "counts": np.array([len(one.labels) for one in found], dtype=np.int64),
        "labels": np.concatenate([np.zeros(0, dtype=np.int64), *(one.labels for one in found)]),
        "scores": np.concatenate([np.zeros(0, dtype=np.float32), *(one.scores for one in found)]),
    }
    return Judgement(loss + 1.0 - scores["pq"], scores["pq"], scores, kept, message)
