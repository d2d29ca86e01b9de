"""Tables of every earlier release, with rows, are raised by the migration, and what they hold is served."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import sqlalchemy as sa
from gateway_support import TOKEN, Loop, picture, publish_model, running_gateway, settings_for
from google.longrunning import operations_pb2, operations_pb2_grpc
from google.rpc import code_pb2
from live_server import live_server
from waiting import patient, wait_done, wait_for

from oteo_augment.service import Augment
from oteo_augment.settings import AugmentSettings
from oteo_core.artifacts import ArtifactStore
from oteo_core.jobs import ProcessJobRunner
from oteo_core.operations import OperationStore, State
from oteo_core.operations.database import open_engine, reading, writing
from oteo_core.operations.model import unpack
from oteo_core.tokens import TokenFile
from oteo_gateway.access.quota_store import QuotaStore
from oteo_gateway.deployments.records import ModelPart
from oteo_gateway.deployments.shadows import ComparisonStore
from oteo_gateway.deployments.store import DeploymentStore
from oteo_gateway.feedback.store import CorrectionStore
from oteo_gateway.migrate import migrate
from oteo_gateway.watching.collector import Watched
from oteo_gateway.watching.store import WatchStore
from oteo_local import triton
from oteo_local.triton_env import TritonEnvironment, default_prefix
from oteo_protos.augment.v1 import dataset_pb2, dataset_pb2_grpc
from oteo_protos.gateway.v1 import deployment_pb2, deployment_pb2_grpc, inference_pb2, inference_pb2_grpc
from oteo_protos.type.v1 import image_pb2

REQUEST = "00000000-0000-4000-8000-{:012d}"
PARTS = {"operations", "deployments", "quotas", "audit", "watch", "feedback"}


def tables(url: str) -> dict[str, Any]:
    """Give every table's columns (type, nullable) and what is unique or fast in it."""
    engine = open_engine(url)
    found: dict[str, Any] = {}
    try:
        look = sa.inspect(engine)
        for table in look.get_table_names():
            columns = {column["name"]: (str(column["type"]), column["nullable"]) for column in look.get_columns(table)}
            indexes = {(index["name"], tuple(index["column_names"]), bool(index["unique"])) for index in look.get_indexes(table)}
            found[table] = (columns, indexes, tuple(look.get_pk_constraint(table)["constrained_columns"]))
    finally:
        engine.dispose()
    return found


def had(url: str) -> set[str]:
    """Give the tables that a database has."""
    engine = open_engine(url)
    try:
        return set(sa.inspect(engine).get_table_names())
    finally:
        engine.dispose()


def check_operations(url: str) -> None:
    store = OperationStore(url)
    try:
        imported, trained, measured, waits = (
            store.get(f"{service}-{number:020d}") for number, service in enumerate(("augment", "automl", "translate", "gateway"), 1)
        )
        assert (imported.state, imported.attempt, imported.caller, imported.resource) == (
            State.SUCCEEDED,
            1,
            "token:radiology",
            "datasets/cells",
        )
        assert imported.response is not None
        assert (trained.state, trained.attempt) == (State.FAILED, 5)
        assert trained.error is not None
        assert measured.state is State.CANCELLED
        assert (waits.state, waits.external, waits.done) == (State.RUNNING, True, False)
        assert store.find_request("augment", "ImportDataset", "token:radiology", REQUEST.format(1)) == imported
        assert store.running("token:radiology") == 1
    finally:
        store.close()


def check_deployments(url: str, several: bool) -> None:
    store = DeploymentStore(url)
    try:
        found = store.get("colours")
        assert (found.display_name, found.labels, found.uid) == ("Farben", {"ward": "7"}, "uid-colours")
        assert found.models[0] == ModelPart("colours", "champion", found.models[0].percent, False)
        assert [part.model_id for part in found.models] == (["colours", "pale"] if several else ["colours"])
        assert found.serving is not None
        assert found.serving.models[0].part.model_id == "colours"
        assert found.replicas[0].answers == ("colours",)
        assert found.operation == "operations/gateway-00000000000000000004"
        assert found.create_time == datetime(2026, 1, 1, tzinfo=UTC)
        assert store.get("broken").failure == ("MODEL_LOAD_FAILED", "no graph")
        assert store.replayed("CreateDeployment", REQUEST.format(4)) is not None
        if several:
            sums = ComparisonStore(store.engine).of([found])["uid-colours"]["pale"]
            assert (sums.images, sums.missed) == (1, 3)
    finally:
        store.close()


