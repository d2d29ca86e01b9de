"""The gateway as a process: it drains, and killed and started again it serves with no call by anyone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import grpc
from gateway_support import TOKEN, picture, publish_model
from google.longrunning import operations_pb2, operations_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from waiting import patient, wait_for

from oteo_core.artifacts import ArtifactStore
from oteo_local import ports
from oteo_local.triton import start
from oteo_protos.gateway.v1 import deployment_pb2, deployment_pb2_grpc, inference_pb2, inference_pb2_grpc
from oteo_protos.type.v1 import image_pb2

METADATA = (("authorization", f"Bearer {TOKEN}"),)


class Gateway:
    """A gateway's process on one address that may be killed and started again."""

    def __init__(self, home: Path, triton: str) -> None:
        self.home = home
        self.port = ports.free_port()
        self.metrics = ports.free_port()
        self.triton = triton
        self.process: subprocess.Popen[bytes] | None = None

    def up(self) -> None:
        environment = {
            **os.environ,
            "OTEO_HOME": str(self.home),
            "OTEO_TOKEN": TOKEN,
            "OTEO_GATEWAY_ADDRESS": f"127.0.0.1:{self.port}",
            "OTEO_TRITON_URLS": self.triton,
            "OTEO_RECONCILE_SECONDS": "0.3",
            "OTEO_LEASE_SECONDS": "2",
            "OTEO_METRICS_PORT": str(self.metrics),
        }
        with open(self.home / "gateway.log", "ab") as log:
            self.process = subprocess.Popen([sys.executable, "-m", "oteo_gateway"], env=environment, stdout=log, stderr=log)
        wait_for(self.healthy, 40)

    def healthy(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.home / "gateway.log").read_text()[-2000:]
        with grpc.insecure_channel(f"127.0.0.1:{self.port}") as channel:
            try:
                status = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10).status
            except grpc.RpcError:
                return False
        return bool(status == health_pb2.HealthCheckResponse.SERVING)

    def end(self, number: signal.Signals) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(patient(20))

    def predict(self, deployment: str) -> str:
        with grpc.insecure_channel(f"127.0.0.1:{self.port}") as channel:
            request = inference_pb2.PredictRequest(deployment=deployment, image=image_pb2.ImageSource(content=picture("green")))
            try:
                return (
                    inference_pb2_grpc.InferenceServiceStub(channel).Predict(request, metadata=METADATA, timeout=60).classification.decision
                )
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
                return ""


def test_killed_with_its_triton_the_gateway_serves_again_with_no_call(tmp_path: Path) -> None:
    home = tmp_path
    port = ports.free_port()
    gateway = Gateway(home, f"127.0.0.1:{port}")
    artifacts = ArtifactStore(f"file://{home}/artifacts")
    publish_model(artifacts, "colours")
    with start(home / "model-repository", grpc_port=port, timeout=patient(30)) as triton:
        gateway.up()
        with grpc.insecure_channel(f"127.0.0.1:{gateway.port}") as channel:
            deployment = deployment_pb2.Deployment(models=[deployment_pb2.DeployedModel(model="models/colours")])
            request = deployment_pb2.CreateDeploymentRequest(deployment=deployment)
            operation = deployment_pb2_grpc.DeploymentServiceStub(channel).CreateDeployment(request, metadata=METADATA, timeout=60)
            # Killed while the model is being loaded: the operation ends all the same, after the restart.
            gateway.end(signal.SIGKILL)
            triton.process.kill()
            triton.process.wait()
    with start(home / "model-repository", grpc_port=port, timeout=patient(30)):
        gateway.up()
        with grpc.insecure_channel(f"127.0.0.1:{gateway.port}") as channel:
            stub = operations_pb2_grpc.OperationsStub(channel)
            wait_for(
                lambda: stub.GetOperation(operations_pb2.GetOperationRequest(name=operation.name), metadata=METADATA, timeout=60).done, 40
            )
        assert gateway.predict("deployments/colours") == "green"
        gateway.end(signal.SIGKILL)
        gateway.up()
        wait_for(lambda: gateway.predict("deployments/colours") == "green", 20)
        metrics = _metrics(gateway.metrics)
        assert 'oteo_predict_stage_seconds_count{model="colours",stage="decode"}' in metrics
        assert gateway.end(signal.SIGTERM) == 0


def _metrics(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
        return str(answer.read().decode())
