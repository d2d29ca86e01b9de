"""The chart's autoscaler and alerts on real parts: the real Prometheus scrapes the real gateway and Tritons, the chart's own queries and rules are evaluated, and what
Kubernetes' rules make of them is done.

Stand-ins: processes for containers, a file for the cluster's DNS, `tools/autoscaling.py` for KEDA and the HorizontalPodAutoscaler. Time runs `FASTER` as fast (see
`live_prometheus`), for Prometheus and for the autoscaler; the parts themselves keep their own pace, so that a replica that starts in 6 s does in a minute of the autoscaler's.
"""

from __future__ import annotations

import itertools
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import autoscaling
import capacity
import cv2
import grpc
import numpy as np
import pytest
import yaml
from chart_models.models import TritonScaling
from charting import CHART, NAMESPACE, Object, named, of_kind, render
from engines import Postgres
from gateway_support import CLASSES, picture, publish_model
from google.longrunning import operations_pb2, operations_pb2_grpc
from live_prometheus import Faster, Prometheus, Scraped, milliseconds
from live_replicas import TritonReplica, TritonReplicas
from running import Process, Site, container_of
from sites import METADATA, STORE_SECRETS, artifacts_of, external_store, object_store, write_secrets
from steady_load import Ask, SteadyLoad
from tritonclient.grpc import service_pb2, service_pb2_grpc
from waiting import patient, wait_for

from oteo_core.artifacts import ArtifactStore
from oteo_core.packages import image_statistics, statistic_names
from oteo_core.packages.reference_sample import ReferenceSample
from oteo_protos.gateway.v1 import deployment_pb2, deployment_pb2_grpc, inference_pb2, inference_pb2_grpc
from oteo_protos.type.v1 import image_pb2

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]

DEPLOYED = ("busy", "quick")
FASTER = 8
"""So much faster than a cluster's does time run for Prometheus and the autoscaler."""
PATIENTLY = 100.0
"""Seconds, as in `wait_for`, for what says nothing of time: processes that start and end."""
PICTURES = {colour: picture(colour) for colour in CLASSES}
SIZE = 16
PATIENT = 60.0
"""Seconds that a caller waits for an answer."""


BUSY_SECONDS = 0.25
"""For which a replica is taken up by one image of the model `busy`, alone: it answers 4 a second."""
_BUSY = f"""
import os
import time

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        if os.path.exists("{{broken}}"):
            raise RuntimeError("the device has gone")
        answers = []
        for request in requests:
            image = pb_utils.get_input_tensor_by_name(request, "image").as_numpy()
            time.sleep({BUSY_SECONDS} * len(image))
            logits = image.astype(np.float32).mean(axis=(1, 2)) * np.float32(8 / 255)
            shares = np.exp(logits - logits.max(axis=1, keepdims=True))
            shares /= shares.sum(axis=1, keepdims=True)
            tensors = [pb_utils.Tensor("probabilities", shares), pb_utils.Tensor("logits", logits)]
            answers.append(pb_utils.InferenceResponse(output_tensors=tensors))
        return answers
"""
_BUSY_CONFIG = """\
name: "busy"
backend: "python"
max_batch_size: 8
input [{ name: "image" data_type: TYPE_UINT8 dims: [16, 16, 3] }]
output [{ name: "probabilities" data_type: TYPE_FP32 dims: [3] }, { name: "logits" data_type: TYPE_FP32 dims: [3] }]
instance_group [{ count: 1 kind: KIND_CPU }]
"""


def publish_models(artifacts: ArtifactStore, broken: Path) -> None:
    """Publish `busy`, whose replicas are full while the machine is not, as with a GPU in each, and which fails while the file `broken` is there; and `quick`, which knows what its training images looked like."""
    publish_model(artifacts, "busy", size=SIZE)
    folder = "models/busy/triton/busy"
    artifacts.delete(f"{folder}/1/model.onnx")
    artifacts.write_bytes(f"{folder}/1/model.py", _BUSY.replace("{broken}", str(broken)).encode())
    artifacts.write_bytes(f"{folder}/config.pbtxt", _BUSY_CONFIG.encode())
    publish_model(artifacts, "quick", size=SIZE)
    rng = np.random.default_rng(7)
    rows = np.stack([image_statistics(noise(rng)) for _ in range(200)])
    answers = np.eye(3, dtype=bool)[rng.integers(0, 3, 200)]
    sample = ReferenceSample.of(statistic_names(3), rows, truths=answers, answers=answers)
    artifacts.write_bytes("models/quick/reference.npz", sample.to_npz())


