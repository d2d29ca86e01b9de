"""Two Tritons that may be killed, and a gateway over them, with what tests ask of it."""

from __future__ import annotations

import contextlib
import os
import signal
from dataclasses import dataclass
from pathlib import Path

import grpc
import psutil
from gateway_support import RunningGateway, picture
from google.longrunning import operations_pb2, operations_pb2_grpc
from google.protobuf import field_mask_pb2
from tritonclient.grpc import service_pb2, service_pb2_grpc
from waiting import patient, wait_done

from oteo_core.artifacts import ArtifactStore
from oteo_local import ports
from oteo_local.triton import RunningTriton, start
from oteo_protos.gateway.v1 import deployment_pb2, deployment_pb2_grpc, inference_pb2, inference_pb2_grpc
from oteo_protos.type.v1 import image_pb2

READY = deployment_pb2.Deployment.STATE_READY
DEGRADED = deployment_pb2.Deployment.STATE_DEGRADED
FAILED = deployment_pb2.Deployment.STATE_FAILED
PENDING = deployment_pb2.Deployment.STATE_PENDING


class Replicas:
    """Two Tritons on one repository that may be killed and started again on their ports."""

    def __init__(self, repository: Path) -> None:
        self.repository = repository
        self.ports = [ports.free_port(), ports.free_port()]
        self._stacks: dict[int, contextlib.ExitStack] = {}
        self.running: dict[int, RunningTriton] = {}

    def up(self, number: int) -> None:
        stack = contextlib.ExitStack()
        self.running[number] = stack.enter_context(start(self.repository, grpc_port=self.ports[number], timeout=patient(30)))
        self._stacks[number] = stack

    def kill(self, number: int) -> None:
        """Kill -9 the server; its stubs notice by themselves."""
        os.kill(self.running[number].process.pid, signal.SIGKILL)
        self.running[number].process.wait()
        self._stacks.pop(number).close()

    def kill_stubs(self, number: int) -> int:
        """Kill -9 the model processes of a server and leave the server."""
        stubs = [child for child in psutil.Process(self.running[number].process.pid).children(recursive=True) if "stub" in child.name()]
        for stub in stubs:
            stub.kill()
        return len(stubs)

    def close(self) -> None:
        for stack in self._stacks.values():
            stack.close()

    @property
    def addresses(self) -> list[str]:
        return [f"127.0.0.1:{port}" for port in self.ports]


@dataclass
class Site:
    """A gateway over both replicas, with its stubs."""

    running: RunningGateway
    replicas: Replicas
    artifacts: ArtifactStore

    def __post_init__(self) -> None:
        self.deployments = deployment_pb2_grpc.DeploymentServiceStub(self.running.channel)
        self.operations = operations_pb2_grpc.OperationsStub(self.running.channel)
        self.inference = inference_pb2_grpc.InferenceServiceStub(self.running.channel)

    def create(self, model: str, **values: object) -> operations_pb2.Operation:
        deployment = deployment_pb2.Deployment(models=[deployment_pb2.DeployedModel(model=f"models/{model}")])
        return self.deployments.CreateDeployment(deployment_pb2.CreateDeploymentRequest(deployment=deployment, **values), timeout=60)

    def serve(self, name: str, *parts: deployment_pb2.DeployedModel, **values: object) -> deployment_pb2.Deployment:
        """Deploy several models under a name, and wait until they answer."""
        deployment = deployment_pb2.Deployment(models=parts, **values)
        request = deployment_pb2.CreateDeploymentRequest(deployment_id=name, deployment=deployment)
        return self.result(self.deployments.CreateDeployment(request, timeout=60))

    def update(self, name: str, *paths: str, etag: str = "", **values: object) -> operations_pb2.Operation:
        """Begin to change what is named."""
        deployment = deployment_pb2.Deployment(name=f"deployments/{name}", etag=etag, **values)
        request = deployment_pb2.UpdateDeploymentRequest(deployment=deployment, update_mask=field_mask_pb2.FieldMask(paths=paths))
        return self.deployments.UpdateDeployment(request, timeout=60)

    def rollback(self, name: str, generation: int = 0) -> operations_pb2.Operation:
        """Begin to put an earlier revision back."""
        request = deployment_pb2.RollbackDeploymentRequest(name=f"deployments/{name}", generation=generation)
        return self.deployments.RollbackDeployment(request, timeout=60)

    def result(self, operation: operations_pb2.Operation) -> deployment_pb2.Deployment:
        """Wait for an operation and give its deployment."""
        done = self.done(operation)
        assert not done.HasField("error"), done.error
        deployment = deployment_pb2.Deployment()
        assert done.response.Unpack(deployment)
        return deployment

    def done(self, operation: operations_pb2.Operation, seconds: float = 30) -> operations_pb2.Operation:
        request = operations_pb2.GetOperationRequest(name=operation.name)
        return wait_done(lambda: self.operations.GetOperation(request, timeout=60), seconds)

    def deploy(self, model: str) -> deployment_pb2.Deployment:
        return self.result(self.create(model))

    def get(self, name: str) -> deployment_pb2.Deployment:
        return self.deployments.GetDeployment(deployment_pb2.GetDeploymentRequest(name=f"deployments/{name}"), timeout=60)

    def delete(self, name: str) -> None:
        self.deployments.DeleteDeployment(
            deployment_pb2.DeleteDeploymentRequest(name=f"deployments/{name}", allow_missing=True), timeout=60
        )

    def predict(self, name: str, colour: str = "red") -> inference_pb2.PredictResponse:
        image = image_pb2.ImageSource(content=picture(colour))
        return self.inference.Predict(inference_pb2.PredictRequest(deployment=f"deployments/{name}", image=image), timeout=60)

    def index(self, number: int) -> dict[str, str]:
        with grpc.insecure_channel(self.replicas.addresses[number]) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            return {model.name: model.state for model in stub.RepositoryIndex(service_pb2.RepositoryIndexRequest(), timeout=60).models}
