"""Training one network, so that it can be stopped at any batch and taken up again at any epoch."""

from __future__ import annotations

import copy
import io
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from oteo_automl.candidates.augmenting import STRENGTHS, augment
from oteo_automl.candidates.modules import to_planes
from oteo_automl.candidates.networks import NetworkClassifier
from oteo_automl.evaluation.calibration import fit_temperature
from oteo_automl.search.result import EpochRecord

_RESIDENT_BYTES = 4 * 1024**3
_STATISTICS_IMAGES = 512
_SAVING_SHARE = 0.05


class Diverged(Exception):
    """The loss is not finite: the learning rate was too high for this network."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a network is trained; JSON values.

    Parameters
    ----------
    rate
        Highest learning rate of AdamW.
    decay
        Weight decay.
    strength
        Name of an augmentation of `oteo_automl.candidates.augmenting.STRENGTHS`.
    smoothing
        Label smoothing.
    drop
        Dropout before the head.
    batch
        Images in a batch.
    mix
        Parameter of mixup (Zhang et al., ICLR 2018); 0: none.
    """

    rate: float = 1e-3
    decay: float = 0.05
    strength: str = "light"
    smoothing: float = 0.1
    drop: float = 0.0
    batch: int = 32
    mix: float = 0.0


@dataclass(slots=True)
class TrainingRows:
    """Images and labels; `train` and `held_out` are rows of `images`."""

    images: NDArray[Any]
    labels: NDArray[np.int64]
    train: NDArray[np.int64]
    held_out: NDArray[np.int64]
    classes: int


@dataclass(slots=True)
class Outcome:
    """Where a training stands when `Trainer.run` returns.

    Parameters
    ----------
    epochs
        Whole epochs done.
    logits
        ``(M, K)`` of the held-out rows.
    log_loss
        Of those after temperature scaling.
    curve
        One record an epoch.
    out_of_time
        True where the deadline stopped it before the target.
    message
        Something a person should know; empty mostly.
    """

    epochs: int
    logits: NDArray[np.float32]
    log_loss: float
    curve: list[EpochRecord] = field(default_factory=list)
    out_of_time: bool = False
    message: str = ""


