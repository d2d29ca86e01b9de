"""Streams of settings and then items, each answered in its turn; an item's error is its answer and ends nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Generic, TypeVar

import structlog
from google.protobuf.message import DecodeError, Message
from google.rpc import status_pb2

from oteo_core.errors import InvalidArgument, OteoError, from_exception
from oteo_core.server.streams import answered_in_order
from oteo_core.server.validation import validate

Settings = TypeVar("Settings")
Response = TypeVar("Response")

log = structlog.get_logger(__name__)


class ItemStream(Generic[Settings, Response]):
    """Answers streams whose messages have a oneof ``payload`` of ``settings`` (first, and once) and ``item`` (with a ``key``).

    Requests come as bytes, so that a bad one is answered and does not end the stream.

    Parameters
    ----------
    request
        The contract's request message.
    open_settings
        Reads the settings' message, in a thread; raises where no image could be answered with them.
    answer
        Gives the answers to one item, in a thread.
    failed
        Makes the answer of an item that failed of its key and status.
    threads
        Items that are worked on at a time, by all streams together.
    needs_settings
        True: a stream that begins with an item is refused; False: it gets the settings' defaults.
    """

    def __init__(
        self,
        request: type[Message],
        open_settings: Callable[[Any], Settings],
        answer: Callable[[Settings, Any], Sequence[Response]],
        failed: Callable[[str, status_pb2.Status], Response],
        threads: int,
        *,
        needs_settings: bool = False,
    ) -> None:
        self._request = request
        self._open = open_settings
        self._answer = answer
        self._failed = failed
        self._window = 2 * threads
        self._needs_settings = needs_settings
        self._pool = ThreadPoolExecutor(threads, f"{request.DESCRIPTOR.name}-items")

    async def answer(self, requests: AsyncIterator[bytes]) -> AsyncIterator[Response]:
        """Answer one stream.

        Raises
        ------
        InvalidArgument
            ``SETTINGS_MISSING``, or what the settings are refused with.
        """
        first = await anext(requests, None)
        if first is None:
            return
        message = self._parsed(first)
        if message.WhichOneof("payload") == "settings":
            validate(message)
            settings = await asyncio.to_thread(self._open, message.settings)
        elif self._needs_settings:
            raise InvalidArgument("settings come first in this stream", reason="SETTINGS_MISSING", field="settings")
        else:
            settings = await asyncio.to_thread(self._open, type(message.settings)())
            requests = _chained(first, requests)
        async for response in answered_in_order(requests, partial(self._item, settings), self._window):
            yield response

    async def _item(self, settings: Settings, data: bytes) -> Sequence[Response]:
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._work, settings, data)

    def _work(self, settings: Settings, data: bytes) -> Sequence[Response]:
        key = ""
        try:
            message = self._parsed(data)
            key = message.item.key
            validate(message)
            if message.WhichOneof("payload") != "item":
                raise InvalidArgument(  # noqa: TRY301
                    "settings come first in a stream, and once", reason="SETTINGS_NOT_FIRST", field="settings"
                )
            return self._answer(settings, message.item)
        except OteoError as error:
            return [self._failed(key, error.to_status())]
        except Exception as error:
            log.exception("item_failed", key=key)
            return [self._failed(key, from_exception(error).to_status())]

    def _parsed(self, data: bytes) -> Any:
        try:
            return self._request.FromString(data)
        except DecodeError as error:
            raise InvalidArgument(f"this is not {self._request.DESCRIPTOR.name}: {error}", reason="BAD_MESSAGE") from error


async def _chained(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for one in rest:
        yield one
