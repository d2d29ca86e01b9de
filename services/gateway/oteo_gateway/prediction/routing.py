"""Which model answers for an image, and whether the image is adapted to it first.

The image itself decides which of several models answers: the same image gets the same model while the shares stand, so that asking twice is not two opinions,
and a call that is repeated after a lost connection changes nothing. Models are ranked by weighted rendezvous hashing (Thaler and Ravishankar, IEEE/ACM Trans.
Netw. 6, 1998; with weights as in Schindelhauer and Schomaker, SPAA 2005): each draws a number from the image's digest and its own name, and the largest
``share / -log(draw)`` wins. Shares are kept in expectation, exactly. Where one model's share grows at another's cost, only images of the other move to it;
where a model is away, only its own images move.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from numpy.typing import NDArray

from oteo_core.datasets import Finding, Severity
from oteo_core.errors import InvalidArgument
from oteo_core.packages import ModelPackage, ReferenceStatistics
from oteo_gateway.prediction.tensors import InferTemplate

UNSPECIFIED, OFF, SUGGEST, AUTO = 0, 1, 2, 3
"""Numbers of the contract's ``AdaptMode``."""


@dataclass(frozen=True, slots=True)
class Answering:
    """What the model server is asked, and the package that reads its answer."""

    package: ModelPackage
    template: InferTemplate


@dataclass(frozen=True, slots=True)
class RoutedModel:
    """A model of a deployment.

    Attributes
    ----------
    plain
        The model for images as they are.
    alias, percent, shadow
        As it was deployed.
    available
        True where a replica answers with it.
    translator
        ``translators/{id}`` that was accepted for it; empty where there is none.
    adapted
        What answers with that translator: translator and model as one, or the adapted model; None where none is there or no replica answers with it.
    source
        Statistics of the images that the translator was judged on; None where nobody knows.
    """

    plain: Answering
    alias: str
    percent: int
    shadow: bool
    available: bool
    translator: str = ""
    adapted: Answering | None = None
    source: ReferenceStatistics | None = None


@dataclass(frozen=True, slots=True)
class Route:
    """How one image is answered.

    Attributes
    ----------
    deployment
        ``deployments/{id}``.
    model
        The model that was chosen.
    answering
        What is asked.
    translator
        ``translators/{id}`` that is used; empty for none.
    suggested
        The one that would be used, were it asked for.
    notes
        What the caller should know.
    """

    deployment: str
    model: RoutedModel
    answering: Answering
    translator: str = ""
    suggested: str = ""
    notes: tuple[Finding, ...] = ()

    @property
    def package(self) -> ModelPackage:
        """The package that reads the answer."""
        return self.answering.package

    @property
    def template(self) -> InferTemplate:
        """What the model server is asked."""
        return self.answering.template


@dataclass(frozen=True, slots=True)
class Routes:
    """All of a deployment that answers.

    Attributes
    ----------
    name
        ``deployments/{id}``.
    uid, mark
        The deployment's number, and what its comparisons depend on; see `oteo_gateway.deployments.records.Serving.mark`.
    models
        Those that serve, shadows too.
    adapt
        The deployment's `AdaptMode`.
    """

    name: str
    uid: str
    mark: str
    models: tuple[RoutedModel, ...]
    adapt: int = OFF

    @property
    def shadows(self) -> tuple[RoutedModel, ...]:
        """Models whose answers are only compared."""
        return tuple(model for model in self.models if model.shadow)

    @property
    def first(self) -> RoutedModel:
        """A model that answers; tasks and classes of all are the same."""
        return next(model for model in self.models if not model.shadow)

    def choose(self, digest: str, alias: str = "") -> Route:
        """Choose the model for an image.

        Parameters
        ----------
        digest
            SHA-256 of the image's bytes.
        alias
            The model that must answer; empty: by the shares.

        Raises
        ------
        InvalidArgument
            ``ALIAS_NOT_FOUND``.
        """
        answering = [model for model in self.models if not model.shadow]
        if alias:
            found = [model for model in answering if model.alias == alias]
            if not found:
                names = ", ".join(model.alias for model in answering if model.alias) or "none"
                shadow = any(model.alias == alias for model in self.models)
                why = f"{alias!r} is a shadow, whose answers are only compared" if shadow else f"no model goes by {alias!r}"
                raise InvalidArgument(f"In {self.name} {why}; aliases that answer: {names}.", reason="ALIAS_NOT_FOUND", field="alias")
            return Route(self.name, found[0], found[0].plain)
        shared = [model for model in answering if model.percent] or answering
        wanted = _winner(self.uid, shared, digest)
        if wanted.available:
            return Route(self.name, wanted, wanted.plain)
        there = [model for model in shared if model.available]
        if not there:
            # It may be back since.
            return Route(self.name, wanted, wanted.plain)
        chosen = _winner(self.uid, there, digest)
        words = f"{wanted.plain.package.name}, which this image falls to, does not answer at the moment."
        return Route(self.name, chosen, chosen.plain, notes=(Finding(Severity.INFO, "MODEL_AWAY", words),))


