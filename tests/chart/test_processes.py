"""What the chart renders starts the real processes, with PostgreSQL and an object store beside them, and they answer."""

from __future__ import annotations

import re
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import oteo_metrics
import psycopg
import pytest
from charting import Object, render
from engines import Postgres
from moto.server import ThreadedMotoServer
from running import Site, container_of, issue, script

from oteo_protos.augment.v1 import dataset_pb2, dataset_pb2_grpc

TOKEN = "a-token-of-the-charts-tests"
METADATA = (("authorization", f"Bearer {TOKEN}"),)


@pytest.fixture(scope="module")
def store() -> Iterator[int]:
    """Give the port of an object store with the bucket."""
    import boto3

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    client = boto3.client(
        "s3", endpoint_url=f"http://127.0.0.1:{port}", aws_access_key_id="test", aws_secret_access_key="test", region_name="us-east-1"
    )
    client.create_bucket(Bucket="oteo")
    try:
        yield port
    finally:
        server.stop()


MakeSite = Callable[..., Site]


@pytest.fixture
def make_site(tmp_path: Path, postgres: Postgres, store: int) -> MakeSite:
    """Make a site of rendered objects."""

    def make(objects: tuple[Object, ...]) -> Site:
        url = postgres.new_url()
        secrets = {
            "oteo-database/url": url,
            "oteo-database/mlflowUrl": postgres.new_url().replace("postgresql://", "postgresql+psycopg://"),
            "oteo-s3/accessKey": "test",
            "oteo-s3/secretKey": "test",
        }
        site = Site(tmp_path, objects, secrets, {("oteo-s3", 7070): store})
        site.write("/etc/oteo/token/token", f"{TOKEN}\n")
        site.write("/etc/oteo/ray/auth_token", "ray-token")
        return site

    return make


def datasets(address: str, credentials: grpc.ChannelCredentials | None = None, token: bool = True) -> list[str]:
    """Ask the gateway for datasets, which augment answers out of the object store."""
    channel = grpc.secure_channel(address, credentials) if credentials else grpc.insecure_channel(address)
    with channel:
        stub = dataset_pb2_grpc.DatasetServiceStub(channel)
        answer = stub.ListDatasets(dataset_pb2.ListDatasetsRequest(), timeout=15, metadata=METADATA if token else ())
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
        # The figures are where the ServiceMonitor looks, under the names that alerts and autoscalers ask for.
        with urllib.request.urlopen(f"http://127.0.0.1:{site.port('oteo-gateway', 9100)}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        assert 'oteo_rpc_handled_total{code="OK",method="/oteo.augment.v1.DatasetService/ListDatasets"} 1.0' in text
        shown = set(re.findall(r"^# TYPE (oteo_\w+) ", text, re.MULTILINE))
        assert {re.sub("_(bucket|sum|count)$", "", name) for name in oteo_metrics.ours()} <= shown
        for process in reversed(started):
            assert process.end() == 0, process.log.read_text()[-2000:]
            assert '"event": "draining"' in process.log.read_text()


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


def test_the_migrations_job_makes_the_tables_and_may_run_again(make_site: MakeSite) -> None:
    site = make_site(render("single-node-cpu"))
    container = container_of(site.objects, "migrations")
    (site.folder / "migrations/tmp").mkdir(parents=True)
    command = [sys.executable, *container["command"][1:], *container["args"]]
    for _ in range(2):
        done = subprocess.run(command, env=site.environment("migrations"), capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stderr
    with psycopg.connect(site.secrets["oteo-database/url"]) as connection:
        rows = connection.execute("SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'").fetchall()
        assert {"operations", "oteo_schema", "deployments"} <= {name for (name,) in rows}
        connection.execute("UPDATE oteo_schema SET version = 999")
        connection.commit()
    done = subprocess.run(command, env=site.environment("migrations"), capture_output=True, text=True, check=False, timeout=120)
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
    done = subprocess.run(["sh", str(backup)], env=variables, capture_output=True, text=True, check=False, timeout=120)
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
        done = subprocess.run(["sh", str(restore), str(copies / kept[1]), target], capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stderr
        with psycopg.connect(target) as connection:
            found = connection.execute("SELECT id, request FROM operations ORDER BY id").fetchall()
        assert len(found) == 500
        assert "op-late" not in {identity for identity, _ in found}
    # A copy that is no copy changes nothing.
    done = subprocess.run(["sh", str(restore), str(copies / kept[0]), url], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode != 0
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT count(*) FROM operations").fetchone() == (500,)
