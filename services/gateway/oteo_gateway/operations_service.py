"""``google.longrunning.Operations`` of all services, by the operation's name.

``operations/{service}-{id}`` says whose it is. Listing merges the services' lists, newest first. Callers see what they began themselves; operators see all.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

import grpc
import structlog
from google.longrunning import operations_pb2, operations_pb2_grpc
from google.protobuf import empty_pb2

from oteo_core.access import Identity
from oteo_core.context import current
from oteo_core.errors import InvalidArgument, NotFound, OteoError, PermissionDenied
from oteo_core.operations import OperationManager
from oteo_core.operations.filters import OperationsFilter
from oteo_core.pagination import decode_token, encode_token, not_ours, page_size
from oteo_gateway.access.table import SEES_ALL_OPERATIONS
from oteo_gateway.forward_service import Backend, abort_like, forwarded_metadata
from oteo_gateway.wire import nested_string
from oteo_protos.gateway.v1 import pipeline_pb2
from oteo_protos.type.v1 import report_pb2

OWN = "gateway"
_MAX_PAGE = 1000
_PREFIX = "operations/"
_LIVE = (report_pb2.Progress.STATE_UNSPECIFIED, report_pb2.Progress.STATE_QUEUED, report_pb2.Progress.STATE_RUNNING)

log = structlog.get_logger(__name__)

Context = grpc.aio.ServicerContext[Any, Any]


def service_of(name: str) -> str:
    """Give the service that an operation's name belongs to: ``operations/automl-…`` gives ``automl``."""
    return name.removeprefix(_PREFIX).partition("-")[0] if name.startswith(_PREFIX) else ""


def sees_all(identity: Identity) -> bool:
    """Say whether a caller may see the operations of others: Oteo's own parts, and the roles that look after all."""
    return identity.kind in ("part", "anonymous") or bool(identity.roles & SEES_ALL_OPERATIONS)


def seen_by(identity: Identity, filter_: str) -> str:
    """Give the filter of a list that holds only what a caller may see."""
    if sees_all(identity):
        return filter_
    wanted = OperationsFilter.read(filter_)
    if wanted.caller not in (None, identity.name):
        raise PermissionDenied(
            "the operations of others are listed for operators alone; leave the caller out of the filter",
            reason="NOT_YOUR_OPERATION",
            field="filter",
        )
    return replace(wanted, caller=identity.name).write()


def check_own(identity: Identity, operation: operations_pb2.Operation) -> None:
    """Refuse an operation that another began: ``NOT_YOUR_OPERATION``."""
    if sees_all(identity):
        return
    # Field 1 of every operation's metadata is its progress, whose field 11 is the caller; the type need not be known here.
    if nested_string(operation.metadata.value, (1, 11)) != identity.name:
        raise PermissionDenied(
            f"{operation.name} was begun by another; operators may see and stop it",
            reason="NOT_YOUR_OPERATION",
            metadata={"operation": operation.name},
        )