def _winner(uid: str, models: Sequence[RoutedModel], digest: str) -> RoutedModel:
    if len(models) == 1:
        return models[0]
    return max(models, key=lambda model: (_score(uid, model, digest), model.plain.package.id))


def _score(uid: str, model: RoutedModel, digest: str) -> float:
    # The deployment takes part, so that two deployments of the same models do not split alike.
    drawn = hashlib.blake2b(f"{uid}\0{model.plain.package.id}\0{digest}".encode(), digest_size=8).digest()
    uniform = (int.from_bytes(drawn, "big") + 0.5) / 2**64
    return model.percent / -math.log(uniform)


def adapt(
    route: Route, shift: tuple[float, float] | None, mode: int, alpha: float, *, prepared: NDArray[Any] | None = None, tiled: bool = False
) -> Route:
    """Put the translator before the model where it belongs there.

    A translator was fitted on images of a shifted source. An image that looks as the model's training images do is not one of them, and neither is one that
    looks unlike both: of a third source nothing was proved. Both are left as they are.

    Parameters
    ----------
    route
        The model as it was chosen.
    shift
        The prepared image's distance from the model's training images, and the share of them that lie farther out; None where nobody knows.
    mode
        `OFF`, `SUGGEST` or `AUTO`, as holds for this request.
    alpha
        An image with a smaller share is taken for a shifted one.
    prepared
        The image as the model takes it, ``(height, width, channels)``; None: it is not held against the translator's own images.
    tiled
        True where it is looked at in tiles; a translator was judged on whole images, and is not put before pieces.

    Returns
    -------
    Route
        With what answers, and notes that say why; the same route where nothing is to be done or said.
    """
    if mode not in (SUGGEST, AUTO):
        return route
    model = route.model
    name, translator = model.plain.package.name, model.translator
    if shift is None:
        return _noted(route, "SHIFT_UNKNOWN", f"Not translated: {name} has no statistics of its training images to tell shifted images by.")
    p_value = shift[1]
    if p_value >= alpha:
        if mode == AUTO and model.adapted is not None:
            return _noted(
                route, "NOT_TRANSLATED", f"Not translated: it looks as the training images do (p = {p_value:.3f}, at least {alpha:g})."
            )
        return route
    looks = f"it looks unlike the training images (p = {p_value:.3f}, below {alpha:g})"
    if not translator:
        return _noted(
            route, "NO_TRANSLATOR", f"{looks.capitalize()}, and no translator that was accepted for {name} is loaded: not translated."
        )
    if model.source is not None and prepared is not None and (other := model.source.score(prepared)[1]) < alpha:
        return _noted(
            route,
            "NOT_TRANSLATED",
            f"{looks.capitalize()}, and unlike those that {translator} was judged on (p = {other:.3f}): of a third source nothing was proved.",
            warning=True,
        )
    if tiled:
        return _noted(
            route,
            "NOT_TRANSLATED",
            f"{looks.capitalize()}, and is looked at in tiles: {translator} was judged on whole images.",
            warning=True,
        )
    if mode == SUGGEST:
        noted = _noted(route, "TRANSLATOR_SUGGESTED", f"{looks.capitalize()}: {translator}, which was accepted for {name}, would be used.")
        return replace(noted, suggested=translator)
    if model.adapted is None:
        return _noted(
            route, "TRANSLATOR_AWAY", f"{looks.capitalize()}, and {translator} does not answer at the moment: not translated.", warning=True
        )
    noted = _noted(route, "TRANSLATED", f"{looks.capitalize()}: answered with {translator}.")
    return replace(noted, answering=model.adapted, translator=translator)


def _noted(route: Route, code: str, message: str, *, warning: bool = False) -> Route:
    return replace(route, notes=(*route.notes, Finding(Severity.WARNING if warning else Severity.INFO, code, message)))
