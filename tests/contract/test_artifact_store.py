"""Every artifact store behaves alike: on files, in memory and on S3."""

from __future__ import annotations

import os
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from oteo_core.artifacts import ArtifactStore, split_uri
from oteo_core.errors import FailedPrecondition, InvalidArgument, NotFound, ResourceExhausted


def test_what_is_written_is_read(store: ArtifactStore) -> None:
    store.write_bytes("a/b/c.bin", b"\x00\xff" * 1000)
    store.write_bytes("a/empty", b"")
    assert store.read_bytes("a/b/c.bin") == b"\x00\xff" * 1000
    assert store.read_bytes("a/empty") == b""
    store.write_bytes("a/b/c.bin", b"new")
    assert store.read_bytes("a/b/c.bin") == b"new"


def test_missing_objects_are_not_found(store: ArtifactStore) -> None:
    for call in (store.read_bytes, store.open):
        with pytest.raises(NotFound) as caught:
            call("no/such")
        assert caught.value.reason == "ARTIFACT_NOT_FOUND"
    with pytest.raises(NotFound), store.local("no/such"):
        pass
    with pytest.raises(NotFound):
        store.get_tree("no", "/nowhere")
    assert not store.exists("no/such")
    assert list(store.iter("no")) == []
    assert store.children("no") == []
    store.delete("no/such")


@pytest.mark.parametrize("path", ["../x", "a/../../x", "/etc/passwd", "a//b", "./a", "a/.", "a\\b", "a\nb", "", ".."])
def test_paths_cannot_leave_the_root(store: ArtifactStore, path: str) -> None:
    for call in (store.read_bytes, store.exists if path else store.read_bytes, store.delete, store.is_file):
        with pytest.raises(InvalidArgument) as caught:
            call(path)
        assert caught.value.reason == "UNSAFE_PATH"
    with pytest.raises(InvalidArgument):
        store.write_bytes(path, b"x")
    with pytest.raises(InvalidArgument):
        store.publish(path, "target", "manifest.json")


def test_listing(store: ArtifactStore) -> None:
    for path in ("d/z", "d/a/1", "d/a/2", "d/b.txt", "other/x", "dd/not-in-d"):
        store.write_bytes(path, path.encode())
    entries = list(store.iter("d"))
    assert [entry.path for entry in entries] == ["d/a/1", "d/a/2", "d/b.txt", "d/z"]
    assert [entry.size for entry in entries] == [5, 5, 7, 3]
    assert all(abs(entry.modified - datetime.now(UTC)) < timedelta(minutes=2) for entry in entries)
    assert store.children("d") == ["a", "b.txt", "z"]
    assert store.children() == ["d", "dd", "other"]
    assert {entry.path for entry in store.iter()} == {"d/z", "d/a/1", "d/a/2", "d/b.txt", "other/x", "dd/not-in-d"}


def test_a_folder_is_there_while_something_is_in_it(store: ArtifactStore) -> None:
    store.write_bytes("f/g/x", b"1")
    assert store.exists("f")
    assert store.exists("f/g/x")
    assert not store.is_file("f")
    assert store.is_file("f/g/x")
    store.delete("f/g/x")
    assert not store.exists("f")
    assert store.children() == []


def test_delete_takes_a_folder_and_not_its_neighbour(store: ArtifactStore) -> None:
    for path in ("run/1", "run/deep/2", "running/3"):
        store.write_bytes(path, b"x")
    store.delete("run")
    assert [entry.path for entry in store.iter()] == ["running/3"]


def test_open_seeks(store: ArtifactStore) -> None:
    store.write_bytes("big", bytes(range(256)) * 100)
    with store.open("big") as file:
        file.seek(25_500)
        assert file.read() == bytes(range(156, 256))
        file.seek(1)
        assert file.read(2) == b"\x01\x02"


def test_local_gives_a_file_with_the_bytes(store: ArtifactStore) -> None:
    store.write_bytes("m/model.onnx", b"graph")
    with store.local("m/model.onnx") as file:
        assert file.name == "model.onnx"
        assert file.read_bytes() == b"graph"
    assert store.read_bytes("m/model.onnx") == b"graph"


def test_trees_there_and_back(store: ArtifactStore, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "deep").mkdir(parents=True)
    (source / "one").write_bytes(b"1")
    (source / "deep" / "two").write_bytes(b"2")
    (source / "link").symlink_to("/etc/passwd")
    store.put_tree(source, "t")
    assert [entry.path for entry in store.iter("t")] == ["t/deep/two", "t/one"]
    store.get_tree("t", tmp_path / "back")
    assert (tmp_path / "back" / "deep" / "two").read_bytes() == b"2"
    store.put_file(source / "one", "t/copy")
    assert store.read_bytes("t/copy") == b"1"


