"""Replicas come and go with what DNS says; a DNS that is silent changes nothing."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from oteo_core.errors import InvalidArgument, Unavailable
from oteo_gateway.forward_service import Backend
from oteo_gateway.open_inference_service import TritonRouter
from oteo_gateway.replicas import Replica, Replicas, resolve


class Channel:
    def __init__(self) -> None:
        self.closed = False

    async def close(self) -> None:
        self.closed = True


def make(address: str) -> Replica:
    channel: Any = Channel()
    backend = Backend("triton", address, channel)
    control: Any = SimpleNamespace(close=lambda: None)
    keeper: Any = SimpleNamespace(address=address)
    return Replica(address, backend, control, keeper)


def test_replicas_follow_dns_and_outlive_its_silence() -> None:
    answers: list[list[str] | OSError] = [["10.0.0.1:8001"], ["10.0.0.1:8001", "10.0.0.2:8001"], OSError("no DNS"), ["10.0.0.2:8001"], []]
    seen: list[list[str]] = []

    async def resolver(host: str, port: int) -> list[str]:
        assert (host, port) == ("triton.oteo.svc", 8001)
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer

    def changed(found: Sequence[Replica]) -> None:
        seen.append([replica.address for replica in found])

    async def follow() -> None:
        replicas = Replicas(["here:8001", "dns:///triton.oteo.svc:8001"], make, changed, period=0.01, resolver=resolver)
        assert [replica.address for replica in replicas.current()] == ["here:8001"]
        kept = replicas.current()[0]
        while answers:
            await replicas.refresh()
        assert replicas.current() == (kept,)
        await replicas.close()
        channel: Any = kept.backend.channel
        assert channel.closed

    asyncio.run(follow())
    assert seen == [
        ["here:8001", "10.0.0.1:8001"],
        ["here:8001", "10.0.0.1:8001", "10.0.0.2:8001"],
        ["here:8001", "10.0.0.2:8001"],
        ["here:8001"],
    ]


def test_a_name_without_addresses_has_no_replicas_and_one_with_some_has_each(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "127.0.0.1:8001" in asyncio.run(resolve("localhost", 8001))

    def none(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", none)
    assert asyncio.run(resolve("triton", 8001)) == []


@pytest.mark.parametrize("url", ["dns:///triton", "dns:triton:8001", "dns:///triton:http"])
def test_an_address_that_names_no_port_is_refused(url: str) -> None:
    with pytest.raises(InvalidArgument, match="dns:///NAME:PORT"):
        Replicas([url], make, lambda _: None, period=1.0)


def test_without_any_replica_a_call_is_told_that_none_runs_and_with_new_ones_they_take_turns() -> None:
    counted: list[int] = []
    healthy = {"a:1", "b:1"}
    router = TritonRouter([], healthy=lambda: healthy, serving=lambda _: None, failed=lambda _: None, nobody=lambda: counted.append(1))
    with pytest.raises(Unavailable) as refused:
        router.candidates("/inference.GRPCInferenceService/ServerLive", b"")
    assert refused.value.reason == "NO_REPLICA"
    assert counted == [1], "the autoscaler starts the first replica for such callers"
    router.replace([make("a:1").backend, make("b:1").backend])
    assert {router.order("")[0].address for _ in range(4)} == {"a:1", "b:1"}
    router.candidates("/inference.GRPCInferenceService/ServerLive", b"")
    assert counted == [1]
    healthy.clear()
    assert router.candidates("/inference.GRPCInferenceService/ServerLive", b""), "it may have come back"
    assert counted == [1, 1], "the last one has left, and DNS still names it"
