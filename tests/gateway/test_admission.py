"""Who gets a place, who waits, who is refused at once, and that nothing is done for callers who have gone."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from gateway_support import picture, publish_model
from prometheus_client import REGISTRY
from waiting import patient

from oteo_core.artifacts import ArtifactStore
from oteo_core.datasets.named_images import ImageStore
from oteo_core.errors import ResourceExhausted
from oteo_core.images import ImageLimits
from oteo_gateway import metrics
from oteo_gateway.prediction.admission import Admission
from oteo_gateway.prediction.inputs import Inputs
from oteo_gateway.prediction.predictor import Predictor, Query
from oteo_gateway.prediction.routing import Answering, Route, RoutedModel, Routes
from oteo_gateway.prediction.tensors import InferTemplate
from oteo_gateway.triton_statistics import Figures, since


async def _turn() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


class Places:
    """An admission whose places a test fills and empties."""

    def __init__(self, places: int, queue: int, **options: Any) -> None:
        self.admission = Admission(places, queue, **options)
        self.leave = asyncio.Event()
        self.order: list[str] = []
        self.tasks: list[asyncio.Task[None]] = []

    async def take(self, size: int = 0, left: float | None = None, caller: str = "") -> asyncio.Task[None]:
        async def hold() -> None:
            async with self.admission.enter(size, lambda: left, caller):
                self.order.append(caller)
                await self.leave.wait()

        self.tasks.append(asyncio.create_task(hold()))
        await _turn()
        return self.tasks[-1]

    async def refusal(self, size: int = 0, left: float | None = None) -> ResourceExhausted:
        with pytest.raises(ResourceExhausted) as caught:
            await (await self.take(size, left))
        return caught.value

    async def end(self) -> None:
        self.leave.set()
        await asyncio.gather(*self.tasks, return_exceptions=True)


def test_one_who_cannot_be_answered_in_time_is_refused_at_once() -> None:
    async def scenario() -> None:
        places = Places(1, 100)
        await places.take(left=0.001)  # a free place is given whatever the deadline: nothing says that it is too short
        await places.take()
        foretold = places.admission.expected_wait()
        refused = await places.refusal(left=foretold / 2)
        assert refused.reason == "NOT_IN_TIME"
        assert refused.retry_after
        waits = await places.take(left=60 * foretold)
        assert places.admission.waiting == 2
        assert not waits.done()
        await places.end()
        assert places.admission.expected_wait() == 0

    asyncio.run(scenario())


def test_images_that_wait_are_bounded_in_bytes_but_one_always_may() -> None:
    async def scenario() -> None:
        seen: list[int] = []
        places = Places(1, 100, queue_bytes=1000, changed=seen.append)
        await places.take(900)
        await places.take(5000)
        assert (await places.refusal(10)).reason == "TOO_MANY_REQUESTS"
        places.tasks[1].cancel()
        await _turn()
        await places.take(600)
        assert (await places.refusal(600)).reason == "TOO_MANY_REQUESTS"
        await places.take(300)
        await places.end()
        assert (max(seen), seen[-1]) == (2, 0)

    asyncio.run(scenario())


def test_one_who_floods_the_queue_makes_room_for_others_and_takes_turns_with_them() -> None:
    async def scenario() -> None:
        places = Places(1, 4)
        await places.take(caller="first")
        floods = [await places.take(caller="flood") for _ in range(4)]
        admission = places.admission
        with pytest.raises(ResourceExhausted):
            admission.check("flood", None)
        admission.check("ward", None)
        ward = [await places.take(caller="ward") for _ in range(2)]
        # The flood's newest made room, for as many as it has itself.
        assert [task.done() for task in floods] == [False, False, True, True]
        refused = floods[3].exception()
        assert isinstance(refused, ResourceExhausted)
        assert (refused.reason, bool(refused.retry_after)) == ("TOO_MANY_REQUESTS", True)
        with pytest.raises(ResourceExhausted):
            admission.check("ward", None)
        # One who comes anew waits for one turn of each, and not for the whole queue.
        assert admission.expected_wait("another") == pytest.approx(admission.expected_wait("flood") * 3 / 5)
        assert admission.waiting == 4
        await places.end()
        assert places.order == ["first", "flood", "ward", "flood", "ward"]
        assert all(task.exception() is None for task in ward)
        assert (admission.waiting, admission.crowded) == (0, False)

    asyncio.run(scenario())


def test_one_who_goes_as_its_turn_comes_leaves_the_place_to_the_next() -> None:
    async def scenario() -> None:
        places = Places(1, 4)
        await places.take()
        goes, stays = await places.take(), await places.take()
        places.leave.set()
        # In the same turn of the loop: the first leaves its place to one that is cancelled.
        places.tasks[0].add_done_callback(lambda _: goes.cancel())
        await asyncio.gather(*places.tasks, return_exceptions=True)
        assert stays.exception() is None
        assert not places.admission.crowded

    asyncio.run(scenario())


class Silent:
    """A model server that never answers, and counts."""

    def __init__(self) -> None:
        self.asked = 0
        self.called = asyncio.Event()

    async def infer(self, route: Route, request: bytes, seconds: float) -> bytes:
        self.asked += 1
        self.called.set()
        await asyncio.Event().wait()
        raise AssertionError


def test_nothing_is_decoded_for_callers_who_have_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ArtifactStore(f"file://{tmp_path}")
    package = publish_model(store, "colours")
    decoded: list[str] = []
    begun, gate = threading.Event(), threading.Event()

    async def scenario() -> None:
        calls = Silent()
        decoders = ThreadPoolExecutor(1)
        answering = Answering(package, InferTemplate("colours", "", package.input))
        routes = Routes("deployments/colours", "uid", "mark", (RoutedModel(answering, "", 100, False, True),))

        async def find(deployment: str) -> Routes:
            return routes

        predictor = Predictor(
            find,
            calls,
            Inputs(ImageStore(store, 1 << 20), ImageLimits()),
            Admission(3, 10),
            decoders,
            default_timeout=60,
            observer=metrics.PrometheusObserver(),
        )
        prepare = predictor._prepare

        def counted(query: Query, routes: Routes, later: bool) -> Any:
            decoded.append(query.deployment_id)
            begun.set()
            gate.wait(patient(10))
            return prepare(query, routes, later)

        monkeypatch.setattr(predictor, "_prepare", counted)
        queries = [Query(name, content=picture("red")) for name in ("decoding", "to-decode", "to-decode-2", "waiting", "stays")]
        tasks = [asyncio.create_task(predictor.predict(query, lambda: None)) for query in queries]
        await asyncio.to_thread(begun.wait, patient(20))
        # One is being decoded, two have places and wait for the thread, two wait for places.
        for task in tasks[:4]:
            task.cancel()
        await _turn()
        gate.set()
        await asyncio.wait_for(calls.called.wait(), patient(20))
        tasks[4].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert decoded == ["decoding", "stays"]
        assert calls.asked == 1, "nothing goes to the model server for one who went while decoding"
        decoders.shutdown()

    asyncio.run(scenario())


def test_figures_of_a_replica_count_on_from_what_was_known() -> None:
    before = Figures(10, {1: 2, 4: 2}, 1.0, 2.0)
    assert since(before, Figures(18, {1: 2, 4: 4}, 1.5, 2.5)) == Figures(8, {1: 0, 4: 2}, 0.5, 0.5)
    restarted = Figures(3, {1: 3}, 0.1, 0.1)
    assert since(before, restarted) == restarted


def test_waiting_is_shown() -> None:
    metrics.waiting(3)
    assert REGISTRY.get_sample_value("oteo_predict_waiting") == 3
    metrics.waiting(0)


@pytest.mark.parametrize("moment", ["its turn comes", "its room is given away"])
def test_who_goes_in_the_very_moment_in_which_it_is_taken_out_of_the_queue_leaves_nothing_behind(moment: str) -> None:
    async def scenario() -> None:
        places = Places(1, 2)
        await places.take(caller="a")
        others: list[asyncio.Task[Any]] = []
        if moment == "its turn comes":
            going = await places.take(caller="a")
            # The holder runs before the cancelled one does.
            places.leave.set()
        else:
            await places.take(caller="a")
            going = await places.take(caller="a")
            others.append(asyncio.create_task(places.take(caller="b")))
            await asyncio.sleep(0)
        going.cancel()
        with pytest.raises(asyncio.CancelledError):
            await going
        await asyncio.gather(*others)
        await places.end()
        assert places.admission.waiting == 0
        assert not places.admission.crowded

    asyncio.run(scenario())