class OperationsService(operations_pb2_grpc.OperationsServicer):  # type: ignore[misc, unused-ignore]
    """The operations of every service behind one name.

    Parameters
    ----------
    own
        The gateway's own operations.
    backends
        The services by name.
    """

    def __init__(self, own: OperationManager, backends: Mapping[str, Backend]) -> None:
        self._manager = own
        self._own = own.servicer()
        self._stubs = {name: (backend, operations_pb2_grpc.OperationsStub(backend.channel)) for name, backend in backends.items()}

    async def GetOperation(self, request: operations_pb2.GetOperationRequest, context: Context) -> operations_pb2.Operation:
        """Give an operation."""
        operation: operations_pb2.Operation = await self._route("GetOperation", request, context)
        return operation

    async def WaitOperation(self, request: operations_pb2.WaitOperationRequest, context: Context) -> operations_pb2.Operation:
        """Wait until an operation is done or the time is up, and give it."""
        operation: operations_pb2.Operation = await self._route("WaitOperation", request, context)
        return operation

    async def CancelOperation(self, request: operations_pb2.CancelOperationRequest, context: Context) -> empty_pb2.Empty:
        """Ask an operation to stop; of a pipeline, the step that runs as well, because its job may have no time left to do so."""
        await self._route("CancelOperation", request, context)
        if service_of(request.name) == OWN:
            await self._cancel_steps(request.name, context)
        return empty_pb2.Empty()

    async def _cancel_steps(self, name: str, context: Context) -> None:
        operation = await asyncio.to_thread(self._manager.get, name)
        metadata = pipeline_pb2.RunPipelineMetadata()
        if not operation.metadata.Unpack(metadata):
            return
        for step in metadata.steps:
            if not step.operation or step.progress.state not in _LIVE:
                continue
            try:
                await self._ask(
                    service_of(step.operation), "CancelOperation", operations_pb2.CancelOperationRequest(name=step.operation), context
                )
            except (OteoError, grpc.aio.AioRpcError) as error:
                # The pipeline is cancelled all the same; a step that goes on is seen in its own operation.
                log.warning("step_not_cancelled", pipeline=name, step=step.operation, error=str(error))

    async def DeleteOperation(self, request: operations_pb2.DeleteOperationRequest, context: Context) -> empty_pb2.Empty:
        """Forget an operation that is done."""
        await self._route("DeleteOperation", request, context)
        return empty_pb2.Empty()

    async def ListOperations(
        self, request: operations_pb2.ListOperationsRequest, context: Context
    ) -> operations_pb2.ListOperationsResponse:
        """Give operations of all services, or of one (name ``operations/automl``), newest first.

        A service that is away makes the call fail, unless `return_partial_success` is set: then it is named in ``unreachable``.
        """
        services = self._services(request.name)
        wanted = seen_by(current().identity, request.filter)
        size = page_size(request.page_size, most=_MAX_PAGE)
        places = _places(decode_token(request, request.page_token), services)
        answers = await asyncio.gather(
            *(self._page(service, place, size, wanted, context) for service, place in places.items()), return_exceptions=True
        )
        response = operations_pb2.ListOperationsResponse()
        pages: dict[str, operations_pb2.ListOperationsResponse] = {}
        for service, answer in zip(places, answers, strict=True):
            if isinstance(answer, operations_pb2.ListOperationsResponse):
                pages[service] = answer
            elif isinstance(answer, OteoError) and request.return_partial_success:
                response.unreachable.append(service)
            elif isinstance(answer, grpc.aio.AioRpcError):
                await abort_like(context, answer)
            else:
                raise answer
        # What is older than the end of a service's page may have to wait for that service's next page.
        horizon = max(
            (_age_key(page.operations[-1].name) for page in pages.values() if page.next_page_token and page.operations), default=""
        )
        merged = sorted(
            ((op, service) for service, page in pages.items() for op in page.operations if _age_key(op.name) >= horizon),
            key=lambda item: _age_key(item[0].name),
            reverse=True,
        )[:size]
        response.operations.extend(operation for operation, _ in merged)
        taken = {service: sum(1 for _, owner in merged if owner == service) for service in pages}
        going_on = {
            service: following
            for service, page in pages.items()
            if (following := _following(places[service], len(page.operations), taken[service], page.next_page_token)) is not None
        }
        response.next_page_token = encode_token(request, _position(going_on))
        return response

    def _services(self, name: str) -> list[str]:
        every = [OWN, *self._stubs]
        wanted = name.strip("/").removeprefix("operations").strip("/")
        if not wanted:
            return every
        if wanted not in every:
            raise InvalidArgument(
                f"name must be 'operations' or one of {', '.join(_PREFIX + s for s in every)}, not {name!r}.", field="name"
            )
        return [wanted]

    async def _page(
        self, service: str, place: tuple[str, int], size: int, filter_: str, context: Context
    ) -> operations_pb2.ListOperationsResponse:
        """Fetch a service's next `size` operations from its place: the token of a page and how many of it were given already."""
        token, skip = place
        request = operations_pb2.ListOperationsRequest(
            name="operations", filter=filter_, page_size=min(size + skip, _MAX_PAGE), page_token=token
        )
        page: operations_pb2.ListOperationsResponse = await self._ask(service, "ListOperations", request, context)
        del page.operations[:skip]
        return page

    async def _route(self, method: str, request: Any, context: Context) -> Any:
        service = service_of(request.name)
        if service != OWN and service not in self._stubs:
            raise NotFound(f"There is no operation {request.name!r}.", reason="OPERATION_NOT_FOUND", field="name")
        if not sees_all(current().identity) and method != "GetOperation":
            # Looked at before anything is done to it.
            await self._call(service, "GetOperation", operations_pb2.GetOperationRequest(name=request.name), context)
        return await self._call(service, method, request, context)

    async def _call(self, service: str, method: str, request: Any, context: Context) -> Any:
        """Ask a service; where it answers with an error, end the call with the same."""
        try:
            answer = await self._ask(service, method, request, context)
        except grpc.aio.AioRpcError as error:
            await abort_like(context, error)
            raise
        if isinstance(answer, operations_pb2.Operation):
            check_own(current().identity, answer)
        return answer

    async def _ask(self, service: str, method: str, request: Any, context: Context) -> Any:
        """Ask a service; raises AioRpcError for its own errors and `Unavailable` where it is away."""
        if service == OWN:
            handler: Callable[..., Any] = getattr(self._own, method)
            if asyncio.iscoroutinefunction(handler):
                return await handler(request, context)
            return await asyncio.to_thread(handler, request, context)
        backend, stub = self._stubs[service]
        call: Awaitable[Any] = getattr(stub, method)(request, timeout=current().remaining(), metadata=forwarded_metadata(context, backend))
        try:
            return await call
        except grpc.aio.AioRpcError as error:
            if backend.away(error):
                raise backend.away_error() from error
            raise


def _age_key(name: str) -> str:
    """Sort key by age: the part after the service sorts by time."""
    return name.removeprefix(_PREFIX).partition("-")[2]


def _following(place: tuple[str, int], given: int, taken: int, next_token: str) -> tuple[str, int] | None:
    """Tell where a service's list goes on after `taken` of the `given` operations; None at its end."""
    token, skip = place
    if taken < given:
        return token, skip + taken
    return (next_token, 0) if next_token else None


def _position(places: Mapping[str, tuple[str, int]]) -> str:
    return json.dumps(places) if places else ""


def _places(position: str, services: list[str]) -> dict[str, tuple[str, int]]:
    if not position:
        return dict.fromkeys(services, ("", 0))
    try:
        places = {str(service): (str(place[0]), int(place[1])) for service, place in json.loads(position).items()}
    except (ValueError, TypeError, AttributeError, IndexError, KeyError):
        raise not_ours() from None
    if not set(places) <= set(services) or any(not 0 <= skip < _MAX_PAGE for _, skip in places.values()):
        raise not_ours()
    return places