def noise(rng: np.random.Generator) -> np.ndarray:
    """Make an image of the domain that `quick` was trained in."""
    return rng.integers(0, 255, (SIZE, SIZE, 3), dtype=np.uint8)


def asking(deployment: str) -> Ask:
    """Give a call that asks a deployment for one image whose class is known."""

    async def ask(channel: grpc.aio.Channel, number: int) -> bool:
        colour = CLASSES[number % 3]
        request = inference_pb2.PredictRequest(
            deployment=f"deployments/{deployment}", image=image_pb2.ImageSource(content=PICTURES[colour])
        )
        answer = await inference_pb2_grpc.InferenceServiceStub(channel).Predict(request, metadata=METADATA, timeout=PATIENT)
        return bool(answer.classification.decision == colour)

    return ask


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
    """What the autoscaler saw and wanted at one moment of its own clock, seconds."""

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
    broken: Path
    """While it is there, Triton says READY of `busy` and fails every request of it."""
    looks: list[Look] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.scaler = autoscaling.Autoscaler(self.settings)
        self.clock = 0.0
        self.looked = time.monotonic()

    def look(self) -> Look:
        """Ask the chart's queries, and do what the rules make of the answers."""
        now = time.monotonic()
        # Where the machine keeps this process from its turn, the autoscaler's clock stands: it misses none of its own.
        self.clock += min((now - self.looked) * FASTER, autoscaling.SYNC_SECONDS)
        self.looked = now
        found = {name: self.prometheus.value(query) for name, query in self.queries.items()}
        wanted = self.scaler.look(
            self.clock, inside=found["inside"], waiting=found["wake"], needed=found["needed"], busy=0.0, queue_seconds=0.0
        )
        self.replicas.scale(wanted)
        self.replicas.tend()
        look = Look(self.clock, found, wanted, sum(bool(replica.ready) for replica in self.replicas.running()))
        self.looks.append(look)
        return look

    def until(self, condition: Callable[[], bool], what: str) -> int:
        """Let the autoscaler work until something holds; gives the turns that it had."""
        begin, clock = time.monotonic(), self.clock
        while True:
            self.look()
            if condition():
                return self.turns(clock)
            if time.monotonic() - begin > patient(PATIENTLY):
                print(self.gateway.log.read_text()[-3000:], *(replica.log.read_text()[-1500:] for replica in self.replicas.running()))
                raise AssertionError((what, self.counts(), self.looks[-40:]))
            time.sleep(0.4)

    def watch(self, seconds: float) -> None:
        """Let the autoscaler work for a time of the wall's clock."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.look()
            time.sleep(0.4)

    def counts(self, since: float = 0.0) -> list[int]:
        """Give the counts that were wanted, each once for as long as it stood."""
        return [count for count, _ in itertools.groupby(look.wanted for look in self.looks if look.at >= since)]

    def turns(self, since: float) -> int:
        """Give how many turns the autoscaler had since a moment of its clock."""
        return len({int(look.at / autoscaling.SYNC_SECONDS) for look in self.looks if look.at >= since})

    def wants(self, count: int) -> Callable[[], bool]:
        """Give what tells whether so many are wanted."""
        return lambda: self.looks[-1].wanted == count

    def has(self, count: int) -> Callable[[], bool]:
        """Give what tells whether so many, and no more, are there and ready."""
        return lambda: self.looks[-1].wanted == self.looks[-1].ready == count == sum(not replica.ended for replica in self.replicas.all)

    @property
    def address(self) -> str:
        """The gateway's."""
        return f"127.0.0.1:{self.site.port('oteo-gateway', 7000)}"

    def deploy(self, name: str) -> Callable[[], bool]:
        """Ask for a deployment; gives what tells whether its operation has ended."""
        request = deployment_pb2.CreateDeploymentRequest(deployment_id=name, deployment={"models": [{"model": f"models/{name}"}]})
        operation = deployment_pb2_grpc.DeploymentServiceStub(self.channel).CreateDeployment(
            request, timeout=patient(PATIENTLY), metadata=METADATA
        )
        operations = operations_pb2_grpc.OperationsStub(self.channel)

        def done() -> bool:
            found = operations.GetOperation(
                operations_pb2.GetOperationRequest(name=operation.name), timeout=patient(PATIENTLY), metadata=METADATA
            )
            assert not found.HasField("error"), found.error
            return bool(found.done)

        return done

    def serve(self) -> None:
        """Have one replica serve both deployments, whatever ran before."""
        stub = deployment_pb2_grpc.DeploymentServiceStub(self.channel)
        if not stub.ListDeployments(deployment_pb2.ListDeploymentsRequest(), timeout=patient(PATIENTLY), metadata=METADATA).deployments:
            for name in DEPLOYED:
                self.deploy(name)
        self.replicas.scale(1)

        def ready() -> bool:
            self.replicas.tend()
            found = stub.ListDeployments(deployment_pb2.ListDeploymentsRequest(), timeout=patient(PATIENTLY), metadata=METADATA).deployments
            return all(one.state == deployment_pb2.Deployment.STATE_READY for one in found)

        wait_for(ready, PATIENTLY)

    def queue_milliseconds(self) -> dict[str, float]:
        """Ask prometheus-adapter's rule for the mean time in each pod's queue, as it would when the autoscaler asks for it."""
        rule = yaml.safe_load(named(render("mig"), "ConfigMap", "oteo-prometheus-adapter-rule")["data"]["rule.yaml"])
        pods = [replica.pod for replica in self.replicas.running()]
        found = {labels["pod"] for labels, _ in self.prometheus.vector(rule["seriesQuery"])}
        assert found >= set(pods), "the rule finds no series of a pod"
        matchers = f'namespace="{NAMESPACE}",pod=~"{"|".join(pods)}"'
        query = rule["metricsQuery"].replace("<<.LabelMatchers>>", matchers).replace("<<.GroupBy>>", "pod")
        return {labels["pod"]: value for labels, value in self.prometheus.vector(query)}

    def until_each_answered(self, count: int) -> list[int]:
        """Let the autoscaler work until each replica has answered so many predictions more, as it counts them itself; gives how many each did."""
        self.replicas.count()
        running, begin = self.replicas.running(), time.monotonic()
        before = [replica.answered.get("busy", 0) for replica in running]

        def answered() -> list[int]:
            self.replicas.count()
            return [replica.answered.get("busy", 0) - earlier for replica, earlier in zip(running, before, strict=True)]

        # The gateway's probes, one every five seconds, are none of them.
        self.until(lambda: min(answered()) >= count + (time.monotonic() - begin) / 5 + 1, "each replica takes part")
        return answered()

    def summary(self, name: str, severity: str) -> str:
        """Give what an alert that fires says."""
        wanted = {"alertname": name, "severity": severity}
        (found,) = [one for one in self.prometheus.alerts() if wanted.items() <= one["labels"].items() and one["state"] == "firing"]
        return str(found["annotations"]["summary"])

    def alerts(self, name: str, **labels: str) -> list[str]:
        """Give the states of an alert with these labels, pending or firing."""
        return [
            alert["state"]
            for alert in self.prometheus.alerts()
            if alert["labels"]["alertname"] == name and labels.items() <= alert["labels"].items()
        ]

    def serves_everything(self, replica: TritonReplica) -> None:
        """Have a replica that Kubernetes takes for ready answer for every deployment, past the gateway."""
        pixels = np.zeros((SIZE, SIZE, 3), dtype=np.uint8)
        pixels[:, :, 1] = 255
        image = {"name": "image", "datatype": "UINT8", "shape": [1, SIZE, SIZE, 3], "data": pixels.reshape(-1).tolist()}
        for model in DEPLOYED:
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
            'gateway.autoscaling={"enabled": true, "minReplicas": 1, "maxReplicas": 6}',
            # So little that a busy machine can show what is more, and more than its loops take of it while nobody asks.
            'gateway.resources.requests.cpu="250m"',
        )
        secrets = {"oteo-database/url": postgres.new_url(), **STORE_SECRETS}
        site = stack.enter_context(Site(folder, objects, secrets, {("oteo-s3", 7070): store}))
        write_secrets(site)
        artifacts = artifacts_of(store)
        broken = folder / "broken"
        publish_models(artifacts, broken)
        (scaler,) = of_kind(objects, "ScaledObject")
        assert scaler["spec"]["triggers"] == _triggers_of_production(), "what is asked here is what production asks"
        prometheus = Prometheus(objects, folder, Faster(FASTER))
        gateways = [Scraped("oteo-gateway-headless", "oteo-gateway-1", f"127.0.0.1:{site.port('oteo-gateway', 9100)}")]
        names = folder / "names.json"
        replicas = TritonReplicas(site, names, lambda tritons: prometheus.scrape([*gateways, *tritons]))
        stack.callback(replicas.close)
        gateway = _start_gateway(site, replicas, names)
        stack.enter_context(prometheus)
        gateway.wait(PATIENTLY)
        channel = stack.enter_context(grpc.insecure_channel(f"127.0.0.1:{site.port('oteo-gateway', 7000)}"))
        queries = {trigger["name"]: trigger["metadata"]["query"] for trigger in scaler["spec"]["triggers"]}
        made = Cluster(objects, site, prometheus, replicas, gateway, scaling_of(scaler), queries, channel, broken)
        replicas.on_ready = made.serves_everything
        wait_for(
            lambda: prometheus.is_up() and prometheus.vector('up{service="oteo-gateway-headless"} == 1'),
            PATIENTLY,
            said=lambda: prometheus.log.read_text()[-2000:],
            pause=0.3,
        )
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
    command = [sys.executable if word == "python" else word for word in container["command"]]
    process = Process(site, "gateway", container, command, variables)
    site.processes.append(process)
    return process


