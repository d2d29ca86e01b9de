"""What the chart renders starts the real processes, with PostgreSQL and an object store beside them, and they answer."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlencode

import grpc
import oteo_metrics
import psycopg
import pytest
import yaml
from charting import NAMESPACE, ROOT, SERVICES, environment, of_kind, render, tool
from engines import Postgres
from gateway_support import picture, publish_model
from google.longrunning import operations_pb2, operations_pb2_grpc
from running import Process, Site, container_of, issue, script
from sites import METADATA, MakeSite
from waiting import patient, wait_for

from oteo_core.artifacts import ArtifactStore
from oteo_gateway.deployments.repository import MARKER
from oteo_local import ports
from oteo_local.triton import TritonServer
from oteo_local.triton_env import TritonEnvironment, default_prefix
from oteo_protos.augment.v1 import dataset_pb2, dataset_pb2_grpc
from oteo_protos.automl.v1 import automl_pb2, automl_pb2_grpc
from oteo_protos.gateway.v1 import deployment_pb2, deployment_pb2_grpc, inference_pb2, inference_pb2_grpc
from oteo_protos.translate.v1 import translate_pb2, translate_pb2_grpc
from oteo_protos.type.v1 import image_pb2


def datasets(address: str, credentials: grpc.ChannelCredentials | None = None, token: bool = True) -> list[str]:
    """Ask the gateway for datasets, which augment answers out of the object store."""
    channel = grpc.secure_channel(address, credentials) if credentials else grpc.insecure_channel(address)
    with channel:
        stub = dataset_pb2_grpc.DatasetServiceStub(channel)
        answer = stub.ListDatasets(dataset_pb2.ListDatasetsRequest(), timeout=120, metadata=METADATA if token else ())
    return [dataset.name for dataset in answer.datasets]


def test_gateway_and_augment_start_as_rendered_and_answer_together(make_site: MakeSite) -> None:
    with make_site(render("single-node-cpu")) as site:
        started = [site.start("augment"), site.start("gateway")]
        for process in started:
            process.wait()
            assert process.probe("livenessProbe")
        address = f"127.0.0.1:{site.port('oteo-gateway', 7000)}"
        assert datasets(address) == []
        with pytest.raises(grpc.RpcError) as refused:
            datasets(address, token=False)
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
        # The key of DICOM's hashes is read from where the Secret is mounted, and none is made.
        for part, kind in (
            ("augment", "oteo_augment.settings import AugmentSettings"),
            ("gateway", "oteo_gateway.settings import GatewaySettings"),
        ):
            ask = f"from {kind} as Settings; print(Settings().deidentification_key().decode())"
            done = subprocess.run([sys.executable, "-c", ask], env=site.environment(part), capture_output=True, text=True, check=True)
            assert done.stdout.strip() == "cd" * 32
        # The figures are where the ServiceMonitor looks, under the names that alerts and autoscalers ask for.
        with urllib.request.urlopen(f"http://127.0.0.1:{site.port('oteo-gateway', 9100)}/metrics", timeout=60) as answer:
            text = answer.read().decode()
        assert 'oteo_rpc_handled_total{code="OK",method="/oteo.augment.v1.DatasetService/ListDatasets"} 1.0' in text
        shown = set(re.findall(r"^# TYPE (oteo_\w+) ", text, re.MULTILINE))
        assert {re.sub("_(bucket|sum|count)$", "", name) for name in oteo_metrics.ours()} <= shown
        for process in reversed(started):
            assert process.end() == 0, process.log.read_text()[-2000:]
            assert '"event": "draining"' in process.log.read_text()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_service_starts_as_rendered_and_the_gateway_reaches_each(make_site: MakeSite) -> None:
    with make_site(render("single-node-cpu")) as site:
        started = [site.start(part) for part in SERVICES]
        for process in started:
            process.wait(80)
            assert process.probe("livenessProbe"), process.part
        with grpc.insecure_channel(f"127.0.0.1:{site.port('oteo-gateway', 7000)}") as channel:
            models = automl_pb2_grpc.AutoMLServiceStub(channel).ListModels(automl_pb2.ListModelsRequest(), timeout=60, metadata=METADATA)
            assert not models.models
            ask = translate_pb2.ListTranslatorsRequest()
            translators = translate_pb2_grpc.TranslateServiceStub(channel).ListTranslators(ask, timeout=60, metadata=METADATA)
            assert not translators.translators
        for process in started:
            assert process.end() == 0, process.log.read_text()[-2000:]


@pytest.mark.slow
def test_with_mutual_tls_only_those_with_a_certificate_call_services_and_anybody_with_a_token_the_gateway(make_site: MakeSite) -> None:
    with make_site(render("single-node-cpu", "traffic.tls.enabled=true")) as site:
        authority = issue(site).read_bytes()
        for process in (site.start("augment"), site.start("gateway")):
            assert "exec" in process.container["readinessProbe"]
            process.wait(90)
        credentials = grpc.ssl_channel_credentials(authority)
        gateway, augment = f"127.0.0.1:{site.port('oteo-gateway', 7000)}", f"127.0.0.1:{site.port('oteo-augment', 7001)}"
        assert datasets(gateway, credentials) == []
        for channel in (credentials, None):
            with pytest.raises(grpc.RpcError) as refused:
                datasets(augment, channel)
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        with pytest.raises(grpc.RpcError) as plain:
            datasets(gateway)
        assert plain.value.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.slow
def test_a_prediction_passes_through_what_the_chart_renders(make_site: MakeSite, store: int, tmp_path: Path) -> None:
    """Gateway and Triton with their rendered arguments, the repository in the object store, the replica found through DNS."""
    external = [f's3.endpoint="http://127.0.0.1:{store}"', 's3.mode="external"', 'networkPolicies.s3=[{"cidr": "127.0.0.1/32", "port": 1}]']
    with make_site(render("single-node-cpu", *external)) as site:
        environment_of_triton = TritonEnvironment(default_prefix())
        environment_of_triton.require()
        container = container_of(site.objects, "triton")
        (tmp_path / "triton/tmp").mkdir(parents=True)
        numbers = {name: site.port("oteo-triton", port) for name, port in (("grpc", 8001), ("http", 8000), ("metrics", 8002))}
        arguments = [re.sub(r"-port=800[012]$", "-port=", one).replace("0.0.0.0", "127.0.0.1") for one in container["args"]]
        arguments = [f"{one}{numbers[one[2:].partition('-')[0]]}" if one.endswith("-port=") else one for one in arguments]
        server = TritonServer("", numbers["grpc"], environment=environment_of_triton)
        # The embedded server has its backends elsewhere than NVIDIA's image.
        command = [str(environment_of_triton.server), *arguments, f"--backend-directory={environment_of_triton.backends}"]
        variables = {**site.environment("triton"), **server.process_environment()}
        # Its standard library of S3 looks for the machine's role where there is none.
        variables["AWS_EC2_METADATA_DISABLED"] = "true"
        # In an empty bucket it ends, as it does in a cluster until the gateway has made the repository; then the cluster starts it again.
        assert Process(site, "triton", container, command, variables).process.wait(patient(60)) != 0
        gateway = site.start("gateway")
        gateway.wait(90)
        options = {
            "key": "test",
            "secret": "test",
            "endpoint_url": f"http://127.0.0.1:{store}",
            "client_kwargs": {"region_name": "us-east-1"},
        }
        made = ArtifactStore(gateway.variables["OTEO_MODEL_REPOSITORY"], **options)
        wait_for(lambda: made.is_file(MARKER))
        triton = Process(site, "triton", container, command, variables)
        site.processes.append(triton)
        assert gateway.variables["OTEO_TRITON_URLS"] == f"dns:///127.0.0.1:{numbers['grpc']}"
        publish_model(ArtifactStore("s3://oteo/artifacts", **options), "colours")
        ready = [
            sys.executable,
            str(ROOT / "deploy/k8s/images/triton/oteo_triton_ready.py"),
            f"--url=http://127.0.0.1:{numbers['http']}",
            f"--state={tmp_path}/ready",
        ]
        with grpc.insecure_channel(f"127.0.0.1:{site.port('oteo-gateway', 7000)}") as channel:
            request = deployment_pb2.CreateDeploymentRequest(deployment_id="d", deployment={"models": [{"model": "models/colours"}]})
            operation = deployment_pb2_grpc.DeploymentServiceStub(channel).CreateDeployment(request, timeout=120, metadata=METADATA)
            operations = operations_pb2_grpc.OperationsStub(channel)
            named = operations_pb2.GetOperationRequest(name=operation.name)
            ended = wait_for(
                lambda: (found := operations.GetOperation(named, timeout=60, metadata=METADATA)).done and found,
                40,
                said=lambda: (triton.log.read_text()[-2000:], gateway.log.read_text()[-2000:]),
                pause=0.5,
            )
            assert not ended.HasField("error"), ended.error
            assert subprocess.run(ready, check=False).returncode == 0
            predict = inference_pb2_grpc.InferenceServiceStub(channel).Predict
            for colour in ("red", "green", "blue"):
                image = image_pb2.ImageSource(content=picture(colour))
                answer = predict(inference_pb2.PredictRequest(deployment="deployments/d", image=image), timeout=120, metadata=METADATA)
                assert answer.classification.decision == colour
        with urllib.request.urlopen(f"http://127.0.0.1:{numbers['metrics']}/metrics", timeout=60) as reply:
            described = set(re.findall(r"^# HELP (\w+) ", reply.read().decode(), re.MULTILINE))
        assert described >= oteo_metrics.TRITON, oteo_metrics.TRITON - described
        _the_real_prometheus_sees_it_go(site, triton, tmp_path)


def _the_real_prometheus_sees_it_go(site: Site, triton: Process, folder: Path) -> None:
    """While Triton serves, the requests inside it are known; once it is gone, a caller who finds nobody wakes the first replica, and those that go on asking in vain wake somebody."""
    targets = {
        "oteo-gateway-headless": site.port("oteo-gateway", 9100),
        "oteo-triton": site.port("oteo-triton", 8002),
    }
    scraped = [{"targets": [f"127.0.0.1:{port}"], "labels": {"namespace": NAMESPACE, "service": name}} for name, port in targets.items()]
    configuration = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "scrape_configs": [{"job_name": "oteo", "static_configs": scraped}],
        "rule_files": ["rules.yaml"],
    }
    (folder / "rules.yaml").write_text(yaml.safe_dump(of_kind(render("production"), "PrometheusRule")[0]["spec"]))
    (folder / "prometheus.yaml").write_text(json.dumps(configuration))
    port = ports.free_port()
    command = [
        tool("prometheus"),
        f"--config.file={folder}/prometheus.yaml",
        f"--storage.tsdb.path={folder}/tsdb",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (folder / "prometheus.log").open("ab") as log:
        prometheus = subprocess.Popen(command, stdout=log, stderr=log)
    (scaler,) = of_kind(render("production"), "ScaledObject")
    queries = {trigger["name"]: trigger["metadata"]["query"] for trigger in scaler["spec"]["triggers"]}

    def value(query: str) -> float | None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/query?{urlencode({'query': query})}", timeout=60) as answer:
                result = json.load(answer)["data"]["result"]
        except OSError:
            return None
        return float(result[0]["value"][1]) if result else None

    def wait(query: str, wanted: Callable[[float], bool], meanwhile: Callable[[], None] = lambda: None, seconds: float = 40) -> None:
        def holds() -> bool:
            found = value(query)
            if found is not None and wanted(found):
                return True
            meanwhile()
            return False

        wait_for(holds, seconds, said=lambda: (query, value(query), (folder / "prometheus.log").read_text()[-1500:]), pause=0.5)

    def answered() -> None:
        with grpc.insecure_channel(f"127.0.0.1:{site.port('oteo-gateway', 7000)}") as channel:
            request = inference_pb2.PredictRequest(deployment="deployments/d", image=image_pb2.ImageSource(content=picture("red")))
            inference_pb2_grpc.InferenceServiceStub(channel).Predict(request, timeout=120, metadata=METADATA)

    def fail() -> None:
        with grpc.insecure_channel(f"127.0.0.1:{site.port('oteo-gateway', 7000)}") as channel:
            request = inference_pb2.PredictRequest(deployment="deployments/d", image=image_pb2.ImageSource(content=picture("red")))
            with pytest.raises(grpc.RpcError) as refused:
                inference_pb2_grpc.InferenceServiceStub(channel).Predict(request, timeout=60, metadata=METADATA)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE

    firing = 'ALERTS{alertname="OteoPredictErrors",alertstate="firing",severity="page"}'

    try:
        wait(queries["inside"], lambda found: found == 0)
        wait(queries["inside"], lambda found: found > 0, answered)
        # The count that wakes is there before anybody was refused.
        wait('oteo_predict_refused_total{deployment="d",reason="DEPLOYMENT_NOT_READY"}', lambda found: found == 0)
        assert value(queries["wake"]) == 0
        triton.end()
        # One is enough.
        fail()
        wait(queries["wake"], lambda found: found > 0)
        assert value(firing) is None
        # The alert waits two minutes before it believes it.
        wait(firing, lambda found: found == 1, fail, 60)
    finally:
        prometheus.terminate()
        prometheus.wait(patient(20))


@pytest.mark.slow
def test_mlflow_starts_as_rendered_and_answers_to_its_own_name_alone(make_site: MakeSite) -> None:
    with make_site(render("single-node-cpu")) as site:
        container = container_of(site.objects, "mlflow")
        port = site.port("oteo-mlflow", 5000)
        words = [*container["command"], *container["args"]]
        words[0] = str(Path(sys.executable).with_name("mlflow"))
        # Names stay as they are: they are what callers say, not where this listens.
        words = [{"--port=5000": f"--port={port}", "--host=0.0.0.0": "--host=127.0.0.1"}.get(word, word) for word in words]
        (site.folder / "mlflow/tmp").mkdir(parents=True)
        server = Process(site, "mlflow", container, words, site.environment("mlflow"))
        site.processes.append(server)

        def ask(path: str, host: str) -> int:
            request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers={"Host": host})
            try:
                with urllib.request.urlopen(request, timeout=60) as answer:
                    return int(answer.status)
            except urllib.error.HTTPError as error:
                return error.code
            except OSError:
                return 0

        def healthy() -> bool:
            assert server.process.poll() is None, server.log.read_text()[-3000:]
            # As the kubelet asks: by the pod's address.
            return ask("/health", "10.1.2.3:5000") == 200

        wait_for(healthy, 50, said=lambda: server.log.read_text()[-3000:], pause=1)
        called = environment(container_of(site.objects, "automl"), site.objects)["OTEO_MLFLOW_URI"].removeprefix("http://")
        experiments = "/api/2.0/mlflow/experiments/search?max_results=1"
        assert ask(experiments, called) == 200
        assert ask(experiments, "elsewhere.example") == 403


def test_the_migrations_job_makes_the_tables_and_may_run_again(make_site: MakeSite) -> None:
    site = make_site(render("single-node-cpu"))
    container = container_of(site.objects, "migrations")
    (site.folder / "migrations/tmp").mkdir(parents=True)
    command = [sys.executable, *container["command"][1:], *container["args"]]
    for _ in range(2):
        done = subprocess.run(command, env=site.environment("migrations"), capture_output=True, text=True, check=False, timeout=patient(40))
        assert done.returncode == 0, done.stderr
    with psycopg.connect(site.secrets["oteo-database/url"]) as connection:
        rows = connection.execute("SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'").fetchall()
        assert {"operations", "oteo_schema", "deployments"} <= {name for (name,) in rows}
        connection.execute("UPDATE oteo_schema SET version = 999")
        connection.commit()
    done = subprocess.run(command, env=site.environment("migrations"), capture_output=True, text=True, check=False, timeout=patient(40))
    assert done.returncode == 1
    assert "newer than this program knows" in done.stderr


def test_a_copy_of_the_databases_brings_everything_back(make_site: MakeSite, postgres: Postgres) -> None:
    site = make_site(render("single-node-cpu", "backup.enabled=true", "backup.keep=2"))
    url = site.secrets["oteo-database/url"]
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE operations (id text PRIMARY KEY, request bytea)")
        connection.execute("INSERT INTO operations SELECT 'op-' || n, decode(md5(n::text), 'hex') FROM generate_series(1, 500) n")
    copies = site.folder / "copies"
    copies.mkdir()
    variables = {**site.environment("backup"), "BACKUP_FOLDER": str(copies)}
    backup, restore = (script(site.objects, "oteo-backup", name, site.folder) for name in ("backup.sh", "restore.sh"))
    # Older copies, of which the oldest goes.
    for name in ("oteo-20200101T000000Z.dump", "oteo-20210101T000000Z.dump"):
        (copies / name).write_text("old")
    (copies / "oteo-20220101T000000Z.dump.partial").write_text("torn")
    done = subprocess.run(["sh", str(backup)], env=variables, capture_output=True, text=True, check=False, timeout=patient(40))
    assert done.returncode == 0, done.stderr
    kept = sorted(path.name for path in copies.iterdir() if path.name.startswith("oteo-"))
    assert kept[0] == "oteo-20210101T000000Z.dump"
    assert len(kept) == 2
    assert [path for path in copies.iterdir() if path.name.startswith("mlflow-")]
    # After the copy something is lost and something else is written; the copy brings the one back and takes the other away.
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DELETE FROM operations WHERE id < 'op-3'")
        connection.execute("INSERT INTO operations VALUES ('op-late', '')")
    other = postgres.new_url()
    for target in (url, other):
        done = subprocess.run(
            ["sh", str(restore), str(copies / kept[1]), target], capture_output=True, text=True, check=False, timeout=patient(40)
        )
        assert done.returncode == 0, done.stderr
        with psycopg.connect(target) as connection:
            found = connection.execute("SELECT id, request FROM operations ORDER BY id").fetchall()
        assert len(found) == 500
        assert "op-late" not in {identity for identity, _ in found}
    # A copy that is no copy changes nothing.
    done = subprocess.run(
        ["sh", str(restore), str(copies / kept[0]), url], capture_output=True, text=True, check=False, timeout=patient(40)
    )
    assert done.returncode != 0
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT count(*) FROM operations").fetchone() == (500,)
