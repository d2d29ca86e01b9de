"""Streams in both directions whose answers come in the order of their requests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import TypeVar

Request = TypeVar("Request")
Response = TypeVar("Response")


async def answered_in_order(
    requests: AsyncIterator[Request], answer: Callable[[Request], Awaitable[Iterable[Response]]], window: int
) -> AsyncIterator[Response]:
    """Answer requests as they come, some at a time, in their order.

    Parameters
    ----------
    requests
        The caller's; read no faster than it takes its answers.
    answer
        Gives the answers to one request. It must not raise for what is wrong with the request: that ends the stream.
    window
        Requests that are worked on, or wait answered, at a time.
    """
    places = asyncio.Semaphore(window)
    answers: asyncio.Queue[asyncio.Task[Iterable[Response]] | None] = asyncio.Queue()

    async def work(request: Request) -> Iterable[Response]:
        return await answer(request)

    async def read() -> None:
        try:
            async for request in requests:
                await places.acquire()
                answers.put_nowait(asyncio.create_task(work(request)))
        finally:
            answers.put_nowait(None)

    reader = asyncio.create_task(read())
    try:
        while (task := await answers.get()) is not None:
            for response in await task:
                yield response
            places.release()
        await reader
    finally:
        reader.cancel()
        while not answers.empty():
            left = answers.get_nowait()
            if left is not None:
                left.cancel()
