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
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from oteo_core.errors import InvalidArgument
from oteo_core.graphs.modules import SavedModule, find_kinds
from oteo_translate.domains import Domain, from_unit, to_unit

if TYPE_CHECKING:
    from oteo_translate.methods.style.encoder import Encoder
    from oteo_translate.tasks.network import FrozenNetwork

TRAINING_FREE, STYLE, TRAINED = "training-free", "style", "trained"
"""Kinds of methods, from cheap to dear."""


NEGATIVE = "negative"
"""Value of the parameter ``tone``, where a method has one, by which what is bright becomes dark."""

LEAST_SIDE = 8
"""Pixels of height and width that `Translation.forward` needs at least."""

_FINITE_AT_A_TIME = 16


class Translation(SavedModule):
    """See the module's docstring."""

    exportable: ClassVar[bool] = True
    """Whether it can be written as an ONNX graph."""

    def forward(self, planes: torch.Tensor) -> torch.Tensor:
        """Translate ``(N, C, H, W)`` float32 of 0 to 1."""
        raise NotImplementedError

    @torch.inference_mode()
    def apply_to(self, pixels: NDArray[Any], white: float) -> NDArray[Any]:
        """Translate one stored image.

        Parameters
        ----------
        pixels
            ``(H, W, C)`` uint8, uint16 or a float type, H and W of at least 1; what lies outside 0 to `white` is cut off.
        white
            The pixel value of 1: 255, 4095, 65535, 1.0.

        Returns
        -------
        ndarray
            Of the same shape and type.

        Raises
        ------
        InvalidArgument
            ``CHANNELS_MISMATCH``: not the channels that it was fitted on; ``NOT_FINITE``: NaN or infinity among the pixels.
        """
        due = self.settings.get("channels")
        if due is not None and pixels.shape[2] != due:
            raise InvalidArgument(
                f"an image of {pixels.shape[2]} channels; the translation was fitted on images of {due}", reason="CHANNELS_MISMATCH"
            )
        unit = to_unit(pixels, white)
        if not np.isfinite(unit).all():
            raise InvalidArgument("an image holds NaN or infinity", reason="NOT_FINITE")
        height, width = unit.shape[:2]
        # An image smaller than what `forward` takes is widened by its border and cut back.
        wide = np.pad(unit, ((0, max(0, LEAST_SIDE - height)), (0, max(0, LEAST_SIDE - width)), (0, 0)), mode="edge")
        planes = torch.from_numpy(np.ascontiguousarray(wide.clip(0, 1).transpose(2, 0, 1)))[None]
        found = self(planes)[0, :, :height, :width].cpu().numpy().transpose(1, 2, 0)
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
    encoder
        A network with pretrained weights, for style (`oteo_translate.methods.style.encoder.open_encoder`); None: the frozen model's own encoder.
    device
        PyTorch's name of the device.
    save, load
        Keep a state by name and give it back (None: there is none), for long fits that a kill must not undo.
    picture
        Shown a sheet of samples ``(h, w, C)`` uint8 as a training goes on: what came, its translation, home's look, a row each.
    """

    seed: int = 0
    deadline: float = math.inf
    check: Callable[[], None] = lambda: None
    progress: Callable[[float, str], None] = lambda share, word: None
    network: FrozenNetwork | None = None
    encoder: Encoder | None = None
    device: str = "cpu"
    save: Callable[[str, bytes], None] = lambda name, data: None
    load: Callable[[str], bytes | None] = lambda name: None
    picture: Callable[[NDArray[Any]], None] = lambda sheet: None


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
    per_image
        Seconds of processor time to translate one image of 128 x 128, roughly.
    """

    name: ClassVar[str]
    kind: ClassVar[str]
    summary: ClassVar[str]
    least: ClassVar[int] = 3
    colours: ClassVar[tuple[int, ...] | None] = None
    cost: ClassVar[float] = 1.0
    per_image: ClassVar[float] = 0.01

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
            ``TOO_FEW_IMAGES``, ``CHANNELS_MISMATCH``, ``NOT_FINITE`` or ``BAD_PARAMETER``.
        """

    def read(self, given: Parameters) -> dict[str, Any]:
        """Read every parameter of a fit, by name, with its bounds; none here."""
        return {}

    def settings(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Give all parameters of a fit: those that are given, and the usual ones for the others.

        Raises
        ------
        InvalidArgument
            ``BAD_PARAMETER``: unknown, of another type, or out of range; its field is ``parameters.{method}.{parameter}``.
        """
        return Parameters(self.name, given).all(self.read)

    def grid(self) -> tuple[Mapping[str, Any], ...]:
        """Give the settings that the ladder tries, the usual one first."""
        return ({},)

    def undoes_imitation(self, parameters: Mapping[str, Any]) -> bool:
        """Say whether it is by construction the inverse of the curve by which the gate imitates a shifted look, so that what it heals there tells nothing."""
        return False

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
        for domain in (shifted, home):
            bad = _not_finite(domain)
            if bad is not None:
                raise InvalidArgument(f"image {domain.ids[bad]} of {domain.name} holds NaN or infinity", reason="NOT_FINITE")


