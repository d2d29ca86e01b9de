"""The SDK for asyncio: predictions, and any other call of the contract, with the same retries and errors.

>>> async with oteo.AsyncClient() as client:
...     answer = await client.predict("lesions", "image.png")
...     async for item in client.predict_many("lesions", paths):
...         print(item.image, item.error or item.response)
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from types import TracebackType
from typing import Any

import grpc
from google.longrunning import operations_pb2, operations_pb2_grpc
from google.protobuf import duration_pb2

from oteo.connection import channel_credentials, channel_options, find_endpoint
from oteo.errors import OteoApiError
from oteo.names import resource
from oteo.predictions import predict_request
from oteo.retrying import POLICY, RetryPolicy, made_repeatable
from oteo.streaming import WINDOW, Image, Streamed
from oteo_protos.gateway.v1 import inference_pb2, inference_pb2_grpc


class AsyncClient:
    """A connection to Oteo's gateway for asyncio. Make it inside the event loop.

    Parameters
    ----------
    address, token
        As for `oteo.Client`.
    policy
        Which calls are made again.

    Attributes
    ----------
    channel
        For stubs of one's own: ``client.call(SomeServiceStub(client.channel).SomeMethod, request)``.
    """

    def __init__(self, address: str | None = None, token: str | None = None, *, policy: RetryPolicy = POLICY) -> None:
        self.endpoint = find_endpoint(address, token)
        self._policy = policy
        options = channel_options(self.endpoint)
        credentials = channel_credentials(self.endpoint)
        if credentials is not None:
            self.channel = grpc.aio.secure_channel(self.endpoint.address, credentials, options)
        else:
            self.channel = grpc.aio.insecure_channel(self.endpoint.address, options)
        self._inference = inference_pb2_grpc.InferenceServiceStub(self.channel)
        self._operations = operations_pb2_grpc.OperationsStub(self.channel)

    async def __aenter__(self) -> AsyncClient:
        """Give the client; leaving the block closes it."""
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close the connection."""
        await self.close()

    async def _metadata(self) -> tuple[tuple[str, str], ...]:
        token = self.endpoint.token
        if token is None:
            return ()
        # What gives tokens may ask an issuer for a new one.
        text = token if isinstance(token, str) else await asyncio.to_thread(token)
        return (("authorization", f"Bearer {text}"),)

    async def close(self) -> None:
        """Close the connection."""
        await self.channel.close()

    async def call(self, method: Any, request: Any, timeout: float | None = None) -> Any:  # noqa: ASYNC109 - gRPC's own deadline
        """Call a unary method of a stub on `channel`, and again where AIP-194 has it; ``timeout`` in seconds, for all attempts together.

        Raises
        ------
        OteoApiError
            The service's status.
        """
        until = None if timeout is None else time.monotonic() + timeout
        request, attempt = made_repeatable(request), 0
        while True:
            attempt += 1
            left = None if until is None else max(0.0, until - time.monotonic())
            try:
                return await method(request, timeout=left, metadata=await self._metadata())
            except grpc.aio.AioRpcError as error:
                failed = OteoApiError.from_rpc(error)
            pause = self._policy.pause(failed, attempt, None if until is None else until - time.monotonic())
            if pause is None:
                raise failed
            await asyncio.sleep(pause)

    async def predict(
        self,
        deployment: str,
        image: Image,
        *,
        timeout: float = 60.0,  # noqa: ASYNC109 - gRPC's own deadline
        **options: Any,
    ) -> inference_pb2.PredictResponse:
        """Answer for one image; see `oteo.Client.predict`."""
        request = await asyncio.to_thread(predict_request, deployment, image, **options)
        response: inference_pb2.PredictResponse = await self.call(self._inference.Predict, request, timeout)
        return response

    async def predict_many(
        self, deployment: str, images: Iterable[Image] | AsyncIterable[Image], *, window: int = WINDOW, **options: Any
    ) -> AsyncIterator[Streamed]:
        """Answer for many images through one stream, in order; see `oteo.Client.predict_many`."""
        # Read by a task of its own, which no broken stream interrupts: an image that is taken from the source is sent.
        read: asyncio.Queue[Streamed | None] = asyncio.Queue(1)

        async def fill() -> None:
            try:
                async for image in _each(images):
                    await read.put(await asyncio.to_thread(Streamed.of, deployment, image, options))
            finally:
                await read.put(None)

        reader = asyncio.create_task(fill())
        try:
            async for item in self._answers(read, window):
                yield item
            await reader
        finally:
            reader.cancel()

    async def _answers(self, read: asyncio.Queue[Streamed | None], window: int) -> AsyncIterator[Streamed]:
        waiting: deque[Streamed] = deque()
        attempt, ended = 0, False
        while True:
            attempt += 1
            room, again = asyncio.Semaphore(max(0, window - sum(item.request is not None for item in waiting))), list(waiting)
            stream = self._inference.PredictStream(metadata=await self._metadata())

            async def send(item: Streamed, stream: Any = stream) -> None:
                if item.request is not None:
                    await stream.write(inference_pb2.PredictStreamRequest(request=item.request))

            async def write(stream: Any = stream, again: list[Streamed] = again, room: asyncio.Semaphore = room, send: Any = send) -> None:
                nonlocal ended
                for item in again:
                    await send(item)
                while not ended:
                    await room.acquire()
                    new = await read.get()
                    ended = new is None
                    if new is not None:
                        waiting.append(new)
                        await send(new)
                    if new is None or new.request is None:
                        # Not under way: no answer to it will ever make room.
                        room.release()
                await stream.done_writing()

            writer = asyncio.create_task(write())
            try:
                async for answer in stream:
                    attempt = 1
                    room.release()
                    for item in _settled(waiting, answer):
                        yield item
                await writer
            except grpc.aio.AioRpcError as error:
                failed = OteoApiError.from_rpc(error)
                pause = self._policy.pause(failed, attempt, None)
                if pause is None:
                    raise failed from None
                await asyncio.sleep(pause)
                continue
            finally:
                stream.cancel()
                writer.cancel()
                await asyncio.gather(writer, return_exceptions=True)
            for item in _settled(waiting, None):
                yield item
            return

    async def wait(self, name: str, timeout: float | None = None) -> operations_pb2.Operation:  # noqa: ASYNC109 - of many calls
        """Wait until an operation has ended, however it ended, and give it.

        Raises
        ------
        OteoApiError
            DEADLINE_EXCEEDED, reason WAIT_TIMEOUT, after ``timeout`` seconds; the operation goes on.
        """
        until = None if timeout is None else time.monotonic() + timeout
        request = operations_pb2.WaitOperationRequest(name=resource("operations", name), timeout=duration_pb2.Duration(seconds=1))
        while True:
            operation: operations_pb2.Operation = await self.call(self._operations.WaitOperation, request, 30)
            if operation.done:
                return operation
            if until is not None and time.monotonic() >= until:
                raise OteoApiError("DEADLINE_EXCEEDED", f"{name} has not ended within {timeout:g} s; it goes on", reason="WAIT_TIMEOUT")
            # A service that answers at once instead of waiting is not asked without pause.
            await asyncio.sleep(0.1)


async def _each(images: Iterable[Image] | AsyncIterable[Image]) -> AsyncIterator[Image]:
    if isinstance(images, AsyncIterable):
        async for image in images:
            yield image
    else:
        for image in images:
            yield image


def _settled(waiting: deque[Streamed], answer: inference_pb2.PredictStreamResponse | None) -> list[Streamed]:
    """Take out what an answer settles: those before and after it that could not be read, and its own."""
    done = []
    while waiting and (waiting[0].request is None or answer is not None):
        item = waiting.popleft()
        if item.request is not None and answer is not None:
            item, answer = item.take(answer), None
        done.append(item)
    return done
