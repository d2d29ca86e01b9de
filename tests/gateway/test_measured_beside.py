"""An image's digest and statistics, taken while the model answers a lone caller: the answer is the same as beside others, and what can fail fails as before."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from gateway_support import picture, publish_model
from tritonclient.grpc import service_pb2
from waiting import patient

from oteo_core.artifacts import ArtifactStore
from oteo_core.datasets.named_images import ImageStore
from oteo_core.errors import ResourceExhausted, Unavailable
from oteo_core.images import ImageLimits
from oteo_gateway import metrics
from oteo_gateway.prediction import predictor as predicting
from oteo_gateway.prediction.admission import Admission
from oteo_gateway.prediction.inputs import Inputs
from oteo_gateway.prediction.predictor import Predictor, Query
from oteo_gateway.prediction.routing import AUTO, Answering, Route, RoutedModel, Routes
from oteo_gateway.prediction.tensors import InferTemplate

ANSWER = service_pb2.ModelInferResponse(
    model_version="1",
    outputs=[service_pb2.ModelInferResponse.InferOutputTensor(name="probabilities", datatype="FP32", shape=[1, 3])],
    raw_output_contents=[np.array([[0.8, 0.1, 0.1]], np.float32).tobytes()],
).SerializeToString()


class Server:
    """A model server that answers when it may; `asked` is what it was given, `came` the same, to wait for."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self.came: asyncio.Queue[bytes] = asyncio.Queue()
        self.may = asyncio.Event()
        self.error: Exception | None = None

    async def infer(self, route: Route, request: bytes, seconds: float) -> bytes:
        self.asked.append(request)
        self.came.put_nowait(request)
        await self.may.wait()
        if self.error is not None:
            raise self.error
        return ANSWER


@asynccontextmanager
async def served(home: Path, *, models: int = 1, adapt: int = 0) -> AsyncIterator[tuple[Predictor, Server]]:
    store = ArtifactStore(f"file://{home}")
    parts = []
    for number in range(models):
        package = publish_model(store, f"colours-{number}")
        answering = Answering(package, InferTemplate(f"colours-{number}", "", package.input))
        parts.append(RoutedModel(answering, "", 100 // models, False, True))
    routes = Routes("deployments/colours", "uid", "mark", tuple(parts), adapt)
    server = Server()

    async def find(deployment: str) -> Routes:
        return routes

    inputs = Inputs(ImageStore(store, 1 << 20), ImageLimits())
    with ThreadPoolExecutor(2) as decoders:
        yield Predictor(find, server, inputs, Admission(8, 8), decoders, default_timeout=60, observer=metrics.PrometheusObserver()), server


def test_an_image_has_the_same_digest_and_shift_alone_as_beside_others(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as (predictor, server):
            query = Query("colours", content=picture("red"))
            alone = asyncio.create_task(predictor.predict(query, lambda: None))
            await asyncio.wait_for(server.came.get(), patient(20))
            # The first has its place still.
            beside = asyncio.create_task(predictor.predict(query, lambda: None))
            await asyncio.wait_for(server.came.get(), patient(20))
            server.may.set()
            first, second = await alone, await beside
            assert first.sha256 == second.sha256 == hashlib.sha256(query.content).hexdigest()
            assert first.shift is not None
            assert first.shift == second.shift
            assert first.answer == second.answer
            assert server.asked[0] == server.asked[1]

    asyncio.run(scenario())


@pytest.mark.parametrize(("models", "adapt", "waits"), [(1, 0, False), (2, 0, True), (1, AUTO, True)])
def test_the_model_is_asked_before_the_image_is_measured_only_where_nothing_depends_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, models: int, adapt: int, waits: bool
) -> None:
    async def scenario() -> None:
        async with served(tmp_path, models=models, adapt=adapt) as (predictor, server):
            loop, measure = asyncio.get_running_loop(), predicting.measured
            asked_when_measured: list[int] = []

            def measured(*arguments: object) -> object:
                # In a decoder's thread: what the loop has to do by now is done before it answers.
                asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop).result(patient(20))
                asked_when_measured.append(len(server.asked))
                return measure(*arguments)  # type: ignore[arg-type]

            monkeypatch.setattr(predicting, "measured", measured)
            server.may.set()
            answer = await predictor.predict(Query("colours", content=picture("red")), lambda: None)
            assert answer.shift is not None
            assert asked_when_measured == [0 if waits else 1]

    asyncio.run(scenario())


def test_a_failed_model_is_the_answer_whatever_becomes_of_the_measuring(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def measured(*arguments: object) -> object:
        raise MemoryError

    async def scenario() -> None:
        async with served(tmp_path) as (predictor, server):
            monkeypatch.setattr(predicting, "measured", measured)
            server.may.set()
            with pytest.raises(ResourceExhausted):
                await predictor.predict(Query("colours", content=picture("red")), lambda: None)
            server.error = Unavailable("It is away.", reason="DEPLOYMENT_NOT_READY")
            with pytest.raises(Unavailable):
                await predictor.predict(Query("colours", content=picture("red")), lambda: None)

    with caplog.at_level(logging.ERROR, "asyncio"):
        asyncio.run(scenario())
    assert not caplog.records, "an error that nobody asked for is no line of the log"
