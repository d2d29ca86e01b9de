"""From two domains to a translation: what all trained methods share."""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from oteo_core.errors import InvalidArgument
from oteo_translate.domains import Domain
from oteo_translate.methods.base import TRAINED, FitContext, Method
from oteo_translate.methods.unpaired.crops import Crops, crop_sides, must_be_images
from oteo_translate.methods.unpaired.objectives import Objective, depth_for
from oteo_translate.methods.unpaired.parallel import Fellows, can_be_sent, fellows
from oteo_translate.methods.unpaired.recipe import Recipe
from oteo_translate.methods.unpaired.team import Team
from oteo_translate.methods.unpaired.trainer import Callbacks, Trainer
from oteo_translate.methods.unpaired.translation import UnpairedTranslation

LEAST = 20
"""Images of each domain that a trained method needs."""

CURVE_POINTS = 200
"""Points of the curves that are kept with a translation at most."""

PICTURE_SECONDS = 15.0
"""Sample pictures are drawn no more often than this."""

_SHOWN = 4
_DIGEST_IMAGES = 64


@dataclass(frozen=True, slots=True)
class Task:
    """What one process trains; pickles if the network does.

    Parameters
    ----------
    objective
        A subclass of `Objective`.
    recipe
        Settled.
    channels
        Of the images.
    seed
        Of every draw.
    deadline
        Seconds since 1970.
    network
        The frozen task model, where the recipe asks for it.
    kept
        A state to go on from.
    """

    objective: type[Objective]
    recipe: Recipe
    channels: int
    seed: int
    deadline: float
    network: Any
    kept: bytes | None

    def trainer(self, shifted: NDArray[Any], home: NDArray[Any], device: torch.device, team: Team | None) -> Trainer:
        """Build the trainer, and take up the state."""
        recipe = self.recipe
        objective = self.objective(recipe, self.channels, self.seed, self.network)
        height, width = crop_sides((shifted.shape, home.shape), recipe.crop, objective.forth.multiple)
        ours, theirs = (
            Crops(images, height, width, zoom=recipe.zoom, vertical=recipe.vertical, device=device) for images in (shifted, home)
        )
        made = Trainer(objective, ours, theirs, seed=self.seed, device=device, team=team)
        if self.kept is not None:
            made.restore(self.kept)
        return made


def _work(team: Fellows, device: torch.device, task: Task, shifted: NDArray[Any], home: NDArray[Any]) -> None:
    task.trainer(shifted, home, device, team).run(task.deadline, Callbacks(), resumed=task.kept is not None)


