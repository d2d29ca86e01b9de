"""What is known of a deployment: what it asks for, what serves now, and how each replica stands."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime

MOST_REVISIONS = 10
"""Earlier requests that are kept."""

LOAD_FAILED = "MODEL_LOAD_FAILED"
"""Reason of a deployment's failure: a model did not load, tried several times."""

_VARIANT = "_variant_"


def variant_unit(model: str, variant: str) -> str:
    """Name a model's variant on the model server: ids hold no underscore, so no other name is like it."""
    return f"{model}{_VARIANT}{variant}" if variant else model


def unit_words(name: str) -> str:
    """Say to a person what a name on the model server is."""
    model, _, variant = name.partition(_VARIANT)
    if variant:
        return f"models/{model} in {variant}"
    return f"{name}, translator and model as one" if "_" in name else f"models/{name}"


@dataclass(frozen=True, slots=True)
class ModelPart:
    """A model's part in a deployment, as it is asked for.

    Attributes
    ----------
    model_id
        The model's id.
    alias
        The name that it goes by; empty where it has none.
    percent
        Share of the traffic, 0 to 100; 0 of a shadow.
    shadow
        True: it gets a copy of the traffic, and its answers are only compared.
    variant
        The form that answers, of `oteo_core.packages.variants.KINDS`; empty: the model itself.
    """

    model_id: str
    alias: str = ""
    percent: int = 100
    shadow: bool = False
    variant: str = ""

    @property
    def unit(self) -> str:
        """Name on the model server."""
        return variant_unit(self.model_id, self.variant)


@dataclass(frozen=True, slots=True)
class Bridge:
    """What answers in a model's place where an image is to be adapted: translator and model as one, or the model that was adapted.

    Attributes
    ----------
    translator_id
        Last part of ``translators/{id}``.
    unit
        Name on the model server.
    digest
        Of the unit.
    model_id
        The model whose package reads the answer: the model itself, or the adapted one.
    model_digest
        Of that package.
    """

    translator_id: str
    unit: str
    digest: str
    model_id: str
    model_digest: str


@dataclass(frozen=True, slots=True)
class ServingModel:
    """A model that answers, or is compared: its part as it was asked for, its package's digest, and what adapts images for it."""

    part: ModelPart
    digest: str
    bridge: Bridge | None = None

    @property
    def units(self) -> tuple[tuple[str, str], ...]:
        """Names and digests of what the model server has to have loaded."""
        bridge = self.bridge
        return ((self.part.unit, self.digest), *([(bridge.unit, bridge.digest)] if bridge is not None else []))


@dataclass(frozen=True, slots=True)
class Serving:
    """The models that answer: set once every replica has answered a probe of each, kept while others are being loaded."""

    models: tuple[ServingModel, ...]
    generation: int

    @property
    def mark(self) -> str:
        """Changes with whatever a comparison of the models depends on: packages, shares, which are shadows, translators."""
        facts = [
            (m.part.unit, m.digest, m.part.percent, m.part.shadow, m.bridge.digest if m.bridge is not None else "") for m in self.models
        ]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]

    def units(self) -> Iterator[tuple[str, str]]:
        """Give names and digests of all that has to be loaded."""
        for model in self.models:
            yield from model.units


@dataclass(frozen=True, slots=True)
class Replica:
    """How one replica stands for one deployment.

    Attributes
    ----------
    address
        ``host:port``.
    ready
        True once probes of all that is wanted were answered, until one fails.
    message
        What is wrong; empty where nothing is.
    answers
        Names on the model server, of those that serve now, with which it answers. While a change is being loaded these are not those that are
        wanted.
    """

    address: str
    ready: bool
    message: str = ""
    answers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Revision:
    """What a deployment asked for at one time."""

    generation: int
    models: tuple[ModelPart, ...]
    adapt: int
    translator: str
    create_time: datetime


