"""The chart's autoscaler and alerts on real parts: the real Prometheus scrapes the real gateway and Tritons, the chart's own queries and rules are evaluated, and what
Kubernetes' rules make of them is done.

Stand-ins: processes for containers, a file for the cluster's DNS, `tools/autoscaling.py` for KEDA and the HorizontalPodAutoscaler. Time runs `FASTER` as fast (see
`live_prometheus`), for Prometheus and for the autoscaler; the parts themselves keep their own pace, so that a replica that starts in 6 s does in a minute of the autoscaler's.
"""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import autoscaling
import cv2
import grpc
import numpy as np
import onnx
import psutil
import pytest
import yaml
from chart_values import TritonScaling
from charting import Object, named, of_kind, render
from engines import Postgres
from gateway_support import CLASSES, picture, publish_model
from google.longrunning import operations_pb2, operations_pb2_grpc
from live_prometheus import Faster, Prometheus, Scraped, milliseconds
from live_replicas import TritonReplica, TritonReplicas
from running import Process, Site, container_of
from sites import METADATA, STORE_SECRETS, artifacts_of, external_store, object_store, write_secrets
from steady_load import SteadyLoad

from oteo_core.artifacts import ArtifactStore
from oteo_protos.gateway.v1 import deployment_pb2, deployment_pb2_grpc, inference_pb2, inference_pb2_grpc
from oteo_protos.type.v1 import image_pb2

pytestmark = pytest.mark.slow

FASTER = 10
"""So much faster than a cluster's does time run for Prometheus and the autoscaler."""
PICTURES = {colour: picture(colour) for colour in CLASSES}
SIZE = 16


