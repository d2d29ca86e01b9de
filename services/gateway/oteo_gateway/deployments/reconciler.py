"""The deployments' reconciler: what is recorded against what every model server replica has loaded, again and again.

It holds no state that matters: started anew, it reads the table and the servers and goes on. Of several gateways on one database the
one that holds the lease reconciles; the others read what it writes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Protocol

import structlog

from oteo_core.errors import FailedPrecondition, OteoError, Unavailable
from oteo_gateway.deployments.planning import Planner, Target
from oteo_gateway.deployments.records import LOAD_FAILED, Deployment, Replica, Serving, unit_words
from oteo_gateway.deployments.replica import ReplicaKeeper, ReplicaState
from oteo_gateway.deployments.repository import ModelRepository
from oteo_gateway.deployments.units import Unit

log = structlog.get_logger(__name__)

LEASE = "deployment-reconciler"
_LOAD_ATTEMPTS = 3
_MOST_REPLICAS = 64


class Records(Protocol):
    """The table of deployments as the reconciler needs it."""

    def list(self) -> list[Deployment]:
        """Give all deployments."""

    def set_status(self, deployment: Deployment) -> None:
        """Record how a deployment stands."""

    def set_operation(self, deployment_id: str, generation: int, operation: str) -> None:
        """Record the operation that waits for a generation."""

    def lease(self, name: str, owner: str, seconds: float) -> bool:
        """Take or renew a lease."""

    def release(self, name: str, owner: str) -> None:
        """Give a lease back."""


class Waiting(Protocol):
    """The operations that wait for deployments."""

    def progress(self, deployment: Deployment) -> None:
        """Show how a deployment stands in its operation."""

    def succeed(self, deployment: Deployment) -> None:
        """End a deployment's operation: every replica answers."""

    def fail(self, deployment: Deployment, error: OteoError) -> None:
        """End a deployment's operation: it cannot be served."""