RISE_TURNS = 12
"""Of the autoscaler, 15 s of its time apart: a load that needs another replica is seen in full after the query's minute, and then waits for a scrape, the autoscaler's
turn and its window (15 s each). The rest is for a machine that does other things beside."""
SLACK_TURNS = 8
"""Beyond what the windows make of a falling load."""


def test_replicas_follow_the_load_from_zero_to_three_and_back_and_no_call_is_lost(cluster: Cluster) -> None:
    replicas, settings = cluster.replicas, cluster.settings
    by_queue = capacity.scaling_of(CHART / "ci/mig.yaml", [])[0]
    took: dict[str, int] = {}
    cluster.watch(2)
    assert cluster.counts() == [0], "nobody asks for anything"
    # Deployments are asked for where no replica runs: that starts one.
    done = [cluster.deploy(name) for name in DEPLOYED]
    took["1, as deployments wait"] = cluster.until(cluster.wants(1), "a replica for deployments that wait")
    cluster.until(lambda: all(one() for one in done) and cluster.has(1)(), "deployments that one replica serves")
    with ExitStack() as most, ExitStack() as base:
        loads = [base.enter_context(SteadyLoad(cluster.address, asking("busy"), callers=1))]
        cluster.watch(15)
        assert max(cluster.queue_milliseconds().values()) < by_queue.queueMilliseconds, "who is alone does not wait"
        loads.append(base.enter_context(SteadyLoad(cluster.address, asking("busy"), callers=2)))
        cluster.watch(10)
        assert cluster.counts() == [0, 1], "three callers are within what one replica is for"
        for count in (2, 3):
            # Seven callers, then eleven: four for each replica.
            loads.append(most.enter_context(SteadyLoad(cluster.address, asking("busy"), callers=4)))
            took[f"{count}, as callers come"] = cluster.until(cluster.wants(count), f"{count} replicas wanted")
            cluster.until(cluster.has(count), f"{count} replicas ready")
            cluster.watch(8)
        queues = cluster.queue_milliseconds()
        assert len(queues) == 3
        assert sum(queues.values()) / 3 > by_queue.queueMilliseconds, "the alternative would add replicas, too"
        shares = cluster.until_each_answered(20)
        begin = cluster.clock
        most.close()
        took["2 again"] = cluster.until(cluster.wants(2), "one replica leaves")
        fell = cluster.clock - begin
        took["1 again"] = cluster.until(cluster.wants(1), "another leaves")
        cluster.until(cluster.has(1), "both have gone")
        cluster.watch(2)
    quiet = cluster.clock
    took["0 again"] = cluster.until(cluster.wants(0), "the last one leaves")
    emptied = cluster.clock - quiet
    cluster.until(cluster.has(0), "it has gone")
    print(
        "turns of the autoscaler until so many were wanted:", took, f"; fell after {fell:.0f} s, to none after {emptied:.0f} s of its time"
    )
    print("answered until each had 20:", shares, "queue, ms:", queues, [dict(load.codes()) for load in loads])
    # The counts follow, and nothing else.
    assert cluster.counts() == [0, 1, 2, 3, 2, 1, 0]
    assert max(took["2, as callers come"], took["3, as callers come"]) <= RISE_TURNS
    assert fell >= settings.scaleDownSeconds
    turns = settings.scaleDownSeconds / autoscaling.SYNC_SECONDS
    minute = 60 / autoscaling.SYNC_SECONDS
    assert took["2 again"] <= turns + minute + SLACK_TURNS
    assert took["1 again"] <= minute + SLACK_TURNS
    assert emptied >= settings.scaleDownSeconds
    assert took["0 again"] <= turns + 2 * minute + SLACK_TURNS
    # Nobody noticed.
    for load in loads:
        load.check()
        assert set(load.codes()) == {"OK"}
    # Each left of itself, within its time.
    drain = int(re.findall(r"--exit-timeout-secs=(\d+)", " ".join(container_of(cluster.objects, "triton")["args"]))[0])
    assert len(replicas.all) == 3
    for replica in replicas.all:
        assert replica.status == 0, replica.log.read_text()[-2000:]
        assert replica.ended - replica.told_to_end < drain
    # Who speaks the Open Inference Protocol wakes one, too.
    with pytest.raises(grpc.RpcError) as refused:
        service_pb2_grpc.GRPCInferenceServiceStub(cluster.channel).ModelInfer(
            service_pb2.ModelInferRequest(model_name="quick"), timeout=patient(PATIENTLY), metadata=METADATA
        )
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    cluster.until(cluster.wants(1), "a replica for who calls Triton through the gateway")


