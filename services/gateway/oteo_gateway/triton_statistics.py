"""What Triton's replicas say of their own work, as Prometheus' counters: how many images share a batch, how long they queue there, how long a model takes.

Triton counts from its own start, the counters here from the gateway's: what is added is the difference between two questions. Only the gateway process that
holds the reconciler's lease asks, so that several on one database do not count the same work twice. Source: Triton's statistics extension.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import grpc
from prometheus_client import Counter
from tritonclient.grpc import service_pb2

from oteo_gateway.forward_service import Backend

_STATISTICS = "/inference.GRPCInferenceService/ModelStatistics"
_TIMEOUT = 2.0
_NANO = 1e-9

INFERENCES = Counter("oteo_model_inferences", "Images that Triton's replicas answered for, whoever asked.", ["model"])
EXECUTIONS = Counter("oteo_model_executions", "Runs of a model, each of one batch, by the number of images in it.", ["model", "batch"])
SECONDS = Counter("oteo_model_seconds", "Time that images spent in Triton's queue, and that runs took, by stage.", ["model", "stage"])


@dataclass(frozen=True)
class Figures:
    """What a replica has counted of a model since it started.

    Attributes
    ----------
    inferences
        Images answered for.
    executions
        Runs, by the number of images in their batch.
    queue, compute
        Seconds: waiting of all images, work of all runs.
    """

    inferences: int = 0
    executions: dict[int, int] = field(default_factory=dict)
    queue: float = 0.0
    compute: float = 0.0


def read_figures(statistics: service_pb2.ModelStatistics) -> Figures:
    """Read one model's statistics."""
    return Figures(
        inferences=statistics.inference_count,
        executions={batch.batch_size: batch.compute_infer.count for batch in statistics.batch_stats},
        queue=statistics.inference_stats.queue.ns * _NANO,
        compute=sum(batch.compute_infer.ns for batch in statistics.batch_stats) * _NANO,
    )


def since(before: Figures, after: Figures) -> Figures:
    """Give what came between two readings; all of the second where the replica was started again or the model loaded anew."""
    if after.inferences < before.inferences:
        return after
    return Figures(
        inferences=after.inferences - before.inferences,
        executions={size: max(0, count - before.executions.get(size, 0)) for size, count in after.executions.items()},
        queue=max(0.0, after.queue - before.queue),
        compute=max(0.0, after.compute - before.compute),
    )


class TritonStatistics:
    """Asks the replicas in a period.

    Parameters
    ----------
    replicas
        Gives those that there are.
    models
        Gives the names on the model server of what is deployed.
    leads
        Tells whether it is this process that asks.
    period
        Seconds between two rounds.
    """

    def __init__(
        self, replicas: Callable[[], Sequence[Backend]], models: Callable[[], Sequence[str]], leads: Callable[[], bool], *, period: float
    ) -> None:
        self._replicas = replicas
        self._models = models
        self._leads = leads
        self._period = period
        self._known: dict[tuple[str, str], Figures] = {}

    async def run(self) -> None:
        """Ask again and again, until cancelled."""
        while True:
            if self._leads():
                await self.ask()
            else:
                self._known.clear()
            await asyncio.sleep(self._period)

    async def ask(self) -> None:
        """Ask all replicas of all deployed models once."""
        pairs = [(replica, model) for replica in self._replicas() for model in self._models()]
        readings = await asyncio.gather(*(self._read(replica, model) for replica, model in pairs))
        for (replica, model), figures in zip(pairs, readings, strict=True):
            if figures is not None:
                before = self._known.get((replica.address, model))
                self._known[replica.address, model] = figures
                # What was counted before the first question is somebody else's, or was counted by another gateway.
                if before is not None:
                    _count(model, since(before, figures))

    async def _read(self, replica: Backend, model: str) -> Figures | None:
        request = service_pb2.ModelStatisticsRequest(name=model).SerializeToString()
        try:
            answer: bytes = await replica.callable("unary_unary", _STATISTICS)(request, timeout=_TIMEOUT)
        except grpc.aio.AioRpcError:
            return None
        statistics = service_pb2.ModelStatisticsResponse.FromString(answer).model_stats
        return read_figures(statistics[0]) if statistics else None


def _count(model: str, figures: Figures) -> None:
    INFERENCES.labels(model).inc(figures.inferences)
    for size, count in figures.executions.items():
        EXECUTIONS.labels(model, str(size)).inc(count)
    SECONDS.labels(model, "queue").inc(figures.queue)
    SECONDS.labels(model, "compute").inc(figures.compute)
