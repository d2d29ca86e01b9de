"""Copies are taken of a site that answers, by the commands of `deploy/k8s/README.md`; the site is lost, and comes back from them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from charting import ROOT, render
from engines import Postgres
from gateway_support import TOKEN, Loop, deploy, picture, publish_model, running_gateway, settings_for
from google.longrunning import operations_pb2, operations_pb2_grpc
from live_server import live_server
from running import script
from waiting import patient, wait_for

from oteo_augment.service import Augment
from oteo_augment.settings import AugmentSettings
from oteo_core.artifacts import ArtifactStore
from oteo_core.jobs import ProcessJobRunner
from oteo_core.operations.model import unpack
from oteo_core.sampledata import draw_cells
from oteo_local import ports, triton
from oteo_local.triton_env import TritonEnvironment, default_prefix
from oteo_protos.augment.v1 import dataset_pb2, dataset_pb2_grpc
from oteo_protos.gateway.v1 import inference_pb2, inference_pb2_grpc
from oteo_protos.type.v1 import image_pb2

pytestmark = pytest.mark.slow

REQUEST = "11111111-1111-4111-8111-111111111111"


class Bucket:
    """An S3 server with the bucket, and what other programs need to reach it."""

    def __init__(self, folder: Path) -> None:
        self.port = ports.free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        with (folder / "s3.log").open("ab") as log:
            command = [str(Path(sys.executable).with_name("moto_server")), "-H", "127.0.0.1", "-p", str(self.port)]
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        wait_for(self._answers, 60)
        self.make()

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/moto-api/", timeout=10):
                return True
        except OSError:
            return False

    def client(self) -> Any:
        import boto3

        return boto3.client("s3", endpoint_url=self.url, aws_access_key_id="test", aws_secret_access_key="test", region_name="us-east-1")

    def make(self) -> None:
        """Make the bucket, empty."""
        self.client().create_bucket(Bucket="oteo")

    def lose(self) -> None:
        """Take it away with all that is in it."""
        with urllib.request.urlopen(urllib.request.Request(f"{self.url}/moto-api/reset", method="POST"), timeout=120):
            pass

    @property
    def options(self) -> dict[str, Any]:
        """fsspec's options for it."""
        return {"key": "test", "secret": "test", "endpoint_url": self.url, "client_kwargs": {"region_name": "us-east-1"}}

    @property
    def variables(self) -> dict[str, str]:
        """What rclone, and anything of AWS, reads."""
        remote = {"TYPE": "s3", "PROVIDER": "Other", "ENDPOINT": self.url, "ACCESS_KEY_ID": "test", "SECRET_ACCESS_KEY": "test"}
        aws = {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        # rclone cannot take a bundle of authorities from there, and nothing here speaks TLS.
        inherited = {name: value for name, value in os.environ.items() if name != "AWS_CA_BUNDLE"}
        return {**inherited, **aws, **{f"RCLONE_CONFIG_S3_{name}": value for name, value in remote.items()}}


@pytest.fixture
def bucket(tmp_path: Path) -> Iterator[Bucket]:
    if shutil.which("rclone") is None:
        pytest.skip("rclone is not installed (Debian: apt-get install rclone; `make system-long` does so as root)")
    found = Bucket(tmp_path)
    yield found
    found.process.terminate()
    found.process.wait(patient(10))


@pytest.fixture
def loop() -> Iterator[Loop]:
    found = Loop()
    yield found
    found.close()


@dataclass
class Site:
    """A gateway with its audit log, augment behind it, and a Triton."""

    channel: grpc.Channel

    def scores(self) -> dict[str, tuple[float, ...]]:
        """Ask for an image of each class; give what was answered."""
        predict = inference_pb2_grpc.InferenceServiceStub(self.channel).Predict
        found = {}
        for colour in ("red", "green", "blue"):
            request = inference_pb2.PredictRequest(deployment="deployments/colours", image=image_pb2.ImageSource(content=picture(colour)))
            answer = predict(request, timeout=120).classification
            assert answer.decision == colour
            found[colour] = tuple(score.probability for score in answer.scores)
        return found

    def ask_for_the_dataset(self, source: Path) -> operations_pb2.Operation:
        """Import the dataset, or find that it was."""
        request = dataset_pb2.ImportDatasetRequest(source_uri=str(source), dataset_id="cells", request_id=REQUEST)
        found: operations_pb2.Operation = dataset_pb2_grpc.DatasetServiceStub(self.channel).ImportDataset(request, timeout=120)
        return found

    def operation(self, name: str) -> operations_pb2.Operation:
        found: operations_pb2.Operation = operations_pb2_grpc.OperationsStub(self.channel).GetOperation(
            operations_pb2.GetOperationRequest(name=name), timeout=120
        )
        return found


@contextmanager
def running_site(home: Path, loop: Loop, url: str, bucket: Bucket, key: Path) -> Iterator[Site]:
    """Run the site on a database and a bucket, with nothing of its own below a new folder."""
    home.mkdir()
    environment = TritonEnvironment(default_prefix())
    environment.build()
    shared = {"database_url": url, "artifacts": "s3://oteo/artifacts", "artifact_options": bucket.options}
    with ExitStack() as stack:
        replica = stack.enter_context(triton.start(home / "model-repository", environment=environment, timeout=patient(30)))
        behind = AugmentSettings(home=home, token=TOKEN, job_python=sys.executable, reconcile_seconds=0.5, **shared)
        augment = Augment(behind, ProcessJobRunner(home / "jobs", executor="inline"))
        server = stack.enter_context(live_server(behind, augment.register))
        server.run(augment.start()).result(patient(30))
        stack.callback(lambda: server.run(augment.stop()).result(patient(30)))
        settings = settings_for(
            home,
            augment_address=server.address,
            triton_urls=[replica.address],
            audit_key_file=key,
            audit_archive=True,
            audit_head_seconds=1.0,
            **shared,
        )
        yield Site(stack.enter_context(running_gateway(loop, settings, log_dir=home / "logs")).channel)


def commands(*beginnings: str) -> list[str]:
    """Give the commands of the page's section on copies that begin so, in their order."""
    section = (ROOT / "deploy/k8s/README.md").read_text().split("## Backup and restore")[1].split("\n## ")[0]
    found = [line.strip() for line in re.findall(r"^    (\S.*)$", section, re.MULTILINE)]
    return [line for line in found if line.startswith(beginnings)]


def verified(bucket: Bucket, key: Path) -> str:
    """Run ``oteo audit verify`` on the bucket; give what it says of an intact log."""
    place = "s3://oteo/artifacts/audit"
    command = [sys.executable, "-m", "oteo.cli", "audit", "verify", place, "--heads", place, "--key-file", str(key)]
    done = subprocess.run(command, env=bucket.variables, capture_output=True, text=True, check=False, timeout=patient(60))
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_site_comes_back_from_its_copies(mortal_postgres: Postgres, bucket: Bucket, loop: Loop, tmp_path: Path) -> None:
    key = tmp_path / "audit-key"
    key.write_text("ab" * 32)
    key.chmod(0o600)
    url = mortal_postgres.new_url()
    source = draw_cells(tmp_path / "cells", count=24, size=48, flaws=False).folder
    copies = tmp_path / "backup"
    copies.mkdir()
    objects = render("single-node-cpu", "backup.enabled=true", "backup.keep=2")
    for name in ("backup.sh", "restore.sh"):
        script(objects, "oteo-backup", name, tmp_path)
    variables = {**bucket.variables, "BACKUP_FOLDER": str(copies), "BACKUP_KEEP": "2", "OTEO_DATABASE_URL": url}

    def run(command: str) -> None:
        # As it stands there, with this machine's places.
        text = command.replace("BUCKET", "oteo").replace("/backup/", f"{copies}/")
        done = subprocess.run(
            ["sh", "-ec", text], cwd=tmp_path, env=variables, capture_output=True, text=True, check=False, timeout=patient(60)
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}"

    publish_model(ArtifactStore("s3://oteo/artifacts", **bucket.options), "colours")
    with running_site(tmp_path / "before", loop, url, bucket, key) as site:
        imported = site.ask_for_the_dataset(source).name
        deploy(site.channel, ["colours"])
        wait_for(lambda: site.operation(imported).done, 60)
        response: Any = unpack(site.operation(imported).response)
        assert response is not None, site.operation(imported).error
        before = site.scores()
        run("sh backup.sh")
        copying = commands("rclone copy s3:", "rclone sync s3:")
        assert len(copying) == 2
        for command in copying:
            site.scores()
            run(command)
        # What comes after the copies is lost with the site.
        site.scores()
        deployed = operations_pb2_grpc.OperationsStub(site.channel).ListOperations(
            operations_pb2.ListOperationsRequest(name="operations/gateway"), timeout=120
        )
        assert len(deployed.operations) == 1
    bucket.lose()
    bucket.make()
    shutil.rmtree(tmp_path / "before")
    variables["OTEO_DATABASE_URL"] = url = mortal_postgres.new_url()
    (dump,) = copies.glob("oteo-*.dump")
    (restoring,) = commands("sh restore.sh")
    run(re.sub(r"/backup/oteo-\S+\.dump", f"/backup/{dump.name}", restoring))
    (bringing,) = commands("rclone sync /backup/")
    run(bringing)
    print(verified(bucket, key))
    with running_site(tmp_path / "after", loop, url, bucket, key) as site:
        wait_for(lambda: _answers(site), 60)
        assert site.scores() == before
        found = dataset_pb2_grpc.DatasetServiceStub(site.channel).GetDataset(
            dataset_pb2.GetDatasetRequest(name="datasets/cells"), timeout=120
        )
        assert (found.digest, found.sample_count) == (response.dataset.digest, 24)
        assert unpack(site.operation(imported).response) == response
        assert site.ask_for_the_dataset(source).name == imported, "the call that began it is known again"
        assert site.operation(deployed.operations[0].name).WhichOneof("result") == "response"
        time.sleep(2.0)
    # The log of before is whole, and that of after goes on beside it or behind it.
    print(verified(bucket, key))


def _answers(site: Site) -> bool:
    try:
        site.scores()
    except grpc.RpcError:
        return False
    return True
