"""The lesson of classification: one class an image, or several labels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from oteo_automl.candidates.augmenting import STRENGTHS, augment, pasted
from oteo_automl.candidates.bank import ImageBank
from oteo_automl.candidates.lesson import Judgement
from oteo_automl.candidates.training import STATISTICS_IMAGES, Diverged, Recipe
from oteo_automl.search.scoring import score
from oteo_core.evaluation.calibration import fit_temperature

_JUDGING_BATCH = 64
_SPARSE = 0.1
_FOCUS = 2.0


@dataclass(slots=True)
class TrainingRows:
    """What is learnt from and judged on.

    Parameters
    ----------
    images
        ``(N, H, W, C)``.
    labels
        ``(N,)``, or ``(N, K)`` of 0 and 1.
    train, held_out
        Rows of both.
    classes
        K.
    soft
        ``(N, K)`` targets in the place of labels, 0 to 1; None: the labels are.
    trusted
        So many of `train`, the first ones, have labels of people, the others a model's: those make up half of what is drawn at least.
        0: all have.
    """

    images: NDArray[Any]
    labels: NDArray[np.int64]
    train: NDArray[np.int64]
    held_out: NDArray[np.int64]
    classes: int
    soft: NDArray[np.float32] | None = None
    trusted: int = 0


class ClassificationLesson:
    """Cross-entropy with label smoothing and mixup; classes that are rare are drawn more often, and the loss is told so.

    With several labels an image, binary cross-entropy; where most labels are missing from most images, the asymmetric one (Ridnik et al., ICCV 2021), in
    which negatives that are told already weigh less.

    Networks give logits ``(N, K)`` from planes. `Judgement.kept` holds ``logits`` ``(M, K)`` float32 of the held-out rows.

    Parameters
    ----------
    data
        What is learnt from.
    seed
        Of every draw.
    epochs
        That are planned, for recipes in which images grow; 0: not known, and they do not.
    """

    def __init__(self, data: TrainingRows, seed: int, epochs: int = 0) -> None:
        self._epochs = epochs
        self._epoch = 0
        self._data = data
        self._seed = seed
        self._bank = ImageBank(data.images)
        self._device = torch.device("cpu")
        self._several = data.labels.ndim == 2
        self._focus = _FOCUS if self._several and data.labels[data.train].mean() < _SPARSE else 0.0
        self._chances, self._offset = self._sampling()
        trusted, count = data.trusted, len(data.train)
        if 0 < trusted < count - trusted:
            weight = np.where(np.arange(count) < trusted, (count - trusted) / trusted, 1.0)
            self._chances = self._chances * weight / (self._chances * weight).sum()

    def place(self, device: torch.device) -> None:
        """Get ready to give batches on a device."""
        self._device = device
        self._bank.place(device)
        self._offset = self._offset.to(device)

    def _sampling(self) -> tuple[NDArray[np.float64], torch.Tensor]:
        """Give each training row's chance, and what is added to logits in the loss so that they still speak of the true shares."""
        labels = self._data.labels[self._data.train]
        if self._several:
            # An image's rarest label decides; those without any are as frequent as the most frequent.
            counts = np.maximum(labels.sum(axis=0), 1).astype(np.float64)
            least = np.where(labels == 1, counts, counts.max()).min(axis=1)
            weights = least**-0.5 if counts.max() / counts.min() > 3.0 else np.ones(len(labels))
            chances = weights / weights.sum()
            true = np.clip(labels.mean(axis=0), 1e-4, 1 - 1e-4)
            drawn = np.clip((labels * chances[:, None]).sum(axis=0), 1e-4, 1 - 1e-4)
            offset = np.log(drawn / (1 - drawn)) - np.log(true / (1 - true))
            return chances, torch.tensor(offset, dtype=torch.float32)
        counts = np.maximum(np.bincount(labels, minlength=self._data.classes), 1).astype(np.float64)
        power = 0.5 if counts.max() / counts.min() > 3.0 else 0.0
        weights = counts[labels] ** -power
        chances = weights / weights.sum()
        true = counts / counts.sum()
        drawn = counts ** (1.0 - power) / (counts ** (1.0 - power)).sum()
        return chances, torch.tensor(np.log(drawn / true), dtype=torch.float32)

    def order(self, epoch: int) -> NDArray[np.int64]:
        """Give the rows of an epoch."""
        self._epoch = epoch
        rng = np.random.Generator(np.random.Philox(key=self._seed, counter=[0, 0, 0, epoch]))
        rows = self._data.train
        if np.ptp(self._chances) < 1e-12:
            return np.asarray(rng.permutation(rows), dtype=np.int64)
        return np.asarray(rng.choice(rows, size=len(rows), p=self._chances), dtype=np.int64)

    def batch(self, rows: NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor]:
        """Give planes and targets ``(n, K)``: one-hot, 0 and 1, or soft."""
        if self._data.soft is not None:
            return self._bank.planes(rows), torch.from_numpy(self._data.soft[rows]).to(self._device, non_blocking=True)
        if self._several:
            labels = torch.from_numpy(self._data.labels[rows]).float()
            return self._bank.planes(rows), labels.to(self._device, non_blocking=True)
        target = F.one_hot(torch.from_numpy(self._data.labels[rows]), self._data.classes).float()
        return self._bank.planes(rows), target.to(self._device, non_blocking=True)

    def loss(
        self, model: torch.nn.Module, batch: tuple[torch.Tensor, torch.Tensor], recipe: Recipe, generator: torch.Generator
    ) -> torch.Tensor:
        """Give the mean loss of the augmented batch."""
        planes, target = batch
        with torch.autocast(planes.device.type, enabled=False):
            if self._small(recipe):
                planes = _shrunk(planes)
            planes = augment(planes, STRENGTHS[recipe.strength], generator)
            if recipe.mix > 0 and len(planes) > 1:
                planes, target = _mixed(planes, target, recipe, generator)
            planes = planes.contiguous(memory_format=torch.channels_last)
        logits = model.from_planes(planes)  # type: ignore[operator]
        shifted = logits.float() + self._offset
        if self._several:
            return asymmetric_loss(shifted, target * (1 - recipe.smoothing) + 0.5 * recipe.smoothing, self._focus)
        return F.cross_entropy(shifted, target, label_smoothing=recipe.smoothing)

    def _small(self, recipe: Recipe) -> bool:
        return self._epoch < recipe.grow * self._epochs

    def clean_rows(self) -> NDArray[np.int64]:
        """Give training rows for batch-normalisation statistics."""
        rows = self._data.train
        if len(rows) <= STATISTICS_IMAGES:
            return rows
        rng = np.random.Generator(np.random.Philox(key=self._seed))
        return np.sort(rng.choice(rows, STATISTICS_IMAGES, replace=False))

    @torch.no_grad()
    def judge(self, model: torch.nn.Module) -> Judgement:
        """Judge on the held-out rows.

        Raises
        ------
        Diverged
            The answers are not finite.
        """
        rows = self._data.held_out
        parts = [
            model.from_planes(self._bank.planes(rows[start : start + _JUDGING_BATCH])).float().cpu().numpy()  # type: ignore[operator]
            for start in range(0, len(rows), _JUDGING_BATCH)
        ]
        logits = np.concatenate(parts) if parts else np.zeros((0, self._data.classes), dtype=np.float32)
        if not np.isfinite(logits).all():
            raise Diverged("the network's answers are not finite")
        labels = self._data.labels[rows]
        if self._several:
            figures = score(logits, labels)
            flat = len(logits) >= 10 and bool((logits.std(axis=0) < 1e-4).all())
            return Judgement(
                loss=figures["log_loss"],
                score=figures.get("mean_average_precision", figures["accuracy"]),
                scores=figures,
                kept={"logits": logits},
                message="it gives every held-out image the same answer" if flat else "",
            )
        loss = fit_temperature(logits, labels).log_loss_after
        same = len(logits) >= 10 and len(np.unique(logits.argmax(axis=1))) == 1 and len(np.unique(labels)) > 1
        return Judgement(
            loss=loss,
            score=float((logits.argmax(axis=1) == labels).mean()),
            scores=score(logits, labels),
            kept={"logits": logits},
            message="it gives every held-out image the same class" if same else "",
            collapsed=same,
        )


