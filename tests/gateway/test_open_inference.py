"""Plain tritonclient against the gateway: the same bytes as from Triton, and nothing that changes the server."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from dataclasses import dataclass

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from gateway_support import TOKEN, Loop, RunningGateway, details_of, publish_model, running_gateway, settings_for
from google.longrunning import operations_pb2, operations_pb2_grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc
from waiting import patient, wait_for

from oteo_core.artifacts import ArtifactStore, open_store
from oteo_gateway.wire import string_field
from oteo_local.triton import RunningTriton, start
from oteo_protos.gateway.v1 import deployment_pb2, deployment_pb2_grpc

HEADERS = {"authorization": f"Bearer {TOKEN}"}


@dataclass
class Stack:
    gateway: RunningGateway
    triton: RunningTriton
    artifacts: ArtifactStore


@pytest.fixture(scope="module")
def stack(loop: Loop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    home = tmp_path_factory.mktemp("oip")
    with start(home / "model-repository", timeout=patient(30)) as server:
        settings = settings_for(home, triton_urls=[server.address])
        artifacts = open_store(settings)
        publish_model(artifacts, "colours")
        with running_gateway(loop, settings, log_dir=home / "logs") as gateway:
            stub = deployment_pb2_grpc.DeploymentServiceStub(gateway.channel)
            deployment = deployment_pb2.Deployment(models=[deployment_pb2.DeployedModel(model="models/colours")])
            operation = stub.CreateDeployment(deployment_pb2.CreateDeploymentRequest(deployment=deployment), timeout=60)
            operations = operations_pb2_grpc.OperationsStub(gateway.channel)
            done = wait_for(
                lambda: (
                    (found := operations.GetOperation(operations_pb2.GetOperationRequest(name=operation.name), timeout=60)).done and found
                ),
                40,
            )
            assert not done.HasField("error"), done.error
            yield Stack(gateway, server, artifacts)


def _request(pixels: np.ndarray) -> tuple[list[triton.InferInput], list[triton.InferRequestedOutput]]:
    tensor = triton.InferInput("image", list(pixels.shape), "UINT8")
    tensor.set_data_from_numpy(pixels)
    return [tensor], [triton.InferRequestedOutput("probabilities")]


def test_tritonclient_lists_and_infers_with_the_same_bytes(stack: Stack) -> None:
    pixels = np.random.default_rng(3).integers(0, 255, (4, 16, 16, 3), dtype=np.uint8)
    answers = []
    for address, headers in ((stack.triton.address, None), (stack.gateway.address, HEADERS)):
        with triton.InferenceServerClient(address) as client:
            assert client.is_server_ready(headers=headers)
            assert client.is_model_ready("colours", headers=headers)
            index = client.get_model_repository_index(headers=headers)
            assert [(model.name, model.state) for model in index.models] == [("colours", "READY")]
            assert client.get_model_metadata("colours", headers=headers).inputs[0].name == "image"
            assert client.get_model_config("colours", headers=headers).config.max_batch_size == 8
            assert client.get_inference_statistics("colours", headers=headers).model_stats[0].name == "colours"
            inputs, outputs = _request(pixels)
            response = client.infer("colours", inputs, outputs=outputs, headers=headers, request_id="7").get_response()
            answers.append(response.SerializeToString(deterministic=True))
    assert answers[0] == answers[1]
    assert np.frombuffer(response.raw_output_contents[0], np.float32).reshape(4, 3).sum(1) == pytest.approx(1)


def test_streaming_inference_passes_through(stack: Stack) -> None:
    answers: queue.Queue[object] = queue.Queue()
    with triton.InferenceServerClient(stack.gateway.address) as client:
        client.start_stream(lambda result, error: answers.put(error or result.as_numpy("probabilities").argmax()), headers=HEADERS)
        for number in range(6):
            pixels = np.zeros((1, 16, 16, 3), dtype=np.uint8)
            pixels[..., number % 3] = 255
            inputs, outputs = _request(pixels)
            client.async_stream_infer("colours", inputs, outputs=outputs)
        found = [answers.get(timeout=60) for _ in range(6)]
        client.stop_stream()
    assert found == [0, 1, 2, 0, 1, 2]


def test_tritons_own_errors_come_back_unchanged(stack: Stack) -> None:
    errors = []
    for address, headers in ((stack.triton.address, None), (stack.gateway.address, HEADERS)):
        with triton.InferenceServerClient(address) as client, pytest.raises(triton.InferenceServerException) as caught:
            client.get_model_metadata("no-such-model", headers=headers)
        errors.append((caught.value.status(), caught.value.message()))
    assert errors[0] == errors[1]


@pytest.mark.parametrize(
    ("method", "request_message", "reason"),
    [
        ("RepositoryModelLoad", service_pb2.RepositoryModelLoadRequest(model_name="colours"), "REPOSITORY_CONTROL"),
        ("RepositoryModelUnload", service_pb2.RepositoryModelUnloadRequest(model_name="colours"), "REPOSITORY_CONTROL"),
        ("SystemSharedMemoryRegister", service_pb2.SystemSharedMemoryRegisterRequest(name="x", key="/x", byte_size=1), "SHARED_MEMORY"),
        (
            "TraceSetting",
            service_pb2.TraceSettingRequest(settings={"trace_file": service_pb2.TraceSettingRequest.SettingValue(value=["/tmp/x"])}),
            "SERVER_SETTINGS",
        ),
        (
            "LogSettings",
            service_pb2.LogSettingsRequest(settings={"log_file": service_pb2.LogSettingsRequest.SettingValue(string_param="/tmp/x")}),
            "SERVER_SETTINGS",
        ),
    ],
)
def test_what_changes_the_server_is_refused(stack: Stack, method: str, request_message: object, reason: str) -> None:
    stub = service_pb2_grpc.GRPCInferenceServiceStub(stack.gateway.channel)
    with pytest.raises(grpc.RpcError) as caught:
        getattr(stub, method)(request_message, timeout=60)
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert details_of(caught.value)[0] == reason


def test_settings_may_be_read(stack: Stack) -> None:
    stub = service_pb2_grpc.GRPCInferenceServiceStub(stack.gateway.channel)
    assert "log_verbose_level" in stub.LogSettings(service_pb2.LogSettingsRequest(), timeout=60).settings


def test_reflection_names_every_service(stack: Stack) -> None:
    from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

    stub = reflection_pb2_grpc.ServerReflectionStub(stack.gateway.channel)
    requests = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="inference.GRPCInferenceService"),
    ]
    listed, file = stub.ServerReflectionInfo(iter(requests), timeout=60)
    names = {service.name for service in listed.list_services_response.service}
    assert {
        "inference.GRPCInferenceService",
        "google.longrunning.Operations",
        "oteo.augment.v1.DatasetService",
        "oteo.augment.v1.AugmentService",
        "oteo.automl.v1.AutoMLService",
        "oteo.translate.v1.TranslateService",
        "oteo.gateway.v1.InferenceService",
        "oteo.gateway.v1.DeploymentService",
        "oteo.gateway.v1.PipelineService",
    } <= names
    assert b"GRPCInferenceService" in file.file_descriptor_response.file_descriptor_proto[0]


@pytest.mark.parametrize("size", [0, 1, 127, 128, 40_000])
def test_model_s_name_is_read_without_decoding(size: int) -> None:
    request = service_pb2.ModelInferRequest(model_name="m" * 3, model_version="1", id="x" * size, raw_input_contents=[b"p" * size])
    request.parameters["priority"].uint64_param = 1 << 60
    assert string_field(request.SerializeToString(), 1) == "mmm"
    assert string_field(service_pb2.RepositoryModelLoadRequest(repository_name="r", model_name="m").SerializeToString(), 2) == "m"


@pytest.mark.parametrize("data", [b"", b"\xff" * 30, b"\x0a\x7fshort", b"\x0b", b"\x0a\x02\xff\xfe"])
def test_rubbish_has_no_model_name(data: bytes) -> None:
    assert string_field(data, 1) in ("", "short")
