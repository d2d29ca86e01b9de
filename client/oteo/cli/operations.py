"""``oteo operations``."""

from __future__ import annotations

from typing import Annotated

import typer
from google.protobuf.message import Message
from rich.markup import escape

from oteo.cli import show
from oteo.cli.options import Limit, Timeout
from oteo.cli.progress import detail_of, follow
from oteo.cli.session import Session, command, plain
from oteo.cli.words import duration, moment
from oteo.errors import OteoApiError
from oteo.operations import OperationHandle
from oteo_protos.gateway.v1 import pipeline_pb2

app = typer.Typer(help="Long-running work: watched, waited for, cancelled.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(help="The operation.")]


def _facts(session: Session, handle: OperationHandle[Message]) -> None:
    progress, metadata = handle.progress, handle.metadata
    error = OteoApiError.from_status(handle.operation.error) if handle.operation.HasField("error") else None
    rows = [
        ("operation", handle.name),
        ("kind", metadata.DESCRIPTOR.name.removesuffix("Metadata") if metadata is not None else ""),
        ("state", show.operation_state(handle)),
        ("done", f"{progress.fraction:.0%}"),
        ("stage", "" if handle.done else progress.stage),
        ("now", "" if handle.done else detail_of(metadata) or progress.message),
        ("attempt", str(progress.attempt) if progress.attempt > 1 else ""),
        ("asked for", moment(progress.create_time)),
        ("begun", moment(progress.start_time)),
        ("ended", moment(progress.end_time)),
        ("error", str(error) if error else ""),
    ]
    parts: list[object] = [show.facts(rows)]
    if isinstance(metadata, pipeline_pb2.RunPipelineMetadata):
        parts.append(show.facts([(step.step, f"{step.progress.fraction:.0%} {step.resource} {step.operation}") for step in metadata.steps]))
    session.show(handle.operation, *parts)


@command(app, "list")
def list_(
    session: Session,
    running: Annotated[bool, typer.Option("--running", help="Only those that have not ended.")] = False,
    limit: Limit = 30,
) -> None:
    """List operations, newest first."""
    found = list(session.client.operations.list(done=False if running else None, limit=limit))
    session.show([handle.operation for handle in found], show.operations_table(found) if found else "no operations")


@command(app, "show")
def show_one(session: Session, name: Name) -> None:
    """Show one operation."""
    _facts(session, session.client.operations.get(name))


@command(app, "wait")
def wait(session: Session, name: Name, timeout: Timeout = None) -> None:
    """Wait for an operation's end, with its progress; the exit code says how it ended."""
    handle = session.client.operations.get(name)
    result = follow(session, handle, timeout=timeout)
    if session.as_json:
        session.document({"operation": handle.name, "response": result})
        return
    took = handle.progress.end_time.ToDatetime() - handle.progress.create_time.ToDatetime()
    session.show(None, f"{escape(handle.name)} succeeded after {duration(took.total_seconds())}")
    named = [str(value["name"]) for value in plain(result).values() if isinstance(value, dict) and value.get("name")]
    if named:
        session.show(None, f"made: {escape(', '.join(named))}")


@command(app, "cancel")
def cancel(session: Session, name: Name) -> None:
    """Ask an operation to stop."""
    session.client.operations.cancel(name)
    session.show({"cancelled": name}, f"{name} is asked to stop; `oteo operations wait {name}` says when it has")
