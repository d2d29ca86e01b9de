"""Files as the messages of an upload."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from oteo.errors import OteoApiError
from oteo_protos.augment.v1 import dataset_pb2

CHUNK_BYTES = 512 * 1024


def files_of(source: Path) -> list[tuple[Path, str]]:
    """Give the files below a folder, or the one file, with their paths inside the upload; links that leave the folder are refused.

    Raises
    ------
    OteoApiError
        NOT_FOUND, reason SOURCE_NOT_FOUND; INVALID_ARGUMENT, reason EMPTY_SOURCE or UNSAFE_LINK.
    """
    if source.is_file():
        return [(source, source.name)]
    if not source.is_dir():
        raise OteoApiError("NOT_FOUND", f"{source} is not there", reason="SOURCE_NOT_FOUND", field="source_uri")
    root = source.resolve()
    found = []
    for path in sorted(source.rglob("*")):
        relative = path.relative_to(source)
        if not path.is_file() or any(part.startswith(".") for part in relative.parts):
            continue
        if not path.resolve().is_relative_to(root):
            raise OteoApiError(
                "INVALID_ARGUMENT",
                f"{relative} is a link to a place outside {source}; copy the file there",
                reason="UNSAFE_LINK",
                field="source_uri",
            )
        found.append((path, relative.as_posix()))
    if not found:
        raise OteoApiError("INVALID_ARGUMENT", f"{source} holds no files", reason="EMPTY_SOURCE", field="source_uri")
    return found


def upload_requests(
    source: Path, settings: dataset_pb2.ImportDatasetRequest, on_progress: Callable[[int, int], None] | None = None
) -> Iterator[dataset_pb2.UploadDatasetRequest]:
    """Give the messages: settings, then each file's head and chunks."""
    files = files_of(source)
    total = sum(path.stat().st_size for path, _ in files)
    return _messages(files, total, settings, on_progress)


def _messages(
    files: list[tuple[Path, str]],
    total: int,
    settings: dataset_pb2.ImportDatasetRequest,
    on_progress: Callable[[int, int], None] | None,
) -> Iterator[dataset_pb2.UploadDatasetRequest]:
    sent = 0
    yield dataset_pb2.UploadDatasetRequest(settings=settings)
    for path, relative in files:
        size = path.stat().st_size
        yield dataset_pb2.UploadDatasetRequest(file=dataset_pb2.UploadDatasetRequest.File(path=relative, size=size))
        with path.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                yield dataset_pb2.UploadDatasetRequest(chunk=chunk)
                sent += len(chunk)
                if on_progress is not None:
                    on_progress(sent, total)