def _not_finite(domain: Domain) -> int | None:
    if domain.images.dtype.kind != "f":
        return None
    for start in range(0, len(domain), _FINITE_AT_A_TIME):
        fine = np.isfinite(domain.images[start : start + _FINITE_AT_A_TIME]).all(axis=(1, 2, 3))
        if not fine.all():
            return start + int(np.argmin(fine))
    return None


class Parameters:
    """Reads what a way was given, one parameter at a time, and refuses the rest.

    Parameters
    ----------
    way
        Name of the method or adaptation; for messages.
    given
        By name.
    """

    def __init__(self, way: str, given: Mapping[str, Any]) -> None:
        self._way = way
        self._given = dict(given)
        self._known: dict[str, str] = {}

    def all(self, read: Callable[[Parameters], dict[str, Any]]) -> dict[str, Any]:
        """Have every parameter read, and refuse what was not asked for."""
        found = read(self)
        for name in sorted(self._given):
            known = ", ".join(f"{one} ({due.rpartition('number of ')[2]})" for one, due in self._known.items())
            raise self._refusal(name, f"{self._way} has no parameter {name!r}; " + (f"it has {known}" if known else "it has none"))
        return found

    def choice(self, name: str, *options: str) -> str:
        """Read one of some words; the first is the usual one."""
        value = self._take(name, options[0], f"one of {', '.join(options)}")
        if value not in options:
            raise self._bad(name, value)
        return str(value)

    def number(self, name: str, usual: float, least: float, most: float) -> float:
        """Read a number between two bounds, which it may touch."""
        return self._number(name, usual, least, most, f"a number of {least:g} to {most:g}")

    def number_or_none(self, name: str, least: float, most: float) -> float | None:
        """Read a number between two bounds that is found from the images where it is not given."""
        if name not in self._given:
            self._known[name] = f"a number of {least:g} to {most:g}"
            return None
        return self.number(name, least, least, most)

    def count(self, name: str, usual: int, least: int, most: int) -> int:
        """Read a whole number between two bounds, which it may touch."""
        value = self._number(name, usual, least, most, f"a whole number of {least} to {most}")
        if not value.is_integer():
            raise self._bad(name, value)
        return int(value)

    def flag(self, name: str, usual: bool) -> bool:
        """Read yes or no."""
        value = self._take(name, usual, "true or false")
        if not isinstance(value, bool):
            raise self._bad(name, value)
        return value

    def _number(self, name: str, usual: float, least: float, most: float, due: str) -> float:
        value = self._take(name, usual, due)
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
            raise self._bad(name, value)
        return float(value)

    def _take(self, name: str, usual: Any, due: str) -> Any:
        self._known[name] = due
        return self._given.pop(name, usual)

    def _bad(self, name: str, value: Any) -> InvalidArgument:
        return self._refusal(name, f"{name} of {self._way} is {value!r}; it has to be {self._known[name]}")

    def _refusal(self, name: str, message: str) -> InvalidArgument:
        return InvalidArgument(message, reason="BAD_PARAMETER", field=f"parameters.{self._way}.{name}")


METHODS: dict[str, Method] = {}


def method(cls: type[Method]) -> type[Method]:
    """Make a method known under its name; a decorator."""
    METHODS[cls.name] = cls()
    return cls


def _find(kind: str) -> None:
    """Have every translation known once one is read whose kind is not."""
    import_module("oteo_translate.methods.registry")


find_kinds(_find)
