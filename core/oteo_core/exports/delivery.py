"""An export job's frame: write, publish, and know on a rerun what was published."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from oteo_core.artifacts import join
from oteo_core.errors import NotFound, from_exception
from oteo_core.exports.destinations import EXPORTS, FIELD, Memory, parse
from oteo_core.exports.sinks import FolderSink, Sink, StoreSink
from oteo_core.jobs import JobContext

MANIFEST = "oteo-export.json"
"""Last file of an export in the artifact store: what it is."""

_FOLDER = "export"
_OUTCOME = "outcome.json"
_LAST_STEP = 0.98


def deliver(context: JobContext[Any, Any], destination_uri: str, write: Callable[[Sink], bytes]) -> tuple[str, bytes]:
    """Write an export where the request wants it; killed and run again, it ends as one run would.

    Parameters
    ----------
    context
        The job.
    destination_uri
        Where to; empty: ``exports/{operation}`` of the artifact store.
    write
        Writes all files into a sink and gives what is to be known of the export, as JSON; not called where an earlier attempt has
        published.

    Returns
    -------
    uri, outcome
        Where it lies, and what `write` gave, in this attempt or in the one that published.

    Raises
    ------
    FailedPrecondition
        ``DESTINATION_NOT_EMPTY``, ``DESTINATION_IN_STORE``, ``READ_ONLY_TARGET``.
    InvalidArgument
        ``BAD_DESTINATION_URI``, ``UNSUPPORTED_FORMAT``.
    ResourceExhausted
        ``DISK_FULL``.
    """
    try:
        return _to_destination(context, destination_uri, write) if destination_uri else _to_store(context, write)
    except OSError as exc:
        error = from_exception(exc)
        if error.reason in ("DISK_FULL", "READ_ONLY_TARGET"):
            error.field = FIELD
        raise error from exc


def _to_destination(context: JobContext[Any, Any], uri: str, write: Callable[[Sink], bytes]) -> tuple[str, bytes]:
    destination = parse(uri, context.artifacts)
    memory = Memory(context.load, context.save)
    earlier = context.load(_OUTCOME)
    if earlier is not None and destination.published(memory):
        return destination.uri, earlier
    try:
        with destination.open(context.operation_id, memory, context.scratch) as sink:
            outcome = write(sink)
        context.progress(_LAST_STEP, "publishing")
        context.save(_OUTCOME, outcome)
        destination.publish(memory)
    except BaseException:
        destination.abandon()
        raise
    return destination.uri, outcome


def _to_store(context: JobContext[Any, Any], write: Callable[[Sink], bytes]) -> tuple[str, bytes]:
    target = f"{EXPORTS}/{context.operation_id}"
    uri = context.artifacts.uri(target)
    try:
        return uri, context.artifacts.read_bytes(f"{target}/{MANIFEST}")
    except NotFound:
        pass
    staging = join(context.staging, _FOLDER)
    context.artifacts.delete(staging)
    with _staged(context, staging) as sink:
        outcome = write(sink)
    context.artifacts.write_bytes(f"{staging}/{MANIFEST}", outcome)
    context.progress(_LAST_STEP, "publishing")
    context.publish(target, MANIFEST, subdir=_FOLDER)
    return uri, outcome


def _staged(context: JobContext[Any, Any], staging: str) -> Sink:
    """Open the staging folder: straight files on a local store, since nothing of it is anybody's yet."""
    uri = context.artifacts.uri(staging)
    return FolderSink(Path(uri.removeprefix("file://"))) if uri.startswith("file://") else StoreSink(context.artifacts, staging)
