"""Where images come from: a directory, an archive, or anything that fsspec opens."""

from __future__ import annotations

import os
import shutil
import stat
import sys
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from oteo_augment.importing import hdf5
from oteo_augment.importing.archives import ArchiveLimits, judge_zip, unpack
from oteo_augment.importing.arrays import expand, folder_of, holds_pictures
from oteo_augment.importing.downloads import check_download, fetch, is_download
from oteo_core.artifacts import ArtifactStore, split_uri
from oteo_core.errors import InvalidArgument, NotFound, OteoError
from oteo_core.exports import archive_kind
from oteo_core.images import FORMATS as IMAGE_FORMATS
from oteo_core.images.sequences import ENDINGS as SEQUENCE_ENDINGS

IMAGE_ENDINGS = frozenset(
    ending for endings in (*IMAGE_FORMATS.values(), *SEQUENCE_ENDINGS.values()) for ending in endings if ending.count(".") == 1
)
"""Endings, in lower case, of files that are taken for images."""

_LIMITS = ArchiveLimits()
_DICOM_START = 132
_SEQUENCES = (*IMAGE_FORMATS["tiff"], *(ending for endings in SEQUENCE_ENDINGS.values() for ending in endings))
_IGNORED_FOLDERS = frozenset({"__macosx", "@eadir", ".ipynb_checkpoints"})
_IGNORED_FILES = frozenset({"thumbs.db", "desktop.ini"})


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file: its path inside the source, bytes, and a mark that changes when it does."""

    path: str
    size: int
    version: str


@dataclass(frozen=True)
class SourceRef:
    """A source as a worker opens it, on this machine or another.

    Parameters
    ----------
    root
        A local folder, or the URI of an fsspec folder.
    """

    root: str

    @property
    def is_local(self) -> bool:
        """Whether it is a folder of this machine."""
        return "://" not in self.root

    @cached_property
    def _store(self) -> ArtifactStore:
        return ArtifactStore(self.root)

    def read(self, path: str, most: int = sys.maxsize) -> bytes:
        """Give a file's bytes.

        Raises
        ------
        InvalidArgument
            IMAGE_TOO_LARGE for a file of more than `most` bytes.
        """
        if not self.is_local:
            return self._store.read_bytes(path)
        # Plain system calls: with a million small files pathlib's way counts. Not blocking, since a pipe may lie among the files.
        descriptor = os.open(f"{self.root}/{path}", os.O_RDONLY | os.O_NONBLOCK)
        with open(descriptor, "rb", buffering=0) as stream:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise OSError("it is no plain file")
            if status.st_size > most:
                raise InvalidArgument(f"the file has {status.st_size} bytes; the limit is {most}", reason="IMAGE_TOO_LARGE")
            return stream.readall()

    def names(self, folder: str) -> list[str]:
        """Give the names of the files of a folder, sorted; hidden ones are not among them."""
        place = folder.rstrip("/")
        if self.is_local:
            with os.scandir(f"{self.root}/{place}") as entries:
                found = [entry.name for entry in entries if entry.is_file()]
        else:
            skip = len(place) + 1
            found = [entry.path[skip:] for entry in self._store.iter(place) if "/" not in entry.path[skip:]]
        return sorted(name for name in found if not _ignored(name))

    def begins(self, path: str, mark: bytes, offset: int) -> bool:
        """Tell whether a file of a local folder has a mark at an offset; False for what cannot be read."""
        try:
            descriptor = os.open(f"{self.root}/{path}", os.O_RDONLY | os.O_NONBLOCK)
            with open(descriptor, "rb", buffering=0):
                return stat.S_ISREG(os.fstat(descriptor).st_mode) and os.pread(descriptor, len(mark), offset) == mark
        except OSError:
            return False


@dataclass(frozen=True)
class Source:
    """An opened source.

    Parameters
    ----------
    ref
        How workers open it.
    files
        All its files by path, sorted; hidden ones and what operating systems leave behind are not among them.
    description
        What it is, for people.
    """

    ref: SourceRef
    files: dict[str, SourceFile]
    description: str

    def read(self, path: str) -> bytes:
        """Give a file's bytes."""
        return self.ref.read(path)

    @cached_property
    def images(self) -> list[str]:
        """Files that have the ending of an image; where there is none, files that begin as DICOM does: scanners name those as they like."""
        return [path for path in self.files if is_image_name(path)] or self._unnamed_dicom()

    def _unnamed_dicom(self) -> list[str]:
        if not self.ref.is_local:
            return []
        return [path for path, file in self.files.items() if file.size > _DICOM_START and self.ref.begins(path, b"DICM", 128)]

    def ending_with(self, *endings: str) -> list[str]:
        """Give files that end so, in lower or upper case."""
        return [path for path in self.files if path.lower().endswith(endings)]


