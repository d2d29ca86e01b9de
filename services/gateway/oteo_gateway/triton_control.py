"""Triton's control calls, as the deployments' keeper needs them: index, load, unload, and a real inference."""

from __future__ import annotations

from typing import Any

import grpc
import numpy as np
from tritonclient.grpc import service_pb2, service_pb2_grpc

from oteo_core.errors import DeadlineExceeded, FailedPrecondition, Internal, OteoError, Unavailable
from oteo_gateway.deployments.repository import config_digest
from oteo_gateway.deployments.units import Unit
from oteo_gateway.prediction.outputs import OUTPUTS, check_outputs, check_translated
from oteo_gateway.prediction.tensors import InferTemplate, read_outputs

_QUICK_SECONDS = 5.0


class TritonControl:
    """One Triton replica.

    Parameters
    ----------
    address
        ``host:port`` of its gRPC endpoint.
    probe_timeout, load_timeout
        Seconds.
    channel
        Blocking channel to it; closed with this object.
    """

    def __init__(self, address: str, *, probe_timeout: float, load_timeout: float, channel: grpc.Channel) -> None:
        self._address = address
        self._probe_timeout = probe_timeout
        self._load_timeout = load_timeout
        self._channel = channel
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        self._infer: Any = self._channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")

    @property
    def address(self) -> str:
        """``host:port``."""
        return self._address

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()

    def index(self) -> dict[str, bool]:
        """Give all models of the repository by name, True for those that are ready."""
        response = self._call(self._stub.RepositoryIndex, service_pb2.RepositoryIndexRequest(), _QUICK_SECONDS)
        index: dict[str, bool] = {}
        for model in response.models:
            index[model.name] = index.get(model.name, False) or model.state == "READY"
        return index

    def digest(self, model: str) -> str:
        """Give the ``oteo_digest`` that a loaded model was loaded with; empty if it carries none."""
        response = self._call(self._stub.ModelConfig, service_pb2.ModelConfigRequest(name=model), _QUICK_SECONDS)
        return config_digest(response.config)

    def load(self, model: str) -> None:
        """Load a model, or load it again where its files have changed."""
        self._call(self._stub.RepositoryModelLoad, service_pb2.RepositoryModelLoadRequest(model_name=model), self._load_timeout)

    def unload(self, model: str) -> None:
        """Unload a model."""
        self._call(self._stub.RepositoryModelUnload, service_pb2.RepositoryModelUnloadRequest(model_name=model), self._probe_timeout)

    def probe(self, unit: Unit) -> None:
        """Have a unit answer for one black image, and check that it answers as it should."""
        self._answer(unit, 1, self._probe_timeout)

    def warm(self, unit: Unit) -> None:
        """Have a unit answer for one black image, and for batches of the sizes that its configuration prefers."""
        config = self._call(self._stub.ModelConfig, service_pb2.ModelConfigRequest(name=unit.name), _QUICK_SECONDS).config
        preferred = {int(size) for size in config.dynamic_batching.preferred_batch_size if size <= config.max_batch_size}
        for size in sorted({1, *preferred}):
            self._answer(unit, size, self._load_timeout)

    def _answer(self, unit: Unit, size: int, timeout: float) -> None:
        policy = unit.policy
        template = InferTemplate(unit.name, "", policy, unit.outputs, size)
        request = template.build(np.zeros((size, policy.height, policy.width, policy.channels), dtype=policy.dtype))
        outputs, _ = read_outputs(self._call(self._infer, request, timeout))
        for name, values in outputs.items():
            if values.shape[:1] != (size,):
                raise Internal(f"{unit.owner} answered {name} of shape {values.shape} for {size} images.", reason="BAD_MODEL_OUTPUT")
        first = {name: values[:1] for name, values in outputs.items()}
        if unit.package is None:
            check_translated(unit.owner, unit.policy, first)
        elif unit.package.task in OUTPUTS:
            check_outputs(unit.package, first)

    def _call(self, method: Any, request: Any, timeout: float) -> Any:
        try:
            return method(request, timeout=timeout)
        except grpc.RpcError as error:
            raise self._translated(error, timeout) from error

    def _translated(self, error: Any, timeout: float) -> OteoError:
        code, details = error.code(), error.details() or ""
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return DeadlineExceeded(f"Triton at {self._address} did not answer within {timeout:.0f} s.", reason="REPLICA_SLOW")
        if code is grpc.StatusCode.UNAVAILABLE and "unknown model" not in details.lower():
            return Unavailable(f"Triton at {self._address} does not answer: {details}", reason="REPLICA_AWAY")
        return FailedPrecondition(f"Triton at {self._address} says {code.name}: {details}", reason="REPLICA_REFUSED")
