"""Many images through one stream: a window of them is under way, answers come in order, and a stream that breaks is taken up where it broke."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import grpc

from oteo.errors import OteoApiError
from oteo.predictions import predict_request
from oteo.retrying import POLICY, RetryPolicy
from oteo_protos.gateway.v1 import inference_pb2

Image = bytes | str | os.PathLike[str]
WINDOW = 16


@dataclass
class Streamed:
    """One image of a stream, and what came of it.

    Attributes
    ----------
    image
        As it was given.
    response
        The answer; None where there is an error.
    error
        Why this image has no answer; the others go on.
    """

    image: Image
    response: inference_pb2.PredictResponse | None = None
    error: OteoApiError | None = None
    request: inference_pb2.PredictRequest | None = None
    """What is sent; gone once it is answered."""

    @classmethod
    def of(cls, deployment: str, image: Image, options: dict[str, Any]) -> Streamed:
        """Read an image; one that cannot be read has its error already."""
        try:
            return cls(image, request=predict_request(deployment, image, **options))
        except OteoApiError as error:
            return cls(image, error=error)

    def take(self, answer: inference_pb2.PredictStreamResponse) -> Streamed:
        """Put in what the service said."""
        self.request = None
        if answer.HasField("error"):
            self.error = OteoApiError.from_status(answer.error)
        else:
            self.response = answer.response
        return self


class _Feed:
    """What gRPC's own thread reads requests from: what was sent and not answered first, then what is new, as the window has room."""

    def __init__(self, source: Iterator[Streamed], window: int) -> None:
        self._source = source
        self._window = window
        self._condition = threading.Condition()
        self._reading = threading.Lock()
        self._unsent: deque[Streamed] = deque()
        self._stream = 0
        self.open: deque[Streamed] = deque()
        self.failed: BaseException | None = None

    def requests(self) -> Iterator[inference_pb2.PredictStreamRequest]:
        """Give the requests of a new stream; the one before it gets no more."""
        with self._condition:
            self._stream += 1
            mine, again = self._stream, list(self.open)
            self._condition.notify_all()
        for old in again:
            if old.request is not None:
                yield inference_pb2.PredictStreamRequest(request=old.request)
        while (item := self._next(mine)) is not None:
            if item.request is not None:
                yield inference_pb2.PredictStreamRequest(request=item.request)

    def _next(self, mine: int) -> Streamed | None:
        with self._condition:
            # One that could not be read is not under way: no answer to it will ever make room.
            while sum(item.request is not None for item in self.open) >= self._window and mine == self._stream:
                self._condition.wait()
        # The source may take its time; answers are not kept waiting for it.
        with self._reading:
            with self._condition:
                if mine != self._stream:
                    return None
                if self._unsent:
                    return self._unsent.popleft()
            try:
                item = next(self._source, None)
            except BaseException as error:  # noqa: BLE001 - raised in the caller's own thread
                self.failed = error
                return None
            with self._condition:
                if item is not None:
                    self.open.append(item)
                    if mine != self._stream:
                        # The stream ended meanwhile: the next one sends it.
                        self._unsent.append(item)
                        return None
            return item

    def answered(self, answer: inference_pb2.PredictStreamResponse) -> Iterator[Streamed]:
        """Give what an answer settles: those before it that could not be read, and its own."""
        yield from self.unreadable()
        yield self._pop().take(answer)
        yield from self.unreadable()

    def unreadable(self) -> Iterator[Streamed]:
        """Give those at the head that were never sent."""
        while self.open and self.open[0].request is None:
            yield self._pop()

    def _pop(self) -> Streamed:
        with self._condition:
            item = self.open.popleft()
            self._condition.notify_all()
        return item

    def close(self) -> None:
        """Let the thread that waits go."""
        with self._condition:
            self._stream += 1
            self._condition.notify_all()


def predict_many(
    stub: Any,
    deployment: str,
    images: Iterable[Image],
    *,
    window: int = WINDOW,
    timeout: float | None = None,
    policy: RetryPolicy = POLICY,
    **options: Any,
) -> Iterator[Streamed]:
    """Answer for images through one stream; see `oteo.Client.predict_many`."""
    until = None if timeout is None else time.monotonic() + timeout
    feed = _Feed((Streamed.of(deployment, image, options) for image in images), window)
    attempt = 0
    try:
        while True:
            attempt += 1
            left = None if until is None else max(0.0, until - time.monotonic())
            call = stub.PredictStream(feed.requests(), timeout=left)
            try:
                for answer in call:
                    attempt = 1
                    yield from feed.answered(answer)
            except grpc.RpcError as error:
                failed = OteoApiError.from_rpc(error)
                pause = policy.pause(failed, attempt, None if until is None else until - time.monotonic())
                if pause is None:
                    raise failed from None
                time.sleep(pause)
                continue
            finally:
                call.cancel()
            if feed.failed is not None:
                raise feed.failed
            yield from feed.unreadable()
            return
    finally:
        feed.close()
