"""``google.longrunning.Operations``."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from google.longrunning import operations_pb2, operations_pb2_grpc
from google.protobuf import empty_pb2

from oteo_core.errors import InvalidArgument
from oteo_core.operations.filters import OperationsFilter
from oteo_core.operations.manager import OperationManager
from oteo_core.pagination import decode_token, encode_token, page_size

_POLL_SECONDS = 0.2
_MARGIN_SECONDS = 0.2
"""Time kept before a call's deadline, so that the answer arrives within it."""


class OperationsServicer(operations_pb2_grpc.OperationsServicer):  # type: ignore[misc, unused-ignore]
    """The operations of one service, by name (AIP-151)."""

    def __init__(self, manager: OperationManager) -> None:
        self._manager = manager

    def GetOperation(self, request: operations_pb2.GetOperationRequest, context: Any) -> operations_pb2.Operation:
        """Give an operation with its newest metadata."""
        return self._manager.get(request.name)

    def ListOperations(self, request: operations_pb2.ListOperationsRequest, context: Any) -> operations_pb2.ListOperationsResponse:
        """Give operations, newest first, a page at a time (AIP-158); `OperationsFilter` says what `filter` may be."""
        if request.name not in ("", "operations"):
            raise InvalidArgument("name must be empty or 'operations'", reason="INVALID_NAME", field="name")
        if request.page_size < 0:
            raise InvalidArgument("page_size must not be negative", reason="INVALID_PAGE_SIZE", field="page_size")
        size = page_size(request.page_size)
        wanted = OperationsFilter.read(request.filter)
        rows = self._manager.store.page(
            self._manager.service,
            size=size + 1,
            before=decode_token(request, request.page_token),
            done=wanted.done,
            caller=wanted.caller,
        )
        response = operations_pb2.ListOperationsResponse(operations=[row.to_proto() for row in rows[:size]])
        if len(rows) > size:
            response.next_page_token = encode_token(request, rows[size - 1].id)
        return response

    def CancelOperation(self, request: operations_pb2.CancelOperationRequest, context: Any) -> empty_pb2.Empty:
        """Ask for an operation's end; again and again is no error."""
        self._manager.cancel(request.name)
        return empty_pb2.Empty()

    def DeleteOperation(self, request: operations_pb2.DeleteOperationRequest, context: Any) -> empty_pb2.Empty:
        """Delete an operation that has ended."""
        self._manager.delete(request.name)
        return empty_pb2.Empty()

    async def WaitOperation(self, request: operations_pb2.WaitOperationRequest, context: Any) -> operations_pb2.Operation:
        """Give the operation when it has ended, or as it is when `timeout` or the call's deadline is near."""
        limits = []
        if request.HasField("timeout"):
            limits.append(request.timeout.ToNanoseconds() / 1e9)
        remaining = context.time_remaining()
        if remaining is not None:
            limits.append(remaining - _MARGIN_SECONDS)
        end = time.monotonic() + min(limits) if limits else None
        while True:
            # A caller who has gone cancels this coroutine at the next await.
            row = await asyncio.to_thread(self._manager.row, request.name)
            left = None if end is None else end - time.monotonic()
            if row.done or (left is not None and left <= 0):
                return await asyncio.to_thread(self._manager.fresh, row)
            await asyncio.sleep(_POLL_SECONDS if left is None else min(_POLL_SECONDS, left))
