"""The export as a job: where it writes, what it refuses, and that a kill leaves nothing half done under the final name."""

from __future__ import annotations

import errno
import tarfile
import zipfile
from pathlib import Path

import pytest
from import_sources import class_folders

from oteo_augment import export_job
from oteo_augment.exporting.writers import ClassFolders
from oteo_augment.importing import Hooks, ImportOptions, Limits, import_dataset
from oteo_augment.settings import AugmentSettings
from oteo_core.artifacts import ArtifactStore, open_store
from oteo_core.datasets import DatasetReader
from oteo_core.errors import OteoError
from oteo_core.exports import destinations, sinks
from oteo_core.exports.destinations import parse
from oteo_core.jobs.testing import run_handler
from oteo_core.operations.ids import new_operation_id
from oteo_protos.augment.v1 import dataset_pb2 as pb
from oteo_protos.type.v1 import task_pb2

HANDLER = export_job.HANDLERS["ExportDataset"]


@pytest.fixture
def settings(tmp_path: Path) -> AugmentSettings:
    return AugmentSettings(home=tmp_path / "home", allow_anonymous=True)


@pytest.fixture
def artifacts(settings) -> ArtifactStore:
    return open_store(settings)


@pytest.fixture
def cells(tmp_path, artifacts) -> Path:
    """Import two classes of twelve and give the folder that they came from."""
    source = class_folders(tmp_path / "cells", {"round": 12, "long": 12})
    import_dataset(ImportOptions("cells", str(source)), artifacts, "datasets/cells", limits=Limits(), hooks=Hooks())
    return source


@pytest.fixture
def run(settings, artifacts, cells):
    """Run an export as a job would."""

    def call(to="", format=pb.DATASET_FORMAT_CLASS_FOLDERS, operation=None, attempt=1, splits=()) -> pb.ExportDatasetResponse:
        request = pb.ExportDatasetRequest(name="datasets/cells", format=format, destination_uri=str(to), splits=splits)
        packed = run_handler(HANDLER, request, settings=settings, artifacts=artifacts, operation_id=operation, attempt=attempt)
        response = pb.ExportDatasetResponse()
        assert packed.Unpack(response)
        return response

    return call


def images(folder: Path) -> list[bytes]:
    return sorted(path.read_bytes() for path in folder.rglob("*.png"))


def test_a_folder_is_written_whole(run, tmp_path, cells):
    done = run(tmp_path / "new" / "out")
    assert (done.uri, done.sample_count) == (str(tmp_path / "new" / "out"), 24)
    assert images(tmp_path / "new" / "out") == images(cells)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["out"]


def test_an_empty_folder_and_a_file_uri_will_do(run, tmp_path, cells):
    (tmp_path / "out put").mkdir()
    done = run(f"file://{tmp_path}/out%20put", splits=[task_pb2.SPLIT_TEST])
    assert 0 < done.sample_count < 24
    assert len(images(tmp_path / "out put" / "test")) == done.sample_count == len(images(tmp_path / "out put"))


@pytest.mark.parametrize("ending", [".zip", ".tar"])
def test_an_archive_holds_the_same_and_is_the_same_every_time(ending, run, tmp_path, cells):
    run(tmp_path / f"one{ending}")
    run(tmp_path / f"two{ending}")
    assert (tmp_path / f"one{ending}").read_bytes() == (tmp_path / f"two{ending}").read_bytes()
    if ending == ".zip":
        zipfile.ZipFile(tmp_path / "one.zip").extractall(tmp_path / "back")
    else:
        with tarfile.open(tmp_path / "one.tar") as archive:
            archive.extractall(tmp_path / "back", **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    assert images(tmp_path / "back") == images(cells)


def test_without_a_destination_it_lies_in_the_artifact_store(run, artifacts, cells):
    operation = new_operation_id("augment")
    done = run(operation=operation)
    assert done.uri == artifacts.uri(f"exports/{operation}")
    assert images(Path(done.uri.removeprefix("file://"))) == images(cells)
    assert run(operation=operation, attempt=2) == done


@pytest.mark.parametrize("name", ["folder", "archive.zip"])
def test_any_file_system_will_do(name, run, tmp_path, cells):
    place = f"memory://exports-{tmp_path.name}/{name}"
    operation = new_operation_id("augment")
    done = run(place, operation=operation)
    assert done.uri == place
    store = ArtifactStore(f"memory://exports-{tmp_path.name}")
    store.get_tree("", tmp_path / "got")
    if name.endswith(".zip"):
        zipfile.ZipFile(tmp_path / "got" / name).extractall(tmp_path / "got")
    assert images(tmp_path / "got") == images(cells)
    # The same operation once more writes the same; another is refused.
    assert run(place, operation=operation, attempt=2) == done
    with pytest.raises(OteoError) as refused:
        run(place)
    assert refused.value.reason == "DESTINATION_NOT_EMPTY"


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("{tmp}/taken", "DESTINATION_NOT_EMPTY"),
        ("{tmp}/taken/note.txt", "DESTINATION_NOT_EMPTY"),
        ("{tmp}/taken.zip", "DESTINATION_NOT_EMPTY"),
        ("{tmp}/empty.zip", "DESTINATION_NOT_EMPTY"),
        ("{tmp}/taken/note.txt/below", "BAD_DESTINATION_URI"),
        ("relative/folder", "BAD_DESTINATION_URI"),
        ("memory://", "BAD_DESTINATION_URI"),
        ("nosuch://bucket/x", "BAD_DESTINATION_URI"),
        ("{tmp}/out.tar.gz", "UNSUPPORTED_FORMAT"),
        ("{home}/artifacts/datasets/cells/out", "DESTINATION_IN_STORE"),
        ("{home}/artifacts/datasets/new", "DESTINATION_IN_STORE"),
        ("{tmp}/link/datasets/new", "DESTINATION_IN_STORE"),
        ("{tmp}/x/../home/artifacts/models/new.zip", "DESTINATION_IN_STORE"),
    ],
)
def test_places_that_are_refused(place, reason, run, tmp_path, artifacts):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "note.txt").write_text("mine")
    (tmp_path / "taken.zip").write_bytes(b"mine")
    (tmp_path / "empty.zip").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "home" / "artifacts")
    before = sorted(path for path in tmp_path.rglob("*") if "operations" not in path.parts)
    with pytest.raises(OteoError) as refused:
        run(place.format(tmp=tmp_path, home=tmp_path / "home"))
    assert (refused.value.reason, refused.value.field) == (reason, "destination_uri")
    assert sorted(path for path in tmp_path.rglob("*") if "operations" not in path.parts) == before
    assert (tmp_path / "taken" / "note.txt").read_text() == "mine"
    assert (tmp_path / "taken.zip").read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("number", "reason"), [(errno.ENOSPC, "DISK_FULL"), (errno.EROFS, "READ_ONLY_TARGET"), (errno.EACCES, "READ_ONLY_TARGET")]
)
@pytest.mark.parametrize("name", ["out", "out.zip"])
def test_a_disk_that_fails_leaves_nothing_behind(name, number, reason, run, tmp_path, monkeypatch):
    (tmp_path / "goal").mkdir()
    add, seen = ClassFolders.add, []

    def failing(self, sample):
        seen.append(sample)
        if len(seen) == 7:
            raise OSError(number, "no")
        add(self, sample)

    monkeypatch.setattr(ClassFolders, "add", failing)
    with pytest.raises(OteoError) as refused:
        run(tmp_path / "goal" / name)
    assert (refused.value.reason, refused.value.field) == (reason, "destination_uri")
    assert list((tmp_path / "goal").iterdir()) == []


