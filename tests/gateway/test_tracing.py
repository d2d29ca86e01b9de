"""One trace from the caller through gateway, service and job, and to Triton; received by a real OTLP collector."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from gateway_support import TOKEN, Backend, Loop, deploy_model, picture, publish_model, running_gateway, settings_for
from google.longrunning import operations_pb2, operations_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from import_sources import class_folders
from trace_collector import Collector, Span, collecting, triton_arguments
from tritonclient.grpc import service_pb2
from waiting import patient, wait_for

from oteo_core import tracing
from oteo_core.artifacts import ArtifactStore
from oteo_local import ports
from oteo_local.triton import start
from oteo_protos.augment.v1 import dataset_pb2, dataset_pb2_grpc
from oteo_protos.gateway.v1 import inference_pb2, inference_pb2_grpc
from oteo_protos.type.v1 import image_pb2

METADATA = (("authorization", f"Bearer {TOKEN}"),)
CALLER = "00f067aa0ba902b7"


@dataclass
class Site:
    """A gateway and augment, each a process, a Triton, and the collector that they send to."""

    collector: Collector
    channel: grpc.Channel
    home: Path
    processes: list[subprocess.Popen[bytes]]

    def end(self) -> None:
        for process in self.processes:
            process.send_signal(signal.SIGTERM)
        for process in self.processes:
            assert process.wait(patient(30)) == 0


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    home = tmp_path_factory.mktemp("traced")
    addresses = {name: f"127.0.0.1:{ports.free_port()}" for name in ("gateway", "augment")}
    with ExitStack() as stack:
        collector = stack.enter_context(collecting())
        arguments = tuple(triton_arguments(collector.url))
        triton = stack.enter_context(start(home / "model-repository", arguments=arguments, timeout=patient(30)))
        environment = {
            **os.environ,
            "OTEO_HOME": str(home),
            "OTEO_TOKEN": TOKEN,
            "OTEO_JOB_PYTHON": sys.executable,
            "OTEO_TRITON_URLS": triton.address,
            "OTEO_RECONCILE_SECONDS": "0.2",
            "OTEO_OTLP_ENDPOINT": collector.endpoint,
            **{f"OTEO_{name.upper()}_ADDRESS": address for name, address in addresses.items()},
        }
        processes = []
        script = Path(__file__).resolve().parent.parent / "served_by_processes.py"
        for name, address in addresses.items():
            log = stack.enter_context(open(home / f"{name}.log", "ab"))
            variables = {**environment, "OTEO_LISTEN": address}
            processes.append(subprocess.Popen([sys.executable, str(script), name], env=variables, stdout=log, stderr=log))
        try:
            for address, process in zip(addresses.values(), processes, strict=True):
                wait_for(lambda address=address, process=process: process.poll() is not None or _healthy(address), 60)
            channel = stack.enter_context(grpc.insecure_channel(addresses["gateway"]))
            yield Site(collector, channel, home, processes)
        finally:
            for process in processes:
                process.kill()
                process.wait()


def _healthy(address: str) -> bool:
    with grpc.insecure_channel(address) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10)
        except grpc.RpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def _traced(trace: str, sampled: bool = True) -> tuple[tuple[str, str], ...]:
    return (*METADATA, ("traceparent", f"00-{trace}-{CALLER}-{'01' if sampled else '00'}"), ("tracestate", "hospital=pacs"))


def test_one_trace_spans_gateway_service_job_and_triton(site: Site, tmp_path: Path) -> None:
    secret = class_folders(tmp_path / "mueller-anna-1961", {"yes": 4, "no": 4})
    datasets = dataset_pb2_grpc.DatasetServiceStub(site.channel)
    operations = operations_pb2_grpc.OperationsStub(site.channel)
    trace, silent, predicted, wrong = ("1" * 32, "2" * 32, "3" * 32, "4" * 32)
    for number, (identity, sampled) in enumerate(((trace, True), (silent, False))):
        request = dataset_pb2.ImportDatasetRequest(source_uri=str(secret), dataset_id=f"traced-{number}", display_name="Anna Mueller")
        operation = datasets.ImportDataset(request, timeout=120, metadata=(*_traced(identity, sampled), ("x-request-id", "mueller 1961")))
        named = operations_pb2.GetOperationRequest(name=operation.name)
        wait_for(lambda named=named: operations.GetOperation(named, timeout=60, metadata=METADATA).done, 60)
        assert not operations.GetOperation(named, timeout=60, metadata=METADATA).HasField("error")
    publish_model(ArtifactStore(f"file://{site.home}/artifacts"), "colours")
    deploy_model(site.channel, "colours", METADATA)
    inference = inference_pb2_grpc.InferenceServiceStub(site.channel)
    image = image_pb2.ImageSource(content=picture("red"))
    inference.Predict(inference_pb2.PredictRequest(deployment="deployments/colours", image=image), timeout=120, metadata=_traced(predicted))
    with pytest.raises(grpc.RpcError):
        inference.Predict(inference_pb2.PredictRequest(deployment="deployments/none", image=image), timeout=120, metadata=_traced(wrong))
    site.end()  # what is recorded is sent before a process ends

    method = "oteo.augment.v1.DatasetService/ImportDataset"
    spans = {(span.service, span.name): span for span in site.collector.of(trace)}
    gateway, service, job = (
        spans["oteo-gateway", method],
        spans["oteo-augment", method],
        spans["oteo-augment-job", "job ImportDataset"],
    )
    assert (gateway.parent, service.parent, job.parent) == (CALLER, gateway.id, service.id)
    assert job.attributes["oteo.operation"].startswith("augment-")
    assert not site.collector.of(silent), "a caller that records nothing is not recorded"
    said = str([(span.name, span.attributes) for span in site.collector.spans]).lower()
    assert not any(name in said for name in ("mueller", "anna", "1961", str(tmp_path)))

    asked = {span.name: span for span in site.collector.of(predicted)}
    root = asked["oteo.gateway.v1.InferenceService/Predict"]
    parts = [asked["queue"], asked["decode"], asked["inference.GRPCInferenceService/ModelInfer"]]
    assert all(part.parent == root.id for part in parts)
    assert all(root.begin <= part.begin <= part.end <= root.end for part in parts)
    assert parts[2].attributes["oteo.model"] == "colours"
    # Triton's own part: its request is a child of the gateway's call, the model's execution one of that; no probe is in any trace.
    request = wait_for(lambda: _of_triton(site.collector, predicted).get("InferRequest"))
    assert request.parent == parts[2].id
    model = _of_triton(site.collector, predicted)["colours"]
    assert (model.parent, model.attributes["triton.model_name"]) == (request.id, "colours")
    assert {span.trace for span in site.collector.spans if span.service == "oteo-triton"} == {predicted}
    (refused,) = site.collector.of(wrong)
    assert refused.attributes["rpc.response.status_code"] == "NOT_FOUND"
    assert refused.attributes["oteo.reason"] == "DEPLOYMENT_NOT_FOUND"
    assert not refused.failed, "what a caller got wrong is no fault of the server"

    logged = [json.loads(line) for line in (site.home / "augment.log").read_text().splitlines() if line.startswith("{")]
    assert {line.get("trace_id") for line in logged if line.get("method") == method} <= {None, trace, silent}
    assert any(line["event"] == "call" and line.get("trace_id") == trace and line["request_id"] == "mueller 1961" for line in logged)


def _of_triton(collector: Collector, trace: str) -> dict[str, Span]:
    return {span.name: span for span in collector.of(trace) if span.service == "oteo-triton"}


def test_triton_gets_the_place_in_the_trace_with_each_request(loop: Loop, tmp_path: Path) -> None:
    triton = Backend()
    asked: list[dict[str, str]] = []

    async def ready(request: bytes, context: Any) -> bytes:
        return b"\x08\x01"

    async def infer(request: bytes, context: Any) -> bytes:
        asked.append(dict(context.invocation_metadata()))
        return b""

    prefix = "/inference.GRPCInferenceService"
    for name, answer in (("ServerLive", ready), ("ServerReady", ready), ("ModelInfer", infer)):
        triton.methods[f"{prefix}/{name}"] = grpc.unary_unary_rpc_method_handler(answer)
    loop.run(triton.start())
    settings = settings_for(tmp_path, triton_urls=[f"127.0.0.1:{triton.port}"])
    with running_gateway(loop, settings, log_dir=tmp_path / "logs") as running:
        call = running.channel.unary_unary(f"{prefix}/ModelInfer", request_serializer=bytes, response_deserializer=bytes)
        sent = ("traceparent", f"00-{'a' * 32}-{CALLER}-01"), ("tracestate", "hospital=pacs")
        call(service_pb2.ModelInferRequest(model_name="m").SerializeToString(), timeout=60, metadata=sent)
        assert [(key, asked[-1][key]) for key, _ in sent] == list(sent)
    loop.run(triton.stop())


def test_a_trace_passes_a_gateway_that_records_nothing(loop: Loop, tmp_path: Path) -> None:
    backend = Backend()

    async def get(request: bytes, context: Any) -> bytes:
        return b""

    backend.methods["/oteo.augment.v1.DatasetService/GetDataset"] = grpc.unary_unary_rpc_method_handler(get)
    loop.run(backend.start())
    settings = settings_for(tmp_path, augment_address=f"127.0.0.1:{backend.port}")
    with running_gateway(loop, settings, log_dir=tmp_path / "logs") as running:
        stub = dataset_pb2_grpc.DatasetServiceStub(running.channel)
        sent = ("traceparent", f"00-{'a' * 32}-{CALLER}-01"), ("tracestate", "hospital=pacs")
        stub.GetDataset(dataset_pb2.GetDatasetRequest(name="datasets/x"), timeout=60, metadata=sent)
        assert [(key, backend.metadata[key]) for key, _ in sent] == list(sent)
        stub.GetDataset(dataset_pb2.GetDatasetRequest(name="datasets/x"), timeout=60, metadata=(("traceparent", "Anna Mueller"),))
        assert "traceparent" not in backend.metadata, "what is no trace context is not passed on"
    loop.run(backend.stop())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "00",
        f"00-{'0' * 32}-{CALLER}-01",
        f"00-{'a' * 32}-{'0' * 16}-01",
        f"ff-{'a' * 32}-{CALLER}-01",
        f"00-{'A' * 32}-{CALLER}-01",
        f"00-{'a' * 32}-{CALLER}-01-" + "x" * 200,
    ],
)
def test_broken_trace_context_is_none(text: str) -> None:
    assert tracing.arrived({"traceparent": text}) is None


def test_a_later_version_of_trace_context_is_read() -> None:
    found = tracing.arrived({"traceparent": f"01-{'a' * 32}-{CALLER}-01-more", "tracestate": "x" * 600})
    assert found is not None
    assert found.trace_id == "a" * 32
    assert found.headers() == (("traceparent", f"00-{'a' * 32}-{CALLER}-01"),)
