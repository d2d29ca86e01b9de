"""Triton's control calls, as the deployments' keeper needs them: index, load, unload, and a real inference."""

from __future__ import annotations

from typing import Any

import grpc
import numpy as np
from tritonclient.grpc import service_pb2, service_pb2_grpc

from oteo_core.errors import DeadlineExceeded, FailedPrecondition, OteoError, Unavailable
from oteo_core.packages import ModelPackage
from oteo_gateway.deployments.repository import config_digest
from oteo_gateway.prediction.outputs import OUTPUTS, check_outputs
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

    def probe(self, package: ModelPackage) -> None:
        """Have a model answer for one black image, and check that it answers as its task does."""
        policy = package.input
        template = InferTemplate(package.triton_model, "", policy, OUTPUTS.get(package.task, ()))
        request = template.build(np.zeros((policy.height, policy.width, policy.channels), dtype=policy.dtype))
        outputs, _ = read_outputs(self._call(self._infer, request, self._probe_timeout))
        if package.task in OUTPUTS:
            check_outputs(package, outputs)

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
