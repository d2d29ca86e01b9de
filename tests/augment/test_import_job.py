"""The import as a job: it goes on where it was killed, fans out, stops, and publishes all or nothing."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest
from google.protobuf import any_pb2
from import_sources import class_folders

from oteo_augment import import_job
from oteo_augment.importing import Hooks, importer
from oteo_augment.settings import AugmentSettings
from oteo_core.artifacts import ArtifactStore, open_store
from oteo_core.datasets import DatasetReader
from oteo_core.errors import InvalidArgument
from oteo_core.jobs import ProcessExecutor
from oteo_core.jobs.testing import run_handler
from oteo_protos.augment.v1 import dataset_pb2


@pytest.fixture
def settings(tmp_path: Path) -> AugmentSettings:
    return AugmentSettings(home=tmp_path / "home", allow_anonymous=True)


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(importer, "SHARD", 5)


class Killed(BaseException):
    """Ends the work as a kill would: no handler of exceptions sees it."""


class Checkpoints(dict):
    """Checkpoints in memory; kills after a number of saves."""

    def __init__(self, kill_after: int = 10**9):
        super().__init__()
        self.kill_after = kill_after
        self.saved = 0

    def save(self, name: str, data: bytes) -> None:
        self[name] = data
        self.saved += 1
        if self.saved == self.kill_after:
            raise Killed

    def hooks(self, **more) -> Hooks:
        return Hooks(load=self.get, save=self.save, **more)


def test_a_killed_import_goes_on_with_the_shards_that_are_left(tmp_path, import_source, small_shards, store, monkeypatch):
    class_folders(tmp_path / "s", {"a": 15, "b": 15})
    whole = import_source(tmp_path / "s", name="whole")
    kept = Checkpoints(kill_after=4)
    with pytest.raises(Killed):
        import_source(tmp_path / "s", hooks=kept.hooks())
    assert len(kept) == 4
    # `import_source` empties its folder first; the copies are part of what a job keeps, so this time they stay.
    monkeypatch.setattr(store, "delete", lambda prefix: None)
    with pytest.raises(Killed):
        import_source(tmp_path / "s", hooks=(again := _continued(kept, kill_after=1)).hooks())
    assert again.saved == 1
    done = _continued(again)
    made = import_source(tmp_path / "s", hooks=done.hooks())
    assert made.info.digest == whole.info.digest
    assert done.saved < 6


def _continued(earlier: Checkpoints, kill_after: int = 10**9) -> Checkpoints:
    later = Checkpoints(kill_after)
    later.update(earlier)
    return later


def test_a_checkpoint_whose_copies_are_gone_is_not_believed(tmp_path, import_source, small_shards):
    class_folders(tmp_path / "s", {"a": 6, "b": 6})
    kept = Checkpoints()
    import_source(tmp_path / "s", hooks=kept.hooks())
    count = kept.saved
    made = import_source(tmp_path / "s", hooks=kept.hooks())
    assert kept.saved == 2 * count
    assert all(made.reader.read_media(sample) for sample in made.samples.values())


def test_a_file_that_changed_between_attempts_is_read_again(tmp_path, import_source, small_shards, store, monkeypatch):
    class_folders(tmp_path / "s", {"a": 6, "b": 6})
    kept = Checkpoints(kill_after=2)
    with pytest.raises(Killed):
        import_source(tmp_path / "s", hooks=kept.hooks())
    class_folders(tmp_path / "s", {"a": 1}, first_seed=500)
    really_delete = store.delete
    monkeypatch.setattr(store, "delete", lambda prefix: None if prefix == "datasets/made" else really_delete(prefix))
    made = import_source(tmp_path / "s", hooks=_continued(kept).hooks())
    assert made.reader.read_media(made.samples["a/000.png"]) == (tmp_path / "s" / "a" / "000.png").read_bytes()
    media = {entry.path for entry in store.iter("datasets/made/media")}
    assert media == {f"datasets/made/{sample.path}" for sample in made.samples.values()}


def test_shards_on_two_processes_make_the_same_dataset(tmp_path, import_source, small_shards, monkeypatch):
    class_folders(tmp_path / "s", {"a": 20, "b": 20})
    (tmp_path / "s" / "a" / "bad.png").write_bytes(b"no picture")
    alone = import_source(tmp_path / "s", name="alone")
    monkeypatch.setattr(importer, "FAN_OUT_FROM", 10)
    calls = []
    shared = import_source(tmp_path / "s", hooks=Hooks(executor=lambda: ProcessExecutor(2), progress=lambda f, s: calls.append(f)))
    assert shared.info.digest == alone.info.digest
    assert [s.id for s in shared.samples.values()] == [s.id for s in alone.samples.values()]
    assert calls == sorted(calls)


def request(source: Path, **fields) -> dataset_pb2.ImportDatasetRequest:
    return dataset_pb2.ImportDatasetRequest(source_uri=str(source), **fields)


class Stop(Exception):
    """Stops at a check, as a cancelled job is stopped."""


def test_stopping_leaves_no_dataset(tmp_path, import_source, store):
    class_folders(tmp_path / "s", {"a": 20, "b": 20})
    left = [4]

    def check() -> None:
        left[0] -= 1
        if left[0] < 0:
            raise Stop

    with pytest.raises(Stop):
        import_source(tmp_path / "s", hooks=Hooks(check=check))
    assert not store.exists("datasets/made/dataset.json")


def run(settings, source, operation, attempt=1, **fields):
    store: ArtifactStore = open_store(settings)
    handler = import_job.HANDLERS["ImportDataset"]
    # As the service leaves it: the name is chosen before the job begins.
    metadata = dataset_pb2.ImportDatasetMetadata(dataset="datasets/cells")
    packed = any_pb2.Any()
    packed.Pack(metadata)
    store.write_bytes(f"operations/{operation}/progress.binpb", packed.SerializeToString())
    result = run_handler(handler, request(source, **fields), settings=settings, artifacts=store, operation_id=operation, attempt=attempt)
    response = dataset_pb2.ImportDatasetResponse()
    assert result.Unpack(response)
    return response.dataset, store


def test_the_job_publishes_and_says_what_it_did(tmp_path, settings):
    class_folders(tmp_path / "s", {"a": 10, "b": 10})
    operation = f"augment-{uuid.uuid4().hex[:20]}"
    dataset, store = run(settings, tmp_path / "s", operation, display_name="Cells", domain="scope A")
    assert (dataset.name, dataset.display_name, dataset.domain, dataset.sample_count) == ("datasets/cells", "Cells", "scope A", 20)
    info = DatasetReader(store, "cells").info
    assert info.provenance["operation"] == f"operations/{operation}"
    assert not list(store.iter(f"operations/{operation}/staging"))
    # Killed after the commit and before the answer was written: the next attempt finds its own work.
    store.delete(f"operations/{operation}/result.binpb")
    again, _ = run(settings, tmp_path / "s", operation, attempt=2, display_name="Cells", domain="scope A")
    assert (again.uid, again.digest, again.create_time) == (dataset.uid, dataset.digest, dataset.create_time)


def test_the_job_fails_with_reason_and_field(tmp_path, settings):
    class_folders(tmp_path / "s", {"a": 10})
    with pytest.raises(InvalidArgument) as caught:
        run(settings, tmp_path / "s", f"augment-{uuid.uuid4().hex[:20]}")
    assert (caught.value.reason, caught.value.field) == ("SINGLE_CLASS", "source_uri")