def test_the_gateways_autoscaler_sees_what_predictions_cost_it(cluster: Cluster) -> None:
    """By the CPU that the gateway itself tells Prometheus, which is what metrics-server sees of its container."""
    cluster.serve()
    scaler = named(cluster.objects, "HorizontalPodAutoscaler", "oteo-gateway")["spec"]
    (metric,) = scaler["metrics"]
    request = container_of(cluster.objects, "gateway")["resources"]["requests"]["cpu"]
    assert request.endswith("m")
    query = f'sum(rate(process_cpu_seconds_total{{namespace="{NAMESPACE}",service="oteo-gateway-headless"}}[1m]))'
    settings = cluster.settings.model_copy(
        update={
            "mode": "hpa-cpu",
            "minReplicas": scaler["minReplicas"],
            "maxReplicas": scaler["maxReplicas"],
            "cpuPercent": metric["resource"]["target"]["averageUtilization"],
        }
    )

    def wish() -> int:
        busy = cluster.prometheus.value(query) / (int(request.removesuffix("m")) / 1000)
        return autoscaling.Autoscaler(settings).look(0.0, inside=0, waiting=0, needed=0, busy=busy, queue_seconds=0)

    wait_for(lambda: wish() == scaler["minReplicas"], PATIENTLY)
    with SteadyLoad(cluster.address, asking("quick"), callers=8, pause=0.0) as load:
        wait_for(lambda: wish() > scaler["minReplicas"], PATIENTLY)
    load.check()
    assert set(load.codes()) == {"OK"}
    wait_for(lambda: wish() == scaler["minReplicas"], PATIENTLY)


