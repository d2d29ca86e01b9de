"""Callers who ask at a fixed rate whatever the answers, in a process of their own and at little cost: what a flood itself takes of the machine, its victim lacks.

``python flood_callers.py ADDRESS`` reads the rest from standard input (see `flooded`) and writes what became of each call to standard output.
Requests are serialised once, and answers are looked into when the flood is over.
"""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import grpc
from waiting import patient

CHANNELS = 4


@dataclass(frozen=True)
class Flooded:
    """How one call ended: when, by `time.monotonic`, with which status, and its answer or its status' details."""

    end: float
    code: str
    data: bytes


class Flood:
    """A flood that is under way.

    Parameters
    ----------
    address
        The gateway's.
    method
        Full path of a unary call.
    requests
        Serialised; sent in turn.
    metadata
        Of every call.
    rate
        Calls a second.
    seconds
        How long.
    patience
        Each call's deadline, seconds.
    """

    def __init__(
        self,
        address: str,
        method: str,
        requests: Sequence[bytes],
        metadata: Sequence[tuple[str, str]],
        *,
        rate: float,
        seconds: float,
        patience: float,
    ) -> None:
        asked = {
            "method": method,
            "requests": [base64.b64encode(request).decode() for request in requests],
            "metadata": [list(pair) for pair in metadata],
            "rate": rate,
            "seconds": seconds,
            "patience": patience,
        }
        self._process = subprocess.Popen([sys.executable, __file__, address], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(asked).encode())
        self._process.stdin.close()

    def begun(self) -> float:
        """Wait until the first call is made; gives the moment."""
        return float(self._line()["begin"])

    def ended(self) -> list[Flooded]:
        """Wait until every call has ended, and give how."""
        found = self._line()["ended"]
        assert self._process.wait(patient(20)) == 0
        return [Flooded(end, code, base64.b64decode(data)) for end, code, data in found]

    def _line(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the flood broke off"
        return json.loads(line)


async def _flood(address: str, asked: dict[str, Any]) -> list[tuple[float, str, bytes]]:
    channels = [grpc.aio.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) for _ in range(CHANNELS)]
    calls = [channel.unary_unary(asked["method"]) for channel in channels]
    requests = [base64.b64decode(request) for request in asked["requests"]]
    metadata = tuple((key, value) for key, value in asked["metadata"])
    patience, rate = asked["patience"], asked["rate"]
    ended: list[tuple[float, str, Any]] = []

    async def one(number: int) -> None:
        try:
            answer = await calls[number % CHANNELS](requests[number % len(requests)], metadata=metadata, timeout=patience)
        except grpc.aio.AioRpcError as error:
            ended.append((time.monotonic(), error.code().name, error))
        else:
            ended.append((time.monotonic(), "OK", answer))

    for channel in channels:
        await channel.channel_ready()
    begin = time.monotonic()
    print(json.dumps({"begin": begin}), flush=True)
    tasks = []
    for number in range(int(rate * asked["seconds"])):
        wait = begin + number / rate - time.monotonic()
        if wait > 0:
            await asyncio.sleep(wait)
        tasks.append(asyncio.create_task(one(number)))
    await asyncio.gather(*tasks)
    for channel in channels:
        await channel.close()
    return [(end, code, found if code == "OK" else _details(found)) for end, code, found in ended]


def _details(error: grpc.aio.AioRpcError) -> bytes:
    found = [value for key, value in error.trailing_metadata() or () if key == "grpc-status-details-bin"]
    return bytes(found[0]) if found else b""


def main() -> None:
    """Flood."""
    ended = asyncio.run(_flood(sys.argv[1], json.load(sys.stdin)))
    print(json.dumps({"ended": [(end, code, base64.b64encode(data).decode()) for end, code, data in ended]}), flush=True)


if __name__ == "__main__":
    main()
