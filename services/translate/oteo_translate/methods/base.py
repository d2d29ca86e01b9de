"""What every way to translate owes.

A *method* is fitted on two unpaired sets of images: ``shifted``, as they now come, and ``home``, as the frozen model knows them. What it gives is a
*translation*: a module that makes of a shifted image one that looks like home, with every object where it was. Contract of a translation, held by
one conformance suite for all:

- ``forward`` takes ``(N, C, H, W)`` float32 of 0 to 1, any H and W of at least 8, and gives the same shape, finite, of 0 to 1;
- an image's answer does not depend on what else is in the batch, nor on any state: the same image twice gives the same bytes;
- it takes the number of channels that it was fitted on, 1 as well as 3; constant images are no error;
- it is a `SavedModule`: all that fitting finds lies in buffers and parameters, so that it can be written down and read without running code;
- where `exportable`, it can be written as an ONNX graph with free batch, height and width.

Fitting is deterministic in (images, seed), stops at its deadline with the best it has, and asks ``check`` in every loop.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from oteo_core.errors import InvalidArgument
from oteo_core.graphs.modules import SavedModule
from oteo_translate.domains import Domain, from_unit, to_unit

if TYPE_CHECKING:
    from oteo_translate.tasks.network import FrozenNetwork

TRAINING_FREE, STYLE, TRAINED = "training-free", "style", "trained"
"""Kinds of methods, from cheap to dear."""


class Translation(SavedModule):
    """See the module's docstring."""

    exportable: ClassVar[bool] = True
    """Whether it can be written as an ONNX graph."""

    def forward(self, planes: torch.Tensor) -> torch.Tensor:
        """Translate ``(N, C, H, W)`` float32 of 0 to 1."""
        raise NotImplementedError

    @torch.inference_mode()
    def apply_to(self, pixels: NDArray[Any], white: float) -> NDArray[Any]:
        """Translate one stored image ``(H, W, C)``; size, type and channels stay. `white` is the pixel value of 1."""
        planes = torch.from_numpy(np.ascontiguousarray(to_unit(pixels, white).transpose(2, 0, 1)))[None]
        found = self(planes)[0].numpy().transpose(1, 2, 0)
        return from_unit(np.ascontiguousarray(found), pixels, white)


@dataclass(frozen=True, slots=True)
class FitContext:
    """What a fit may use besides the images.

    Parameters
    ----------
    seed
        Of every draw.
    deadline
        Seconds since 1970; a method gives the best it has by then.
    check
        Raises if the job is to stop; called in every loop.
    progress
        Told the share that is done, 0 to 1, and a word on what is being done.
    network
        The frozen task model as a differentiable network; None where the model is none (classical classifiers).
    device
        PyTorch's name of the device.
    save, load
        Keep a state by name and give it back (None: there is none), for long fits that a kill must not undo.
    """

    seed: int = 0
    deadline: float = math.inf
    check: Callable[[], None] = lambda: None
    progress: Callable[[float, str], None] = lambda share, word: None
    network: FrozenNetwork | None = None
    device: str = "cpu"
    save: Callable[[str, bytes], None] = lambda name, data: None
    load: Callable[[str], bytes | None] = lambda name: None


class Method(ABC):
    """A way to translate.

    Attributes
    ----------
    name
        In requests and reports: lower case, with hyphens.
    kind
        `TRAINING_FREE`, `STYLE` or `TRAINED`.
    summary
        A sentence for people, with the source.
    least
        Images of each domain that it needs.
    colours
        Channels that it takes; None: any.
    cost
        Seconds of processor time of a fit on some hundred images of 128 x 128, roughly; the ladder's order.
    """

    name: ClassVar[str]
    kind: ClassVar[str]
    summary: ClassVar[str]
    least: ClassVar[int] = 3
    colours: ClassVar[tuple[int, ...] | None] = None
    cost: ClassVar[float] = 1.0

    @abstractmethod
    def fit(self, shifted: Domain, home: Domain, parameters: Mapping[str, Any], context: FitContext) -> Translation:
        """Find the translation from shifted to home.

        Parameters
        ----------
        shifted, home
            Prepared alike; truths are not looked at.
        parameters
            Of `grid`, or chosen by hand; unknown ones are refused.
        context
            See `FitContext`.

        Raises
        ------
        InvalidArgument
            ``TOO_FEW_IMAGES``, ``CHANNELS_MISMATCH`` or ``BAD_PARAMETER``.
        """

    def grid(self) -> tuple[Mapping[str, Any], ...]:
        """Give the settings that the ladder tries, the usual one first."""
        return ({},)

    def check(self, shifted: Domain, home: Domain) -> None:
        """Refuse domains that it cannot be fitted on."""
        for domain in (shifted, home):
            if len(domain) < self.least:
                raise InvalidArgument(
                    f"{domain.name} has {len(domain)} images; {self.name} needs at least {self.least}", reason="TOO_FEW_IMAGES"
                )
        if shifted.channels != home.channels:
            raise InvalidArgument(
                f"{shifted.name} has {shifted.channels} channels and {home.name} has {home.channels}", reason="CHANNELS_MISMATCH"
            )
        if self.colours is not None and home.channels not in self.colours:
            raise InvalidArgument(
                f"{self.name} takes images of {' or '.join(map(str, self.colours))} channels, not {home.channels}",
                reason="CHANNELS_MISMATCH",
            )


METHODS: dict[str, Method] = {}


def method(cls: type[Method]) -> type[Method]:
    """Make a method known under its name; a decorator."""
    METHODS[cls.name] = cls()
    return cls
