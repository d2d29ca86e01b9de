"""A server of ours on loopback, in a thread with an event loop of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

from waiting import patient

from oteo_core.access import Crowd
from oteo_core.server import Server, build_server
from oteo_core.settings import CoreSettings


class LiveServer:
    """A running server; `stop` drains it."""

    def __init__(
        self,
        settings: CoreSettings,
        register: Callable[[Any], Sequence[str]],
        generic_handlers: Sequence[Any] = (),
        crowd: Crowd | None = None,
    ) -> None:
        self.settings = settings
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

        async def start() -> Server:
            server = build_server(
                settings, service="test", register=register, generic_handlers=generic_handlers, listen="127.0.0.1:0", crowd=crowd
            )
            await server.start()
            return server

        self.server = self.run(start()).result(patient(20))
        self.address = f"127.0.0.1:{self.server.port}"

    def run(self, coroutine: Any) -> Future[Any]:
        """Run a coroutine in the server's loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    def stop(self, grace: float = 0.0) -> Future[Any]:
        """Begin to drain."""
        return self.run(self.server.stop(grace))

    def close(self) -> None:
        """Stop at once and end the thread."""
        self.stop().result(patient(20))
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(patient(10))
        self.loop.close()


@contextmanager
def live_server(
    settings: CoreSettings, register: Callable[[Any], Sequence[str]], generic_handlers: Sequence[Any] = (), crowd: Crowd | None = None
) -> Iterator[LiveServer]:
    """Run a server for the length of a block."""
    server = LiveServer(settings, register, generic_handlers, crowd)
    try:
        yield server
    finally:
        server.close()
