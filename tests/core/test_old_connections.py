"""A server ends connections of a certain age, so that callers find replicas that came later; what is being answered goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc

from oteo_core.server import build_server
from oteo_core.server.channels import channel_options
from oteo_core.settings import CoreSettings


class Ticks(grpc.GenericRpcHandler):
    """One method, which answers for two seconds and says in each message who asked."""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        async def tick(_: bytes, context: Any) -> AsyncIterator[bytes]:
            for _number in range(8):
                await asyncio.sleep(0.25)
                yield context.peer().encode()

        return grpc.unary_stream_rpc_method_handler(tick) if handler_call_details.method == "/t.T/Tick" else None


def test_a_connection_ends_at_its_age_and_a_call_on_it_does_not() -> None:
    async def follow() -> tuple[list[bytes], bytes]:
        settings = CoreSettings(allow_anonymous=True, max_connection_age_seconds=0.5)

        def register(server: grpc.aio.Server) -> Sequence[str]:
            server.add_generic_rpc_handlers((Ticks(),))
            return ()

        server = build_server(settings, service="augment", register=register, listen="127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            call = channel.unary_stream("/t.T/Tick")
            first = [message async for message in call(b"")]
            second = await call(b"").read()
        await server.stop(0)
        return first, second

    first, second = asyncio.run(follow())
    assert len(first) == 8
    assert len(set(first)) == 1
    # Another connection has another port of the caller's.
    assert second != first[0]


def test_only_addresses_that_dns_may_know_several_of_are_asked_in_turn() -> None:
    settings = CoreSettings(allow_anonymous=True)
    assert ("grpc.lb_policy_name", "round_robin") in channel_options("dns:///augment.oteo.svc:7001", settings)
    assert "grpc.lb_policy_name" not in dict(channel_options("127.0.0.1:7001", settings))
