"""Small parts that the gateway's tests share: packages with a tiny model, a gateway in this process, a backend of any behaviour."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import cv2
import grpc
import numpy as np
import onnx
from google.longrunning import operations_pb2, operations_pb2_grpc
from google.rpc import error_details_pb2, status_pb2
from waiting import patient, wait_done

from oteo_core.artifacts import ArtifactStore
from oteo_core.images import InputPolicy
from oteo_core.jobs import ProcessJobRunner
from oteo_core.packages import Conformal, ModelPackage, OperatingPoint, PackageFile, ReferenceStatistics, image_statistics, statistic_names
from oteo_core.server import build_server
from oteo_gateway.service import Gateway
from oteo_gateway.settings import GatewaySettings
from oteo_protos.gateway.v1 import deployment_pb2, deployment_pb2_grpc

T = TypeVar("T")
TOKEN = "a-token-for-tests"
CLASSES = ["red", "green", "blue"]


def colour_model(channels: int = 3, sharpness: float = 8.0) -> bytes:
    """ONNX: image uint8 [N, H, W, C] -> softmax over the channels' means: the class is the strongest colour."""
    helper = onnx.helper
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["image"], ["real"], to=onnx.TensorProto.FLOAT),
            helper.make_node("ReduceMean", ["real"], ["mean"], axes=[1, 2], keepdims=0),
            helper.make_node("Mul", ["mean", "scale"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
        ],
        "colour",
        [helper.make_tensor_value_info("image", onnx.TensorProto.UINT8, ["N", "H", "W", channels])],
        [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", channels]) for name in ("probabilities", "logits")],
        [helper.make_tensor("scale", onnx.TensorProto.FLOAT, [], [sharpness / 255.0])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


CONFIG = """\
name: "{name}"
backend: "onnxruntime"
max_batch_size: 8
input [{{ name: "image" data_type: TYPE_UINT8 dims: [{height}, {width}, {channels}] }}]
output [{{ name: "probabilities" data_type: TYPE_FP32 dims: [{classes}] }}, {{ name: "logits" data_type: TYPE_FP32 dims: [{classes}] }}]
instance_group [{{ count: 1 kind: KIND_CPU }}]
dynamic_batching {{ {batching} }}
parameters {{ key: "oteo_digest" value {{ string_value: "{digest}" }} }}
"""


def publish_model(
    store: ArtifactStore,
    model_id: str,
    *,
    size: int = 16,
    sharpness: float = 8.0,
    graph: bytes | None = None,
    classes: list[str] | None = None,
    batching: str = "",
) -> ModelPackage:
    """Put a model package into the store, as AutoML would; `batching` is the inside of Triton's ``dynamic_batching``."""
    names = classes or CLASSES
    rows = np.stack([image_statistics(np.random.default_rng(seed).integers(0, 255, (size, size, 3), dtype=np.uint8)) for seed in range(20)])
    package = ModelPackage(
        id=model_id,
        display_name=model_id,
        uid=f"uid-{model_id}",
        task="classification",
        classes=names,
        dataset="datasets/colours",
        dataset_digest="0" * 64,
        candidate="means",
        input=InputPolicy(width=size, height=size, channels=3),
        create_time=datetime.now(UTC),
        conformal=Conformal(quantile=0.7, coverage=0.9, calibration_count=50),
        operating_points=[OperatingPoint("red", 0.9, 0.8, 0.99, "specificity>=0.99")],
        reference=ReferenceStatistics.fit(rows, statistic_names(3)),
    )
    data = colour_model(sharpness=sharpness) if graph is None else graph
    package.digest = package.serving_digest(str(hash(data)))
    config = CONFIG.format(name=model_id, height=size, width=size, channels=3, classes=len(names), digest=package.digest, batching=batching)
    prefix = f"models/{model_id}"
    store.write_bytes(f"{prefix}/triton/{model_id}/1/model.onnx", data)
    store.write_bytes(f"{prefix}/triton/{model_id}/config.pbtxt", config.encode())
    package.files = {f"triton/{model_id}/1/model.onnx": PackageFile("0" * 64, len(data))}
    store.write_bytes(f"{prefix}/package.json", package.to_json())
    return package


def picture(colour: str, size: int = 24) -> bytes:
    """PNG of one colour."""
    pixels = np.zeros((size, size, 3), dtype=np.uint8)
    pixels[:, :, 2 - CLASSES.index(colour)] = 255  # OpenCV writes BGR
    return bytes(cv2.imencode(".png", pixels)[1].tobytes())


class Loop:
    """An event loop in a thread of its own, for servers beside blocking test code."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T], timeout: float = 300.0) -> T:
        """Run a coroutine there and give its result."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(timeout)

    def close(self) -> None:
        """Stop the loop."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(patient(5))
        self.loop.close()


@dataclass
class Backend:
    """A small real server behind the gateway: a plain generic handler whose methods a test gives."""

    methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    server: Any = None
    port: int = 0

    async def start(self, port: int = 0) -> None:
        """Serve on loopback."""
        backend = self

        class Handler(grpc.GenericRpcHandler):
            def service(self, details: Any) -> Any:
                backend.metadata = {key: value for key, value in details.invocation_metadata or () if isinstance(value, str)}
                return backend.methods.get(details.method)

        self.server = grpc.aio.server(options=[("grpc.max_receive_message_length", 1 << 26), ("grpc.so_reuseport", 0)])
        self.server.add_generic_rpc_handlers((Handler(),))
        self.port = self.server.add_insecure_port(f"127.0.0.1:{port or self.port}")
        assert self.port
        await self.server.start()

    async def stop(self) -> None:
        """Go away at once."""
        await self.server.stop(0)


@dataclass
class RunningGateway:
    """A gateway in this process."""

    gateway: Gateway
    address: str
    channel: grpc.Channel
    settings: GatewaySettings


@contextmanager
def running_gateway(loop: Loop, settings: GatewaySettings, *, log_dir: Path) -> Iterator[RunningGateway]:
    """Serve a gateway on a free port; its address is put into its settings."""
    gateway = Gateway(settings, ProcessJobRunner(log_dir))

    async def start() -> Any:
        server = build_server(
            settings,
            service="gateway",
            register=gateway.register,
            listen="127.0.0.1:0",
            door=gateway.door,
            hook=gateway.hook,
            crowd=gateway.crowd,
        )
        await gateway.start()
        await server.start()
        return server

    server = loop.run(start())
    address = f"127.0.0.1:{server.port}"
    settings.__dict__["gateway_address"] = address
    channel = grpc.intercept_channel(grpc.insecure_channel(address), _Token())
    try:
        yield RunningGateway(gateway, address, channel, settings)
    finally:
        channel.close()
        loop.run(server.stop(0.5))
        loop.run(gateway.stop())


class _Token(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    def _with(self, details: Any) -> Any:
        metadata = [*(details.metadata or ()), ("authorization", f"Bearer {TOKEN}")]
        return details._replace(metadata=metadata)

    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        return continuation(self._with(details), request)

    intercept_unary_stream = intercept_stream_unary = intercept_stream_stream = intercept_unary_unary


def settings_for(home: Path, **values: Any) -> GatewaySettings:
    """Settings of a gateway below a folder."""
    home.mkdir(parents=True, exist_ok=True)
    defaults = {
        "home": home,
        "token": TOKEN,
        "listen": "127.0.0.1:0",
        "reconcile_seconds": 0.2,
        "probe_seconds": 0.5,
        "health_seconds": 0.2,
        "triton_urls": ["127.0.0.1:1"],
    }
    return GatewaySettings(**{**defaults, **values})


def deploy_model(channel: grpc.Channel, model_id: str, metadata: tuple[tuple[str, str], ...] = ()) -> None:
    """Put a model into service as the deployment of its own name, and wait until it is."""
    wanted = deployment_pb2.Deployment(models=[deployment_pb2.DeployedModel(model=f"models/{model_id}")])
    request = deployment_pb2.CreateDeploymentRequest(deployment=wanted)
    made = deployment_pb2_grpc.DeploymentServiceStub(channel).CreateDeployment(request, timeout=60, metadata=metadata)
    operations, named = operations_pb2_grpc.OperationsStub(channel), operations_pb2.GetOperationRequest(name=made.name)
    ended = wait_done(lambda: operations.GetOperation(named, timeout=60, metadata=metadata), 60)
    assert ended.WhichOneof("result") == "response", ended.error.message


def details_of(error: grpc.RpcError) -> tuple[str, dict[str, str], float | None]:
    """Give reason, metadata and retry delay that an error carries."""
    reason, metadata, delay = "", {}, None
    for key, value in error.trailing_metadata() or ():  # type: ignore[attr-defined]
        if key != "grpc-status-details-bin":
            continue
        for detail in status_pb2.Status.FromString(value).details:
            info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
            if detail.Unpack(info):
                reason, metadata = info.reason, dict(info.metadata)
            elif detail.Unpack(retry):
                delay = retry.retry_delay.ToNanoseconds() / 1e9
    return reason, metadata, delay


def deploy(channel: grpc.Channel, models: Sequence[str], variant: str = "") -> None:
    """Put models into service, each as the deployment of its name, and wait until they answer; of a variant, with ``-bf16`` behind the name."""
    deployments = deployment_pb2_grpc.DeploymentServiceStub(channel)
    operations = operations_pb2_grpc.OperationsStub(channel)
    for name in models:
        part = deployment_pb2.DeployedModel(model=f"models/{name}", variant=variant or "MODEL_VARIANT_UNSPECIFIED")
        chosen = f"{name}-{variant.removeprefix('MODEL_VARIANT_').lower()}" if variant else ""
        asked = deployment_pb2.CreateDeploymentRequest(deployment_id=chosen, deployment=deployment_pb2.Deployment(models=[part]))
        made = deployments.CreateDeployment(asked, timeout=60)
        request = operations_pb2.GetOperationRequest(name=made.name)
        ended = wait_done(lambda request=request: operations.GetOperation(request, timeout=60), 60)
        assert ended.WhichOneof("result") == "response"
