"""What the gateway itself does around a call, without gRPC, decoding and the model: door, request id, checks, metrics, audit record, log line.

``python benchmarks/call_cost.py [--calls 200] [--repeats 15]``

Processor time of one thread by the real interceptor with the gateway's own hook over an audit log on disk, for a `Predict` that is answered and for one that is
refused for want of room: the smallest and the median of the repeats. The smallest is what a crowded machine spoils least. A bare grpc.aio server takes about
200 microseconds a call beside this.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import uvloop

from oteo_core import telemetry
from oteo_core.access import SharedTokenDoor
from oteo_core.auditlog import AuditLog
from oteo_core.server.calls import CallInterceptor
from oteo_gateway import metrics
from oteo_gateway.auditing.hook import AuditHook
from oteo_gateway.auditing.methods import Methods
from oteo_gateway.prediction.admission import Admission
from oteo_gateway.prediction.crowd import PREDICT, PredictionCrowd
from oteo_gateway.service import _all_services
from oteo_gateway.settings import GatewaySettings
from oteo_protos.gateway.v1 import inference_pb2

METADATA = (("authorization", "Bearer benchmark"), ("user-agent", "benchmark"))


class Context:
    """gRPC's side of a call, which does nothing."""

    def invocation_metadata(self) -> Any:
        """Give a token."""
        return METADATA

    def time_remaining(self) -> float:
        """Give a deadline that is far enough."""
        return 30.0

    def peer(self) -> str:
        """Give an address."""
        return "ipv4:127.0.0.1:5000"

    def set_trailing_metadata(self, metadata: Any) -> None:
        """Take it."""

    def set_code(self, code: Any) -> None:
        """Take it."""

    def set_details(self, details: str) -> None:
        """Take it."""

    async def write(self, response: Any) -> None:
        """Take an answer."""


class Details:
    """What an interceptor is given."""

    method = PREDICT
    invocation_metadata = METADATA


async def measure(calls: int, repeats: int, home: Path) -> None:
    """Print what calls cost."""
    settings = GatewaySettings(home=home, token="benchmark")
    telemetry.configure_logging(settings, "gateway")
    log = AuditLog(settings)
    log.start()
    request = inference_pb2.PredictRequest(deployment="deployments/x")
    request.image.content = bytes(1000)
    response = inference_pb2.PredictResponse(deployment="deployments/x", model="models/x", model_version="1")
    response.image.sha256 = "0" * 64
    admission = Admission(1, 1)

    async def predict(request: Any, context: Any) -> inference_pb2.PredictResponse:
        return response

    async def requests() -> AsyncIterator[inference_pb2.PredictRequest]:
        yield request

    handler = grpc.unary_unary_rpc_method_handler(predict)

    async def continuation(details: Any) -> Any:
        return handler

    door, hook = SharedTokenDoor("benchmark"), AuditHook(log, settings, Methods(_all_services()))
    crowd = PredictionCrowd(admission, metrics.PrometheusObserver())
    interceptor = CallInterceptor(door, ThreadPoolExecutor(1), hook, crowd)

    async def one() -> None:
        wrapped = await interceptor.intercept_service(continuation, Details)
        if wrapped.stream_stream:
            await wrapped.stream_stream(requests(), Context())
        else:
            await wrapped.unary_unary(request, Context())

    async def hold() -> None:
        async with admission.enter(caller="local"):
            await asyncio.Event().wait()

    gc.collect()
    gc.freeze()
    print("| a Predict that is | microseconds, smallest | median |\n|---|---|---|")
    for name in ("answered", "refused"):
        # One holds the place, another waits, and one more is refused.
        holding = [asyncio.create_task(hold()) for _ in range(2 if name == "refused" else 0)]
        await asyncio.sleep(0.01)
        found = []
        for _ in range(repeats):
            begin = time.thread_time()
            for _ in range(calls):
                await asyncio.create_task(one())
            found.append(1e6 * (time.thread_time() - begin) / calls)
        print(f"| {name} | {min(found):.0f} | {statistics.median(found):.0f} |", flush=True)
        for task in holding:
            task.cancel()
        await asyncio.gather(*holding, return_exceptions=True)
    await asyncio.to_thread(log.close)


def main() -> None:
    """Measure in a folder of its own; what is logged goes nowhere."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="oteo-benchmark-") as folder, open(os.devnull, "w") as nowhere:
        sys.stderr = nowhere
        uvloop.run(measure(options.calls, options.repeats, Path(folder)))


if __name__ == "__main__":
    main()
