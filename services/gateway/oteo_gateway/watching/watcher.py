"""The loop of the watch: write what was seen, test where enough is new, keep the alarm."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
import structlog
from numpy.typing import NDArray

from oteo_core.errors import OteoError
from oteo_core.shift.alarm import level_of
from oteo_core.shift.home import Home
from oteo_core.shift.looking import LOOKED_AT, WINDOWS, look
from oteo_gateway.deployments.records import Deployment
from oteo_gateway.watching.collector import Batch, Collector, Watched
from oteo_gateway.watching.records import WatchState
from oteo_gateway.watching.store import WatchStore

log = structlog.get_logger(__name__)

_LEASE = "watch"
_KEPT_HOMES = 16
_LATEST = WINDOWS[-1]


@dataclass(frozen=True, slots=True)
class WatchSettings:
    """How the watch works.

    Parameters
    ----------
    period
        Seconds between two turns of the loop.
    look_images
        Looked at again after so many new images.
    look_seconds
        Looked at after so long where fewer are new.
    false_alarms
        Accepted for each `oteo_core.shift.alarm.PER_IMAGES` images, 0 to 1.
    least_effect
        Smaller shifts raise no alarm; 0 to 1.
    lease_seconds
        Length of the lease among gateways.
    """

    period: float = 5.0
    look_images: int = 16
    look_seconds: float = 60.0
    false_alarms: float = 0.01
    least_effect: float = 0.15
    lease_seconds: float = 10.0


class Watcher:
    """Watches all deployments of a database. Every gateway writes what it saw; the one that holds the lease looks.

    Parameters
    ----------
    collector
        What this gateway's predictions bring.
    store
        The tables.
    deployments
        Gives all deployments; blocks.
    home_of
        Gives the training domain of a model by its id, None where its package keeps nothing; blocks.
    lease
        Takes or renews a lease by name and seconds.
    settings
        How it works.
    told
        Takes all states after each turn, for metrics.
    """

    def __init__(
        self,
        collector: Collector,
        store: WatchStore,
        deployments: Callable[[], list[Deployment]],
        home_of: Callable[[str], Home | None],
        lease: Callable[[str, float], bool],
        settings: WatchSettings,
        told: Callable[[Iterable[Deployment], dict[Watched, WatchState]], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._collector = collector
        self._store = store
        self._deployments = deployments
        self._home_of = home_of
        self._lease = lease
        self._settings = settings
        self._told = told
        self._clock = clock
        self._homes: OrderedDict[Watched, Home | None] = OrderedDict()

    def run(self, stop: threading.Event) -> None:
        """Turn until stopped; what was seen last is written at the end."""
        while not stop.wait(self._settings.period):
            self._guarded(self.turn)
        self._guarded(lambda: self._store.add(self._collector.take()))

    def _guarded(self, do: Callable[[], None]) -> None:
        try:
            do()
        except OteoError as error:
            # The database is away: what was seen since is lost, which costs the test some images and nobody an answer.
            log.warning("watch_failed", error=error.message)
        except Exception:
            log.exception("watch_failed")

    def turn(self) -> None:
        """Write what was seen; look, if the lease is ours; tell how all stand."""
        self._store.add(self._collector.take())
        deployments = self._deployments()
        live = {watched for deployment in deployments for watched in watched_of(deployment)}
        self._collector.forget(live)
        states = self._store.states()
        if self._lease(_LEASE, self._settings.lease_seconds):
            states = self._look_at_all(live, states)
        self._told(deployments, {watched: state for watched, state in states.items() if watched in live})

    def _look_at_all(self, live: set[Watched], states: dict[Watched, WatchState]) -> dict[Watched, WatchState]:
        waiting = self._store.waiting()
        gone = (set(states) | set(waiting)) - live
        if gone:
            self._store.forget(gone)
        found = {watched: state for watched, state in states.items() if watched in live}
        now = self._clock()
        for watched in live & set(waiting):
            state = found.get(watched, WatchState())
            if waiting[watched] > state.last or (state.unseen and now - state.looked >= self._settings.look_seconds):
                after = self._look_at(watched, state, now)
                if after != state:
                    self._store.keep(watched, after)
                    found[watched] = after
        return found

    def _look_at(self, watched: Watched, state: WatchState, now: float) -> WatchState:
        settings = self._settings
        batch, counts = self._store.latest(watched, LOOKED_AT)
        if batch is None:
            return state
        new = sum(count for number, count in counts.items() if number > state.last)
        rows, answers = different(batch)
        state = replace(state, images=state.images + new, unseen=state.unseen + new, last=max(counts), window=min(_LATEST, len(rows)))
        due = state.unseen >= settings.look_images or now - state.looked >= settings.look_seconds
        if len(rows) < WINDOWS[0] or not state.unseen or not due:
            return state
        home = self._home(watched)
        if home is None or len(home.columns) not in (1, rows.shape[1]):
            return state
        level = level_of(state.unseen, settings.false_alarms)
        found = look(home, rows[-LOOKED_AT:], answers[-LOOKED_AT:] if answers.shape[1] else None, level)
        if found is None:
            return state
        alarm = state.alarm.after(found, level, settings.least_effect, now)
        if alarm.on != state.alarm.on:
            log.warning("shift_alarm", model=watched.model, uid=watched.uid, on=alarm.on, p_value=found.p_value, effect=found.effect)
        self._prune(watched, counts)
        ringing = None if not alarm.on else found if not alarm.calm else state.ringing
        return replace(
            state,
            unseen=0,
            looked=now,
            level=level,
            summary=home.summary is not None,
            look=found,
            alarm=alarm,
            ringing=ringing,
        )

    def _prune(self, watched: Watched, counts: dict[int, int]) -> None:
        total, oldest = 0, 0
        for number in sorted(counts, reverse=True):
            oldest = number
            total += counts[number]
            if total >= LOOKED_AT:
                break
        if oldest > min(counts):
            self._store.prune(watched, oldest)

    def _home(self, watched: Watched) -> Home | None:
        if watched not in self._homes:
            self._homes[watched] = self._home_of(watched.model)
            while len(self._homes) > _KEPT_HOMES:
                self._homes.popitem(last=False)
        return self._homes[watched]


def watched_of(deployment: Deployment) -> list[Watched]:
    """Give what is watched of a deployment: each model that answers; with a change of models, shares or translators all begins anew."""
    serving = deployment.serving
    if serving is None:
        return []
    return [Watched(deployment.uid, serving.mark, model.part.model_id) for model in serving.models if not model.part.shadow]


def different(batch: Batch) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Give the rows that differ, in order of their first arrival: equal figures are one image that was asked for again, at whichever gateway."""
    _, first = np.unique(batch.statistics, axis=0, return_index=True)
    kept = np.sort(first)
    return batch.statistics[kept].astype(np.float64), batch.answers[kept]