def is_image_name(path: str) -> bool:
    """Tell whether a file's ending is that of an image format that is read."""
    stem, dot, ending = path.rpartition(".")
    return bool(stem) and (f"{dot}{ending.lower()}" in IMAGE_ENDINGS or path.lower().endswith(".nii.gz"))


def is_sequence_name(path: str) -> bool:
    """Tell whether a file's ending is that of a format that holds several frames; those of moving pictures aside."""
    return path.lower().endswith(_SEQUENCES)


def check_source(uri: str, limits: ArchiveLimits = _LIMITS) -> None:
    """Refuse, without reading it, a source that is not there or cannot be one.

    Raises
    ------
    NotFound
        SOURCE_NOT_FOUND.
    InvalidArgument
        EMPTY_SOURCE for a folder without files, UNSUPPORTED_FORMAT for a file that is no archive, UNSAFE_ARCHIVE for a zip, BAD_SOURCE_URI.
    """
    if is_download(uri):
        check_download(uri)
        return
    local = _local_path(uri)
    if local is None:
        store, path = _remote(uri)
        if archive_kind(path) or _is_arrays(path):
            if not store.is_file(path):
                raise _not_found(uri)
        elif not any(True for _ in store.iter(path)):
            raise _not_found(uri)
        return
    try:
        mode = local.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise _not_found(uri) from None
    if stat.S_ISDIR(mode):
        if next(_walk(local), None) is None:
            raise _empty(uri)
    elif stat.S_ISREG(mode):
        kind = archive_kind(local.name)
        if not kind and _is_arrays(local.name):
            return
        if not kind:
            raise _no_archive(uri)
        if kind == "zip":
            # Where it lies is as good a place as any to measure free space before the job chooses one.
            judge_zip(local, local.parent, limits)
    else:
        raise InvalidArgument(f"{uri} is neither a folder nor a file", reason="BAD_SOURCE_URI", field="source_uri")


@contextmanager
def open_source(uri: str, scratch: Path, limits: ArchiveLimits, check: Callable[[], None] = lambda: None) -> Iterator[Source]:
    """Open a source; archives are unpacked into `scratch`.

    Parameters
    ----------
    uri
        A directory, a zip or tar archive, a NumPy archive, any fsspec URI of one, or a public dataset by name (``medmnist:pathmnist``).
    scratch
        A local folder for what is unpacked; the caller removes it.
    limits
        How far an archive may grow.
    check
        Called often; raises where the work is to stop.

    Raises
    ------
    NotFound
        SOURCE_NOT_FOUND.
    InvalidArgument
        EMPTY_SOURCE, UNSUPPORTED_FORMAT, UNSAFE_ARCHIVE, BAD_SOURCE_URI.
    """
    check_source(uri, limits)
    if is_download(uri):
        fetch(uri, scratch / "download" / "files", limits, check)
        yield _local_source(scratch / "download" / "files", f"the dataset {uri}", check)
        return
    local = _local_path(uri)
    if local is not None and local.is_dir():
        source = _local_source(local, f"the folder {local}", check)
    elif local is not None and _is_arrays(local.name):
        status = local.stat()
        files = {local.name: SourceFile(local.name, status.st_size, str(status.st_mtime_ns))}
        source = Source(SourceRef(str(local.parent)), files, f"the file {local}")
    elif local is not None:
        unpack(local, scratch / "unpacked", limits, check)
        source = _local_source(scratch / "unpacked", f"the archive {local}", check)
    else:
        store, path = _remote(uri)
        if _is_arrays(path):
            name = path.rpartition("/")[2]
            goal = scratch / "fetched"
            goal.mkdir(parents=True, exist_ok=True)
            with store.local(path) as copy:
                shutil.copyfile(copy, goal / name)
            source = _local_source(goal, f"the file {uri}", check)
        elif archive_kind(path):
            with store.local(path) as copy:
                unpack(copy, scratch / "unpacked", limits, check, name=path)
            source = _local_source(scratch / "unpacked", f"the archive {uri}", check)
        else:
            files = {
                entry.path[len(path) :].lstrip("/"): SourceFile(
                    entry.path[len(path) :].lstrip("/"), entry.size, entry.modified.isoformat() if entry.modified else ""
                )
                for entry in store.iter(path)
                if not _ignored(entry.path[len(path) :].lstrip("/"))
            }
            source = Source(SourceRef(store.uri(path)), dict(sorted(files.items())), f"the folder {uri}")
    if not source.files:
        raise _empty(uri)
    yield _opened_arrays(source, scratch, limits, check)


def _is_arrays(name: str) -> bool:
    return name.lower().endswith((".npz", *hdf5.ENDINGS))