@dataclass(frozen=True, slots=True)
class Deployment:
    """One deployment, as recorded.

    Attributes
    ----------
    id
        Last part of ``deployments/{id}``.
    uid
        A number that no other deployment has.
    display_name
        For people.
    models
        What is asked for; at least one is no shadow, and the shares of those are 100 together.
    adapt
        Number of the contract's ``AdaptMode``.
    translator
        ``translators/{id}`` or empty.
    labels
        Free.
    generation
        Counts changes, from 1.
    operation
        The operation that waits for this generation; empty once it has ended.
    serving
        What answers now; None before the first probes were answered.
    failure
        Why it cannot be served, by reason and message; both empty where nothing is known to be wrong.
    replicas
        By address.
    revisions
        What it asked for before, newest first, at most `MOST_REVISIONS`.
    create_time, update_time
        UTC.
    """

    id: str
    uid: str
    display_name: str
    models: tuple[ModelPart, ...]
    create_time: datetime
    update_time: datetime
    adapt: int = 0
    translator: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    generation: int = 1
    operation: str = ""
    serving: Serving | None = None
    failure: tuple[str, str] = ("", "")
    replicas: tuple[Replica, ...] = ()
    revisions: tuple[Revision, ...] = ()

    @property
    def name(self) -> str:
        """``deployments/{id}``."""
        return f"deployments/{self.id}"

    @property
    def etag(self) -> str:
        """Changes with every change of what is asked for."""
        return hashlib.sha256(f"{self.uid}:{self.generation}".encode()).hexdigest()[:16]

    @property
    def answering(self) -> tuple[str, ...]:
        """Addresses of the replicas that answer with at least one of the models that serve now and are no shadows."""
        if self.serving is None:
            return ()
        names = {model.part.unit for model in self.serving.models if not model.part.shadow}
        return tuple(replica.address for replica in self.replicas if names.intersection(replica.answers))

    def answering_with(self, unit: str) -> tuple[str, ...]:
        """Give the addresses of the replicas that answer with one name of the model server."""
        return tuple(replica.address for replica in self.replicas if unit in replica.answers)

    @property
    def state(self) -> str:
        """``READY``, ``DEGRADED``, ``FAILED`` or ``PENDING``: the contract's states."""
        ready = sum(replica.ready for replica in self.replicas)
        if self.replicas and ready == len(self.replicas):
            return "READY"
        if ready or self.answering:
            return "DEGRADED"
        if self.failure[0]:
            return "FAILED"
        # It has served and no replica answers now, or it is still being loaded.
        return "FAILED" if self.serving is not None and self.replicas else "PENDING"

    @property
    def message(self) -> str:
        """Why not every replica answers; empty where each does."""
        if self.state == "READY":
            return ""
        if self.failure[1]:
            return self.failure[1]
        wrong = [f"{replica.address}: {replica.message}" for replica in self.replicas if not replica.ready and replica.message]
        return "; ".join(wrong)

    def with_status(self, replicas: tuple[Replica, ...], serving: Serving | None, failure: tuple[str, str]) -> Deployment:
        """Give a copy with another state."""
        return replace(self, replicas=replicas, serving=serving, failure=failure)

    def asking(self, *, models: tuple[ModelPart, ...], adapt: int, translator: str, now: datetime) -> Deployment:
        """Give a copy that asks for something else: the next generation, with what was asked for before among its revisions.

        What serves goes on serving; how the replicas stand with what is asked for now is not known.
        """
        revisions = self.revisions
        if (models, adapt, translator) != (self.models, self.adapt, self.translator):
            before = Revision(self.generation, self.models, self.adapt, self.translator, self.update_time)
            revisions = (before, *revisions)[:MOST_REVISIONS]
        return replace(
            self,
            models=models,
            adapt=adapt,
            translator=translator,
            generation=self.generation + 1,
            operation="",
            update_time=now,
            replicas=tuple(replace(replica, ready=False, message="loading") for replica in self.replicas),
            failure=("", ""),
            revisions=revisions,
        )