class Reconciler:
    """Makes every replica match the deployments.

    Parameters
    ----------
    records
        The table.
    repository
        The model servers' repository.
    planner
        Says what is to be loaded, and has its folders be in the repository.
    keepers
        One for each replica.
    waiting
        The operations that wait.
    owner
        This process's name, for the lease.
    period
        Seconds between rounds.
    lease_seconds
        Length of the lease.
    give_up_seconds
        A deployment that is not served by then fails its operation; the reconciler goes on trying.
    """

    def __init__(
        self,
        records: Records,
        repository: ModelRepository,
        planner: Planner,
        keepers: Sequence[ReplicaKeeper],
        waiting: Waiting,
        *,
        owner: str,
        period: float = 1.0,
        lease_seconds: float = 10.0,
        give_up_seconds: float = 600.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._records = records
        self._repository = repository
        self._planner = planner
        self._keepers = tuple(keepers)
        self._waiting = waiting
        self._owner = owner
        self._period = period
        self._lease_seconds = lease_seconds
        self._give_up_seconds = give_up_seconds
        self._clock = clock
        # Threads are started as they are needed: replicas may come.
        self._pool = ThreadPoolExecutor(max_workers=_MOST_REPLICAS, thread_name_prefix="replica")
        self._running: dict[str, Future[ReplicaState]] = {}
        self._states: dict[str, ReplicaState] = {}
        self._cleared: frozenset[str] | None = None
        self._prepared = False
        self._wake = threading.Event()
        self.leads = False
        """Whether this process is the one that reconciles."""

    def replace_keepers(self, keepers: Sequence[ReplicaKeeper]) -> None:
        """Reconcile these replicas from now on."""
        self._keepers = tuple(keepers)
        self._wake.set()

    def wake(self, model: str = "") -> None:
        """Look again at once; `model` is one whose answer somebody missed."""
        if model:
            for keeper in self._keepers:
                keeper.doubt(model)
        self._wake.set()

    def run(self, stop: threading.Event) -> None:
        """Reconcile until told to stop."""
        while not stop.is_set():
            begin = time.monotonic()
            try:
                self.leads = self._records.lease(LEASE, self._owner, self._lease_seconds)
                if self.leads:
                    self.reconcile_once()
                else:
                    # What was seen before is old news by the time the lease comes back.
                    self._states.clear()
            except Exception:  # the loop must outlive a database or store that is away
                log.exception("reconcile_failed")
            # A replica that finished its round wakes this loop; two rounds never follow each other without a breath.
            self._wake.wait(max(0.05, self._period - (time.monotonic() - begin)))
            self._wake.clear()
            stop.wait(0.02)
        try:
            self._records.release(LEASE, self._owner)
        except Exception:
            log.exception("lease_not_released")

    def close(self) -> None:
        """Stop the replicas' threads; those that wait for a server end with their call's time limit."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def reconcile_once(self, *, wait: float = 0.2) -> list[Deployment]:
        """Do one round, and give the deployments as they stand.

        Parameters
        ----------
        wait
            Seconds to wait for the replicas' answers; one that takes longer, because it loads a model, reports in a later round.
        """
        if not self._prepared:
            self._repository.prepare()
            self._prepared = True
        deployments = self._records.list()
        plan = self._planner.plan(deployments)
        self._sync(plan.units, wait)
        self._clear(plan.units)
        return [self._settle(deployment, plan.targets[deployment.id], plan.units) for deployment in deployments]

    def _sync(self, wanted: Mapping[str, Unit], wait: float) -> None:
        keepers = self._keepers
        for keeper in keepers:
            running = self._running.get(keeper.address)
            if running is None or running.done():
                self._running[keeper.address] = self._pool.submit(keeper.sync, dict(wanted))
        for known in (self._running, self._states):
            for address in set(known) - {keeper.address for keeper in keepers}:
                del known[address]
        deadline = time.monotonic() + wait
        for keeper in keepers:
            future = self._running[keeper.address]
            try:
                self._states[keeper.address] = future.result(timeout=max(0.0, deadline - time.monotonic()))
            except TimeoutError:
                # Busy loading: what it said last stands, except for models that it has not heard of.
                future.add_done_callback(lambda _: self._wake.set())
            except OteoError as error:
                self._states[keeper.address] = ReplicaState(alive=False, message=error.message)
            except Exception as error:
                log.exception("replica_round_failed", replica=keeper.address)
                self._states[keeper.address] = ReplicaState(alive=False, message=repr(error))

    def _clear(self, wanted: Mapping[str, Unit]) -> None:
        """Take folders out of the repository that no deployment wants and no replica has loaded."""
        states = [self._states.get(keeper.address) for keeper in self._keepers]
        if self._cleared == frozenset(wanted) or not all(state is not None and state.alive for state in states):
            return
        loaded = {name for state in states if state is not None for name in state.loaded}
        left = [name for name in self._repository.models() if name not in wanted]
        for name in left:
            if name not in loaded:
                log.info("package_removed", model=name)
                self._repository.remove(name)
        if not loaded.intersection(left):
            # Nothing more to do before other models are wanted.
            self._cleared = frozenset(wanted)

    def _settle(self, deployment: Deployment, target: Target, units: Mapping[str, Unit]) -> Deployment:
        serving, failure = deployment.serving, target.failure
        wanted = [unit for model in target.models or () for unit in model.units]
        recorded = {replica.address: replica for replica in deployment.replicas}
        states: list[tuple[str, ReplicaState]] = []
        replicas: list[Replica] = []
        for keeper in self._keepers:
            state = self._states.get(keeper.address)
            if state is None:
                # Not heard of since this process took over: what was recorded last stands.
                replicas.append(recorded.get(keeper.address, Replica(keeper.address, False, "not asked yet")))
                continue
            states.append((keeper.address, state))
            wrong = _wrong(state, wanted) or (failure.message if failure is not None else "")
            replicas.append(Replica(keeper.address, not wrong, wrong, _answers(state, serving, units)))
        if target.models is not None and states and len(states) == len(replicas):
            new = Serving(target.models, deployment.generation)
            if (serving is None or serving.models != new.models) and not any(_wrong(state, wanted) for _, state in states):
                serving = new
                replicas = [replace(replica, answers=_answers(self._states[replica.address], serving, units)) for replica in replicas]
        if failure is None:
            failure = self._load_failure(wanted)
        settled = deployment.with_status(
            tuple(replicas), serving, (failure.reason or "UNKNOWN", failure.message) if failure is not None else ("", "")
        )
        if settled != deployment:
            self._records.set_status(settled)
        return self._end(settled, failure, changed=settled != deployment)

    def _load_failure(self, wanted: Sequence[tuple[str, str]]) -> OteoError | None:
        """Say that something does not load: every replica that is there has tried several times."""
        states = [state for keeper in self._keepers if (state := self._states.get(keeper.address)) is not None and state.alive]
        for name, _ in wanted:
            tried = [state.models[name] for state in states if name in state.models]
            if tried and all(model.failures >= _LOAD_ATTEMPTS for model in tried):
                return FailedPrecondition(f"Triton does not serve {unit_words(name)}: {tried[0].message}", reason=LOAD_FAILED)
        return None

    def _end(self, deployment: Deployment, failure: OteoError | None, *, changed: bool) -> Deployment:
        """End the operation that waits for a deployment, where there is one and it is time."""
        if not deployment.operation:
            return deployment
        age = self._clock() - deployment.update_time.timestamp()
        if deployment.state == "READY":
            self._waiting.succeed(deployment)
        elif failure is not None:
            self._waiting.fail(deployment, failure)
        elif age > self._give_up_seconds:
            self._waiting.fail(
                deployment,
                Unavailable(
                    f"Not every replica answered within {self._give_up_seconds:.0f} s: {deployment.message or 'none was heard of'}. "
                    "The deployment stays, and is served as soon as they do.",
                    reason="REPLICAS_NOT_READY",
                ),
            )
        else:
            if changed:
                self._waiting.progress(deployment)
            return deployment
        self._records.set_operation(deployment.id, deployment.generation, "")
        return replace(deployment, operation="")


def _wrong(state: ReplicaState, wanted: Sequence[tuple[str, str]]) -> str:
    """Tell why a replica does not answer with all that is wanted; empty where it does."""
    if not state.alive:
        return state.message or "away"
    if not wanted:
        return "the model's package is not there"
    for name, digest in wanted:
        model = state.models.get(name)
        if model is None or not model.ready or model.digest != digest:
            why = model.message if model is not None else ""
            return why or ("loading" if len(wanted) == 1 else f"loading {name}")
    return ""


def _answers(state: ReplicaState, serving: Serving | None, units: Mapping[str, Unit]) -> tuple[str, ...]:
    """Give the names of what serves that a replica answers with.

    Its package may have been made anew under its name: a replica that has loaded that answers too.
    """
    if not state.alive or serving is None:
        return ()
    names = [name for name, _ in serving.units() if name in units and name in state.models]
    return tuple(dict.fromkeys(n for n in names if state.models[n].ready and state.models[n].digest == units[n].digest))