def test_the_burn_rate_alert_fires_while_triton_is_broken_and_ends_when_it_is_mended(cluster: Cluster) -> None:
    cluster.serve()
    (triton,) = cluster.replicas.running()
    (page,) = [
        rule
        for group in of_kind(cluster.objects, "PrometheusRule")[0]["spec"]["groups"]
        for rule in group["rules"]
        if rule.get("alert") == "OteoPredictErrors" and rule["labels"]["severity"] == "page"
    ]
    patience = milliseconds(page["for"]) / 1000

    def states() -> list[str]:
        return cluster.alerts("OteoPredictErrors", severity="page")

    def share(window: str) -> float:
        return cluster.prometheus.value(f"oteo:predict_errors:ratio_rate{window}")

    with SteadyLoad(cluster.address, asking("busy"), callers=2) as load:
        # What earlier tests refused has left the short window.
        wait_for(lambda: len(load.outcomes) > 20 and share("5m") == 0.0 and states() == [], PATIENTLY)
        end = time.monotonic() + 1.5 * patience / FASTER
        while time.monotonic() < end:
            assert states() == []
            time.sleep(0.5)
        broken = time.monotonic()
        cluster.broken.touch()
        wait_for(lambda: states() == ["pending"], PATIENTLY)
        # Kubernetes' questions are answered as if nothing were wrong: no probe restarts it.
        cluster.replicas.ask(triton, "/v2/health/live")
        wait_for(lambda: states() == ["firing"], PATIENTLY)
        fired = FASTER * (time.monotonic() - broken)
        failed = [outcome for outcome in load.since(broken) if outcome.code != "OK"]
        text = cluster.summary("OteoPredictErrors", "page")
        cluster.broken.unlink()
        mended = time.monotonic()
        load.wait_good(seconds=PATIENTLY)
        good = FASTER * (time.monotonic() - mended)
        wait_for(lambda: states() == [], PATIENTLY)
        ended = FASTER * (time.monotonic() - mended)
        long = share("1h")
    load.check()
    print(
        f"fired after {fired:.0f} s, ended {ended:.0f} s after the repair ({good:.0f} s until all was good); {text}; {dict(load.codes())}; 1h {long:.3f}"
    )
    assert {outcome.code for outcome in failed} == {"UNAVAILABLE"}
    assert fired >= patience
    # The long window would have it ring for the better part of an hour: it is the short one that ends it.
    assert long > float(re.findall(r"> ([0-9.]+) and", page["expr"])[0])
    assert re.match(r"\d+(\.\d+)?% of the predictions fail; ", text)