class UnpairedMethod(Method):
    """A translation trained on images that have no counterparts.

    Attributes
    ----------
    objective
        What is trained.
    recipe
        Its usual recipe; parameters are `Recipe`'s fields.
    """

    kind = TRAINED
    least = LEAST
    objective: ClassVar[type[Objective]]
    recipe: ClassVar[Recipe]

    def settings(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """See `Method`: the whole recipe."""
        return asdict(self.recipe.changed(given, self.name))

    def fit(self, shifted: Domain, home: Domain, parameters: Mapping[str, Any], context: FitContext) -> UnpairedTranslation:
        """Train; see `Method.fit`.

        With ``steps`` given and no deadline in reach the same seed gives the same bytes on the same processor, also after a kill. The state is kept by
        ``context.save`` under a name made of method, parameters, seed and images, and loads on any device.

        Raises
        ------
        InvalidArgument
            See `Method.fit`; also ``BAD_IMAGES``.
        """
        self.check(shifted, home)
        recipe = self.recipe.changed(parameters, self.name)
        for domain in (shifted, home):
            must_be_images(domain.images, domain.name)
        if recipe.task > 0 and context.network is None:
            raise InvalidArgument(f"{self.name}: task needs a model that can be had as a network; this one cannot", reason="BAD_PARAMETER")
        sources, wanted = self.chosen(shifted.images), self.chosen(home.images)
        name = f"{self.name}-{_digest(recipe, context.seed, sources, wanted)}"
        kept = context.load(name)
        notes: list[str] = []
        if kept is None:
            height, width = (min(a, b) for a, b in zip(sources.shape[1:3], wanted.shape[1:3], strict=True))
            settled = self.cropped(recipe, height, width).settled(height, width, context.device, torch.cuda.device_count())
            state = None
        else:
            settled, state = _open(kept, recipe, context.device)
        network = context.network if recipe.task > 0 else None
        if settled.processes > 1 and not can_be_sent(network):
            notes.append("trained in one process: the task model cannot be sent to another")
            settled = Recipe(**{**asdict(settled), "processes": 1})
        task = Task(self.objective, settled, home.channels, context.seed, context.deadline, network, state)
        if settled.processes > 1:
            kind = torch.device(context.device).type
            with fellows(settled.processes, kind, _work, task, sources, wanted) as (team, device):
                trainer = task.trainer(sources, wanted, device, team)
                trainer.run(context.deadline, self._callbacks(name, settled, sources, wanted, device, context), resumed=state is not None)
        else:
            device = torch.device(context.device)
            trainer = task.trainer(sources, wanted, device, None)
            trainer.run(context.deadline, self._callbacks(name, settled, sources, wanted, device, context), resumed=state is not None)
        context.progress(1.0, f"{trainer.standing.step} steps")
        return _translation(trainer, settled, home.channels, notes)

    def chosen(self, images: NDArray[Any]) -> NDArray[Any]:
        """Give the images of a domain that are trained on."""
        return images

    def cropped(self, recipe: Recipe, height: int, width: int) -> Recipe:
        """Choose the crops' side for images `height` x `width`, where the usual one would not do."""
        return recipe

    def _callbacks(
        self, name: str, recipe: Recipe, shifted: NDArray[Any], home: NDArray[Any], device: torch.device, context: FitContext
    ) -> Callbacks:
        def save(state: bytes) -> None:
            buffer = io.BytesIO()
            torch.save({"recipe": asdict(recipe), "state": state}, buffer)
            context.save(name, buffer.getvalue())

        return Callbacks(context.check, context.progress, save, _Shower(shifted, home, device, context.picture))


class _Shower:
    """Draws sample pictures, seldom."""

    def __init__(self, shifted: NDArray[Any], home: NDArray[Any], device: torch.device, picture: Callable[[NDArray[Any]], None]) -> None:
        count = min(_SHOWN, len(shifted), len(home))
        rows = [np.linspace(0, len(images) - 1, count).round().astype(int) for images in (shifted, home)]
        self._shifted, self._home = _unit(shifted[rows[0]]), _unit(home[rows[1]])
        self._device = device
        self._picture = picture
        self._last = 0.0

    def __call__(self, generator: nn.Module) -> None:
        if time.time() - self._last < PICTURE_SECONDS:
            return
        planes = torch.from_numpy(self._shifted.transpose(0, 3, 1, 2).copy()).to(self._device)
        with torch.no_grad():
            drawn = generator(planes).clamp(0.0, 1.0).float().cpu().numpy().transpose(0, 2, 3, 1)
        self._picture(sheet(self._shifted, drawn, self._home))
        self._last = time.time()


def sheet(shifted: NDArray[np.float32], drawn: NDArray[np.float32], home: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Lay out images: a row each of what came, its translation, and home's look.

    Parameters
    ----------
    shifted, drawn, home
        ``(n, H, W, C)`` float32 of 0 to 1; home's may be of another size: they are cut or padded with white.

    Returns
    -------
    ndarray
        ``(3 H, n W, C)`` uint8.
    """
    height, width = shifted.shape[1:3]
    fitted = np.ones_like(shifted)
    part = home[:, :height, :width]
    fitted[: len(part), : part.shape[1], : part.shape[2]] = part
    rows = [np.concatenate(list(images), 1) for images in (shifted, drawn, fitted)]
    found: NDArray[np.uint8] = np.rint(np.clip(np.concatenate(rows, 0), 0.0, 1.0) * 255.0).astype(np.uint8)
    return found


def _unit(images: NDArray[Any]) -> NDArray[np.float32]:
    return (images.astype(np.float32) / np.float32(255.0)) if images.dtype == np.uint8 else images.astype(np.float32)


def _digest(recipe: Recipe, seed: int, *images: NDArray[Any]) -> str:
    """Name a training: another one never goes on from its state."""
    text = hashlib.sha256(repr((sorted(asdict(recipe).items()), seed)).encode())
    for one in images:
        rows = np.unique(np.linspace(0, len(one) - 1, min(_DIGEST_IMAGES, len(one))).round().astype(int))
        text.update(repr((one.shape, str(one.dtype))).encode())
        text.update(np.ascontiguousarray(one[rows]).tobytes())
    return text.hexdigest()[:16]


def _open(kept: bytes, recipe: Recipe, device: str) -> tuple[Recipe, bytes]:
    """Read a state: its sizes hold, whatever the device now would have chosen; the number of processes is today's."""
    content = torch.load(io.BytesIO(kept), map_location="cpu", weights_only=True)
    before = Recipe(**content["recipe"])
    now = recipe.settled(before.crop, before.crop, device, torch.cuda.device_count())
    return Recipe(**{**asdict(before), "processes": now.processes}), content["state"]


def _translation(trainer: Trainer, recipe: Recipe, channels: int, notes: list[str]) -> UnpairedTranslation:
    standing = trainer.standing
    rows = np.unique(np.linspace(0, len(standing.points) - 1, min(CURVE_POINTS, len(standing.points))).round().astype(int))
    history = {"step": [float(standing.points[row]) for row in rows]}
    history |= {name: [values[row] for row in rows] for name, values in standing.curves.items()}
    found = UnpairedTranslation(
        recipe.generator,
        channels,
        recipe.residual,
        recipe.width,
        recipe.blocks,
        depth_for(recipe.crop),
        history,
        [*notes, *standing.notes],
    )
    found.network.load_state_dict(trainer.result().state_dict())
    return found.eval()  # type: ignore[no-any-return, unused-ignore]
