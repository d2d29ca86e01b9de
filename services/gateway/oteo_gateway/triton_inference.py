"""Predictions' calls to Triton's replicas, over persistent channels, with one retry on another replica."""

from __future__ import annotations

import time
from collections.abc import Callable

import grpc
import structlog

from oteo_core import tracing
from oteo_core.errors import DeadlineExceeded, Internal, OteoError
from oteo_gateway.deployments.directory import not_ready
from oteo_gateway.forward_service import Backend
from oteo_gateway.open_inference_service import TritonRouter
from oteo_gateway.prediction.routing import Route

log = structlog.get_logger(__name__)

_INFER = "/inference.GRPCInferenceService/ModelInfer"


class TritonCalls:
    """The replicas as predictions need them.

    Parameters
    ----------
    router
        Orders the replicas.
    doubt
        Told a model that did not answer although it should; it is probed and mended.
    """

    def __init__(self, router: TritonRouter, doubt: Callable[[str], None]) -> None:
        self._router = router
        self._doubt = doubt

    async def infer(self, route: Route, request: bytes, seconds: float) -> bytes:
        """Have what a route names answer; see `oteo_gateway.prediction.predictor.ModelCalls`."""
        model = route.template.model
        error: OteoError | None = None
        # One time limit for both tries. Triton takes a request whose call is over out of its queue.
        until = time.monotonic() + seconds
        for backend in self._router.order(model)[:2]:
            try:
                with tracing.calling(_INFER, {"oteo.model": model, "server.address": backend.address}):
                    response: bytes = await backend.callable("unary_unary", _INFER)(
                        request, timeout=max(0.0, until - time.monotonic()), metadata=tracing.headers()
                    )
            except grpc.aio.AioRpcError as failed:
                error = self._judge(route, backend, failed)
            else:
                return response
        raise error or not_ready(route.deployment, "no replica is known")

    def _judge(self, route: Route, backend: Backend, failed: grpc.aio.AioRpcError) -> OteoError:
        """Give the error that stands if no other replica answers; raise it where another would not help."""
        details = failed.details() or ""
        if failed.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
            raise DeadlineExceeded(f"{route.deployment} did not answer in time.", reason="DEADLINE_EXCEEDED") from failed
        if failed.code() is grpc.StatusCode.INVALID_ARGUMENT:
            # The package and what Triton has loaded disagree: no replica will take it.
            self._doubt(route.template.model)
            raise Internal(f"Triton refused the input of {route.package.name}: {details}", reason="MODEL_REFUSED_INPUT") from failed
        log.warning("inference_failed", replica=backend.address, model=route.template.model, code=failed.code().name, details=details)
        if backend.away(failed):
            self._router.failed(backend)
            return not_ready(route.deployment, "Triton is away")
        # A model that READY says and that does not answer: its stub is dead, or it was unloaded a moment ago.
        self._doubt(route.template.model)
        return not_ready(route.deployment, "its model does not answer and is being mended")
