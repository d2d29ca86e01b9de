"""Triton's replicas come and go under callers who notice nothing: found through DNS, loaded, used, and left when they end."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from pathlib import Path
from typing import Any

import grpc
import pytest
from gateway_support import Loop, details_of, picture, publish_model, running_gateway, settings_for
from google.longrunning import operations_pb2, operations_pb2_grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc
from waiting import patient, wait_for

from oteo_core.artifacts import open_store
from oteo_gateway import replicas as replicas_module
from oteo_local.triton import start
from oteo_protos.gateway.v1 import deployment_pb2, deployment_pb2_grpc, inference_pb2, inference_pb2_grpc
from oteo_protos.type.v1 import image_pb2


class Callers:
    """Somebody who predicts again and again."""

    def __init__(self, channel: grpc.Channel, deployment: str) -> None:
        self._predict = inference_pb2_grpc.InferenceServiceStub(channel).Predict
        self._request = inference_pb2.PredictRequest(deployment=deployment, image=image_pb2.ImageSource(content=picture("green")))
        self._stop = threading.Event()
        self.answered = 0
        self.failed: list[str] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(0.02):
            try:
                assert self._predict(self._request, timeout=60).classification.decision == "green"
            except grpc.RpcError as error:
                self.failed.append(f"{error.code()}: {error.details()}")
            else:
                self.answered += 1

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(patient(15))


def answered_by(address: str, model: str) -> int:
    """Ask a Triton how many requests of a model it has answered."""
    with grpc.insecure_channel(address) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        statistics = stub.ModelStatistics(service_pb2.ModelStatisticsRequest(name=model), timeout=60).model_stats
    return int(statistics[0].inference_stats.success.count) if statistics else 0


def test_a_second_replica_takes_calls_and_the_first_leaves_without_losing_one(
    loop: Loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dns: list[str] = []

    async def resolver(host: str, port: int) -> list[str]:
        assert host == "triton.cluster"
        return list(dns)

    class Replicas(replicas_module.Replicas):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options, resolver=resolver)

    monkeypatch.setattr("oteo_gateway.service.Replicas", Replicas)
    repository = tmp_path / "repository"
    settings = settings_for(
        tmp_path, triton_urls=["dns:///triton.cluster:8001"], model_repository=f"file://{repository}", discover_seconds=0.2
    )
    publish_model(open_store(settings), "colours")
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(start(repository, timeout=patient(30)))
        running = stack.enter_context(running_gateway(loop, settings, log_dir=tmp_path / "logs"))
        deployments = deployment_pb2_grpc.DeploymentServiceStub(running.channel)
        operations = operations_pb2_grpc.OperationsStub(running.channel)

        def state() -> deployment_pb2.Deployment:
            return deployments.GetDeployment(deployment_pb2.GetDeploymentRequest(name="deployments/d"), timeout=60)

        def ready(*addresses: str) -> bool:
            found = state()
            return found.state == deployment_pb2.Deployment.STATE_READY and [r.address for r in found.replicas if r.ready] == list(
                addresses
            )

        # Without any replica a deployment waits, and a caller is told when to come again.
        model = deployment_pb2.DeployedModel(model="models/colours")
        request = deployment_pb2.CreateDeploymentRequest(deployment_id="d", deployment=deployment_pb2.Deployment(models=[model]))
        operation = deployments.CreateDeployment(request, timeout=60)
        with pytest.raises(grpc.RpcError) as refused:
            service_pb2_grpc.GRPCInferenceServiceStub(running.channel).ServerReady(service_pb2.ServerReadyRequest(), timeout=60)
        reason, _, delay = details_of(refused.value)
        assert (refused.value.code(), reason) == (grpc.StatusCode.UNAVAILABLE, "NO_REPLICA")
        assert delay
        assert not operations.GetOperation(operations_pb2.GetOperationRequest(name=operation.name), timeout=60).done
        # The first comes: the deployment's operation ends by itself.
        dns[:] = [first.address]
        wait_for(lambda: ready(first.address), 40)
        wait_for(lambda: operations.GetOperation(operations_pb2.GetOperationRequest(name=operation.name), timeout=60).done)
        callers = Callers(running.channel, "deployments/d")
        try:
            second = stack.enter_context(start(repository, timeout=patient(30)))
            dns[:] = [first.address, second.address]
            wait_for(lambda: ready(first.address, second.address), 40)
            # It takes its share.
            wait_for(lambda: answered_by(second.address, "colours") > 10)
            # The first is told to end, and only then DNS forgets it, as in a cluster.
            first.process.send_signal(signal.SIGTERM)
            time.sleep(1.0)
            dns[:] = [second.address]
            wait_for(lambda: ready(second.address), 40)
            before = callers.answered
            wait_for(lambda: callers.answered > before + 20)
        finally:
            callers.stop()
        assert callers.failed == []
        assert callers.answered > 50