def _shrunk(planes: torch.Tensor) -> torch.Tensor:
    """Bring images to seven tenths of their sides, a whole number of eight pixels: half of the work."""
    sides = [max(32, round(0.7 * int(side) / 8) * 8) for side in planes.shape[2:]]
    return planes if sides[0] >= planes.shape[2] or sides[1] >= planes.shape[3] else F.interpolate(planes, size=sides, mode="area")


def _mixed(planes: torch.Tensor, target: torch.Tensor, recipe: Recipe, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Mix each image and its target with another's: by blending (mixup) or by a rectangle (CutMix)."""
    share = _beta(recipe.mix, generator)
    if recipe.cut > 0 and float(torch.rand((), generator=generator)) < recipe.cut:
        return pasted(planes, target, share, generator)
    return share * planes + (1 - share) * planes.flip(0), share * target + (1 - share) * target.flip(0)


def asymmetric_loss(logits: torch.Tensor, target: torch.Tensor, focus: float = _FOCUS) -> torch.Tensor:
    """Give the binary cross-entropy with negatives weighted by their probability to the power of `focus`, a scalar.

    Parameters
    ----------
    logits, target
        ``(n, K)``; targets from 0 to 1.
    focus
        0: plain binary cross-entropy.

    Notes
    -----
    The weight is that of Ridnik et al. (ICCV 2021), eq. 7, with gamma+ 0 and without their hard threshold; the sum is divided by the mean weight, so that
    the learning rate means the same with and without.
    """
    positive = F.softplus(-logits) * target
    negative = F.softplus(logits) * (1.0 - target)
    weight = torch.sigmoid(logits).detach().pow(focus)
    return positive.mean() + (negative * weight).mean() / weight.mean().clamp(min=0.05)


def _beta(alpha: float, generator: torch.Generator) -> float:
    """Draw from Beta(alpha, alpha) with this generator alone (Jöhnk's method; alpha below 1)."""
    while True:
        x, y = (math.pow(float(torch.rand((), generator=generator)), 1.0 / alpha) for _ in range(2))
        if 0.0 < x + y <= 1.0:
            return x / (x + y)
