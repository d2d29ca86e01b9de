"""Errors that the SDK raises: the service's status with its reason and field."""

from __future__ import annotations

import grpc
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

_LOST_WHILE_WRITING = "Internal error from Core"
"""What grpc.aio says, as INTERNAL, where a stream ended in the moment in which a message was being written: the server's own status is lost then."""


class OteoApiError(Exception):
    """A call was answered with an error.

    Attributes
    ----------
    code
        Canonical code's name, such as ``"INVALID_ARGUMENT"``.
    reason
        UPPER_SNAKE name of the cause, such as ``"SOURCE_NOT_FOUND"``; empty where the service gave none.
    field
        Path of the request's field that is to blame; empty where none is.
    message
        What was wrong, where, and what to do.
    metadata
        More for programs.
    retry_after
        Seconds after which trying again makes sense, or None.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        reason: str = "",
        field: str = "",
        metadata: dict[str, str] | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.reason = reason
        self.field = field
        self.metadata = metadata or {}
        self.retry_after = retry_after

    def __str__(self) -> str:
        """Give one line: reason, field and message."""
        where = f" ({self.field})" if self.field else ""
        return f"{self.reason or self.code}{where}: {self.message}"

    @classmethod
    def from_status(cls, status: status_pb2.Status) -> OteoApiError:
        """Give the error that a ``google.rpc.Status`` stands for."""
        reason, field, metadata, retry_after = "", "", {}, None
        for detail in status.details:
            info, bad, retry = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
            if detail.Unpack(info):
                reason, metadata = info.reason, dict(info.metadata)
            elif detail.Unpack(bad) and bad.field_violations:
                field = bad.field_violations[0].field
            elif detail.Unpack(retry):
                retry_after = retry.retry_delay.ToNanoseconds() / 1e9
        try:
            code = code_pb2.Code.Name(status.code)
        except ValueError:
            code = "UNKNOWN"
        return cls(code, status.message, reason=reason, field=field, metadata=metadata, retry_after=retry_after)

    @classmethod
    def from_rpc(cls, error: grpc.RpcError) -> OteoApiError:
        """Give the error that a failed call stands for."""
        status = rpc_status.from_call(error)
        if status is not None:
            return cls.from_status(status)
        code, details = error.code().name, error.details() or ""
        if (code, details) == ("INTERNAL", _LOST_WHILE_WRITING):
            return cls("UNAVAILABLE", "the connection broke while a message was on its way")
        return cls(code, details)


class OperationFailed(OteoApiError):
    """A long-running operation ended with an error; ``operation`` names it."""

    operation: str = ""
