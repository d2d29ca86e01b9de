"""All frames of a file, one after the other, no faster than they are answered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import structlog

from oteo_core.context import current
from oteo_core.errors import OteoError, ResourceExhausted, from_exception
from oteo_gateway.prediction.admission import Admission
from oteo_gateway.prediction.inputs import Inputs, OpenFile, Picture, at_image, goes_on
from oteo_gateway.prediction.predictor import Observer, Query

log = structlog.get_logger(__name__)

MOST_WAITING = 64 << 20
"""Bytes of a stream's decoded frames that wait for their answers; one frame more may be under way."""
_COME_AGAIN = 0.1


class Room:
    """A bound on the bytes of decoded frames that one stream holds."""

    def __init__(self, most: int = MOST_WAITING) -> None:
        self._most = most
        self._held = 0
        self._freed = asyncio.Event()

    async def wait(self) -> None:
        """Wait until less than the most is held."""
        while self._held >= self._most:
            self._freed.clear()
            await self._freed.wait()

    def take(self, size: int) -> None:
        """Hold so many bytes."""
        self._held += size

    def give(self, size: int) -> None:
        """Let so many bytes go."""
        self._held -= size
        self._freed.set()


@dataclass(frozen=True, slots=True)
class Decoded:
    """A frame, or why there is none; `release` is called when it was answered."""

    outcome: Picture | OteoError
    release: Callable[[], None] = lambda: None


class Frames:
    """Decodes files frame by frame.

    Parameters
    ----------
    find
        Gives a deployment that answers, or raises: nothing is decoded for one that is not there.
    inputs
        Opens files.
    admission
        Bound on what runs and waits: decoding a frame takes a place of its own.
    decoders
        Threads that decode.
    observer
        Takes what is refused.
    """

    def __init__(
        self, find: Callable[[str], Awaitable[Any]], inputs: Inputs, admission: Admission, decoders: ThreadPoolExecutor, observer: Observer
    ) -> None:
        self._find = find
        self._inputs = inputs
        self._admission = admission
        self._decoders = decoders
        self._observer = observer

    async def each(self, query: Query, room: Room) -> AsyncIterator[Decoded]:
        """Give each frame of a file in order. One that cannot be decoded is given as its error, and where what is behind may be whole it goes on.

        A frame is decoded when it is asked for and there is room; no more than one at a time.
        """
        try:
            await self._find(query.deployment_id)
            file = await self._work(self._inputs.open, query)
        except Exception as error:  # noqa: BLE001 (whatever it is, it is this file's answer and ends no stream)
            known = self._known(error)
            self._observer.refused(query.deployment_id if known.reason != "DEPLOYMENT_NOT_FOUND" else "", known.reason)
            yield Decoded(known)
            return
        decoders = file.decoders()
        for number in range(file.frames):
            await room.wait()
            try:
                picture = await self._work(_decode, file, decoders, number)
            except Exception as error:  # noqa: BLE001 (whatever it is, it is this file's answer and ends no stream)
                known = self._known(error)
                self._observer.refused(query.deployment_id, known.reason)
                yield Decoded(known)
                if not goes_on(known):
                    return
            else:
                size = picture.pixels.nbytes
                room.take(size)
                yield Decoded(picture, lambda size=size: room.give(size))  # type: ignore[misc]

    @staticmethod
    def _known(error: Exception) -> OteoError:
        """Give an error as one of ours."""
        if isinstance(error, OteoError):
            return error
        log.error("frames_failed", exc_info=error)
        return from_exception(error)

    async def _work(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Work in a place of its own. Where no more may wait, it comes again later by itself: a refusal would be a frame that is left out."""
        while True:
            try:
                async with self._admission.enter(caller=current().caller):
                    return await asyncio.get_running_loop().run_in_executor(self._decoders, function, *arguments)
            except ResourceExhausted as error:
                if error.reason != "TOO_MANY_REQUESTS":
                    raise
                await asyncio.sleep(error.retry_after or _COME_AGAIN)


def _decode(file: OpenFile, decoders: Any, number: int) -> Picture:
    with at_image():
        return file.picture(decoders, number)
