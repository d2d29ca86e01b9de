"""Training a network: one rung of a trial, which can be stopped at any batch and goes on from its last epoch."""

from __future__ import annotations

import copy
import io
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from oteo_automl.candidates.augment import BatchAugment
from oteo_automl.candidates.base import Fitted, pack_module, score
from oteo_automl.candidates.network import ImageNetwork, build_trunk
from oteo_automl.candidates.weights import Weights, load_weights
from oteo_automl.search.data import TrainingData
from oteo_automl.search.result import EpochRecord

SAVE_SECONDS = 4.0
"""Least time between two checkpoints of a training."""
STATISTICS_IMAGES = 512
"""Clean training images on which batch-norm statistics are redone."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """Settings of a network's training.

    Attributes
    ----------
    network
        timm's name.
    epochs
        Of this rung; the learning rate falls to nothing over them (a cosine, warm restarts between rungs).
    learning_rate
        Largest, for batches of 32.
    weight_decay, smoothing, drop
        AdamW's decay, label smoothing, dropout before the last layer.
    strength
        Of augmentation, 0 to 2.
    mirror
        False where left and right mean something.
    batch
        Images.
    seed
        Of initial weights, order and augmentation.
    """

    network: str
    epochs: int
    learning_rate: float
    weight_decay: float = 0.05
    smoothing: float = 0.1
    drop: float = 0.1
    strength: float = 1.0
    mirror: bool = True
    batch: int = 32
    seed: int = 0


class Diverged(Exception):
    """The loss is not a number any more."""


class Trainer:
    """The state of one trial's training.

    Parameters
    ----------
    data
        The images; the test part is not looked at.
    recipe
        Settings.
    rung
        Number of the rung, from 0; rungs after the first go on from the weights of the one before.
    weights
        Pretrained weights, or None: from scratch.
    """

    def __init__(self, data: TrainingData, recipe: Recipe, rung: int, weights: Weights | None) -> None:
        self.data = data
        self.recipe = recipe
        self.rung = rung
        self.weights = weights
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.train = data.part("train")
        self.validation = data.part("validation")
        self.generator = torch.Generator().manual_seed(recipe.seed * 1000 + rung)
        torch.manual_seed(recipe.seed)
        channels = data.policy.channels
        mean, deviation = _moments(data, self.train)
        trunk = build_trunk(recipe.network, channels, len(data.classes), drop=recipe.drop, size=data.policy.width)
        if weights is not None:
            load_weights(trunk, weights)
        self.network = ImageNetwork(trunk, data.policy.dtype == "uint8", mean, deviation).to(self.device, memory_format=torch.channels_last)
        self.average = copy.deepcopy(self.network).requires_grad_(False)
        decayed = [p for p in self.network.parameters() if p.ndim > 1]
        plain = [p for p in self.network.parameters() if p.ndim <= 1]
        rate = recipe.learning_rate * (0.1 if weights is not None else 1.0)
        self.rate = rate * (0.7**rung)
        self.optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": plain, "weight_decay": 0.0}], lr=self.rate
        )
        self.augment = BatchAugment(recipe.strength, recipe.mirror, self.generator)
        self.epoch = 0
        self.step = 0
        self.curve: list[EpochRecord] = []
        self.message = ""

    # -- state ---------------------------------------------------------------------------------------------------------------

    def state(self) -> bytes:
        """Give everything that going on needs."""
        buffer = io.BytesIO()
        torch.save(
            {
                "network": self.network.state_dict(),
                "average": self.average.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "generator": self.generator.get_state(),
                "rung": self.rung,
                "epoch": self.epoch,
                "step": self.step,
                "curve": [asdict(record) for record in self.curve],
            },
            buffer,
        )
        return buffer.getvalue()

    def resume(self, state: bytes) -> None:
        """Go on: within a rung exactly where it stood; from an earlier rung with its weights and a new schedule."""
        content = torch.load(io.BytesIO(state), map_location=self.device, weights_only=True)
        self.network.load_state_dict(content["network"])
        self.average.load_state_dict(content["average"])
        self.curve = [EpochRecord(**record) for record in content["curve"]]
        self.step = content["step"]
        if content["rung"] == self.rung:
            self.optimizer.load_state_dict(content["optimizer"])
            self.generator.set_state(content["generator"].cpu())
            self.epoch = content["epoch"]
        else:
            # A new rung starts from the averaged weights, the better ones.
            self.network.load_state_dict(content["average"])

    # -- training ------------------------------------------------------------------------------------------------------------

    def batches_per_epoch(self) -> int:
        """Give the number of batches of an epoch."""
        return max(1, math.ceil(len(self.train) / self.recipe.batch))

    def run(self, *, stop_at: float, check: Callable[[], None], save: Callable[[bytes], None]) -> bool:
        """Train the rung's epochs; give False where the time was up before. ``check`` is called for each batch and may raise."""
        saved = time.monotonic()
        total = self.recipe.epochs * self.batches_per_epoch()
        while self.epoch < self.recipe.epochs:
            began = time.perf_counter()
            losses = []
            self.network.train()
            for place, picked in enumerate(self._order()):
                check()
                if time.time() >= stop_at:
                    return False
                progress = (self.epoch * self.batches_per_epoch() + place) / total
                rate = self.rate * min(1.0, (progress * total + 1) / max(1.0, 0.05 * total)) * 0.5 * (1 + math.cos(math.pi * progress))
                for group in self.optimizer.param_groups:
                    group["lr"] = rate
                losses.append(self._step(picked))
            self.epoch += 1
            loss = float(np.mean(losses))
            if not math.isfinite(loss):
                raise Diverged
            logits = self.logits(self.average, self.validation, check)
            labels = self.data.labels[self.validation]
            self.curve.append(
                EpochRecord(
                    epoch=len(self.curve) + 1,
                    train_loss=loss,
                    validation_loss=_cross_entropy(logits, labels),
                    validation_accuracy=float((logits.argmax(1) == labels).mean()) if len(labels) else 0.0,
                    learning_rate=rate,
                    seconds=time.perf_counter() - began,
                )
            )
            if time.monotonic() - saved > SAVE_SECONDS:
                save(self.state())
                saved = time.monotonic()
        return True

    def _order(self) -> list[NDArray[np.int64]]:
        """Draw an epoch: every class as often as the square root of its share says, so that rare ones are seen more often."""
        labels = self.data.labels[self.train]
        counts = np.bincount(labels, minlength=len(self.data.classes)).astype(float)
        weight = torch.tensor(1.0 / np.sqrt(counts[labels]))
        count = self.batches_per_epoch() * self.recipe.batch
        if counts[counts > 0].max() <= 1.5 * counts[counts > 0].min():
            picked = torch.randperm(len(labels), generator=self.generator)
        else:
            picked = torch.multinomial(weight, max(count, 2), replacement=True, generator=self.generator)
        places = self.train[picked.numpy()]
        parts = [places[i : i + self.recipe.batch] for i in range(0, len(places), self.recipe.batch)]
        # Batch norm cannot learn from one image.
        return [part for part in parts if len(part) > 1] or [np.repeat(places, 2)[:2]]

    def _pixels(self, places: NDArray[np.int64]) -> torch.Tensor:
        order = np.argsort(places)
        images = np.empty((len(places), *self.data.images.shape[1:]), self.data.images.dtype)
        images[order] = self.data.images[places[order]]
        pixels = torch.from_numpy(images).to(self.device, non_blocking=True).permute(0, 3, 1, 2).float()
        return pixels / self.network.scale

    def _step(self, picked: NDArray[np.int64]) -> float:
        pixels = self.augment(self._pixels(picked)).contiguous(memory_format=torch.channels_last)
        labels = torch.from_numpy(self.data.labels[picked]).to(self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            logits = self.network.trunk(self.network.normalise(pixels))
        loss = functional.cross_entropy(logits.float(), labels, label_smoothing=self.recipe.smoothing)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.network.parameters(), 2.0)
        self.optimizer.step()
        self.step += 1
        decay = min(0.99, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for mean, new in zip(self.average.state_dict().values(), self.network.state_dict().values(), strict=True):
                if mean.is_floating_point():
                    mean.lerp_(new, 1.0 - decay)
                else:
                    mean.copy_(new)
        return float(loss.detach())

    # -- judging -------------------------------------------------------------------------------------------------------------

    def logits(self, network: ImageNetwork, places: NDArray[np.int64], check: Callable[[], None]) -> NDArray[np.float32]:
        """Give the logits ``(N, K)`` of the images at these places, as they are."""
        network.eval()
        parts = [np.zeros((0, len(self.data.classes)), np.float32)]
        with torch.inference_mode():
            for start in range(0, len(places), 64):
                check()
                pixels = self._pixels(places[start : start + 64]).contiguous(memory_format=torch.channels_last)
                parts.append(network.trunk(network.normalise(pixels)).float().cpu().numpy())
        return np.concatenate(parts)

    def settle(self, check: Callable[[], None]) -> None:
        """Redo the averaged network's batch-norm statistics on clean training images: after strong augmentation they are off."""
        layers = [layer for layer in self.average.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
        if not layers:
            return
        momenta = [layer.momentum for layer in layers]
        for layer in layers:
            layer.reset_running_stats()
            layer.momentum = None
            layer.train()
        chosen = self.train[torch.randperm(len(self.train), generator=torch.Generator().manual_seed(0)).numpy()[:STATISTICS_IMAGES]]
        with torch.no_grad():
            for start in range(0, len(chosen), 64):
                check()
                part = chosen[start : start + 64]
                if len(part) > 1 or start == 0:
                    part = part if len(part) > 1 else np.repeat(part, 2)
                    self.average.trunk(self.average.normalise(self._pixels(part)))
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
        self.average.eval()


def train_network(
    data: TrainingData,
    recipe: Recipe,
    *,
    rung: int,
    stop_at: float,
    check: Callable[[], None],
    save: Callable[[bytes], None],
    state: bytes | None = None,
    weights: Weights | None = None,
) -> Fitted:
    """Train one rung of a trial.

    Parameters
    ----------
    data
        The images; the test part is not looked at.
    recipe
        Settings.
    rung
        From 0.
    stop_at
        ``time.time()`` at which training stops, within a batch; what there is then is judged and handed back.
    check
        Called for each batch; raises where the work is to stop.
    save
        Takes the state after epochs.
    state
        From `save`, or from the rung before.
    weights
        Pretrained weights, or None: from scratch.

    Notes
    -----
    A training that diverges is begun again with a third of the learning rate, once; that is said in the message.
    """
    began = time.perf_counter()
    message = ""
    trainer = Trainer(data, recipe, rung, weights)
    if state:
        trainer.resume(state)
    try:
        finished = trainer.run(stop_at=stop_at, check=check, save=save)
    except Diverged:
        message = f"diverged at a learning rate of {recipe.learning_rate:g}; begun again with a third of it"
        recipe = replace(recipe, learning_rate=recipe.learning_rate / 3)
        trainer = Trainer(data, recipe, rung, weights)
        finished = trainer.run(stop_at=stop_at, check=check, save=save)
    trainer.settle(check)
    logits = trainer.logits(trainer.average, trainer.validation, check)
    labels = data.labels[trainer.validation]
    if len(labels) and len(np.unique(logits.argmax(1))) == 1 and len(np.unique(labels)) > 1:
        message = (message + "; " if message else "") + "collapsed: names every validation image the same class"
    parameters: dict[str, Any] = {key: value for key, value in asdict(recipe).items() if key != "network"}
    network = copy.deepcopy(trainer.average).cpu().to(memory_format=torch.contiguous_format)
    return Fitted(
        module=pack_module(network),
        places=trainer.validation,
        logits=logits,
        scores=score(logits, labels),
        parameters={**parameters, "epochs_done": len(trainer.curve)},
        curve=trainer.curve,
        seconds=time.perf_counter() - began,
        initial_weights=weights.source if weights else "scratch",
        state=trainer.state(),
        stopped=not finished,
        message=message,
    )


def _moments(data: TrainingData, places: NDArray[np.int64]) -> tuple[list[float], list[float]]:
    """Give mean and deviation by channel, on the scale 0 to 1, of up to 400 of the images at these places."""
    chosen = np.sort(places[:: max(1, len(places) // 400)])
    sample = data.images[chosen].astype(np.float32) / (255.0 if data.policy.dtype == "uint8" else 1.0)
    flat = sample.reshape(-1, sample.shape[-1])
    return [float(v) for v in flat.mean(0)], [float(max(v, 1e-3)) for v in flat.std(0)]


def _cross_entropy(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    return float(functional.cross_entropy(torch.from_numpy(logits), torch.from_numpy(labels))) if len(labels) else 0.0
