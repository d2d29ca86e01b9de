"""A deployment serves the variant that is asked for, from the package's file, and says so; one that the package does not hold is refused."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import numpy as np
import pytest
import torch
from gateway_support import Loop, deploy, details_of, running_gateway, settings_for
from google.longrunning import operations_pb2, operations_pb2_grpc
from judged_models import MODELS, POLICY, Shades, publish
from waiting import patient, wait_for

from oteo_core.artifacts import open_store
from oteo_core.graphs.export import export_onnx
from oteo_core.images import encode_png
from oteo_local.triton import RunningTriton, start
from oteo_protos.automl.v1 import automl_pb2
from oteo_protos.gateway.v1 import deployment_pb2, deployment_pb2_grpc, inference_pb2, inference_pb2_grpc

BF16, INT8, FP16 = (automl_pb2.ModelVariant.Value(f"MODEL_VARIANT_{name}") for name in ("BF16", "INT8", "FP16"))


class Upside(Shades):
    """The opposite answers: what would be served were a variant's own graph taken."""

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        probabilities, logits = super().forward(image)
        return probabilities.flip(1), logits.flip(1)


@pytest.fixture(scope="module")
def site(loop: Loop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[grpc.Channel, RunningTriton]]:
    home = tmp_path_factory.mktemp("variants")
    images = np.zeros((2, POLICY.height, POLICY.width, 3), np.uint8)
    upside = export_onnx(Upside().eval(), POLICY, MODELS["classification"][2], images).data
    with start(home / "model-repository", timeout=patient(30)) as server:
        settings = settings_for(home, triton_urls=[server.address])
        publish(open_store(settings), "classification", "shades", variants={"int8": upside})
        with running_gateway(loop, settings, log_dir=home / "logs") as running:
            yield running.channel, server


def likeliest(channel: grpc.Channel, deployment: str) -> str:
    dark = np.full((20, 20, 3), 50, np.uint8)
    request = inference_pb2.PredictRequest(deployment=f"deployments/{deployment}", image={"content": encode_png(dark)})
    answer = inference_pb2_grpc.InferenceServiceStub(channel).Predict(request, timeout=120)
    return str(max(answer.classification.scores, key=lambda one: one.probability).class_name)


def asked(variant: int) -> deployment_pb2.Deployment:
    return deployment_pb2.Deployment(name="deployments/moving", models=[{"model": "models/shades", "variant": variant}])


def test_a_deployment_changes_to_a_variant_and_back_and_one_that_is_not_there_is_refused(site: tuple[grpc.Channel, RunningTriton]) -> None:
    channel, server = site
    stub, operations = deployment_pb2_grpc.DeploymentServiceStub(channel), operations_pb2_grpc.OperationsStub(channel)

    def done(operation: operations_pb2.Operation) -> deployment_pb2.Deployment:
        request = operations_pb2.GetOperationRequest(name=operation.name)
        wait_for(lambda: operations.GetOperation(request, timeout=60).done, 60)
        deployment = deployment_pb2.Deployment()
        assert operations.GetOperation(request, timeout=60).response.Unpack(deployment)
        return deployment

    deploy(channel, ["shades"])
    with pytest.raises(grpc.RpcError) as refused:
        stub.CreateDeployment(deployment_pb2.CreateDeploymentRequest(deployment_id="moving", deployment=asked(FP16)), timeout=60)
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert details_of(refused.value)[0] == "NO_VARIANT"

    made = done(stub.CreateDeployment(deployment_pb2.CreateDeploymentRequest(deployment_id="moving", deployment=asked(INT8)), timeout=60))
    assert [(one.variant, one.triton_model) for one in made.models] == [(INT8, "shades_variant_int8")]
    # The model itself answers beside it, by its own graph.
    assert (likeliest(channel, "moving"), likeliest(channel, "shades")) == ("light", "dark")

    changed = done(stub.UpdateDeployment(deployment_pb2.UpdateDeploymentRequest(deployment=asked(BF16)), timeout=60))
    assert [one.variant for one in changed.models] == [BF16]
    assert [one.variant for one in changed.revisions[0].models] == [INT8]
    # A gateway reads what serves every second.
    wait_for(lambda: likeliest(channel, "moving") == "dark", 10)
    config = (server.repository / "shades_variant_bf16" / "config.pbtxt").read_text()
    assert 'backend: "openvino"' in config
    assert "HINT_BF16" in config

    back = done(stub.RollbackDeployment(deployment_pb2.RollbackDeploymentRequest(name="deployments/moving"), timeout=60))
    assert [one.variant for one in back.models] == [INT8]
    wait_for(lambda: likeliest(channel, "moving") == "light", 10)


def test_what_is_not_wanted_any_more_is_unloaded(site: tuple[grpc.Channel, RunningTriton]) -> None:
    channel, server = site
    deployment_pb2_grpc.DeploymentServiceStub(channel).DeleteDeployment(
        deployment_pb2.DeleteDeploymentRequest(name="deployments/moving", allow_missing=True), timeout=60
    )
    wait_for(lambda: "successfully unloaded 'shades_variant_int8'" in server.log.read_text(), 40)
    assert likeliest(channel, "shades") == "dark"
