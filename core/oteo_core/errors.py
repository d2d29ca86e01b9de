"""Errors that know their status, reason and field.

Handlers and jobs raise these; one interceptor turns them into ``google.rpc.Status`` (AIP-193). No gRPC here, so that
domain code may raise them too.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import ClassVar

from google.protobuf import any_pb2, duration_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2

DOMAIN = "oteo"


class OteoError(Exception):
    """An error with a canonical code and a reason for programs.

    Parameters
    ----------
    message
        What was wrong, where, and what to do.
    reason
        UPPER_SNAKE name of the cause; the class's own where left out.
    field
        Path of the request's field that is to blame, such as ``"source_uri"``.
    metadata
        More for programs: keys and values of ``ErrorInfo.metadata``.
    retry_after
        Seconds after which trying again makes sense.
    """

    code: ClassVar[int] = code_pb2.INTERNAL
    default_reason: ClassVar[str] = "INTERNAL"

    def __init__(
        self,
        message: str,
        *,
        reason: str | None = None,
        field: str | None = None,
        metadata: Mapping[str, str] | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason or self.default_reason
        self.field = field
        self.metadata = dict(metadata or {})
        self.retry_after = retry_after

    def __reduce__(self) -> tuple[object, ...]:
        """Survive pickling between processes with all that it knows."""
        return (_rebuild, (type(self), self.message, self.reason, self.field, self.metadata, self.retry_after))

    def to_status(self) -> status_pb2.Status:
        """Give the error as ``google.rpc.Status`` with ``ErrorInfo`` and, where they apply, ``BadRequest`` and ``RetryInfo``."""
        details: list[any_pb2.Any] = []

        def add(detail: error_details_pb2.ErrorInfo | error_details_pb2.BadRequest | error_details_pb2.RetryInfo) -> None:
            packed = any_pb2.Any()
            packed.Pack(detail)
            details.append(packed)

        add(error_details_pb2.ErrorInfo(reason=self.reason, domain=DOMAIN, metadata=self.metadata))
        if self.field is not None:
            violation = error_details_pb2.BadRequest.FieldViolation(field=self.field, description=self.message, reason=self.reason)
            add(error_details_pb2.BadRequest(field_violations=[violation]))
        if self.retry_after is not None:
            delay = duration_pb2.Duration()
            delay.FromNanoseconds(int(self.retry_after * 1e9))
            add(error_details_pb2.RetryInfo(retry_delay=delay))
        return status_pb2.Status(code=self.code, message=self.message, details=details)


class InvalidArgument(OteoError):
    """The request is wrong whatever the system's state."""

    code = code_pb2.INVALID_ARGUMENT
    default_reason = "INVALID_ARGUMENT"


class NotFound(OteoError):
    """Something that was named is not there."""

    code = code_pb2.NOT_FOUND
    default_reason = "NOT_FOUND"


class AlreadyExists(OteoError):
    """Something that was to be made is there already."""

    code = code_pb2.ALREADY_EXISTS
    default_reason = "ALREADY_EXISTS"


class FailedPrecondition(OteoError):
    """The system's state does not allow it; trying again alone does not help."""

    code = code_pb2.FAILED_PRECONDITION
    default_reason = "FAILED_PRECONDITION"


class PermissionDenied(OteoError):
    """The caller is known and may not."""

    code = code_pb2.PERMISSION_DENIED
    default_reason = "PERMISSION_DENIED"


class Unauthenticated(OteoError):
    """The caller is not known."""

    code = code_pb2.UNAUTHENTICATED
    default_reason = "UNAUTHENTICATED"


class ResourceExhausted(OteoError):
    """A limit is reached: disk, queue, quota, size."""

    code = code_pb2.RESOURCE_EXHAUSTED
    default_reason = "RESOURCE_EXHAUSTED"


class Unavailable(OteoError):
    """Something that is needed does not answer now; try again."""

    code = code_pb2.UNAVAILABLE
    default_reason = "UNAVAILABLE"


class DeadlineExceeded(OteoError):
    """The time was up."""

    code = code_pb2.DEADLINE_EXCEEDED
    default_reason = "DEADLINE_EXCEEDED"


class Cancelled(OteoError):
    """A caller stopped it."""

    code = code_pb2.CANCELLED
    default_reason = "CANCELLED"


class Unimplemented(OteoError):
    """The contract has it and this release has not."""

    code = code_pb2.UNIMPLEMENTED
    default_reason = "UNIMPLEMENTED"


class Internal(OteoError):
    """A fault of Oteo's own."""

    code = code_pb2.INTERNAL
    default_reason = "INTERNAL"


class DataLoss(OteoError):
    """Something that was stored cannot be read any more."""

    code = code_pb2.DATA_LOSS
    default_reason = "DATA_LOSS"


_BY_CODE: dict[int, type[OteoError]] = {
    cls.code: cls
    for cls in (
        InvalidArgument,
        NotFound,
        AlreadyExists,
        FailedPrecondition,
        PermissionDenied,
        Unauthenticated,
        ResourceExhausted,
        Unavailable,
        DeadlineExceeded,
        Cancelled,
        Unimplemented,
        Internal,
        DataLoss,
    )
}


def _rebuild(
    cls: type[OteoError], message: str, reason: str, field: str | None, metadata: dict[str, str], retry_after: float | None
) -> OteoError:
    return cls(message, reason=reason, field=field, metadata=metadata, retry_after=retry_after)


def from_status(status: status_pb2.Status) -> OteoError:
    """Give the error that a status stands for; codes without a class of their own become `Internal`."""
    reason, field, metadata, retry_after = None, None, {}, None
    for detail in status.details:
        info, bad, retry = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
        if detail.Unpack(info):
            reason, metadata = info.reason, dict(info.metadata)
        elif detail.Unpack(bad) and bad.field_violations:
            field = bad.field_violations[0].field
        elif detail.Unpack(retry):
            retry_after = retry.retry_delay.ToNanoseconds() / 1e9
    cls = _BY_CODE.get(status.code, Internal)
    return cls(status.message, reason=reason, field=field, metadata=metadata, retry_after=retry_after)


def from_exception(error: BaseException) -> OteoError:
    """Give the `OteoError` that says what an exception of the system or a library means for a caller.

    A full disk is ``RESOURCE_EXHAUSTED``/``DISK_FULL``, missing memory ``RESOURCE_EXHAUSTED``/``OUT_OF_MEMORY``, a target that cannot be
    written ``FAILED_PRECONDITION``/``READ_ONLY_TARGET``, a missing file ``NOT_FOUND``; what is not known stays `Internal` with the exception's class in
    the metadata and without its text, which may hold data.
    """
    if isinstance(error, OteoError):
        return error
    if isinstance(error, MemoryError):
        return ResourceExhausted("there is not enough memory for this at the moment", reason="OUT_OF_MEMORY")
    if isinstance(error, OSError):
        where = f": {error.filename}" if error.filename else ""
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return ResourceExhausted(f"the disk is full{where}; free some space and try again", reason="DISK_FULL")
        if error.errno == errno.EROFS or isinstance(error, PermissionError):
            return FailedPrecondition(
                f"cannot write or read there{where}; check the file system and its permissions", reason="READ_ONLY_TARGET"
            )
        if isinstance(error, FileNotFoundError):
            return NotFound(f"no such file or folder{where}", reason="FILE_NOT_FOUND")
    return Internal(
        f"an unexpected {type(error).__name__}; the service's log has the details", metadata={"exception": type(error).__name__}
    )