def test_the_shift_alarm_fires_for_a_stream_that_moved_and_for_no_other(cluster: Cluster) -> None:
    cluster.serve()
    predict = inference_pb2_grpc.InferenceServiceStub(cluster.channel).Predict
    rng = np.random.default_rng(8)

    def see(images: Iterable[np.ndarray]) -> None:
        for image in images:
            content = bytes(cv2.imencode(".png", image)[1].tobytes())
            source = image_pb2.ImageSource(content=content)
            predict(inference_pb2.PredictRequest(deployment="deployments/quick", image=source), timeout=PATIENT, metadata=METADATA)

    def gauge(name: str) -> float:
        return cluster.prometheus.value(f'{name}{{namespace="{NAMESPACE}",deployment="quick"}}')

    see(noise(rng) for _ in range(48))
    wait_for(lambda: gauge("oteo_shift_window_images") >= 48, PATIENTLY)
    assert gauge("oteo_shift_alarm") == 0
    assert cluster.alerts("OteoShift") == []
    see(noise(rng) // 2 for _ in range(64))
    wait_for(lambda: cluster.alerts("OteoShift", deployment="quick") == ["pending"], PATIENTLY)
    wait_for(lambda: cluster.alerts("OteoShift", deployment="quick") == ["firing"], PATIENTLY)
    assert cluster.alerts("OteoShift", deployment="busy") == []
