"""What is known of a deployment: what it asks for, what serves now, and how each replica stands."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from datetime import datetime


@dataclass(frozen=True, slots=True)
class ModelPart:
    """A model's part in a deployment: the model's id and the alias that it goes by."""

    model_id: str
    alias: str = ""


@dataclass(frozen=True, slots=True)
class Serving:
    """The model that answers: set once every replica has answered a probe, kept while another is being loaded."""

    model_id: str
    digest: str
    generation: int


@dataclass(frozen=True, slots=True)
class Replica:
    """How one replica stands for one deployment.

    Attributes
    ----------
    address
        ``host:port``.
    ready
        True once a probe of the wanted model was answered, until one fails.
    message
        What is wrong; empty where nothing is.
    answers
        True while it answers with the model that serves now, which is another one while a change is being loaded.
    """

    address: str
    ready: bool
    message: str = ""
    answers: bool = False


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
        What is asked for; one today.
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
        What answers now; None before the first probe was answered.
    failure
        Why it cannot be served, by reason and message; both empty where nothing is known to be wrong.
    replicas
        By address.
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

    @property
    def name(self) -> str:
        """``deployments/{id}``."""
        return f"deployments/{self.id}"

    @property
    def etag(self) -> str:
        """Changes with every change of what is asked for."""
        return hashlib.sha256(f"{self.uid}:{self.generation}".encode()).hexdigest()[:16]

    @property
    def model_id(self) -> str:
        """The model that is asked for."""
        return self.models[0].model_id

    @property
    def answering_model(self) -> str:
        """The model that answers now: the one that serves, or the one asked for where none does yet."""
        return self.serving.model_id if self.serving is not None else self.model_id

    @property
    def answering(self) -> tuple[str, ...]:
        """Addresses of the replicas that answer with the model that serves now."""
        return tuple(replica.address for replica in self.replicas if replica.answers)

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
