"""What every way to adapt a model owes.

An *adaptation* looks at images of the shifted domain, and never at their truths, and gives an adapted model: a program with the same inputs and outputs as
the frozen one, and an ONNX graph that answers as the program does, so that it is served as any model is. The frozen model stays as it is. Fitting is
deterministic in (images, seed), asks ``check`` in every loop, and stops at its deadline with the best it has.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from oteo_core.errors import FailedPrecondition, InvalidArgument
from oteo_core.evaluation.bootstrap import generator
from oteo_core.graphs.export import export_onnx
from oteo_core.graphs.modules import to_planes
from oteo_core.graphs.outputs import TOLERANCE, Output
from oteo_translate.domains import Domain
from oteo_translate.methods.base import FitContext, Parameters
from oteo_translate.tasks.model import TaskModel
from oteo_translate.tasks.network import FrozenNetwork

NETWORK, BATCH_NORMS, HOME_LABELS = "network", "batch norms", "home labels"
"""What an adaptation may need."""

_CHECKED_IMAGES = 4
_BYTES_AT_ONCE = 400 * 2**20
_FLOATS_A_PIXEL = 64
"""Numbers that a usual network holds at once for each pixel of its input, counted generously."""

_SPARE = 0.005


@dataclass(frozen=True, slots=True)
class AdaptedModel:
    """A model after an adaptation.

    Parameters
    ----------
    model
        It, ready to answer.
    program
        ``network.pt2`` of it.
    details
        What was found: JSON values.
    error
        Largest difference of the first output between ONNX Runtime and PyTorch on images of the shifted domain.
    """

    model: TaskModel
    program: bytes
    details: Mapping[str, Any] = field(default_factory=dict)
    error: float = 0.0

    @property
    def graph(self) -> bytes:
        """ONNX."""
        return self.model.graph


class Adaptation(ABC):
    """A way to adapt a model.

    Attributes
    ----------
    name
        In requests and reports: lower case, with hyphens.
    summary
        A sentence for people, with the source.
    least
        Shifted images that it needs.
    needs
        Of `NETWORK`, `BATCH_NORMS`, `HOME_LABELS`.
    tasks
        Tasks that it is for; None: all.
    cost
        Seconds of processor time on some hundred images of 128 x 128, roughly; the ladder's order.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    least: ClassVar[int] = 3
    needs: ClassVar[tuple[str, ...]] = (NETWORK,)
    tasks: ClassVar[tuple[str, ...] | None] = None
    cost: ClassVar[float] = 5.0

    @abstractmethod
    def adapt(self, model: TaskModel, shifted: Domain, home: Domain, parameters: Mapping[str, Any], context: FitContext) -> AdaptedModel:
        """Adapt a model to shifted images.

        Parameters
        ----------
        model
            Frozen; left as it is.
        shifted, home
            Prepared as the model takes them. Truths of the shifted domain are not looked at.
        parameters
            Of `grid`, or chosen by hand; unknown ones are refused.
        context
            Seed, deadline, ``check``.

        Raises
        ------
        InvalidArgument
            ``TOO_FEW_IMAGES`` or ``BAD_PARAMETER``.
        FailedPrecondition
            ``NOT_ADAPTABLE``: the model or the domain lacks what it needs.
        Internal
            ``EXPORT_FAILED``.
        """

    def read(self, given: Parameters) -> dict[str, Any]:
        """Read every parameter, by name, with its bounds; none here."""
        return {}

    def settings(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Give all parameters: those that are given, and the usual ones for the others; see `oteo_translate.methods.base.Method.settings`."""
        return Parameters(self.name, given).all(self.read)

    def grid(self) -> tuple[Mapping[str, Any], ...]:
        """Give the settings that the ladder tries, the usual one first."""
        return ({},)

    def refusal(self, model: TaskModel, home: Domain) -> str:
        """Say why this model cannot be adapted so; empty where it can."""
        if self.tasks is not None and model.task not in self.tasks:
            return f"{self.name} is for {' and '.join(self.tasks)}, and the model is for {model.task}"
        if NETWORK in self.needs and model.network is None:
            return f"{self.name} needs the model as a network (network.pt2), which its package does not hold"
        if BATCH_NORMS in self.needs and model.network is not None and not model.network.norms():
            return f"{self.name} needs batch normalisations, and the network has none"
        if HOME_LABELS in self.needs and not any(truth is not None for truth in home.truths):
            return f"{self.name} needs annotated home images, and there are none"
        return ""

    def check(self, model: TaskModel, shifted: Domain, home: Domain) -> FrozenNetwork:
        """Refuse what it cannot adapt; give the network."""
        why = self.refusal(model, home)
        if why or model.network is None:
            raise FailedPrecondition(why, reason="NOT_ADAPTABLE")
        if len(shifted) < self.least:
            raise InvalidArgument(
                f"{shifted.name} has {len(shifted)} images; {self.name} needs at least {self.least}", reason="TOO_FEW_IMAGES"
            )
        return model.network


ADAPTATIONS: dict[str, Adaptation] = {}


def adaptation(cls: type[Adaptation]) -> type[Adaptation]:
    """Make an adaptation known under its name; a decorator."""
    ADAPTATIONS[cls.name] = cls()
    return cls


def images_at_once(model: TaskModel) -> int:
    """Say how many images a network's maps fit memory for, 1 at least."""
    policy = model.package.input
    return max(1, _BYTES_AT_ONCE // (4 * _FLOATS_A_PIXEL * policy.width * policy.height))


def planes_of(images: NDArray[Any]) -> torch.Tensor:
    """Turn prepared images ``(N, H, W, C)`` into planes ``(N, C, H, W)`` float32 of 0 to 1."""
    return to_planes(torch.from_numpy(np.ascontiguousarray(images)))


def parts_of(images: NDArray[Any], size: int, context: FitContext, purpose: str, *, most: int | None = None) -> Iterator[torch.Tensor]:
    """Give the images as planes in parts of nearly equal size, at most `size`, in an order drawn from the seed; at most `most` images."""
    order = generator(context.seed, "adaptation", purpose).permutation(len(images))[:most]
    for rows in np.array_split(order, max(1, -(-len(order) // size))):
        context.check()
        yield planes_of(images[np.sort(rows)])


def late(context: FitContext) -> bool:
    """Say whether the time is up."""
    return time.time() >= context.deadline


def publishable(model: TaskModel, network: FrozenNetwork, shifted: Domain, details: Mapping[str, Any]) -> AdaptedModel:
    """Write an adapted network as a graph, and see that the graph answers as it does.

    Raises
    ------
    Internal
        ``EXPORT_FAILED``.
    """
    rows = np.unique(np.linspace(0, len(shifted) - 1, _CHECKED_IMAGES).astype(np.int64))
    images = np.ascontiguousarray(shifted.images[rows])
    exported = export_onnx(network.served(), model.package.input, outputs_of(model), images)
    program = network.to_bytes()
    return AdaptedModel(model.adapted(exported.data, program), program, details, exported.error)


def outputs_of(model: TaskModel) -> list[Output]:
    """Give the outputs of a model's graph, in their order, with what they may differ by between runtimes; logits and boxes are larger numbers than probabilities."""
    policy = model.package.input
    blank = np.zeros((1, policy.height, policy.width, policy.channels), policy.dtype)
    tolerances = {"logits": 1e-2, "boxes": 1e-1, "attention": 1e-2}
    kinds = {"f": "FP32", "i": "INT64", "u": "UINT8"}
    found = model.outputs(blank)
    ranked = "scores" if "boxes" in found else ""
    return [
        Output(
            name,
            tuple(found[name].shape[1:]),
            kinds[found[name].dtype.kind],
            tolerance=tolerances.get(name, 10 * TOLERANCE) if found[name].dtype.kind == "f" else 0.0,
            spare=0.1 if name == "attention" else _SPARE,
            ranked_by=ranked if name != ranked else "",
        )
        for name in found
    ]