def _opened_arrays(source: Source, scratch: Path, limits: ArchiveLimits, check: Callable[[], None]) -> Source:
    """Open NumPy archives of pictures where a source has no pictures else; give it as it is where they are of another kind."""
    if source.images:
        return source
    if shards := source.ending_with(".tar"):
        return _opened_shards(source, shards, scratch, limits, check)
    if (files := source.ending_with(*hdf5.ENDINGS)) and not source.ending_with(".npz"):
        return _opened_hdf5(source, files, scratch, limits, check)
    archives = source.ending_with(".npz")
    if not archives:
        return source
    goal, taken = scratch / "arrays", set[str]()
    for path in archives:
        check()
        place = Path(source.ref.root) / path
        if not source.ref.is_local:
            place = scratch / "archive.npz"
            place.write_bytes(source.read(path))
        if holds_pictures(place):
            expand(place, goal / folder_of(path, taken), limits, check)
    return _local_source(goal, source.description, check) if taken else source


def _opened_hdf5(source: Source, files: list[str], scratch: Path, limits: ArchiveLimits, check: Callable[[], None]) -> Source:
    """Open HDF5 files together, since pictures and labels may lie in two."""
    places = []
    for number, path in enumerate(files):
        check()
        place = Path(source.ref.root) / path
        if not source.ref.is_local:
            place = scratch / f"hdf5-{number}" / path.rpartition("/")[2]
            place.parent.mkdir(parents=True)
            place.write_bytes(source.read(path))
        if hdf5.holds_pictures(place):
            places.append((path, place))
    if not places:
        return source
    hdf5.expand(places, scratch / "arrays", limits, check)
    return _local_source(scratch / "arrays", source.description, check)


def _opened_shards(source: Source, shards: list[str], scratch: Path, limits: ArchiveLimits, check: Callable[[], None]) -> Source:
    """Unpack a folder's WebDataset shards, each into a folder of its name; `classes.txt` beside them comes along."""
    goal = scratch / "shards"
    for path in shards:
        check()
        place = Path(source.ref.root) / path
        if not source.ref.is_local:
            place = scratch / "shard.tar"
            place.write_bytes(source.read(path))
        unpack(place, goal / path[: -len(".tar")], limits, check, name=path)
    for path in source.ending_with("classes.txt"):
        (goal / path).parent.mkdir(parents=True, exist_ok=True)
        (goal / path).write_bytes(source.read(path))
    return _local_source(goal, source.description, check)


def _local_source(root: Path, description: str, check: Callable[[], None]) -> Source:
    files = {}
    skip = len(str(root)) + 1
    for count, file in enumerate(_walk(root)):
        if count % 1024 == 0:
            check()
        # A name that is not UTF-8 cannot be stored; written out in escapes it is not found, and so reported as unreadable.
        relative = file.path[skip:].replace(os.sep, "/")
        if not relative.isascii():
            relative = os.fsencode(relative).decode("utf-8", "backslashreplace")
        try:
            status = file.stat()
        except FileNotFoundError:  # a link that leads nowhere: reading it says so
            status = file.stat(follow_symlinks=False)
        files[relative] = SourceFile(relative, status.st_size, str(status.st_mtime_ns))
    return Source(SourceRef(str(root)), dict(sorted(files.items())), description)


def _walk(root: Path) -> Iterator[os.DirEntry[str]]:
    """Give all files below a folder. Links to files are followed, links to folders are not: they may go in circles."""
    pending = [str(root)]
    while pending:
        with os.scandir(pending.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    if not _ignored(entry.name + "/"):
                        pending.append(entry.path)
                elif not entry.is_dir() and not _ignored(entry.name):
                    yield entry


def _ignored(path: str) -> bool:
    parts = path.lower().split("/")
    return any(part.startswith(".") or part in _IGNORED_FOLDERS for part in parts if part) or parts[-1] in _IGNORED_FILES


def _local_path(uri: str) -> Path | None:
    if uri.startswith("file://"):
        return Path(urllib.parse.unquote(uri.removeprefix("file://")))
    return None if "://" in uri or "::" in uri else Path(uri).expanduser()


def _remote(uri: str) -> tuple[ArtifactStore, str]:
    try:
        return split_uri(uri)
    except OteoError as exc:
        raise InvalidArgument(f"the source {uri!r} cannot be opened: {exc}", reason="BAD_SOURCE_URI", field="source_uri") from exc


def _not_found(uri: str) -> NotFound:
    return NotFound(
        f"there is nothing at {uri}. The path is looked up where the service runs; upload files from another machine with UploadDataset.",
        reason="SOURCE_NOT_FOUND",
        field="source_uri",
    )


def _empty(uri: str) -> InvalidArgument:
    return InvalidArgument(f"there is no file in {uri}", reason="EMPTY_SOURCE", field="source_uri")


def _no_archive(uri: str) -> InvalidArgument:
    return InvalidArgument(
        f"{uri} is a file, and not a .zip, .tar, .tar.gz, .tar.bz2 or .tar.xz archive, .npz or .h5 file. Give the folder that holds the images.",
        reason="UNSUPPORTED_FORMAT",
        field="source_uri",
    )
