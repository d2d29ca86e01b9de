"""Teaching a network the class of each pixel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from oteo_automl.candidates.lesson import Judgement
from oteo_automl.candidates.modules import to_planes
from oteo_automl.dense.segment.augmenting import change_look, chosen_look, move
from oteo_automl.dense.segment.losses import deep_loss
from oteo_automl.dense.segment.patches import Points, patch_size
from oteo_automl.dense.segment.serving import judged_rows
from oteo_core.evaluation.semantic import semantic_scores
from oteo_core.packages.answers import IGNORED, ClassMap

if TYPE_CHECKING:
    from oteo_automl.candidates.training import Recipe

_RESIDENT_BYTES = 4 * 1024**3
_CLEAN_PIXELS = 256 * 128 * 128
_KEPT_PIXELS = 256 * 256 * 256
_JUDGED_PIXELS = 16 * 256 * 256


class Pictures:
    """Prepared images ``(N, H, W, C)``, given as planes on a device; copied out of the map into memory where they are not too many."""

    def __init__(self, images: NDArray[Any]) -> None:
        self._images = images
        self._resident: torch.Tensor | None = None
        self._device = torch.device("cpu")

    def place(self, device: torch.device) -> None:
        """Get ready for a device."""
        self._device = device
        if self._resident is None and self._images.nbytes <= _RESIDENT_BYTES:
            # One copy out of the map: reading a row at a time through it costs more than the memory.
            self._resident = torch.from_numpy(np.array(self._images)).to(device)

    def planes(self, rows: NDArray[np.int64]) -> torch.Tensor:
        """Give ``(N, C, H, W)`` float32 of 0 to 1."""
        if self._resident is not None:
            images = self._resident[torch.from_numpy(rows).to(self._device)]
        else:
            images = torch.from_numpy(np.stack([self._images[row] for row in rows.tolist()])).to(self._device)
        return to_planes(images).contiguous(memory_format=torch.channels_last)

    def at_once(self, largest_pixels: int = _JUDGED_PIXELS) -> int:
        """Give how many whole images go through a network together."""
        return max(1, min(64, largest_pixels // int(np.prod(self._images.shape[1:3]))))


def clean_sample(images: NDArray[Any], train: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Give some training rows for statistics of batch normalisation: as many pixels as 256 images of 128 x 128 have, 16 images at least."""
    count = max(16, min(512, _CLEAN_PIXELS // int(np.prod(images.shape[1:3]))))
    if len(train) <= count:
        return train
    rng = np.random.Generator(np.random.Philox(key=seed))
    return np.sort(rng.choice(train, count, replace=False))


class SemanticLesson:
    """Class maps; see `oteo_automl.candidates.lesson.Lesson`.

    Parameters
    ----------
    images
        ``(N, H, W, C)``.
    maps
        ``(N, H, W)`` uint8, `oteo_automl.dense.segment.targets.build_maps`.
    train, held_out
        Rows.
    classes
        K.
    seed
        Of what is drawn.
    sided
        True: left and right mean something, and nothing is mirrored or turned over.
    """

    def __init__(
        self,
        images: NDArray[Any],
        maps: NDArray[np.uint8],
        train: NDArray[np.int64],
        held_out: NDArray[np.int64],
        *,
        classes: int,
        seed: int,
        sided: bool = False,
    ) -> None:
        self._images, self._maps, self._train, self._held_out = images, maps, train, held_out
        self._classes, self._seed, self._sided = classes, seed, sided
        self._pictures = Pictures(images)
        self._points = Points(maps, train)
        self._patch: tuple[int, int] | None = None
        self._repeats = 1
        self._device = torch.device("cpu")

    def place(self, device: torch.device) -> None:
        """Copy images to the device and choose the patch."""
        self._device = device
        self._pictures.place(device)
        height, width = self._images.shape[1:3]
        self._patch = patch_size(height, width, gpu=device.type == "cuda")
        if self._patch is not None:
            self._repeats = max(1, round(height * width / (self._patch[0] * self._patch[1])))

    def order(self, epoch: int) -> NDArray[np.int64]:
        """Give rows, rare classes more often."""
        return self._points.order(self._train, self._repeats, self._seed, epoch)

    def batch(self, rows: NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor, NDArray[np.int64]]:
        """Give planes, class maps int64 and the rows."""
        maps = torch.from_numpy(np.stack([self._maps[row] for row in rows.tolist()])).to(self._device)
        return self._pictures.planes(rows), maps.long(), rows

    def loss(self, model: Any, batch: Any, recipe: Recipe, generator: torch.Generator) -> torch.Tensor:
        """Give cross-entropy and Dice of a moved and changed batch."""
        planes, maps, rows = batch
        look = chosen_look(recipe.strength, sided=self._sided)
        centres = self._points.centres(rows, generator) if self._patch is not None else None
        with torch.autocast(self._device.type, enabled=False):
            planes, maps, _ = move(planes, maps, look, generator, patch=self._patch, centres=centres)
            planes = change_look(planes, look, generator).contiguous(memory_format=torch.channels_last)
        levels = model.levels(planes)
        with torch.autocast(self._device.type, enabled=False):
            return deep_loss(levels, maps)

    def clean_rows(self) -> NDArray[np.int64]:
        """Give some training rows."""
        return clean_sample(self._images, self._train, self._seed)

    @torch.no_grad()
    def judge(self, model: Any) -> Judgement:
        """Compare with the truth of the held-out rows."""
        kept: list[NDArray[np.uint8]] = []
        total, counted = 0.0, 0
        size = self._pictures.at_once()
        rows = judged_rows(self._held_out, max(8, _KEPT_PIXELS // int(np.prod(self._images.shape[1:3]))))
        for start in range(0, len(rows), size):
            planes, maps, _ = self.batch(rows[start : start + size])
            logits = model.from_planes(planes).float()
            total += float(F.cross_entropy(logits, maps, ignore_index=IGNORED, reduction="sum"))
            counted += int((maps != IGNORED).sum())
            kept.append(logits.argmax(dim=1).to(torch.uint8).cpu().numpy())
        found = np.concatenate(kept) if kept else np.zeros((0, 1, 1), dtype=np.uint8)
        truths = [ClassMap(np.asarray(self._maps[row])) for row in rows.tolist()]
        scores = semantic_scores(truths, [ClassMap(one) for one in found], self._classes)
        marked = {number for truth in truths for number in np.unique(truth.labels).tolist()}
        never = [number for number in range(1, self._classes + 1) if number in marked and not (found == number).any()]
        message = f"it never finds class number {', '.join(map(str, never))}" if never else ""
        loss = total / max(1, counted) + 1.0 - scores["dice"]
        return Judgement(loss, scores["dice"], scores, {"label_map": found, "rows": rows}, message)
