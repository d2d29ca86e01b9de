"""Deployments: models in service."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import grpc
from google.protobuf import empty_pb2

from oteo.connection import call, pages
from oteo.names import resource
from oteo.operations import OperationHandle
from oteo_protos.gateway.v1 import deployment_pb2, deployment_pb2_grpc


class Deployments:
    """Deployments of the gateway."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel
        self._stub = deployment_pb2_grpc.DeploymentServiceStub(channel)

    def create(
        self, model: str, *, deployment_id: str = "", name: str = "", request_id: str | None = None
    ) -> OperationHandle[deployment_pb2.Deployment]:
        """Put a model into service; the operation ends when every Triton replica has answered a probe."""
        request = deployment_pb2.CreateDeploymentRequest(
            deployment_id=deployment_id,
            deployment=deployment_pb2.Deployment(
                display_name=name, models=[deployment_pb2.DeployedModel(model=resource("models", model), traffic_percent=100)]
            ),
            request_id=request_id or str(uuid.uuid4()),
        )
        operation = call(self._stub.CreateDeployment, request, timeout=60)
        return OperationHandle(self._channel, operation, deployment_pb2.Deployment)

    def update(self, name: str, model: str, *, request_id: str | None = None) -> OperationHandle[deployment_pb2.Deployment]:
        """Let a deployment serve another model."""
        request = deployment_pb2.UpdateDeploymentRequest(
            deployment=deployment_pb2.Deployment(
                name=resource("deployments", name),
                models=[deployment_pb2.DeployedModel(model=resource("models", model), traffic_percent=100)],
            ),
            request_id=request_id or str(uuid.uuid4()),
        )
        request.update_mask.paths.append("models")
        operation = call(self._stub.UpdateDeployment, request, timeout=60)
        return OperationHandle(self._channel, operation, deployment_pb2.Deployment)

    def get(self, name: str) -> deployment_pb2.Deployment:
        """Give one deployment."""
        return call(self._stub.GetDeployment, deployment_pb2.GetDeploymentRequest(name=resource("deployments", name)), timeout=30)

    def list(self, limit: int | None = None) -> Iterator[deployment_pb2.Deployment]:
        """Give deployments, newest first."""
        return pages(self._stub.ListDeployments, deployment_pb2.ListDeploymentsRequest(), "deployments", limit)

    def delete(self, name: str, *, allow_missing: bool = False) -> empty_pb2.Empty:
        """Take a deployment out of service."""
        request = deployment_pb2.DeleteDeploymentRequest(
            name=resource("deployments", name), allow_missing=allow_missing, request_id=str(uuid.uuid4())
        )
        return call(self._stub.DeleteDeployment, request, timeout=120)