def busy_model(rounds: int = 4, width: int = 48) -> bytes:
    """ONNX: as `gateway_support.colour_model`, and some ten milliseconds of a core for each image, so that one replica can be too few."""
    helper, real = onnx.helper, onnx.TensorProto.FLOAT
    rng = np.random.default_rng(5)
    nodes = [
        helper.make_node("Cast", ["image"], ["real"], to=real),
        helper.make_node("ReduceMean", ["real"], ["mean"], axes=[1, 2], keepdims=0),
        helper.make_node("Mul", ["mean", "scale"], ["seen"]),
        helper.make_node("Transpose", ["real"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Tile", ["planes", "repeats"], ["work0"]),
    ]
    for number in range(rounds):
        nodes += [
            helper.make_node("Conv", [f"work{number}", "kernel"], [f"conv{number}"], pads=[1, 1, 1, 1]),
            helper.make_node("Sigmoid", [f"conv{number}"], [f"work{number + 1}"]),
        ]
    nodes += [
        helper.make_node("ReduceMean", [f"work{rounds}"], ["worked"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Unsqueeze", ["worked", "last"], ["column"]),
        helper.make_node("Mul", ["column", "nothing"], ["added"]),
        helper.make_node("Add", ["seen", "added"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    kernel = (rng.normal(size=(width, width, 3, 3)) / width).astype(np.float32)
    graph = helper.make_graph(
        nodes,
        "busy",
        [helper.make_tensor_value_info("image", onnx.TensorProto.UINT8, ["N", "H", "W", 3])],
        [helper.make_tensor_value_info(name, real, ["N", 3]) for name in ("probabilities", "logits")],
        [
            helper.make_tensor("scale", real, [], [8.0 / 255.0]),
            helper.make_tensor("nothing", real, [], [1e-9]),
            helper.make_tensor("repeats", onnx.TensorProto.INT64, [4], [1, width // 3, 6, 6]),
            helper.make_tensor("last", onnx.TensorProto.INT64, [1], [1]),
            onnx.numpy_helper.from_array(kernel, "kernel"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


async def predict(channel: grpc.aio.Channel, number: int) -> bool:
    """Ask for one image whose class is known."""
    colour = CLASSES[number % 3]
    request = inference_pb2.PredictRequest(deployment="deployments/busy", image=image_pb2.ImageSource(content=PICTURES[colour]))
    answer = await inference_pb2_grpc.InferenceServiceStub(channel).Predict(request, metadata=METADATA, timeout=30)
    return bool(answer.classification.decision == colour)


def scaling_of(scaler: Object) -> TritonScaling:
    """Read the autoscaler's settings out of what is rendered; its policies are those that `autoscaling.Autoscaler` follows."""
    spec = scaler["spec"]
    behavior = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    assert behavior["scaleUp"]["policies"] == [{"type": "Percent", "value": 100, "periodSeconds": autoscaling.DOUBLING_SECONDS}]
    assert behavior["scaleDown"]["policies"] == [{"type": "Pods", "value": 1, "periodSeconds": autoscaling.REMOVAL_SECONDS}]
    triggers = {trigger["name"]: trigger["metadata"] for trigger in spec["triggers"]}
    assert spec["cooldownPeriod"] == behavior["scaleDown"]["stabilizationWindowSeconds"]
    return TritonScaling(
        mode="keda",
        minReplicas=spec["minReplicaCount"],
        maxReplicas=spec["maxReplicaCount"],
        concurrencyPerReplica=float(triggers["inside"]["threshold"]),
        queueMilliseconds=20,
        cpuPercent=70,
        wakeOnWaiting=int(triggers["wake"]["activationThreshold"]),
        scaleUpSeconds=behavior["scaleUp"]["stabilizationWindowSeconds"],
        scaleDownSeconds=behavior["scaleDown"]["stabilizationWindowSeconds"],
        pollSeconds=spec["pollingInterval"],
        prometheus=triggers["inside"]["serverAddress"],
    )


@dataclass(frozen=True)
class Look:
    """What the autoscaler saw and wanted at one moment of the wall's clock."""

    at: float
    figures: dict[str, float]
    wanted: int
    ready: int


@dataclass
class Cluster:
    """All parts that run, and the autoscaler that looks after Triton."""

    objects: tuple[Object, ...]
    site: Site
    prometheus: Prometheus
    replicas: TritonReplicas
    gateway: Process
    settings: TritonScaling
    queries: dict[str, str]
    channel: grpc.Channel
    looks: list[Look] = field(default_factory=list)
    failed_at_birth: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.scaler = autoscaling.Autoscaler(self.settings)
        self.begin = time.monotonic()

    def look(self) -> Look:
        """Ask the chart's queries, and do what the rules make of the answers."""
        now = time.monotonic()
        found = {name: self.prometheus.value(query) for name, query in self.queries.items()}
        wanted = self.scaler.look(
            (now - self.begin) * FASTER, inside=found["inside"], waiting=found["wake"], asked=found["asked"], busy=0.0, queue_seconds=0.0
        )
        self.replicas.scale(wanted)
        self.replicas.tend()
        look = Look(now, found, wanted, sum(bool(replica.ready) for replica in self.replicas.running()))
        self.looks.append(look)
        return look

    def until(self, condition: Callable[[], bool], seconds: float, what: str) -> float:
        """Let the autoscaler work until something holds; gives the seconds of the wall's clock that it took."""
        begin = time.monotonic()
        while True:
            last = self.look()
            if condition():
                return time.monotonic() - begin
            if time.monotonic() - begin > seconds:
                logs = [replica.log.read_text()[-1500:] for replica in self.replicas.running()]
                raise AssertionError((what, last, self.gateway.log.read_text()[-3000:], *logs))
            time.sleep(0.25)

    def counts(self, since: float = 0.0) -> list[int]:
        """Give the counts that were wanted, each once for as long as it stood."""
        return [count for count, _ in itertools.groupby(look.wanted for look in self.looks if look.at >= since)]

    def deploy(self, name: str) -> Callable[[], bool]:
        """Ask for a deployment; gives what says whether its operation has ended."""
        request = deployment_pb2.CreateDeploymentRequest(deployment_id=name, deployment={"models": [{"model": f"models/{name}"}]})
        operation = deployment_pb2_grpc.DeploymentServiceStub(self.channel).CreateDeployment(request, timeout=20, metadata=METADATA)
        operations = operations_pb2_grpc.OperationsStub(self.channel)

        def done() -> bool:
            found = operations.GetOperation(operations_pb2.GetOperationRequest(name=operation.name), timeout=20, metadata=METADATA)
            assert not found.HasField("error"), found.error
            return bool(found.done)

        return done

    def serves_everything(self, replica: TritonReplica) -> None:
        """Have a replica that Kubernetes takes for ready answer for every deployment, past the gateway."""
        pixels = np.zeros((SIZE, SIZE, 3), dtype=np.uint8)
        pixels[:, :, 1] = 255
        image = {"name": "image", "datatype": "UINT8", "shape": [1, SIZE, SIZE, 3], "data": pixels.reshape(-1).tolist()}
        for model in ("busy", "quick"):
            answer = self.replicas.ask(replica, f"/v2/models/{model}/infer", {"inputs": [image]})
            probabilities = next(output["data"] for output in answer["outputs"] if output["name"] == "probabilities")
            assert int(np.argmax(probabilities)) == CLASSES.index("green"), (replica.pod, model)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, postgres: Postgres) -> Iterator[Cluster]:
    """Run an object store, a gateway, Prometheus and no Triton: the production preset begins with none."""
    folder = tmp_path_factory.mktemp("cluster")
    with ExitStack() as stack:
        store = stack.enter_context(object_store())
        objects = render(
            "single-node-cpu",
            *external_store(store),
            # As in production, whose replicas have GPUs: the requests inside decide alone.
            "triton.gpu.enabled=true",
            'triton.autoscaling={"mode": "keda", "minReplicas": 0, "maxReplicas": 8}',
            "monitoring.serviceMonitors.enabled=true",
            "monitoring.rules.enabled=true",
        )
        secrets = {"oteo-database/url": postgres.new_url(), **STORE_SECRETS}
        site = stack.enter_context(Site(folder, objects, secrets, {("oteo-s3", 7070): store}))
        write_secrets(site)
        artifacts = artifacts_of(store)
        publish_model(artifacts, "busy", size=SIZE, graph=busy_model())
        publish_model(artifacts, "quick", size=SIZE)
        (scaler,) = of_kind(objects, "ScaledObject")
        assert scaler["spec"]["triggers"] == _triggers_of_production(), "what is asked here is what production asks"
        prometheus = Prometheus(objects, folder, Faster(FASTER))
        gateways = [Scraped("oteo-gateway-headless", "oteo-gateway-1", f"127.0.0.1:{site.port('oteo-gateway', 9100)}")]
        names = folder / "names.json"
        replicas = TritonReplicas(site, names, lambda tritons: prometheus.scrape([*gateways, *tritons]))
        gateway = _start_gateway(site, replicas, names)
        stack.enter_context(prometheus)
        gateway.wait(90)
        channel = stack.enter_context(grpc.insecure_channel(f"127.0.0.1:{site.port('oteo-gateway', 7000)}"))
        queries = {trigger["name"]: trigger["metadata"]["query"] for trigger in scaler["spec"]["triggers"]}
        made = Cluster(objects, site, prometheus, replicas, gateway, scaling_of(scaler), queries, channel)
        replicas.on_ready = made.serves_everything
        until = time.monotonic() + 30
        while not prometheus.is_up() or not prometheus.vector('up{service="oteo-gateway-headless"} == 1'):
            assert time.monotonic() < until, prometheus.log.read_text()[-2000:]
            time.sleep(0.3)
        yield made


def _triggers_of_production() -> list[dict[str, Any]]:
    (scaler,) = of_kind(render("production"), "ScaledObject")
    found: list[dict[str, Any]] = scaler["spec"]["triggers"]
    return found


def _start_gateway(site: Site, replicas: TritonReplicas, names: Path) -> Process:
    """Start the gateway as rendered, with the cluster's DNS and the port that is free here."""
    container = container_of(site.objects, "gateway")
    variables = site.environment("gateway")
    here = str(Path(__file__).resolve().parent / "cluster_names")
    variables |= {
        "OTEO_TRITON_URLS": replicas.url,
        "OTEO_TEST_NAMES": str(names),
        "PYTHONPATH": f"{here}:{variables['PYTHONPATH']}" if "PYTHONPATH" in variables else here,
    }
    for folder in ("var/lib/oteo", "tmp"):
        (site.folder / "gateway" / folder).mkdir(parents=True, exist_ok=True)
    import sys

    command = [sys.executable if word == "python" else word for word in container["command"]]
    process = Process(site, "gateway", container, command, variables)
    site.processes.append(process)
    return process


def test_replicas_follow_the_load_from_zero_to_three_and_back_and_no_call_is_lost(cluster: Cluster) -> None:
    address = f"127.0.0.1:{cluster.site.port('oteo-gateway', 7000)}"
    replicas = cluster.replicas
    # A deployment is asked for where no replica runs: it needs one.
    for _ in range(8):
        cluster.look()
        time.sleep(0.25)
    assert cluster.counts() == [0]
    done = [cluster.deploy(name) for name in ("busy", "quick")]
    print("deployed after", cluster.until(lambda: all(one() for one in done), 90, "a replica for the deployments"))
    for callers in (1, 6, 11, 1):
        with SteadyLoad(address, predict, callers=callers) as load:
            begin = time.monotonic()
            while time.monotonic() - begin < 25:
                look = cluster.look()
                print(callers, {k: round(v, 3) for k, v in look.figures.items()}, look.wanted, look.ready)
                time.sleep(0.5)
        load.check()
        print(load.codes())