class Trainer:
    """One network's training.

    AdamW with a warm-up and a cosine that ends when the planned epochs or the time do, whichever is first; a moving average of the
    weights is what is judged and kept; its batch-normalisation statistics are taken anew from clean training images (those of
    augmented ones are off: six points of accuracy on small sets).

    Parameters
    ----------
    model
        The network.
    data
        What it learns from.
    recipe
        How.
    seed
        Of every draw.
    device
        Of PyTorch.
    half
        True: bfloat16 on a processor (measured by who asks); a GPU always uses it.
    """

    def __init__(
        self, model: NetworkClassifier, data: TrainingRows, recipe: Recipe, *, seed: int, device: str = "cpu", half: bool = False
    ) -> None:
        torch.manual_seed(seed)
        self._device = torch.device(device)
        self._gpu = self._device.type == "cuda"
        self._data = data
        self._recipe = recipe
        self._seed = seed
        self._half = half or self._gpu
        self.model = model.to(self._device).to(memory_format=torch.channels_last)
        self.average = copy.deepcopy(self.model).eval()
        for parameter in self.average.parameters():
            parameter.requires_grad_(False)
        decayed = [p for p in self.model.parameters() if p.ndim > 1]
        plain = [p for p in self.model.parameters() if p.ndim <= 1]
        self._optimiser = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": recipe.decay}, {"params": plain, "weight_decay": 0.0}], lr=recipe.rate, fused=self._gpu
        )
        self._epoch = 0
        self._step = 0
        self._position = 0.0
        self._curve: list[EpochRecord] = []
        self._generator = torch.Generator()
        self._resident = self._load_images()
        self._step_seconds = 0.0
        self._judging_seconds = 0.0
        self._sampled, self._offset = self._sampling()

    # Data.

    def _load_images(self) -> torch.Tensor | None:
        images = self._data.images
        if images.nbytes > _RESIDENT_BYTES:
            return None
        # One copy out of the map: reading a row at a time through it costs more than the memory.
        whole = torch.from_numpy(np.array(images))
        return whole.to(self._device) if self._gpu else whole

    def _batch(self, rows: NDArray[np.int64]) -> torch.Tensor:
        index = torch.from_numpy(rows)
        if self._resident is not None:
            images = self._resident[index.to(self._resident.device)]
        else:
            images = torch.from_numpy(self._data.images[np.sort(rows)][np.argsort(np.argsort(rows))])
            if self._gpu:
                images = images.pin_memory().to(self._device, non_blocking=True)
        return to_planes(images).contiguous(memory_format=torch.channels_last)

    def _sampling(self) -> tuple[NDArray[np.float64], torch.Tensor]:
        """Give each training row's chance, and what is added to logits in the loss so that they still speak of the true shares."""
        labels = self._data.labels[self._data.train]
        counts = np.maximum(np.bincount(labels, minlength=self._data.classes), 1).astype(np.float64)
        power = 0.5 if counts.max() / counts.min() > 3.0 else 0.0
        weights = counts[labels] ** -power
        chances = weights / weights.sum()
        true = counts / counts.sum()
        drawn = counts ** (1.0 - power) / (counts ** (1.0 - power)).sum()
        return chances, torch.tensor(np.log(drawn / true), dtype=torch.float32, device=self._device)

    def _order(self) -> NDArray[np.int64]:
        rng = np.random.Generator(np.random.Philox(key=self._seed, counter=[0, 0, 0, self._epoch]))
        rows = self._data.train
        if np.ptp(self._sampled) < 1e-12:
            return np.asarray(rng.permutation(rows), dtype=np.int64)
        return np.asarray(rng.choice(rows, size=len(rows), p=self._sampled), dtype=np.int64)

    # State.

    def state(self) -> bytes:
        """Give everything that going on needs."""
        buffer = io.BytesIO()
        torch.save(
            {
                "model": self.model.state_dict(),
                "average": self.average.state_dict(),
                "optimiser": self._optimiser.state_dict(),
                "epoch": self._epoch,
                "step": self._step,
                "position": self._position,
                "curve": [
                    [r.epoch, r.train_loss, r.validation_loss, r.validation_accuracy, r.learning_rate, r.seconds] for r in self._curve
                ],
            },
            buffer,
        )
        return buffer.getvalue()

    def restore(self, data: bytes) -> None:
        """Take up what `state` gave."""
        content = torch.load(io.BytesIO(data), map_location=self._device, weights_only=True)
        self.model.load_state_dict(content["model"])
        self.average.load_state_dict(content["average"])
        self._optimiser.load_state_dict(content["optimiser"])
        self._epoch, self._step, self._position = content["epoch"], content["step"], content["position"]
        self._curve = [EpochRecord(int(row[0]), *row[1:]) for row in content["curve"]]

    # Learning.

    def run(
        self,
        target: int,
        total: int,
        deadline: float,
        save: Callable[[bytes], None] | None = None,
        *,
        judge_every: int = 1,
        on_epoch: Callable[[EpochRecord], None] | None = None,
    ) -> Outcome:
        """Train up to an epoch or a time.

        Parameters
        ----------
        target
            Stop after this many epochs in all.
        total
            Epochs that the learning rate is planned for, at least `target`.
        deadline
            Seconds since 1970; watched at every batch, with the time for judging taken off.
        save
            Keeps a state after an epoch; called so seldom that it takes at most a twentieth of the time.
        judge_every
            Judge the held-out rows after every so many epochs, and at the end.
        on_epoch
            Told each epoch.

        Raises
        ------
        Diverged
            The loss is not finite.
        """
        saved_at, saving = time.time(), 0.0
        out_of_time = False
        judged: tuple[NDArray[np.float32], float] | None = None
        while self._epoch < target and not out_of_time:
            began = time.time()
            loss, out_of_time = self._one_epoch(total, deadline)
            if out_of_time:
                break
            self._epoch += 1
            last = self._epoch >= target
            judged = None
            if last or self._epoch % max(1, judge_every) == 0:
                judged = self._judge()
            held_loss, accuracy = math.nan, math.nan
            if judged is not None:
                held_loss = judged[1]
                accuracy = float((judged[0].argmax(axis=1) == self._data.labels[self._data.held_out]).mean())
            record = EpochRecord(self._epoch, loss, held_loss, accuracy, self._optimiser.param_groups[0]["lr"], time.time() - began)
            self._curve.append(record)
            if on_epoch is not None:
                on_epoch(record)
            if save is not None and (last or time.time() - saved_at > saving / _SAVING_SHARE):
                started = time.time()
                save(self.state())
                saved_at, saving = time.time(), time.time() - started
        if judged is None:
            judged = self._judge()
        return Outcome(self._epoch, judged[0], judged[1], list(self._curve), out_of_time, self._verdict(judged[0]))

    def _one_epoch(self, total: int, deadline: float) -> tuple[float, bool]:
        self.model.train()
        self._generator.manual_seed((self._seed * 1_000_003 + self._epoch) % 2**63)
        order = self._order()
        size = min(self._recipe.batch, len(order))
        # A last batch of one breaks batch normalisation: what does not fill a batch waits for another epoch.
        starts = range(0, max(1, len(order) - size + 1), size)
        losses: list[torch.Tensor] = []
        for number, start in enumerate(starts):
            left = deadline - time.time() - 1.3 * self._judging_seconds
            if left < 1.2 * self._step_seconds:
                return self._mean(losses), True
            began = time.time()
            planned = len(starts) * (total - self._epoch) - number
            affordable = left / self._step_seconds if self._step_seconds > 0 else planned
            losses.append(self._one_step(order[start : start + size], max(1.0, min(planned, affordable))))
            if number % 16 == 0 and not bool(torch.isfinite(losses[-1])):
                raise Diverged(f"the loss is not finite in epoch {self._epoch + 1}")
            if self._gpu and number % 8 == 0:
                torch.cuda.synchronize(self._device)
            seconds = time.time() - began
            self._step_seconds = seconds if self._step_seconds == 0 else 0.8 * self._step_seconds + 0.2 * seconds
        mean = self._mean(losses)
        if not math.isfinite(mean):
            raise Diverged(f"the loss is not finite in epoch {self._epoch + 1}")
        return mean, False

    @staticmethod
    def _mean(losses: list[torch.Tensor]) -> float:
        return float(torch.stack(losses).mean()) if losses else math.nan

    def _one_step(self, rows: NDArray[np.int64], steps_left: float) -> torch.Tensor:
        recipe = self._recipe
        warm = min(1.0, (self._step + 1) / 20.0)
        rate = recipe.rate * warm * 0.5 * (1.0 + math.cos(math.pi * min(1.0, self._position)))
        for group in self._optimiser.param_groups:
            group["lr"] = max(rate, 1e-6)
        self._position += (1.0 - self._position) / max(1.0, steps_left)
        planes = augment(self._batch(rows), STRENGTHS[recipe.strength], self._generator)
        planes = planes.contiguous(memory_format=torch.channels_last)
        target = F.one_hot(torch.from_numpy(self._data.labels[rows]), self._data.classes).float().to(self._device, non_blocking=True)
        if recipe.mix > 0 and len(rows) > 1:
            share = float(torch.distributions.Beta(recipe.mix, recipe.mix).sample())
            planes = share * planes + (1 - share) * planes.flip(0)
            target = share * target + (1 - share) * target.flip(0)
        with torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=self._half):
            logits = self.model.from_planes(planes)
        loss = F.cross_entropy(logits.float() + self._offset, target, label_smoothing=recipe.smoothing)
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.model.parameters(), 3.0)
        self._optimiser.step()
        self._step += 1
        self._follow()
        return loss.detach()

    @torch.no_grad()
    def _follow(self) -> None:
        keep = min(0.998, (1.0 + self._step) / (10.0 + self._step))
        ours: list[torch.Tensor] = list(self.average.parameters())
        theirs = [p.detach() for p in self.model.parameters()]
        torch._foreach_lerp_(ours, theirs, 1.0 - keep)  # type: ignore[no-untyped-call, unused-ignore]

    # Judging.

    def _judge(self) -> tuple[NDArray[np.float32], float]:
        began = time.time()
        self._renew_statistics()
        logits = self.predict(self._data.held_out)
        if not np.isfinite(logits).all():
            raise Diverged("the network's answers are not finite")
        loss = fit_temperature(logits, self._data.labels[self._data.held_out]).log_loss_after
        seconds = time.time() - began
        self._judging_seconds = max(self._judging_seconds * 0.7, seconds)
        return logits, loss

    @torch.no_grad()
    def _renew_statistics(self) -> None:
        norms = [module for module in self.average.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
        if not norms:
            return
        rows = self._data.train
        if len(rows) > _STATISTICS_IMAGES:
            rng = np.random.Generator(np.random.Philox(key=self._seed))
            rows = np.sort(rng.choice(rows, _STATISTICS_IMAGES, replace=False))
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None
            norm.train()
        size = min(64, len(rows))
        with torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=self._half):
            for start in range(0, max(1, len(rows) - size + 1), size):
                self.average.from_planes(self._batch(rows[start : start + size]))
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            norm.eval()

    @torch.no_grad()
    def predict(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Give ``(M, K)`` logits of the averaged network for rows of the images, in full precision."""
        parts = [self.average.from_planes(self._batch(rows[start : start + 64])).float().cpu().numpy() for start in range(0, len(rows), 64)]
        return np.concatenate(parts) if parts else np.zeros((0, self._data.classes), dtype=np.float32)

    def _verdict(self, logits: NDArray[np.float32]) -> str:
        if self._epoch >= 3 and len(logits) >= 10 and len(np.unique(logits.argmax(axis=1))) == 1:
            return "it gives every held-out image the same class"
        return ""

    def result(self) -> NetworkClassifier:
        """Give the averaged network on the processor, in evaluation mode."""
        network: NetworkClassifier = copy.deepcopy(self.average).cpu().eval()
        return network.to(memory_format=torch.contiguous_format)


def has_bfloat16() -> bool:
    """Say whether this processor computes in bfloat16 itself."""
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags
