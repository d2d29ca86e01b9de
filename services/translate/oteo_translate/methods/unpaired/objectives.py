"""What a method trains, and what for: networks on two sides, and a loss for each side."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from oteo_translate.methods.unpaired.discriminators import PatchDiscriminator
from oteo_translate.methods.unpaired.ganilla_generator import GanillaGenerator
from oteo_translate.methods.unpaired.generators import Generator, ResnetGenerator
from oteo_translate.methods.unpaired.layers import begin
from oteo_translate.methods.unpaired.losses import ADVERSARIAL
from oteo_translate.methods.unpaired.recipe import Recipe
from oteo_translate.methods.unpaired.structure import TaskStructure, edge_loss
from oteo_translate.methods.unpaired.unet import UnetGenerator

if TYPE_CHECKING:
    from oteo_translate.tasks.network import FrozenNetwork

Losses = dict[str, torch.Tensor]

PENALTY_EVERY = 16
"""The discriminator's gradient is looked at every so many steps, and weighs so much more (Karras et al., CVPR 2020, section 3.1)."""


def build_generator(kind: str, channels: int, residual: bool, width: int, blocks: int, depth: int) -> Generator:
    """Build a generator; its weights are not yet drawn."""
    if kind == "resnet":
        return ResnetGenerator(channels, residual, width, blocks)
    if kind == "unet":
        return UnetGenerator(channels, residual, width, depth)
    if kind == "ganilla":
        return GanillaGenerator(channels, residual, width)
    raise ValueError(f"no generator is called {kind!r}")


def depth_for(crop: int) -> int:
    """Give how often a U-Net halves crops of a side: down to 4 pixels, at most six times."""
    return max(1, min(6, crop.bit_length() - 3))


class Side(nn.Module):
    """Networks that one optimiser changes, and the loss that they are changed for: what `torch.nn.parallel` wraps.

    Parameters
    ----------
    networks
        The networks.
    loss
        Called with what the module is called with.
    """

    def __init__(self, networks: nn.Module, loss: Callable[..., tuple[torch.Tensor, Losses]]) -> None:
        super().__init__()
        self.networks = networks
        self._loss = loss

    def forward(self, *arguments: Any) -> tuple[torch.Tensor, Losses]:
        """Give the loss and its parts."""
        return self._loss(*arguments)


class Objective:
    """What a method trains.

    A subclass fills `drawing` (generators, under ``"forth"`` the one that is kept, and what learns with them) and `judging` (discriminators), and has
    `drawing_loss` and `judging_loss`.

    Parameters
    ----------
    recipe
        With all that depends on device and size settled.
    channels
        Of the images.
    seed
        Of the first weights.
    network
        The frozen task model; needed where ``recipe.task`` is above 0.

    Attributes
    ----------
    forth
        The generator from shifted to home.
    """

    forth: Generator

    def __init__(self, recipe: Recipe, channels: int, seed: int, network: FrozenNetwork | None = None) -> None:
        self.recipe = recipe
        self.channels = channels
        self.adversarial = ADVERSARIAL[recipe.adversarial]
        self.drawing = nn.ModuleDict()
        self.judging = nn.ModuleDict()
        self._generator = torch.Generator().manual_seed(seed)
        self._task = TaskStructure(network) if recipe.task > 0 and network is not None else None

    def new_generator(self) -> Generator:
        """Give a generator with first weights drawn."""
        recipe = self.recipe
        with torch.random.fork_rng(devices=[]):
            made = build_generator(recipe.generator, self.channels, recipe.residual, recipe.width, recipe.blocks, depth_for(recipe.crop))
        made.begin(self._generator)
        return made

    def new_discriminator(self) -> PatchDiscriminator:
        """Give a discriminator with first weights drawn."""
        with torch.random.fork_rng(devices=[]):
            made = PatchDiscriminator(self.channels, self.recipe.critic_width, self.recipe.critic_layers, self.recipe.critic_norm)
        self.begin(made)
        return made

    def begin(self, network: nn.Module) -> None:
        """Draw first weights."""
        begin(network, self._generator)

    def optimiser(self, parameters: Iterable[nn.Parameter], fused: bool) -> torch.optim.Optimizer:
        """Give the papers' optimiser."""
        return torch.optim.Adam(parameters, lr=self.recipe.rate, betas=(0.5, 0.999), fused=fused or None)

    def drawing_loss(self, shifted: torch.Tensor, home: torch.Tensor, draws: torch.Generator) -> tuple[torch.Tensor, Losses]:
        """Give the generators' loss on ``(N, C, H, W)`` of 0 to 1 of each domain, and its parts by name; keep what was drawn for the judging."""
        raise NotImplementedError

    def judging_loss(self, shifted: torch.Tensor, home: torch.Tensor, draws: torch.Generator, step: int) -> tuple[torch.Tensor, Losses]:
        """Give the discriminators' loss on the same images and on what was drawn."""
        raise NotImplementedError

    def after_judging(self) -> None:
        """Do what follows a step of the discriminators."""

    def pools(self) -> list[list[torch.Tensor]]:
        """Give the drawn images that are kept."""
        return []

    def restore_pools(self, kept: list[list[torch.Tensor]], device: torch.device) -> None:
        """Take up what `pools` gave."""

    # For subclasses.

    def structure(self, source: torch.Tensor, drawn: torch.Tensor, draws: torch.Generator, losses: Losses) -> torch.Tensor:
        """Give the weighted losses of structure."""
        total = drawn.new_zeros(())
        if self.recipe.structure > 0:
            losses["structure"] = edge_loss(source, drawn)
            total = total + self.recipe.structure * losses["structure"]
        if self._task is not None:
            losses["task"] = self._task(source, drawn, draws)
            total = total + self.recipe.task * losses["task"]
        return total

    def judged(self, judge: nn.Module, real: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
        """Give a discriminator's loss; real and drawn images go through it at once: instance norm keeps them apart."""
        verdict = judge(torch.cat([real, drawn]))
        return self.adversarial.critic(verdict[: len(real)], verdict[len(real) :])

    def steepness(self, judge: nn.Module, real: torch.Tensor) -> torch.Tensor:
        """Give the squared gradient of a discriminator at real images (R1)."""
        with torch.autocast(real.device.type, enabled=False):
            watched = real.detach().float().requires_grad_(True)
            (slope,) = torch.autograd.grad(judge(watched).sum(), watched, create_graph=True)
        return slope.square().flatten(1).sum(1).mean()