def test_rows_of_every_earlier_release_are_there_after_the_migration(url: str, tmp_path: Path) -> None:
    before = had(url)
    several = "deployment_shadows" in before
    migrate(url)
    # Whoever comes second has nothing to do.
    migrate(url)
    engine = open_engine(url)
    with reading(engine) as connection:
        assert {part for (part,) in connection.execute(sa.text("SELECT part FROM oteo_schema"))} == PARTS
        ends = set(connection.execute(sa.text("SELECT operation FROM audit_operations")).scalars())
    engine.dispose()
    check_operations(url)
    check_deployments(url, several)
    ended = {f"{service}-{number:020d}" for number, service in enumerate(("augment", "automl", "translate"), 1)}
    assert ends == ({"", *ended} if "audit_operations" in before else {""})
    if "quota_use" in before:
        quotas = QuotaStore(url)
        assert quotas.add("2026-01-01", {}, ["token:radiology"]) == {"token:radiology": 41}
        quotas.close()
    if "watch_batches" in before:
        watch = WatchStore(url)
        watched = Watched("uid-colours", "mark", "colours")
        batch, counts = watch.latest(watched, 3)
        assert batch is not None
        assert np.array_equal(batch.statistics, np.arange(12, dtype=np.float32).reshape(3, 4))
        assert np.array_equal(batch.answers, np.eye(3, dtype=bool))
        assert list(counts.values()) == [3]
        assert watch.states()[watched].images == 3
        watch.close()
    if "corrections" in before:
        corrections = CorrectionStore(url)
        assert corrections.replayed(REQUEST.format(5), "f" * 64).id == "c-1"  # type: ignore[union-attr]
        corrections.close()


def test_raised_tables_are_those_of_a_new_database(url: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    fresh = request.getfixturevalue("postgres").new_url() if url.startswith("postgresql") else f"sqlite:///{tmp_path}/fresh.db"
    migrate(fresh)
    migrate(url)
    assert tables(url) == tables(fresh)


@pytest.mark.parametrize("part", sorted(PARTS))
def test_a_program_refuses_tables_that_are_newer_than_itself(empty: str, part: str) -> None:
    """To go back over a migration takes a copy from before it: what an older program finds, it leaves alone."""
    migrate(empty)
    engine = open_engine(empty)
    with writing(engine) as connection:
        connection.execute(sa.text("UPDATE oteo_schema SET version = version + 1 WHERE part = :part"), {"part": part})
    engine.dispose()
    before = tables(empty)
    with pytest.raises(RuntimeError, match=f"tables of {part} are of version .*, newer than this program knows"):
        migrate(empty)
    assert tables(empty) == before


@dataclass
class Served:
    """A gateway, augment behind it, on a raised database."""

    channel: grpc.Channel
    person: tuple[tuple[str, str], ...]


@pytest.fixture
def replica(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """Give the address of a Triton that has loaded nothing, and its repository: what an earlier test left in one would be ready at once."""
    environment = TritonEnvironment(default_prefix())
    environment.build()
    repository = tmp_path / "repository"
    repository.mkdir()
    with triton.start(repository, environment=environment, timeout=patient(30)) as running:
        yield running.address, repository


@pytest.fixture
def served(url: str, tmp_path: Path, loop: Loop, replica: tuple[str, Path]) -> Iterator[Served]:
    """Raise a release's database by the program that an upgrade runs, and serve what it holds."""
    home = tmp_path / "home"
    home.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "oteo_gateway.migrate"],
        env={**os.environ, "OTEO_HOME": str(home), "OTEO_DATABASE_URL": url},
        capture_output=True,
        text=True,
        check=False,
        timeout=patient(40),
    )
    assert done.returncode == 0, done.stderr
    store = ArtifactStore(f"file://{home}/artifacts")
    for name in ("colours", "pale"):
        publish_model(store, name)
    token, _ = TokenFile(home / "tokens.json").create("radiology", ["trainer"])
    with ExitStack() as stack:
        behind = AugmentSettings(home=home, token=TOKEN, database_url=url)
        augment = Augment(behind, ProcessJobRunner(tmp_path / "jobs"))
        server = stack.enter_context(live_server(behind, augment.register))
        server.run(augment.start()).result(patient(30))
        of_triton = {"triton_urls": [replica[0]], "model_repository": f"file://{replica[1]}"}
        settings = settings_for(home, database_url=url, augment_address=server.address, **of_triton)
        running = stack.enter_context(running_gateway(loop, settings, log_dir=tmp_path / "logs"))
        with grpc.insecure_channel(running.address) as channel:
            yield Served(channel, (("authorization", f"Bearer {token}"),))
        server.run(augment.stop()).result(patient(30))


