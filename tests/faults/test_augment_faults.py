"""Augmenting, auditing and exporting on a real Ray, killed with SIGKILL in the middle: the same bytes as undisturbed, nothing half-published."""

from __future__ import annotations

import hashlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from engines import RayHead
from google.longrunning import operations_pb2, operations_pb2_grpc
from google.protobuf.message import Message
from import_sources import picture
from live_server import live_server
from waiting import patient, wait_done, wait_for

from oteo_augment.augmentation import augment_dataset, plan_from_request
from oteo_augment.service import Augment
from oteo_augment.settings import AugmentSettings
from oteo_core.artifacts import ArtifactStore, open_store
from oteo_core.datasets import Box, DatasetInfo, DatasetReader, DatasetWriter, Sample
from oteo_core.images import ImageLimits, encode_png, perceptual_hash, pixel_digest
from oteo_core.jobs import RayJobRunner
from oteo_core.jobs.executor import ProcessExecutor
from oteo_core.server import sync_channel
from oteo_protos.augment.v1 import augment_pb2, augment_pb2_grpc, dataset_pb2, dataset_pb2_grpc

COUNT = 700
"""Images; of these five in six are for training."""


def write_cells(store: ArtifactStore) -> None:
    """Write the dataset `cells`: pictures with boxes, every fiftieth there twice."""
    with DatasetWriter(store, "datasets/cells", DatasetInfo("cells", task="detection", classes=("a", "b"))) as writer:
        for index in range(COUNT):
            drawn = index - 1 if index % 50 == 49 else index
            pixels = picture(drawn)
            data = encode_png(pixels)
            writer.add(
                Sample(
                    id=f"c{index:04}",
                    path=writer.add_media(f"{index}.png", data),
                    source_path=f"in/{index}.png",
                    sha256=hashlib.sha256(data).hexdigest(),
                    pixel_digest=pixel_digest(pixels),
                    phash=perceptual_hash(pixels),
                    width=64,
                    height=48,
                    channels=3,
                    dtype="uint8",
                    split="test" if index % 300 >= 250 else "train",
                    labels=("ab"[drawn % 2],),
                    boxes=(Box("ab"[drawn % 2], 5 + drawn % 20, 4, 20, 15),),
                )
            )
        writer.finish()


@dataclass
class World:
    """The service on a Ray head with seven CPUs."""

    settings: AugmentSettings
    store: ArtifactStore
    datasets: dataset_pb2_grpc.DatasetServiceStub
    augment: augment_pb2_grpc.AugmentServiceStub
    operations: operations_pb2_grpc.OperationsStub

    def end(self, name: str, response: Message) -> None:
        """Wait for an operation and read its response."""
        request = operations_pb2.GetOperationRequest(name=name)
        operation = wait_done(lambda: self.operations.GetOperation(request), 50, said=lambda: name, pause=0.1)
        assert operation.response.Unpack(response), operation.error

    def files(self, name: str, below: str) -> list[str]:
        """Give the files of an operation below one of its folders."""
        return [entry.path for entry in self.store.iter(f"{name}/{below}")]

    def kill(self, name: str, attempt: int, when: Callable[[], bool]) -> None:
        """SIGKILL an attempt's process as soon as something holds."""
        marks = ["oteo_augment.job", name.removeprefix("operations/"), str(attempt)]
        wait_for(when, 30, said=lambda: f"attempt {attempt} of {name} never got that far", pause=0.005)
        for process in psutil.process_iter(["cmdline"]):
            if (process.info["cmdline"] or [])[-3:] == marks:
                os.kill(process.pid, signal.SIGKILL)
                return
        raise AssertionError(f"attempt {attempt} of {name} is not running any more")

    def attempts(self, name: str, metadata: Message) -> int:
        """Give how often an operation was begun."""
        operation = self.operations.GetOperation(operations_pb2.GetOperationRequest(name=name))
        assert operation.metadata.Unpack(metadata)
        return int(metadata.progress.attempt)  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    head = RayHead(tmp_path_factory.mktemp("ray"), cpus=7)
    home = tmp_path_factory.mktemp("augment")
    settings = AugmentSettings(home=home, allow_anonymous=True, job_python=sys.executable, reconcile_seconds=0.25)
    store = open_store(settings)
    write_cells(store)
    try:
        head.start()
        augment = Augment(settings, RayJobRunner(head.address, head.token_path))
        with live_server(settings, augment.register) as server:
            server.run(augment.start()).result(patient(30))
            channel = sync_channel(server.address, settings)
            yield World(
                settings,
                store,
                dataset_pb2_grpc.DatasetServiceStub(channel),
                augment_pb2_grpc.AugmentServiceStub(channel),
                operations_pb2_grpc.OperationsStub(channel),
            )
            channel.close()
            server.run(augment.stop()).result(patient(30))
    finally:
        head.stop()


def content(store: ArtifactStore, name: str) -> tuple[str, list[Sample], dict[str, bytes]]:
    """Give a dataset's digest, its rows, and every media file's bytes."""
    reader = DatasetReader(store, name)
    prefix = f"datasets/{name}/"
    media = {entry.path.removeprefix(prefix): store.read_bytes(entry.path) for entry in store.iter(f"{prefix}media")}
    return reader.info.digest, list(reader.samples(include_excluded=True)), media


