"""One trainer for all unpaired methods: to be stopped at any step and taken up again."""

from __future__ import annotations

import copy
import hashlib
import io
import logging
import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import nn

from oteo_translate.methods.unpaired.crops import Crops
from oteo_translate.methods.unpaired.generators import Generator
from oteo_translate.methods.unpaired.health import complaint
from oteo_translate.methods.unpaired.objectives import Losses, Objective, Side
from oteo_translate.methods.unpaired.recipe import MOST_STEPS, UNBOUNDED_STEPS, Recipe
from oteo_translate.methods.unpaired.team import Alone, Team

KEEP_SECONDS = 20.0
"""A state is kept no more often than this."""

_KEEPING_SHARE = 0.05
_TROUBLES = 3
_FASTER = 1.1

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Callbacks:
    """Whom a training tells; see `oteo_translate.methods.base.FitContext`."""

    check: Callable[[], None] = lambda: None
    progress: Callable[[float, str], None] = lambda share, word: None
    save: Callable[[bytes], None] | None = None
    show: Callable[[nn.Module], None] | None = None


@dataclass(slots=True)
class Standing:
    """How far a training is; JSON values.

    Parameters
    ----------
    step
        Steps done.
    position
        0 at the beginning, 1 at the planned end; the learning rate follows it.
    tame
        The learning rate is so much of the recipe's; halved after each trouble.
    troubles
        How often the training went wrong and was taken back.
    half
        Whether it computes in half precision.
    points
        Steps of the curves' points.
    curves
        Mean losses since the point before, by name.
    notes
        What a person should know.
    """

    step: int = 0
    position: float = 0.0
    tame: float = 1.0
    troubles: int = 0
    half: bool = False
    points: list[int] = field(default_factory=list)
    curves: dict[str, list[float]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Schedule:
    """Where a training stands between its beginning and its end.

    Parameters
    ----------
    total
        Steps planned.
    end
        When it must be over, seconds since 1970; infinite where only steps count.
    began, position
        When and where this run began.
    """

    total: int
    end: float
    began: float
    position: float

    def at(self, step: int, now: float, pace: float) -> list[float]:
        """Give the position, the further one by steps and by time, and whether it is over (1): no step of `pace` seconds fits in any more."""
        by_steps = step / self.total
        if math.isinf(self.end):
            return [by_steps, float(step >= self.total)]
        left = self.end - now
        by_time = 1.0 - (1.0 - self.position) * max(0.0, left) / max(self.end - self.began, 1e-9)
        return [max(by_steps, by_time), float(step >= self.total or left <= pace)]


class Trainer:
    """Trains an objective's networks.

    Adam at the recipe's rate until half-time and from there down to zero, where the planned steps or the time end, whichever is first. The generator that is kept is a moving average. Every draw comes from a generator keyed by seed,
    step and process, so that a state is weights, optimisers, kept images and a number. A training whose losses are not numbers, or whose generator
    answers with even areas, is taken back to the last healthy state, at half the rate, three times at most.

    Parameters
    ----------
    objective
        What to train.
    shifted, home
        Images to draw batches from.
    seed
        Of every draw.
    device
        Of PyTorch.
    team
        Other processes that train the same weights on other batches.
    """

    def __init__(
        self, objective: Objective, shifted: Crops, home: Crops, *, seed: int, device: torch.device, team: Team | None = None
    ) -> None:
        self._objective = objective
        self._recipe: Recipe = objective.recipe
        self._shifted, self._home = shifted, home
        self._seed = seed
        self._device = device
        self._gpu = device.type == "cuda"
        self._team: Team = team or Alone()
        # Measured on a processor: instance norm copies from this layout and back, and takes what convolutions gain.
        self._layout = torch.channels_last if self._gpu else torch.contiguous_format
        for side in (objective.drawing, objective.judging):
            side.to(device).to(memory_format=self._layout)
        self.average: Generator = copy.deepcopy(objective.forth).eval()
        self.average.requires_grad_(False)
        self._drawing = self._team.wrap(Side(objective.drawing, objective.drawing_loss))
        self._judging = self._team.wrap(Side(objective.judging, objective.judging_loss))
        self._optimisers = [objective.optimiser(list(side.parameters()), self._gpu) for side in (objective.drawing, objective.judging)]
        self.standing = Standing()
        self._probes, self._home_probes = shifted.probes(), home.probes()
        self._half = self._half_type()
        self._scaler = torch.amp.GradScaler(device.type, enabled=self._half == torch.float16)
        self._sums: Losses = {}
        self._step_seconds = 0.0

    def _half_type(self) -> torch.dtype:
        wanted = self._recipe.precision
        if wanted == "float16" or (wanted == "auto" and self._gpu and not torch.cuda.is_bf16_supported()):
            return torch.float16
        return torch.bfloat16

    # State.

    def state(self) -> bytes:
        """Give everything that going on needs; every process of a team must ask, and gets the same."""
        buffer = io.BytesIO()
        pools = self._team.gather([[image.cpu() for image in pool] for pool in self._objective.pools()])
        content = {
            "drawing": self._objective.drawing.state_dict(),
            "judging": self._objective.judging.state_dict(),
            "average": self.average.state_dict(),
            "optimisers": [one.state_dict() for one in self._optimisers],
            "scaler": self._scaler.state_dict(),
            "pools": pools,
            "standing": asdict(self.standing),
        }
        torch.save(content, buffer)
        return buffer.getvalue()

    def restore(self, data: bytes) -> None:
        """Take up what `state` gave, on whatever device."""
        content: dict[str, Any] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        self._objective.drawing.load_state_dict(content["drawing"])
        self._objective.judging.load_state_dict(content["judging"])
        self.average.load_state_dict(content["average"])
        for one, kept in zip(self._optimisers, content["optimisers"], strict=True):
            one.load_state_dict(kept)
        if content["scaler"] and self._scaler.is_enabled():
            self._scaler.load_state_dict(content["scaler"])
        if self._team.rank < len(content["pools"]):
            self._objective.restore_pools(content["pools"][self._team.rank], self._device)
        self.standing = Standing(**content["standing"])
        self._sums = {}

    # Learning.

    def run(self, deadline: float, told: Callbacks, *, resumed: bool = False) -> None:
        """Train until the recipe's steps or the deadline.

        Parameters
        ----------
        deadline
            Seconds since 1970; of the first process of a team.
        told
            Whom to tell; in the first process of a team.
        resumed
            Whether `restore` was called.
        """
        bounded = math.isfinite(deadline)
        total = self._recipe.steps or (MOST_STEPS if bounded else UNBOUNDED_STEPS)
        if not resumed:
            self.standing.half = self._choose_half(deadline)
        elif self._team.rank == 0:
            _log.info("the training goes on from step %d", self.standing.step)
        began = time.time()
        self._inspect()
        inspecting = time.time() - began
        healthy, healthy_at = self.state(), self.standing.step
        kept_at, keeping = time.time(), 0.0
        schedule = _Schedule(total, deadline - 1.5 * inspecting, time.time(), self.standing.position)
        while True:
            position, over = self._team.agree(schedule.at(self.standing.step, time.time(), self._step_seconds))
            if over:
                break
            told.check()
            self._team.check()
            began = time.time()
            self.step(max(position, self.standing.position))
            self._took(time.time() - began)
            standing = self.standing
            if standing.step % self._recipe.inspect:
                continue
            wrong = self._inspect()
            if wrong:
                if not self._take_back(healthy, wrong):
                    return
                continue
            self._keep_point()
            if standing.step >= 1.2 * healthy_at:
                healthy, healthy_at = self.state(), standing.step
            told.progress(standing.position, f"step {standing.step}")
            if told.show is not None:
                told.show(self.average)
            due = time.time() - kept_at > max(KEEP_SECONDS, keeping / _KEEPING_SHARE) and told.save is not None
            if self._team.agree([float(due)])[0]:
                began = time.time()
                healthy, healthy_at = self.state(), standing.step
                if told.save is not None:
                    told.save(healthy)
                kept_at, keeping = time.time(), time.time() - began
        self._finish(healthy)

    def _finish(self, healthy: bytes) -> None:
        if self._sums:
            wrong = self._inspect()
            if wrong:
                self._take_back(healthy, wrong)
            else:
                self._keep_point()

    def _took(self, seconds: float) -> None:
        if self._gpu and self.standing.step % 8 == 0:
            torch.cuda.synchronize(self._device)
        self._step_seconds = seconds if self._step_seconds == 0 else 0.9 * self._step_seconds + 0.1 * seconds

    def _draws(self, step: int) -> torch.Generator:
        key = hashlib.sha256(f"unpaired\0{self._seed}\0{step}\0{self._team.rank}".encode()).digest()
        return torch.Generator().manual_seed(int.from_bytes(key[:8], "big") >> 1)

    def step(self, position: float) -> None:
        """Take a step at a position between beginning (0) and end (1) of the training."""
        standing, recipe = self.standing, self._recipe
        standing.position = position
        rate = recipe.rate * standing.tame * min(1.0, 2.0 * (1.0 - standing.position))
        for optimiser in self._optimisers:
            for group in optimiser.param_groups:
                group["lr"] = rate
        draws = self._draws(standing.step)
        shifted, home = self._batch(draws)
        self._objective.judging.requires_grad_(False)
        self._learn(0, *self._loss(self._drawing, shifted, home, draws))
        self._objective.judging.requires_grad_(True)
        for _ in range(recipe.critic_rounds):
            self._learn(1, *self._loss(self._judging, shifted, home, draws, standing.step))
            self._objective.after_judging()
        standing.step += 1
        self._follow()

    def _batch(self, draws: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        count = self._recipe.batch
        shifted, home = self._shifted.draw(count, draws), self._home.draw(count, draws)
        return shifted.contiguous(memory_format=self._layout), home.contiguous(memory_format=self._layout)

    def _loss(self, side: nn.Module, *arguments: Any) -> tuple[torch.Tensor, Losses]:
        with torch.autocast(self._device.type, dtype=self._half) if self.standing.half else nullcontext():
            found: tuple[torch.Tensor, Losses] = side(*arguments)
        return found

    def _learn(self, which: int, loss: torch.Tensor, parts: Losses) -> None:
        optimiser = self._optimisers[which]
        optimiser.zero_grad(set_to_none=True)
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self._scaler.unscale_(optimiser)
        parameters = [p for group in optimiser.param_groups for p in group["params"]]
        nn.utils.clip_grad_norm_(parameters, self._recipe.clip)
        self._scaler.step(optimiser)
        self._scaler.update()
        for name, value in parts.items():
            value = value.detach().float()
            self._sums[name] = self._sums[name] + value if name in self._sums else value

    @torch.no_grad()
    def _follow(self) -> None:
        keep = min(self._recipe.average, (1.0 + self.standing.step) / (10.0 + self.standing.step))
        ours: list[torch.Tensor] = list(self.average.parameters())
        theirs = [p.detach() for p in self._objective.forth.parameters()]
        torch._foreach_lerp_(ours, theirs, 1.0 - keep)  # type: ignore[no-untyped-call, unused-ignore]

    def _choose_half(self, deadline: float) -> bool:
        wanted = self._recipe.precision
        if wanted != "auto" or self._gpu:
            return wanted != "float32"
        if self._recipe.steps or not math.isfinite(deadline):
            return False
        # On a processor it depends on its make and on the width of the network: ask it.
        seconds = {}
        for half in (False, True, False, True):
            self.standing.half = half
            draws = self._draws(-1)
            shifted, home = self._batch(draws)
            began = time.time()
            loss, _ = self._loss(self._drawing, shifted, home, draws)
            loss.backward()  # type: ignore[no-untyped-call]
            seconds[half] = time.time() - began
        for optimiser in self._optimisers:
            optimiser.zero_grad(set_to_none=True)
        return bool(self._team.agree([float(seconds[False] > _FASTER * seconds[True])])[0])

    # Health.

    def _inspect(self) -> str:
        wrong = ""
        if self._sums and not all(bool(torch.isfinite(value)) for value in self._sums.values()):
            wrong = "the losses are not numbers"
        wrong = wrong or complaint(self.average, self._probes, self._home_probes)
        # Losses differ between processes; the first one's opinion holds.
        if not self._team.agree([float(bool(wrong))])[0]:
            return ""
        return wrong or "another process found a trouble"

    def _take_back(self, healthy: bytes, wrong: str) -> bool:
        troubles, at, notes, tame = self.standing.troubles + 1, self.standing.step, self.standing.notes, self.standing.tame
        self.restore(healthy)
        standing = self.standing
        standing.troubles, standing.tame = troubles, 0.5 * tame
        standing.notes = [*notes, f"step {at}: {wrong}; taken back to step {standing.step}"]
        return troubles < _TROUBLES

    def _keep_point(self) -> None:
        standing = self.standing
        since = standing.step - (standing.points[-1] if standing.points else 0)
        standing.points.append(standing.step)
        for name, value in self._sums.items():
            rounds = self._recipe.critic_rounds if name == "discriminator" else 1
            standing.curves.setdefault(name, []).append(float(value) / max(1, since * rounds))
        self._sums = {}

    # Answers.

    def result(self) -> Generator:
        """Give the averaged generator on the processor."""
        found: Generator = copy.deepcopy(self.average).cpu().float()
        return found.to(memory_format=torch.contiguous_format)