@pytest.mark.slow
def test_what_an_earlier_release_left_is_served(served: Served, url: str) -> None:
    operations = operations_pb2_grpc.OperationsStub(served.channel)
    ours = {"metadata": (("authorization", f"Bearer {TOKEN}"),), "timeout": 120}
    theirs = {"metadata": served.person, "timeout": 120}
    # The operation that waited for the deployment is not left hanging: it waited for longer than is allowed, and says so.
    waiting = operations_pb2.GetOperationRequest(name="operations/gateway-00000000000000000004")
    ended = wait_done(lambda: operations.GetOperation(waiting, **ours), 60)
    assert "within 600 s" in ended.error.message
    # The deployment stays, and serves: Triton's repository is written again from the models.
    deployments = deployment_pb2_grpc.DeploymentServiceStub(served.channel)
    named = deployment_pb2.GetDeploymentRequest(name="deployments/colours")
    wait_for(lambda: deployments.GetDeployment(named, **ours).state == deployment_pb2.Deployment.STATE_READY, 60)
    predict = inference_pb2_grpc.InferenceServiceStub(served.channel).Predict
    for colour in ("red", "green", "blue"):
        image = image_pb2.ImageSource(content=picture(colour))
        answer = predict(inference_pb2.PredictRequest(deployment="deployments/colours", image=image), **theirs)
        assert answer.classification.decision == colour
    # What ended before is known to whoever began it, and the call that began it is known again.
    imported = operations.GetOperation(operations_pb2.GetOperationRequest(name="operations/augment-00000000000000000001"), **theirs)
    assert unpack(imported.response).dataset.name == "datasets/cells"  # type: ignore[union-attr]
    again = dataset_pb2.ImportDatasetRequest(source_uri="/images", dataset_id="cells", request_id=REQUEST.format(1))
    assert dataset_pb2_grpc.DatasetServiceStub(served.channel).ImportDataset(again, **theirs).name == imported.name
    listed = deployments.ListDeployments(deployment_pb2.ListDeploymentsRequest(), **theirs).deployments
    assert {found.name.removeprefix("deployments/") for found in listed} == {"colours", "broken"}
    listing = operations_pb2.ListOperationsRequest(name="operations/gateway")
    assert waiting.name in {found.name for found in operations.ListOperations(listing, **theirs).operations}
    # And it can be changed.
    update = deployment_pb2.UpdateDeploymentRequest(
        deployment={"name": "deployments/colours", "display_name": "Colours"}, update_mask={"paths": ["display_name"]}
    )
    changed = deployments.UpdateDeployment(update, **ours)
    ended = wait_done(lambda: operations.GetOperation(operations_pb2.GetOperationRequest(name=changed.name), **ours), 60)
    assert ended.WhichOneof("result") == "response", code_pb2.Code.Name(ended.error.code)