def test_publish_moves_all_and_leaves_no_staging(store: ArtifactStore) -> None:
    for path in ("s/media/1", "s/media/2", "s/dataset.json"):
        store.write_bytes(path, path.encode())
    store.publish("s", "datasets/x", "dataset.json")
    assert [entry.path for entry in store.iter()] == ["datasets/x/dataset.json", "datasets/x/media/1", "datasets/x/media/2"]
    assert store.read_bytes("datasets/x/media/2") == b"s/media/2"


def test_publish_goes_on_where_it_was_interrupted(store: ArtifactStore) -> None:
    # One file had been moved when the process died; the rest is still in the staging.
    store.write_bytes("datasets/x/media/1", b"1")
    store.write_bytes("s/media/2", b"2")
    store.write_bytes("s/dataset.json", b"{}")
    store.publish("s", "datasets/x", "dataset.json")
    assert [entry.path for entry in store.iter()] == ["datasets/x/dataset.json", "datasets/x/media/1", "datasets/x/media/2"]
    # And a second time, after everything had been moved.
    store.publish("s", "datasets/x", "dataset.json")
    assert store.exists("datasets/x/dataset.json")


def test_publish_without_manifest_is_refused(store: ArtifactStore) -> None:
    store.write_bytes("s/media/1", b"1")
    with pytest.raises(NotFound):
        store.publish("s", "datasets/x", "dataset.json")
    assert not store.exists("datasets/x")


def test_the_manifest_comes_last(store: ArtifactStore) -> None:
    for number in range(50):
        store.write_bytes(f"s/media/{number:02}", b"x" * 1000)
    store.write_bytes("s/dataset.json", b"{}")
    # There already, so that no store can do it by one rename.
    store.write_bytes("datasets/x/leftover", b"")
    torn: list[int] = []
    stop = threading.Event()

    def watch() -> None:
        while not stop.is_set():
            if store.is_file("datasets/x/dataset.json"):
                torn.append(sum(1 for entry in store.iter("datasets/x/media")))

    watcher = threading.Thread(target=watch)
    watcher.start()
    store.publish("s", "datasets/x", "dataset.json")
    store.read_bytes("datasets/x/dataset.json")
    stop.set()
    watcher.join()
    assert set(torn) <= {50}


def test_a_reader_never_sees_half_an_object(store: ArtifactStore) -> None:
    values = [bytes([65 + number]) * 200_000 for number in range(4)]
    store.write_bytes("x", values[0])
    stop = threading.Event()
    bad: list[int] = []

    def read() -> None:
        while not stop.is_set():
            data = store.read_bytes("x")
            if data not in values:
                bad.append(len(data))

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(10):
        for value in values:
            store.write_bytes("x", value)
    stop.set()
    reader.join()
    assert bad == []
    assert store.children() == ["x"]


def test_uris_name_what_split_uri_opens(store: ArtifactStore, request: pytest.FixtureRequest) -> None:
    store.write_bytes("folder/file.txt", b"x")
    options = request.getfixturevalue("s3_options") if store.root_uri.startswith("s3") else {}
    opened, path = split_uri(store.uri("folder/file.txt"), **options)
    assert path == "file.txt"
    assert opened.read_bytes(path) == b"x"
    opened, path = split_uri(store.uri("folder"), **options)
    assert [entry.path for entry in opened.iter(path)] == ["folder/file.txt"]


def test_local_paths_are_uris_too(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    opened, path = split_uri(str(tmp_path / "a"))
    assert (opened.root_uri, path) == (f"file://{tmp_path}", "a")
    assert opened.read_bytes(path) == b"x"
    with pytest.raises(InvalidArgument) as caught:
        ArtifactStore("nonsense://x")
    assert caught.value.reason == "UNKNOWN_SCHEME"


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    store = ArtifactStore(f"file://{tmp_path}")
    if os.geteuid() != 0:
        pytest.skip("a small file system can be mounted by root only")
    small = tmp_path / "small"
    small.mkdir()
    if os.system(f"mount -t tmpfs -o size=64k tmpfs {small} 2>/dev/null") != 0:
        pytest.skip("this machine does not let tests mount a tmpfs")
    try:
        with pytest.raises(ResourceExhausted) as caught:
            store.write_bytes("small/big", b"x" * 1_000_000)
        assert caught.value.reason == "DISK_FULL"
        assert store.children("small") == []
    finally:
        os.system(f"umount {small}")


def test_a_read_only_target_is_told(tmp_path: Path) -> None:
    store = ArtifactStore("file:///proc")
    with pytest.raises((FailedPrecondition, NotFound)):
        store.write_bytes("oteo/x", b"x")
    if os.geteuid() != 0:
        locked = tmp_path / "locked"
        locked.mkdir(mode=0o500)
        with pytest.raises(FailedPrecondition) as caught:
            ArtifactStore(str(locked)).write_bytes("x", b"x")
        assert caught.value.reason == "READ_ONLY_TARGET"
