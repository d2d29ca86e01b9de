"""Training one network, so that it can be stopped at any batch and taken up again at any epoch."""

from __future__ import annotations

import copy
import io
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from oteo_automl.candidates.averaging import SHARE, LastWeights
from oteo_automl.candidates.groups import parameter_groups
from oteo_automl.candidates.lesson import Judgement, Lesson
from oteo_automl.candidates.modules import SavedModule
from oteo_automl.search.result import EpochRecord

STATISTICS_IMAGES = 512
"""So many clean training images renew batch-normalisation statistics at most."""

LEAST_STEPS = 24
"""Steps below which a network has learnt too little to be worth publishing. On drawn discs 24 of 8 images at 64 x 64 pixels come to an mAP50-95 of .58,
a Dice of .9 and a PQ of .8; after one step all three are next to nothing."""

_STATISTICS_BATCH = 64
_SAVING_SHARE = 0.05
_GAIN = 0.01


class Diverged(Exception):
    """The loss is not finite: the learning rate was too high for this network."""


class NothingLearnt(Exception):
    """The time was up before the first step: the network is as it was drawn, and no answer to anything."""


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
    half
        False: float32 also where bfloat16 would be faster, after a training that diverged.
    layer_decay
        The learning rate of each layer is so much of that of the one above it, where there are pretrained weights (Clark et al., "ELECTRA",
        ICLR 2020; Bao et al., "BEiT", ICLR 2022); 1: all alike.
    cut
        Share of the batches that are mixed which are mixed by rectangles (CutMix; Yun et al., ICCV 2019) and not by blending; see `mix`.
    grow
        Share of the epochs, from the first on, in which images are smaller (progressive resizing; Howard's way, as in EfficientNetV2, Tan and Le,
        ICML 2021).
    """

    rate: float = 1e-3
    decay: float = 0.05
    strength: str = "light"
    smoothing: float = 0.1
    drop: float = 0.0
    batch: int = 32
    mix: float = 0.0
    half: bool = True
    layer_decay: float = 1.0
    cut: float = 0.0
    grow: float = 0.0


@dataclass(slots=True)
class Outcome:
    """Where a training stands when `Trainer.run` returns.

    Parameters
    ----------
    epochs
        Whole epochs done.
    judgement
        Of the averaged network on the held-out rows.
    curve
        One record an epoch.
    out_of_time
        True where the deadline stopped it before the target.
    message
        Something a person should know; empty mostly.
    hopeless
        Why it was stopped before the target by who watches the curve; empty where it was not.
    steps
        Taken in all, also those of an epoch that was not ended; 1 at least.
    """

    epochs: int
    judgement: Judgement
    curve: list[EpochRecord] = field(default_factory=list)
    out_of_time: bool = False
    message: str = ""
    hopeless: str = ""
    steps: int = 0


class Trainer:
    """One network's training, whatever it is taught.

    AdamW with a warm-up and a cosine that ends when the planned epochs or the time do, whichever is first; a moving average of the
    weights is what is judged and kept; its batch-normalisation statistics are taken anew from clean training images (those of
    augmented ones are off: six points of accuracy on small sets).

    Parameters
    ----------
    model
        The network; it has ``from_planes``.
    lesson
        What it is taught.
    recipe
        How.
    seed
        Of every draw.
    device
        Of PyTorch.
    half
        True: bfloat16 on a processor (measured by who asks); a GPU always uses it.
    """

    def __init__(self, model: SavedModule, lesson: Lesson, recipe: Recipe, *, seed: int, device: str = "cpu", half: bool = False) -> None:
        torch.manual_seed(seed)
        self._device = torch.device(device)
        self._gpu = self._device.type == "cuda"
        self._lesson = lesson
        self._recipe = recipe
        self._seed = seed
        self._half = (half or self._gpu) and recipe.half
        self.model = model.to(self._device).to(memory_format=torch.channels_last)
        self.average = copy.deepcopy(self.model).eval()
        for parameter in self.average.parameters():
            parameter.requires_grad_(False)
        groups = parameter_groups(self.model, recipe.decay, recipe.layer_decay)
        # Fused on processors too: a third of the time of one loop over the tensors after the other.
        self._optimiser = torch.optim.AdamW(groups, lr=recipe.rate, fused=True)
        self._epoch = 0
        self._step = 0
        self._position = 0.0
        self._curve: list[EpochRecord] = []
        self._generator = torch.Generator()
        self._last = LastWeights()
        self._step_seconds = 0.0
        self._judging_seconds = 0.0
        lesson.place(self._device)

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
                "last": self._last.state(),
                "curve": [[r.epoch, r.train_loss, r.validation_loss, r.validation_score, r.learning_rate, r.seconds] for r in self._curve],
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
        self._last.restore(content["last"])
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
        on_epoch: Callable[[list[EpochRecord]], str] | None = None,
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
            Shown the curve after each epoch; says why to stop, or nothing.

        Raises
        ------
        Diverged
            The loss is not finite.
        NothingLearnt
            There was no time for a single step, in this run or those before.
        """
        saved_at, saving = time.time(), 0.0
        out_of_time, hopeless = False, ""
        judged: Judgement | None = None
        while self._epoch < target and not out_of_time and not hopeless:
            began = time.time()
            loss, out_of_time = self._one_epoch(total, deadline)
            if out_of_time:
                break
            self._epoch += 1
            if self._epoch > SHARE * total:
                self._last.take(self.model)
            last = self._epoch >= target
            judged = None
            if last or self._epoch % max(1, judge_every) == 0:
                judged = self._judge()
            held_loss, figure = (judged.loss, judged.score) if judged is not None else (math.nan, math.nan)
            record = EpochRecord(self._epoch, loss, held_loss, figure, self._optimiser.param_groups[0]["lr"], time.time() - began)
            self._curve.append(record)
            if on_epoch is not None and not last:
                hopeless = on_epoch(self._curve)
            if save is not None and (last or time.time() - saved_at > saving / _SAVING_SHARE):
                started = time.time()
                save(self.state())
                saved_at, saving = time.time(), time.time() - started
        if not self._step:
            raise NothingLearnt("the time was up before the first step of training")
        if judged is None:
            judged = self._judge()
        if self._epoch >= total and self._last.ready and time.time() + 1.5 * self._judging_seconds < deadline:
            judged = self._better_mean(judged)
        message = judged.message if self._epoch >= 3 else ""
        if out_of_time and not self._epoch:
            message = f"the time was up after {self._step} step{'s' * (self._step > 1)}, within the first epoch"
        return Outcome(self._epoch, judged, list(self._curve), out_of_time, message, hopeless, self._step)

    def rehearse(self, rows: NDArray[np.int64]) -> None:
        """Take a step that is measured and not meant: the learning rate stays where it begins."""
        self.model.train()
        self._one_step(rows, math.inf)

    def _one_epoch(self, total: int, deadline: float) -> tuple[float, bool]:
        self.model.train()
        self._generator.manual_seed((self._seed * 1_000_003 + self._epoch) % 2**63)
        order = self._lesson.order(self._epoch)
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
        warm = min(1.0, (self._step + 1) / 20.0)
        rate = self._recipe.rate * warm * 0.5 * (1.0 + math.cos(math.pi * min(1.0, self._position)))
        for group in self._optimiser.param_groups:
            group["lr"] = max(rate * group.get("lr_scale", 1.0), 1e-6)
        self._position += (1.0 - self._position) / max(1.0, steps_left)
        batch = self._lesson.batch(rows)
        with torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=self._half):
            loss = self._lesson.loss(self.model, batch, self._recipe, self._generator)
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

    def _judge(self) -> Judgement:
        began = time.time()
        self._renew_statistics()
        judgement = self._lesson.judge(self.average)
        if not math.isfinite(judgement.loss):
            raise Diverged("the network's answers are not finite")
        self._judging_seconds = max(self._judging_seconds * 0.7, time.time() - began)
        return judgement

    def _better_mean(self, judged: Judgement) -> Judgement:
        """Judge the plain mean of the last epochs' weights too, and keep it where it is clearly better than the moving one."""
        kept = {name: value.clone() for name, value in self.average.state_dict().items()}
        self._last.put(self.average)
        try:
            other = self._judge()
        except Diverged:
            other = judged
        if other.loss < judged.loss - _GAIN * abs(judged.loss) and other.score >= judged.score:
            other.message = "; ".join(
                filter(None, [other.message, f"the plain mean of the last {self._last.count} epochs' weights is kept"])
            )
            return other
        self.average.load_state_dict(kept)
        return judged

    @torch.no_grad()
    def _renew_statistics(self) -> None:
        norms = [module for module in self.average.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
        if not norms:
            return
        rows = self._lesson.clean_rows()
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None
            norm.train()
        size = min(_STATISTICS_BATCH, 2 * self._recipe.batch, len(rows))
        with torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=self._half):
            for start in range(0, max(1, len(rows) - size + 1), size):
                self.average.from_planes(self._lesson.batch(rows[start : start + size])[0])  # type: ignore[operator]
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            norm.eval()

    def result(self) -> SavedModule:
        """Give the averaged network on the processor, in evaluation mode."""
        network: SavedModule = copy.deepcopy(self.average).cpu().eval()
        return network.to(memory_format=torch.contiguous_format)


def has_bfloat16() -> bool:
    """Say whether this processor computes in bfloat16 itself."""
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def runs_on() -> str:
    """Give PyTorch's name of the device that networks are trained on."""
    return "cuda" if torch.cuda.is_available() else "cpu"