class Kept(dict[str, bytes]):
    """Checkpoints in memory."""

    def save(self, name: str, data: bytes) -> None:
        self[name] = data

    def load(self, name: str) -> bytes | None:
        return self.get(name)

    def check(self) -> None:
        pass


@pytest.mark.slow
def test_augmented_by_one_two_and_seven_workers_and_killed_twice(world: World) -> None:
    request = augment_pb2.AugmentDatasetRequest(dataset="datasets/cells", dataset_id="on-ray", copies=2, copies_by_class={"b": 3}, seed=5)
    name = world.augment.AugmentDataset(request).name
    # In the middle: some shards are done, most are not.
    world.kill(name, 1, lambda: len(world.files(name, "checkpoints")) >= 1)
    before = len(world.files(name, "checkpoints"))
    assert not world.store.exists("datasets/on-ray/dataset.json")
    world.kill(name, 2, lambda: len(world.files(name, "checkpoints")) > before)
    between = len(world.files(name, "checkpoints"))
    assert not world.store.exists("datasets/on-ray/dataset.json")
    response = augment_pb2.AugmentDatasetResponse()
    world.end(name, response)
    shards = len(world.files(name, "checkpoints"))
    assert 1 <= before < between < shards, (before, between, shards)
    assert world.attempts(name, augment_pb2.AugmentDatasetMetadata()) == 3
    assert not world.files(name, "staging")
    found = content(world.store, "on-ray")
    assert response.augmented_count == sum(bool(sample.derived_from) for sample in found[1]) > 1000

    plan = plan_from_request(request, DatasetReader(world.store, "cells").info)
    for workers in (1, 2):
        target = f"by-{workers}"
        with ProcessExecutor(workers) as executor:
            augment_dataset(
                world.store,
                "cells",
                plan,
                DatasetInfo(target, uid="u", create_time="2026-01-01T00:00:00+00:00"),
                staging=f"datasets/{target}",
                store_options={},
                limits=ImageLimits(),
                executor=executor,
                checkpoints=Kept(),
                progress=lambda done, total: None,
            )
        other = content(world.store, target)
        assert other[0] == found[0], f"the digest differs with {workers} workers"
        assert other[1] == found[1]
        assert other[2] == found[2], "a file differs"


@pytest.mark.slow
def test_an_audit_that_fixes_is_killed_measuring_and_killed_writing(world: World) -> None:
    def ask(target: str) -> str:
        request = dataset_pb2.AuditDatasetRequest(name="datasets/cells", fix=True, fixed_dataset_id=target)
        return str(world.datasets.AuditDataset(request).name)

    name = ask("killed")
    world.kill(name, 1, lambda: bool(world.files(name, "checkpoints")))
    assert not world.store.exists("datasets/killed/dataset.json")
    world.kill(name, 2, lambda: len(world.files(name, "staging")) > 20)
    assert not world.store.exists("datasets/killed/dataset.json")
    assert not world.store.exists(name.replace("operations/", "audits/"))
    killed = dataset_pb2.AuditDatasetResponse()
    world.end(name, killed)
    assert world.attempts(name, dataset_pb2.AuditDatasetMetadata()) == 3
    assert not world.files(name, "staging")

    calm = dataset_pb2.AuditDatasetResponse()
    world.end(ask("calm"), calm)
    assert content(world.store, "killed") == content(world.store, "calm")
    assert list(killed.findings) == list(calm.findings)
    assert {count.code: count.count for count in killed.counts}["EXACT_DUPLICATE"] == COUNT // 50
    lists = [Path(answer.findings_uri.removeprefix("file://")).read_bytes() for answer in (killed, calm)]
    assert lists[0] == lists[1]


def tree(root: Path) -> dict[str, bytes]:
    """Give every file below a folder."""
    return {file.relative_to(root).as_posix(): file.read_bytes() for file in root.rglob("*") if file.is_file()}


@pytest.mark.slow
@pytest.mark.parametrize("outside", [False, True], ids=["to the store", "to a folder"])
def test_an_export_is_killed(world: World, tmp_path: Path, outside: bool) -> None:
    def ask(place: str) -> str:
        uri = f"file://{tmp_path}/{place}" if outside else ""
        request = dataset_pb2.ExportDatasetRequest(name="datasets/cells", format=dataset_pb2.DATASET_FORMAT_COCO, destination_uri=uri)
        return str(world.datasets.ExportDataset(request).name)

    def place(operation: str) -> Path:
        return Path(world.settings.artifacts.removeprefix("file://")) / operation.replace("operations/", "exports/")

    name = ask("killed")
    target = tmp_path / "killed" if outside else place(name)

    def begun() -> bool:
        there = list(tmp_path.rglob("*.png")) if outside else world.files(name, "staging")
        return len(there) > 20

    world.kill(name, 1, begun)
    assert not target.exists(), "half an export has the name of a whole one"
    killed = dataset_pb2.ExportDatasetResponse()
    world.end(name, killed)
    assert world.attempts(name, dataset_pb2.ExportDatasetMetadata()) == 2
    assert killed.sample_count == COUNT

    calm_name = ask("calm")
    calm = dataset_pb2.ExportDatasetResponse()
    world.end(calm_name, calm)
    found, expected = tree(target), tree(tmp_path / "calm" if outside else place(calm_name))
    assert len(expected) > COUNT
    assert found == expected
    if outside:
        assert sorted(path.name for path in tmp_path.iterdir()) == ["calm", "killed"], "something unfinished was left"
    assert not world.files(name, "staging")
