"""Copies for shadows: never waited for, bounded, counted, and written though the database was away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import pytest
from gateway_support import publish_model
from waiting import patient

from oteo_core.artifacts import ArtifactStore
from oteo_core.errors import Unavailable
from oteo_core.packages import ModelPackage
from oteo_gateway.prediction.agreement import Sums
from oteo_gateway.prediction.answer import ClassAnswer
from oteo_gateway.prediction.predictor import Query
from oteo_gateway.prediction.routing import Answering, RoutedModel, Routes
from oteo_gateway.prediction.shadowing import Key, Shadows
from oteo_gateway.prediction.tensors import InferTemplate

ANSWER = ClassAnswer(scores=(), prediction_set=(), coverage=0.0, decision="red", refer=False)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> ModelPackage:
    return publish_model(ArtifactStore(f"file://{tmp_path_factory.mktemp('shadows')}"), "next")


class Seen:
    def __init__(self) -> None:
        self.reasons: list[str] = []
        self.values: list[float] = []

    def compared(self, deployment: str, model: str, agreement: float, ratio: float) -> None:
        assert (deployment, model) == ("d", "next")
        self.values.append(agreement)

    def missed(self, deployment: str, model: str, reason: str) -> None:
        self.reasons.append(reason)


def routes(package: ModelPackage, *, available: bool = True) -> Routes:
    plain = Answering(package, InferTemplate("next", "", package.input))
    champion = RoutedModel(plain=plain, alias="", percent=100, shadow=False, available=True)
    return Routes(
        "deployments/d", "uid", "mark", (champion, RoutedModel(plain=plain, alias="", percent=0, shadow=True, available=available))
    )


async def settled(shadows: Shadows, seen: Seen, count: int) -> None:
    until = time.monotonic() + patient(5)
    while len(seen.values) + len(seen.reasons) != count:
        assert time.monotonic() < until, f"{seen.values} and {seen.reasons}, not {count}"
        await asyncio.sleep(0.01)


def test_a_full_queue_and_failures_are_counted_and_callers_never_wait(package: ModelPackage) -> None:
    written: list[Mapping[Key, Sums]] = []
    seen = Seen()

    async def go() -> None:
        gate, both = asyncio.Event(), asyncio.Event()
        calls = 0

        async def ask(query: Query, where: Routes, model: RoutedModel, pool: Any) -> tuple[ClassAnswer, float]:
            nonlocal calls
            calls += 1
            if calls == 2:
                both.set()
            await gate.wait()
            assert not query.explain
            if calls == 2:
                raise Unavailable("gone", reason="DEPLOYMENT_NOT_READY")
            return ANSWER, 0.5

        shadows = Shadows(written.append, seen, places=3, period=60)
        shadows.start(ask)
        # The offers return at once, although nobody answers yet.
        for _ in range(2):
            shadows.offer(routes(package), Query("d", content=b"x", explain=True), ANSWER, 0.25)
        async with asyncio.timeout(patient(5)):
            await both.wait()
        for _ in range(5):
            shadows.offer(routes(package), Query("d", content=b"x"), ANSWER, 0.25)
        assert (shadows.waiting, seen.reasons) == (3, ["BEHIND", "BEHIND"])
        shadows.offer(routes(package, available=False), Query("d", content=b"x"), ANSWER, 0.25)
        gate.set()
        await settled(shadows, seen, 8)
        await shadows.stop()

    asyncio.run(go())
    assert sorted(seen.reasons) == ["AWAY", "BEHIND", "BEHIND", "DEPLOYMENT_NOT_READY"]
    assert seen.values == [1.0] * 4
    (sums,) = written
    total = sums["uid", "mark", "next"]
    assert (total.images, total.missed, total.agreed) == (4, 4, 4.0)
    assert total.median_ratio() == pytest.approx(2.0, rel=0.05)


def test_figures_outlive_a_database_that_is_away(package: ModelPackage) -> None:
    written: list[Mapping[Key, Sums]] = []
    seen = Seen()
    away = [True]

    def write(sums: Mapping[Key, Sums]) -> None:
        if away[0]:
            raise Unavailable("the database does not answer", reason="DATABASE_UNAVAILABLE")
        written.append(sums)

    async def go() -> None:
        async def ask(query: Query, where: Routes, model: RoutedModel, pool: Any) -> tuple[ClassAnswer, float]:
            return ANSWER, 0.1

        shadows = Shadows(write, seen, places=8, period=0.01)
        shadows.start(ask)
        for number in range(3):
            shadows.offer(routes(package), Query("d", content=b"x"), ANSWER, 0.1)
            await settled(shadows, seen, number + 1)
            await asyncio.sleep(0.03)
        assert not written
        away[0] = False
        await shadows.stop()

    asyncio.run(go())
    assert sum(sums["uid", "mark", "next"].images for sums in written) == 3


def test_large_images_do_not_fill_the_memory(package: ModelPackage) -> None:
    seen = Seen()

    async def go() -> None:
        shadows = Shadows(lambda sums: None, seen, places=1000, period=60)
        large = Query("d", content=bytes(100 * 2**20))
        for _ in range(4):
            shadows.offer(routes(package), large, ANSWER, 0.1)
        assert (shadows.waiting, seen.reasons) == (2, ["BEHIND", "BEHIND"])
        await shadows.stop()

    asyncio.run(go())
