"""An operation as the database knows it, and as callers see it."""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from google.longrunning import operations_pb2
from google.protobuf import any_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError, Message
from google.rpc import status_pb2

from oteo_core.operations.ids import operation_name
from oteo_protos.type.v1 import report_pb2


class State(enum.IntEnum):
    """Life of an operation, as in `oteo.type.v1.Progress`."""

    QUEUED = report_pb2.Progress.STATE_QUEUED
    RUNNING = report_pb2.Progress.STATE_RUNNING
    CANCELLING = report_pb2.Progress.STATE_CANCELLING
    SUCCEEDED = report_pb2.Progress.STATE_SUCCEEDED
    FAILED = report_pb2.Progress.STATE_FAILED
    CANCELLED = report_pb2.Progress.STATE_CANCELLED


DONE = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED})
"""States that do not change any more."""


@dataclass(frozen=True, slots=True)
class OperationRow:
    """One row. Times are seconds since 1970 by the database's clock."""

    id: str
    service: str
    method: str
    caller: str
    request_id: str
    request_digest: str
    request: bytes
    """The request, serialised."""
    resource: str
    external: bool
    """Whether somebody else than a job does the work."""
    state: State
    attempt: int
    """How often the job was started."""
    submitted: bool
    """Whether the job of this attempt was handed over."""
    lease_owner: str
    lease_expires: float
    cleanup: tuple[str, ...]
    """Artifact prefixes that are deleted when the operation ends."""
    metadata: bytes
    """`google.protobuf.Any`, serialised."""
    response: bytes | None
    """`google.protobuf.Any`, serialised."""
    error: bytes | None
    """`google.rpc.Status`, serialised."""
    create_time: float
    start_time: float | None
    update_time: float
    cancel_time: float | None
    end_time: float | None
    deadline: float | None
    sweep_time: float | None
    """When what a late writer may have left is deleted."""
    traceparent: str
    """Place in the trace of the call that began it, as W3C writes it; empty where it was in none."""

    @classmethod
    def from_mapping(cls, row: Mapping[Any, Any]) -> OperationRow:
        """Read a row of the table."""
        values = dict(row)
        values["state"] = State(values["state"])
        values["cleanup"] = tuple(json.loads(values["cleanup"]))
        for name in ("request", "metadata", "response", "error"):
            if values[name] is not None:
                values[name] = bytes(values[name])
        return cls(**values)

    @property
    def done(self) -> bool:
        """Whether it has ended."""
        return self.state in DONE

    def to_proto(self, metadata: bytes | None = None) -> operations_pb2.Operation:
        """Give the operation as callers see it.

        Parameters
        ----------
        metadata
            Fresher metadata than the row's (`google.protobuf.Any`, serialised).
        """
        operation = operations_pb2.Operation(name=operation_name(self.id), done=self.done)
        operation.metadata.CopyFrom(self._typed_metadata(metadata or self.metadata))
        if self.state is State.SUCCEEDED and self.response is not None:
            operation.response.ParseFromString(self.response)
        elif self.done and self.error is not None:
            operation.error.CopyFrom(status_pb2.Status.FromString(self.error))
        return operation

    def _typed_metadata(self, serialised: bytes) -> any_pb2.Any:
        packed = any_pb2.Any.FromString(serialised)
        message = unpack(packed)
        if message is None or "progress" not in message.DESCRIPTOR.fields_by_name:
            return packed
        progress: report_pb2.Progress = getattr(message, "progress")  # noqa: B009 (field 1 of every metadata message)
        progress.MergeFrom(report_pb2.Progress(state=f"STATE_{self.state.name}"))
        progress.attempt = self.attempt
        progress.caller = self.caller
        progress.create_time.FromDatetime(_datetime(self.create_time))
        if self.start_time is not None:
            progress.start_time.FromDatetime(_datetime(self.start_time))
        if not progress.HasField("update_time"):
            progress.update_time.FromDatetime(_datetime(self.update_time))
        if self.end_time is not None:
            progress.end_time.FromDatetime(_datetime(self.end_time))
            progress.ClearField("predicted_end_time")
        if self.state is State.SUCCEEDED:
            progress.fraction = 1.0
        result = any_pb2.Any()
        result.Pack(message)
        return result


def _datetime(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def pack(message: Message) -> bytes:
    """Give a message as a serialised `google.protobuf.Any`; one that is an Any already is not packed again."""
    if isinstance(message, any_pb2.Any):
        return message.SerializeToString()
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed.SerializeToString(deterministic=True)


def unpack(packed: any_pb2.Any) -> Message | None:
    """Give the message inside, or None where its type is not known in this process or its bytes are broken."""
    name = packed.type_url.rsplit("/", 1)[-1]
    if not name:
        return None
    try:
        descriptor = descriptor_pool.Default().FindMessageTypeByName(name)
        return message_factory.GetMessageClass(descriptor).FromString(packed.value)
    except (KeyError, DecodeError):
        return None


__all__ = ["DONE", "OperationRow", "State", "pack", "unpack"]
