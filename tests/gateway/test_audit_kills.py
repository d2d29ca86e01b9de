"""The gateway's process is killed under load again and again: whatever it answered is in the log, and the log is intact."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
from gateway_support import TOKEN, picture, publish_model
from waiting import patient, wait_for

from oteo_core.artifacts import ArtifactStore
from oteo_core.auditlog import HeadStore, load_keys, verify
from oteo_core.auditlog.segments import chains_of, segments_of
from oteo_local import ports
from oteo_local.triton import start
from oteo_protos.gateway.v1 import deployment_pb2, deployment_pb2_grpc, inference_pb2, inference_pb2_grpc
from oteo_protos.type.v1 import image_pb2

CALLERS = 3


@contextmanager
def gateway(home: Path, triton: str) -> Iterator[tuple[grpc.Channel, subprocess.Popen[bytes]]]:
    """Run a gateway's process; it is killed at the end, if it is not yet."""
    address = f"127.0.0.1:{ports.free_port()}"
    environment = {
        **os.environ,
        "OTEO_HOME": str(home),
        "OTEO_TOKEN": TOKEN,
        "OTEO_GATEWAY_ADDRESS": address,
        "OTEO_TRITON_URLS": triton,
        "OTEO_RECONCILE_SECONDS": "0.3",
        "OTEO_LEASE_SECONDS": "2",
        "OTEO_AUDIT_INSTANCE": "door",
        "OTEO_AUDIT_HEAD_SECONDS": "0.2",
        "OTEO_AUDIT_SEGMENT_BYTES": "65536",
    }
    with (home / "gateway.log").open("ab") as log:
        process = subprocess.Popen([sys.executable, "-m", "oteo_gateway"], env=environment, stdout=log, stderr=log)
    channel = grpc.insecure_channel(address)
    try:
        grpc.channel_ready_future(channel).result(patient(30))
        yield channel, process
    finally:
        channel.close()
        process.kill()
        process.wait()


def written(home: Path) -> list[dict[str, Any]]:
    return [
        json.loads(line)
        for chain in chains_of(home / "audit")
        for path in segments_of(home / "audit" / chain)
        for line in path.read_bytes().splitlines(keepends=True)
        if line.endswith(b"\n")
    ]


def metadata(request_id: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {TOKEN}"), ("x-request-id", request_id))


def test_no_answer_is_without_a_record_when_the_gateway_is_killed_again_and_again(tmp_path: Path) -> None:
    answered: set[str] = set()
    dice = random.Random(11)
    with start(tmp_path / "model-repository", timeout=patient(30)) as triton:
        publish_model(ArtifactStore(f"file://{tmp_path}/artifacts"), "colours")
        for life in range(4):
            with gateway(tmp_path, triton.address) as (channel, process):
                infer = inference_pb2_grpc.InferenceServiceStub(channel)
                request = inference_pb2.PredictRequest(
                    deployment="deployments/colours", image=image_pb2.ImageSource(content=picture("red"))
                )

                def predict(infer: Any = infer, request: Any = request) -> bool:
                    request_id = str(uuid.uuid4())
                    try:
                        infer.Predict(request, timeout=60, metadata=metadata(request_id))
                    except grpc.RpcError:
                        return False
                    answered.add(request_id)
                    return True

                if life == 0:
                    deployment = deployment_pb2.Deployment(models=[deployment_pb2.DeployedModel(model="models/colours")])
                    created = str(uuid.uuid4())
                    deployment_pb2_grpc.DeploymentServiceStub(channel).CreateDeployment(
                        deployment_pb2.CreateDeploymentRequest(deployment=deployment), timeout=120, metadata=metadata(created)
                    )
                    answered.add(created)
                wait_for(predict, 40)
                ended = threading.Event()

                def caller(predict: Any = predict, ended: threading.Event = ended) -> None:
                    while not ended.is_set():
                        predict()

                threads = [threading.Thread(target=caller) for _ in range(CALLERS)]
                for thread in threads:
                    thread.start()
                time.sleep(dice.uniform(0.3, 1.2))
                process.kill()
                process.wait()
                ended.set()
                for thread in threads:
                    thread.join(patient(30))
    calls = {record["request"] for record in written(tmp_path) if record["kind"] == "call"}
    assert len(answered) > 30
    assert answered <= calls
    keys = load_keys(tmp_path / "audit-key")
    report = verify([tmp_path / "audit"], keys, HeadStore(ArtifactStore(f"file://{tmp_path}/artifacts/audit"), "", keys).all())
    assert report.intact, report.findings
    assert [chain.chain for chain in report.chains] == ["door"]
