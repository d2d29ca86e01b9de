"""One model server replica brought to serve what is wanted, and proven to by a real inference.

That a model is READY proves nothing: with its stub process dead Triton still says so while every inference fails, and loading it again
does nothing until its files look changed. So a probe decides, and a model that fails it is touched and loaded again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

import structlog

from oteo_core.errors import OteoError, Unavailable
from oteo_gateway.deployments.repository import PARITY_PREFIX
from oteo_gateway.deployments.units import Unit, in_order, unloading_order

log = structlog.get_logger(__name__)

_FIRST_BACKOFF = 1.0
_LAST_BACKOFF = 30.0
_UNLOAD_AGAIN = 30.0


class ModelServer(Protocol):
    """A model server as the keeper needs it. Every call has its own time limit and raises an `OteoError`."""

    @property
    def address(self) -> str:
        """``host:port``."""

    def index(self) -> dict[str, bool]:
        """Give all models of the repository by name, True for those that are ready."""

    def digest(self, model: str) -> str:
        """Give the ``oteo_digest`` that a loaded model was loaded with; empty if it carries none."""

    def load(self, model: str) -> None:
        """Load a model, or load it again where its files have changed."""

    def unload(self, model: str) -> None:
        """Unload a model."""

    def probe(self, unit: Unit) -> None:
        """Have a unit answer for one image."""

    def warm(self, unit: Unit) -> None:
        """Have a unit answer for one image and for batches of the sizes that it prefers."""


class Mender(Protocol):
    """What makes a model's files look changed."""

    def touch(self, model: str) -> None:
        """Make a model's files look changed."""


@dataclass(slots=True)
class ModelState:
    """How a replica stands with one model.

    Attributes
    ----------
    ready
        True once a probe was answered, until one fails.
    digest
        The package that the probe was answered for.
    message
        What is wrong.
    failures
        Failed attempts to load or to answer, one after another.
    warm
        True once it has answered for batches of real sizes since it was loaded.
    """

    ready: bool = False
    digest: str = ""
    message: str = ""
    failures: int = 0
    warm: bool = False
    probed: float = float("-inf")
    again: float = float("-inf")


@dataclass(slots=True)
class ReplicaState:
    """How a replica stands: whether it answers at all, and by model."""

    alive: bool = False
    message: str = "not asked yet"
    models: dict[str, ModelState] = field(default_factory=dict)
    loaded: frozenset[str] = frozenset()


class ReplicaKeeper:
    """Brings one replica to serve what is wanted.

    Parameters
    ----------
    server
        The replica.
    mender
        Touches a model's files.
    probe_seconds
        A model that answered is probed again after so long.
    linger_seconds
        A model is unloaded when it was not wanted for so long: other gateways may not know yet that another has taken its place.
    clock
        Seconds, monotonic.
    """

    def __init__(
        self,
        server: ModelServer,
        mender: Mender,
        *,
        probe_seconds: float = 5.0,
        linger_seconds: float = 3.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._server = server
        self._mender = mender
        self._probe_seconds = probe_seconds
        self._linger_seconds = linger_seconds
        self._clock = clock
        self._models: dict[str, ModelState] = {}
        self._unloaded: dict[str, float] = {}
        self._unwanted: dict[str, float] = {}
        self._foreign: set[str] = set()

    @property
    def address(self) -> str:
        """The replica's address."""
        return self._server.address

    def doubt(self, model: str) -> None:
        """Probe a model at the next round: somebody had no answer from it."""
        state = self._models.get(model)
        if state is not None:
            state.probed = float("-inf")

    def sync(self, wanted: Mapping[str, Unit]) -> ReplicaState:
        """Load what is wanted and does not answer, unload what is ours and not wanted, and say how it stands.

        Parameters
        ----------
        wanted
            Units by their name on the model server; their folders are in the repository.
        """
        try:
            index = self._server.index()
        except OteoError as error:
            for state in self._models.values():
                state.ready = state.warm = False
                state.probed = float("-inf")
                state.again = float("-inf")
            self._foreign.clear()
            return ReplicaState(alive=False, message=error.message, models=self._copy())
        for name in [name for name in self._models if name not in wanted]:
            del self._models[name]
        for unit in in_order(wanted):
            self._keep(unit, loaded=index.get(unit.name, False))
        loaded = {name for name, ready in index.items() if ready}
        now = self._clock()
        self._unwanted = {name: self._unwanted.get(name, now) for name in loaded - set(wanted)}
        for name, since in sorted(self._unwanted.items(), key=lambda item: unloading_order(item[0])):
            if now - since >= self._linger_seconds:
                self._drop(name)
        return ReplicaState(alive=True, message="", models=self._copy(), loaded=frozenset(loaded | set(wanted)))

    def _copy(self) -> dict[str, ModelState]:
        return {name: replace(state) for name, state in self._models.items()}

    def _keep(self, unit: Unit, *, loaded: bool) -> None:
        name = unit.name
        state = self._models.setdefault(name, ModelState())
        now = self._clock()
        if not loaded or state.digest != unit.digest:
            state.ready = False
        elif state.ready and now - state.probed < self._probe_seconds:
            return
        if now < state.again:
            return
        try:
            if not loaded or self._server.digest(name) != unit.digest:
                self._load(name, state)
            try:
                self._prove(unit, state)
            except OteoError as error:
                log.warning("probe_failed", replica=self.address, model=name, error=error.message)
                state.ready = False
                self._mender.touch(name)
                self._load(name, state)
                self._prove(unit, state)
        except OteoError as error:
            state.ready = False
            state.failures += 1
            state.message = error.message
            # A replica that went away is asked again at once when it is back; a model that does not load is not hammered.
            pause = 0.0 if isinstance(error, Unavailable) and error.reason == "REPLICA_AWAY" else _backoff(state.failures)
            state.again = self._clock() + pause
            log.warning("model_not_serving", replica=self.address, model=name, failures=state.failures, error=error.message)
            return
        if not state.ready:
            log.info("model_serving", replica=self.address, model=name, digest=unit.digest[:12])
        state.ready, state.digest, state.message, state.failures = True, unit.digest, "", 0
        state.probed = self._clock()
        state.again = float("-inf")

    def _load(self, name: str, state: ModelState) -> None:
        log.info("model_loading", replica=self.address, model=name)
        state.warm = False
        self._server.load(name)
        self._foreign.discard(name)

    def _prove(self, unit: Unit, state: ModelState) -> None:
        """Have it answer: after loading as it will have to under load, so that nobody waits for what its first batches cost."""
        if state.warm:
            self._server.probe(unit)
        else:
            self._server.warm(unit)
            state.warm = True

    def _drop(self, name: str) -> None:
        """Unload a model that is not wanted, if it is ours."""
        now = self._clock()
        if name.startswith(PARITY_PREFIX) or name in self._foreign or now - self._unloaded.get(name, float("-inf")) < _UNLOAD_AGAIN:
            return
        try:
            if not self._server.digest(name):
                # Put there by somebody else: leave it alone.
                self._foreign.add(name)
                return
            self._unloaded[name] = now
            log.info("model_unloading", replica=self.address, model=name)
            self._server.unload(name)
            self._unloaded.pop(name, None)
        except OteoError as error:
            # Unloading a model whose stub is dead can hang; it is tried again later.
            log.warning("model_not_unloaded", replica=self.address, model=name, error=error.message)


def _backoff(failures: int) -> float:
    return float(min(_LAST_BACKOFF, _FIRST_BACKOFF * 2 ** min(failures - 1, 10)))