class Killed(BaseException):
    """Ends the work as a kill would."""


@pytest.mark.parametrize("name", ["out", "out.zip", "out.tar"])
@pytest.mark.parametrize("moment", ["within", "before the renaming", "after the renaming"])
def test_killed_and_run_again_it_ends_as_one_run(name, moment, run, settings, artifacts, tmp_path, monkeypatch):
    whole = run(tmp_path / f"whole{Path(name).suffix}")
    goal, operation = tmp_path / "goal" / name, new_operation_id("augment")
    with monkeypatch.context() as patch:
        # A kill takes nothing back.
        patch.setattr(destinations.LocalDestination, "abandon", lambda self: None)
        if moment == "within":
            add, seen = ClassFolders.add, []

            def dying(self, sample):
                seen.append(sample)
                if len(seen) == 9:
                    raise Killed
                add(self, sample)

            patch.setattr(ClassFolders, "add", dying)
        else:
            publish = destinations.LocalDestination.publish

            def last(self, memory):
                if moment.startswith("after"):
                    publish(self, memory)
                raise Killed

            patch.setattr(destinations.LocalDestination, "publish", last)
        with pytest.raises((Killed, RuntimeError)):
            run(goal, operation=operation)
    assert goal.exists() is moment.startswith("after")
    if moment.startswith("before"):
        assert len(list((tmp_path / "goal").iterdir())) == 1
    done = run(goal, operation=operation, attempt=2)
    assert (done.uri, done.sample_count) == (str(goal), whole.sample_count)
    assert list((tmp_path / "goal").iterdir()) == [goal]
    one = tmp_path / f"whole{Path(name).suffix}"
    if goal.is_dir():
        assert images(goal) == images(one)
    else:
        assert goal.read_bytes() == one.read_bytes()


def test_what_comes_to_the_place_meanwhile_is_not_overwritten(run, tmp_path, monkeypatch):
    close = sinks.ZipSink.close

    def slow(self):
        close(self)
        (tmp_path / "out.zip").write_bytes(b"somebody else's")

    monkeypatch.setattr(sinks.ZipSink, "close", slow)
    with pytest.raises(OteoError) as refused:
        run(tmp_path / "out.zip")
    assert refused.value.reason == "DESTINATION_NOT_EMPTY"
    assert (tmp_path / "out.zip").read_bytes() == b"somebody else's"
    assert not list(tmp_path.glob(".oteo-export-*"))


def test_losses_are_the_same_after_a_kill(run, artifacts, tmp_path):
    victim = next(DatasetReader(artifacts, "cells").samples())
    artifacts.delete(f"datasets/cells/{victim.path}")
    operation = new_operation_id("augment")
    done = run(tmp_path / "a.zip", format=pb.DATASET_FORMAT_CSV, operation=operation)
    assert [(loss.code, list(loss.related_samples)) for loss in done.losses] == [("MEDIA_LOST", [f"datasets/cells/samples/{victim.id}"])]
    assert done.sample_count == 23
    assert run(tmp_path / "a.zip", format=pb.DATASET_FORMAT_CSV, operation=operation, attempt=2) == done


def test_a_store_elsewhere_is_read_and_a_place_in_it_refused(tmp_path):
    store = ArtifactStore("memory://oteo-store")
    with pytest.raises(OteoError) as refused:
        parse("memory://oteo-store/datasets/x", store)
    assert refused.value.reason == "DESTINATION_IN_STORE"
    source = class_folders(tmp_path / "s", {"a": 3, "b": 3})
    import_dataset(ImportOptions("far", str(source)), store, "datasets/far", limits=Limits(), hooks=Hooks())
    from export_tools import export

    assert export(store, "far", "csv", tmp_path / "out").sample_count == 6
    assert images(tmp_path / "out") == images(source)
