"""Bad input, each answered by a status, a reason and the field, and nothing left behind."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
import zipfile
import zlib
from pathlib import Path

import pytest
from import_sources import class_folders, picture, write_picture

from oteo_augment.importing import Hooks, ImportOptions, Limits, import_dataset
from oteo_augment.importing.archives import ArchiveLimits, unpack
from oteo_core.artifacts import ArtifactStore
from oteo_core.errors import FailedPrecondition, InvalidArgument, NotFound, OteoError, ResourceExhausted
from oteo_core.images import encode_png

PNG = encode_png(picture(1))


def tar_with(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as file:
        for info, data in members:
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return path


def tar_member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def zip_with(path: Path, *members: tuple[str, bytes, int]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data, mode in members:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            file.writestr(info, data)
    return path


def flat(root: Path) -> Path:
    for seed in range(3):
        write_picture(root / f"{seed}.png", seed)
    return root


def empty(root: Path) -> Path:
    (root / "a").mkdir(parents=True)
    return root


def broken_images(root: Path) -> Path:
    for name in ("a", "b"):
        (root / name).mkdir(parents=True)
        (root / name / "cut.png").write_bytes(PNG[: len(PNG) // 2])
        (root / name / "text.jpg").write_text("no picture")
    return root


def text_only(root: Path) -> Path:
    root.mkdir()
    (root / "notes.txt").write_text("hello")
    return root


def dicom(root: Path) -> Path:
    root.mkdir()
    (root / "slice.dcm").write_bytes(b"\0" * 128 + b"DICM")
    return root


SOURCES = {
    "missing": (lambda p: p / "nothing", {}, NotFound, "SOURCE_NOT_FOUND", "source_uri"),
    "missing remote": (lambda p: "memory://nowhere/at/all", {}, NotFound, "SOURCE_NOT_FOUND", "source_uri"),
    "unknown scheme": (lambda p: "gopher9://x/y", {}, InvalidArgument, "BAD_SOURCE_URI", "source_uri"),
    "empty": (lambda p: empty(p / "s"), {}, InvalidArgument, "EMPTY_SOURCE", "source_uri"),
    "one class": (lambda p: class_folders(p / "s", {"a": 3}), {}, InvalidArgument, "SINGLE_CLASS", "source_uri"),
    "flat": (lambda p: flat(p / "s"), {}, InvalidArgument, "UNSUPPORTED_FORMAT", "source_uri"),
    "text": (lambda p: text_only(p / "s"), {}, InvalidArgument, "UNSUPPORTED_FORMAT", "source_uri"),
    "dicom": (lambda p: dicom(p / "s"), {}, InvalidArgument, "UNSUPPORTED_FORMAT", "source_uri"),
    "no archive": (lambda p: text_only(p / "s") / "notes.txt", {}, InvalidArgument, "UNSUPPORTED_FORMAT", "source_uri"),
    "not that format": (
        lambda p: class_folders(p / "s", {"a": 2, "b": 2}),
        {"format": "coco"},
        InvalidArgument,
        "UNSUPPORTED_FORMAT",
        "format",
    ),
    "wrong task": (lambda p: class_folders(p / "s", {"a": 2, "b": 2}), {"task": "detection"}, InvalidArgument, "WRONG_TASK", "task"),
    "unknown class": (
        lambda p: class_folders(p / "s", {"a": 2, "b": 2}),
        {"classes": ("cat",)},
        InvalidArgument,
        "UNKNOWN_CLASS",
        "classes",
    ),
    "one of two classes": (
        lambda p: class_folders(p / "s", {"a": 2, "b": 2}),
        {"classes": ("a", "cat")},
        InvalidArgument,
        "SINGLE_CLASS",
        "source_uri",
    ),
    "unreadable": (lambda p: broken_images(p / "s"), {}, InvalidArgument, "NO_READABLE_IMAGE", "source_uri"),
    "zip with ..": (
        lambda p: zip_with(p / "s.zip", ("a/1.png", PNG, 0o644), ("../evil.png", PNG, 0o644)),
        {},
        InvalidArgument,
        "UNSAFE_ARCHIVE",
        "source_uri",
    ),
    "zip with link": (
        lambda p: zip_with(p / "s.zip", ("a/l.png", b"/etc/passwd", 0o120777)),
        {},
        InvalidArgument,
        "UNSAFE_ARCHIVE",
        "source_uri",
    ),
    "zip with backslashes": (
        lambda p: zip_with(p / "s.zip", ("..\\evil.png", PNG, 0o644)),
        {},
        InvalidArgument,
        "UNSAFE_ARCHIVE",
        "source_uri",
    ),
    "zip absolute": (lambda p: zip_with(p / "s.zip", ("/tmp/evil.png", PNG, 0o644)), {}, InvalidArgument, "UNSAFE_ARCHIVE", "source_uri"),
    "zip bomb": (lambda p: zip_with(p / "s.zip", ("a/1.png", bytes(80 << 20), 0o644)), {}, InvalidArgument, "UNSAFE_ARCHIVE", "source_uri"),
    "tar with ..": (
        lambda p: tar_with(p / "s.tar", (tar_member("a/../../evil.png"), PNG)),
        {},
        InvalidArgument,
        "UNSAFE_ARCHIVE",
        "source_uri",
    ),
    "tar with symbolic link": (
        lambda p: tar_with(p / "s.tar.gz", (tar_member("a/l.png", tarfile.SYMTYPE, "/etc/passwd"), b"")),
        {},
        InvalidArgument,
        "UNSAFE_ARCHIVE",
        "source_uri",
    ),
    "tar with hard link": (
        lambda p: tar_with(p / "s.tar", (tar_member("a/l.png", tarfile.LNKTYPE, "a/1.png"), b"")),
        {},
        InvalidArgument,
        "UNSAFE_ARCHIVE",
        "source_uri",
    ),
    "tar with device": (
        lambda p: tar_with(p / "s.tar", (tar_member("a/d", tarfile.CHRTYPE), b"")),
        {},
        InvalidArgument,
        "UNSAFE_ARCHIVE",
        "source_uri",
    ),
    "no zip": (lambda p: (text_only(p / "s") / "notes.txt").rename(p / "s.zip"), {}, InvalidArgument, "DAMAGED_ARCHIVE", "source_uri"),
    "no tar": (lambda p: (text_only(p / "s") / "notes.txt").rename(p / "s.tar.gz"), {}, InvalidArgument, "DAMAGED_ARCHIVE", "source_uri"),
}


def attempt(source: object, store: ArtifactStore, scratch: Path | None = None, **options) -> OteoError:
    with pytest.raises(OteoError) as caught:
        import_dataset(ImportOptions("x", str(source), **options), store, "datasets/x", limits=Limits(), hooks=Hooks(), scratch=scratch)
    return caught.value


@pytest.mark.parametrize("name", SOURCES)
def test_each_is_told_by_status_reason_and_field(name, tmp_path, store):
    build, options, kind, reason, field = SOURCES[name]
    source = build(tmp_path)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    error = attempt(source, store, scratch, **options)
    assert (type(error), error.reason, error.field) == (kind, reason, field)
    assert len(error.message) > 30
    assert not store.exists("datasets/x/dataset.json")
    assert list(scratch.iterdir()) == []
    assert not list(tmp_path.rglob("evil*"))
    assert not Path("/tmp/evil.png").exists()


def test_the_member_is_named(tmp_path, store):
    error = attempt(zip_with(tmp_path / "s.zip", ("a/1.png", PNG, 0o644), ("a/../../evil.png", PNG, 0o644)), store)
    assert error.metadata["member"] == "a/../../evil.png"
    assert "a/../../evil.png" in error.message


def test_zip_that_lies_about_its_sizes(tmp_path):
    path = zip_with(tmp_path / "s.zip", ("a/1.png", bytes(3 << 20), 0o644))
    with pytest.raises(InvalidArgument) as caught:
        unpack(path, tmp_path / "out", ArchiveLimits(max_bytes=1 << 20))
    assert caught.value.reason == "UNSAFE_ARCHIVE"
    data = bytearray(path.read_bytes())
    # Declares 1 kB in both places and inflates to 3 MiB: never more than the limit is written.
    for mark, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        place = data.index(mark) + offset
        data[place : place + 4] = (1024).to_bytes(4, "little")
    path.write_bytes(bytes(data))
    with pytest.raises(InvalidArgument):
        unpack(path, tmp_path / "out2", ArchiveLimits(max_bytes=1 << 20))
    assert sum(file.stat().st_size for file in (tmp_path / "out2").rglob("*") if file.is_file()) <= 1 << 20


@pytest.mark.parametrize("ending", [".zip", ".tar", ".tar.gz"])
def test_a_good_archive_is_read_as_its_folder_is(ending, tmp_path, import_source):
    class_folders(tmp_path / "cells", {"a": 4, "b": 4})
    archive = tmp_path / f"packed{ending}"
    if ending == ".zip":
        with zipfile.ZipFile(archive, "w") as file:
            for path in (tmp_path / "cells").rglob("*.png"):
                file.write(path, path.relative_to(tmp_path / "cells"))
            file.writestr("__MACOSX/a/._000.png", b"rubbish")
    else:
        with tarfile.open(archive, "w:gz" if ending.endswith("gz") else "w") as file:
            file.add(tmp_path / "cells", arcname=".")
    packed = import_source(archive)
    assert packed.info.digest == import_source(tmp_path / "cells", name="folder").info.digest


def test_a_remote_folder_is_read_too(tmp_path, import_source):
    remote = ArtifactStore("memory://import-source")
    class_folders(tmp_path / "cells", {"a": 3, "b": 3})
    remote.put_tree(tmp_path / "cells", "in/cells")
    made = import_source("memory://import-source/in/cells")
    assert made.info.digest == import_source(tmp_path / "cells", name="folder").info.digest


def test_findings_instead_of_errors_for_single_files(tmp_path, import_source):
    class_folders(tmp_path, {"a": 4, "b": 4})
    bomb = bytearray(encode_png(picture(5)))
    bomb[16:24] = (30_000).to_bytes(4, "big") * 2
    bomb[29:33] = zlib.crc32(bytes(bomb[12:29])).to_bytes(4, "big")
    for name, data in {
        "cut.png": PNG[:-20],
        "bomb.png": bytes(bomb),
        "text.png": b"hello",
        "empty.png": b"",
        "dicom.png": b"\0" * 128 + b"DICM",
    }.items():
        (tmp_path / "a" / name).write_bytes(data)
    (tmp_path / "a" / "nowhere.png").symlink_to(tmp_path / "gone.png")
    os.mkfifo(tmp_path / "a" / "pipe.png")
    made = import_source(tmp_path)
    codes = {path: made.codes(path) for path, sample in made.samples.items() if sample.excluded}
    assert codes == {
        "a/cut.png": ["TRUNCATED_IMAGE"],
        "a/bomb.png": ["IMAGE_TOO_LARGE"],
        "a/text.png": ["UNREADABLE_IMAGE"],
        "a/empty.png": ["UNREADABLE_IMAGE"],
        "a/dicom.png": ["UNREADABLE_IMAGE"],
        "a/nowhere.png": ["UNREADABLE_FILE"],
        "a/pipe.png": ["UNREADABLE_FILE"],
    }
    assert made.info.sample_count == 8


def test_a_class_that_was_not_given_is_reported(tmp_path, import_source):
    class_folders(tmp_path, {"a": 4, "b": 4, "c": 2})
    made = import_source(tmp_path, classes=("b", "a"))
    assert made.info.classes == ("b", "a")
    assert made.codes("c/000.png") == ["UNKNOWN_CLASS"]
    assert made.info.excluded_count == 2


@pytest.fixture
def mounted(tmp_path):
    """Mount a small memory file system, or skip where that is not allowed."""
    point = tmp_path / "small"
    point.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "oteo-test", str(point)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"cannot mount a file system here: {done.stderr.strip()}")
    yield point
    subprocess.run(["umount", str(point)], check=True)


def test_a_full_disk(tmp_path, mounted):
    class_folders(tmp_path / "s", {"a": 30, "b": 30})
    for file in (tmp_path / "s").rglob("*.png"):
        file.write_bytes(file.read_bytes() + os.urandom(20_000))
    error = attempt(tmp_path / "s", ArtifactStore(str(mounted)))
    assert (type(error), error.reason) == (ResourceExhausted, "DISK_FULL")


def test_a_target_that_cannot_be_written(tmp_path, mounted):
    class_folders(tmp_path / "s", {"a": 3, "b": 3})
    subprocess.run(["mount", "-o", "remount,ro", str(mounted)], check=True)
    error = attempt(tmp_path / "s", ArtifactStore(str(mounted)))
    assert (type(error), error.reason) == (FailedPrecondition, "READ_ONLY_TARGET")
