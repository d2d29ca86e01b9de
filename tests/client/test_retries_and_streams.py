"""Calls that are made again and those that are not; many images through one stream, sync and asyncio, also where the stream breaks."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from waiting import patient

import oteo
from oteo.retrying import RetryPolicy
from oteo_core.errors import InvalidArgument, Unavailable
from oteo_protos.gateway.v1 import deployment_pb2, inference_pb2, inference_pb2_grpc

QUICK = RetryPolicy(first=0.01, longest=0.02)


def _error(code: str, retry_after: float | None = None) -> oteo.OteoApiError:
    return oteo.OteoApiError(code, "away", retry_after=retry_after)


def test_only_unavailable_is_asked_again_within_deadline_and_number() -> None:
    policy = RetryPolicy(attempts=4, first=0.2, longest=0.5)
    pauses = [policy.pause(_error("UNAVAILABLE"), attempt, None) for attempt in (1, 2, 3)]
    assert all(low <= pause <= high for pause, low, high in zip(pauses, (0.1, 0.2, 0.25), (0.2, 0.4, 0.5), strict=True))
    assert policy.pause(_error("UNAVAILABLE"), 4, None) is None
    for code in ("RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED", "INTERNAL", "ABORTED", "NOT_FOUND"):
        assert policy.pause(_error(code, 0.1), 1, None) is None
    assert policy.pause(_error("UNAVAILABLE", 2.0), 1, None) == 2.0, "the service says when"
    assert policy.pause(_error("UNAVAILABLE", 2.0), 1, 1.5) is None, "not after the caller's deadline"


def test_a_changing_call_is_made_again_under_one_request_id(client, world, tmp_path) -> None:
    world.unavailable = 1
    request = deployment_pb2.DeleteDeploymentRequest(name="deployments/x")
    seen: list[str] = []

    def method(request, timeout=None):
        seen.append(request.request_id)
        if len(seen) < 3:
            raise _Away
        return "done"

    class _Away(grpc.RpcError):
        @staticmethod
        def code():
            return grpc.StatusCode.UNAVAILABLE

        @staticmethod
        def details():
            return "away"

        @staticmethod
        def trailing_metadata():
            return ()

    assert oteo.connection.call(method, request, 30, QUICK) == "done"
    assert len(set(seen)) == 1
    assert len(seen[0]) == 36
    assert len(seen) == 3


class Inference(inference_pb2_grpc.InferenceServiceServicer):
    """Answers with the length of an image; breaks streams and refuses images as told."""

    def __init__(self) -> None:
        self.breaks = [5, 3]
        self.streams = 0
        self.most = 0
        self.hold = threading.Event()
        self.hold.set()

    def PredictStream(self, request_iterator, context):
        self.streams += 1
        left = self.breaks.pop(0) if self.breaks else None
        for number, item in enumerate(request_iterator):
            if left is not None and number >= left:
                status = Unavailable("restarting", retry_after=0.01).to_status()
                context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
                context.abort(grpc.StatusCode.UNAVAILABLE, status.message)
            size = len(item.request.image.content)
            if size == 13:
                yield inference_pb2.PredictStreamResponse(error=InvalidArgument("unlucky", reason="UNREADABLE_IMAGE").to_status())
            else:
                yield inference_pb2.PredictStreamResponse(response=inference_pb2.PredictResponse(model=f"models/m{size}"))


@pytest.fixture
def served() -> Iterator[tuple[Inference, str]]:
    servicer = Inference()
    server = grpc.server(ThreadPoolExecutor(8), options=[("grpc.so_reuseport", 0)])
    inference_pb2_grpc.add_InferenceServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield servicer, f"127.0.0.1:{port}"
    server.stop(0)


def _images(folder: Path) -> list[bytes | Path]:
    """Twenty images of 1 to 20 bytes, some as files, and a file that is not there."""
    images: list[bytes | Path] = []
    for size in range(1, 21):
        if size % 4:
            images.append(b"x" * size)
        else:
            (folder / f"{size}.png").write_bytes(b"x" * size)
            images.append(folder / f"{size}.png")
    images.insert(7, folder / "missing.png")
    images.append(folder / "last-missing.png")
    return images


def _check(found: list[oteo.Streamed], images: list[bytes | Path]) -> None:
    assert [item.image for item in found] == images
    for item in found:
        size = (
            item.image.stat().st_size
            if isinstance(item.image, Path) and item.image.exists()
            else len(item.image)
            if isinstance(item.image, bytes)
            else 0
        )
        if size in (0, 13):
            assert item.response is None
            assert item.error is not None
            assert item.error.reason == ("UNREADABLE_IMAGE" if size else "FILE_NOT_FOUND")
        else:
            assert item.response is not None
            assert item.response.model == f"models/m{size}"


@pytest.mark.parametrize("window", [1, 4, 100])
def test_many_images_in_order_through_streams_that_break(served, tmp_path, window) -> None:
    servicer, address = served
    images = _images(tmp_path)
    with oteo.Client(address, "t") as client:
        found = list(client.predict_many("d", images, window=window))
    _check(found, images)
    assert servicer.streams == 3


@pytest.mark.parametrize("window", [1, 4, 100])
def test_the_same_for_asyncio(served, tmp_path, window) -> None:
    servicer, address = served
    images = _images(tmp_path)

    async def scenario() -> list[oteo.Streamed]:
        async with oteo.AsyncClient(address, "t", policy=QUICK) as client:
            return [item async for item in client.predict_many("d", images, window=window)]

    _check(asyncio.run(scenario()), images)
    assert servicer.streams == 3


def test_no_more_are_read_than_the_window_holds(served) -> None:
    servicer, address = served
    servicer.breaks = []
    taken: list[int] = []

    def source() -> Iterator[bytes]:
        for size in range(1, 50):
            taken.append(size)
            yield b"x" * size

    with oteo.Client(address, "t") as client:
        answers = client.predict_many("d", source(), window=3)
        next(answers)
        time.sleep(0.3)
        assert len(taken) <= 5
        answers.close()


def test_a_source_that_fails_says_so(served) -> None:
    servicer, address = served
    servicer.breaks = []

    def source() -> Iterator[bytes]:
        yield b"x"
        raise RuntimeError("the camera is off")

    with oteo.Client(address, "t") as client, pytest.raises(RuntimeError, match="camera"):
        list(client.predict_many("d", source()))

    async def scenario() -> None:
        async with oteo.AsyncClient(address, "t") as opened:
            async for _ in opened.predict_many("d", source()):
                pass

    with pytest.raises(RuntimeError, match="camera"):
        asyncio.run(scenario())


def test_a_gateway_that_stays_away_ends_the_stream(served) -> None:
    servicer, address = served
    servicer.breaks = [0] * 20

    async def scenario() -> None:
        async with oteo.AsyncClient(address, "t", policy=QUICK) as client:
            async for _ in client.predict_many("d", [b"x"]):
                pass

    with pytest.raises(oteo.OteoApiError) as caught:
        asyncio.run(scenario())
    assert caught.value.code == "UNAVAILABLE"


def test_asyncio_asks_a_service_that_is_away_again_and_gives_its_errors(world, tmp_path) -> None:
    from oteo_protos.augment.v1 import dataset_pb2, dataset_pb2_grpc

    async def scenario() -> None:
        async with oteo.AsyncClient(policy=QUICK) as client:
            stub = dataset_pb2_grpc.DatasetServiceStub(client.channel)
            operation = await client.call(stub.ImportDataset, dataset_pb2.ImportDatasetRequest(source_uri="file:///x"), patient(10))
            assert (await client.wait(operation.name, patient(20))).done
            world.unavailable = 2
            assert (
                await client.call(stub.GetDataset, dataset_pb2.GetDatasetRequest(name="datasets/cells"), patient(10))
            ).name == "datasets/cells"
            with pytest.raises(oteo.OteoApiError) as caught:
                await client.call(stub.GetDataset, dataset_pb2.GetDatasetRequest(name="datasets/none"), patient(10))
            assert caught.value.reason == "DATASET_NOT_FOUND"

    asyncio.run(scenario())
